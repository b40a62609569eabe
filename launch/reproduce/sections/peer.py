"""A public peer beside our `dqn`: Stable-Baselines3's DQN with constants of its own, and its steps to optimal."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Self

from hl_jax.statistics import Spread
from launch.inputs import public
from launch.report.blocks import DASH, Block, Cell, Heading, Paragraph, Table, count
from launch.reproduce.sections.section import COMPARED, Section, Work
from launch.reproduce.units import TOLD, UNTOLD, Case, constraint_text
from launch.runs.summary import Summary


@dataclasses.dataclass(frozen=True)
class Trained(Spread):
    """An agent's real steps to optimal, and what it was given."""

    budget_steps: int  # that every seed had


@dataclasses.dataclass(frozen=True)
class Row:
    """Some users under a constraint."""

    users: int
    constraint: str
    theirs: Trained
    ours: Trained | None


def _trained(summary: Summary) -> Trained:
    return Trained(
        **dataclasses.asdict(summary.aggregate.steps_to_optimal),
        budget_steps=min(seed.real_steps for seed in summary.whole),
    )


@dataclasses.dataclass(frozen=True)
class Peer(Section):
    """Stable-Baselines3's DQN beside ours."""

    name: ClassVar[str] = "peer"
    about: ClassVar[str] = "a public agent"
    key: ClassVar[str] = "peer"

    installed: bool
    rows: tuple[Row, ...]

    @classmethod
    def cases(cls, quick: bool) -> list[Case]:
        """Both at three users: with five theirs takes some fifteen steps a second."""
        limits = ("85",) if quick else COMPARED
        agents = (("dqn", UNTOLD), (public.NAME, TOLD))  # neither is told the penalty, which theirs can't be
        return [Case("A", 3, limit, *agent) for agent in agents for limit in limits]

    @classmethod
    def compute(cls, work: Work) -> Self:
        """A row for each training of theirs."""
        rows = []
        for unit in work.units:
            theirs = work.summary(unit.case)
            if unit.case.agent != public.NAME or theirs is None:
                continue
            ours = work.summary(unit.case._replace(agent="dqn", knowledge=UNTOLD))
            rows.append(
                Row(
                    users=unit.case.users,
                    constraint=unit.case.constraint,
                    theirs=_trained(theirs),
                    ours=_trained(ours) if ours else None,
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
            "The same environment through the Gymnasium wrapper, the same evaluation of its greedy decisions. Neither "
            "is told the penalty. Theirs has constants of its own (*What was run*); what only it has (uniform replay, "
            "clipped loss and gradients) is as its defaults are. Speed: `python -m launch.benchmark`."
        )
        columns = ("Users", "Cnst", "steps to optimal", "of", "steps to optimal", "of")
        groups = (("", 2), ("dqn (ours)", 2), ("Stable-Baselines3", 2))
        return [head, Paragraph(text), Table(columns, tuple(_cells(row) for row in self.rows), groups, 2)]


def _cells(row: Row) -> tuple[Cell, ...]:
    name = Cell(str(row.users)), Cell(constraint_text(row.constraint))
    ours = _trained_cells(row.ours) if row.ours else [Cell("not run"), DASH]
    return (*name, *ours, *_trained_cells(row.theirs))


def _trained_cells(one: Trained) -> list[Cell]:
    return [Cell(f"{count(one.median)} ({one.succeeded} of {one.seeds})"), Cell(f"{one.budget_steps:,}")]
