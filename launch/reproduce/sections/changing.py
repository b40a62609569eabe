"""The agents where conditions change, a row of Table VI's kind, as `launch.beyond` recorded it: nothing is run here."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Self

from hl_jax import statistics
from hl_jax.statistics import Ratio, Spread
from launch.host.files import ROOT, read_json
from launch.host.records import from_data
from launch.report.blocks import Block, Cell, Heading, Paragraph, Table, count, interval, times, times_between
from launch.reproduce.sections.section import Section, Shortfall, Work

RECORD = ROOT / "data" / "results" / "factored" / "changing.json"
AGENTS = ("hybrid", "dqn", "q_learning")
WANTED = 5.0  # dqn's steps over hybrid's


@dataclasses.dataclass(frozen=True)
class Mark:
    """What the policies were worth in 1,000 fresh states after so many real steps."""

    after: int
    mean_percent: float  # regret, mean over seeds and states
    median_percent: float
    worst_percent: float
    kept: float  # part of the decisions that keep the constraint


@dataclasses.dataclass(frozen=True)
class Line:
    """One agent with some users under a constraint."""

    case: str
    agent: str
    users: int
    constraint: str
    budget_steps: int
    steps_to_tolerance: Spread  # real steps until the mean regret is at most 2 % for good
    steps: tuple[int | None, ...]  # of each seed
    marks: tuple[Mark, ...]
    compute_s: float


@dataclasses.dataclass(frozen=True)
class Recorded:
    """changing.json, as far as it is read here."""

    commit: str
    lines: tuple[Line, ...]


@dataclasses.dataclass(frozen=True)
class Gain:
    """dqn's steps over hybrid's."""

    users: int
    constraint: str
    ratio: Ratio


@dataclasses.dataclass(frozen=True)
class Changing(Section):
    """What was recorded, and who learns sooner."""

    name: ClassVar[str] = "changing"
    about: ClassVar[str] = "changing conditions, as launch.beyond recorded them"
    key: ClassVar[str] = "changing"
    clock: ClassVar[tuple[str, ...]] = ("compute_s",)

    commit: str
    lines: tuple[Line, ...]
    gains: tuple[Gain, ...]

    @classmethod
    def compute(cls, work: Work) -> Self:
        """The record."""
        del work
        content = read_json(RECORD)
        if not isinstance(content, dict):
            return cls("", (), ())
        recorded = from_data(Recorded, {name: content[name] for name in ("commit", "lines")}, str(RECORD))
        by_case = {(line.users, line.constraint, line.agent): line for line in recorded.lines}
        gains = tuple(
            Gain(
                line.users,
                line.constraint,
                statistics.ratio_of_medians(by_case[line.users, line.constraint, "dqn"].steps, line.steps),
            )
            for line in recorded.lines
            if line.agent == "hybrid" and (line.users, line.constraint, "dqn") in by_case
        )
        return cls(recorded.commit, recorded.lines, gains)

    def shortfalls(self) -> list[Shortfall]:
        """Where dqn needs less than five times hybrid's steps."""
        found = []
        for gain in self.gains:
            value = gain.ratio.value
            if value is not None and value < WANTED:
                where = f"Changing conditions, {gain.users} users, {gain.constraint} %"
                text = f"{where}: dqn with the same knowledge takes {times(value)} of hybrid's steps, not {WANTED:g}×."
                found.append(Shortfall("changing", text))
        return found

    def blocks(self) -> list[Block]:
        """The table, and who learns sooner."""
        if not self.lines:
            return []
        afters = sorted({mark.after for line in self.lines for mark in line.marks})
        text = (
            "Links, load and memory change from step to step (Table II's state; `data/scenarios/dynamic.toml`), so "
            "that a policy must read its state. hybrid and dqn have the same networks and are both told the penalty; "
            "q_learning has a row of its table for each state that it has seen. Real steps until the mean regret over "
            "64 states is at most 2 % for good (median over seeds, in brackets how many got there), and mean regret in "
            "1,000 fresh states, in %, after so many steps. Recorded by `python -m launch.beyond --rows=changing` "
            f"(commit {self.commit}); not run again for this report."
        )
        columns = (
            "Users",
            "Cnst",
            "Agent",
            "steps to 2 %",
            "95 %",
            *(f"{after:,}" for after in afters),
            "kept, %",
            "min",
        )
        rows = tuple(self._row(line, afters) for line in self.lines)
        ratios = "; ".join(
            f"{gain.users} users, {gain.constraint} %: {times(gain.ratio.value)} ({times_between(gain.ratio.interval)})"
            for gain in self.gains
        )
        groups = (("", 3), ("learned", 2), ("regret after", len(afters)), ("", 2))
        return [
            Heading("Where conditions change"),
            Paragraph(text),
            Table(columns, rows, groups, 3),
            Paragraph(f"dqn's steps over hybrid's, with 95 % intervals: {ratios}."),
        ]

    @staticmethod
    def _row(line: Line, afters: list[int]) -> tuple[Cell, ...]:
        marks = {mark.after: mark for mark in line.marks}
        regrets = [Cell(f"{marks[after].mean_percent:.2f}" if after in marks else "–") for after in afters]
        spread = line.steps_to_tolerance
        return (
            *(Cell(text) for text in (str(line.users), f"{line.constraint}%", line.agent)),
            Cell(f"{count(spread.median)} ({spread.succeeded} of {spread.seeds})"),
            Cell(interval(spread.median_interval)),
            *regrets,
            Cell(f"{100.0 * min(mark.kept for mark in line.marks):.2f}"),
            Cell(f"{line.compute_s / 60.0:.1f}"),
        )
