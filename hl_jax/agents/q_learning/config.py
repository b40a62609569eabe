"""The constants of `q_learning`."""

from __future__ import annotations

import dataclasses

from hl_jax.agents.options import check_options, option


@dataclasses.dataclass(frozen=True)
class QLearningConfig:
    """The constants of tabular Q-learning; the best of the settings in data/results/tuning."""

    epochs: int = option(200, "evaluations of the run", low=1)
    epoch_steps: int = option(5000, "real steps between evaluations", low=1)
    gamma: float = option(0.0, "discount of the next state's value", low=0.0, high=0.999)
    epsilon_start: float = option(0.2, "probability of a random joint action in the first epoch", low=0.0, high=1.0)
    epsilon_end: float = option(0.0, "the same once it has fallen", low=0.0, high=1.0)
    epsilon_epochs: float = option(0.25, "part of the epochs over which epsilon falls linearly", low=0.0, high=1.0)
    explore: str = option(
        "joint",
        "what is random with probability epsilon: the joint action, or each device's choice by itself (choice)",
        choices=("joint", "choice"),
    )
    q_penalty: str = option(
        "known",
        "Q is the cost (learned), or the average response time, and what breaks the constraint is never tried (known)",
        choices=("learned", "known"),
    )
    step_size: float = option(0.84, "part of the TD error that a step corrects", low=0.0, high=1.0)
    start_value_ms: float = option(0.0, "first value of an action never tried; below any cost: each is tried", low=-1e9)
    states: int = option(64, "rows of the table; further states share the last one", low=1)
    cost_scale_ms: float = option(100.0, "costs are divided by this in the table", low=1e-3)
    penalty_factor: float = option(
        1.2, "penalty of a broken constraint, in the least that never pays (hl_jax/objective.py)", low=1.0
    )

    def __post_init__(self) -> None:
        check_options(self)
