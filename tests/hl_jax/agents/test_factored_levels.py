"""What the monitors show, told apart: planted background walks and planted loads of so many tasks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hl_jax.agents.factored import levels as factored_levels
from hl_jax.scenario import LEVELS

USERS = 5
update = jax.jit(factored_levels.update)
background = jax.jit(factored_levels.background)


def table(each: float) -> np.ndarray:
    """Levels that 0..USERS tasks put on a node where one puts `each`."""
    return np.floor(each * np.arange(USERS + 1) + 1e-6).astype(int)


def walk(random: np.random.Generator, steps: int, moves: float) -> np.ndarray:
    """Levels 0..4 of edge and cloud that go up or down by one with this probability. [steps, 2]."""
    level, found = np.zeros(2, int), []
    for _ in range(steps):
        level = np.clip(level + random.choice([-1, 0, 1], 2, p=[moves / 2, 1.0 - moves, moves / 2]), 0, 4)
        found.append(level)
    return np.array(found)


def follow(
    load: np.ndarray, own: np.ndarray, tasks: np.ndarray, surprised: np.ndarray
) -> tuple[np.ndarray, factored_levels.Levels]:
    """The estimated background [T, 2] of planted loads [T, 2], tables [T, 2, N+1] and tasks [T, 2]."""
    levels, found = factored_levels.init(USERS, jnp.zeros(2, jnp.int32)), []
    for step, count in enumerate(tasks):
        seen = np.minimum(load[step] + own[step, [0, 1], count], LEVELS - 1)
        levels = update(levels, jnp.asarray(count), jnp.asarray(seen), jnp.asarray(surprised[step]))
        found.append(background(levels))
    return np.array(found), levels


def test_a_steady_background_is_found_while_loads_are_learned():
    random = np.random.default_rng(0)
    steps = 40
    tasks = random.integers(0, USERS + 1, (steps, 2))
    own = np.broadcast_to(np.stack([table(1.8), table(0.65)]), (steps, 2, USERS + 1))
    found, levels = follow(np.zeros((steps, 2), int), own, tasks, np.zeros((steps, 2), bool))
    np.testing.assert_array_equal(found, 0.0)
    # Eight levels or more look alike.
    np.testing.assert_array_equal(np.argmax(levels.own, axis=2), np.minimum(own[0], LEVELS - 1))


def test_a_moving_background_is_followed():
    random = np.random.default_rng(1)
    steps = 400
    load = walk(random, steps, moves=0.1)
    tasks = random.integers(0, 4, (steps, 2))
    own = np.broadcast_to(np.stack([table(1.8), table(0.65)]), (steps, 2, USERS + 1))
    found, _ = follow(load, own, tasks, np.zeros((steps, 2), bool))
    assert len(np.unique(load)) == 5
    assert (found == load)[100:].mean() >= 0.98
    assert (found == load)[:100].mean() >= 0.85


@pytest.mark.parametrize(("noticed", "wrong"), [(True, set()), (False, {30, 33})], ids=["surprising", "unnoticed"])
def test_tasks_that_need_twice_as_much_are_not_put_down_to_the_background(noticed, wrong):
    random = np.random.default_rng(2)
    steps, change = 60, 30
    tasks = random.integers(0, 3, (steps, 2))
    tasks[change : change + 4] = [[1, 1], [0, 0], [1, 1], [2, 2]]
    own = np.stack([np.stack([table(1.8), table(0.65)])] * steps)
    own[change:, 0] = table(3.6)
    surprised = np.zeros((steps, 2), bool)
    surprised[change, 0] = noticed
    found, levels = follow(np.zeros((steps, 2), int), own, tasks, surprised)
    # Where response times tell nothing, each number of tasks may mislead once, until no task is at the node.
    assert set(np.flatnonzero(found[:, 0])) <= wrong
    assert not found[:, 1].any()
    np.testing.assert_array_equal(np.argmax(levels.own, axis=2)[:, :3], own[-1][:, :3])


def test_a_full_node_tells_nothing_new():
    levels = factored_levels.init(USERS, jnp.array([2, 0]))
    for count in ([2, 0], [5, 0], [5, 5]):
        levels = update(levels, jnp.array(count), jnp.array([8, 0]), jnp.zeros(2, bool))
        np.testing.assert_array_equal(background(levels), [2.0, 0.0])


def test_a_background_that_jumps_is_believed_once_seen_alone():
    levels = factored_levels.init(USERS, jnp.array([0, 0]))
    for count, seen in ((1, 1), (0, 0), (1, 1), (1, 5), (0, 4)):
        levels = update(levels, jnp.full(2, count), jnp.full(2, seen), jnp.zeros(2, bool))
    np.testing.assert_array_equal(background(levels), [4.0, 4.0])
    levels = update(levels, jnp.full(2, 1), jnp.full(2, 5), jnp.zeros(2, bool))
    np.testing.assert_array_equal(background(levels), [4.0, 4.0])
    np.testing.assert_array_equal(np.argmax(levels.own[:, 1], axis=1), [1, 1])
