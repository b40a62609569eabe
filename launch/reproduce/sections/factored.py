"""What `factored` shows beyond the paper, as `launch.beyond` recorded it: nothing is run for it here."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Self

from launch.host.files import ROOT, read_json
from launch.host.records import from_data
from launch.report import steps
from launch.report.blocks import Block, Cell, Figures, Heading, Paragraph, Table, verdict
from launch.report.plotting import Picture
from launch.reproduce.sections.section import Section, Shortfall, Work
from launch.reproduce.sections.table6 import Table6

RECORDS = ROOT / "data" / "results" / "factored"
PICTURE = "users"


@dataclasses.dataclass(frozen=True)
class Row:
    """What was measured, and what it had to show."""

    row: str
    title: str
    bar: str
    result: str
    met: bool
    commit: str


@dataclasses.dataclass(frozen=True)
class Fleet:
    """Every seed's real steps to optimal (None: never) with a number of devices."""

    users: int
    steps: tuple[int | None, ...]


@dataclasses.dataclass(frozen=True)
class Recorded:
    """report.json of `launch.beyond`."""

    rows: tuple[Row, ...] = ()
    users: tuple[Fleet, ...] = ()  # the picture's


@dataclasses.dataclass(frozen=True)
class Factored(Section):
    """What `launch.beyond` recorded, and the paper's agents beside it."""

    name: ClassVar[str] = "factored"
    about: ClassVar[str] = "what launch.beyond recorded"
    key: ClassVar[str] = "beyond"

    rows: tuple[Row, ...]
    users: tuple[Fleet, ...]
    commits: tuple[str, ...]
    others: dict[str, list[tuple[int, float]]]  # users and median steps of Table VI's agents, for the picture

    @classmethod
    def compute(cls, work: Work) -> Self:
        """The records."""
        path = RECORDS / "report.json"
        content = read_json(path)
        recorded = Recorded() if content is None else from_data(Recorded, content, str(path))
        others: dict[str, list[tuple[int, float]]] = {}
        for unit in work.needed_by(Table6.name):
            summary = work.summary(unit.case) if unit.case.constraint == str(steps.CONSTRAINT) else None
            if summary and (median := summary.aggregate.steps_to_optimal.median) is not None:
                others.setdefault(unit.case.agent, []).append((unit.case.users, median))
        commits = tuple(sorted({row.commit for row in recorded.rows}))
        return cls(recorded.rows, recorded.users, commits, others)

    def pictures(self) -> dict[str, Picture]:
        """Steps by number of devices, of all agents."""
        if not self.users:
            return {}
        drawn = steps.steps_by_users([(one.users, one.steps) for one in self.users], self.others)
        title = "Steps to optimal against the number of devices, all agents"
        caption = "At 85 %. Dotted lines are the paper's. The band, first seed to last, ends where one never got there."
        return {PICTURE: Picture(drawn, drawn, title, caption, 640)}

    def shortfalls(self) -> list[Shortfall]:
        """Bars that weren't met."""
        missed = [row for row in self.rows if not row.met]
        return [Shortfall("beyond", f"factored, {row.title}: {row.result} (bar: {row.bar}).") for row in missed]

    def blocks(self) -> list[Block]:
        """The picture and the table of bars."""
        if not self.rows:
            return []
        text = (
            "`factored` learns each device's response time and searches the joint actions through that model. Recorded "
            f"by `python -m launch.beyond` (commit {', '.join(self.commits)}) in `data/results/factored`, which has "
            "every case; not run again for this report."
        )
        rows = tuple((Cell(row.title), Cell(row.bar), verdict(row.met, row.result)) for row in self.rows)
        picture: list[Block] = [Figures((PICTURE,))] if self.users else []
        return [
            Heading("Beyond the paper: factored"),
            Paragraph(text),
            *picture,
            Table(("What", "Bar", "Measured"), rows, (), 1),
        ]
