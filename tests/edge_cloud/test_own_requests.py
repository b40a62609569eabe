"""Devices that make requests of their own, on real nodes in one process: what they do, and what they tell of it."""

from __future__ import annotations

import time

import numpy as np
import pytest

from edge_cloud import messages_pb2 as pb
from tests.helpers import fleets
from tests.helpers.fleets import EDGE, wait_for

pytestmark = pytest.mark.clock

PERIODIC = pb.Traffic(kind="periodic", interval_ms=50.0)


@pytest.fixture(scope="module")
def running(model_dir, certificates):
    inventory = fleets.inventory(model_dir, certificates, devices=2, scale=2.0)
    with fleets.running(inventory) as (fleet, nodes):
        yield fleet, nodes


def told(fleet, choices, seconds=0.6):
    """One period: what each device tells of it."""
    number = fleet.stand(choices, [0, 0], 30.0)
    time.sleep(seconds)
    fleet.stand(choices, [0, 0], 30.0)
    return fleet.collect(number, 10.0)


def test_devices_ask_at_their_own_times_and_do_what_stands(running):
    fleet, _ = running
    fleet.set_traffic({"S1": PERIODIC, "S2": pb.Traffic(kind="poisson", interval_ms=40.0, seed=5)})
    told(fleet, [7, 7], 0.2)
    found = told(fleet, [6, EDGE])
    for name, choice, compute_ms in (("S1", 6, 8.0), ("S2", EDGE, 20.0)):
        reports = found[name].reports
        assert found[name].closed
        assert not found[name].missing
        done = [one for report in reports for one in report.done if one.choice == choice]
        assert len(done) >= 4
        assert all(not one.lost for one in done)
        assert all(one.compute_ms >= compute_ms for one in done)
        assert all(one.response_ms >= one.compute_ms + one.queue_ms for one in done)
    made = [at_ms for report in found["S1"].reports for at_ms in report.made_ms]
    assert np.mean(np.diff(made)) == pytest.approx(50.0, rel=0.2)  # a machine that is busy may be late with one
    # Nobody tells anything twice.
    again = told(fleet, [6, EDGE])["S1"].reports
    assert not {at_ms for report in again for at_ms in report.made_ms} & set(made)


def test_a_lease_outlives_nobody(running):
    """Without an operator a device does what it was told until that is over, and then its fallback."""
    fleet, _ = running
    fleet.set_traffic({"S1": PERIODIC, "S2": pb.Traffic()})
    told(fleet, [7, 7], 0.5)  # what was before is told
    number = fleet.stand([EDGE, 7], [5, 7], 0.8)
    time.sleep(2.5)
    fleet.stand([7, 7], [7, 7], 30.0)
    reports = fleet.collect(number, 10.0)["S1"].reports
    mine = [report for report in reports if report.number == number]
    done = sorted((one for report in mine for one in report.done), key=lambda one: one.made_ms)
    choices = [one.choice for one in done]
    since = choices[choices.index(EDGE) :]
    assert set(since) == {EDGE, 5}
    assert since == sorted(since, reverse=True)  # the edge first, the fallback from then on


def test_a_task_that_waits_longer_than_its_patience_is_given_up(running):
    fleet, _ = running
    fleet.set_traffic({"S1": pb.Traffic(kind="periodic", interval_ms=5.0, patience_ms=30.0), "S2": pb.Traffic()})
    told(fleet, [0, 7], 0.5)  # 20 ms each
    done = [one for report in told(fleet, [0, 7], 0.5)["S1"].reports for one in report.done]
    assert any(one.lost for one in done)
    assert all(one.queue_ms <= 40.0 for one in done if not one.lost)
    assert fleet.quieten() == []
    wait_for(lambda: not [one for report in told(fleet, [7, 7], 0.2)["S1"].reports for one in report.made_ms])


def test_a_device_that_takes_no_order_to_be_quiet_is_named(model_dir, certificates):
    with fleets.running(fleets.inventory(model_dir, certificates, devices=2, scale=2.0)) as (fleet, nodes):
        nodes["S2"].close()
        assert fleet.quieten() == ["S2"]
