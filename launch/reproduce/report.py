"""The report of a reproduction: report.json from the run folders, then report.md, report.html and pictures from it.

Its sections are `launch.reproduce.sections`; here is what is of the whole: what was run, and where we fall short.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

from launch.host.records import as_data
from launch.host.worklog import WorkLog
from launch.inputs import paper
from launch.report import made
from launch.report.blocks import Block, Bullets, Cell, Heading, Page, Paragraph, Table, Tile
from launch.report.made import Made
from launch.report.plotting import Picture
from launch.reproduce import plan
from launch.reproduce.sections import SECTIONS, section
from launch.reproduce.sections.section import Section, Shortfall, Work
from launch.reproduce.units import Unit, constants_of

TITLE = "The paper's tables, ours beside the printed"


@dataclasses.dataclass(frozen=True)
class Planned:
    """A unit of work."""

    experiment: str
    users: int
    constraint: str
    agent: str
    knowledge: str
    noise: float | None
    seeds: int
    tables: tuple[str, ...]  # the sections that need it
    folder: str
    finished: bool


@dataclasses.dataclass(frozen=True)
class Given:
    """What an agent was given at some number of users."""

    agent: str
    knowledge: str
    users: int
    seeds: int
    changes: dict[str, int | float]  # from its defaults, or its flag file
    why: str
    evaluations: int
    most_steps: int  # real ones, of any seed


@dataclasses.dataclass(frozen=True)
class Contradiction:
    """Where the paper contradicts itself."""

    row: str
    text: str


@dataclasses.dataclass(frozen=True)
class Report:
    """All numbers, from which everything that is shown is made."""

    about: str
    quick: bool
    tables: tuple[str, ...]  # the sections that were asked for
    units: tuple[Planned, ...]
    run: Made
    given: tuple[Given, ...]
    defaults: dict[str, object]  # each agent's constants, by what it is told
    sections: dict[str, Section]
    contradictions: tuple[Contradiction, ...]
    shortfalls: tuple[Shortfall, ...]

    def as_json(self) -> dict[str, object]:
        """report.json's content: each section's numbers stand beside the others by its own key."""
        data: dict[str, object] = as_data(dataclasses.replace(self, sections={}))
        del data["sections"]
        return data | {one.key: as_data(one) for one in self.sections.values()}

    def shown(self) -> list[Section]:
        """The sections that have something to say: those asked for, and those that need no asking."""
        asked = {*self.tables, *SECTIONS.keys() - plan.tables()}
        return [one for name, one in self.sections.items() if name in asked]

    def warnings(self) -> list[str]:
        """What a reader must know before any number."""
        quick = (
            "This is a quick run: a small subset of the plan with few seeds, to see that everything works. "
            "Don't judge by it; `python -m launch.reproduce` makes the whole."
        )
        return [*([quick] if self.quick else []), *self.run.warnings()]

    def tiles(self) -> list[Tile]:
        """The numbers to see first."""
        return [tile for one in self.shown() for tile in one.tiles()]


def clock() -> set[str]:
    """Keys of report.json that hold a wall-clock time or what follows from one; all else is the same whenever made."""
    return {"wall_s", "peak_memory_gib"}.union(*(kind.clock for kind in SECTIONS.values()))


def build(units: Sequence[Unit], out: pathlib.Path, *, command: str, quick: bool, tables: Sequence[str]) -> Report:
    """The report of what is finished of a plan's units.

    Raises:
      InputError: if a unit's results, the log or the paper's tables can't be read.
    """
    work = section.read(units, out)
    planned = tuple(_planned(unit, work) for unit in units)
    folders, finished = [unit.folder for unit in units], sum(unit.finished for unit in planned)
    run = made.made(command, WorkLog(out).read(), folders, finished, work.failed())
    sections = {name: kind.compute(work) for name, kind in SECTIONS.items()}
    return Report(
        about="hl_jax: the paper's tables, ours beside the printed",
        quick=quick,
        tables=tuple(tables),
        units=planned,
        run=run,
        given=_given(work),
        defaults={f"{unit.case.agent} ({unit.case.knowledge})": constants_of(unit.case) for unit in units},
        sections=sections,
        contradictions=tuple(
            Contradiction(f"{row.experiment}/{row.limit}", row.contradiction)
            for row in paper.table5().rows
            if row.contradiction is not None
        ),
        shortfalls=_shortfalls(sections, run),
    )


def _planned(unit: Unit, work: Work) -> Planned:
    return Planned(
        **unit.case._asdict(),
        seeds=len(unit.settings.seeds),
        tables=unit.tables,
        folder=f"units/{unit.folder}",
        finished=work.summary(unit.case) is not None,
    )


def _given(work: Work) -> tuple[Given, ...]:
    """For each agent, its knowledge and a number of users, by the first of its units."""
    found: dict[tuple[str, str, int], list[Unit]] = {}
    for unit in work.units:
        found.setdefault((unit.case.agent, unit.case.knowledge, unit.case.users), []).append(unit)
    return tuple(
        Given(
            agent=agent,
            knowledge=knowledge,
            users=users,
            seeds=len(units[0].settings.seeds),
            changes=units[0].budget.changes,
            why=units[0].budget.why,
            evaluations=units[0].settings.config.epochs,
            most_steps=max(
                (seed.real_steps for unit in units if (done := work.summary(unit.case)) for seed in done.whole),
                default=0,
            ),
        )
        for (agent, knowledge, users), units in found.items()
    )


def _shortfalls(sections: dict[str, Section], run: Made) -> tuple[Shortfall, ...]:
    """Of what was run, of what couldn't be, and of what is only read."""
    ran = plan.tables()
    failed = [Shortfall("failed", f"{folder} failed and counts nowhere: {why}.") for folder, why in run.failed.items()]
    before = [one for name in ran for one in sections[name].shortfalls()]
    after = [one for name, told in sections.items() if name not in ran for one in told.shortfalls()]
    return (*before, *failed, *after)


def page(report: Report) -> Page:
    """The report as a page."""
    lead = (
        "hl_jax’s agents on its simulator beside <em>Hybrid Learning for Orchestrating Deep Learning Inference in "
        "Multi-user Edge-cloud Networks</em> (Shahhosseini et al.). Numbers in "
        '<span class="paper">this colour</span> are the paper’s, as printed.'
    )
    told = [block for one in report.shown() for block in one.blocks()]
    return Page(
        title=TITLE,
        lead_html=lead,
        lead_markdown="*Italic* numbers are the paper's, as printed.",
        warnings=tuple(report.warnings()),
        tiles=tuple(report.tiles()),
        blocks=(*told, *_doubts(report), *_run(report)),
    )


def _doubts(report: Report) -> list[Block]:
    items = tuple(entry.text for entry in report.shortfalls)
    first: Block = Bullets(items) if items else Paragraph("Nowhere in what was run.")
    rows = tuple(f"Table V, {entry.row} (marked * above): {entry.text}." for entry in report.contradictions)
    note = "The printed numbers are kept as they are, and nothing is tuned to these rows:"
    return [
        Heading("Where we fall short"),
        Paragraph("Made from the numbers: against the true optimum, against the paper, and baselines that failed."),
        first,
        Heading("Where the paper contradicts itself"),
        Paragraph(note),
        Bullets(rows),
    ]


def _run(report: Report) -> list[Block]:
    rows = []
    for entry in sorted(report.given, key=lambda entry: (plan.AGENTS.index(entry.agent), entry.knowledge, entry.users)):
        changes = ", ".join(f"{name}={value}" for name, value in entry.changes.items()) or "none"
        steps = f"{entry.most_steps:,}" if entry.most_steps else "–"
        texts = (str(entry.users), steps, str(entry.evaluations), str(entry.seeds), changes, entry.why)
        rows.append((Cell(entry.agent), Cell(entry.knowledge), *map(Cell, texts)))
    numbers = (
        "Users",
        "most real steps",
        "evaluations",
        "seeds",
        "departures from its constants",
        "why, or from where",
    )
    columns = ("Agent", "Penalty", *numbers)
    return [
        Heading("What was run"),
        Bullets(tuple(report.run.facts())),
        Paragraph(
            "What each agent was given. All other constants (in report.json) are its defaults, or its flag file's "
            "where it isn't told the penalty; `data/results/tuning` says how they were chosen, and what else was tried."
        ),
        Table(columns, tuple(rows), (), 3),
    ]


def pictures(report: Report) -> dict[str, Picture]:
    """All pictures by name."""
    return {name: picture for one in report.shown() for name, picture in one.pictures().items()}


def write(report: Report, out: pathlib.Path) -> None:
    """report.json, report.md, report.html and the pictures that the Markdown shows.

    Raises:
      InputError: if they can't be written.
    """
    made.write(out, report.as_json(), page(report), pictures(report))


def summary_lines(report: Report) -> list[str]:
    """The report in a few lines, for a terminal."""
    lines = [f"note: {warning}" for warning in report.warnings()]
    lines += [f"{tile.value:>10}  {tile.label}" for tile in report.tiles()]
    return [*lines, f"{len(report.shortfalls):>10}  places where we fall short, listed in the report"]
