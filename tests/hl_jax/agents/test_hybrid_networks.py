"""Algorithm 1's networks: what the exact search reads of them, what devices share, and what tells them apart."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hl_jax.agents.hybrid import agent as hybrid
from hl_jax.agents.hybrid import descent
from hl_jax.agents.hybrid.config import HybridConfig
from hl_jax.agents.hybrid.networks import JointValue, MeanTime, ResponseTimes, features_of
from hl_jax.agents.world import observed_levels
from hl_jax.checks import LARGEST
from hl_jax.search import joint
from tests.helpers.builders import DYNAMICS, small_scenario

SCENARIO = dataclasses.replace(small_scenario(users=2), constraint=80.0)
LEVELS = observed_levels(SCENARIO)
CONFIG = HybridConfig(model_penalty="known", q_penalty="known", choice_tables="state", head=16, width=8)


@pytest.mark.parametrize(
    "network", [of(3, 4, 5, kind, 6) for of in (JointValue, MeanTime) for kind in ("state", "shared", "own")]
)
def test_value_networks_are_what_the_exact_search_reads(network):
    users, choices = 3, 4
    features = jnp.asarray(np.random.default_rng(0).uniform(size=3 * users + 6), jnp.float32)
    params = network.init(jax.random.key(0), features, jnp.zeros(users, jnp.int32))
    random = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), jnp.float32), params)
    every = jnp.asarray(list(np.ndindex(*[choices] * users)), jnp.int32)
    one_by_one = jax.vmap(lambda action: network.apply(params, features, action))(every)
    at_once = joint.joint_values(network.apply(params, features, method="separable"))
    np.testing.assert_allclose(at_once, one_by_one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["shared", "own"])
def test_what_others_do_never_quickens_a_task(kind):
    users, choices, width = 3, 4, 5
    network = ResponseTimes(users, choices, width, kind)
    features, random = jnp.zeros(3 * users + 6), np.random.default_rng(2)
    params = network.init(jax.random.key(0), features, jnp.zeros(users, jnp.int32))
    params = jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), jnp.float32), params)
    alone = jax.tree.map(lambda leaf: leaf, params)
    for name, table in alone["params"]["tables"].items():
        first = table.shape[-1] - width  # how much loads slow stands last
        alone["params"]["tables"][name] = table if first < 0 else table.at[..., first:].set(0.0)
    every = jnp.asarray(list(np.ndindex(*[choices] * users)), jnp.int32)
    beside, by_itself = (
        np.asarray(jax.vmap(lambda action, one=one: network.apply(one, features, action))(every))
        for one in (params, alone)
    )
    assert (beside >= by_itself).all()
    assert (beside > 1.01 * by_itself).any()
    for device in range(users):  # which depend on its own choice alone
        assert all(len(set(by_itself[every[:, device] == choice, device])) == 1 for choice in range(choices))


def test_the_longest_times_of_a_scenario_can_be_learned():
    network = ResponseTimes(2, 3, 4, "shared")
    features, action = jnp.zeros(12), jnp.array([0, 1])
    params = network.init(jax.random.key(0), features, action)

    def total(logarithm):
        whole = jax.tree.map(lambda leaf: leaf, params)
        whole["params"]["tables"]["shared"] = whole["params"]["tables"]["shared"].at[:, 0].set(logarithm)
        return jnp.sum(network.apply(whole, features, action))

    longest = LARGEST / 100.0  # in cost scales, as they are by default
    value, slope = jax.value_and_grad(total)(jnp.log(longest))
    assert float(value) >= 1.9 * longest
    assert np.isfinite(float(value) ** 2)
    assert float(slope) > longest


def test_devices_in_the_same_state_are_alike_until_their_own_tables_say_otherwise():
    network = JointValue(users=2, choices=3, width=4, kind="state", head=8)
    features = features_of(jnp.array([0, 0, 1, 1, 0, 0, 3, 2, 0, 1, 0, 0]), LEVELS)  # P, M, B of both, then nodes
    params = network.init(jax.random.key(1), features, jnp.zeros(2, jnp.int32))
    first, second = (network.apply(params, features, jnp.array(one)) for one in ([0, 2], [2, 0]))
    np.testing.assert_allclose(first, second, rtol=1e-6)
    weak = features_of(jnp.array([0, 0, 1, 1, 1, 0, 3, 2, 0, 1, 0, 0]), LEVELS)  # S1's link
    first, second = (network.apply(params, weak, jnp.array(one)) for one in ([0, 2], [2, 0]))
    assert first != second
    for place, same in (((0,), True), ((0, 0), False)):  # all choices of S1, or its first
        own = jax.tree.map(lambda leaf: leaf, params)
        own["params"]["tables"]["own"] = own["params"]["tables"]["own"].at[place].add(1.0)
        first, second = (network.apply(own, features, jnp.array(one)) for one in ([0, 2], [2, 0]))
        assert bool(np.isclose(first, second, rtol=1e-6)) == same


def test_shared_tables_tell_devices_apart_by_their_own_alone():
    network = JointValue(users=2, choices=3, width=4, kind="shared")
    features = features_of(jnp.array([0, 1, 1, 0, 0, 1, 3, 2, 0, 1, 0, 0]), LEVELS)  # not the same state
    params = network.init(jax.random.key(1), features, jnp.zeros(2, jnp.int32))
    first, second = (network.apply(params, features, jnp.array(one)) for one in ([0, 2], [2, 0]))
    np.testing.assert_allclose(first, second, rtol=1e-6)
    own = jax.tree.map(lambda leaf: leaf, params)
    own["params"]["tables"]["own"] = own["params"]["tables"]["own"].at[0, 0].add(1.0)
    first, second = (network.apply(own, features, jnp.array(one)) for one in ([0, 2], [2, 0]))
    assert abs(first - second) > 0.1


@pytest.mark.parametrize("tables", ["own", "shared", "state"])
def test_only_differences_between_devices_are_pulled_by_their_decay(tables):
    config = dataclasses.replace(CONFIG, choice_tables=tables, head=4, weight_decay=0.25, own_decay=2.0)
    learner = hybrid.make(config, SCENARIO).learner
    params = learner.init(jax.random.key(0), jnp.zeros(len(LEVELS), jnp.int32)).model_params
    ones, nothing = (jax.tree.map(lambda leaf, value=value: jnp.full_like(leaf, value), params) for value in (1.0, 0.0))
    pulled = jax.tree_util.tree_leaves_with_path(descent.decayed(config, nothing, ones))
    own = {str(path) for path, _ in pulled if "'own'" in str(path)}
    assert len(own) == (tables != "own")
    for path, leaf in pulled:
        assert (leaf == (2.0 if str(path) in own else 0.25)).all(), path
    assert descent.decayed(dataclasses.replace(config, weight_decay=0.0, own_decay=0.0), nothing, ones) is nothing


def test_tables_follow_from_the_state_where_conditions_change():
    auto = dataclasses.replace(CONFIG, choice_tables="auto")
    moving = dataclasses.replace(SCENARIO, dynamics=DYNAMICS)
    for scenario, expected in ((SCENARIO, "shared"), (moving, "state")):
        learner = hybrid.make(auto, scenario).learner
        assert (learner.q_network.kind, learner.model.kind) == (expected, expected)
        assert learner.q_network.users == scenario.users


@pytest.mark.parametrize("gone", [False, True])
def test_a_device_that_did_not_answer_tells_the_model_nothing_of_its_time(gone):
    config = dataclasses.replace(CONFIG, choice_tables="shared", weight_decay=0.0, own_decay=0.0, world_sessions=50)
    agent = hybrid.make(config, SCENARIO)
    learner, obs = agent.learner, jnp.zeros(len(LEVELS), jnp.int32)
    state = learner.init(jax.random.key(0), obs)
    observe = jax.jit(learner.observe)
    for number in range(20):
        times = jnp.array([100.0, 0.0 if gone else 300.0])
        told = {"cost_ms": jnp.float32(1e3), "art_ms": jnp.float32(200.0), "response_ms": times}
        state = observe(state, jnp.int32(number), told, obs)
    np.testing.assert_allclose(state.world.data.cost[:20], jnp.tile(times / config.cost_scale_ms, (20, 1)))
    np.testing.assert_allclose(state.direct.ring.data.cost[:20], 2.0)  # the mean of those that did, as it was told
    state, loss = jax.jit(learner.fit_model)(state, agent.plan(1))
    alone = np.asarray(state.model_params["params"]["cost"]["tables"]["own"])[:, :, 0]
    assert np.isfinite(loss)
    assert (alone[0] != 0.0).any()
    assert (alone[1] != 0.0).any() != gone


def test_a_model_of_each_device_finds_the_mean_and_its_parts():
    """Noise-free: what was tried is predicted as reported, and joint actions that never were, closely."""
    config = dataclasses.replace(CONFIG, choice_tables="shared", weight_decay=0.0, own_decay=0.0, world_sessions=4000)
    agent = hybrid.make(dataclasses.replace(config, model_learning_rate=1e-2), SCENARIO)
    learner, obs = agent.learner, jnp.zeros(len(LEVELS), jnp.int32)
    choices, observe = learner.choices, jax.jit(learner.observe)
    alone = jnp.linspace(50.0, 400.0, 2 * choices).reshape(2, choices)
    times = jax.vmap(lambda action: alone[jnp.arange(2), learner.joint(action)])(jnp.arange(choices**2))
    state = learner.init(jax.random.key(0), obs)
    tried = [one for one in range(choices**2) if one % 3]
    for action in tried:
        told = {"cost_ms": times[action].mean(), "art_ms": times[action].mean(), "response_ms": times[action]}
        state = observe(state, jnp.int32(action), told, obs)
    state, _ = jax.jit(learner.fit_model)(state, agent.plan(1))
    predicted = jax.jit(lambda state: learner.model_values(state, obs))(state) * config.cost_scale_ms
    allowed, known = np.isfinite(predicted), np.isin(np.arange(choices**2), tried)
    for which, tolerance in ((known, 0.01), (~known, 0.15)):
        assert (allowed & which).sum() > 3
        np.testing.assert_allclose(predicted[allowed & which], times.mean(axis=1)[allowed & which], rtol=tolerance)
