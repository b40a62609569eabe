"""A sum-tree over M priorities: sampling in proportion to priority in O(log M).

The tree is one array of 2M floats: node 1 is the root, node i has children 2i and 2i+1, leaf j is node M + j.
Parents are recomputed from their children, never adjusted by differences, so that rounding doesn't accumulate.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp


def init(capacity: int) -> chex.Array:
    """An empty tree for `capacity` leaves (a power of two). Shape [2M], float32."""
    if capacity < 2 or capacity & (capacity - 1):
        raise ValueError(f"sum-tree capacity: expected a power of two of at least 2, found {capacity}")
    return jnp.zeros(2 * capacity, jnp.float32)


def capacity(tree: chex.Array) -> int:
    """Number of leaves M."""
    return tree.shape[0] // 2


def total(tree: chex.Array) -> chex.Array:
    """Sum of all priorities."""
    return tree[1]


def get(tree: chex.Array, leaves: chex.Array) -> chex.Array:
    """Priorities of `leaves` ([B] int32)."""
    return tree[capacity(tree) + leaves]


def update(tree: chex.Array, leaves: chex.Array, priorities: chex.Array) -> chex.Array:
    """Sets the priorities ([B], >= 0) of `leaves` ([B]).

    Where a leaf is named twice its priorities must be equal.
    """
    chex.assert_equal_shape([leaves, priorities])
    size = capacity(tree)
    nodes = leaves + size
    tree = tree.at[nodes].set(priorities)
    for _ in range(size.bit_length() - 1):
        nodes = nodes // 2
        tree = tree.at[nodes].set(tree[2 * nodes] + tree[2 * nodes + 1])
    return tree


def find(tree: chex.Array, values: chex.Array) -> chex.Array:
    """The leaf in whose stretch of [0, total) each of `values` ([B]) falls; never one of zero priority."""
    size = capacity(tree)

    def descend(_: int, carry: tuple[chex.Array, chex.Array]) -> tuple[chex.Array, chex.Array]:
        nodes, rest = carry
        left = tree[2 * nodes]
        # Rounding may leave `rest` at the very end of a subtree: an empty right side is never entered.
        right = (rest >= left) & (tree[2 * nodes + 1] > 0.0)
        return 2 * nodes + right, jnp.where(right, rest - left, rest)

    start = (jnp.ones_like(values, jnp.int32), values)
    nodes, _ = jax.lax.fori_loop(0, size.bit_length() - 1, descend, start, unroll=True)
    return nodes - size


def sample(tree: chex.Array, key: chex.PRNGKey, batch: int) -> chex.Array:
    """Draws `batch` leaves in proportion to priority, one from each of `batch` equal strata; the key is consumed."""
    strata = (jnp.arange(batch) + jax.random.uniform(key, (batch,))) / batch
    return find(tree, strata * total(tree))
