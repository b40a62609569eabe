"""Algorithm 1, once. The control flow is written over two things that differ between worlds: `repeat` and `step`.

With the simulator both are JAX (`compiled`), and an epoch is one compiled program. With a real environment they are
a Python loop and a call on the host, around the same phases, each jitted.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp

from hl_jax import search
from hl_jax.agents.config import HybridConfig, alpha_at
from hl_jax.agents.learner import AgentState, EpochPlan, Learner
from hl_jax.simulator import EnvParams, EnvState, Orchestration


@chex.dataclass(frozen=True)
class Totals:
    """Sums over an epoch's real steps."""

    steps: chex.Array
    cost_ms: chex.Array
    art_ms: chex.Array
    infeasible: chex.Array  # steps that broke the constraint
    elapsed_ms: chex.Array  # what the steps take for real: each as long as its slowest device

    @classmethod
    def zero(cls) -> Totals:
        return cls(**{field.name: jnp.float32(0.0) for field in dataclasses.fields(cls)})


@chex.dataclass(frozen=True)
class Run:
    """One seed's run: the agent, the environment, and the key of the environment's draws."""

    agent: AgentState
    env: Any
    env_key: chex.PRNGKey
    totals: Totals


@chex.dataclass(frozen=True)
class Losses:
    """How well the networks fit at the end of an epoch."""

    td_error: chex.Array  # mean |TD error| of planning's last minibatch, in units of the cost scale
    model_loss: chex.Array


@dataclasses.dataclass(frozen=True)
class World:
    """Where Algorithm 1 runs.

    `repeat(n, body, carry)` applies `body` n times. `step(env, key, action, enabled)` takes one real step with the
    joint action ([N]) where `enabled`, and returns env, obs [F] and info (`cost_ms`, `art_ms`, `feasible`,
    `response_ms`).
    """

    repeat: Callable[[Any, Callable[[Any], Any], Any], Any]
    step: Callable[[Any, chex.PRNGKey, chex.Array, chex.Array], tuple[Any, chex.Array, dict[str, chex.Array]]]


def compiled_world(environment: Orchestration, params: EnvParams) -> World:
    """The simulator inside a compiled program."""

    def repeat(count: chex.Array, body: Callable[[Any], Any], carry: Any) -> Any:
        return jax.lax.fori_loop(0, count, lambda _, value: body(value), carry)

    def step(
        env: EnvState, key: chex.PRNGKey, action: chex.Array, enabled: chex.Array
    ) -> tuple[EnvState, chex.Array, dict[str, chex.Array]]:
        obs, following, _, _, _, info = environment.step(key, env, action, params)
        env = jax.tree.map(lambda new, old: jnp.where(enabled, new, old), following, env)
        return env, obs, info

    return World(repeat=repeat, step=step)


def schedule(config: HybridConfig, epoch: int) -> EpochPlan:
    """Line 5 and the loop bounds of lines 7, 18, 22, 35 for `epoch` (1..N), with epsilon, beta and step sizes."""
    alpha = alpha_at(config.alpha_schedule, epoch, config.epochs)
    direct, planning = 1.0 - alpha / 2.0, (alpha + 1.0) / 2.0
    progress = (epoch - 1) / max(config.epochs - 1, 1)
    fall = min(progress / config.epsilon_epochs, 1.0) if config.epsilon_epochs else 1.0
    cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
    rate = config.learning_rate_end + (1.0 - config.learning_rate_end) * cosine

    def sessions(part: float, most: int) -> chex.Array:
        return jnp.int32(math.floor(part * most + 0.5))

    return EpochPlan(
        direct_sessions=sessions(direct, config.direct_sessions),
        world_sessions=sessions(direct, config.world_sessions),
        suggest_sessions=sessions(planning, config.suggest_sessions),
        plan_sessions=sessions(planning, config.plan_sessions),
        epsilon=jnp.float32(config.epsilon_start + fall * (config.epsilon_end - config.epsilon_start)),
        beta=jnp.float32(config.beta_start + progress * (1.0 - config.beta_start)),
        q_learning_rate=jnp.float32(config.q_learning_rate * rate),
        model_learning_rate=jnp.float32(config.model_learning_rate * rate),
    )


def real_step(
    learner: Learner, world: World, run: Run, action: chex.Array, enabled: chex.Array
) -> tuple[Run, chex.Array, dict[str, chex.Array]]:
    """Takes one step in the environment with a joint action (index) and counts it, where `enabled`."""
    env_key, step_key = jax.random.split(run.env_key)
    joint = search.decode(action, learner.users, learner.choices)
    env, obs, info = world.step(run.env, step_key, joint, enabled)
    taken = jnp.float32(enabled)
    totals = Totals(
        steps=run.totals.steps + taken,
        cost_ms=run.totals.cost_ms + taken * info["cost_ms"],
        art_ms=run.totals.art_ms + taken * info["art_ms"],
        infeasible=run.totals.infeasible + taken * (1.0 - info["feasible"]),
        elapsed_ms=run.totals.elapsed_ms + taken * jnp.max(info["response_ms"]),
    )
    return run.replace(env=env, env_key=env_key, totals=totals), obs, info


def direct_rl(learner: Learner, world: World, run: Run, plan: EpochPlan) -> Run:
    """Lines 7 to 16."""

    def step(run: Run) -> Run:
        agent, action = learner.act(run.agent, plan.epsilon)
        run, obs, info = real_step(learner, world, run, action, jnp.bool_(True))
        return run.replace(agent=learner.observe(agent, action, info["cost_ms"], obs))

    def session(run: Run) -> Run:
        run = world.repeat(learner.config.direct_steps, step, run)
        return run.replace(agent=learner.learn_direct(run.agent, plan))

    run = world.repeat(plan.direct_sessions, session, run)
    return run.replace(agent=learner.copy_target(run.agent))


def planning(learner: Learner, world: World, run: Run, plan: EpochPlan) -> tuple[Run, chex.Array]:
    """Lines 22 to 38. The walk starts in the environment's current state and goes on in imagined ones."""

    def suggest(carry: tuple[Run, chex.Array]) -> tuple[Run, chex.Array]:
        run, state = carry
        agent, actions, following = learner.suggest(run.agent, state)

        def try_one(carry: tuple[Run, chex.Array]) -> tuple[Run, chex.Array]:
            run, index = carry
            action = actions[index]
            new = learner.is_new(run.agent, action)
            if learner.config.planning_step == "real":
                run, obs, info = real_step(learner, world, run, action, new)
                agent = learner.plan_real(run.agent, action, new, info["cost_ms"], obs, state)
            else:
                agent = learner.plan_imagined(run.agent, action, new, state)
            return run.replace(agent=agent), index + 1

        start = (run.replace(agent=agent), jnp.int32(0))
        run, _ = world.repeat(learner.config.k_best, try_one, start)
        return run, following

    def session(carry: tuple[Run, chex.Array]) -> tuple[Run, chex.Array]:
        return world.repeat(learner.config.suggest_steps, suggest, carry)

    run, _ = world.repeat(plan.suggest_sessions, session, (run, run.agent.obs))
    agent, error = learner.learn_plan(run.agent, plan)
    return run.replace(agent=learner.copy_target(agent)), error


def epoch(learner: Learner, world: World, run: Run, plan: EpochPlan) -> tuple[Run, Losses]:
    """Lines 6 to 38: one epoch of Algorithm 1."""
    run = direct_rl(learner, world, run.replace(totals=Totals.zero()), plan)
    agent, model_loss = learner.fit_model(run.agent, plan)
    run, td_error = planning(learner, world, run.replace(agent=agent), plan)
    return run, Losses(td_error=td_error, model_loss=model_loss)
