"""The sum-tree: its totals against NumPy's, what it draws and how often, and where values at the edges fall."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hl_jax.replay import sum_tree

M, B = 64, 16
update = jax.jit(sum_tree.update)
find = jax.jit(sum_tree.find)
sample = jax.jit(sum_tree.sample, static_argnums=2)
# Distinct powers of two: any sum of them is exact and tells which leaves went in.
POWERS = st.integers(0, 15).map(lambda exponent: 2.0**exponent)


def built(priorities: np.ndarray) -> jax.Array:
    """A tree with these priorities."""
    return update(sum_tree.init(len(priorities)), jnp.arange(len(priorities)), jnp.asarray(priorities, jnp.float32))


def test_totals_stay_tight_over_thousands_of_updates():
    capacity, rounds, batch = 1024, 1500, 64  # 96,000 leaves written
    random = np.random.default_rng(0)
    leaves = random.integers(0, capacity, (rounds, batch)).astype(np.int32)
    # Over six orders of magnitude, where adding differences would leave the small ones' rounding behind.
    values = (10.0 ** random.uniform(-3, 3, (rounds, batch))).astype(np.float32)
    reference = np.zeros(capacity, np.float32)
    for row, (where, what) in enumerate(zip(leaves, values, strict=True)):
        _, first, which = np.unique(where, return_index=True, return_inverse=True)
        values[row] = what[first][which]  # one value a leaf, as `update` asks
        reference[where] = values[row]

    @jax.jit
    def run(tree: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda tree, item: (sum_tree.update(tree, *item), None), tree, (leaves, values))[0]

    tree = np.asarray(run(sum_tree.init(capacity)))
    np.testing.assert_array_equal(tree[capacity:], reference)
    # Every node is the rounded sum of its children, bit for bit: nothing is left of earlier priorities.
    np.testing.assert_array_equal(tree[1:capacity], tree[2::2] + tree[3::2])
    # Ten levels of float32 additions of positive numbers: at most 10 relative roundings of 2^-24.
    np.testing.assert_allclose(sum_tree.total(tree), reference.sum(dtype=np.float64), rtol=10 * 2.0**-24)


@given(st.lists(st.tuples(st.integers(0, M - 1), POWERS), min_size=1, max_size=B))
def test_equals_a_list_of_priorities(written):
    """Also with repeats."""
    latest = dict(written)
    pairs = list(latest.items()) * 2  # each twice, with the same priority
    pairs += pairs[:1] * (2 * B - len(pairs))  # one length, so that it compiles once
    leaves, values = (np.array(column) for column in zip(*pairs, strict=True))
    tree = update(sum_tree.init(M), jnp.asarray(leaves, jnp.int32), jnp.asarray(values, jnp.float32))
    expected = np.zeros(M)
    expected[list(latest)] = list(latest.values())
    np.testing.assert_array_equal(sum_tree.get(tree, jnp.arange(M)), expected)
    assert sum_tree.total(tree) == expected.sum()


@pytest.mark.parametrize("capacity", [2, 4, 8, 64])
def test_find_at_the_edges_of_every_stretch(capacity):
    """With integer priorities all prefix sums are exact, so every edge has one right answer."""
    priorities = np.random.default_rng(capacity).integers(0, 4, capacity)
    priorities[0], priorities[-1] = 0, 0  # the ends, where a search that slips would fall off
    priorities[capacity // 2] = 2
    tree, upper = built(priorities), np.cumsum(priorities)
    values = np.arange(upper[-1])  # the lower edge of every unit
    expected = np.searchsorted(upper, values, side="right")
    np.testing.assert_array_equal(find(tree, jnp.asarray(values, jnp.float32)), expected)
    # Just below the next edge: still the same leaf.
    below = np.nextafter(np.float32(values + 1), np.float32(0))
    np.testing.assert_array_equal(find(tree, jnp.asarray(below)), expected)
    # Rounding can draw the total itself (or a little more): the last leaf that has any priority.
    beyond = jnp.array([upper[-1], upper[-1] * 1.01, upper[-1] + 5], jnp.float32)
    np.testing.assert_array_equal(find(tree, beyond), np.flatnonzero(priorities)[-1])


@settings(max_examples=25)
@given(st.lists(st.sampled_from([0.0, 0.0, 1e-3, 0.3, 7.0, 1e5]), min_size=M, max_size=M), st.integers(0, 2**31 - 1))
def test_zero_priority_is_never_drawn(priorities, seed):
    priorities = np.array(priorities)
    priorities[seed % M] = 1.0
    drawn = sample(built(priorities), jax.random.key(seed), 256)
    assert (priorities[np.asarray(drawn)] > 0).all()


def test_draws_one_leaf_of_every_stratum():
    """With equal priorities and as many draws as leaves, each leaf is drawn exactly once."""
    for seed in range(20):
        assert sorted(np.asarray(sample(built(np.ones(M)), jax.random.key(seed), M))) == list(range(M))


def test_draw_frequency_is_in_proportion_to_priority():
    priorities = np.array([0.5, 0, 1, 2, 3, 0.25, 8, 0, 1, 1, 4, 0.125, 6, 2, 1, 0])
    draws = 4000

    def first(key: jax.Array) -> jax.Array:
        # Two strata, of which one is kept: its draws are independent of one another, as a chi-square test needs.
        half_key, which_key = jax.random.split(key)
        pair = sum_tree.sample(built(priorities), half_key, 2)
        return pair[jax.random.randint(which_key, (), 0, 2)]

    drawn = jax.jit(jax.vmap(first))(jax.random.split(jax.random.key(3), draws))
    counts = np.bincount(np.asarray(drawn), minlength=len(priorities))
    possible = priorities > 0
    assert counts[~possible].sum() == 0
    expected = draws * priorities[possible] / priorities.sum()
    # The key is fixed, so this is no lottery: a p below 1e-3 would be a bias. (Uniform draws give p < 1e-300.)
    assert stats.chisquare(counts[possible], expected).pvalue > 1e-3
    uniform = np.full(possible.sum(), draws / possible.sum())
    assert stats.chisquare(counts[possible], uniform).pvalue < 1e-12


@pytest.mark.parametrize("capacity", [-4, 0, 1, 3, 6, 100])
def test_refuses_a_capacity_that_is_no_power_of_two(capacity):
    with pytest.raises(ValueError, match=rf"capacity: expected a power of two of at least 2, found {capacity}$"):
        sum_tree.init(capacity)


def test_refuses_priorities_that_do_not_match_the_leaves():
    with pytest.raises(AssertionError, match="shape"):
        sum_tree.update(sum_tree.init(4), jnp.arange(2), jnp.ones(3))
