"""Triangles by Householder reflections, against NumPy's QR in double precision and against what they promise."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hl_jax.agents.factored import linear

triangle = jax.jit(linear.triangle)


def _precision(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, np.float64)
    return rows.T @ rows


# One panel, its edge, several panels, and exactly as many rows as columns.
@pytest.mark.parametrize(("height", "width"), [(8, 3), (5, 5), (40, 32), (70, 33), (200, 70), (70, 70)])
def test_equals_numpys_triangle_up_to_signs(height, width):
    rows = np.random.default_rng(height).normal(size=(height, width)).astype(np.float32)
    upper = np.asarray(triangle(rows))
    expected = np.linalg.qr(rows.astype(np.float64), mode="r")
    np.testing.assert_array_equal(upper, np.triu(upper))
    np.testing.assert_allclose(np.abs(upper), np.abs(expected), atol=2e-5)
    np.testing.assert_allclose(_precision(upper), _precision(rows), rtol=1e-4, atol=1e-3)


@settings(max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([1e-12, 1e-3, 1.0, 1e6, 1e12]),
    st.sampled_from(["plain", "zeros", "repeated", "nearly"]),
)
def test_rows_of_a_prior_keep_any_matrix_regular(seed, scale, kind):
    """Collinear columns, empty ones, any magnitude: with the unit matrix on top the triangle is finite and solvable."""
    random = np.random.default_rng(seed)
    rows = (scale * random.normal(size=(30, 8))).astype(np.float32)
    if kind == "zeros":
        rows[:, 2] = 0.0
    if kind in ("repeated", "nearly"):
        rows[:, 3] = rows[:, 1] * (1.0 if kind == "repeated" else np.float32(1.0 + 1e-7))
    stacked = np.concatenate([np.eye(8, dtype=np.float32), rows])
    upper = np.asarray(triangle(stacked))
    assert np.isfinite(upper).all()
    largest = np.abs(stacked).max() * np.sqrt(len(stacked))
    np.testing.assert_allclose(_precision(upper), _precision(stacked), atol=4e-6 * largest**2)
    if scale <= 1e3:  # beyond, float32 can't hold the prior beside the data
        assert np.abs(np.diag(upper)).min() >= 0.9


def test_the_normal_equations_fail_where_the_triangle_does_not():
    """Two columns that differ by less than float32's precision squared: the reason for this module."""
    rows = np.ones((50, 2), np.float32) * 3000.0
    rows[:, 1] += np.linspace(0.0, 1.0, 50, dtype=np.float32)
    stacked = np.concatenate([np.eye(2, dtype=np.float32), rows])
    precision = (stacked.T @ stacked).astype(np.float32)
    remaining = precision[1, 1] - precision[1, 0] * precision[1, 0] / precision[0, 0]
    truth = 1.0 / np.linalg.inv(_precision(stacked))[1, 1]
    upper = np.asarray(triangle(stacked))
    assert abs(remaining / truth - 1.0) > 0.05
    assert upper[1, 1] ** 2 == pytest.approx(truth, rel=1e-2)


def test_both_solves_undo_their_products():
    random = np.random.default_rng(0)
    upper = np.triu(random.normal(size=(40, 40)) + 8.0 * np.eye(40)).astype(np.float32)
    wanted = random.normal(size=(40, 3)).astype(np.float32)
    np.testing.assert_allclose(jax.jit(linear.solve)(upper, upper @ wanted), wanted, atol=1e-4)
    np.testing.assert_allclose(jax.jit(linear.solve_transposed)(upper, upper.T @ wanted), wanted, atol=1e-4)


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="rows: expected at least 4, found 3"):
        linear.triangle(jnp.zeros((3, 4)))
