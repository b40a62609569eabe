"""The two learned functions: their decomposed form equals the call, and states survive being scaled and read back."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hl_jax.agents.hybrid.networks import JointValue, SystemModel, features_of, obs_of
from hl_jax.search import joint
from hl_jax.simulator import observation_levels

N, C, H = 2, 3, 5
LEVELS = tuple(observation_levels(N).tolist())
F = len(LEVELS)
Q, MODEL = JointValue(N, C, H), SystemModel(N, C, H, F)
EACH = SystemModel(N, C, H, F, each=True)
NETWORKS = pytest.mark.parametrize("network", [Q, MODEL, EACH], ids=["Q", "system model", "each device"])
STATES = st.tuples(*(st.integers(0, level - 1) for level in LEVELS))


def randomized(network: JointValue | SystemModel, seed: int) -> Any:
    """Parameters of size 1 everywhere: the initial ones are too small, or zero, to tell a missing part."""
    params = network.init(jax.random.key(0), jnp.zeros(F), jnp.zeros(N, jnp.int32))
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), jnp.float32), params)


@functools.partial(jax.jit, static_argnums=0)
def called(network: JointValue | SystemModel, params: Any, features: jax.Array, actions: jax.Array) -> jax.Array:
    """The network's value of each of `actions` ([A, N]); the mean where it has one of each device."""
    values = jax.vmap(lambda action: network.apply(params, features, action))(actions)
    values = values if network is Q else values[0]
    return jnp.mean(values, axis=1) if network is EACH else values


@functools.partial(jax.jit, static_argnums=0)
def separable(network: JointValue | SystemModel, params: Any, features: jax.Array) -> joint.Separable:
    return network.apply(params, features, method="separable")


@NETWORKS
@settings(max_examples=20)
@given(st.integers(0, 1000), STATES)
def test_separable_is_the_call(network, seed, state):
    params = randomized(network, seed)
    features = features_of(jnp.array(state, jnp.int8), LEVELS)
    function = jax.tree.map(np.asarray, separable(network, params, features))
    every = np.array(list(itertools.product(range(C), repeat=N)))
    # `Separable`'s docstring, in NumPy.
    hidden = function.base + sum(function.hidden[i, every[:, i]] for i in range(N))
    counts = np.tile(function.output, (len(every), 1))
    if function.outputs is not None:
        counts += sum(function.outputs[i, every[:, i]] for i in range(N))
    expected = np.sum(np.maximum(hidden, 0.0) * counts, axis=1) + function.constant
    expected += sum(function.skip[i, every[:, i]] for i in range(N))
    # Sums of some 20 terms of size 1 in another order.
    np.testing.assert_allclose(called(network, params, features, jnp.asarray(every)), expected, rtol=1e-5, atol=1e-5)


def test_shapes_and_types():
    params, features, action = randomized(MODEL, 0), jnp.zeros(F), jnp.zeros(N, jnp.int32)
    cost, following = MODEL.apply(params, features, action)
    assert (cost.shape, following.shape) == ((), (F,))
    assert Q.apply(randomized(Q, 0), features, action).shape == ()
    function = MODEL.apply(params, features, method="separable")
    shapes = {name: getattr(function, name).shape for name in function.__dataclass_fields__ if name != "outputs"}
    assert shapes == {"base": (H,), "hidden": (N, C, H), "output": (H,), "skip": (N, C), "constant": ()}
    assert function.outputs is None
    times, following = EACH.apply(randomized(EACH, 0), features, action)
    assert (times.shape, following.shape) == ((N,), (F,))
    assert EACH.apply(randomized(EACH, 0), features, method="separable").outputs.shape == (N, C, H)


def test_a_devices_time_depends_on_the_others_by_the_hidden_layer_alone():
    params, features = randomized(EACH, 1), jnp.full(F, 0.5)
    apart = [EACH.apply(params, features, jnp.array(action))[0] for action in ([0, 0], [0, 1])]
    assert apart[0][0] != apart[1][0]
    tables = params["params"]["cost"]["tables"]
    tables["rest"] = tables["rest"].at[0, 0, H:].set(0.0)  # what the hidden units count for the first's choice 0
    apart = [EACH.apply(params, features, jnp.array(action))[0] for action in ([0, 0], [0, 1])]
    assert apart[0][0] == apart[1][0]


@NETWORKS
def test_the_value_depends_on_every_device_and_every_component(network):
    params, action = randomized(network, 3), jnp.array([1, 2], jnp.int32)
    features = jnp.full(F, 0.5)

    def value(features: jax.Array, action: jax.Array) -> jax.Array:
        result = network.apply(params, features, action)
        return result if network is Q else jnp.mean(result[0])

    assert (np.abs(jax.grad(value)(features, action)) > 0).all()
    for device in range(N):
        assert value(features, action) != value(features, action.at[device].set(0))


def test_predicting_monitors_leaves_the_predicted_cost_alone():
    params, action = randomized(MODEL, 0), jnp.zeros(N, jnp.int32)
    gradient = jax.grad(lambda params: jnp.sum(MODEL.apply(params, jnp.ones(F), action)[1]))(params)["params"]
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient["cost"]))
    assert any((leaf != 0).any() for leaf in jax.tree.leaves(gradient["hidden"]))


def test_two_keys_give_two_networks():
    inputs = jnp.zeros(F), jnp.zeros(N, jnp.int32)
    for network in (Q, MODEL, EACH):
        first, second = (network.init(jax.random.key(seed), *inputs) for seed in (0, 1))
        same = jax.tree.map(lambda a, b: bool((a == b).all()), first, second)
        kernels = {jax.tree_util.keystr(path): value for path, value in jax.tree_util.tree_leaves_with_path(same)}
        drawn = {name: value for name, value in kernels.items() if "bias" not in name and "plain" not in name}
        assert not any(drawn.values()), drawn


@given(STATES)
def test_a_state_survives_scaling_and_reading_back(state):
    obs = jnp.array(state, jnp.int8)
    features = features_of(obs, LEVELS)
    assert features.dtype == jnp.float32
    np.testing.assert_allclose(features, np.array(state) / (np.array(LEVELS) - 1), rtol=1e-6)
    back = obs_of(features, LEVELS)
    assert back.dtype == jnp.int8
    np.testing.assert_array_equal(back, obs)


def test_predictions_are_read_as_the_nearest_state():
    """Levels 2 and 9: 0.49 of 1 is 0, 0.51 is 1; steps of 1/8; what is out of range is brought back."""
    features = jnp.array([0.49, 0.51, -3.0, 7.0, 0.0, 1.0, 0.30, 0.32, 0.07, 0.98, -0.2, 1.2])
    np.testing.assert_array_equal(obs_of(features, LEVELS), [0, 1, 0, 1, 0, 1, 2, 3, 0, 1, 0, 1])
