"""The three replay buffers: what they hold after wrapping around, what they draw, and D_plan against a Python dict."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hl_jax.replay import buffers, sum_tree

F, M, ACTIONS = 3, 8, 12
add_to_ring = jax.jit(buffers.add_to_ring)
add = jax.jit(buffers.add)
put = jax.jit(buffers.put)
move = jax.jit(buffers.move)
contains = jax.jit(jax.vmap(buffers.contains, in_axes=(None, 0)))
update = jax.jit(buffers.update, static_argnums=3)
sample = jax.jit(buffers.sample, static_argnums=2)
sample_ring = jax.jit(buffers.sample_ring, static_argnums=2)


def item(number: int, action: int = 0) -> buffers.Transition:
    """A transition that tells its number in every field."""
    return buffers.Transition(
        obs=jnp.full(F, number % 100, jnp.int8),
        action=jnp.int32(action),
        cost=jnp.float32(number),
        next_obs=jnp.full(F, -(number % 100), jnp.int8),
    )


def filled(count: int, priorities: list[float] | None = None) -> buffers.Prioritized:
    """A prioritized buffer after `count` additions, its slots then given these priorities (exponent 1)."""
    buffer = buffers.init_prioritized(M, F)
    for number in range(count):
        buffer = add(buffer, item(number))
    if priorities is not None:
        errors = jnp.array(priorities, jnp.float32) - buffers.LEAST_PRIORITY
        buffer = update(buffer, jnp.arange(len(priorities)), errors, 1.0)
    return buffer


def check_whole(data: buffers.Transition) -> None:
    """Every field of every transition says the same number: no slot holds parts of two."""
    numbers = np.asarray(data.cost).astype(int) % 100
    np.testing.assert_array_equal(data.obs, np.repeat(numbers[:, None], F, axis=1))
    np.testing.assert_array_equal(data.next_obs, -np.repeat(numbers[:, None], F, axis=1))


@pytest.mark.parametrize("count", [1, M - 1, M, M + 1, 3 * M + 5])
def test_a_ring_holds_the_last_transitions(count):
    ring = buffers.init_ring(M, F)
    for number in range(count):
        ring = add_to_ring(ring, item(number, number % ACTIONS))
    held = min(count, M)
    turned = count if count < 2 * M else M + count % M  # whole turns of a full ring aren't counted
    assert (buffers.ring_size(ring), ring.count, buffers.ring_capacity(ring)) == (held, turned, M)
    costs = np.asarray(ring.data.cost)[:held]
    assert sorted(costs) == list(range(count - held, count))
    np.testing.assert_array_equal(np.asarray(ring.data.action)[:held], costs % ACTIONS)
    check_whole(ring.data)
    drawn = sample_ring(ring, jax.random.key(count), 400)
    assert set(np.asarray(drawn.cost)) == set(range(count - held, count))
    check_whole(drawn)


@pytest.mark.parametrize("count", [5, M + 3])
def test_a_ring_draws_uniformly(count):
    ring = buffers.init_ring(M, F)
    for number in range(count):
        ring = add_to_ring(ring, item(number))
    costs = np.asarray(sample_ring(ring, jax.random.key(1), 4000).cost).astype(int)
    counts = np.bincount(costs, minlength=count)[count - min(count, M) :]
    assert counts.sum() == 4000
    assert stats.chisquare(counts).pvalue > 1e-3  # the key is fixed: below it there would be a bias


@pytest.mark.parametrize("count", [M, M + 3])
def test_prioritized_frequencies_match_priorities(count):
    priorities = np.array([1.0, 2.0, 4.0, 0.5, 8.0, 0.25, 3.0, 1.0])
    buffer = filled(count, list(priorities))

    @jax.jit
    @jax.vmap
    def draw(key: chex.PRNGKey) -> tuple[chex.Array, chex.Array]:
        batch = buffers.sample(buffer, key, 1, jnp.float32(1.0))  # one stratum: independent draws
        return batch.slots[0], batch.data.cost[0]

    slots, costs = (np.asarray(column) for column in draw(jax.random.split(jax.random.key(5), 4000)))
    expected = 4000 * priorities / priorities.sum()
    assert stats.chisquare(np.bincount(slots, minlength=M), expected).pvalue > 1e-3
    np.testing.assert_array_equal(costs, np.asarray(buffer.ring.data.cost)[slots])


def test_importance_weights_by_hand():
    """Of 8 with total 16, n P(i) is half the priority, so (n P)^-1 = 2, 1, 1/2, … and the largest becomes 1."""
    buffer = filled(M, [1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 1.0, 1.0])
    for beta, by_priority in [
        (0.0, {1: 1.0, 2: 1.0, 4: 1.0}),
        (0.5, {1: 1.0, 2: 0.70710678, 4: 0.5}),
        (1.0, {1: 1.0, 2: 0.5, 4: 0.25}),
    ]:
        batch = sample(buffer, jax.random.key(0), 32, jnp.float32(beta))
        priorities = np.asarray(sum_tree.get(buffer.tree, batch.slots))
        np.testing.assert_allclose(priorities, np.round(priorities), rtol=1e-6)
        assert set(np.round(priorities)) == {1, 2, 4}  # 32 strata of 16: every slot is drawn twice or more
        expected = [by_priority[round(float(priority))] for priority in priorities]
        np.testing.assert_allclose(batch.weights, expected, rtol=1e-5)


def test_importance_weights_are_over_the_largest_drawn():
    """A batch of frequent transitions alone has weights up to 1 too."""
    buffer = filled(2, [1.0, 1e6])
    batch = sample(buffer, jax.random.key(0), 4, jnp.float32(1.0))
    np.testing.assert_array_equal(batch.slots, [1, 1, 1, 1])
    np.testing.assert_array_equal(batch.weights, np.ones(4))


def test_priorities_from_errors_by_hand():
    buffer = filled(3)
    changed = update(buffer, jnp.array([0, 2, 0]), jnp.array([-0.5, 3.0, -0.5]), 0.6)
    expected = [(0.5 + 1e-3) ** 0.6, 1.0, (3.0 + 1e-3) ** 0.6]
    np.testing.assert_allclose(sum_tree.get(changed.tree, jnp.arange(3)), expected, rtol=1e-6)
    np.testing.assert_allclose(sum_tree.total(changed.tree), sum(expected), rtol=1e-6)
    # An error of nothing still leaves a transition drawable.
    assert sum_tree.get(update(buffer, jnp.array([1]), jnp.zeros(1), 0.6).tree, jnp.array([1]))[0] > 0.01


def test_a_new_transition_starts_with_the_largest_priority_given_so_far():
    buffer = filled(M)
    np.testing.assert_array_equal(sum_tree.get(buffer.tree, jnp.arange(M)), np.ones(M))
    buffer = update(buffer, jnp.array([0]), jnp.array([49.0 - buffers.LEAST_PRIORITY]), 0.5)
    # Slot 0, of priority 7, is replaced first, and again after it was lowered.
    for expected_slot in (0, 1):
        buffer = add(buffer, item(100))
        assert sum_tree.get(buffer.tree, jnp.array([expected_slot]))[0] == pytest.approx(7.0)
        buffer = update(buffer, jnp.array([0]), jnp.array([0.1]), 0.5)
    buffer = add(buffer, item(101))
    assert sum_tree.get(buffer.tree, jnp.array([2]))[0] == pytest.approx(7.0)


class Reference:
    """D_plan as a Python dict from action to [obs, cost, next_obs], in the order of arrival."""

    def __init__(self) -> None:
        self.held: dict[int, list[Any]] = {}

    def put(self, new: buffers.Transition) -> None:
        if len(self.held) == M:
            del self.held[next(iter(self.held))]
        self.held[int(new.action)] = [np.asarray(new.obs), float(new.cost), np.asarray(new.next_obs)]

    def move(self, action: int, obs: chex.Array) -> None:
        self.held[action][0] = np.asarray(obs)


def check_same(buffer: buffers.Keyed, reference: Reference) -> None:
    """The buffer and the dict hold the same, and the buffer's parts agree with one another."""
    held = np.asarray(contains(buffer, jnp.arange(ACTIONS)))
    assert set(np.flatnonzero(held)) == set(reference.held)
    slots, data = np.asarray(buffer.slot_of), buffer.prioritized.ring.data
    for action, (obs, cost, next_obs) in reference.held.items():
        slot = slots[action]
        assert (data.action[slot], data.cost[slot]) == (action, cost)
        np.testing.assert_array_equal(data.obs[slot], obs)
        np.testing.assert_array_equal(data.next_obs[slot], next_obs)
    drawable = np.asarray(sum_tree.get(buffer.prioritized.tree, jnp.arange(M))) > 0
    assert set(np.flatnonzero(drawable)) == {slots[action] for action in reference.held}


SUGGESTED = st.lists(st.integers(0, ACTIONS - 1), min_size=3, max_size=3, unique=True)


@settings(max_examples=60)
@given(st.lists(st.tuples(SUGGESTED, st.booleans()), min_size=12, max_size=20))
def test_the_plan_buffer_equals_a_dict(operations):
    """Algorithm 1's lines 29 to 33 over random suggestions, more than it holds."""
    buffer, reference = buffers.init_keyed(M, F, ACTIONS), Reference()
    for number, (actions, reprioritize) in enumerate(operations):
        obs = jnp.full(F, 50 + number, jnp.int8)
        known = np.asarray(contains(buffer, jnp.array(actions)))
        assert known.tolist() == [action in reference.held for action in actions]
        buffer = move(buffer, jnp.array(actions), obs)  # leaves those alone that it doesn't hold
        for action, held in zip(actions, known, strict=True):
            if held:
                reference.move(action, obs)
        for action in np.array(actions)[~known].tolist():
            buffer = put(buffer, item(number, action))
            reference.put(item(number, action))
        if reprioritize:  # learning between suggestions mustn't touch membership
            slot = buffer.slot_of[next(iter(reference.held))]
            errors = jnp.array([0.1 * number], jnp.float32)
            buffer = buffer.replace(prioritized=update(buffer.prioritized, slot[None], errors, 0.6))
    check_same(buffer, reference)


def test_an_evicted_action_is_new_again_and_comes_back_elsewhere():
    buffer = buffers.init_keyed(M, F, ACTIONS)
    for action in range(M + 1):
        buffer = put(buffer, item(action, action))
    held = contains(buffer, jnp.arange(ACTIONS))
    np.testing.assert_array_equal(held, [False] + [True] * M + [False] * (ACTIONS - M - 1))
    assert buffer.slot_of[M] == 0
    buffer = put(buffer, item(50, 0))  # over action 1
    held = contains(buffer, jnp.arange(ACTIONS))
    np.testing.assert_array_equal(held, [True, False] + [True] * (M - 1) + [False] * (ACTIONS - M - 1))
    assert (buffer.slot_of[0], buffer.prioritized.ring.data.cost[1]) == (1, 50.0)


def test_moving_leaves_everything_but_the_state():
    buffer = buffers.init_keyed(M, F, ACTIONS)
    for action in range(5):
        buffer = put(buffer, item(action, action))
    moved = move(buffer, jnp.array([3, ACTIONS - 1, ACTIONS - 2]), jnp.full(F, 42, jnp.int8))
    expected = np.asarray(buffer.prioritized.ring.data.obs).copy()
    expected[3] = 42
    np.testing.assert_array_equal(moved.prioritized.ring.data.obs, expected)
    data = moved.prioritized.ring.data.replace(obs=buffer.prioritized.ring.data.obs)
    ring = moved.prioritized.ring.replace(data=data)
    chex.assert_trees_all_equal(moved.replace(prioritized=moved.prioritized.replace(ring=ring)), buffer)


def test_refuses_a_prioritized_capacity_that_is_no_power_of_two():
    with pytest.raises(ValueError, match="expected a power of two of at least 2, found 12"):
        buffers.init_keyed(12, F, ACTIONS)
