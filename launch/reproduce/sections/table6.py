"""Table VI: real steps to the optimal policy of the three agents, beside the printed ones, and who learns sooner."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

from matplotlib import ticker
from matplotlib.lines import Line2D

from hl_jax.statistics import Spread
from launch.inputs import paper
from launch.inputs.paper import NAMES
from launch.report.blocks import (
    BAD,
    DASH,
    GOOD,
    PAPER,
    Block,
    Cell,
    Figures,
    Heading,
    Paragraph,
    Table,
    Tile,
    count,
    interval,
    times,
    verdict,
)
from launch.report.plotting import DARK, LIGHT, Picture, Theme, counts, legend, png, styled_axes
from launch.reproduce.sections.section import COMPARED, Section, Shortfall, Work, listed, ratio
from launch.reproduce.units import Case, constraint_text
from launch.runs.summary import Summary

BASELINES = ("dqn", "q_learning")
HEADLINE_USERS = 5  # of which the paper's "up to" is said
PICTURE = "steps"


@dataclasses.dataclass(frozen=True)
class Steps(Spread):
    """One agent's real steps to optimal."""

    exact_median: float | None  # with no tolerance
    exact_succeeded: int
    budget_steps: int  # that every seed had
    never: tuple[int, ...]  # seeds that never got there
    paper: int
    ratio: float | None  # ours over the paper's

    @property
    def more(self) -> bool:
        """Whether it needs more than the paper's; what is never isn't more."""
        return self.ratio is not None and self.ratio > 1.0


@dataclasses.dataclass(frozen=True)
class Gain:
    """A baseline's steps over hybrid's."""

    ours: float | None
    at_least: float | None  # where most of the baseline's seeds never got there: its budget over hybrid's steps
    paper: float


@dataclasses.dataclass(frozen=True)
class Row:
    """Some users under a constraint; by agents, the baselines in `over_hybrid`."""

    users: int
    constraint: str
    paper: dict[str, int]
    agents: dict[str, Steps]
    over_hybrid: dict[str, Gain | None]


@dataclasses.dataclass(frozen=True)
class Headline:
    """The largest gain at five users, as the paper's "up to", and the smallest beside it."""

    paper: float
    most: float | None
    least: float | None
    most_at_least: float | None
    cells: int  # that were run


def _steps(summary: Summary, printed: int) -> Steps:
    ours, exact = summary.aggregate.steps_to_optimal, summary.aggregate.steps_to_exact
    return Steps(
        **dataclasses.asdict(ours),
        exact_median=exact.median,
        exact_succeeded=exact.succeeded,
        budget_steps=min(seed.real_steps for seed in summary.whole),
        never=tuple(seed.seed for seed in summary.whole if seed.steps_to_optimal is None),
        paper=printed,
        ratio=ratio(ours.median, printed),
    )


def _gain(cells: Mapping[str, Steps], agent: str) -> Gain | None:
    if not {agent, "hybrid"} <= cells.keys():
        return None
    base, hybrid = cells[agent], cells["hybrid"]
    return Gain(
        ours=ratio(base.median, hybrid.median),
        at_least=ratio(base.budget_steps, hybrid.median) if base.median is None else None,
        paper=base.paper / hybrid.paper,
    )


def _row(entry: paper.Learned, work: Work) -> Row:
    cells = {}
    for agent, printed in entry.steps.items():
        if summary := work.summary(Case("A", entry.users, entry.limit, agent)):
            cells[agent] = _steps(summary, printed)
    gains = {agent: _gain(cells, agent) for agent in BASELINES}
    return Row(users=entry.users, constraint=entry.limit, paper=entry.steps, agents=cells, over_hybrid=gains)


def _headline(rows: tuple[Row, ...], agent: str, claim: float) -> Headline:
    gains = [gain for row in rows if row.users == HEADLINE_USERS and (gain := row.over_hybrid[agent])]
    known = [gain.ours for gain in gains if gain.ours is not None]
    return Headline(
        paper=claim,
        most=max(known, default=None),
        least=min(known, default=None),
        most_at_least=max((gain.at_least for gain in gains if gain.at_least is not None), default=None),
        cells=len(gains),
    )


@dataclasses.dataclass(frozen=True)
class Table6(Section):
    """Steps to optimal beside the printed ones, and baseline over hybrid."""

    name: ClassVar[str] = "6"
    about: ClassVar[str] = "Table VI"
    key: ClassVar[str] = "table6"

    rows: tuple[Row, ...]
    of: int  # the paper's rows
    run: int  # rows in which hybrid was
    within_paper: int  # of them, with no more steps than the paper's
    headline: dict[str, Headline]  # by baseline

    @classmethod
    def cases(cls, quick: bool) -> list[Case]:
        """Three agents in every row; in one."""
        if quick:
            return [Case("A", 3, "85", agent) for agent in NAMES]
        return [Case("A", users, limit, agent) for users in (3, 4, 5) for agent in NAMES for limit in COMPARED]

    @classmethod
    def compute(cls, work: Work) -> Self:
        """The rows that were asked for, in the paper's order."""
        printed = paper.table6()
        asked = {(unit.case.users, unit.case.constraint) for unit in work.needed_by(cls.name)}
        rows = tuple(_row(entry, work) for entry in printed.rows if (entry.users, entry.limit) in asked)
        hybrid = [row.agents["hybrid"] for row in rows if "hybrid" in row.agents]
        return cls(
            rows=rows,
            of=len(printed.rows),
            run=len(hybrid),
            within_paper=sum(cell.ratio is not None and cell.ratio <= 1.0 for cell in hybrid),
            headline={agent: _headline(rows, agent, claim) for agent, claim in printed.claims.over.items()},
        )

    def pictures(self) -> dict[str, Picture]:
        """All rows at a glance."""
        if not self.rows:
            return {}
        caption = (
            "Dots are our medians over seeds with their 95 % intervals, diamonds the paper's Table VI. "
            "A triangle is an agent of which most seeds never got there: more than its budget."
        )
        light, dark = (_draw(self.rows, theme) for theme in (LIGHT, DARK))
        return {PICTURE: Picture(light, dark, "Steps to optimal, ours and printed", caption, 640)}

    def tiles(self) -> list[Tile]:
        """How many rows are within the paper's, and how much sooner hybrid learns."""
        found = []
        if self.run:
            label = "cells of Table VI at or under the paper's step count"
            kind = GOOD if self.within_paper == self.run else BAD
            found.append(Tile(f"{self.within_paper} of {self.run}", label, kind))
        for agent, head in self.headline.items():
            if head.cells:
                label = f"steps of {agent} over hybrid's at five users, at most; the paper's “up to” is {head.paper}"
                found.append(Tile(times(head.most, head.most_at_least), label))
        return found

    def shortfalls(self) -> list[Shortfall]:
        """Seeds that never got there, more steps than printed, baselines that flatter or that learn too well."""
        return [one for row in self.rows for one in _shortfalls(row)]

    def blocks(self) -> list[Block]:
        """The table, who learns sooner, and all statistics."""
        if not self.rows:
            return []
        groups = (("", 2), *((f"{agent} ({name})", 3) for agent, name in NAMES.items()))
        columns = ("Users", "Cnst", *(["ours", "printed", "ratio"] * 3))
        text = (
            "Experiment A. Real steps until the greedy decision meets the constraint within 1 % of the optimum's "
            "response time and stays so at every later evaluation: median over seeds, in brackets how many seeds got "
            "there. Every interaction counts, planning's included; a count is as fine as evaluations are apart "
            "(*What was run*). hybrid is at or under the paper's count in "
            f"{self.within_paper} of {self.run} cells that were run ({self.of} in the table)."
        )
        gains = (("", 2), *((f"{agent} / hybrid", 2) for agent in BASELINES))
        return [
            Heading("Table VI: steps to the optimal policy"),
            Paragraph(text),
            Figures((PICTURE,)),
            Table(columns, tuple(_row_cells(row) for row in self.rows), groups, 2),
            Heading("How much sooner hybrid learns"),
            Paragraph(" ".join(_headline_text(agent, head) for agent, head in self.headline.items())),
            Table(("Users", "Cnst", *(["ours", "printed"] * 2)), tuple(map(_gain_cells, self.rows)), gains, 2),
            *self._detail(),
        ]

    def _detail(self) -> list[Block]:
        rows = tuple(
            (*_name(row), Cell(agent), *_detail_cells(row.agents[agent]))
            for row in self.rows
            for agent in NAMES
            if agent in row.agents
        )
        if not rows:
            return []
        head = ("Users", "Cnst", "agent", "got there", "median", "95 %", "IQM", "95 %", "exactly optimal", "budget")
        return [
            Heading("Table VI in detail"),
            Paragraph(
                "Median and interquartile mean (IQM) over seeds with 95 % bootstrap intervals; a seed that never got "
                "there is ranked last. “Exactly optimal” is the same count with no tolerance."
            ),
            Table(head, rows, (), 3),
        ]


def _shortfalls(row: Row) -> list[Shortfall]:
    place, found = f"Table VI, {row.users} users, {constraint_text(row.constraint)}", []
    for agent, cell in row.agents.items():
        if cell.never:
            never = f"{len(cell.never)} of {cell.seeds} seeds of {agent} never got there"
            text = f"{place}: {never} in {cell.budget_steps:,} steps ({listed(cell.never)})."
            found.append(Shortfall("never", text))
    hybrid = row.agents.get("hybrid")
    if hybrid and hybrid.more:
        steps = f"a median of {hybrid.median:,.0f} steps"
        found.append(Shortfall("steps", f"{place}: hybrid needs {steps}, over the paper's {hybrid.paper:,}."))
    for agent in BASELINES:
        base, gain, name = row.agents.get(agent), row.over_hybrid[agent], NAMES[agent]
        if base and base.more:
            worse = f"{base.median:,.0f} steps, more than {name}'s {base.paper:,} in the paper"
            found.append(Shortfall("baseline", f"{place}: our {agent} needs {worse}, which flatters hybrid."))
        if gain and gain.ours is not None and gain.ours < gain.paper:
            ours = f"{agent} needs {gain.ours:.1f} times hybrid's steps"
            text = f"{place}: {ours}; in the paper {name} needs {gain.paper:.1f} times."
            found.append(Shortfall("speed-up", text))
    return found


def _name(row: Row) -> tuple[Cell, Cell]:
    return Cell(str(row.users)), Cell(constraint_text(row.constraint))


def _row_cells(row: Row) -> tuple[Cell, ...]:
    cells: list[Cell] = []
    for agent in NAMES:
        cell, printed = row.agents.get(agent), Cell(f"{row.paper[agent]:,}", PAPER)
        if cell is None:
            cells += [Cell("not run"), printed, DASH]
            continue
        got = f"{count(cell.median)} ({cell.succeeded} of {cell.seeds})"
        # Only our own agent is held to the paper's count: a better baseline is no merit of it.
        against = Cell(times(cell.ratio))
        if agent == "hybrid":
            against = verdict(cell.ratio is not None and not cell.more, against.text)
        cells += [Cell(got), printed, against]
    return (*_name(row), *cells)


def _gain_cells(row: Row) -> tuple[Cell, ...]:
    cells: list[Cell] = []
    for gain in row.over_hybrid.values():
        known = gain and [Cell(times(gain.ours, gain.at_least)), Cell(times(gain.paper), PAPER)]
        cells += known or [DASH, DASH]
    return (*_name(row), *cells)


def _detail_cells(cell: Steps) -> tuple[Cell, ...]:
    texts = (
        f"{cell.succeeded} of {cell.seeds}",
        count(cell.median),
        interval(cell.median_interval),
        count(cell.iqm),
        interval(cell.iqm_interval),
        f"{count(cell.exact_median)} ({cell.exact_succeeded} of {cell.seeds})",
        f"{cell.budget_steps:,}",
    )
    return tuple(map(Cell, texts))


def _headline_text(agent: str, head: Headline) -> str:
    if not head.cells:
        return f"{agent}: not run at five users (the paper: up to {head.paper}× over {NAMES[agent]})."
    ours = f"{times(head.least)} to {times(head.most)}" if head.most is not None else "no ratio"
    more = f", and more than {times(head.most_at_least)} where it never got there" if head.most_at_least else ""
    return f"At five users {agent} takes {ours} of hybrid's steps{more} (the paper: up to {head.paper}×)."


def _draw(rows: Sequence[Row], theme: Theme) -> bytes:
    """Each row: ours as a dot with its interval, the paper's as a diamond. A PNG."""
    figure, axes = styled_axes(theme, 5.4, 1.5 + 0.42 * len(rows))
    edge = 1.0
    for index, row in enumerate(rows):
        for offset, agent in enumerate(NAMES):
            color, y = theme.agents[agent], index + 0.22 * (offset - 1)
            axes.plot(row.paper[agent], y, "D", mfc="none", mec=color, ms=5, mew=1.1)
            edge = max(edge, row.paper[agent])
            cell = row.agents.get(agent)
            if cell is None:
                continue
            if cell.median is None:
                # Nothing but that it is more than the budget is known.
                axes.plot(cell.budget_steps, y, ">", color=color, ms=6)
                edge = max(edge, cell.budget_steps)
                continue
            low, high = cell.median_interval
            end = cell.budget_steps if high is None else high
            axes.plot([low, end], [y, y], color=color, lw=2, alpha=0.55, solid_capstyle="butt")
            axes.plot(cell.median, y, "o", color=color, ms=6)
            edge = max(edge, end)
    axes.set_xscale("log")
    axes.set_xlim(right=edge * 1.6)
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(counts))
    axes.set_yticks(range(len(rows)), [f"{row.users} users, {constraint_text(row.constraint)}" for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    for index in range(1, len(rows)):
        same = rows[index].users == rows[index - 1].users
        axes.axhline(index - 0.5, color=theme.grid, lw=0.4 if same else 1.4)
    axes.set_xlabel("real steps until the decision is and stays optimal (log)", fontsize=9)
    names = {"hybrid": "hybrid (paper: ours)", "dqn": "dqn (AdaDeep)", "q_learning": "q_learning (AutoScale)"}
    handles = [Line2D([], [], color=theme.agents[agent], marker="o", lw=2, label=names[agent]) for agent in NAMES]
    handles.append(Line2D([], [], mfc="none", mec=theme.ink, marker="D", ms=5, lw=0, label="printed"))
    legend(axes, theme, handles, loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2, columnspacing=1.5)
    return png(figure)
