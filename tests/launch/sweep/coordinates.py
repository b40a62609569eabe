"""An agent as a user would write one: tries joint actions that differ from the best so far in one device's choice."""

from __future__ import annotations

import dataclasses

import chex
import jax.numpy as jnp

from hl_jax.agents.world import Penalised, Run, Totals, World, real_step
from hl_jax.scenario import Scenario


@dataclasses.dataclass(frozen=True)
class Constants:
    epochs: int = 5
    tries: int = 1  # real steps with each joint action


@chex.dataclass(frozen=True)
class State:
    obs: chex.Array
    best: chex.Array  # [N]
    cost_ms: chex.Array
    real_steps: chex.Array
    model_steps: chex.Array


@dataclasses.dataclass(frozen=True)
class Coordinates(Penalised):
    config: Constants
    users: int
    choices: int

    @property
    def epochs(self) -> int:
        return self.config.epochs

    def init(self, key: chex.PRNGKey, obs: chex.Array) -> State:
        del key
        best, none = jnp.zeros(self.users, jnp.int32), jnp.int32(0)
        return State(obs=obs, best=best, cost_ms=jnp.float32(1e6), real_steps=none, model_steps=none)

    def plan(self, epoch: int) -> chex.Array:
        del epoch
        return jnp.int32(self.users * self.choices)

    def epoch(self, world: World, run: Run, plan: chex.Array) -> tuple[Run, dict[str, chex.Array]]:
        def attempt(carry: tuple[Run, chex.Array]) -> tuple[Run, chex.Array]:
            run, place = carry
            before = run.agent
            action = before.best.at[place // self.choices].set(place % self.choices)

            def step(carry: tuple[Run, chex.Array]) -> tuple[Run, chex.Array]:
                run, total = carry
                run, obs, info = real_step(world, run, action)
                agent = run.agent.replace(obs=obs, real_steps=run.agent.real_steps + 1)
                return run.replace(agent=agent), total + info["cost_ms"]

            run, total = world.repeat(self.config.tries, step, (run, jnp.float32(0.0)))
            cost_ms = total / self.config.tries
            better = cost_ms < before.cost_ms
            best, least = jnp.where(better, action, before.best), jnp.minimum(cost_ms, before.cost_ms)
            return run.replace(agent=run.agent.replace(best=best, cost_ms=least)), place + 1

        run, _ = world.repeat(plan, attempt, (run.replace(totals=Totals.zero()), jnp.int32(0)))
        return run, {"least_ms": run.agent.cost_ms}

    def decide(self, state: State, obs: chex.Array) -> chex.Array:
        del obs
        return state.best


def make(config: Constants, scenario: Scenario) -> Coordinates:
    return Coordinates(config, scenario.users, scenario.choices)
