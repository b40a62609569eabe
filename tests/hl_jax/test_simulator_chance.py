"""What the simulator draws: noise of mean 1, Markov chains of the right law, and nothing in fixed scenarios.

Seeds are fixed; tolerances are five standard errors, worked out for each statistic.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hl_jax import simulator
from hl_jax.scenario import Device, Dynamics, Node
from launch.inputs.scenario_files import load_scenario
from tests.helpers.builders import CLOUD, D0, D1, DYNAMICS, EDGE, SCENARIOS, small_scenario

ENV = simulator.Orchestration()
STEP = jax.jit(ENV.step)


def responses(sigma: float, draws: int = 20_000) -> np.ndarray:
    """Measured over noise-free response time. Shape [draws, 3]."""
    params = simulator.make_params(small_scenario(noise=sigma))
    _, state = ENV.reset(jax.random.key(0), params)
    keys = jax.random.split(jax.random.key(7), draws)
    info = jax.jit(jax.vmap(lambda key: ENV.step(key, state, jnp.array([D0, EDGE, CLOUD]), params)[-1]))(keys)
    return np.asarray(info["response_ms"] / info["mean_ms"])


@pytest.mark.parametrize("sigma", [0.03, 0.3])
def test_noise_has_mean_one_and_the_given_spread(sigma):
    factor = responses(sigma)
    error = 5 / np.sqrt(len(factor))
    spread = np.sqrt(np.exp(sigma**2) - 1)  # standard deviation of a log-normal of mean 1
    np.testing.assert_allclose(factor.mean(axis=0), 1.0, atol=error * spread)
    np.testing.assert_allclose(np.log(factor).std(axis=0), sigma, rtol=error / np.sqrt(2))
    correlation = np.corrcoef(np.log(factor), rowvar=False)
    np.testing.assert_allclose(correlation - np.eye(3), 0.0, atol=error)  # every device draws its own


def test_keys_decide_the_noise():
    params = simulator.make_params(small_scenario(noise=0.03))
    _, state = ENV.reset(jax.random.key(0), params)
    action = jnp.array([D0, EDGE, D1])
    first, same, other = (STEP(jax.random.key(seed), state, action, params)[-1]["response_ms"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert (first != other).all()


def test_no_noise_measures_the_mean():
    np.testing.assert_allclose(responses(0.0, draws=3), 1.0, rtol=1e-6)


def walk(dynamics: Dynamics, chains: int = 200, steps: int = 1000) -> simulator.Conditions:
    """Conditions step by step from the stationary start of two devices. Leaves [chains, steps, ...]."""
    params = simulator.make_params(small_scenario(2, dynamics=dynamics))

    def one(key: jax.Array) -> simulator.Conditions:
        key, start_key = jax.random.split(key)

        def move(carry: tuple[jax.Array, simulator.Conditions], _: None):
            key, conditions = carry
            key, move_key = jax.random.split(key)
            return (key, simulator.next_conditions(move_key, params, conditions)), conditions

        return jax.lax.scan(move, (key, simulator.stationary_conditions(start_key, params)), length=steps)[1]

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(3), chains)))


@pytest.fixture(scope="module")
def walked() -> simulator.Conditions:
    return walk(DYNAMICS)


@pytest.mark.parametrize(
    ("flags", "probabilities"),
    [
        ("device_cpu", "device_busy"),
        ("device_memory", "device_memory"),
        ("device_weak", "device_link"),
        ("node_memory", "node_memory"),
        ("node_weak", "node_link"),
    ],
)
def test_flags_follow_their_chain(walked, flags, probabilities):
    path, (enter, leave) = walked[flags], getattr(DYNAMICS, probabilities)
    before, after = path[:, :-1], path[:, 1:]
    for state, probability in ((0, enter), (1, leave)):
        moved = (after != before)[before == state]
        assert moved.mean() == pytest.approx(probability, abs=5 * np.sqrt(probability * (1 - probability) / moved.size))
    stationary = enter / (enter + leave)
    variance = stationary * (1 - stationary)
    memory = (2 - enter - leave) / (enter + leave)  # (1 + r) / (1 - r) of the chain's autocorrelation r
    assert path.mean() == pytest.approx(stationary, abs=5 * np.sqrt(variance * memory / path.size))
    first, last = path[:, 0], path[:, -1]
    for drawn in (first, last):  # the start is drawn from the law that the chain keeps
        assert drawn.mean() == pytest.approx(stationary, abs=5 * np.sqrt(variance / drawn.size))
    # Two neighbours move independently: both at once as often as the product says.
    moved = after != before
    assert moved.all(axis=-1).mean() == pytest.approx(moved.mean() ** 2, abs=0.005)


def test_levels_follow_their_chain(walked):
    path = walked["node_cpu"]
    highest, move = DYNAMICS.cpu_level_max, DYNAMICS.cpu_level_move
    assert path.min() == 0
    assert path.max() == highest
    change = np.diff(path, axis=1)
    before = path[:, :-1]
    assert set(np.unique(change)) == {-1, 0, 1}
    for level in range(highest + 1):
        taken = change[before == level]
        error = 5 * np.sqrt(move * (1 - move) / taken.size)
        assert (taken == 1).mean() == pytest.approx(move if level < highest else 0.0, abs=error)
        assert (taken == -1).mean() == pytest.approx(move if level > 0 else 0.0, abs=error)
    share = np.bincount(path.ravel()) / path.size
    np.testing.assert_allclose(share, 1 / (highest + 1), atol=0.02)  # the uniform law


@pytest.mark.parametrize("experiment", "ABCD")
def test_fixed_scenarios_never_change(experiment):
    scenario = load_scenario(SCENARIOS / f"exp{experiment}.toml")
    params = simulator.make_params(scenario)
    _, state = ENV.reset(jax.random.key(0), params)
    weak = [device.link == "weak" for device in scenario.devices]
    np.testing.assert_array_equal(state.conditions.device_weak, weak)
    assert state.conditions.node_weak[0] == (scenario.edge.link == "weak")
    start = state.conditions
    for seed in range(5):
        action = jax.random.randint(jax.random.key(100 + seed), (5,), 0, 10)
        _, state, *_ = STEP(jax.random.key(seed), state, action, params)
        for before, after in zip(jax.tree.leaves(start), jax.tree.leaves(state.conditions), strict=True):
            np.testing.assert_array_equal(before, after)


def test_fixed_scenarios_keep_conditions_that_they_are_given():
    params = simulator.make_params(small_scenario())
    given = dataclasses.replace(params.start, node_cpu=jnp.array([6, 3], jnp.int32))
    kept = simulator.next_conditions(jax.random.key(0), params, given)
    np.testing.assert_array_equal(kept.node_cpu, [6, 3])


def test_what_never_moves_starts_as_the_scenario_says():
    still = dataclasses.replace(
        DYNAMICS, device_link=(0.0, 0.0), node_link=(0.0, 0.0), device_busy=(0.0, 0.5), cpu_level_move=0.0
    )
    devices = (Device("S1", "weak"), Device("S2"), Device("S3", "weak"))
    params = simulator.make_params(small_scenario(devices=devices, edge=Node("weak", 2), dynamics=still))
    for seed in range(10):
        start = simulator.stationary_conditions(jax.random.key(seed), params)
        np.testing.assert_array_equal(start.device_weak, [1, 0, 1])
        np.testing.assert_array_equal(start.node_weak, [1, 0])
        np.testing.assert_array_equal(start.node_cpu, [0, 0])
        np.testing.assert_array_equal(start.device_cpu, [0, 0, 0])  # it may only leave Busy


def test_seeds_differ():
    params = simulator.make_params(load_scenario(SCENARIOS / "dynamic.toml"))
    starts = {tuple(np.asarray(ENV.reset(jax.random.key(seed), params)[0]).tolist()) for seed in range(20)}
    assert len(starts) > 10
