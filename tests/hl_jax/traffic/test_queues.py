"""Queues against a list of waiting tasks, merging against a sort, links against small steps of time."""

from __future__ import annotations

import heapq

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hl_jax.traffic import links
from hl_jax.traffic.links import Rate
from hl_jax.traffic.merging import merged
from hl_jax.traffic.queues import ABSENT, idle, serve

TASKS = 12


def by_hand(slots, room, came, takes, latest):
    """When each task starts and whether it is done, event by event."""
    free, begun, found = [-np.inf] * slots, [], []
    for arrival, service, limit in zip(came, takes, latest, strict=True):
        if arrival == ABSENT:
            found.append((None, False))
            continue
        if room and sum(start > arrival for start in begun) >= room:
            found.append((arrival, False))
            continue
        first = heapq.heappop(free)
        start = max(arrival, first)
        done = start <= limit
        heapq.heappush(free, start + service if done else first)
        begun.append(start)
        found.append((start, done))
    return found


@jax.jit
def _serve_two(came, takes, latest):
    return serve(idle(2, 3), came, takes, latest)[1]


@settings(max_examples=150, deadline=None)
@given(
    gaps=st.lists(st.integers(0, 40), min_size=TASKS, max_size=TASKS),
    takes=st.lists(st.integers(0, 200), min_size=TASKS, max_size=TASKS),
    patience=st.lists(st.sampled_from([0, 50, 10_000]), min_size=TASKS, max_size=TASKS),
    absent=st.lists(st.booleans(), min_size=TASKS, max_size=TASKS),
)
def test_tasks_start_as_by_hand(gaps, takes, patience, absent):
    came = np.cumsum(gaps).astype(np.float32)
    latest = came + np.array(patience, np.float32)
    came = np.where(absent, ABSENT, came).astype(np.float32)
    served = _serve_two(came, np.array(takes, np.float32), latest)
    expected = by_hand(2, 3, came.tolist(), takes, latest.tolist())
    for index, (start, done) in enumerate(expected):
        assert bool(served.done[index]) == done
        if start is not None:
            assert float(served.start[index]) == start


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.lists(st.integers(0, 30), min_size=5, max_size=5).map(sorted), min_size=6, max_size=6))
def test_rows_are_merged_as_sorted(rows):
    keys = np.array(rows, np.float32)
    assert np.array_equal(np.asarray(_merged(keys)), np.argsort(keys.ravel(), kind="stable"))


_merged = jax.jit(merged)


def test_one_row_is_merged_already():
    assert np.asarray(merged(jnp.array([[1.0, 2.0, 2.0]]))).tolist() == [0, 1, 2]


@settings(max_examples=60, deadline=None)
@given(
    rates=st.lists(st.sampled_from([0.0, 0.5, 2.0, 10.0]), min_size=4, max_size=4),
    start=st.integers(0, 1200),
    kbit=st.integers(1, 4000),
)
def test_an_input_is_through_when_enough_is_carried(rates, start, kbit):
    since, until = [0.0, 250.0, 500.0, 750.0], 1000.0
    rate = Rate(since=jnp.array(since), kbit_per_ms=jnp.array(rates))
    out, left = _through(rate, jnp.float32(start), jnp.float32(kbit), jnp.float32(until))
    step, carried, time = 0.5, 0.0, float(start)
    while time < until and carried < kbit:
        carried += step * rates[min(int(time // 250), 3)]
        time += step
    if carried >= kbit:
        assert float(left) == 0.0
        assert time - step - 1e-3 <= float(out) <= time + 1e-3
    else:
        assert not np.isfinite(float(out))
        assert np.isclose(float(left), kbit - carried, atol=1e-2)


_through = jax.jit(links.through)
