"""What agents and environments agree on: a world to act in, a run's state, and the phases an agent offers.

A world is the simulator inside a compiled program, or a real environment stepped from the host; agents are written
once over both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, Self

import chex
import jax
import jax.numpy as jnp

from hl_jax.fleets.scenario import AnyScenario, FleetScenario
from hl_jax.objective import PENALTY_FACTOR
from hl_jax.simulator import observation_levels


@chex.dataclass(frozen=True)
class Totals:
    """An epoch's real steps: how many, and means over them. Means, since a long sum of float32 stops growing."""

    steps: chex.Array  # int32
    invalid: chex.Array  # int32, response times that are no times: not finite, or not above 0
    cost_ms: chex.Array
    art_ms: chex.Array
    infeasible: chex.Array  # part of the steps that broke the constraint
    elapsed_ms: chex.Array  # what a step takes for real: as long as its slowest device, or its control periods
    requests: chex.Array  # int32, requests made: one of each device in a step, or as many as come in a control period
    untold: chex.Array  # int32, requests that the simulation had no room for

    @classmethod
    def zero(cls) -> Totals:
        count, mean = jnp.int32(0), jnp.float32(0.0)
        return cls(
            steps=count,
            invalid=count,
            requests=count,
            untold=count,
            cost_ms=mean,
            art_ms=mean,
            infeasible=mean,
            elapsed_ms=mean,
        )

    def add(self, info: dict[str, chex.Array]) -> Totals:
        """With one more real step."""
        steps, response = self.steps + 1, info["response_ms"]
        part = 1.0 / steps.astype(jnp.float32)
        return Totals(
            steps=steps,
            invalid=self.invalid + jnp.sum(~(jnp.isfinite(response) & (response > 0.0)), dtype=jnp.int32),
            requests=self.requests + info.get("requests", jnp.int32(response.shape[0])),
            untold=self.untold + info.get("untold", jnp.int32(0)),
            cost_ms=self.cost_ms + part * (info["cost_ms"] - self.cost_ms),
            art_ms=self.art_ms + part * (info["art_ms"] - self.art_ms),
            infeasible=self.infeasible + part * (1.0 - info["feasible"] - self.infeasible),
            elapsed_ms=self.elapsed_ms + part * (info.get("elapsed_ms", jnp.max(response)) - self.elapsed_ms),
        )


class AgentState(Protocol):
    """What every agent's state has: a frozen `chex.dataclass` with, besides what it learns, these."""

    key: chex.PRNGKey
    obs: chex.Array  # [F] what is observed now
    real_steps: chex.Array  # every interaction with the environment
    model_steps: chex.Array

    def replace(self, **changes: Any) -> Self:
        """The same with other fields."""


@chex.dataclass(frozen=True)
class Run:
    """One seed's run: the agent's state, the environment's, the key of its draws, and the epoch's totals."""

    agent: Any  # an `AgentState`
    env: Any
    env_key: chex.PRNGKey
    totals: Totals


@dataclasses.dataclass(frozen=True)
class World:
    """Where an agent runs.

    `repeat(n, body, carry)` applies `body` n times. `step(env, key, action)` takes one real step with the joint action
    ([N]), and returns env, obs [F] and info (`cost_ms`, `art_ms`, `feasible`, `response_ms`, …). Where requests can be
    lost, info also has `lost` and `gone` ([N] bool): whose has no result, and who didn't answer at all.
    """

    repeat: Callable[[Any, Callable[[Any], Any], Any], Any]
    step: Callable[[Any, chex.PRNGKey, chex.Array], tuple[Any, chex.Array, dict[str, chex.Array]]]


class Agent(Protocol):
    """A learner that `launch.train` can run. All methods are pure; `plan` is computed on the host.

    Hashable, because compiled programs belong to an agent: a frozen dataclass, say.
    """

    def __hash__(self) -> int: ...

    @property
    def epochs(self) -> int:
        """Number of epochs of a run."""

    @property
    def penalty_factor(self) -> float:
        """What breaking the constraint costs, in the least that never pays (`hl_jax.objective`)."""

    def init(self, key: chex.PRNGKey, obs: chex.Array) -> Any:
        """The state before the first epoch; `obs` [F] is the environment's first; the key is consumed."""

    def plan(self, epoch: int) -> Any:
        """What the schedules say of `epoch` (1..epochs): arrays that `epoch` takes."""

    def epoch(self, world: World, run: Run, plan: Any) -> tuple[Run, dict[str, chex.Array]]:
        """One epoch. Returns also named scalars that tell how the learning goes."""

    def decide(self, state: Any, obs: chex.Array) -> chex.Array:
        """The greedy joint action ([N] int32) in the observed state [F]."""

    def under(self, state: Any, constraint: float | chex.Array) -> Any:
        """The state with another constraint (%) asked of it; as it is, if the constraint was learned from penalties."""


def misfit(agent: Agent, scenario: AnyScenario) -> str:
    """Why an agent isn't one for this scenario, as far as it says for what it was made: one line; empty if it is.

    It may say so by `users` (N), `choices` (C), `accuracy` ([C], %), `weights` (how much each device counts in the
    mean, [N]; empty: all as much) and, if it can be asked for no other, `bound_to` (its constraint, %). What it lacks,
    or is None, says nothing.
    """
    for name, expected in (
        ("users", scenario.users),
        ("choices", scenario.choices),
        ("accuracy", scenario.choice_accuracy()),
        ("weights", scenario.accuracy_weights),
        ("bound_to", scenario.constraint),
    ):
        found = getattr(agent, name, None)
        if found is not None and found != expected:
            return f"agent: expected one made for scenario {scenario.name} ({name} {expected}), found one for {found}"
    return ""


class Penalised:
    """What agents share that learn their constraint from penalties."""

    @property
    def penalty_factor(self) -> float:
        return PENALTY_FACTOR

    def under(self, state: Any, constraint: float | chex.Array) -> Any:
        """Nothing that it could do about another constraint."""
        del constraint
        return state


def observed_levels(scenario: AnyScenario) -> tuple[int, ...]:
    """How many values each of the F observed components has, as what never changes of an agent."""
    nodes = len(scenario.edges) + len(scenario.clouds) if isinstance(scenario, FleetScenario) else 2
    return tuple(int(level) for level in observation_levels(scenario.users, nodes))


def compiled_world(environment: Any, params: Any) -> World:
    """An environment (`environments`) inside a compiled program."""

    def repeat(count: chex.Array, body: Callable[[Any], Any], carry: Any) -> Any:
        return jax.lax.fori_loop(0, count, lambda _, value: body(value), carry)

    def step(env: Any, key: chex.PRNGKey, action: chex.Array) -> tuple[Any, chex.Array, dict[str, chex.Array]]:
        obs, env, _, _, _, info = environment.step(key, env, action, params)
        return env, obs, info

    return World(repeat=repeat, step=step)


def real_step(world: World, run: Run, action: chex.Array) -> tuple[Run, chex.Array, dict[str, chex.Array]]:
    """Takes one step in the environment with a joint action ([N]) and counts it."""
    env_key, step_key = jax.random.split(run.env_key)
    env, obs, info = world.step(run.env, step_key, action)
    return run.replace(env=env, env_key=env_key, totals=run.totals.add(info)), obs, info
