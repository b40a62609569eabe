"""Agents stepped from the host do what they do inside a compiled program: Algorithm 1 exists once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hl_jax import simulator, training
from hl_jax.agents.hybrid import agent as hybrid
from hl_jax.agents.q_learning import agent as q_learning
from hl_jax.agents.stepped import Stepped, host_world
from hl_jax.agents.world import compiled_world
from hl_jax.objective import straight_penalty
from hl_jax.simulator import Orchestration
from tests.helpers.builders import literal, small_scenario

USERS = 2
SMALL = literal(
    epochs=4,
    direct_sessions=2,
    direct_steps=3,
    direct_updates=2,
    world_sessions=20,
    suggest_sessions=2,
    suggest_steps=2,
    plan_sessions=5,
    k_best=3,
    batch=8,
    direct_capacity=64,
    world_capacity=64,
    plan_capacity=64,
)
LEVELS = tuple(int(level) for level in simulator.observation_levels(USERS))
AGENTS = {
    "hybrid": hybrid.sized(SMALL, USERS, 5, LEVELS),
    "q_learning": q_learning.sized(q_learning.QLearningConfig(epochs=4, epoch_steps=10, q_penalty="learned"), USERS, 5),
}


@pytest.mark.parametrize("name", sorted(AGENTS))
def test_two_epochs_from_the_host_are_two_compiled_ones(name):
    agent = AGENTS[name]
    params = simulator.make_params(small_scenario(USERS, noise=0.05, constraint=80.0), straight_penalty(100.0, 20.0))
    start = jax.jit(lambda seed: training.init(agent, seed, params))
    inside = jax.jit(lambda run, plan: agent.epoch(compiled_world(Orchestration(), params), run, plan))

    @jax.jit
    def simulate(env, key, action):
        obs, env, _, _, _, info = Orchestration().step(key, env, action, params)
        return env, obs, info

    taken = []

    def step(env, key, action):
        taken.append(np.asarray(action))
        return simulate(env, key, action)

    compiled, stepped = start(jnp.int32(3)), start(jnp.int32(3))
    world, host = host_world(step), Stepped(agent)
    for epoch in (1, 2):
        compiled, learning = inside(compiled, agent.plan(epoch))
        stepped, same = host.epoch(world, stepped, host.plan(epoch))
    assert len(taken) == int(stepped.agent.real_steps) == int(compiled.agent.real_steps) > 0
    # The parts are compiled one by one, so sums may round differently; counters, keys and actions may not.
    for (path, one), other in zip(
        jax.tree_util.tree_leaves_with_path((compiled, learning)), jax.tree.leaves((stepped, same)), strict=True
    ):
        where = jax.tree_util.keystr(path)
        if jax.dtypes.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        if jnp.issubdtype(one.dtype, jnp.floating):
            np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-4, err_msg=where)
        else:
            np.testing.assert_array_equal(one, other, err_msg=where)


def test_methods_are_compiled_once_and_plain_data_stays_itself():
    host = Stepped(AGENTS["hybrid"])
    assert host.learner.config is SMALL
    assert host.learner.act is host.learner.act
    assert hasattr(host.learner.act, "lower")
