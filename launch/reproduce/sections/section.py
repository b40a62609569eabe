"""A `Section` is one part of the report: the numbers that it computes, and what it draws and says of them.

A section is a module with a frozen dataclass of its numbers that derives from `Section`, listed in
`launch.reproduce.sections`. What it says is from its numbers alone, and these are what report.json holds of it.
"""

from __future__ import annotations

import abc
import dataclasses
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

from launch.report.blocks import Block, Tile
from launch.report.plotting import Picture
from launch.reproduce.units import Case, Unit
from launch.runs.folder import RunFolder
from launch.runs.summary import SeedSummary, Summary

COMPARED = ("Min", "80", "85", "Max")  # Table VI's constraints


@dataclasses.dataclass(frozen=True)
class Shortfall:
    """Where our numbers fall short of the paper's or of the optimum."""

    kind: str
    text: str


@dataclasses.dataclass(frozen=True)
class Work:
    """What sections are made of: the plan's units, and what those came to that are finished."""

    units: tuple[Unit, ...]
    out: pathlib.Path  # the reproduction's folder
    summaries: Mapping[Case, Summary]  # of the finished units

    def needed_by(self, name: str) -> list[Unit]:
        """A section's units."""
        return [unit for unit in self.units if name in unit.tables]

    def summary(self, case: Case) -> Summary | None:
        """What a training came to; None of one that isn't finished, or all of whose seeds failed.

        A seed that failed says nothing of how many steps it takes, so that only `whole` ones count.
        """
        summary = self.summaries.get(case)
        return summary if summary and summary.whole else None

    def run_folder(self, unit: Unit) -> RunFolder:
        """A unit's."""
        return unit.run_folder(self.out)

    def failed(self) -> dict[str, str]:
        """Why seeds of a finished unit failed, by its folder's name."""
        found = {unit.folder: self.summaries.get(unit.case) for unit in self.units}
        return {name: "; ".join(summary.failures) for name, summary in found.items() if summary and summary.failures}


def read(plan: Sequence[Unit], out: pathlib.Path) -> Work:
    """The work that a reproduction's folder holds.

    Raises:
      InputError: if a unit's summary can't be read.
    """
    found = {unit.case: unit.run_folder(out).summary() for unit in plan}
    return Work(tuple(plan), out, {case: summary for case, summary in found.items() if summary is not None})


class Section(abc.ABC):
    """One part of the report."""

    name: ClassVar[str]  # for --tables
    about: ClassVar[str]  # a few words, for --help
    key: ClassVar[str]  # its numbers' in report.json
    clock: ClassVar[tuple[str, ...]] = ()  # fields, at any depth, that hold what a clock said

    @classmethod
    def cases(cls, quick: bool) -> list[Case]:
        """What must be trained for it; with `quick` the least that shows something. Nothing: it is always there."""
        return []

    @classmethod
    @abc.abstractmethod
    def compute(cls, work: Work) -> Self:
        """Its numbers.

        Raises:
          InputError: if what it reads can't be read.
        """

    @abc.abstractmethod
    def blocks(self) -> list[Block]:
        """What the report says; nothing where there is nothing to say."""

    def pictures(self) -> dict[str, Picture]:
        """What the report shows, by names that no other section has."""
        return {}

    def tiles(self) -> list[Tile]:
        """Its numbers to see first."""
        return []

    def shortfalls(self) -> list[Shortfall]:
        """Where it falls short, from the numbers alone."""
        return []


def ratio(value: float | None, other: float | None) -> float | None:
    """One over the other; None where either is never, or unknown."""
    return None if value is None or not other else value / other


def steps_per_s(seeds: Sequence[SeedSummary]) -> float:
    """Real steps in a second of computing, the median seed's."""
    return statistics.median(seed.real_steps / max(seed.compute_s, 1e-9) for seed in seeds)


def listed(seeds: Sequence[int]) -> str:
    """Some seeds, by number."""
    return f"seed {', '.join(map(str, seeds))}"
