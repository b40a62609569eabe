"""Kept minima: the same numbers as direct searches, and no search for a state that is held."""

from __future__ import annotations

import functools
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hl_jax.agents.hybrid import minima
from hl_jax.agents.hybrid.learner import Learner
from hl_jax.agents.hybrid.state import Goal
from hl_jax.objective import Penalty
from hl_jax.simulator import observation_levels
from tests.helpers.builders import literal

F, B = 6, 8
WEIGHTS = np.array([1.0, 3.0, 9.0, 27.0, 81.0, 243.0])  # tells all states of three levels apart


def weighted(state: chex.Array) -> chex.Array:
    """Stands for a search: exact in float32, different for every state."""
    return jnp.dot(state.astype(jnp.float32), jnp.asarray(WEIGHTS, jnp.float32)) + 0.5


def directly(states: np.ndarray) -> np.ndarray:
    return states @ WEIGHTS + 0.5


look_up = jax.jit(functools.partial(minima.look_up, minimum_of=weighted))


class Counted:
    """`weighted`, compiled with a note to the host of every state that it is asked for."""

    def __init__(self) -> None:
        self.searched: list[tuple[int, ...]] = []
        self._look_up = jax.jit(functools.partial(minima.look_up, minimum_of=self._search))

    def _search(self, state: chex.Array) -> chex.Array:
        jax.debug.callback(lambda state: self.searched.append(tuple(state.tolist())), state)
        return weighted(state)

    def look_up(self, cache: minima.Minima, states: np.ndarray) -> minima.Minima:
        """Looks up, checks the values, and returns the table; `searched` holds this call's searches."""
        self.searched.clear()
        values, cache = self._look_up(cache, jnp.asarray(states, jnp.int8))
        jax.effects_barrier()
        np.testing.assert_array_equal(values, directly(states))
        return cache


STATE = st.tuples(*(st.integers(0, 2) for _ in range(F)))
BATCHES = st.lists(st.lists(STATE, min_size=B, max_size=B), min_size=1, max_size=4)


@settings(max_examples=30)
@given(BATCHES)
def test_equals_direct_minima(batches):
    cache = minima.init(F)
    for batch in [*batches, *batches]:  # again, when held
        values, cache = look_up(cache, jnp.array(batch, jnp.int8))
        np.testing.assert_array_equal(values, directly(np.array(batch)))


@pytest.fixture
def four_slots(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[chex.Array, minima.Minima]]:
    """A table so small that states replace one another all the time, within a batch too."""
    monkeypatch.setattr(minima, "SLOTS", 4)
    return jax.jit(functools.partial(minima.look_up, minimum_of=weighted))


def test_equals_direct_minima_when_states_share_slots(four_slots):
    random, cache = np.random.default_rng(0), minima.init(F)
    assert cache.values.shape == (4,)
    for _ in range(60):
        states = random.integers(0, 3, (B, F))
        values, cache = four_slots(cache, jnp.asarray(states, jnp.int8))
        np.testing.assert_array_equal(values, directly(states))
        # What is held is right, wherever it lies.
        held = np.asarray(cache.held)
        np.testing.assert_array_equal(np.asarray(cache.values)[held], directly(np.asarray(cache.states)[held]))


def test_more_states_than_slots():
    every = np.stack(np.unravel_index(np.arange(3**F), (3,) * F), axis=1)
    states = np.concatenate([every, every + 3])  # 1,458 in 1,024 slots
    assert len(states) > minima.SLOTS
    values, cache = look_up(minima.init(F), jnp.asarray(states, jnp.int8))
    np.testing.assert_array_equal(values, directly(states))
    # Spread over the table: at random 1,024 (1 - e^(-1458/1024)) = 777 slots would be taken, give or take 12.
    assert np.sum(cache.held) > 600


def test_searches_once_for_every_distinct_state_and_never_for_a_held_one():
    counted = Counted()
    first = np.eye(F, dtype=int)[[0, 1, 0, 2, 1, 1, 0, 2]]
    cache = counted.look_up(minima.init(F), first)
    assert sorted(counted.searched) == sorted(set(map(tuple, first.tolist())))
    cache = counted.look_up(cache, first[::-1])
    assert counted.searched == []
    cache = counted.look_up(cache, np.eye(F, dtype=int)[[0, 1, 2, 3, 0, 3, 2, 1]])
    assert counted.searched == [tuple(np.eye(F, dtype=int)[3].tolist())]


def test_the_state_of_zeros_is_not_held_from_the_start():
    """An empty table's rows are zeros, which is a state too."""
    counted = Counted()
    cache = counted.look_up(minima.init(F), np.zeros((B, F), int))
    assert counted.searched == [(0,) * F]
    counted.look_up(cache, np.zeros((B, F), int))
    assert counted.searched == []


def test_a_held_minimum_is_handed_out_as_it_is():
    """Poisoned values come back: nothing is searched for behind the table's back."""
    states = jnp.asarray(np.eye(F)[[0, 1, 2, 3, 0, 1, 2, 3]], jnp.int8)
    _, cache = look_up(minima.init(F), states)
    values, again = look_up(cache.replace(values=cache.values - 1e6), states)
    np.testing.assert_array_equal(values, directly(np.asarray(states)) - 1e6)
    np.testing.assert_array_equal(again.states, cache.states)


def test_lanes_of_vmap_do_not_disturb_one_another():
    """Each lane has its own table and batch; some are done at once, some search for every state."""
    random = np.random.default_rng(2)
    batches = random.integers(0, 3, (4, B, F))
    batches[1] = batches[1, 0]  # one state
    batches[3] = batches[0]
    tables, known = [], []
    for lane, states in enumerate(batches):
        cache = minima.init(F)
        if lane == 3:  # all held
            _, cache = look_up(cache, jnp.asarray(states, jnp.int8))
        if lane == 2:  # half of them held
            _, cache = look_up(cache, jnp.asarray(np.concatenate([states[:4], states[:4]]), jnp.int8))
        tables.append(cache)
        known.append(look_up(cache, jnp.asarray(states, jnp.int8)))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *tables)
    together = jax.jit(jax.vmap(functools.partial(minima.look_up, minimum_of=weighted)))
    found = together(stacked, jnp.asarray(batches, jnp.int8))
    chex.assert_trees_all_equal(found, jax.tree.map(lambda *leaves: jnp.stack(leaves), *known))


def test_the_learners_minima_are_those_of_its_target_network():
    """With the real search: the least Q' over all joint actions of each next state."""
    users, choices, levels = 2, 5, tuple(observation_levels(2).tolist())
    learner = Learner(config=literal(width=8), users=users, choices=choices, levels=levels)
    network = learner.q_network
    params = network.init(jax.random.key(1), jnp.zeros(len(levels)), jnp.zeros(users, jnp.int32))
    random = np.random.default_rng(5)
    params = jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), jnp.float32), params)
    states = np.stack([random.integers(0, levels) for _ in range(B)])

    @jax.jit
    def kept(params: chex.ArrayTree, states: chex.Array) -> chex.Array:
        goal = Goal.of(0.0, Penalty())
        least = functools.partial(learner._target_minimum, params, goal)
        return minima.look_up(minima.init(len(levels)), states, least)[0]

    @jax.jit
    def naively(params: chex.ArrayTree, state: chex.Array) -> chex.Array:
        features = state / (jnp.array(levels, jnp.float32) - 1)
        every = jnp.array([[a, b] for a in range(choices) for b in range(choices)], jnp.int32)
        return jnp.min(jax.vmap(lambda action: network.apply(params, features, action))(every))

    expected = [naively(params, jnp.asarray(state, jnp.float32)) for state in states]
    np.testing.assert_allclose(kept(params, jnp.asarray(states, jnp.int8)), expected, rtol=1e-5, atol=1e-5)
