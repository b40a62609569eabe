"""D_plan keyed by state and action: for changing conditions, where what an action costs depends on the state.

Algorithm 1, line 29, asks whether D_plan holds the action ("if a_i does not exist in the buffer"), and line 33 then
moves what it holds to another state: right only where one state is as good as another. Here an entry is (s, a), found
through a table of hashes; two keys that meet there shut each other out of it, and the older one, still in the buffer,
counts as new when it is suggested again.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np

from hl_jax.replay import buffers
from hl_jax.replay.buffers import NOWHERE, Prioritized, Transition

PLACES = 4  # in the table of hashes, for each transition that the buffer holds


@chex.dataclass(frozen=True)
class Situated:
    """D_plan: at most one transition per state and joint action, but for keys that have met."""

    prioritized: Prioritized
    slot_of: chex.Array  # [PLACES M] int32, where the transition of a hash lies, or NOWHERE


def init(capacity: int, components: int) -> Situated:
    """An empty D_plan; `capacity` is a power of two."""
    slot_of = jnp.full(PLACES * capacity, NOWHERE, jnp.int32)
    return Situated(prioritized=buffers.init_prioritized(capacity, components), slot_of=slot_of)


def _place(buffer: Situated, obs: chex.Array, action: chex.Array) -> chex.Array:
    """Where a state [F] and a joint action are looked up. []."""
    bits = buffer.slot_of.shape[0].bit_length() - 1
    multipliers = np.random.default_rng(0).integers(2**32, size=obs.shape[0] + 1, dtype=np.uint32) | np.uint32(1)
    mixed = jnp.sum(obs.astype(jnp.uint32) * multipliers[:-1], dtype=jnp.uint32)
    mixed = (mixed ^ (mixed >> 15)) + action.astype(jnp.uint32) * multipliers[-1]
    mixed = (mixed ^ (mixed >> 16)) * np.uint32(0x45D9F3B)
    return (mixed >> (32 - bits)).astype(jnp.int32)


def _holds(buffer: Situated, slot: chex.Array, obs: chex.Array, action: chex.Array) -> chex.Array:
    """Whether the transition in a slot is this one's. [] bool."""
    data = buffer.prioritized.ring.data
    return (slot != NOWHERE) & (data.action[slot] == action) & jnp.all(data.obs[slot] == obs)


def contains(buffer: Situated, obs: chex.Array, actions: chex.Array) -> chex.Array:
    """Whether each of some joint actions ([K]) is held of a state [F] int8. [K] bool."""

    def one(action: chex.Array) -> chex.Array:
        return _holds(buffer, buffer.slot_of[_place(buffer, obs, action)], obs, action)

    return jax.vmap(one)(actions)


def put(buffer: Situated, item: Transition) -> Situated:
    """Stores a transition that isn't held yet (line 31) over the oldest, which is forgotten."""
    ring, nowhere = buffer.prioritized.ring, buffer.slot_of.shape[0]
    size = buffers.ring_capacity(ring)
    slot = ring.count % size
    old = _place(buffer, ring.data.obs[slot], ring.data.action[slot])
    dropped = jnp.where((ring.count >= size) & (buffer.slot_of[old] == slot), old, nowhere)
    slot_of = buffer.slot_of.at[dropped].set(NOWHERE, mode="drop")
    slot_of = slot_of.at[_place(buffer, item.obs, item.action)].set(slot)
    return Situated(prioritized=buffers.add(buffer.prioritized, item), slot_of=slot_of)
