"""Statistics over seeds: against SciPy, by hand, with seeds that never got there, and how often intervals are right."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hl_jax import statistics

INF = np.inf
NUMBERS = st.floats(-1e6, 1e6, allow_subnormal=False)


@given(st.integers(1, 8), st.data())
def test_the_interquartile_mean_is_scipys_trimmed_mean(quarter, data):
    values = np.array(data.draw(st.lists(NUMBERS, min_size=4 * quarter, max_size=4 * quarter)))
    np.testing.assert_allclose(statistics.interquartile_mean(values), stats.trim_mean(values, 0.25), atol=1e-6)


@given(st.lists(NUMBERS, min_size=1, max_size=15))
def test_the_interquartile_mean_counts_outer_values_in_part(values):
    """Each value four times makes a number that can be cut in quarters."""
    expected = stats.trim_mean(np.repeat(values, 4), 0.25)
    np.testing.assert_allclose(statistics.interquartile_mean(np.array(values)), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([7], 7),
        ([1, 3], 2),
        ([0, 4, 2], 2),  # (0.25 * 0 + 2 + 0.25 * 4) / 1.5
        ([100, 1, 3, 10, 2], 4.8),  # (0.75 * 2 + 3 + 0.75 * 10) / 2.5
        ([0, 0, 6, 12, 24, 99], 10),  # (0.5 * 0 + 6 + 12 + 0.5 * 24) / 3
        ([1, 2, 3, 4, 5, 6, INF, INF], 4.5),  # the middle half is finite
        ([1, 2, 3, 4, 5, INF, INF, INF], INF),
        ([5, INF], INF),
        ([INF, INF, INF], INF),
    ],
)
def test_interquartile_means_by_hand(values, expected):
    assert statistics.interquartile_mean(np.array(values, float)) == pytest.approx(expected)


@given(st.lists(NUMBERS, min_size=1, max_size=12))
def test_the_median_is_numpys(values):
    np.testing.assert_allclose(statistics.median(np.array(values)), np.median(values), rtol=1e-12)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([3, INF, 1], 3), ([INF, 1], INF), ([INF, 1, 2, 4], 3), ([INF, INF, 1], INF), ([INF, INF], INF), ([INF], INF)],
)
def test_medians_with_seeds_that_never_got_there(values, expected):
    assert statistics.median(np.array(values, float)) == expected


def test_both_work_along_the_last_axis():
    rows = np.random.default_rng(0).normal(size=(3, 4, 7))
    for statistic in (statistics.median, statistics.interquartile_mean):
        each = [[statistic(row) for row in block] for block in rows]
        np.testing.assert_allclose(statistic(rows), each, rtol=1e-12)


@pytest.mark.parametrize(("level", "low", "high"), [(0.95, 0.88, 0.98), (0.5, 0.40, 0.56)])
def test_an_interval_covers_the_truth_about_as_often_as_it_says(level, low, high):
    """300 samples of 20 seeds: the percentile bootstrap of a mean is a little too narrow (93 and 48 %)."""
    random, covered = np.random.default_rng(1), 0
    for number in range(300):
        sample = random.normal(10.0, 3.0, 20)
        found = statistics.bootstrap_interval([sample], lambda values: values.mean(axis=-1), seed=number, level=level)
        covered += found[0] <= 10.0 <= found[1]
    assert low < covered / 300 < high


def test_an_interval_is_as_wide_as_theory_says():
    """A mean of 400 values of deviation 2: 10 plus or minus 1.96 * 0.1."""
    sample = np.random.default_rng(2).normal(size=400)
    sample = 10.0 + 2.0 * (sample - sample.mean()) / sample.std()
    found = statistics.bootstrap_interval([sample], lambda values: values.mean(axis=-1))
    np.testing.assert_allclose(found, [10.0 - 0.196, 10.0 + 0.196], atol=0.02)


def test_resampling_stays_within_strata():
    """Each task keeps its number of values, or an interval would mix easy tasks with hard ones."""
    strata = [np.array([-1.0, 0.0, 1.0]), 1000.0 + np.arange(-4.0, 5.0)]
    low, high = statistics.bootstrap_interval(strata, lambda values: values.mean(axis=-1))
    assert 747.0 < low < 750.0 < high < 753.0
    only = statistics.bootstrap_interval([np.array([1.0, 1.0]), np.array([4.0])], lambda values: values.mean(axis=-1))
    assert only == (2.0, 2.0)


def test_an_interval_repeats_and_its_seed_matters():
    sample = np.random.default_rng(3).normal(size=9)
    first = statistics.bootstrap_interval([sample], statistics.median)
    assert first == statistics.bootstrap_interval([sample], statistics.median)
    mean = lambda values: values.mean(axis=-1)  # noqa: E731
    assert statistics.bootstrap_interval([sample], mean) != statistics.bootstrap_interval([sample], mean, seed=1)


def test_a_summary_by_hand():
    found = statistics.summarize([100, None, 400, 200])
    assert (found.seeds, found.succeeded, found.median, found.iqm) == (4, 3, 300.0, 300.0)
    assert found.median_interval == (100.0, None)  # resamples of one value alone, and of many that never got there
    one = statistics.summarize([250])
    assert one.median_interval == one.iqm_interval == (250.0, 250.0)


@settings(max_examples=25)
@given(st.lists(st.one_of(st.none(), st.integers(0, 10**6)), min_size=1, max_size=10))
def test_a_summary_is_strict_json_and_its_intervals_hold_the_estimate(values):
    found = statistics.summarize(values)
    plain = dataclasses.asdict(found)
    assert json.loads(json.dumps(plain, allow_nan=False)) == json.loads(json.dumps(plain))
    assert found.succeeded == sum(value is not None for value in values)
    for name in ("median", "iqm"):
        low, middle, high = (
            INF if value is None else value
            for value in (plain[f"{name}_interval"][0], plain[name], plain[f"{name}_interval"][1])
        )
        assert low <= middle <= high


def test_nobody_got_there():
    found = statistics.summarize([None] * 5)
    assert found == statistics.Spread(5, 0, None, (None, None), None, (None, None))
