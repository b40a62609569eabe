"""What a run shows while it learns: a `Row` for each epoch of each seed.

metrics.csv, events and curves are made from rows, checkpoints keep them, summary.json says what they came to.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hl_jax import evaluation
from hl_jax.agents.world import Totals
from hl_jax.evaluation import Evaluation
from hl_jax.optimum.oracle import Optimum


@dataclasses.dataclass(frozen=True)
class Oracle:
    """True optima in the states that a run is evaluated in, without noise."""

    optima: tuple[Optimum, ...]  # [E]

    @property
    def art_ms(self) -> float:
        return float(np.mean([optimum.art_ms for optimum in self.optima]))


@dataclasses.dataclass(frozen=True)
class Worth:
    """What the greedy decisions after an epoch are worth. None: nobody knows."""

    art_ms: float | None
    accuracy: float  # %
    feasible: bool
    regret_percent: float | None
    decision: tuple[int, ...]  # [N]


def judged(seen: Evaluation, oracle: Oracle) -> Worth:
    """An evaluation, against the truth."""
    found = evaluation.judged(seen, oracle.optima)
    return Worth(
        art_ms=float(found.art_ms),
        accuracy=float(found.accuracy),
        feasible=bool(found.feasible),
        regret_percent=float(found.regret_percent),
        decision=tuple(found.decision.tolist()),
    )


@dataclasses.dataclass(frozen=True)
class Measured:
    """What carrying a learned policy out on a real fleet showed, after the last epoch."""

    art_ms: float
    art_sd_ms: float
    twin_art_ms: float | None  # what the digital twin says of the last decision
    measurements: int  # steps
    lost_requests: int
    decisions: dict[str, int]  # how often each joint decision was made, by its labels
    wall_s: float
    interactions: int  # real steps, those of interrupted epochs and of measuring included


@dataclasses.dataclass(frozen=True)
class Row:
    """One epoch of one seed."""

    seed: int
    epoch: int
    real_steps: int
    model_steps: int
    train_art_ms: float  # mean over the epoch's real steps
    train_cost_ms: float  # the same with penalties
    infeasible_share: float  # part of them that broke the constraint
    experience_s: float  # what these steps take on devices: each as long as its slowest device, simulated or real
    art_ms: float | None  # of the greedy decision after the epoch
    accuracy: float
    feasible: bool
    regret_percent: float | None
    decision: tuple[int, ...]
    learning: dict[str, float]  # the agent's own figures
    compute_s: float
    measured: Measured | None = None  # in a real fleet's last row


METRICS = tuple(field.name for field in dataclasses.fields(Row))[:12]  # columns of metrics.csv, before the agent's own
SHOWN = METRICS[4:]  # of these, what is drawn against real steps


def row(
    seed: int,
    epoch: int,
    steps: tuple[int, int],
    totals: Totals,
    worth: Worth,
    learning: Mapping[str, float],
    compute_s: float,
) -> Row:
    """An epoch's row; `steps` counts real and model steps so far, `totals` is of the epoch's real steps."""
    return Row(
        seed=seed,
        epoch=epoch,
        real_steps=steps[0],
        model_steps=steps[1],
        train_art_ms=float(totals.art_ms),
        train_cost_ms=float(totals.cost_ms),
        infeasible_share=float(totals.infeasible),
        experience_s=int(totals.steps) * float(totals.elapsed_ms) / 1000.0,
        **dataclasses.asdict(worth),
        learning={name: float(value) for name, value in learning.items()},
        compute_s=compute_s,
    )


History = Sequence[Row]  # of one seed
Histories = Mapping[int, History]
Show = Callable[[Callable[[], Histories]], None]  # is told how to get the histories so far
