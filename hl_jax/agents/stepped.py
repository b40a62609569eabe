"""Algorithm 1 stepped from the host: an agent's `epoch` as a Python loop around its compiled phases.

A real environment can't be inside a compiled program. `Stepped` runs an agent's own `epoch` with each of its methods
compiled by itself, and `host_world` gives it Python loops and an environment that is called; so nothing is written
twice.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import chex
import jax

from hl_jax.agents.world import Run, World

# One real step: (env, key, joint action [N]) to env, obs [F], info.
HostStep = Callable[[Any, chex.PRNGKey, chex.Array], tuple[Any, chex.Array, dict[str, chex.Array]]]


def _has_phases(value: Any) -> bool:
    """Whether this is a part of an agent that computes (a `Learner`), not plain data (a configuration)."""
    public = (name for name, _ in inspect.getmembers(type(value), inspect.isfunction) if not name.startswith("_"))
    return dataclasses.is_dataclass(value) and next(public, None) is not None


class Stepped:
    """Stands in for an agent (or a part of it): the same attributes, but every method compiled once."""

    def __init__(self, agent: Any) -> None:
        self._agent = agent
        self._parts: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if name not in self._parts:
            value = getattr(self._agent, name)
            if inspect.ismethod(value):
                value = jax.jit(value)
            elif _has_phases(value):
                value = Stepped(value)
            self._parts[name] = value
        return self._parts[name]

    def plan(self, epoch: int) -> Any:
        """The agent's; it is computed on the host."""
        return self._agent.plan(epoch)

    def epoch(self, world: World, run: Run, plan: Any) -> tuple[Run, dict[str, chex.Array]]:
        """The agent's own `epoch`, with this object in its place."""
        epoch: tuple[Run, dict[str, chex.Array]] = type(self._agent).epoch(self, world, run, plan)
        return epoch


def host_world(step: HostStep) -> World:
    """A world whose loops are Python's, and whose real steps are `step`."""

    def repeat(count: chex.Array | int, body: Callable[[Any], Any], carry: Any) -> Any:
        for _ in range(int(count)):
            carry = body(carry)
        return carry

    return World(repeat=repeat, step=step)
