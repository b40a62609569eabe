"""Profiles: what their records refuse, and the law that times are drawn from."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hl_jax import profiles
from hl_jax.profiles import Entry, Profile, Target, mean_factor, quantile_curve, typical

pytestmark = pytest.mark.smoke

FULL = Entry("d0", 10.0, 10.5, 11.0, 12.0, 15.0, 40.0, 300.0, 20.0, 71.7, 90.0)
BARE = Entry("d1", 5.0)


def profile(*entries: Entry) -> Profile:
    return Profile("board", (Target("cpu", entries), Target("gpu", (FULL,))))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"model": " "}, "model: expected a name, found ' '"),
        ({"model": "d\n0"}, r"model: expected a name, found 'd\\n0'"),
        ({"p50_ms": 0.0}, r"d0.p50_ms: expected a number in \[1e-06, 1e\+09\], found 0.0"),
        ({"p50_ms": None}, r"d0.p50_ms: expected a number in .*, found None"),
        ({"p50_ms": float("nan")}, "d0.p50_ms: expected a number in .*, found nan"),
        ({"p50_ms": True}, "d0.p50_ms: expected a number in .*, found True"),
        ({"mean_ms": float("inf")}, "d0.mean_ms: expected a number in .*, found inf"),
        ({"mean_ms": -1.0}, "d0.mean_ms: expected a number in .*, found -1.0"),
        ({"p90_ms": 9.0}, "d0.p90_ms: expected at least p50_ms, 10, found 9.0"),
        ({"p90_ms": 20.0, "p99_ms": 19.0}, "d0.p99_ms: expected at least p90_ms, 20, found 19.0"),
        ({"p95_ms": 11.0, "p999_ms": 10.5}, "d0.p999_ms: expected at least p95_ms, 11, found 10.5"),
        ({"energy_mj": 0.0}, "d0.energy_mj: expected a number in .*, found 0.0"),
        ({"memory_mb": "4"}, "d0.memory_mb: expected a number in .*, found '4'"),
        ({"top1": 100.1}, r"d0.top1: expected a number in \[0, 100\], found 100.1"),
        ({"top5": -0.1}, r"d0.top5: expected a number in \[0, 100\], found -0.1"),
    ],
)
def test_a_row_checks_itself(values, expected):
    with pytest.raises(ValueError, match=f"^{expected}$"):
        Entry(**{"model": "d0", "p50_ms": 10.0, **values})


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: Target("", (FULL,)), "target: expected a name, found ''"),
        (lambda: Target("cpu", ()), "cpu.models: expected at least one, found 0"),
        (lambda: Target("cpu", (FULL, FULL)), r"cpu.models: expected distinct names, found \['d0'\]"),
        (lambda: Target("cpu", (FULL,), source="\ud800"), r"cpu.source: expected a text, found '\\ud800'"),
        (lambda: Profile("", (Target("cpu", (FULL,)),)), "kind: expected a name, found ''"),
        (lambda: Profile("board", ()), "targets: expected at least one, found 0"),
        (lambda: Profile("board", (Target("cpu", (FULL,)),) * 2), r"targets: expected distinct names, found \['cpu'\]"),
        (lambda: Profile("board", (Target("cpu", (FULL,)),), idle_w=-1.0), "idle_w: expected a number in .*"),
        (lambda: Profile("board", (Target("cpu", (FULL,)),), about=3), "board.about: expected a text, found 3"),  # type: ignore[arg-type]
        (lambda: profile(FULL).entry("npu", "d0"), "target: expected one of cpu, gpu of board, found 'npu'"),
        (lambda: profile(FULL, BARE).entry("cpu", "d2"), "model: expected one of d0, d1 on cpu, found 'd2'"),
        (lambda: profiles.measured_entry("d0", []), "d0: expected at least one time, found 0"),
    ],
)
def test_targets_profiles_and_lookups_say_what_they_expect(build, expected):
    with pytest.raises(ValueError, match=f"^{expected}$"):
        build()


def test_a_row_is_found():
    assert profile(FULL, BARE).entry("cpu", "d1") is BARE


def test_a_curve_passes_through_what_was_measured():
    probabilities, factors = quantile_curve(FULL)
    assert probabilities.tolist() == [0.0, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0]
    assert factors[[1, 3, 4, 5, 6, 7]].tolist() == pytest.approx([1.0, 1.1, 1.2, 1.5, 4.0, 4.0])


def test_a_curve_has_the_measured_mean_by_its_lower_end():
    curve = quantile_curve(FULL)
    # By hand: 0.4 * 1.05 + 0.05 * 1.15 + 0.04 * 1.35 + 0.009 * 2.75 + 0.001 * 4 above the median is 0.56025, and below
    # it 0.5 * (1 + end) / 2 is what is missing of 1.05.
    assert curve.factors[0] == pytest.approx(4 * (1.05 - 0.56025) - 1.0)
    assert curve.factors[2] == pytest.approx(1.0 + 0.1 * 0.25 / 0.4)  # not moved
    assert mean_factor(curve) == pytest.approx(1.05)


@pytest.mark.parametrize(("mean", "end"), [(9.7, 0.5), (11.3, 1.0)])
def test_beyond_that_the_middle_moves(mean, end):
    curve = quantile_curve(Entry("d0", 10.0, mean, p90_ms=14.0))
    assert curve.factors[0] == end
    assert curve.factors[2] != pytest.approx(1.25)
    assert 1.0 <= curve.factors[2] <= 1.4
    assert mean_factor(curve) == pytest.approx(mean / 10.0)


@pytest.mark.parametrize(("mean", "factors"), [(5.0, [0.5, 1.0, 1.0]), (90.0, [1.0, 1.0, 1.4])])
def test_a_mean_that_no_curve_has_is_approached(mean, factors):
    assert quantile_curve(Entry("d0", 10.0, mean, p90_ms=14.0)).factors[:3].tolist() == factors


def test_what_was_not_measured_is_interpolated_and_nothing_is_slower_than_the_slowest():
    factors = quantile_curve(Entry("d0", 10.0, p90_ms=12.0, p99_ms=21.0)).factors
    assert factors[3:].tolist() == pytest.approx([1.2, 1.2 + 0.9 * 5 / 9, 2.1, 2.1, 2.1])
    assert factors[0] == pytest.approx(0.75)  # as steep below the median as above it: 0.2 in 0.4 of probability
    assert quantile_curve(Entry("d0", 10.0, p90_ms=30.0)).factors[0] == 0.5


def test_a_row_with_a_median_alone_is_always_as_long():
    curve = quantile_curve(BARE)
    assert set(curve.factors.tolist()) == {1.0}
    assert typical(Target("cpu", (BARE,))) is None
    assert mean_factor(profile(BARE).curve("cpu", "d1")) == 1.0


def test_a_row_with_a_median_alone_has_the_tail_of_its_target():
    others = [Entry(f"m{i}", 10.0, 10.0, p90_ms=10.0 + i, p99_ms=10.0 + 2 * i) for i in (1, 2, 9)]
    found = profile(BARE, *others).curve("cpu", "d1")
    assert found.factors.tolist() == quantile_curve(others[1]).factors.tolist()
    # Its own mean goes before theirs.
    own = profile(Entry("d1", 5.0, 5.2), *others).curve("cpu", "d1")
    assert mean_factor(own) == pytest.approx(1.04)
    assert own.factors[3] == found.factors[3]
    # One with a tail of its own keeps it.
    assert profile(FULL, *others).curve("cpu", "d0").factors.tolist() == quantile_curve(FULL).factors.tolist()


def test_typical_quantiles_never_fall_where_models_have_different_ones():
    shape = typical(Target("cpu", (Entry("a", 1.0, p90_ms=3.0), Entry("b", 1.0, p99_ms=2.0))))
    assert shape is not None
    assert (shape.p90_ms, shape.p99_ms) == (3.0, 3.0)


@given(st.lists(st.floats(0.0, 9.0), min_size=4, max_size=4), st.floats(0.1, 50.0), st.floats(1e-3, 1e3))
def test_any_curve_rises_and_is_scale_free(steps, mean, median):
    values = median * (1.0 + np.cumsum(steps))
    entry = Entry("d0", median, mean * median, *values.tolist())
    curve = quantile_curve(entry)
    assert (np.diff(curve.factors) >= -1e-12).all()
    assert curve.factors[0] >= 0.5
    assert curve.factors[1] == 1.0
    low, high = (mean_factor(quantile_curve(Entry("d0", median, m * median, *values.tolist()))) for m in (0.1, 50.0))
    assert mean_factor(curve) == pytest.approx(np.clip(mean, low, high), rel=1e-6)


def test_draws_follow_the_curve_and_their_key_alone():
    curve = quantile_curve(FULL)
    once, again, other = (np.asarray(profiles.draw(jax.random.key(seed), *curve, (40_000,))) for seed in (1, 1, 2))
    assert (once == again).all()
    assert (once != other).any()
    # Four standard errors of a share of 40,000 draws, the widest at 0.5.
    for probability, factor in zip(curve.probabilities[1:-1], curve.factors[1:-1], strict=True):
        assert np.mean(once <= factor + 1e-6) == pytest.approx(probability, abs=4 * 0.5 / 200)
    assert once.mean() == pytest.approx(mean_factor(curve), abs=4 * float(once.std()) / 200)
    assert once.min() >= curve.factors[0] - 1e-6
    assert once.max() <= curve.factors[-1] + 1e-6


def test_draws_of_many_devices_and_a_single_one():
    curve = quantile_curve(FULL)
    keys = jax.random.split(jax.random.key(3), 4)
    tables = jnp.stack([jnp.asarray(curve.factors)] * 4)
    drawn = jax.jit(jax.vmap(profiles.draw, (0, None, 0)))(keys, jnp.asarray(curve.probabilities), tables)
    assert drawn.shape == (4,)
    assert len(set(drawn.tolist())) == 4
    assert profiles.draw(jax.random.key(3), *curve).shape == ()
    assert set(profiles.draw(jax.random.key(0), *quantile_curve(BARE), (50,)).tolist()) == {1.0}


@pytest.mark.parametrize(("runs", "names"), [(1, 0), (99, 0), (100, 1), (200, 2), (1000, 3), (9999, 3), (10_000, 4)])
def test_quantiles_are_measured_by_enough_runs(runs, names):
    times = np.linspace(1.0, 2.0, runs)
    entry = profiles.measured_entry("d0", times.tolist())
    measured = [getattr(entry, name) for name in profiles.QUANTILES]
    assert [value is not None for value in measured] == [place < names for place in range(4)]
    assert entry.p50_ms == pytest.approx(np.median(times), rel=1e-5)
    assert entry.mean_ms == pytest.approx(times.mean(), rel=1e-5)
    if names:
        assert entry.p90_ms == pytest.approx(1.9, abs=0.01)
