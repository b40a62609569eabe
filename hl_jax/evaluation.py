"""How good a policy is: greedy decisions from fixed starting states, without noise, and what counts as optimal.

Evaluations are not steps: they run on a copy of the simulator whose conditions stand still. *Steps to optimal* is
the number of real steps until every decision meets the constraint within 1 % of the oracle's response time, and
does so at every later evaluation.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from hl_jax import objective
from hl_jax.environments import Params, State, environment
from hl_jax.fleets import environment as fleet
from hl_jax.fleets.params import FleetParams
from hl_jax.optimum import placing, racing
from hl_jax.optimum.oracle import Optimum, optimum
from hl_jax.simulator import (
    Conditions,
    EnvParams,
    EnvState,
    cost_ms,
    mean_accuracy,
    meets_constraint,
    observe,
    response_ms,
    standing_still,
)
from hl_jax.traffic import environment as traffic
from hl_jax.traffic import standing
from hl_jax.traffic.environment import TrafficParams, TrafficState

HORIZON = 3  # decisions in a row: what the first one puts on the nodes is what the next one sees
TOLERANCE = 0.01  # relative excess over the oracle that still counts as optimal
EXACT = 1e-5  # the same for an exact optimum, above float32's rounding
ROLLOUTS = 16  # that a standing decision is judged by under traffic
DYNAMIC_STATES = 16  # that a policy of changing conditions is judged in


@chex.dataclass(frozen=True)
class Evaluation:
    """Decisions of E starting states, H in a row each."""

    decisions: chex.Array  # [E, H, N] int32
    art_ms: chex.Array  # [E, H] noise-free
    cost_ms: chex.Array  # [E, H] what the goal counts (mostly the same), with the penalty where a constraint is broken
    accuracy: chex.Array  # [E, H] %
    feasible: chex.Array  # [E, H] bool


@functools.partial(jax.jit, static_argnums=2)
def start_states(key: chex.PRNGKey, params: Params, count: int) -> State:
    """States of idle nodes to evaluate in, one unless conditions change. Leading axis E; the key is consumed."""
    keys = jax.random.split(key, count)
    return jax.vmap(lambda one: environment(params).reset(one, params)[1])(keys)


def _at_once(params: EnvParams, state: EnvState, action: chex.Array) -> tuple[EnvState, Evaluation]:
    """What a joint action is worth without noise, and the state after it if nothing else changes."""
    response = response_ms(params, state.conditions, action)
    seen = Evaluation(
        decisions=action,
        art_ms=jnp.mean(response),
        cost_ms=cost_ms(params, action, response),
        accuracy=mean_accuracy(params, action),
        feasible=meets_constraint(params, action),
    )
    return standing_still(params, state, action), seen


def _in_fleet(params: FleetParams, state: EnvState, action: chex.Array) -> tuple[EnvState, Evaluation]:
    """The same of a user's own fleet."""
    worth = fleet.worth(params, state.conditions, action)
    seen = Evaluation(
        decisions=action,
        art_ms=jnp.mean(worth.response_ms),
        cost_ms=worth.cost,
        accuracy=worth.accuracy,
        feasible=worth.feasible,
    )
    return fleet.standing_still(params, state, action), seen


def _under_traffic(params: TrafficParams, state: TrafficState, action: chex.Array) -> tuple[TrafficState, Evaluation]:
    """The same of a standing decision: means over the first rollouts in which the oracle's candidates race."""
    still = standing.still(params, state.monitors.conditions)
    worth = racing.costs(still, action, jnp.int32(0), jnp.arange(ROLLOUTS))
    accuracy = traffic.mean_accuracy(params, action)
    seen = Evaluation(
        decisions=action,
        art_ms=jnp.mean(worth.mean_ms),
        cost_ms=jnp.mean(worth.cost_ms) + traffic.penalty_ms(params, accuracy),
        accuracy=accuracy,
        feasible=objective.meets(accuracy, params.fleet.constraint),
    )
    return traffic.settled(params, state, action), seen


def evaluate(decide: Callable[[chex.Array], chex.Array], params: Params, starts: State) -> Evaluation:
    """Follows `decide` ([F] -> [N]) for `HORIZON` steps from each of `starts` (leading axis E)."""

    def step(state: Any, _: None) -> tuple[Any, Evaluation]:
        if isinstance(params, TrafficParams):
            return _under_traffic(params, state, decide(observe(state.monitors)))
        if isinstance(params, FleetParams):
            return _in_fleet(params, state, decide(observe(state)))
        return _at_once(params, state, decide(observe(state)))

    return jax.vmap(lambda start: jax.lax.scan(step, start, None, length=HORIZON)[1])(starts)


@dataclasses.dataclass(frozen=True)
class Judged:
    """What policies' greedy decisions are worth, against the truth. Leading axes are seeds, and epochs where there are.

    Times and accuracies are those of the last of `HORIZON` decisions, means over the states judged in; feasibility and
    regret are those of the worst decision: one bad state is a bad policy. Of missed deadlines regret is in percentage
    points of the requests.
    """

    optimum_ms: float  # least noise-free average response time that keeps the constraint, mean over the states
    art_ms: np.ndarray  # [...] noise-free
    accuracy: np.ndarray  # [...] %
    feasible: np.ndarray  # [...] bool
    regret_percent: np.ndarray  # [...] over the optimum, penalty included
    decision: np.ndarray  # [..., N] in the first state


def judged_states(params: Params) -> State:
    """The states that decisions are judged in. Leading axis E: one, or `DYNAMIC_STATES` where conditions change."""
    return start_states(jax.random.key(0), params, DYNAMIC_STATES if bool(params.dynamic) else 1)


def optima(params: Params, starts: State) -> tuple[Optimum, ...]:
    """The true optimum in each of these states (leading axis E)."""
    conditions = starts.monitors.conditions if isinstance(starts, TrafficState) else starts.conditions
    count = conditions.node_cpu.shape[0]
    each = [jax.tree.map(lambda leaf, index=index: leaf[index], conditions) for index in range(count)]
    if isinstance(params, TrafficParams):
        return tuple(_raced(params, one) for one in each)
    if isinstance(params, FleetParams):
        return tuple(_placed(params, one) for one in each)
    return tuple(optimum(params, one) for one in each)


def _raced(params: TrafficParams, conditions: Conditions) -> Optimum:
    """The best standing decision, worth what it is in the rollouts that policies are judged by."""
    found = racing.optimum(params, conditions)
    still, decision = standing.still(params, conditions), jnp.array(found.decision, jnp.int32)
    worth = racing.costs(still, decision, jnp.int32(0), jnp.arange(ROLLOUTS))
    optimal = np.array([found.decision, *found.rivals], np.int32)
    cost_ms = float(np.mean(worth.cost_ms))
    # The best decision may miss no deadline at all: there regret is in percentage points of the requests.
    unit_ms = float(params.deadline_ms) if params.objective == "misses" else None
    return Optimum(cost_ms, found.accuracy, found.decision, optimal, complete=False, unit_ms=unit_ms)


def _placed(params: FleetParams, conditions: Conditions) -> Optimum:
    """The best joint action of a user's own fleet; what it costs is what its goal counts."""
    found = placing.optimum(fleet.problem(params, conditions))
    decision = np.array([found.action], np.int32)
    return Optimum(found.cost, found.accuracy, found.action, decision, complete=False)


def judged(seen: Evaluation, truth: Sequence[Optimum]) -> Judged:
    """Evaluations ([..., E, H]) against the true optimum in each of the E states."""
    optimum_ms = np.array([one.art_ms for one in truth])
    units = np.array([one.art_ms if one.unit_ms is None else one.unit_ms for one in truth])
    over = (np.asarray(seen.cost_ms, np.float64) - optimum_ms[:, None]) / units[:, None]
    return Judged(
        optimum_ms=float(np.mean(optimum_ms)),
        art_ms=np.mean(np.asarray(seen.art_ms)[..., -1], axis=-1),
        accuracy=np.mean(np.asarray(seen.accuracy)[..., -1], axis=-1),
        feasible=np.all(np.asarray(seen.feasible), axis=(-2, -1)),
        regret_percent=100.0 * np.max(over, axis=(-2, -1)),
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
