"""Runs a training for every combination of flag values and many seeds, and says which differences are real.

`python -m launch.sweep --flagfile=expC.flags --grid=k_best=1,5,10,20 --seeds=10` (docs/sweeps.md). What is finished
under --run_dir isn't computed again, what was interrupted goes on, and what is added is all that is computed.
"""

from __future__ import annotations

import pathlib
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from absl import flags

from launch.host import errors
from launch.host.errors import InputError
from launch.inputs.flags import define_agent, define_given_agent, given
from launch.runs.folder import failures
from launch.sweep import axes, collect, page, plan, report, search, work
from launch.sweep.executors import EXECUTORS
from launch.sweep.executors.slots import Asked

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
_SAMPLER = flags.DEFINE_enum("sampler", "tpe", search.SAMPLERS, "Of Optuna's search.")
_BATCH = flags.DEFINE_integer("trials_at_once", 4, "Settings that Optuna chooses at once, before it sees how they do.")
_SEARCH_SEED = flags.DEFINE_integer("search_seed", 0, "Of random and Optuna's search.")
_EXECUTOR = flags.DEFINE_string(
    "executor", "local", f"Where runs are done, {' or '.join(EXECUTORS)}: this machine, or a Ray cluster."
)
_WORKERS = flags.DEFINE_integer("workers", 0, "Runs at the same time; 0: as many as there are cores.")
_KEEP = flags.DEFINE_bool("keep_checkpoints", False, "Keep what was learned (launch.evaluate), 1 to 2 MB a seed.")
_REPORT_ONLY = flags.DEFINE_bool("report_only", False, "Make the report from what is finished, and run nothing.")

SHARED = ("seeds", "first_seed", "lanes", "checkpoint_epochs")  # flags of a sweep file that are no axes


def _check_flags() -> None:
    """Refuses flags of a single training that a sweep would ignore, and values out of range."""
    ignored = set(plan.NO_AXES) - set(plan.OWN_FLAGS)
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
    if _EXECUTOR.value not in EXECUTORS:
        raise InputError(f"--executor: expected one of {', '.join(EXECUTORS)}, found {_EXECUTOR.value!r}")
    for executor, made in EXECUTORS.items():
        for name in made.flags:
            if FLAGS[name].present and executor != _EXECUTOR.value:
                raise InputError(
                    f"--{name}: expected with --executor={executor}, found with --executor={_EXECUTOR.value}"
                )


ABOUT = (
    "Trials by *expected running time*: the real steps that all runs took, up to the optimum or to their end, over the "
    "number of runs that got there; over several tasks the geometric mean. "
)


def _grids() -> tuple[tuple[axes.Grid, ...], dict[str, str]]:
    """The grids that the flags and the sweep file ask for, and the flags that the file shares."""
    asked = axes.from_flags(_GRID.value)
    shared: dict[str, str] = {}
    grids: tuple[axes.Grid, ...] = ()
    if _FILE.value:
        shared, grids = axes.from_file(pathlib.Path(_FILE.value))
    every = [*asked, *(axis for grid in grids for axis in grid.axes)]
    named = [value for axis in every if axis.name == "agent" for value in axis.values]
    for agent in (*named, shared.get("agent", FLAGS.agent)):
        define_agent(agent)
    if _FILE.value:
        plan.check_names(sorted(shared.keys() - set(SHARED)))
    # The command line goes before the file.
    return axes.combined(grids, asked), {name: text for name, text in shared.items() if not FLAGS[name].present}


def _sweeping(out: pathlib.Path) -> AbstractContextManager[work.Sweep]:
    executor = None if _REPORT_ONLY.value else EXECUTORS[_EXECUTOR.value]
    return work.sweeping(executor, Asked(out, _WORKERS.value, FLAGS.checkpoint_epochs, _KEEP.value))


Searched = tuple[work.Sweep, report.Search]  # what was run, and how it was chosen


def _grid(grids: Sequence[axes.Grid], out: pathlib.Path) -> Searched:
    points = plan.points(axes.grid_assignments(grids))
    with _sweeping(out) as sweep:
        sweep.run(points)
    return sweep, report.GRID


def _split(grids: Sequence[axes.Grid]) -> tuple[list[axes.Axis], list[axes.Assignment]]:
    """The axes of a search, and its tasks."""
    if len(grids) != 1:
        raise InputError(f"--search={_SEARCH.value}: expected one [grid] in the sweep file, found {len(grids)}")
    plan.check_names([axis.name for axis in grids[0].axes])
    return search.split(grids[0].axes)


def _random(grids: Sequence[axes.Grid], out: pathlib.Path) -> Searched:
    searched, tasks = _split(grids)
    settings = search.random_settings(searched, _TRIALS.value, _SEARCH_SEED.value)
    work.in_tasks(settings, tasks)  # before the folder is made
    with _sweeping(out) as sweep:
        worth = sweep.try_out(settings, tasks)
    trials = [search.Trial(number, *both) for number, both in enumerate(zip(settings, worth, strict=True))]
    return sweep, search.reported("random", trials, f"{ABOUT}{len(trials)} settings were drawn at random.")


def _optuna(grids: Sequence[axes.Grid], out: pathlib.Path) -> Searched:
    searched, tasks = _split(grids)
    work.in_tasks(search.ends(searched), tasks)
    sampler = search.sampler(_SAMPLER.value, _SEARCH_SEED.value)
    with _sweeping(out) as sweep:

        def run(settings: list[axes.Assignment]) -> list[search.Worth]:
            return sweep.try_out(settings, tasks)

        trials = search.optuna_trials(searched, _TRIALS.value, sampler=sampler, batch=_BATCH.value, run=run)
    chosen = f"Optuna's {_SAMPLER.value} sampler chose {len(trials)} settings, {_BATCH.value} at a time."
    return sweep, search.reported("optuna", trials, ABOUT + chosen)


# Each checks everything, then runs it.
SEARCHES: dict[str, Callable[[Sequence[axes.Grid], pathlib.Path], Searched]] = {
    "grid": _grid,
    "random": _random,
    "optuna": _optuna,
}


def _command() -> str:
    """What runs this sweep again."""
    asked = [one for one in sys.argv[1:] if "report_only" not in one]
    return shlex.join(["python", "-m", "launch.sweep", *asked])


def main() -> int:
    """Runs the sweep that the flags ask for, and writes its report."""
    _check_flags()
    grids, shared = _grids()
    out = pathlib.Path(FLAGS.run_dir or "runs/sweep")
    with given(shared):
        try:
            sweep, chosen = SEARCHES[_SEARCH.value](grids, out)
        except KeyboardInterrupt:
            print("interrupted; the same command goes on from here", file=sys.stderr)
            return 130
    units = plan.all_units(sweep.plan)
    if _REPORT_ONLY.value and len(work.unfinished(units, out)) == len(units):
        raise InputError(f"--report_only: expected finished units of this sweep, found none in {out}")
    failed = sweep.failed | failures({unit.folder: unit.run_folder(out).path for unit in units})
    varied = list({axis.name: axis for grid in grids for axis in grid.axes}.values())
    made = collect.build(sweep.plan, out, command=_command(), axes=varied, failed=failed, search=chosen)
    page.write(made, out)
    for line in page.summary_lines(made):
        print(line)
    for folder, why in failed.items():
        print(f"not done: {folder}: {why}", file=sys.stderr)
    print(f"report: {out / 'report.html'} (also report.md, report.json, settings.csv, comparisons.csv, runs.csv)")
    return 1 if failed else 0


if __name__ == "__main__":
    errors.run(main, define_given_agent)
