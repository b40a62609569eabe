"""Leases, schedules and kept reports, each alone; tests/edge_cloud/test_own_requests.py has them on real nodes."""

from __future__ import annotations

import itertools
import math
import re
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_cloud import messages_pb2 as pb
from edge_cloud import schedule
from edge_cloud.collecting import MOST_KEPT, Collection
from edge_cloud.leases import Asking, OwnLease, StandingTable, checked
from edge_cloud.rpc import MOST_BYTES, Refused
from tests.helpers.fleets import CLOUD, EDGE


def standing(number=1, session=7, valid_ms=60000.0, choices=(0, 0)):
    return pb.Standing(session=session, number=number, choices=choices, fallbacks=[0] * len(choices), valid_ms=valid_ms)


# -- Schedules ---------------------------------------------------------------------------------------------------------


def first(traffic, count):
    return np.array(list(itertools.islice(schedule.times_ms(traffic), count)))


def test_gaps_have_the_mean_and_the_variation_that_are_asked_for():
    clock = first(pb.Traffic(kind="periodic", interval_ms=50.0, phase_ms=20.0), 5)
    assert clock.tolist() == [20.0, 70.0, 120.0, 170.0, 220.0]
    late = first(pb.Traffic(kind="periodic", interval_ms=50.0, jitter_ms=10.0, seed=3), 4000) - 50.0 * np.arange(4000)
    assert late.min() >= 0.0
    assert late.max() < 10.0
    assert late.mean() == pytest.approx(5.0, abs=0.2)
    for kind, burstiness in (("poisson", 1.0), ("gamma", 0.3), ("gamma", 3.0)):
        traffic = pb.Traffic(kind=kind, interval_ms=100.0, burstiness=burstiness, seed=1)
        gaps = np.diff(first(traffic, 40_000))
        assert gaps.mean() == pytest.approx(100.0, rel=0.05)
        assert gaps.std() / gaps.mean() == pytest.approx(burstiness, rel=0.07)


def test_a_trace_is_replayed_exactly_and_again():
    traffic = pb.Traffic(kind="trace", stamps_ms=[0.0, 1.5, 1.5, 90.25], length_ms=100.0)
    assert first(traffic, 6).tolist() == [0.0, 1.5, 1.5, 90.25, 100.0, 101.5]
    assert list(schedule.times_ms(pb.Traffic())) == []


@given(
    st.sampled_from(["", "periodic", "poisson", "gamma", "trace", "other", "%s{0}"]),
    st.lists(st.floats(), max_size=4),
    *[st.one_of(st.floats(), st.floats(0.0, 100.0)) for _ in range(6)],
)
def test_traffic_is_refused_in_one_line_or_can_be_made(kind, stamps, interval, jitter, phase, burst, length, patience):
    traffic = pb.Traffic(
        kind=kind, stamps_ms=stamps, interval_ms=interval, jitter_ms=jitter, phase_ms=phase, burstiness=burst
    )
    traffic.length_ms, traffic.patience_ms = length, patience
    refusal = None
    try:
        schedule.check(traffic)
    except Refused as refused:
        refusal = refused.detail
    if refusal is not None:
        assert re.fullmatch(r"traffic\.\w+: expected .+, found .*", refusal)
        return
    times = first(traffic, 50)
    assert np.isfinite(times).all()
    if kind != "periodic" or not jitter:
        assert (np.diff(times) >= 0.0).all()


# -- Leases ------------------------------------------------------------------------------------------------------------


@pytest.mark.clock
def test_a_later_decision_stands_and_an_earlier_one_is_news_to_nobody():
    table = StandingTable()
    assert table.get().number == 0
    assert table.set(standing(2))
    assert not table.set(standing(1))
    assert table.get().number == 2
    assert table.set(standing(1, session=8))  # another operator's
    assert table.after(7, 2, 0.0).session == 8
    began = time.monotonic()
    assert table.after(8, 1, 0.15).number == 1
    assert time.monotonic() - began >= 0.15


@pytest.mark.clock
def test_who_asks_a_node_that_knows_of_no_decision_waits():
    began = time.monotonic()
    assert StandingTable().after(7, 2, 0.15).number == 0
    assert time.monotonic() - began >= 0.15
    asked = []
    asking = Asking(lambda wait_s: bool(asked.append(wait_s)), "test")  # answered at once, and nothing new
    time.sleep(0.5)
    asking.close()
    assert 1 <= len(asked) <= 8


@pytest.mark.clock
def test_validity_is_what_is_left_of_it():
    table = StandingTable()
    table.set(standing(valid_ms=300.0))
    time.sleep(0.1)
    assert 0.0 < table.get().valid_ms <= 200.0
    time.sleep(0.25)
    assert table.get().valid_ms == 0.0


@pytest.mark.clock
def test_a_device_falls_back_on_its_own_when_a_lease_is_over():
    lease = OwnLease()
    assert lease.choice() == 0
    assert not lease.set(pb.Lease())  # nobody has decided anything
    assert lease.set(pb.Lease(session=1, number=5, choice=EDGE, fallback=3, valid_ms=100.0))
    assert lease.choice() == EDGE
    time.sleep(0.15)
    assert lease.choice() == 3
    assert not lease.set(pb.Lease(session=1, number=5, choice=EDGE, fallback=3, valid_ms=1000.0))  # goes on
    assert lease.choice() == EDGE
    assert not lease.set(pb.Lease(session=1, number=4, choice=1, valid_ms=1000.0))
    assert lease.choice() == EDGE


@pytest.mark.parametrize(
    "wrong",
    [
        standing(0),
        standing(choices=(0,)),
        standing(choices=(0, 10)),
        standing(choices=(-1, 0)),
        standing(valid_ms=0.0),
        standing(valid_ms=math.nan),
        standing(valid_ms=math.inf),
        pb.Standing(session=1, number=1, choices=[0, 0], fallbacks=[0, EDGE], valid_ms=1.0),
    ],
)
def test_a_decision_that_cannot_be_followed_is_refused(wrong):
    with pytest.raises(Refused, match="expected"):
        checked(wrong, 2, 8)
    checked(standing(choices=(CLOUD, 0)), 2, 8)


# -- Reports -----------------------------------------------------------------------------------------------------------


def test_reports_are_kept_once_until_they_are_taken():
    kept = Collection(["S1", "S2"])
    one, other = (pb.RequestsReport(device="S1", started=9, sequence=number) for number in (1, 2))
    for report in (one, one, other, pb.RequestsReport(device="stranger", sequence=1)):
        kept.add(report)
    assert kept.take([], 0.0) == [one, other]
    assert kept.take([], 0.0) == [one, other]  # the answer may have been lost
    assert kept.take([pb.ReportMark(device="S1", started=9, sequence=1)], 0.0) == [other]
    assert kept.take([pb.ReportMark(device="S1", started=9, sequence=1)], 0.0) == [other]
    assert kept.take([pb.ReportMark(device="S1", started=9, sequence=2)], 0.0) == []


def test_an_answer_never_holds_more_than_a_message_may():
    kept = Collection(["S1"])
    done = [pb.Done(made_ms=1.0, response_ms=2.0, lost="x" * 200)] * 500
    for sequence in range(2 * MOST_KEPT):
        kept.add(pb.RequestsReport(device="S1", started=1, sequence=sequence, done=done))
    found = kept.take([], 0.0)
    assert found[0].sequence == MOST_KEPT
    assert 0 < pb.Collected(reports=found).ByteSize() <= MOST_BYTES
