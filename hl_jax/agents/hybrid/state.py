"""What Algorithm 1 carries from step to step, and what an epoch is told: all arrays."""

from __future__ import annotations

from typing import Any

import chex
import jax.numpy as jnp

from hl_jax.agents.hybrid import minima
from hl_jax.objective import Penalty
from hl_jax.replay import buffers, situated

UNSET = -1.0  # a goal's constraint before the first epoch's plan says what is asked


@chex.dataclass(frozen=True)
class Goal:
    """The orchestrator's Quality of Service Goal (section II-C), and what breaking it costs. Unset before an epoch."""

    constraint: chex.Array  # [] least mean accuracy, %; negative: unset
    missing: chex.Array  # [P] as in `objective.Penalty`
    penalty_ms: chex.Array  # [P]

    @classmethod
    def of(cls, constraint: float, penalty: Penalty) -> Goal:
        """A constraint (%) and its penalty as arrays."""
        points = (jnp.asarray(values, jnp.float32) for values in (penalty.missing, penalty.ms))
        return cls(constraint=jnp.float32(constraint), missing=next(points), penalty_ms=next(points))


@chex.dataclass(frozen=True)
class AgentState:
    """Everything that a run changes: parameters, optimizers, the three buffers, counters and the key."""

    key: chex.PRNGKey
    obs: chex.Array  # [F] int8, the environment's current state s
    q_params: Any
    target_params: Any
    q_optimizer: Any
    model_params: Any
    model_optimizer: Any
    direct: buffers.Prioritized
    world: buffers.Ring
    plan: buffers.Keyed | situated.Situated
    goal: Goal
    minima: minima.Minima  # of the target network, since its last copy
    real_steps: chex.Array  # every interaction with the environment, planning's included
    model_steps: chex.Array


@chex.dataclass(frozen=True)
class EpochPlan:
    """What the schedules say of one epoch (scalars)."""

    direct_sessions: chex.Array
    world_sessions: chex.Array
    suggest_sessions: chex.Array
    plan_sessions: chex.Array
    epsilon: chex.Array
    beta: chex.Array
    q_learning_rate: chex.Array
    model_learning_rate: chex.Array
    goal: Goal
