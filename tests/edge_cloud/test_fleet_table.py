"""What the cloud knows of its nodes: readings in the order in which they were made, whatever the clocks say."""

from __future__ import annotations

import collections

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_cloud import messages_pb2 as pb
from edge_cloud.orchestrator import LIVES_KEPT, FleetTable

pytestmark = pytest.mark.clock


def reading(sequence, started=1, sent_at_ms=0.0, node="S1", cpu=0.0):
    return pb.Status(node=node, sequence=sequence, started=started, sent_at_ms=sent_at_ms, cpu=cpu)


def known(table):
    status = table.state().statuses[0]
    return status.started, status.sequence


def test_a_clock_that_is_set_back_hides_nothing():
    table = FleetTable(["S1"], "edge", "cloud")
    hour_ms = 3.6e6
    for sequence in range(1, 601):
        table.update(reading(sequence, sent_at_ms=sequence - (hour_ms if sequence > 9 else 0.0)))
        assert known(table) == (1, sequence)
        assert 0.0 <= table.state().ages_ms[0] < 60000.0


def test_a_clock_that_is_ahead_hides_nothing_either():
    table = FleetTable(["S1"], "edge", "cloud")
    table.update(reading(1, sent_at_ms=1e15))
    table.update(reading(2, sent_at_ms=0.0))
    assert known(table) == (1, 2)


def test_what_was_overtaken_is_old_and_a_node_that_starts_again_is_heard_at_once():
    table = FleetTable(["S1"], "edge", "cloud")
    for sequence, started, expected in (
        (5, 1, (1, 5)),
        (4, 1, (1, 5)),
        (5, 1, (1, 5)),
        (1, 2, (2, 1)),  # it starts again
        (5, 1, (2, 1)),  # what was still under way
        (2, 2, (2, 2)),
    ):
        table.update(reading(sequence, started))
        assert known(table) == expected


def test_unknown_nodes_and_many_lives_take_no_memory():
    table = FleetTable(["S1"], "edge", "cloud")
    for number in range(10_000):
        table.update(reading(1, number, node=f"stranger-{number}"))
        table.update(reading(1, number))
    assert list(table._latest) == ["S1", "edge", "cloud"]
    assert len(table._latest["S1"]) == LIVES_KEPT


@given(st.permutations(range(12)), st.integers(0, 3), st.lists(st.floats(-1e13, 1e13), min_size=12, max_size=12))
def test_readings_are_ordered_as_they_were_made(order, delay, clocks):
    """Twelve readings of three lives, each at most `delay` places late: the last one made is known in the end."""
    arrivals = sorted(range(12), key=lambda index: (index + min(order[index], delay), index))
    table, seen = FleetTable(["S1"], "edge", "cloud"), collections.defaultdict(int)
    for index in arrivals:
        started, sequence = index // 4, index % 4 + 1
        table.update(reading(sequence, started, clocks[index]))
        seen[started] = max(seen[started], sequence)
        life, number = known(table)
        assert number == seen[life]  # never an older one of the same life
    assert known(table)[0] == 2 or delay > 0
    assert seen == {0: 4, 1: 4, 2: 4}
