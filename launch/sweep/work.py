"""A sweep at work in its folder: what is unfinished is done, and what each unit took is noted."""

from __future__ import annotations

import contextlib
import fcntl
import pathlib
import sys
import time
from collections.abc import Iterator, Sequence

from launch.host import files, provenance
from launch.host.errors import InputError
from launch.host.progress import Progress
from launch.runs.folder import RunFolder
from launch.sweep.executors import local as sweep_local
from launch.sweep.executors.worker import Reply, peak_memory_gib
from launch.sweep.plan import Unit


@contextlib.contextmanager
def alone(out: pathlib.Path) -> Iterator[None]:
    """Makes the folder, and keeps other sweeps out of it.

    Raises:
      InputError: if it can't be made, or another sweep runs in it.
    """
    try:
        (out / "units").mkdir(parents=True, exist_ok=True)
        lock = (out / ".lock").open("w")
    except OSError as error:
        raise InputError(f"--run_dir: expected a folder that can be made, found {error.strerror} at {out}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"--run_dir: expected a folder that no other sweep works in, found one in {out}"
            ) from error
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
        files.write_json(self._path, self._content)


def unfinished(plan: Sequence[Unit], out: pathlib.Path) -> list[Unit]:
    """The units that have no summary yet."""
    return [unit for unit in plan if not RunFolder(out / "units" / unit.folder).finished]


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
