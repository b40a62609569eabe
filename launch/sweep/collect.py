"""A sweep's numbers, from its run folders alone: every setting in every task, curves, and which settings differ.

Axes of the scenario (`TASKS`) are tasks: settings are compared within each, and over all as strata. The other axes
make the settings. If there are no others, the tasks themselves are compared.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from hl_jax import comparison, statistics
from hl_jax.comparison import Stratum
from launch.host.worklog import WorkLog
from launch.inputs.settings import Settings
from launch.report.made import made
from launch.runs.summary import SeedSummary
from launch.sweep.axes import Assignment, Axis
from launch.sweep.plan import Point, all_units
from launch.sweep.report import (
    GRID,
    NOT_RUN,
    SAME,
    UNDECIDED,
    Cell,
    Comparison,
    Curve,
    Line,
    Outcome,
    Panel,
    Report,
    Search,
    Setting,
    Tested,
    Varied,
)

TASKS = ("scenario", "calibration", "users", "constraint", "knobs")
CURVE_POINTS = 80


@dataclasses.dataclass(frozen=True)
class Run:
    """One finished seed."""

    summary: SeedSummary
    steps: np.ndarray  # real steps after each epoch
    regret: np.ndarray  # of the greedy decision there, %


def read_runs(plan: Sequence[Point], out: pathlib.Path) -> dict[str, list[Run]]:
    """Finished seeds of each point that are asked for, by the point's name; once, however many axes led there.

    A seed that failed isn't one: it says nothing of how many steps a setting needs (`folder.failures` tells of it).
    """
    found: dict[str, list[Run]] = {}
    for point in plan:
        if point.name in found:
            continue
        runs: list[Run] = []
        asked = set(point.settings.seeds)
        for unit in point.units():
            there = unit.run_folder(out)
            summary = there.summary()
            if summary is None:
                continue
            curves = there.regrets()
            runs += [Run(seed, *curves[seed.seed]) for seed in summary.whole if seed.seed in asked]
        found[point.name] = sorted(runs, key=lambda run: run.summary.seed)
    return found


def steps_of(runs: Sequence[Run]) -> np.ndarray:
    """Steps to optimal, infinite for a seed that never got there."""
    return np.array([np.inf if (steps := run.summary.steps_to_optimal) is None else steps for run in runs], float)


def split(assignment: Assignment, compared: Sequence[str]) -> tuple[Assignment, Assignment]:
    """An assignment's setting and task."""
    setting = {name: text for name, text in assignment.items() if name in compared}
    return setting, {name: text for name, text in assignment.items() if name not in compared}


MOST_NAMED = 6  # of agents, scenarios, …
EVERYTHING = "all"  # the name of a setting or task of which nothing was varied


def label(assignment: Assignment) -> str:
    """How an assignment is shown."""
    return ", ".join(f"{name}={_short(name, text)}" for name, text in assignment.items()) or EVERYTHING


def _short(name: str, text: str) -> str:
    return pathlib.PurePath(text).stem if name == "scenario" else text


def compared_axes(plan: Sequence[Point]) -> list[str]:
    """Axes that make the settings, in the order in which they are given."""
    names = list(dict.fromkeys(name for point in plan for name in point.assignment))
    return [name for name in names if name not in TASKS] or names


class Results:
    """The runs by setting and task."""

    def __init__(self, plan: Sequence[Point], out: pathlib.Path) -> None:
        self.runs, self.compared = read_runs(plan, out), compared_axes(plan)
        parts = [split(point.assignment, self.compared) for point in plan]
        self.settings = list({label(setting): setting for setting, _ in parts}.values())
        self.tasks = list({label(task): task for _, task in parts}.values())
        self.names = {(label(one), label(task)): p.name for p, (one, task) in zip(plan, parts, strict=True)}

    def of(self, setting: Assignment, task: Assignment) -> list[Run]:
        return self.runs.get(self.names.get((label(setting), label(task)), ""), [])

    def scale(self, task: Assignment) -> float:
        """What a task's steps are divided by, so that tasks weigh alike: the median of all runs that got there."""
        steps = np.concatenate([steps_of(self.of(setting, task)) for setting in self.settings])
        done = steps[np.isfinite(steps)]
        return float(np.median(done)) if len(done) and np.median(done) > 0.0 else 1.0


def _cells(results: Results) -> list[Cell]:
    """Every setting in every task."""
    cells = []
    for setting, task in itertools.product(results.settings, results.tasks):
        runs = results.of(setting, task)
        if not runs:
            continue
        budgets = [run.summary.real_steps for run in runs]
        times = [run.summary.times for run in runs]
        cells.append(
            Cell(
                setting=label(setting),
                task=label(task),
                steps=statistics.summarize([run.summary.steps_to_optimal for run in runs]),
                least_budget=min(budgets),
                most_budget=max(budgets),
                feasible=sum(bool(run.summary.feasible) for run in runs),
                art_over_optimum=float(np.mean([ours / least for ours, least in times])),
            )
        )
    return cells


def _over_tasks(results: Results) -> list[Setting]:
    """Every setting over all tasks: IQM of steps (of a task's median where there are several), tasks as strata."""
    several = len(results.tasks) > 1
    scales = {label(task): results.scale(task) if several else 1.0 for task in results.tasks}
    settings = []
    for setting in results.settings:
        strata = [steps_of(runs) / scales[label(task)] for task in results.tasks if (runs := results.of(setting, task))]
        if not strata:
            continue
        every = np.concatenate(strata)
        low, high = statistics.bootstrap_interval(strata, statistics.interquartile_mean)
        settings.append(
            Setting(
                setting=label(setting),
                tasks=len(strata),
                seeds=len(every),
                succeeded=int(np.isfinite(every).sum()),
                iqm=_finite(float(statistics.interquartile_mean(every))),
                iqm_interval=(_finite(low), _finite(high)),
                relative=several,
            )
        )
    return settings


def _rank(setting: Setting) -> float:
    return float("inf") if setting.iqm is None else setting.iqm


def _finite(value: float) -> float | None:
    return round(value, 4) if np.isfinite(value) else None


Place = tuple[Assignment, Assignment]  # a setting and a task


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two sides to compare."""

    kind: str  # axis, setting
    axis: str | None
    first: str
    second: str
    strata: tuple[Stratum, ...]  # steps of both sides, wherever both have runs
    trainings: frozenset[tuple[str, str]]  # whose runs these are, or would be; none: both sides are the very same


def _pair(
    results: Results, names: tuple[str, str | None, str, str], places: Sequence[tuple[Place, Place]]
) -> Pair | None:
    """The pair of these kind, axis and sides' names; None if both are planned in none of the places.

    So it is where agents of different constants make one grid: nothing else is equal there.
    """
    planned, found, trainings = False, [], set()
    for one, other in places:
        first, second = (results.names.get((label(setting), label(task))) for setting, task in (one, other))
        if first is None or second is None:
            continue
        planned = True
        if first == second:
            continue  # the same training says nothing about a difference
        trainings.add((first, second))
        runs = [results.of(*one), results.of(*other)]
        if all(runs):
            found.append((steps_of(runs[0]), steps_of(runs[1])))
    return Pair(*names, tuple(found), frozenset(trainings)) if planned else None


def axis_pairs(results: Results) -> list[Pair]:
    """Each two values of each compared axis, all else equal: every combination of the rest is a stratum."""
    pairs = []
    for axis in results.compared:
        values = list(dict.fromkeys(setting[axis] for setting in results.settings if axis in setting))
        for first, second in itertools.combinations(values, 2):
            places = [
                ((setting, task), ({**setting, axis: second}, task))
                for setting in results.settings
                if setting.get(axis) == first
                for task in results.tasks
            ]
            names = ("axis", axis, f"{axis}={_short(axis, first)}", f"{axis}={_short(axis, second)}")
            pairs.append(_pair(results, names, places))
    return [pair for pair in pairs if pair is not None]


def setting_pairs(results: Results, seen: Sequence[Pair]) -> list[Pair]:
    """The first setting with each of the others, tasks as strata; less those whose very runs `seen` compares."""
    base, *others = results.settings
    pairs = []
    for other in others:
        places = [((base, task), (other, task)) for task in results.tasks]
        pair = _pair(results, ("setting", None, label(base), label(other)), places)
        if pair is None:
            continue
        swapped = {(second, first) for first, second in pair.trainings}
        if not pair.strata or not any(one.trainings in (pair.trainings, swapped) for one in seen):
            pairs.append(pair)
    return pairs


def comparisons(pairs: Sequence[Pair]) -> list[Comparison]:
    """Verdicts on all pairs, corrected for all of them at once."""
    possible = [pair for pair in pairs if pair.strata]
    verdicts = iter(comparison.compare([pair.strata for pair in possible]))
    found = []
    for pair in pairs:
        tested, verdict = None, NOT_RUN if pair.trainings else SAME
        if pair.strata:
            tested, verdict = _tested(pair, next(verdicts))
        first, second = (sum(len(stratum[side]) for stratum in pair.strata) for side in (0, 1))
        names = (pair.kind, pair.axis, pair.first, pair.second)
        found.append(Comparison(*names, len(pair.strata), (first, second), tested, verdict))
    return found


def _tested(pair: Pair, found: comparison.Comparison) -> tuple[Tested, str]:
    """What was found of a pair, and the verdict on it."""
    low, high = found.interval
    tested = Tested(
        improvement=round(found.improvement, 4),
        interval=(round(low, 4), round(high, 4)),
        p_value=found.p_value,
        adjusted=found.adjusted,
        least_adjusted=found.least_adjusted,
        decidable=found.decidable,
    )
    better = pair.second if found.improvement > 0.5 else pair.first
    return tested, f"{better} needs fewer steps" if found.decided else UNDECIDED


def _on(grid: np.ndarray, steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A seed's latest value at each number of steps; nothing before its first and after its last."""
    latest = np.clip(np.searchsorted(steps, grid, side="right") - 1, 0, len(steps) - 1)
    return np.where((grid < steps[0]) | (grid > steps[-1]), np.nan, values[latest])


def curve(runs: Sequence[Run]) -> Curve:
    """Regret against real steps over all runs, where all of them are still learning."""
    start = max(run.steps[0] for run in runs)
    end = max(min(run.steps[-1] for run in runs), start + 1.0)
    grid = np.unique(np.round(np.geomspace(max(start, 1.0), end, CURVE_POINTS)))
    columns = np.stack([_on(grid, run.steps, run.regret) for run in runs])
    grid, columns = grid[~np.isnan(columns).any(axis=0)], columns[:, ~np.isnan(columns).any(axis=0)]
    low, middle, high = np.percentile(columns, [25, 50, 75], axis=0)
    steps, low, middle, high = (tuple(np.round(values, 3).tolist()) for values in (grid, low, middle, high))
    return Curve(steps=steps, median=middle, low=low, high=high)


def panels(results: Results) -> list[Panel]:
    """Curves and steps to optimal, a panel for each compared axis with a line for each value, all else pooled."""
    found = []
    for axis in results.compared:
        lines: dict[str, list[Run]] = collections.defaultdict(list)
        for setting, task in itertools.product(results.settings, results.tasks):
            if axis in setting:
                lines[setting[axis]] += results.of(setting, task)
        drawn = [_line(f"{axis}={_short(axis, value)}", runs) for value, runs in lines.items() if runs]
        if drawn:
            found.append(Panel(axis, tuple(drawn)))
    return found


def _line(name: str, runs: Sequence[Run]) -> Line:
    steps = steps_of(runs)
    return Line(
        name=name,
        runs=len(runs),
        reached=tuple(np.sort(steps[np.isfinite(steps)]).tolist()),
        budget=max(run.summary.real_steps for run in runs),
        curve=curve(runs),
    )


def _outcomes(results: Results) -> list[Outcome]:
    return [
        Outcome(label(setting), label(task), results.names[label(setting), label(task)], run.summary)
        for setting, task in itertools.product(results.settings, results.tasks)
        for run in results.of(setting, task)
    ]


def _varied(axis: Axis) -> Varied:
    if axis.is_interval:
        return Varied(axis.name, f"{axis.low:g} to {axis.high:g}{' (log)' if axis.log else ''}")
    return Varied(axis.name, ", ".join(axis.values))


def build(
    plan: Sequence[Point],
    out: pathlib.Path,
    *,
    command: str,
    axes: Sequence[Axis],
    failed: Mapping[str, str],
    search: Search = GRID,
) -> Report:
    """The report of what is finished.

    Args:
      plan: the sweep's points.
      out: the sweep's folder.
      command: what runs it.
      axes: what was varied.
      failed: why, of each unit that couldn't be done.
      search: how the points were chosen. A grid's axes are compared value by value, and its settings with the first
        one. Where these very runs chose the settings nothing is compared, and settings come best first.
    """
    results, work = Results(plan, out), all_units(plan)
    settings, pairs = _over_tasks(results), list[Pair]()
    if search.kind == GRID.kind:
        pairs = axis_pairs(results)
        pairs += setting_pairs(results, pairs) if len(results.compared) > 1 else []
    else:
        settings.sort(key=_rank)
    finished = sum(unit.run_folder(out).finished for unit in work)
    return Report(
        compared=tuple(results.compared),
        tasks=tuple(label(task) for task in results.tasks),
        settings=tuple(settings),
        cells=tuple(_cells(results)),
        comparisons=tuple(comparisons(pairs)),
        level=comparison.LEVEL,
        panels=tuple(panels(results)),
        runs=tuple(_outcomes(results)),
        axes=tuple(_varied(axis) for axis in axes),
        search=search,
        run=made(command, WorkLog(out).read(), [unit.folder for unit in work], finished, failed),
        trained=_trained([point.settings for point in plan]),
    )


def _trained(every: Sequence[Settings]) -> tuple[str, ...]:
    """Who was trained on what: a reader mustn't have to guess it."""
    named = {
        "agent": {one.agent for one in every},
        "scenario": {one.scenario.name for one in every},
        "devices": {str(one.scenario.users) for one in every},
        "constraint": {f"{one.scenario.constraint:g} %" for one in every},
    }
    return tuple(
        f"{what} {', '.join(sorted(values)[:MOST_NAMED])}{' and others' if len(values) > MOST_NAMED else ''}"
        for what, values in named.items()
    )
