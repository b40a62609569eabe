"""D_plan keyed by state and action, against a dictionary."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hl_jax.replay import buffers, situated
from hl_jax.replay.buffers import Transition
from hl_jax.replay.situated import Situated

M, F, ACTIONS = 8, 3, 5
put = jax.jit(situated.put)
contains = jax.jit(situated.contains)
keys = st.tuples(st.tuples(*[st.integers(0, 1)] * F), st.integers(0, ACTIONS - 1))


def item(key: tuple[tuple[int, ...], int], cost: float) -> Transition:
    state, action = key
    obs = jnp.asarray(state, jnp.int8)
    return Transition(obs=obs, action=jnp.int32(action), cost=jnp.float32(cost), next_obs=obs)


def held(buffer: Situated) -> list[tuple[tuple[tuple[int, ...], int], float]]:
    """What is in the buffer, oldest first."""
    ring = buffer.prioritized.ring
    count, size = int(ring.count), int(buffers.ring_size(ring))
    slots = [(count - size + index) % M for index in range(size)]
    data = jax.tree.map(np.asarray, ring.data)
    return [((tuple(data.obs[slot].tolist()), int(data.action[slot])), float(data.cost[slot])) for slot in slots]


@functools.cache
def places() -> dict[int, list[tuple[tuple[int, ...], int]]]:
    """All keys by where they are looked up."""
    buffer, found = situated.init(M, F), {}
    for state in np.ndindex(*[2] * F):
        for action in range(ACTIONS):
            place = int(situated._place(buffer, jnp.asarray(state, jnp.int8), jnp.int32(action)))
            found.setdefault(place, []).append((tuple(state), action))
    return found


@given(st.lists(keys, max_size=40))
@settings(max_examples=40)
def test_it_equals_a_dictionary_of_the_last_m_where_no_two_keys_meet(suggested):
    alone = {key for group in places().values() if len(group) == 1 for key in group}
    buffer, reference = situated.init(M, F), {}
    for cost, key in enumerate(one for one in suggested if one in alone):
        known = bool(contains(buffer, jnp.asarray(key[0], jnp.int8), jnp.asarray([key[1]]))[0])
        assert known == (key in reference)
        if known:
            continue
        buffer = put(buffer, item(key, cost))
        reference[key] = float(cost)
        if len(reference) > M:
            del reference[next(iter(reference))]
        assert held(buffer) == list(reference.items())


@given(st.lists(keys, max_size=40))
@settings(max_examples=40)
def test_whatever_meets_what_is_said_to_be_held_is_held_and_the_last_m_are_kept(suggested):
    buffer, put_in = situated.init(M, F), []
    for cost, key in enumerate(suggested):
        if bool(contains(buffer, jnp.asarray(key[0], jnp.int8), jnp.asarray([key[1]]))[0]):
            assert key in [one for one, _ in held(buffer)]
            continue
        buffer = put(buffer, item(key, cost))
        put_in.append((key, float(cost)))
        assert held(buffer) == put_in[-M:]
        assert contains(buffer, jnp.asarray(key[0], jnp.int8), jnp.asarray([key[1]]))[0]


def test_keys_seldom_meet():
    assert len(places()) > 20  # of 32 places for 40 keys; drawn at random 23 are to be expected
    spread = situated.init(1024, F)
    states = jnp.asarray(list(np.ndindex(*[2] * F)), jnp.int8)
    found = jax.vmap(lambda state: jax.vmap(lambda a: situated._place(spread, state, a))(jnp.arange(100)))(states)
    assert len(np.unique(np.asarray(found))) > 0.85 * 800  # 4,096 places for 800 keys; 727 at random
