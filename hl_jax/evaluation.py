"""How good a policy is: greedy decisions from fixed starting states, without noise, and what counts as optimal.

Evaluations are not steps: they run on a copy of the simulator whose conditions stand still. *Steps to optimal* is
the number of real steps until every decision meets the constraint within 1 % of the oracle's response time, and
does so at every later evaluation.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from hl_jax.optimum.oracle import Optimum, optimum
from hl_jax.simulator import (
    EnvParams,
    EnvState,
    Orchestration,
    cost_ms,
    mean_accuracy,
    meets_constraint,
    observe,
    response_ms,
    standing_still,
)

HORIZON = 3  # decisions in a row: what the first one puts on the nodes is what the next one sees
TOLERANCE = 0.01  # relative excess over the oracle that still counts as optimal
EXACT = 1e-5  # the same for an exact optimum, above float32's rounding
DYNAMIC_STATES = 16  # that a policy of changing conditions is judged in


@chex.dataclass(frozen=True)
class Evaluation:
    """Decisions of E starting states, H in a row each."""

    decisions: chex.Array  # [E, H, N] int32
    art_ms: chex.Array  # [E, H] noise-free
    cost_ms: chex.Array  # [E, H] the same with the penalty where the constraint is broken
    accuracy: chex.Array  # [E, H] %
    feasible: chex.Array  # [E, H] bool


@functools.partial(jax.jit, static_argnums=2)
def start_states(key: chex.PRNGKey, params: EnvParams, count: int) -> EnvState:
    """States of idle nodes to evaluate in, one unless conditions change. Leading axis E; the key is consumed."""
    keys = jax.random.split(key, count)
    return jax.vmap(lambda one: Orchestration().reset(one, params)[1])(keys)


def evaluate(decide: Callable[[chex.Array], chex.Array], params: EnvParams, starts: EnvState) -> Evaluation:
    """Follows `decide` ([F] -> [N]) for `HORIZON` steps from each of `starts` (leading axis E)."""

    def step(state: EnvState, _: None) -> tuple[EnvState, Evaluation]:
        action = decide(observe(state))
        response = response_ms(params, state.conditions, action)
        seen = Evaluation(
            decisions=action,
            art_ms=jnp.mean(response),
            cost_ms=cost_ms(params, action, response),
            accuracy=mean_accuracy(params, action),
            feasible=meets_constraint(params, action),
        )
        return standing_still(params, state, action), seen

    return jax.vmap(lambda start: jax.lax.scan(step, start, None, length=HORIZON)[1])(starts)


@dataclasses.dataclass(frozen=True)
class Judged:
    """What policies' greedy decisions are worth, against the truth. Leading axes are seeds, and epochs where there are.

    Times and accuracies are those of the last of `HORIZON` decisions, means over the states judged in; feasibility and
    regret are those of the worst decision: one bad state is a bad policy.
    """

    optimum_ms: float  # least noise-free average response time that keeps the constraint, mean over the states
    art_ms: np.ndarray  # [...] noise-free
    accuracy: np.ndarray  # [...] %
    feasible: np.ndarray  # [...] bool
    regret_percent: np.ndarray  # [...] over the optimum, penalty included
    decision: np.ndarray  # [..., N] in the first state


def judged_states(params: EnvParams) -> EnvState:
    """The states that decisions are judged in. Leading axis E: one, or `DYNAMIC_STATES` where conditions change."""
    return start_states(jax.random.key(0), params, DYNAMIC_STATES if bool(params.dynamic) else 1)


def optima(params: EnvParams, starts: EnvState) -> tuple[Optimum, ...]:
    """The true optimum in each of these states (leading axis E)."""
    count = starts.conditions.node_cpu.shape[0]
    each = [jax.tree.map(lambda leaf, index=index: leaf[index], starts.conditions) for index in range(count)]
    return tuple(optimum(params, one) for one in each)


def judged(seen: Evaluation, truth: Sequence[Optimum]) -> Judged:
    """Evaluations ([..., E, H]) against the true optimum in each of the E states."""
    optimum_ms = np.array([one.art_ms for one in truth])
    worst = np.max(np.asarray(seen.cost_ms, np.float64) / optimum_ms[:, None], axis=(-2, -1))
    return Judged(
        optimum_ms=float(np.mean(optimum_ms)),
        art_ms=np.mean(np.asarray(seen.art_ms)[..., -1], axis=-1),
        accuracy=np.mean(np.asarray(seen.accuracy)[..., -1], axis=-1),
        feasible=np.all(np.asarray(seen.feasible), axis=(-2, -1)),
        regret_percent=100.0 * (worst - 1.0),
        decision=np.asarray(seen.decisions)[..., 0, -1, :],
    )


def first_lasting(steps: Sequence[int], good: Sequence[bool]) -> int | None:
    """The earliest of `steps` from which every entry of `good` holds; None if the last one doesn't."""
    earliest = None
    for step, fine in zip(reversed(steps), reversed(good), strict=True):
        if not fine:
            break
        earliest = step
    return earliest
