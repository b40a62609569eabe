"""How good a policy is: greedy decisions from fixed starting states, without noise, and what counts as optimal.

Evaluations are not steps: they run on a copy of the simulator whose conditions stand still. *Steps to optimal* is
the number of real steps until every decision meets the constraint within 1 % of the oracle's response time, and
does so at every later evaluation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp

from hl_jax.simulator import Chains, EnvParams, EnvState, Orchestration, cost_ms, observe

HORIZON = 3  # decisions in a row: what the first one puts on the nodes is what the next one sees
TOLERANCE = 0.01  # relative excess over the oracle that still counts as optimal
EXACT = 1e-5  # the same for an exact optimum, above float32's rounding


@chex.dataclass(frozen=True)
class Evaluation:
    """Decisions of E starting states, H in a row each."""

    decisions: chex.Array  # [E, H, N] int32
    art_ms: chex.Array  # [E, H] noise-free
    cost_ms: chex.Array  # [E, H] the same with the penalty where the constraint is broken
    accuracy: chex.Array  # [E, H] %
    feasible: chex.Array  # [E, H] bool


def standing_still(params: EnvParams) -> EnvParams:
    """The same fleet without noise, its conditions frozen."""
    chains = params.chains
    still = Chains(
        **{
            name: jnp.zeros_like(getattr(chains, name))
            for name in chains.__dataclass_fields__
            if name != "node_cpu_max"
        },
        node_cpu_max=chains.node_cpu_max,
    )
    return dataclasses.replace(params, noise=jnp.float32(0.0), chains=still)


def start_states(key: chex.PRNGKey, params: EnvParams, count: int) -> EnvState:
    """States of idle nodes to evaluate in, one unless conditions change. Leading axis E; the key is consumed."""
    keys = jax.random.split(key, count)
    return jax.vmap(lambda one: Orchestration().reset(one, params)[1])(keys)


def evaluate(
    decide: Callable[[chex.Array], chex.Array], params: EnvParams, starts: EnvState, key: chex.PRNGKey
) -> Evaluation:
    """Follows `decide` ([F] -> [N]) for `HORIZON` steps from each start; the key is consumed (nothing is drawn)."""
    still = standing_still(params)
    environment = Orchestration()

    def follow(start: EnvState) -> Evaluation:
        def step(carry: tuple[chex.PRNGKey, EnvState], _: Any) -> tuple[tuple[chex.PRNGKey, EnvState], Evaluation]:
            key, state = carry
            key, step_key = jax.random.split(key)
            action = decide(observe(state))
            _, state, _, _, _, info = environment.step(step_key, state, action, still)
            seen = Evaluation(
                decisions=action,
                art_ms=jnp.mean(info["mean_ms"]),
                cost_ms=cost_ms(params, action, info["mean_ms"]),
                accuracy=info["accuracy"],
                feasible=info["feasible"],
            )
            return (key, state), seen

        return jax.lax.scan(step, (key, start), None, length=HORIZON)[1]

    return jax.lax.map(follow, starts)


def first_lasting(steps: Sequence[int], good: Sequence[bool]) -> int | None:
    """The earliest of `steps` from which every entry of `good` holds; None if the last one doesn't."""
    earliest = None
    for step, fine in zip(reversed(steps), reversed(good), strict=True):
        if not fine:
            break
        earliest = step
    return earliest
