"""A sweep's numbers, from its run folders alone: every setting in every task, curves, and which settings differ.

Axes of the scenario (`TASKS`) are tasks: settings are compared within each, and over all as strata. The other axes
make the settings. If there are no others, the tasks themselves are compared.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from hl_jax import comparison, statistics
from launch.host.records import as_data
from launch.runs.folder import RunFolder
from launch.runs.summary import SeedSummary
from launch.sweep.axes import Assignment
from launch.sweep.plan import Point

TASKS = ("scenario", "calibration", "users", "constraint", "knobs")
CURVE_POINTS = 80
SAME = "the same settings"


@dataclasses.dataclass(frozen=True)
class Run:
    """One finished seed."""

    summary: SeedSummary
    steps: np.ndarray  # real steps after each epoch
    regret: np.ndarray  # of the greedy decision there, %


def read_runs(plan: Sequence[Point], folder: pathlib.Path) -> dict[str, list[Run]]:
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
            there = RunFolder(folder / unit.folder)
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


def label(assignment: Assignment) -> str:
    """How an assignment is shown."""
    return ", ".join(f"{name}={_short(name, text)}" for name, text in assignment.items()) or "all"


def _short(name: str, text: str) -> str:
    return pathlib.PurePath(text).stem if name == "scenario" else text


def compared_axes(plan: Sequence[Point]) -> list[str]:
    """Axes that make the settings, in the order in which they are given."""
    names = list(dict.fromkeys(name for point in plan for name in point.assignment))
    return [name for name in names if name not in TASKS] or names


class Results:
    """The runs by setting and task."""

    def __init__(self, plan: Sequence[Point], folder: pathlib.Path) -> None:
        self.plan, self.runs, self.compared = plan, read_runs(plan, folder), compared_axes(plan)
        self.parts = [split(point.assignment, self.compared) for point in plan]
        self.settings = list({label(setting): setting for setting, _ in self.parts}.values())
        self.tasks = list({label(task): task for _, task in self.parts}.values())
        self.names = {(label(one), label(task)): p.name for p, (one, task) in zip(plan, self.parts, strict=True)}

    def of(self, setting: Assignment, task: Assignment) -> list[Run]:
        return self.runs.get(self.names.get((label(setting), label(task)), ""), [])

    def scale(self, task: Assignment) -> float:
        """What a task's steps are divided by, so that tasks weigh alike: the median of all runs that got there."""
        steps = np.concatenate([steps_of(self.of(setting, task)) for setting in self.settings])
        done = steps[np.isfinite(steps)]
        return float(np.median(done)) if len(done) and np.median(done) > 0.0 else 1.0


def _cells(results: Results) -> list[dict[str, Any]]:
    """Every setting in every task."""
    rows = []
    for setting, task in itertools.product(results.settings, results.tasks):
        runs = results.of(setting, task)
        if not runs:
            continue
        budgets = [run.summary.real_steps for run in runs]
        rows.append(
            {
                "setting": label(setting),
                "task": label(task),
                **dataclasses.asdict(statistics.summarize([run.summary.steps_to_optimal for run in runs])),
                "least_budget": min(budgets),
                "most_budget": max(budgets),
                "feasible": sum(bool(run.summary.feasible) for run in runs),
                "art_over_optimum": float(
                    np.mean([ours / least for ours, least in (run.summary.times for run in runs)])
                ),
            }
        )
    return rows


def _over_tasks(results: Results) -> list[dict[str, Any]]:
    """Every setting over all tasks: IQM of steps (of a task's median where there are several), tasks as strata."""
    several = len(results.tasks) > 1
    scales = {label(task): results.scale(task) if several else 1.0 for task in results.tasks}
    rows = []
    for setting in results.settings:
        strata = [steps_of(runs) / scales[label(task)] for task in results.tasks if (runs := results.of(setting, task))]
        if not strata:
            continue
        every = np.concatenate(strata)
        bounds = statistics.bootstrap_interval(strata, statistics.interquartile_mean)
        rows.append(
            {
                "setting": label(setting),
                "tasks": len(strata),
                "seeds": len(every),
                "succeeded": int(np.isfinite(every).sum()),
                "iqm": _finite(float(statistics.interquartile_mean(every))),
                "iqm_interval": [_finite(bound) for bound in bounds],
                "relative": several,
            }
        )
    return rows


def _rank(row: dict[str, Any]) -> float:
    return float("inf") if row["iqm"] is None else float(row["iqm"])


def _finite(value: float) -> float | None:
    return round(value, 4) if np.isfinite(value) else None


Pair = dict[str, Any]  # what is compared, its strata under "strata", and whose runs these are under "trainings"


def _strata(
    results: Results, cells: Sequence[tuple[tuple[Assignment, Assignment], tuple[Assignment, Assignment]]]
) -> tuple[list[comparison.Stratum], set[tuple[str, str]]]:
    """Steps of both sides in each cell that both have runs in, and the names of all trainings whose sides differ."""
    found, trainings = [], set()
    for one, other in cells:
        first, second = (results.names.get((label(setting), label(task))) for setting, task in (one, other))
        if first is None or second is None or first == second:
            continue  # the same training says nothing about a difference
        trainings.add((first, second))
        runs = [results.of(*one), results.of(*other)]
        if all(runs):
            found.append((steps_of(runs[0]), steps_of(runs[1])))
    return found, trainings


def axis_pairs(results: Results) -> list[Pair]:
    """Each two values of each compared axis, all else equal: every combination of the rest is a stratum."""
    pairs = []
    for axis in results.compared:
        values = list(dict.fromkeys(setting[axis] for setting in results.settings if axis in setting))
        for first, second in itertools.combinations(values, 2):
            cells = [
                ((setting, task), ({**setting, axis: second}, task))
                for setting in results.settings
                if setting.get(axis) == first
                for task in results.tasks
            ]
            strata, trainings = _strata(results, cells)
            pairs.append(
                {
                    "kind": "axis",
                    "axis": axis,
                    "first": f"{axis}={_short(axis, first)}",
                    "second": f"{axis}={_short(axis, second)}",
                    "strata": strata,
                    "trainings": trainings,
                }
            )
    return pairs


def setting_pairs(results: Results, seen: Sequence[Pair]) -> list[Pair]:
    """The first setting with each of the others, tasks as strata; less those whose very runs `seen` compares."""
    base, *others = results.settings
    pairs = []
    for other in others:
        strata, trainings = _strata(results, [((base, task), (other, task)) for task in results.tasks])
        swapped = {(second, first) for first, second in trainings}
        if not strata or not any(pair["trainings"] in (trainings, swapped) for pair in seen):
            names = {"kind": "setting", "first": label(base), "second": label(other)}
            pairs.append({**names, "strata": strata, "trainings": trainings})
    return pairs


def comparisons(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Verdicts on all pairs, corrected for all of them at once."""
    possible = [pair for pair in pairs if pair["strata"]]
    verdicts = iter(comparison.compare([pair["strata"] for pair in possible]))
    rows = []
    for pair in pairs:
        strata = pair["strata"]
        row = {name: pair.get(name) for name in ("kind", "axis", "first", "second")}
        row |= {"tasks": len(strata), "seeds": [sum(len(stratum[side]) for stratum in strata) for side in (0, 1)]}
        if not strata:
            rows.append({**row, "verdict": "not run" if pair["trainings"] else SAME})
            continue
        found = next(verdicts)
        row |= {
            "improvement": round(found.improvement, 4),
            "interval": [round(bound, 4) for bound in found.interval],
            "p_value": found.p_value,
            "adjusted": found.adjusted,
            # The smallest that so many seeds could have given, corrected as the smallest of all would be.
            "least_adjusted": min(
                comparison.least_p_value([(len(one), len(two)) for one, two in strata]) * len(possible), 1.0
            ),
        }
        better = "second" if found.improvement > 0.5 else "first"
        row["verdict"] = f"{pair[better]} needs fewer steps" if found.decided else "undecided"
        rows.append(row)
    return rows


def _on(grid: np.ndarray, steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A seed's latest value at each number of steps; nothing before its first and after its last."""
    latest = np.clip(np.searchsorted(steps, grid, side="right") - 1, 0, len(steps) - 1)
    return np.where((grid < steps[0]) | (grid > steps[-1]), np.nan, values[latest])


def curve(runs: Sequence[Run]) -> dict[str, list[float]]:
    """Regret against real steps over all runs: median and middle half, where all of them are still learning."""
    start = max(run.steps[0] for run in runs)
    end = max(min(run.steps[-1] for run in runs), start + 1.0)
    grid = np.unique(np.round(np.geomspace(max(start, 1.0), end, CURVE_POINTS)))
    columns = np.stack([_on(grid, run.steps, run.regret) for run in runs])
    grid, columns = grid[~np.isnan(columns).any(axis=0)], columns[:, ~np.isnan(columns).any(axis=0)]
    low, middle, high = np.percentile(columns, [25, 50, 75], axis=0)
    named = {"steps": grid, "median": middle, "low": low, "high": high}
    return {name: np.round(values, 3).tolist() for name, values in named.items()}


def panels(results: Results) -> list[dict[str, Any]]:
    """Curves and steps to optimal, a panel for each compared axis with a line for each value, all else pooled."""
    found = []
    for axis in results.compared:
        lines: dict[str, list[Run]] = collections.defaultdict(list)
        for setting, task in itertools.product(results.settings, results.tasks):
            if axis in setting:
                lines[setting[axis]] += results.of(setting, task)
        lines = {value: runs for value, runs in lines.items() if runs}
        if lines:
            found.append({"axis": axis, "lines": [_line(f"{axis}={_short(axis, v)}", r) for v, r in lines.items()]})
    return found


def _line(name: str, runs: Sequence[Run]) -> dict[str, Any]:
    steps = steps_of(runs)
    done = np.sort(steps[np.isfinite(steps)])
    return {
        "name": name,
        "runs": len(runs),
        "reached": done.tolist(),
        "budget": max(run.summary.real_steps for run in runs),
        "curve": curve(runs),
    }


def build(plan: Sequence[Point], folder: pathlib.Path, compare: bool = True) -> dict[str, Any]:
    """The numbers of report.json.

    Args:
      plan: the sweep's points.
      folder: its `units/`.
      compare: each axis's values, and the settings with the first one. Not where these very runs chose the settings:
        then nothing is compared, and settings come best first.
    """
    results = Results(plan, folder)
    pairs: list[Pair] = []
    if compare:
        pairs = axis_pairs(results)
        pairs += setting_pairs(results, pairs) if len(results.compared) > 1 else []
    return {
        "compared": results.compared,
        "tasks": [label(task) for task in results.tasks],
        "settings": _over_tasks(results) if compare else sorted(_over_tasks(results), key=_rank),
        "cells": _cells(results),
        "comparisons": comparisons(pairs),
        "level": comparison.LEVEL,
        "panels": panels(results),
        "runs": [
            {"setting": label(setting), "task": label(task), "point": results.names[label(setting), label(task)]}
            | {name: value for name, value in as_data(run.summary).items() if name not in ("decision", "measured")}
            for setting, task in itertools.product(results.settings, results.tasks)
            for run in results.of(setting, task)
        ],
    }
