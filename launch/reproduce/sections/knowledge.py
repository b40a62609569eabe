"""The paper's question put properly: how much sooner hybrid learns than dqn, where both know the same, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np

from hl_jax import statistics
from hl_jax.objective import CONSTRAINTS
from hl_jax.statistics import Ratio, Spread
from launch.inputs import paper, public
from launch.report import ratios
from launch.report.blocks import (
    DASH,
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
    times_between,
)
from launch.report.plotting import DARK, LIGHT, Picture, Theme
from launch.report.ratios import Point
from launch.reproduce.sections.section import COMPARED, Section, Shortfall, Work
from launch.reproduce.units import LITERATURE, TOLD, UNTOLD, Case, constraint_text
from launch.runs.summary import Summary

USERS = 5
EXPERIMENTS = "ABCD"
NOISES = (0.0, 0.03, 0.1, 0.3)
NOISY = (("A", "85"), ("A", "Max"), ("D", "85"))
PICTURE = "knowledge"


@dataclasses.dataclass(frozen=True)
class Learned(Spread):
    """One agent's real steps to optimal, and what they took."""

    experience_s: float | None  # median up to the optimum, as the steps would have taken for real
    compute_s: float | None  # the same of computing, on one core


@dataclasses.dataclass(frozen=True)
class Pair:
    """hybrid beside dqn in one cell, both with the same knowledge."""

    experiment: str
    constraint: str
    knowledge: str
    noise: float | None  # None: the experiment's
    hybrid: Learned
    dqn: Learned
    ratio: Ratio  # dqn's steps over hybrid's

    @property
    def decided(self) -> int:
        """1: hybrid is sooner, -1: later, 0: neither is decided (95 %)."""
        low, high = self.ratio.interval
        if low is not None and low > 1.0:
            return 1
        return -1 if high is not None and high < 1.0 else 0


@dataclasses.dataclass(frozen=True)
class Other:
    """An agent as the literature sets it, or tabular, in one cell."""

    agent: str
    knowledge: str
    users: int
    constraint: str
    steps: Spread
    budget_steps: int


@dataclasses.dataclass(frozen=True)
class Factor:
    """What one difference between two agents is worth in experiment A: one's median steps over the other's."""

    what: str
    value: float | None  # in the middle cell
    cells: int
    of: int  # cells that were run; in the others most seeds of one never got there


def _steps(summary: Summary) -> list[int | None]:
    return [seed.steps_to_optimal for seed in summary.whole]


def _learned(summary: Summary) -> Learned:
    experience = statistics.summarize([seed.experience_to_optimal_s for seed in summary.whole]).median
    compute = statistics.summarize([seed.compute_to_optimal_s for seed in summary.whole]).median
    return Learned(**dataclasses.asdict(summary.aggregate.steps_to_optimal), experience_s=experience, compute_s=compute)


def _pair(case: Case, work: Work) -> Pair | None:
    hybrid, dqn = (work.summary(case._replace(agent=agent)) for agent in ("hybrid", "dqn"))
    if hybrid is None or dqn is None:
        return None
    ratio = statistics.ratio_of_medians(_steps(dqn), _steps(hybrid))
    return Pair(case.experiment, case.constraint, case.knowledge, case.noise, _learned(hybrid), _learned(dqn), ratio)


def _other(case: Case, work: Work) -> Other | None:
    summary = work.summary(case)
    if summary is None:
        return None
    budget = min(seed.real_steps for seed in summary.whole)
    return Other(case.agent, case.knowledge, case.users, case.constraint, summary.aggregate.steps_to_optimal, budget)


def _factor(what: str, slow: tuple[str, str], quick: tuple[str, str], work: Work) -> Factor:
    """The median ratio over experiment A's cells of two agents, each an agent and what it is told."""
    ratios, run = [], 0
    for limit in CONSTRAINTS:
        found = [work.summary(Case("A", USERS, limit, *one)) for one in (slow, quick)]
        if found[0] is None or found[1] is None:
            continue
        run += 1
        above, below = (one.aggregate.steps_to_optimal.median for one in found if one)
        if above is not None and below is not None:
            ratios.append(above / below)
    return Factor(what, float(np.median(ratios)) if ratios else None, len(ratios), run)


@dataclasses.dataclass(frozen=True)
class Knowledge(Section):
    """hybrid against dqn with the same knowledge."""

    name: ClassVar[str] = "knowledge"
    about: ClassVar[str] = "hybrid and dqn with the same knowledge"
    key: ClassVar[str] = "knowledge"
    clock: ClassVar[tuple[str, ...]] = ("compute_s",)

    pairs: tuple[Pair, ...]  # every cell of Table V, for each state of knowledge
    noisy: tuple[Pair, ...]
    others: tuple[Other, ...]
    factors: tuple[Factor, ...]
    claim: float  # the paper's "up to"

    @classmethod
    def _cells(cls, quick: bool) -> list[Case]:
        if quick:
            return [Case("A", 3, "85", "hybrid")]
        return [
            Case(experiment, USERS, limit, "hybrid", knowledge)
            for knowledge in (TOLD, UNTOLD)
            for experiment in EXPERIMENTS
            for limit in CONSTRAINTS
        ]

    @classmethod
    def _noisy(cls, quick: bool) -> list[Case]:
        # 3 % is the experiments' own.
        noises = [None if noise == 0.03 else noise for noise in NOISES]
        cells = [] if quick else NOISY
        return [Case(one, USERS, limit, "hybrid", TOLD, noise) for one, limit in cells for noise in noises]

    @classmethod
    def _others(cls, quick: bool) -> list[Case]:
        if quick:
            return []
        set_so = [Case("A", USERS, limit, agent, LITERATURE) for agent in ("hybrid", "dqn") for limit in COMPARED]
        tabular = [Case("A", USERS, limit, "q_learning", known) for known in (TOLD, UNTOLD) for limit in COMPARED]
        return [*set_so, *tabular, *(Case("A", 3, limit, public.NAME, LITERATURE) for limit in COMPARED)]

    @classmethod
    def cases(cls, quick: bool) -> list[Case]:
        """Both agents in every cell, told and untold; with more and less noise; and others as the literature has."""
        both = dict.fromkeys([*cls._cells(quick), *cls._noisy(quick)])
        return [*(case._replace(agent=agent) for case in both for agent in ("hybrid", "dqn")), *cls._others(quick)]

    @classmethod
    def compute(cls, work: Work) -> Self:
        """What is finished of these."""
        asked = {unit.case for unit in work.needed_by(cls.name)}
        quick = not any(case.users == USERS for case in asked)
        kept = [[case for case in cases if case in asked] for cases in (cls._cells(quick), cls._noisy(quick))]
        pairs, noisy = (tuple(one for case in cases if (one := _pair(case, work))) for cases in kept)
        others = [_other(case, work) for case in cls._others(quick) if case in asked]
        return cls(
            pairs=pairs,
            noisy=noisy,
            others=tuple(one for one in others if one is not None),
            factors=(
                _factor("planning, both told", ("dqn", TOLD), ("hybrid", TOLD), work),
                _factor("planning, neither told", ("dqn", UNTOLD), ("hybrid", UNTOLD), work),
                _factor("being told the penalty, dqn", ("dqn", UNTOLD), ("dqn", TOLD), work),
                _factor("tuning, dqn that isn't told", ("dqn", LITERATURE), ("dqn", UNTOLD), work),
                _factor(
                    "all of it: hybrid against dqn as in the literature", ("dqn", LITERATURE), ("hybrid", TOLD), work
                ),
            ),
            claim=paper.table6().claims.over["dqn"],
        )

    def of(self, knowledge: str) -> list[Pair]:
        """The cells with some knowledge."""
        return [pair for pair in self.pairs if pair.knowledge == knowledge]

    def pictures(self) -> dict[str, Picture]:
        """Every cell's ratio."""
        if not self.pairs:
            return {}
        caption = (
            "Real steps of dqn over those of hybrid in every cell of Table V, medians with 95 % intervals; right of 1 "
            "hybrid learns sooner. The dashed line is the paper's “up to”."
        )
        light, dark = (_draw(self, theme) for theme in (LIGHT, DARK))
        return {PICTURE: Picture(light, dark, "How much sooner hybrid learns than dqn", caption, 640)}

    def tiles(self) -> list[Tile]:
        """The middle cell's ratio where both are told."""
        told = self.of(TOLD)
        ratios = [pair.ratio.value for pair in told if pair.ratio.value is not None]
        if not ratios:
            return []
        label = f"steps of dqn over hybrid's, both told, median of {len(ratios)} of {len(told)} cells"
        return [Tile(times(float(np.median(ratios))), label)]

    def shortfalls(self) -> list[Shortfall]:
        """Cells in which dqn is decidedly sooner."""
        found = []
        for pair in (*self.pairs, *self.noisy):
            if pair.decided < 0:
                noise = "" if pair.noise is None else f", {100.0 * pair.noise:g} % noise"
                where = f"{pair.experiment}/{constraint_text(pair.constraint)}, both {pair.knowledge}{noise}"
                text = f"{where}: dqn takes {times(pair.ratio.value)} of hybrid's steps, decidedly fewer."
                found.append(Shortfall("knowledge", text))
        return found

    def blocks(self) -> list[Block]:
        """The answer, the picture, and the tables."""
        if not self.pairs:
            return []
        columns = ("Exp", "Cnst", *(["hybrid", "dqn", "dqn / hybrid", "95 %"] * 2))
        groups = (("", 2), ("both told", 4), ("neither told", 4))
        return [
            Heading("Is a learned model worth it? hybrid and dqn with the same knowledge"),
            Paragraph(
                "In the paper hybrid needs up to "
                f"{self.claim:g} times fewer steps than AdaDeep's DQN. Two agents can be compared so only if they know "
                "the same. *Told*: what breaks the constraint is known to both, and only response times are learned. "
                "*Untold*: both learn the penalty from what it costs. Both have the same networks, replay and ways to "
                "explore; `data/results/tuning` says how each was tuned."
            ),
            Paragraph(_answer(self)),
            Figures((PICTURE,)),
            Table(columns, tuple(_pair_rows(self.pairs)), groups, 2),
            *self._where(),
            *self._noise(),
            *self._set_otherwise(),
        ]

    def _where(self) -> list[Block]:
        rows = tuple(
            (Cell(one.what), Cell(times(one.value)) if one.value else DASH, Cell(f"{one.cells} of {one.of}"))
            for one in self.factors
            if one.of
        )
        text = (
            "Median over experiment A's cells of one agent's steps over the other's. A DQN as the literature sets it "
            "(Stable-Baselines3's defaults on our network: one small step each four real ones, a discount of 0.99; "
            "AdaDeep's own constants aren't published) learns too seldom to get anywhere in some thousand steps, which "
            "is the baseline that a large factor comes from."
        )
        return [
            Heading("Where the factor comes from"),
            Paragraph(text),
            Table(("What", "factor", "cells"), rows, (), 1),
        ]

    def _noise(self) -> list[Block]:
        if not self.noisy:
            return []
        columns = ("Exp", "Cnst", "noise", "hybrid", "got there", "dqn", "got there", "dqn / hybrid", "95 %")
        rows = tuple(
            (
                Cell(pair.experiment),
                Cell(constraint_text(pair.constraint)),
                Cell(f"{100.0 * (0.03 if pair.noise is None else pair.noise):g} %"),
                *_learned_cells(pair.hybrid),
                *_learned_cells(pair.dqn),
                Cell(times(pair.ratio.value)),
                Cell(times_between(pair.ratio.interval)),
            )
            for pair in self.noisy
        )
        return [
            Heading("More and less noise"),
            Paragraph("Both told. Steps to optimal, median, and how many seeds got there."),
            Table(columns, rows, (), 3),
        ]

    def _set_otherwise(self) -> list[Block]:
        if not self.others:
            return []
        columns = ("Agent", "Penalty", "Users", "Cnst", "steps to optimal", "95 %", "got there", "budget")
        rows = tuple(
            (
                *(Cell(text) for text in (one.agent, one.knowledge, str(one.users), constraint_text(one.constraint))),
                Cell(count(one.steps.median)),
                Cell(interval(one.steps.median_interval)),
                Cell(f"{one.steps.succeeded} of {one.steps.seeds}"),
                Cell(f"{one.budget_steps:,}"),
            )
            for one in self.others
        )
        text = "Experiment A: agents set as the literature has them, and tabular Q-learning, told and untold."
        return [Heading("As the literature sets them, and tabular"), Paragraph(text), Table(columns, rows, (), 4)]


def _answer(found: Knowledge) -> str:
    """In words, from the numbers alone."""
    parts = []
    for knowledge, told in ((TOLD, "Where both are told"), (UNTOLD, "Where neither is")):
        pairs = found.of(knowledge)
        ratios = [pair.ratio.value for pair in pairs if pair.ratio.value is not None]
        if not ratios:
            continue
        sooner, later = (sum(pair.decided == sign for pair in pairs) for sign in (1, -1))
        # A cell in which most seeds of one never got there has no ratio, and isn't left out without a word.
        middle = f"the middle one of the {len(ratios)} (of {len(pairs)}) cells in which most seeds of both got there"
        spread = f"{times(float(np.median(ratios)))} in {middle} ({times(min(ratios))} to {times(max(ratios))})"
        reached = [sum(getattr(pair, agent).succeeded for pair in pairs) for agent in ("hybrid", "dqn")]
        runs = sum(pair.hybrid.seeds for pair in pairs), sum(pair.dqn.seeds for pair in pairs)
        parts.append(
            f"{told}, dqn takes {spread} of hybrid's steps; hybrid is decidedly sooner in {sooner} of {len(pairs)} "
            f"cells, dqn in {later}. hybrid got there in {reached[0]} of {runs[0]} runs, dqn in {reached[1]} of "
            f"{runs[1]}."
        )
        experience, compute = (
            [
                getattr(pair.dqn, name) / getattr(pair.hybrid, name)
                for pair in pairs
                if getattr(pair.dqn, name) and getattr(pair.hybrid, name)
            ]
            for name in ("experience_s", "compute_s")
        )
        if experience and compute:
            parts.append(
                f"In experience time dqn takes {times(float(np.median(experience)))} of hybrid's, in computing "
                f"{times(float(np.median(compute)))}."
            )
    return " ".join(parts)


def _learned_cells(one: Learned) -> list[Cell]:
    return [Cell(count(one.median)), Cell(f"{one.succeeded} of {one.seeds}")]


def _pair_rows(pairs: Sequence[Pair]) -> list[tuple[Cell, ...]]:
    by_cell: dict[tuple[str, str], dict[str, Pair]] = {}
    for pair in pairs:
        by_cell.setdefault((pair.experiment, pair.constraint), {})[pair.knowledge] = pair
    rows = []
    for (experiment, limit), found in by_cell.items():
        cells = [Cell(experiment), Cell(constraint_text(limit))]
        for knowledge in (TOLD, UNTOLD):
            if knowledge not in found:
                cells += [DASH] * 4
                continue
            one = found[knowledge]
            steps = [Cell(f"{count(each.median)} ({each.succeeded} of {each.seeds})") for each in (one.hybrid, one.dqn)]
            cells += [*steps, Cell(times(one.ratio.value)), Cell(times_between(one.ratio.interval))]
        rows.append(tuple(cells))
    return rows


def _point(pair: Pair | None) -> Point | None:
    if pair is None or pair.ratio.value is None or pair.ratio.interval[0] is None:
        return None
    return pair.ratio.value, pair.ratio.interval[0], pair.ratio.interval[1]


def _draw(found: Knowledge, theme: Theme) -> bytes:
    """A row for each cell, a dot with its interval for each state of knowledge. A PNG."""
    known = (TOLD, UNTOLD)
    by_cell = {(pair.experiment, pair.constraint, pair.knowledge): pair for pair in found.pairs}
    cells = dict.fromkeys((pair.experiment, pair.constraint) for pair in found.pairs)
    rows = [
        (f"{one}, {constraint_text(limit)}", [_point(by_cell.get((one, limit, what))) for what in known])
        for one, limit in cells
    ]
    series = [("both told the penalty", theme.agents["hybrid"]), ("neither told", theme.agents["dqn"])]
    claim = f"the paper's “up to” {found.claim:g}", found.claim
    return ratios.draw(rows, series, claim, "dqn's steps over hybrid's (log)", theme)
