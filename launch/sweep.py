"""Runs a training for every combination of flag values and many seeds, and says which differences are real.

`python -m launch.sweep --flagfile=expC.flags --grid=k_best=1,5,10,20 --seeds=10` (docs/sweeps.md). What is finished
under --out isn't computed again, what was interrupted goes on, and what is added is all that is computed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import shlex
import sys
import time
from collections.abc import Iterator, Sequence

from absl import flags

from launch import errors, provenance, sweep_axes, sweep_local, sweep_plan, sweep_report, units
from launch.checkpoints import write_atomically
from launch.errors import InputError
from launch.progress import Progress
from launch.sweep_plan import Point, Unit
from launch.sweep_worker import Reply, peak_memory_gib

FLAGS = flags.FLAGS
_GRID = flags.DEFINE_multi_string(
    "grid", [], "An axis, FLAG=VALUES: a list (a,b,c), LOW:HIGH:STEP or log:LOW:HIGH:COUNT. Give it once for each axis."
)
_FILE = flags.DEFINE_string("sweep_file", "", "TOML file with [flags] and [grid] or several [[grid]] (docs/sweeps.md).")
_OUT = flags.DEFINE_string("out", "runs/sweep", "The sweep's folder: runs, report, log.")
_WORKERS = flags.DEFINE_integer("workers", 0, "Runs at the same time; 0: as many as there are cores.")
_KEEP = flags.DEFINE_bool("keep_checkpoints", False, "Keep what was learned (launch.evaluate), 1 to 2 MB a seed.")
_REPORT_ONLY = flags.DEFINE_bool("report_only", False, "Make the report from what is finished, and run nothing.")


def _check_flags() -> None:
    """Refuses flags of a single training that a sweep would ignore, and values out of range."""
    ignored = set(sweep_plan.NO_AXES) - set(sweep_plan.OWN_FLAGS)
    for name in sorted(ignored):
        if FLAGS[name].present:
            raise InputError(f"--{name}: expected with launch.train, found with launch.sweep")
    if _WORKERS.value < 0:
        raise InputError(f"--workers: expected at least 0, found {_WORKERS.value}")


@contextlib.contextmanager
def _alone(out: pathlib.Path) -> Iterator[None]:
    """Makes the folder, and keeps other sweeps out of it.

    Raises:
      InputError: if it can't be made, or another sweep runs in it.
    """
    try:
        (out / "units").mkdir(parents=True, exist_ok=True)
        lock = (out / ".lock").open("w")
    except OSError as error:
        raise InputError(f"--out: expected a folder that can be made, found {error.strerror} at {out}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"--out: expected a folder that no other sweep works in, found one in {out}") from error
        yield


class Log:
    """What each unit took and of which commit it is, in log.json; it outlives the call."""

    def __init__(self, out: pathlib.Path) -> None:
        self._path, self._commit = out / "log.json", provenance.commit()
        self._content = provenance.read_log(out)

    def note(self, unit: Unit, wall_s: float, memory_gib: float) -> None:
        """Adds a unit that is done."""
        entry = self._content["units"].setdefault(unit.folder, {"wall_s": 0.0})
        entry["wall_s"] += wall_s
        entry["commit"] = self._commit
        self._content["peak_memory_gib"] = max(self._content["peak_memory_gib"], memory_gib)
        write_atomically(self._path, (json.dumps(self._content, indent=1) + "\n").encode())


def unfinished(plan: Sequence[Unit], out: pathlib.Path) -> list[Unit]:
    """The units that have no summary yet."""
    return [unit for unit in plan if units.finished(out / "units" / unit.folder) is None]


def run_units(plan: Sequence[Unit], out: pathlib.Path, slots: Sequence[sweep_local.Slot]) -> dict[str, str]:
    """Does every unit that isn't finished. Returns why, of each that can't be done.

    Raises:
      KeyboardInterrupt: after the workers have checkpointed.
    """
    waiting = unfinished(plan, out)
    if len(waiting) < len(plan):
        print(f"{len(plan) - len(waiting)} of {len(plan)} units of work are finished already", file=sys.stderr)
    log, failed, memory, start = Log(out), {}, {}, time.perf_counter()
    count = 0

    with Progress(len(plan), len(plan) - len(waiting), "sweep", "unit") as progress:

        def done(unit: Unit, reply: Reply) -> None:
            nonlocal count
            count += 1
            if reply.error:
                failed[unit.folder] = reply.error
                print(f"{unit.folder} failed: {reply.error}", file=sys.stderr, flush=True)
            else:
                memory[reply.worker] = reply.peak_memory_gib
                log.note(unit, reply.wall_s, peak_memory_gib() + sum(memory.values()))
            left_s = (time.perf_counter() - start) / count * (len(waiting) - count)
            progress.advance(1, f"about {left_s / 60.0:.0f} min left, last {unit.folder}")

        def lost(unit: Unit, why: str) -> None:
            print(f"{unit.folder}: {why}; it is done again", file=sys.stderr, flush=True)

        sweep_local.run_all(waiting, slots, done, lost)
    return failed


def _slots(out: pathlib.Path, waiting: int) -> list[sweep_local.Slot]:
    count = min(_WORKERS.value or len(os.sched_getaffinity(0)), waiting)
    every, keep = FLAGS.checkpoint_epochs, _KEEP.value
    return [
        sweep_local.ProcessSlot(out / "units", out / f"worker-{number}.log", every, keep, f"local-{number}")
        for number in range(count)
    ]


def _plan() -> tuple[tuple[sweep_axes.Grid, ...], list[Point]]:
    """The grids and points that the flags and the sweep file ask for, all checked."""
    axes = sweep_axes.from_flags(_GRID.value)
    shared: dict[str, str] = {}
    grids: tuple[sweep_axes.Grid, ...] = ()
    if _FILE.value:
        shared, grids = sweep_axes.from_file(pathlib.Path(_FILE.value))
        sweep_plan.check_names(sorted(shared.keys() - {"seeds", "first_seed", "lanes"}))
    combined = sweep_axes.combined(grids, axes)
    # The command line goes before the file.
    with sweep_plan.given({name: text for name, text in shared.items() if not FLAGS[name].present}):
        return combined, sweep_plan.points(sweep_axes.grid_assignments(combined))


def _command() -> str:
    """What runs this sweep again."""
    given = [one for one in sys.argv[1:] if "report_only" not in one]
    return shlex.join(["python", "-m", "launch.sweep", *given])


def main() -> int:
    """Runs the sweep that the flags ask for, and writes its report."""
    _check_flags()
    grids, plan = _plan()
    out = pathlib.Path(_OUT.value)
    work = sweep_plan.all_units(plan)
    failed: dict[str, str] = {}
    if _REPORT_ONLY.value:
        if len(unfinished(work, out)) == len(work):
            raise InputError(f"--report_only: expected finished units of this sweep, found none in {out}")
    else:
        with _alone(out):
            try:
                failed = run_units(work, out, _slots(out, len(unfinished(work, out))))
            except KeyboardInterrupt:
                print("interrupted; the same command goes on from here", file=sys.stderr)
                return 130
    axes = list({axis.name: axis for grid in grids for axis in grid.axes}.values())
    report = sweep_report.build(plan, out, command=_command(), axes=axes, failed=failed)
    sweep_report.write(report, out)
    for line in sweep_report.summary_lines(report):
        print(line)
    for folder, why in failed.items():
        print(f"not done: {folder}: {why}", file=sys.stderr)
    print(f"report: {out / 'report.html'} (also report.md, report.json, settings.csv, comparisons.csv, runs.csv)")
    return 1 if failed else 0


if __name__ == "__main__":
    errors.run(main)
