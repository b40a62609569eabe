"""Sorted rows made into one: the order in which the requests of many devices pass a node.

Batcher's bitonic merge in the form whose every stage is the same (Stone 1971): halves are compared, then shuffled
like cards. Minima and maxima at fixed places are done for a batch of rollouts at once, where a sort isn't; and a loop
over equal stages compiles once. Ties go to the device, then the request, that stands first.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np

Pair = tuple[chex.Array, chex.Array]


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()


def _stage(pair: Pair) -> Pair:
    """Compares the halves of each row ([L, m] keys and indices) and shuffles them."""
    keys, index = pair
    half = keys.shape[1] // 2
    low, high = (keys[:, :half], index[:, :half]), (keys[:, half:], index[:, half:])
    swap = (high[0] < low[0]) | ((high[0] == low[0]) & (high[1] < low[1]))
    keys, index = (
        jnp.stack([jnp.where(swap, b, a), jnp.where(swap, a, b)], axis=-1).reshape(keys.shape)
        for a, b in zip(low, high, strict=True)
    )
    return keys, index


def merged(keys: chex.Array) -> chex.Array:
    """The order of N rows' elements ([N, M], each row ascending): indices of the flattened rows. [N * M] int32."""
    chex.assert_rank(keys, 2)
    rows, length = keys.shape
    pad = ((0, _power_of_two(rows) - rows), (0, _power_of_two(length) - length))
    index = jnp.arange(rows * length, dtype=jnp.int32).reshape(rows, length)
    pair = (
        jnp.pad(keys, pad, constant_values=jnp.inf),
        jnp.pad(index, pad, constant_values=np.iinfo(np.int32).max),
    )
    while pair[0].shape[0] > 1:
        # A row and the next one backwards: first up, then down, which is what a bitonic merge takes.
        pairs = [x.reshape(x.shape[0] // 2, 2, x.shape[1]) for x in pair]
        keys, index = (jnp.concatenate([x[:, 0], x[:, 1, ::-1]], axis=1) for x in pairs)
        stages = keys.shape[1].bit_length() - 1
        pair = jax.lax.fori_loop(0, stages, lambda _, before: _stage(before), (keys, index))
    return pair[1][0, : rows * length]
