"""The paper's question put properly: how much sooner hybrid learns than dqn, where both know the same, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np

from hl_jax.objective import CONSTRAINTS
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
from launch.reproduce.sections import pairs as compared
from launch.reproduce.sections.pairs import USERS, Factor, Learned, Other, Pair
from launch.reproduce.sections.section import COMPARED, Section, Shortfall, Work
from launch.reproduce.units import LITERATURE, TOLD, UNEQUAL, UNTOLD, Case, constraint_text

EXPERIMENTS = "ABCD"
NOISES = (0.0, 0.03, 0.1, 0.3)
NOISY = (("A", "85"), ("A", "Max"), ("D", "85"))
PICTURE = "knowledge"


@dataclasses.dataclass(frozen=True)
class Knowledge(Section):
    """hybrid against dqn with the same knowledge."""

    name: ClassVar[str] = "knowledge"
    about: ClassVar[str] = "hybrid and dqn with the same knowledge"
    key: ClassVar[str] = "knowledge"
    clock: ClassVar[tuple[str, ...]] = ("compute_s",)

    pairs: tuple[Pair, ...]  # every cell of Table V, for each state of knowledge
    harder: tuple[Pair, ...]  # more and less noise, unequal devices
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
    def _harder(cls, quick: bool) -> list[Case]:
        if quick:
            return []
        # 3 % is the experiments' own.
        noises = [None if noise == 0.03 else noise for noise in NOISES]
        noisy = [Case(one, USERS, limit, "hybrid", TOLD, noise) for one, limit in NOISY for noise in noises]
        return [*noisy, *(Case(UNEQUAL, USERS, limit, "hybrid") for limit in COMPARED)]

    @classmethod
    def _others(cls, quick: bool) -> list[Case]:
        if quick:
            return []
        set_so = [Case("A", USERS, limit, agent, LITERATURE) for agent in ("hybrid", "dqn") for limit in COMPARED]
        tabular = [Case("A", USERS, limit, "q_learning", known) for known in (TOLD, UNTOLD) for limit in COMPARED]
        return [*set_so, *tabular, *(Case("A", 3, limit, public.NAME, LITERATURE) for limit in COMPARED)]

    @classmethod
    def cases(cls, quick: bool) -> list[Case]:
        """Both agents in every cell, told and untold; with other noise and devices; and the literature's."""
        both = dict.fromkeys([*cls._cells(quick), *cls._harder(quick)])
        return [*(case._replace(agent=agent) for case in both for agent in ("hybrid", "dqn")), *cls._others(quick)]

    @classmethod
    def compute(cls, work: Work) -> Self:
        """What is finished of these."""
        asked = {unit.case for unit in work.needed_by(cls.name)}
        quick = not any(case.users == USERS for case in asked)
        kept = [[case for case in cases if case in asked] for cases in (cls._cells(quick), cls._harder(quick))]
        pairs, harder = (tuple(one for case in cases if (one := compared.pair(case, work))) for cases in kept)
        others = [compared.other(case, work) for case in cls._others(quick) if case in asked]
        return cls(
            pairs=pairs,
            harder=harder,
            others=tuple(one for one in others if one is not None),
            factors=(
                compared.factor("planning, both told", ("dqn", TOLD), ("hybrid", TOLD), work),
                compared.factor("planning, neither told", ("dqn", UNTOLD), ("hybrid", UNTOLD), work),
                compared.factor("being told the penalty, dqn", ("dqn", UNTOLD), ("dqn", TOLD), work),
                compared.factor("tuning, dqn that isn't told", ("dqn", LITERATURE), ("dqn", UNTOLD), work),
                compared.factor(
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
        for pair in (*self.pairs, *self.harder):
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
                "explore; `data/results/tuning` says how each was tuned. A Q-network learns from the reward, the "
                "average response time; told hybrid's system model also from whose time was which "
                "(`--model_output=devices`)."
            ),
            Paragraph(_answer(self)),
            Figures((PICTURE,)),
            Table(columns, tuple(_pair_rows(self.pairs)), groups, 2),
            *self._where(),
            *self._harder_cells(),
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

    def _harder_cells(self) -> list[Block]:
        if not self.harder:
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
            for pair in self.harder
        )
        return [
            Heading("More and less noise, and unequal devices"),
            Paragraph(
                "Both told. Steps to optimal, median, and how many seeds got there; *unequal* are five devices whose "
                "speeds span a factor of four."
            ),
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
