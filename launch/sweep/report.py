"""What a sweep's report holds, as records: report.json and the CSV files are made from their fields."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence

from hl_jax.statistics import Spread
from launch.host.records import as_data
from launch.report.made import Made
from launch.runs.summary import SeedSummary

ABOUT = "hl_jax: a sweep"
UNDECIDED, NOT_RUN, SAME = "undecided", "not run", "the same settings"
Ends = tuple[float | None, float | None]  # of an interval of steps; None: never


@dataclasses.dataclass(frozen=True)
class Setting:
    """A setting over all its tasks."""

    setting: str
    tasks: int
    seeds: int
    succeeded: int  # of them
    iqm: float | None  # of real steps to optimal
    iqm_interval: Ends  # 95 %
    relative: bool  # whether a run's steps are divided by its task's median over all settings


@dataclasses.dataclass(frozen=True)
class Cell:
    """A setting in a task."""

    setting: str
    task: str
    steps: Spread  # to optimal
    least_budget: int  # real steps that a run took
    most_budget: int
    feasible: int  # runs whose last decision keeps the constraint
    art_over_optimum: float  # mean of the last decisions


@dataclasses.dataclass(frozen=True)
class Tested:
    """What the runs of two sides say of their difference."""

    improvement: float  # probability that a run of the second needs fewer steps
    interval: tuple[float, float]  # 95 %
    p_value: float
    adjusted: float  # for all comparisons of the report
    least_adjusted: float  # the smallest that these steps could have given, as the smallest of all
    decidable: bool = True  # what can't be decided, whatever the steps show, isn't counted by the correction


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two values of an axis, all else equal, or two settings."""

    kind: str  # axis, setting
    axis: str | None
    first: str
    second: str
    tasks: int  # strata
    seeds: tuple[int, int]  # of both sides, over all of them
    tested: Tested | None  # None: no runs of both, or the very same
    verdict: str

    @property
    def decided(self) -> bool:
        """Whether the seeds support a difference."""
        return self.tested is not None and self.verdict != UNDECIDED


@dataclasses.dataclass(frozen=True)
class Curve:
    """Regret of the greedy decision (%) against real steps: median and middle half of some runs."""

    steps: tuple[float, ...]
    median: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Line:
    """All runs with one value of an axis."""

    name: str
    runs: int
    reached: tuple[float, ...]  # steps to optimal of those that got there, in order
    budget: int  # most real steps that one took
    curve: Curve


@dataclasses.dataclass(frozen=True)
class Panel:
    """An axis with a line for each value, all else pooled."""

    axis: str
    lines: tuple[Line, ...]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A run (one seed of a setting in a task)."""

    setting: str
    task: str
    point: str  # the folder of its settings
    summary: SeedSummary


@dataclasses.dataclass(frozen=True)
class Varied:
    """An axis, as it is shown."""

    name: str
    values: str


@dataclasses.dataclass(frozen=True)
class Tried:
    """A setting that a search tried."""

    number: int
    setting: str
    value: float | None  # expected running time (real steps); None: it never got there, or couldn't be run
    got_there: str  # k of n


@dataclasses.dataclass(frozen=True)
class Search:
    """How the settings were chosen."""

    kind: str  # grid, random, optuna
    about: str = ""
    no_comparison: str = ""  # why nothing is compared, where these very runs chose the settings
    trials: tuple[Tried, ...] = ()  # the best first


GRID = Search("grid")
_NOT_SHOWN = ("decision", "measured")  # of a run's summary; they are in its folder


def _rows(records: Sequence[object], opened: str, without: Sequence[str] = ()) -> list[dict[str, object]]:
    """Records as plain data; what their record `opened` holds stands in its place (nothing, where it is None)."""
    found = []
    for record in records:
        row: dict[str, object] = {}
        for name, value in as_data(record).items():
            row |= (value or {}) if name == opened else {name: value}
        found.append({name: value for name, value in row.items() if name not in without})
    return found


@dataclasses.dataclass(frozen=True)
class Report:
    """report.json."""

    compared: tuple[str, ...]  # axes that make the settings
    tasks: tuple[str, ...]
    settings: tuple[Setting, ...]
    cells: tuple[Cell, ...]
    comparisons: tuple[Comparison, ...]
    level: float  # most chance of any false difference
    panels: tuple[Panel, ...]
    runs: tuple[Outcome, ...]
    axes: tuple[Varied, ...]
    search: Search
    run: Made
    trained: tuple[str, ...] = ()  # agents, scenarios, devices and constraints of all runs, a line each

    @property
    def tested(self) -> list[Comparison]:
        """The comparisons that runs say something of."""
        return [one for one in self.comparisons if one.tested is not None]

    def rows(self) -> dict[str, list[dict[str, object]]]:
        """What is a table: the cells, the comparisons and the runs."""
        return {
            "cells": _rows(self.cells, "steps"),
            "comparisons": _rows(self.comparisons, "tested"),
            "runs": _rows(self.runs, "summary", _NOT_SHOWN),
        }

    def as_json(self) -> dict[str, object]:
        """Plain data, for report.json."""
        return {"about": ABOUT} | as_data(self) | self.rows()


def table(rows: Sequence[Mapping[str, object]]) -> bytes:
    """Rows as CSV; both ends of an interval become columns of their own."""
    flat = []
    for row in rows:
        one: dict[str, object] = {}
        for name, value in row.items():
            if isinstance(value, (list, tuple)):
                one |= {f"{name}_{side}": item for side, item in zip(("low", "high"), value, strict=True)}
            else:
                one[name] = value
        flat.append(one)
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in flat for name in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue().encode()


def tables(report: Report) -> dict[str, bytes]:
    """settings.csv, comparisons.csv and runs.csv, by name."""
    rows = report.rows()
    comparisons = [
        row | {"seeds": sum(one.seeds)} for row, one in zip(rows["comparisons"], report.comparisons, strict=True)
    ]
    named = {"settings": rows["cells"], "comparisons": comparisons, "runs": rows["runs"]}
    return {f"{name}.csv": table(some) for name, some in named.items()}
