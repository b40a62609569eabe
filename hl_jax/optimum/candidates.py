"""The best joint actions by a twin's times, to be measured on the fleet itself.

Joint actions that differ only in which of equal devices does what count as one.
"""

from __future__ import annotations

import jax
import numpy as np

from hl_jax import simulator
from hl_jax.choices import MOST_JOINT_ACTIONS, joint_actions
from hl_jax.scenario import Scenario


def canonical(scenario: Scenario, action: tuple[int, ...]) -> tuple[int, ...]:
    """The same joint action with the choices of equal devices in order."""
    groups: dict[tuple[str, float], list[int]] = {}
    for index, (device, speed) in enumerate(zip(scenario.devices, scenario.speeds, strict=True)):
        groups.setdefault((device.link, speed), []).append(index)
    result = list(action)
    for indices in groups.values():
        for index, choice in zip(indices, sorted(action[index] for index in indices), strict=True):
            result[index] = choice
    return tuple(result)


def best_candidates(scenario: Scenario, count: int) -> list[tuple[tuple[int, ...], float]]:
    """The `count` best joint actions that keep the constraint, by the twin, each with its ART (ms).

    Raises:
      ValueError: if there are too many joint actions to go through.
    """
    params, users, choices = simulator.make_params(scenario), scenario.users, scenario.choices
    total = joint_actions(users, choices)
    if total > MOST_JOINT_ACTIONS:
        expected = f"at most {MOST_JOINT_ACTIONS} joint actions"
        raise ValueError(f"--users: expected {expected}, found {choices} ** {users}")
    actions = np.stack(np.unravel_index(np.arange(total), (choices,) * users), axis=1).astype(np.int32)
    response = jax.jit(jax.vmap(simulator.response_ms, in_axes=(None, None, 0)))(params, params.start, actions)
    feasible = jax.jit(jax.vmap(simulator.meets_constraint, in_axes=(None, 0)))(params, actions)
    art = np.where(feasible, np.asarray(response, np.float64).mean(axis=1), np.inf)
    found: dict[tuple[int, ...], float] = {}
    for index in np.argsort(art, kind="stable"):
        if len(found) == count or not np.isfinite(art[index]):
            break
        found.setdefault(canonical(scenario, tuple(actions[index].tolist())), float(art[index]))
    return list(found.items())
