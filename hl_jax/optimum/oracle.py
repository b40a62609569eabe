"""The true optimum: by brute force over all C^N joint actions (§IV-B 1 of the paper), ties included, or by `milp`.

Brute force evaluates the simulator's own noise-free `response_ms` and shares nothing with the planner, so that each can
check the other. Each response time carries a few float32 roundings (together below 4e-7 of it), and they are averaged
in float64: two joint actions that are equal in exact arithmetic always land within `TIE_TOLERANCE` of each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence

import chex
import jax
import numpy as np

from hl_jax import simulator
from hl_jax.choices import MOST_JOINT_ACTIONS
from hl_jax.optimum import milp
from hl_jax.scenario import Scenario

MOST_USERS = 5  # whose joint actions `optimum` enumerates
CHUNK = 10**5  # joint actions evaluated at once, at most
PROVEN = 1e-4  # relative gap to its lower bound that the optimum of a large fleet may have
TIE_TOLERANCE = 1e-6  # relative difference of ART up to which joint actions are equally good


@dataclasses.dataclass(frozen=True)
class Optimum:
    """The best feasible joint actions under some conditions."""

    art_ms: float  # least noise-free average response time, ms
    accuracy: float  # of `decision`, %
    decision: tuple[int, ...]  # [N] the first of `optimal`
    optimal: np.ndarray  # [T, N] int32, all optimal joint actions in lexicographic order
    complete: bool = True  # False where `optimal` holds one of them only, because nobody enumerated them
    unit_ms: float | None = None  # what regret is a part of; None: `art_ms`


@jax.jit
def _evaluate(
    params: simulator.EnvParams, conditions: simulator.Conditions, actions: chex.Array
) -> tuple[chex.Array, chex.Array]:
    """Response times [A, N] (ms) and feasibility [A] of joint actions [A, N]."""
    response = jax.vmap(simulator.response_ms, in_axes=(None, None, 0))(params, conditions, actions)
    return response, jax.vmap(simulator.meets_constraint, in_axes=(None, 0))(params, actions)


def brute_force(
    params: simulator.EnvParams,
    conditions: simulator.Conditions | None = None,
    tie_tolerance: float = TIE_TOLERANCE,
) -> Optimum:
    """Evaluates every joint action and returns the best that meet `params.constraint`.

    Args:
      params: the scenario, N devices with C choices each.
      conditions: background load and links; the scenario's own where None.
      tie_tolerance: relative difference of ART up to which a joint action counts as optimal too.

    Raises:
      ValueError: if there are more than `MOST_JOINT_ACTIONS` joint actions, or none meets the constraint.
    """
    users, choices = params.local_ms.shape[0], params.accuracy.shape[0]
    if choices**users > MOST_JOINT_ACTIONS:
        raise ValueError(
            f"users: expected at most {MOST_JOINT_ACTIONS:,} joint actions for brute force, "
            f"found {choices}^{users} ({users} devices with {choices} choices each)"
        )
    conditions = params.start if conditions is None else conditions
    # Every chunk enumerates the last devices' choices in full, so all have one shape and compile once.
    inner = max(count for count in range(users + 1) if count == 0 or choices**count <= CHUNK)
    size = choices**inner
    best, near_art, near_actions = np.inf, [], []
    for first in range(0, choices**users, size):
        flat = np.arange(first, first + size)
        actions = np.stack(np.unravel_index(flat, (choices,) * users), axis=1).astype(np.int32)
        response, feasible = _evaluate(params, conditions, actions)
        art = np.where(np.asarray(feasible), np.asarray(response, np.float64).mean(axis=1), np.inf)
        best = min(best, float(art.min()))
        near = np.isfinite(art) & (art <= best * (1.0 + tie_tolerance))
        near_art.append(art[near])
        near_actions.append(actions[near])
    if not np.isfinite(best):
        raise ValueError(
            f"constraint: expected a mean accuracy that some joint action meets, found {float(params.constraint):g} %"
        )
    # A later chunk may have lowered the bar that an earlier one was held to.
    optimal = np.concatenate(near_actions)[np.concatenate(near_art) <= best * (1.0 + tie_tolerance)]
    accuracy = np.asarray(params.accuracy, np.float64)[optimal[0]].mean()
    return Optimum(
        art_ms=best,
        accuracy=float(accuracy),
        decision=tuple(optimal[0].tolist()),
        optimal=optimal,
    )


def optimum(params: simulator.EnvParams, conditions: simulator.Conditions | None = None) -> Optimum:
    """The best feasible joint action: by brute force for up to `MOST_USERS` devices, by `milp` for more.

    Args:
      params: the scenario, N devices with C choices each.
      conditions: background load and links; the scenario's own where None.

    Raises:
      ValueError: if no joint action meets the constraint, or `milp` proves none optimal in time.
    """
    users, choices = params.local_ms.shape[0], params.accuracy.shape[0]
    if users <= MOST_USERS and choices**users <= MOST_JOINT_ACTIONS:
        return brute_force(params, conditions)
    found = milp.optimum(params, conditions)
    if found.bound_ms < found.art_ms * (1.0 - PROVEN):
        raise ValueError(
            f"users: expected a fleet whose optimum is proven within {PROVEN:g}, found one of {users} devices "
            f"between {found.bound_ms:.3f} and {found.art_ms:.3f} ms"
        )
    decision = np.array([found.decision], np.int32)
    return Optimum(found.art_ms, found.accuracy, found.decision, decision, complete=False)


def decisions_agree(first: Sequence[Hashable], second: Sequence[Hashable], scenario: Scenario) -> bool:
    """Whether two joint decisions are the same up to a permutation of equal devices (same link and speed).

    Args:
      first: [N] choices, as numbers or as labels.
      second: [N] choices, written the same way.
      scenario: whose N devices they are for. Conditions that differ between devices aren't looked at.

    Raises:
      ValueError: if a decision doesn't have one choice per device.
    """
    for decision in (first, second):
        if len(decision) != scenario.users:
            raise ValueError(f"decision: expected {scenario.users} choices, found {len(decision)}")

    def grouped(decision: Sequence[Hashable]) -> list[tuple[str, float, str]]:
        pairs = zip(scenario.devices, scenario.speeds, decision, strict=True)
        return sorted((device.link, speed, str(choice)) for device, speed, choice in pairs)

    return grouped(first) == grouped(second)
