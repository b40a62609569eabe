"""Least squares in square-root information form: triangles in place of the normal equations' precision.

What is known of weights w is a set of rows [A | b], each saying that A w is b to within a standard deviation of 1. An
orthogonal transformation turns them into an upper triangle [R | z] that says the same: R w = z is the most probable w,
and (R^T R)^-1 its covariance (Bierman, Factorization Methods for Discrete Sequential Estimation, 1977). The condition
number of R is the square root of the precision's, and rows of a prior make R regular whatever else is in it, so
nothing here can fail as a Cholesky factor of a rounded precision does.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

# Not LAPACK's: on a CPU its BLAS has threads of its own, which wait busily for the cores that run the program, and two
# batches at once can wait for each other for ever. Columns are reflected one by one within a panel, and the rest of
# the matrix follows by matrix products.
PANEL = 32


def triangle(rows: chex.Array) -> chex.Array:
    """The upper triangle [D, D] that says the same as `rows` [M, D], by Householder reflections; needs M >= D."""
    chex.assert_rank(rows, 2)
    height, width = rows.shape
    if height < width:
        raise ValueError(f"rows: expected at least {width}, found {height}")
    done = []
    for start in range(0, width, PANEL):
        size = min(PANEL, width - start)
        panel, reflectors, products = _panel(rows[:, :size])
        rest = rows[:, size:]
        rest = rest - reflectors @ (products.T @ (reflectors.T @ rest))
        top = jnp.concatenate([jnp.zeros((size, start)), panel[:size], rest[:size]], axis=1)
        done.append(top)
        rows = rest[size:]
    return jnp.concatenate(done)


def _panel(rows: chex.Array) -> tuple[chex.Array, chex.Array, chex.Array]:
    """Reflects the columns of [M, P] one by one.

    Returns the triangle [P, P], and V [M, P] and T [P, P] so that the product of all reflections is I - V T V^T
    (Schreiber and Van Loan's compact form).
    """
    height, width = rows.shape
    index = jnp.arange(height)

    def column(at: int, carry: tuple[chex.Array, ...]) -> tuple[chex.Array, ...]:
        rows, reflectors, products = carry
        below = jnp.where(index >= at, rows[:, at], 0.0)
        # Divided by the largest, so that no square overflows or vanishes.
        largest = jnp.max(jnp.abs(below))
        scaled = below / jnp.where(largest > 0.0, largest, 1.0)
        norm = jnp.sqrt(jnp.sum(scaled**2))
        head = scaled[at]
        pivot = -jnp.where(head < 0.0, -norm, norm)
        vector = jnp.where(index == at, head - pivot, scaled)
        square = jnp.sum(vector**2)
        weight = jnp.where(square > 0.0, 2.0 / jnp.where(square > 0.0, square, 1.0), 0.0)
        rows = rows - vector[:, None] * (weight * (vector @ rows))[None, :]
        beside = -weight * (products @ (reflectors.T @ vector))
        products = products.at[:, at].set(jnp.where(jnp.arange(width) == at, weight, beside))
        return rows, reflectors.at[:, at].set(vector), products

    begin = (rows, jnp.zeros((height, width)), jnp.zeros((width, width)))
    rows, reflectors, products = jax.lax.fori_loop(0, width, column, begin)
    return jnp.triu(rows[:width]), reflectors, products


def solve(upper: chex.Array, right: chex.Array) -> chex.Array:
    """upper^-1 right for a triangle [D, D] and [D, K]."""
    size = upper.shape[0]
    earlier = jnp.arange(size)[:, None]

    def row(step: int, right: chex.Array) -> chex.Array:
        index = size - 1 - step
        solved = right[index] / upper[index, index]
        rest = right - jnp.where(earlier < index, upper[:, index][:, None], 0.0) * solved[None, :]
        return rest.at[index].set(solved)

    return jax.lax.fori_loop(0, size, row, right)


def solve_transposed(upper: chex.Array, right: chex.Array) -> chex.Array:
    """upper^-T right for a triangle [D, D] and [D, K]."""
    later = jnp.arange(upper.shape[0])[:, None]

    def row(index: int, right: chex.Array) -> chex.Array:
        solved = right[index] / upper[index, index]
        rest = right - jnp.where(later > index, upper[index][:, None], 0.0) * solved[None, :]
        return rest.at[index].set(solved)

    return jax.lax.fori_loop(0, upper.shape[0], row, right)
