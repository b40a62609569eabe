"""Runs a training for every combination of flag values and many seeds, and says which differences are real.

`python -m launch.sweep --flagfile=expC.flags --grid=k_best=1,5,10,20 --seeds=10` (docs/sweeps.md). What is finished
under --run_dir isn't computed again, what was interrupted goes on, and what is added is all that is computed.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags

from launch.host import errors
from launch.host.errors import InputError
from launch.inputs.flags import define_agent, define_given_agent
from launch.runs.folder import failures
from launch.sweep import axes as sweep_axes
from launch.sweep import collect as sweep_collect
from launch.sweep import plan as sweep_plan
from launch.sweep import report as sweep_report
from launch.sweep import search as sweep_search
from launch.sweep.axes import Assignment, Axis
from launch.sweep.executors import local as sweep_local
from launch.sweep.plan import Point
from launch.sweep.search import Trial, Value
from launch.sweep.work import alone, run_units, unfinished

FLAGS = flags.FLAGS
_GRID = flags.DEFINE_multi_string(
    "grid", [], "An axis, FLAG=VALUES: a list (a,b,c), LOW:HIGH:STEP or log:LOW:HIGH:COUNT. Give it once for each axis."
)
_FILE = flags.DEFINE_string("sweep_file", "", "TOML file with [flags] and [grid] or several [[grid]] (docs/sweeps.md).")
_SEARCH = flags.DEFINE_enum(
    "search",
    "grid",
    ["grid", "random", "optuna"],
    "grid: every combination. random, optuna: --trials settings; then an axis may be an interval (0:0.9, log:1e-4:1).",
)
_TRIALS = flags.DEFINE_integer("trials", 20, "Settings that random and Optuna's search try.")
_SAMPLER = flags.DEFINE_enum("sampler", "tpe", sweep_search.SAMPLERS, "Of Optuna's search.")
_BATCH = flags.DEFINE_integer("trials_at_once", 4, "Settings that Optuna chooses at once, before it sees how they do.")
_SEARCH_SEED = flags.DEFINE_integer("search_seed", 0, "Of random and Optuna's search.")
_EXECUTOR = flags.DEFINE_enum(
    "executor", "local", ["local", "ray"], "Where runs are done: this machine, a Ray cluster."
)
_RAY = flags.DEFINE_string("ray_address", "", "Of the Ray cluster (HOST:PORT, auto); default: one on this machine.")
_WORKERS = flags.DEFINE_integer("workers", 0, "Runs at the same time; 0: as many as there are cores.")
_KEEP = flags.DEFINE_bool("keep_checkpoints", False, "Keep what was learned (launch.evaluate), 1 to 2 MB a seed.")
_REPORT_ONLY = flags.DEFINE_bool("report_only", False, "Make the report from what is finished, and run nothing.")

SHARED = ("seeds", "first_seed", "lanes", "checkpoint_epochs")  # flags of a sweep file that are no axes


def _check_flags() -> None:
    """Refuses flags of a single training that a sweep would ignore, and values out of range."""
    ignored = set(sweep_plan.NO_AXES) - set(sweep_plan.OWN_FLAGS)
    for name in sorted(ignored):
        if FLAGS[name].present:
            raise InputError(f"--{name}: expected with launch.train, found with launch.sweep")
    for name, low in (("workers", 0), ("trials", 1), ("trials_at_once", 1), ("search_seed", 0)):
        if int(FLAGS[name].value or 0) < low:
            raise InputError(f"--{name}: expected at least {low}, found {FLAGS[name].value}")
    for name in ("trials", "search_seed"):
        if FLAGS[name].present and _SEARCH.value == "grid":
            raise InputError(f"--{name}: expected with --search=random or optuna, found with --search=grid")
    for name in ("sampler", "trials_at_once"):
        if FLAGS[name].present and _SEARCH.value != "optuna":
            raise InputError(f"--{name}: expected with --search=optuna, found with --search={_SEARCH.value}")
    if _RAY.value and _EXECUTOR.value != "ray":
        raise InputError(f"--ray_address: expected with --executor=ray, found with --executor={_EXECUTOR.value}")


def _slots(out: pathlib.Path) -> Sequence[sweep_local.Slot]:
    if _EXECUTOR.value == "ray":
        from launch.sweep.executors import ray_cluster as sweep_ray  # here: Ray is optional

        return sweep_ray.slots(_RAY.value, _WORKERS.value, out / "units", FLAGS.checkpoint_epochs, _KEEP.value)
    every, keep = FLAGS.checkpoint_epochs, _KEEP.value
    return [
        sweep_local.ProcessSlot(out / "units", out / f"worker-{number}.log", every, keep, f"local-{number}")
        for number in range(_WORKERS.value or len(os.sched_getaffinity(0)))
    ]


class Sweep:
    """The trainings that were asked for so far."""

    def __init__(self, out: pathlib.Path, slots: Sequence[sweep_local.Slot]) -> None:
        self.out, self.slots = out, slots
        self.plan: list[Point] = []
        self.failed: dict[str, str] = {}

    def run(self, plan: Sequence[Point]) -> None:
        """Does what isn't finished of some points (nothing, if there is no slot)."""
        self.plan += plan
        if self.slots:
            self.failed |= run_units(sweep_plan.all_units(plan), self.out, self.slots)

    def values(self, settings: Sequence[Assignment], tasks: Sequence[Assignment]) -> list[Value]:
        """Expected running time of each setting over the tasks, and how many of its runs got there."""
        found: list[Value] = []
        for setting in settings:
            plan = sweep_plan.points([{**setting, **task} for task in tasks])
            runs = sweep_collect.read_runs(plan, self.out / "units")
            each = [runs[point.name] for point in plan]
            every = [run for one in each for run in one]
            reached = sum(run.summary.steps_to_optimal is not None for run in every)
            whole = all(len(one) == len(point.settings.seeds) for one, point in zip(each, plan, strict=True))
            found.append((sweep_search.expected_running_time(each) if whole else None, reached, len(every)))
        return found


ABOUT = (
    "Trials by *expected running time*: the real steps that all runs took, up to the optimum or to their end, over the "
    "number of runs that got there; over several tasks the geometric mean. "
)


def _grids() -> tuple[tuple[sweep_axes.Grid, ...], dict[str, str]]:
    """The grids that the flags and the sweep file ask for, and the flags that the file shares."""
    axes = sweep_axes.from_flags(_GRID.value)
    shared: dict[str, str] = {}
    grids: tuple[sweep_axes.Grid, ...] = ()
    if _FILE.value:
        shared, grids = sweep_axes.from_file(pathlib.Path(_FILE.value))
    every = [*axes, *(axis for grid in grids for axis in grid.axes)]
    named = [value for axis in every if axis.name == "agent" for value in axis.values]
    for agent in {*named, shared.get("agent", FLAGS.agent)}:
        define_agent(agent)
    if _FILE.value:
        sweep_plan.check_names(sorted(shared.keys() - set(SHARED)))
    # The command line goes before the file.
    return sweep_axes.combined(grids, axes), {name: text for name, text in shared.items() if not FLAGS[name].present}


def _search_axes(grids: Sequence[sweep_axes.Grid]) -> tuple[list[Axis], list[Assignment]]:
    if len(grids) != 1:
        raise InputError(f"--search={_SEARCH.value}: expected one [grid] in the sweep file, found {len(grids)}")
    sweep_plan.check_names([axis.name for axis in grids[0].axes])
    return sweep_search.split(grids[0].axes)


@contextlib.contextmanager
def _sweep(out: pathlib.Path) -> Iterator[Sweep]:
    """A sweep at work, or with --report_only one that does nothing."""
    if _REPORT_ONLY.value:
        yield Sweep(out, ())
        return
    with alone(out):
        slots = _slots(out)
        try:
            yield Sweep(out, slots)
        finally:
            for slot in slots:
                slot.close()


def _run(grids: Sequence[sweep_axes.Grid], out: pathlib.Path) -> tuple[Sweep, dict[str, Any]]:
    """Checks everything, then runs it. Returns the sweep and how its settings were chosen."""
    if _SEARCH.value == "grid":
        plan = sweep_plan.points(sweep_axes.grid_assignments(grids))
        with _sweep(out) as sweep:
            sweep.run(plan)
        return sweep, dict(sweep_report.GRID)
    axes, tasks = _search_axes(grids)
    if _SEARCH.value == "random":
        settings = sweep_search.random_settings(axes, _TRIALS.value, _SEARCH_SEED.value)
        plan = sweep_plan.points([{**setting, **task} for setting in settings for task in tasks])
        with _sweep(out) as sweep:
            sweep.run(plan)
        trials = [
            Trial(number, setting, *value)
            for number, (setting, value) in enumerate(zip(settings, sweep.values(settings, tasks), strict=True))
        ]
        return sweep, sweep_search.as_json("random", trials, f"{ABOUT}{len(trials)} settings were drawn at random.")
    sweep_plan.points([{**setting, **task} for setting in sweep_search.ends(axes) for task in tasks])
    sampler = sweep_search.sampler(_SAMPLER.value, _SEARCH_SEED.value)
    with _sweep(out) as sweep:

        def run(settings: list[Assignment]) -> list[Value]:
            sweep.run(sweep_plan.points([{**setting, **task} for setting in settings for task in tasks]))
            return sweep.values(settings, tasks)

        trials = sweep_search.optuna_trials(axes, _TRIALS.value, sampler=sampler, batch=_BATCH.value, run=run)
    chosen = f"Optuna's {_SAMPLER.value} sampler chose {len(trials)} settings, {_BATCH.value} at a time."
    return sweep, sweep_search.as_json("optuna", trials, ABOUT + chosen)


def _command() -> str:
    """What runs this sweep again."""
    given = [one for one in sys.argv[1:] if "report_only" not in one]
    return shlex.join(["python", "-m", "launch.sweep", *given])


def main() -> int:
    """Runs the sweep that the flags ask for, and writes its report."""
    _check_flags()
    grids, shared = _grids()
    out = pathlib.Path(FLAGS.run_dir or "runs/sweep")
    with sweep_plan.given(shared):
        try:
            sweep, search = _run(grids, out)
        except KeyboardInterrupt:
            print("interrupted; the same command goes on from here", file=sys.stderr)
            return 130
    work = sweep_plan.all_units(sweep.plan)
    if _REPORT_ONLY.value and len(unfinished(work, out)) == len(work):
        raise InputError(f"--report_only: expected finished units of this sweep, found none in {out}")
    axes = list({axis.name: axis for grid in grids for axis in grid.axes}.values())
    sweep.failed |= failures({unit.folder: out / "units" / unit.folder for unit in work})
    report = sweep_report.build(sweep.plan, out, command=_command(), axes=axes, failed=sweep.failed, search=search)
    sweep_report.write(report, out)
    for line in sweep_report.summary_lines(report):
        print(line)
    for folder, why in sweep.failed.items():
        print(f"not done: {folder}: {why}", file=sys.stderr)
    print(f"report: {out / 'report.html'} (also report.md, report.json, settings.csv, comparisons.csv, runs.csv)")
    return 1 if sweep.failed else 0


if __name__ == "__main__":
    errors.run(main, define_given_agent)
