"""Minima of a frozen target network over all joint actions, kept until the network is copied again.

TD targets need min_a' Q'(s', a') exactly, and a search over 10^5 joint actions for each of a minibatch's next states.
Few distinct states occur, and Q' doesn't change between copies: each state's minimum is searched for once.
"""

from __future__ import annotations

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np

SLOTS = 1024  # states held at once; another state of the same slot replaces the older one


@chex.dataclass(frozen=True)
class Minima:
    """A direct-mapped table: a state's slot follows from its components."""

    states: chex.Array  # [SLOTS, F] int8
    values: chex.Array  # [SLOTS]
    held: chex.Array  # [SLOTS] bool


def init(components: int) -> Minima:
    """Nothing held, for states of F `components`."""
    return Minima(
        states=jnp.zeros((SLOTS, components), jnp.int8),
        values=jnp.zeros(SLOTS, jnp.float32),
        held=jnp.zeros(SLOTS, bool),
    )


def _slots(states: chex.Array) -> chex.Array:
    """Slot of each state, [B, F] -> [B]: odd multipliers mix the components, the high bits choose."""
    # Multiples of one number would give all states of equal weighted sums one slot.
    multipliers = np.random.default_rng(0).integers(2**32, size=states.shape[1], dtype=np.uint32) | np.uint32(1)
    mixed = jnp.sum(states.astype(jnp.uint32) * multipliers[None], axis=1, dtype=jnp.uint32)
    return (mixed >> (32 - SLOTS.bit_length() + 1)).astype(jnp.int32)


def look_up(
    cache: Minima, states: chex.Array, minimum_of: Callable[[chex.Array], chex.Array]
) -> tuple[chex.Array, Minima]:
    """Minima of `states` ([B, F]), searching with `minimum_of` ([F] -> scalar) only for those not held.

    Returns the minima [B] and the table with the new ones.
    """
    slots = _slots(states)
    known = cache.held[slots] & jnp.all(cache.states[slots] == states, axis=1)

    def search_one(
        carry: tuple[chex.Array, chex.Array, Minima],
    ) -> tuple[chex.Array, chex.Array, Minima]:
        known, values, cache = carry
        # Under `vmap` the loop goes on until the last lane is done; a lane that is done must not change.
        missing = ~jnp.all(known)
        first = jnp.argmin(known)
        state = states[first]
        value = minimum_of(state)
        same = jnp.all(states == state[None], axis=1) & missing
        slot = jnp.where(missing, slots[first], SLOTS)
        cache = Minima(
            states=cache.states.at[slot].set(state, mode="drop"),
            values=cache.values.at[slot].set(value, mode="drop"),
            held=cache.held.at[slot].set(True, mode="drop"),
        )
        return known | same, jnp.where(same, value, values), cache

    start = (known, cache.values[slots], cache)
    _, values, cache = jax.lax.while_loop(lambda carry: ~jnp.all(carry[0]), search_one, start)
    return values, cache
