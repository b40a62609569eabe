"""What every environment keeps, the simulator and the adapter to real machines alike."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hl_jax.scenario import LEVELS

INFO = {"response_ms", "mean_ms", "art_ms", "accuracy", "feasible", "cost_ms"}


def _check_observation(obs: Any, users: int, nodes: int) -> None:
    largest = np.array([1] * (3 * users) + [LEVELS - 1] * nodes + [1] * (2 * nodes))
    obs = np.asarray(obs)
    assert obs.shape == largest.shape, f"observation: expected shape {largest.shape}, found {obs.shape}"
    assert obs.dtype == np.int32, f"observation: expected int32, found {obs.dtype}"
    assert (obs >= 0).all(), f"observation: expected levels of at least 0, found {obs}"
    assert (obs <= largest).all(), f"observation: expected levels of at most {largest}, found {obs}"


def _layout(tree: Any) -> list[tuple[str, Any, Any]]:
    return [
        (jax.tree_util.keystr(path), jnp.shape(leaf), jnp.result_type(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def _check_scalar(value: Any, kind: type, what: str) -> None:
    value = np.asarray(value)
    assert value.shape == (), f"{what}: expected a scalar, found shape {value.shape}"
    assert np.issubdtype(value.dtype, kind), f"{what}: expected {kind.__name__}, found {value.dtype}"
    assert np.isfinite(value), f"{what}: expected a finite value, found {value}"


def check_step(result: Any, users: int, action: np.ndarray, accuracies: np.ndarray, nodes: int = 2) -> None:
    """Checks what one step returned: shapes, types, bounds, and that its numbers agree with one another.

    Raises:
      AssertionError: says what was expected and what was found.
    """
    obs, _, reward, terminated, truncated, info = result
    _check_observation(obs, users, nodes)
    _check_scalar(reward, np.floating, "reward")
    _check_scalar(terminated, np.bool_, "terminated")
    _check_scalar(truncated, np.bool_, "truncated")
    assert info.keys() >= INFO, f"info: expected {sorted(INFO)}, found {sorted(info)}"
    for name in ("response_ms", "mean_ms"):
        times = np.asarray(info[name])
        assert times.shape == (users,), f"{name}: expected shape ({users},), found {times.shape}"
        assert np.isfinite(times).all(), f"{name}: expected finite times, found {times}"
        assert (times > 0).all(), f"{name}: expected positive times, found {times}"
    for name in ("art_ms", "accuracy", "cost_ms"):
        _check_scalar(info[name], np.floating, name)
    _check_scalar(info["feasible"], np.bool_, "feasible")
    np.testing.assert_allclose(info["art_ms"], np.mean(info["response_ms"]), rtol=1e-5, err_msg="art_ms")
    np.testing.assert_allclose(info["accuracy"], accuracies[action].mean(), rtol=1e-5, err_msg="accuracy")
    np.testing.assert_allclose(reward, -np.asarray(info["cost_ms"]), rtol=1e-6, err_msg="reward")
    if info["feasible"]:
        np.testing.assert_allclose(info["cost_ms"], info["art_ms"], rtol=1e-6, err_msg="cost_ms")
    else:
        assert info["cost_ms"] >= info["art_ms"], "cost_ms: expected no less than art_ms"


def check_environment(
    env: Any, params: Any, seed: int = 0, steps: int = 8, repeatable: bool = True, mask: np.ndarray | None = None
) -> None:
    """Runs an environment in gymnax 1.0's convention and checks every step of it.

    Args:
      env: has `reset(key, params)` and `step(key, state, action, params)`.
      params: `EnvParams`, or what has its `local_ms` [N, l] and `accuracy` [C]; with `mask` `FleetParams`.
      seed: of resets, steps and joint actions.
      steps: how many; the first ones send every device to each choice in turn.
      repeatable: whether equal keys give equal steps (real machines don't).
      mask: [N, C] bool of a user's own fleet, which choices its devices have; None: all of them.

    Raises:
      AssertionError: says what was expected and what was found.
    """
    accuracies = np.asarray(params.accuracy)
    choices = len(accuracies)
    nodes = 2 if mask is None else params.start.node_cpu.shape[0]
    mask = np.ones((params.local_ms.shape[0], choices), bool) if mask is None else mask
    users, there = len(mask), [np.flatnonzero(row) for row in mask]
    random = np.random.default_rng(seed)
    obs, state = env.reset(jax.random.key(seed), params)
    _check_observation(obs, users, nodes)
    if repeatable:
        np.testing.assert_array_equal(obs, env.reset(jax.random.key(seed), params)[0], err_msg="reset")
    for step in range(max(steps, choices)):
        drawn = np.full(users, step) if step < choices else random.integers(0, choices, users)
        action = np.array([one[at % len(one)] for one, at in zip(there, drawn, strict=True)], np.int32)
        result = env.step(jax.random.key(seed + step), state, jnp.asarray(action), params)
        check_step(result, users, action, accuracies, nodes)
        if repeatable:
            again = env.step(jax.random.key(seed + step), state, jnp.asarray(action), params)
            np.testing.assert_array_equal(result[2], again[2], err_msg="step")
        assert _layout(result[1]) == _layout(state), "state: expected the same arrays before and after a step"
        state = result[1]
