"""Exact search: against a naive walk over `itertools.product`, exactly where weights are dyadic, ties included."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hl_jax import simulator
from hl_jax.agents.hybrid.networks import JointValue
from hl_jax.choices import decode, encode, joint_actions
from hl_jax.objective import CONSTRAINTS, constraint_value, straight_penalty
from hl_jax.optimum import oracle
from hl_jax.search import joint
from launch.inputs.scenario_files import load_scenario
from tests.helpers.builders import SCENARIOS

FEATURES, WIDTH = 4, 6
SIZES = [(1, 5), (2, 4), (3, 3), (4, 3), (5, 2)]  # users, choices: one device alone, odd and even halves
joint_values = jax.jit(joint.joint_values)
k_best = jax.jit(joint.k_best, static_argnums=1)


@functools.cache
def network(users: int, choices: int) -> JointValue:
    return JointValue(users, choices, WIDTH)


@functools.cache
def layout(users: int, choices: int) -> Any:
    """The network's parameters, whose values don't matter."""
    return network(users, choices).init(jax.random.key(0), jnp.zeros(FEATURES), jnp.zeros(users, jnp.int32))


def parameters(users: int, choices: int, draw: Callable[[tuple[int, ...]], np.ndarray]) -> Any:
    """Parameters whose arrays `draw` makes from their shapes."""
    return jax.tree.map(lambda leaf: jnp.asarray(draw(leaf.shape), jnp.float32), layout(users, choices))


@functools.partial(jax.jit, static_argnums=(0, 1))
def separable(users: int, choices: int, params: Any, features: chex.Array) -> joint.Separable:
    return network(users, choices).apply(params, features, method="separable")


@functools.partial(jax.jit, static_argnums=(0, 1))
def one_by_one(users: int, choices: int, params: Any, features: chex.Array) -> chex.Array:
    """The Flax network itself, called with each joint action of `itertools.product` in turn."""
    every = jnp.array(list(itertools.product(range(choices), repeat=users)), jnp.int32)
    return jax.lax.map(lambda action: network(users, choices).apply(params, features, action), every)


def by_the_equation(params: Any, features: np.ndarray, users: int, choices: int) -> list[float]:
    """The network's equation in float64, one joint action after another: exact for dyadic weights."""
    weights = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])
    base = features @ weights["from_state"]["kernel"] + weights["from_state"]["bias"]
    constant = features @ weights["skip_state"]["kernel"][:, 0] + weights["skip_state"]["bias"][0]
    values = []
    for action in itertools.product(range(choices), repeat=users):
        hidden, linear = base.copy(), constant
        for device, choice in enumerate(action):
            hidden += weights["tables"]["rest"][device, choice]
            linear += weights["tables"]["plain"][device, choice, 0]
        values.append(float(np.maximum(hidden, 0.0) @ weights["output"] + linear))
    return values


@pytest.mark.parametrize(("users", "choices"), SIZES)
def test_values_are_those_of_the_network(users, choices):
    for seed in range(3):
        random = np.random.default_rng(seed)
        params = parameters(users, choices, lambda shape, random=random: random.normal(size=shape))
        features = jnp.asarray(random.uniform(size=FEATURES), jnp.float32)
        found = joint_values(separable(users, choices, params, features))
        assert found.shape == (choices**users,)
        # Sums of some 30 terms of size 1: a few float32 roundings of the largest partial sum.
        np.testing.assert_allclose(found, one_by_one(users, choices, params, features), rtol=1e-5, atol=2e-5)


@settings(max_examples=20)
@given(st.sampled_from(SIZES), st.integers(0, 2**32 - 1), st.data())
def test_dyadic_weights_give_exact_values_and_the_naive_order_of_the_k_best(size, seed, data):
    """Few distinct weights, all halves: no sum rounds, and many joint actions are exactly equal."""
    users, choices = size
    random = np.random.default_rng(seed)
    params = parameters(users, choices, lambda shape: random.integers(-2, 3, shape) / 2)
    features = random.integers(0, 3, FEATURES) / 2
    values = joint_values(separable(users, choices, params, jnp.asarray(features, jnp.float32)))
    naive = by_the_equation(params, features, users, choices)
    assert values.tolist() == naive
    k = data.draw(st.sampled_from([1, 2, 7, choices**users]).filter(lambda k: k <= len(naive)))
    actions, least = k_best(values, k)
    order = sorted(range(len(naive)), key=naive.__getitem__)[:k]  # Python's sort is stable
    assert actions.tolist() == order
    assert least.tolist() == [naive[index] for index in order]
    index, value = joint.best(values)
    assert (int(index), float(value)) == (naive.index(min(naive)), min(naive))


def test_the_thirty_best_of_five_devices_with_ten_choices():
    users, choices = 5, 10
    random = np.random.default_rng(11)
    params = parameters(users, choices, lambda shape: random.integers(-4, 5, shape) / 4)
    features = random.integers(0, 3, FEATURES) / 2
    naive = by_the_equation(params, features, users, choices)
    order = sorted(range(len(naive)), key=naive.__getitem__)[:30]
    assert len({naive[index] for index in order}) < 20, "expected an example with ties"
    values = joint_values(separable(users, choices, params, jnp.asarray(features, jnp.float32)))
    assert k_best(values, 30)[0].tolist() == order


def test_ties_at_the_edge_of_k_are_cut_in_the_order_of_their_index():
    values = jnp.array([2.0, 1.0, 3.0, 1.0, 2.0, 1.0, 2.0])
    assert k_best(values, 2)[0].tolist() == [1, 3]
    assert k_best(values, 5)[0].tolist() == [1, 3, 5, 0, 4]
    assert k_best(values, 7)[0].tolist() == [1, 3, 5, 0, 4, 6, 2]
    assert k_best(values, 5)[1].tolist() == [1.0, 1.0, 1.0, 2.0, 2.0]
    assert joint.best(values)[0] == 1
    assert joint.best(values)[0].dtype == jnp.int32


@pytest.mark.parametrize(("users", "choices"), [(2, 4), (3, 3)])
@pytest.mark.parametrize("shared", [False, True], ids=["all batched", "one network, many states"])
def test_vmap_equals_a_loop(users, choices, shared):
    random = np.random.default_rng(4)
    batch = 5
    draws = [parameters(users, choices, lambda shape: random.normal(size=shape)) for _ in range(batch)]
    features = jnp.asarray(random.uniform(size=(batch, FEATURES)), jnp.float32)
    each = [separable(users, choices, draws[0 if shared else i], features[i]) for i in range(batch)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    axes = jax.tree.map(lambda _: 0, each[0])
    if shared:  # only what depends on the state is batched
        stacked = each[0].replace(base=stacked.base, constant=stacked.constant)
        axes = jax.tree.map(lambda _: None, each[0]).replace(base=0, constant=0)
    found = jax.jit(jax.vmap(joint.joint_values, in_axes=(axes,)))(stacked)
    np.testing.assert_array_equal(found, np.stack([joint_values(one) for one in each]))


@pytest.mark.parametrize("users", [1, 2, 5])
def test_decode_is_numpys_unravel_index_and_encode_undoes_it(users):
    choices = 10
    index = np.arange(choices**users)
    actions = decode(jnp.asarray(index, jnp.int32), users, choices)
    np.testing.assert_array_equal(actions, np.stack(np.unravel_index(index, (choices,) * users), axis=1))
    np.testing.assert_array_equal(encode(actions, choices), index)
    assert encode(actions, choices).dtype == jnp.int32
    assert joint_actions(users, choices) == len(index)


@given(st.integers(1, 7), st.integers(1, 10), st.data())
def test_one_joint_action_there_and_back(users, choices, data):
    action = data.draw(st.lists(st.integers(0, choices - 1), min_size=users, max_size=users))
    index = encode(jnp.array(action, jnp.int32), choices)
    assert index == np.ravel_multi_index(action, (choices,) * users)
    assert decode(index, users, choices).tolist() == action


@jax.jit
def true_costs(params: simulator.EnvParams) -> chex.Array:
    """The simulator in the place of the learned model: noise-free cost of every joint action. [A]."""
    users, choices = params.local_ms.shape[0], params.accuracy.shape[0]
    actions = decode(jnp.arange(choices**users, dtype=jnp.int32), users, choices)
    response = jax.vmap(simulator.response_ms, in_axes=(None, None, 0))(params, params.start, actions)
    return jax.vmap(simulator.cost_ms, in_axes=(None, 0, 0))(params, actions, response)


@pytest.mark.parametrize("experiment", "ABCD")
@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_the_true_model_and_all_actions_give_the_oracles_answer(experiment, constraint):
    scenario = load_scenario(SCENARIOS / f"exp{experiment}.toml").with_users(3)
    value = constraint_value(constraint, scenario.pool)
    # A penalty that settles feasibility, whatever the agents' default: this is about the search.
    params = simulator.make_params(dataclasses.replace(scenario, constraint=value), straight_penalty(1e6, 1e6))
    costs = true_costs(params)
    actions, values = k_best(costs, costs.shape[0])
    assert sorted(actions.tolist()) == list(range(len(costs)))
    optimum = oracle.brute_force(params)
    ties = len(optimum.optimal)
    best = [tuple(decode(index, 3, 10).tolist()) for index in actions[:ties]]
    assert set(best) == set(map(tuple, optimum.optimal.tolist()))
    np.testing.assert_allclose(values[:ties], optimum.art_ms, rtol=1e-6)
    if ties < len(costs):
        assert values[ties] > optimum.art_ms * (1 + 1e-6)


@pytest.mark.parametrize("tries", [1, 3, 64])
@pytest.mark.parametrize(("users", "choices"), [(1, 4), (2, 3), (3, 2), (5, 2)])
def test_what_is_drawn_has_the_frequencies_of_its_weights_and_is_allowed(users, choices, tries, monkeypatch):
    monkeypatch.setattr(joint, "TRIES", tries)  # few: then some have to be drawn from all
    random = np.random.default_rng(users)
    weights = random.uniform(0.05, 1.0, (users, choices)) * (random.uniform(size=(users, choices)) > 0.2)
    weights[:, 0] = 0.5
    joint_weights = np.array([np.prod(weights[range(users), one]) for one in np.ndindex(*[choices] * users)])
    allowed = random.uniform(size=len(joint_weights)) > 0.4
    allowed[0] = True
    expected = np.where(allowed, joint_weights, 0.0)
    expected /= expected.sum()
    keys = jax.random.split(jax.random.key(3), 20_000)
    one = functools.partial(joint.draw, weights=jnp.asarray(weights, jnp.float32), allowed=jnp.asarray(allowed))
    drawn = np.asarray(jax.jit(jax.vmap(one))(keys))
    found = np.bincount(drawn, minlength=len(expected)) / len(drawn)
    assert (found[expected == 0.0] == 0.0).all()
    np.testing.assert_allclose(found, expected, atol=5.0 * np.sqrt(expected.max() / len(drawn)))
