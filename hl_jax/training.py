"""One seed's training as two pure functions, and the same for a batch of seeds: initialise, one epoch with evaluation.

The environment's arrays are arguments, so one compiled program serves every scenario and constraint of a size.
"""

from __future__ import annotations

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp

from hl_jax import evaluation, health
from hl_jax.agents.world import Agent, Run, Totals, compiled_world
from hl_jax.environments import Params, State, environment, make_params, sufficient_penalty
from hl_jax.fleets.scenario import AnyScenario
from hl_jax.traffic.environment import TrafficParams


@chex.dataclass(frozen=True)
class Report:
    """What an epoch tells the host."""

    real_steps: chex.Array
    model_steps: chex.Array
    totals: Totals
    learning: dict[str, chex.Array]  # the agent's own figures
    evaluation: evaluation.Evaluation
    wrong: chex.Array  # [L] bool, as `health.names` names them; where any is set the run is as it was before


def params_for(agent: Agent, scenario: AnyScenario) -> Params:
    """The scenario's arrays, with the penalty that the agent learns from."""
    return make_params(scenario, sufficient_penalty(scenario, agent.penalty_factor))


def init(agent: Agent, seed: chex.Array, params: Params) -> Run:
    """A seed's run before its first epoch. Its keys depend on nothing but `seed` (int32)."""
    reset_key, agent_key, env_key = jax.random.split(jax.random.key(seed), 3)
    obs, env = environment(params).reset(reset_key, params)
    return Run(agent=agent.init(agent_key, obs), env=env, env_key=env_key, totals=Totals.zero())


def epoch(agent: Agent, run: Run, plan: Any, params: Params, starts: State) -> tuple[Run, Report]:
    """One epoch in the simulator, then greedy decisions from `starts` (leading axis E).

    An epoch after which the run can't go on (`health`) is reported and undone.
    """
    before = run
    run, learning = agent.epoch(compiled_world(environment(params), params), run, plan)
    if isinstance(params, TrafficParams):  # else each step has one of each device
        learning = learning | {"requests": run.totals.requests.astype(jnp.float32)}
    seen = evaluation.evaluate(lambda obs: agent.decide(run.agent, obs), params, starts)
    wrong = health.check(before, run, learning, seen.decisions)
    report = Report(
        real_steps=run.agent.real_steps,
        model_steps=run.agent.model_steps,
        totals=run.totals,
        learning=learning,
        evaluation=seen,
        wrong=wrong,
    )
    return health.kept(~jnp.any(wrong), run, before), report


@functools.lru_cache(maxsize=4)
def programs(agent: Agent) -> tuple[Any, Any]:
    """Compiled `init` and `epoch` over a batch of seeds (leading axis S of the seeds, runs and reports).

    Traced once for an agent (which must be hashable), however many scenarios of its size it is trained on.
    """
    batched_init = jax.vmap(lambda seed, params: init(agent, seed, params), in_axes=(0, None))
    batched_epoch = jax.vmap(
        lambda run, plan, params, starts: epoch(agent, run, plan, params, starts), in_axes=(0, None, None, None)
    )
    # The old run's buffers are overwritten in place.
    return jax.jit(batched_init), jax.jit(batched_epoch, donate_argnums=0)
