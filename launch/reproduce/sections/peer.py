"""A public peer beside our `dqn`: Stable-Baselines3's DQN with constants of its own, its steps to optimal and speed."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Self

from hl_jax.statistics import Spread
from launch.inputs import public
from launch.report.blocks import DASH, Block, Cell, Heading, Paragraph, Table, count, times
from launch.reproduce.sections.section import COMPARED, Section, Work, steps_per_s
from launch.reproduce.units import Case, constraint_text
from launch.runs.summary import Summary


@dataclasses.dataclass(frozen=True)
class Trained(Spread):
    """An agent's real steps to optimal, and what it was given."""

    budget_steps: int  # that every seed had
    steps_per_s: float


@dataclasses.dataclass(frozen=True)
class Row:
    """Some users under a constraint."""

    users: int
    constraint: str
    judged: bool  # False: only speed was measured
    theirs: Trained
    ours: Trained | None
    speed_ratio: float | None  # ours over theirs


def _trained(summary: Summary) -> Trained:
    return Trained(
        **dataclasses.asdict(summary.aggregate.steps_to_optimal),
        budget_steps=min(seed.real_steps for seed in summary.whole),
        steps_per_s=steps_per_s(summary.whole),
    )


@dataclasses.dataclass(frozen=True)
class Peer(Section):
    """Stable-Baselines3's DQN beside ours."""

    name: ClassVar[str] = "peer"
    about: ClassVar[str] = "a public agent"
    key: ClassVar[str] = "peer"
    clock: ClassVar[tuple[str, ...]] = ("steps_per_s", "speed_ratio")

    installed: bool
    rows: tuple[Row, ...]

    @classmethod
    def cases(cls, quick: bool) -> list[Case]:
        """Both at three users, and its speed at five; one constraint of these."""
        if quick:
            return [Case("A", 3, "85", agent) for agent in ("dqn", public.NAME)]
        both = [Case("A", 3, limit, agent) for agent in ("dqn", public.NAME) for limit in COMPARED]
        return [*both, Case("A", 5, "85", public.NAME)]

    @classmethod
    def compute(cls, work: Work) -> Self:
        """A row for each training of theirs."""
        rows = []
        for unit in work.units:
            theirs = work.summary(unit.case)
            if unit.case.agent != public.NAME or theirs is None:
                continue
            ours, their = work.summary(unit.case._replace(experiment="A", agent="dqn")), _trained(theirs)
            our = _trained(ours) if ours else None
            rows.append(
                Row(
                    users=unit.case.users,
                    constraint=unit.case.constraint,
                    judged=unit.budget.learns,
                    theirs=their,
                    ours=our,
                    speed_ratio=our.steps_per_s / their.steps_per_s if our else None,
                )
            )
        return cls(public.installed(), tuple(rows))

    def blocks(self) -> list[Block]:
        """The table, or why there is none."""
        head = Heading("A public peer: Stable-Baselines3's DQN")
        if not self.rows:
            missing = "isn't installed (requirements-peer.txt), so this part wasn't run"
            return [head, Paragraph(f"Stable-Baselines3 {'was left out' if self.installed else missing}.")]
        text = (
            "The same environment through the Gymnasium wrapper, and the same evaluation of its greedy decisions. It "
            "can't be told the penalty, and has constants of its own (*What was run*); what only it has (uniform "
            "replay, clipped loss and gradients) is as its defaults are. "
            "Where only its speed was measured, steps aren't shown. Steps/s include the environment's steps and the "
            "updates after each, of which ours makes more: `python -m launch.benchmark` compares equal work."
        )
        columns = ("Users", "Cnst", "steps to optimal", "steps/s", "steps to optimal", "steps/s", "speed")
        groups = (("", 2), ("dqn (ours)", 2), ("Stable-Baselines3", 2), ("ours/theirs", 1))
        return [head, Paragraph(text), Table(columns, tuple(_cells(row) for row in self.rows), groups, 2)]


def _cells(row: Row) -> tuple[Cell, ...]:
    name = Cell(str(row.users)), Cell(constraint_text(row.constraint))
    ours = _trained_cells(row.ours) if row.ours else [Cell("not run"), DASH]
    steps, speed = _trained_cells(row.theirs)
    ratio = Cell(times(row.speed_ratio)) if row.speed_ratio else DASH
    return (*name, *ours, steps if row.judged else DASH, speed, ratio)


def _trained_cells(one: Trained) -> list[Cell]:
    return [Cell(f"{count(one.median)} ({one.succeeded} of {one.seeds})"), Cell(f"{one.steps_per_s:,.0f}")]
