"""Exact search over all A = C^N joint actions: values, minimum, K best.

The learned functions have one hidden layer whose input is a sum over devices, so the pre-activations of all joint
actions are outer sums of two partial tables (the first half of the devices, the second half). Only the hidden layer's
nonlinearity is computed per joint action: H multiply-adds each, and nothing is approximated.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from hl_jax.choices import encode


@chex.dataclass(frozen=True)
class Separable:
    """A function of the joint action: sum_h w[h] * relu(base[h] + sum_i hidden[i, a_i, h]) + sum_i skip[i, a_i].

    w[h] is output[h] + sum_i outputs[i, a_i, h]; the constant term is in `constant`.
    """

    base: chex.Array  # [H]
    hidden: chex.Array  # [N, C, H]
    output: chex.Array  # [H]
    skip: chex.Array  # [N, C]
    constant: chex.Array  # []
    outputs: chex.Array | None = None  # [N, C, H], where what a unit counts for depends on the choices


def _outer_sums(tables: chex.Array) -> chex.Array:
    """Sums over devices for every combination of their choices: [n, C, X] -> [C^n, X]."""
    total = jnp.zeros((1, tables.shape[2]), tables.dtype)
    for table in tables:
        total = (total[:, None, :] + table[None, :, :]).reshape(-1, table.shape[1])
    return total


@jax.custom_batching.sequential_vmap
def joint_values(function: Separable) -> chex.Array:
    """Values of all joint actions, in the order of their index. Shape [A].

    Under `vmap` one item is done after the other: a single table of 10^5 values stays in a core's cache.
    """
    users = function.hidden.shape[0]
    half = users // 2
    skip = function.skip[:, :, None]
    left = _outer_sums(function.hidden[:half]).T + function.base[:, None]  # [H, C^half]
    right = _outer_sums(function.hidden[half:]).T  # [H, C^(N - half)]
    start = function.constant + _outer_sums(skip[:half]) + _outer_sums(skip[half:]).T

    if function.outputs is not None:
        of_left = _outer_sums(function.outputs[:half]).T + function.output[:, None]
        of_right = _outer_sums(function.outputs[half:]).T

    def add_unit(unit: int, total: chex.Array) -> chex.Array:
        activation = jnp.maximum(left[unit][:, None] + right[unit][None, :], 0.0)
        if function.outputs is None:
            return total + function.output[unit] * activation
        return total + (of_left[unit][:, None] + of_right[unit][None, :]) * activation

    # Two at a time: half as often through a table that is larger than a core's first cache.
    return jax.lax.fori_loop(0, function.output.shape[0], add_unit, start, unroll=2).reshape(-1)


def sums(table: chex.Array) -> chex.Array:
    """What the chosen places of a table ([N, C]) add up to in every joint action, in the order of its index. [A]."""
    half = table.shape[0] // 2
    left, right = _outer_sums(table[:half, :, None]), _outer_sums(table[half:, :, None])
    return (left + right.T).reshape(-1)


def best(values: chex.Array) -> tuple[chex.Array, chex.Array]:
    """Index and value of the least of `values` ([A]); the lowest index among equals."""
    least = jnp.min(values)
    places = jnp.arange(values.shape[0], dtype=jnp.int32)
    return jnp.min(jnp.where(values == least, places, values.shape[0] - 1)), least


def k_best(values: chex.Array, k: int) -> tuple[chex.Array, chex.Array]:
    """Indices and values of the `k` least of `values` ([A]), least first; equals in the order of their index."""
    # Inside a loop XLA fuses what follows into the selection and then sorts all A values, 50 times as slow.
    negated, indices = jax.lax.optimization_barrier(jax.lax.top_k(-values, k))
    return indices.astype(jnp.int32), -negated


TRIES = 64  # joint actions drawn at once, in the hope that one of them is allowed


def draw(key: chex.PRNGKey, weights: chex.Array, allowed: chex.Array) -> chex.Array:
    """A joint action drawn device by device, of those that are allowed. Its index, []; the key is consumed.

    Args:
      key: consumed.
      weights: [N, C], in proportion to which each device's choice would be drawn by itself.
      allowed: [A] bool; one of those with a weight above 0 must be.
    """
    tries_key, exact_key = jax.random.split(key)
    users, choices = weights.shape
    tried = encode(jax.random.categorical(tries_key, jnp.log(weights)[None], shape=(TRIES, users)), choices)
    fine = allowed[tried]

    def go_through_all(
        carry: tuple[chex.Array, chex.Array, chex.PRNGKey],
    ) -> tuple[chex.Array, chex.Array, chex.PRNGKey]:
        key, own_key = jax.random.split(carry[2])
        return jnp.bool_(True), _draw_of_all(own_key, weights, allowed), key

    # A loop of one turn at most, and not a branch, both of whose sides `vmap` would compute.
    found = (jnp.any(fine), tried[jnp.argmax(fine)].astype(jnp.int32), exact_key)
    return jax.lax.while_loop(lambda carry: ~carry[0], go_through_all, found)[1]


def _draw_of_all(key: chex.PRNGKey, weights: chex.Array, allowed: chex.Array) -> chex.Array:
    """The same from the probabilities of all joint actions: the row, then its column, of a table of both halves."""
    first_key, second_key = jax.random.split(key)
    half = weights.shape[0] // 2
    tables = jnp.log(weights)[:, :, None]  # products over devices are sums of logarithms
    left, right = _outer_sums(tables[:half]), _outer_sums(tables[half:]).T
    joint = jnp.where(allowed.reshape(left.shape[0], right.shape[1]), jnp.exp(left + right), 0.0)
    row = jax.random.categorical(first_key, jnp.log(jnp.sum(joint, axis=1)))
    column = jax.random.categorical(second_key, jnp.log(joint[row]))
    return (row * right.shape[1] + column).astype(jnp.int32)
