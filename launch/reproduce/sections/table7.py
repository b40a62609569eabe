"""Table VII: minutes up to the optimum, of computing and of the steps themselves, over Table VI's trainings."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Self

from hl_jax import statistics
from launch.host import provenance
from launch.host.provenance import Machine
from launch.inputs import paper
from launch.inputs.paper import NAMES
from launch.report.blocks import DASH, PAPER, Block, Cell, Heading, Paragraph, Table, minutes, times
from launch.reproduce.sections.section import COMPARED, Section, Work, ratio, steps_per_s
from launch.reproduce.sections.table6 import Table6
from launch.reproduce.units import Case, constraint_text
from launch.runs.summary import SeedSummary

SECONDS_A_MINUTE = 60.0


@dataclasses.dataclass(frozen=True)
class Minutes:
    """A time over seeds beside the printed one, min."""

    median: float | None  # None: never
    interval: tuple[float | None, float | None]  # 95 %
    paper: float | None
    ratio: float | None  # ours over the paper's


@dataclasses.dataclass(frozen=True)
class Times:
    """One agent's."""

    seeds: int
    succeeded: int  # of them
    experience_min: Minutes
    compute_min: Minutes
    total_min: Minutes
    steps_per_s: float


@dataclasses.dataclass(frozen=True)
class Row:
    """Some users', by agents."""

    users: int
    agents: dict[str, Times]


def _minutes(seconds: Sequence[float | None], printed: float | None) -> Minutes:
    found = statistics.summarize([None if one is None else one / SECONDS_A_MINUTE for one in seconds])
    return Minutes(found.median, found.median_interval, printed, ratio(found.median, printed))


def _times(seeds: Sequence[SeedSummary], printed: paper.Trained, agent: str) -> Times:
    compute = [seed.compute_to_optimal_s for seed in seeds]
    experience = [seed.experience_to_optimal_s for seed in seeds]
    total = [None if one is None or two is None else one + two for one, two in zip(compute, experience, strict=True)]
    return Times(
        seeds=len(seeds),
        succeeded=sum(one is not None for one in compute),
        experience_min=_minutes(experience, printed.experience.of[agent]),
        compute_min=_minutes(compute, printed.computation.of[agent]),
        total_min=_minutes(total, printed.total.of[agent]),
        steps_per_s=steps_per_s(seeds),
    )


def _row(entry: paper.Trained, limits: Sequence[str], work: Work) -> Row:
    cells = {}
    for agent in NAMES:
        found = [work.summary(Case("A", entry.users, limit, agent)) for limit in limits]
        if seeds := [seed for summary in found if summary for seed in summary.whole]:
            cells[agent] = _times(seeds, entry, agent)
    return Row(entry.users, cells)


@dataclasses.dataclass(frozen=True)
class Table7(Section):
    """Times up to the optimum, over all seeds of Table VI's constraints."""

    name: ClassVar[str] = "7"
    about: ClassVar[str] = "Table VII"
    key: ClassVar[str] = "table7"
    clock: ClassVar[tuple[str, ...]] = ("compute_min", "total_min", "steps_per_s")

    rows: tuple[Row, ...]
    claims: dict[str, float]  # the text's
    machine: Machine  # which this is on

    @classmethod
    def cases(cls, quick: bool) -> list[Case]:
        """Table VI's."""
        return Table6.cases(quick)

    @classmethod
    def compute(cls, work: Work) -> Self:
        """A row for each number of users that was asked for."""
        printed = paper.table7()
        asked = {(unit.case.users, unit.case.constraint) for unit in work.needed_by(cls.name)}
        rows = []
        for entry in printed.rows:
            limits = [limit for limit in COMPARED if (entry.users, limit) in asked]
            if any(users == entry.users for users, _ in asked):
                rows.append(_row(entry, limits, work))
        return cls(tuple(rows), printed.claims, provenance.machine())

    def blocks(self) -> list[Block]:
        """The table."""
        if not self.rows:
            return []
        limits = ", ".join(constraint_text(limit) for limit in COMPARED)
        text = (
            f"Minutes up to the optimum, median over the seeds of all constraints that were run (of {limits}). Printed "
            "beside dqn are AdaDeep's, beside q_learning AutoScale's. "
            "*Computation* is the wall time of a seed's epochs, the simulator's steps and the evaluations included and "
            "compilation not, while other seeds ran on the other cores of this machine "
            f"({self.machine.cores} cores, {self.machine.processor}); the paper's was measured on an NVIDIA RTX 5000. "
            "*Experience* is what the steps would have taken for real, each as long as its slowest device's response "
            "time; the paper's was measured on its cloud instances. Ratios are ours over printed, and compare "
            "different machines."
        )
        groups = (("", 2), ("Computation (min)", 3), ("Experience (min)", 3), ("Total (min)", 3), ("", 2))
        columns = ("Users", "Agent", *(["ours", "printed", "ratio"] * 3), "got there", "steps/s")
        rows = tuple(
            (Cell(str(row.users)), Cell(agent), *_cells(row.agents[agent]))
            for row in self.rows
            for agent in NAMES
            if agent in row.agents
        )
        return [Heading("Table VII: training time"), Paragraph(text), Table(columns, rows, groups, 2)]


def _cells(found: Times) -> list[Cell]:
    cells: list[Cell] = []
    for entry in (found.compute_min, found.experience_min, found.total_min):
        printed = DASH if entry.paper is None else Cell(f"{entry.paper:,g}", PAPER)
        against = DASH if entry.ratio is None else Cell(times(entry.ratio))
        cells += [Cell(minutes(entry.median)), printed, against]
    return [*cells, Cell(f"{found.succeeded} of {found.seeds}"), Cell(f"{found.steps_per_s:,.0f}")]
