"""Figure 1, steps 1 to 5, on real nodes in one process: who decides, who computes, what is told to whom."""

from __future__ import annotations

import pathlib
import time

import numpy as np
import pytest

from edge_cloud import hold
from edge_cloud import messages_pb2 as pb
from edge_cloud.client import Fleet
from edge_cloud.hold import Occupied
from edge_cloud.orchestrator import FixedPolicy
from edge_cloud.rpc import CallError, Identity, Peer
from tests.helpers import fleets
from tests.helpers.fleets import CLOUD, CPU_MS, EDGE, wait_for

pytestmark = pytest.mark.clock

DEADLINE_S = 20.0


@pytest.fixture(scope="module")
def fleet(model_dir, certificates):
    inventory = fleets.inventory(model_dir, certificates, devices=2, scale=5.0)
    with fleets.running(inventory) as (fleet, _):
        yield fleet


def test_every_choice_is_carried_out(fleet):
    for choice in range(len(fleets.MODELS) + 2):
        outcomes = fleet.step([choice, choice], DEADLINE_S)
        assert [outcome.lost for outcome in outcomes] == ["", ""]
        model = fleets.MODELS[choice] if choice < EDGE else "d0"
        for outcome in outcomes:
            assert outcome.compute_ms >= 5.0 * CPU_MS[model]  # what the pacing makes of it, wherever it ran
            parts = outcome.decide_ms + outcome.queue_ms + outcome.compute_ms
            assert outcome.response_ms >= parts


def test_the_joint_decision_reaches_each_device(fleet):
    outcomes = fleet.step([7, EDGE], DEADLINE_S)
    assert [outcome.lost for outcome in outcomes] == ["", ""]
    reports = {report.device: report for report in fleet.state().reports}
    assert reports["S1"].choice == 7
    assert reports["S2"].choice == EDGE
    assert reports["S1"].response_ms == pytest.approx(outcomes[0].response_ms)
    assert reports["S2"].outcome == "ok"


def test_tasks_that_share_a_node_wait_for_its_cores(model_dir, certificates):
    inventory = fleets.inventory(model_dir, certificates, devices=3, scale=20.0)
    with fleets.running(inventory) as (fleet, _):
        fleet.step([7, 7, 7], DEADLINE_S)
        edge = sorted(outcome.queue_ms for outcome in fleet.step([EDGE] * 3, DEADLINE_S))
        cloud = sorted(outcome.queue_ms for outcome in fleet.step([CLOUD] * 3, DEADLINE_S))
    # 200 ms each: on two cores the third waits, on four nobody does.
    assert edge[1] < 100.0 < edge[2]
    assert cloud[2] < 100.0


def test_the_state_is_table_twos(fleet):
    state = fleet.state()
    assert len(state.levels) == 3 * 2 + 6
    assert [status.node for status in state.statuses] == ["S1", "S2", "edge", "cloud"]
    assert all(age >= 0.0 for age in state.ages_ms)
    assert list(state.levels[4:6]) == [0, 0]  # regular links


def test_a_background_load_is_seen_and_felt(fleet):
    alone = min(fleet.step([7, 7], DEADLINE_S)[0].compute_ms for _ in range(5))
    fleet.set_background("S1", 0.75)
    try:
        busy = min(fleet.step([7, 7], DEADLINE_S)[0].compute_ms for _ in range(5))
        levels = wait_for(lambda: levels if (levels := list(fleet.state().levels))[0] == 1 else None)
        assert levels[1] == 0
        fleet.set_background("edge", 0.5)
        wait_for(lambda: fleet.state().levels[6] >= 4)
    finally:
        fleet.set_background("S1", 0.0)
        fleet.set_background("edge", 0.0)
    assert alone < 4.0 * 5.0 * CPU_MS["d7"] <= busy  # a quarter of the core is left
    wait_for(lambda: fleet.state().levels[0] == 0)


def test_images_can_be_given(fleet):
    image = np.zeros((224, 224, 3), np.uint8)
    assert [outcome.lost for outcome in fleet.step([7, CLOUD], DEADLINE_S, [image, image])] == ["", ""]
    outcomes = fleet.step([7, CLOUD], DEADLINE_S, [image[:100], image])
    assert "image: expected 150528 bytes" in outcomes[0].lost
    assert outcomes[0].response_ms == 1000.0 * DEADLINE_S
    assert outcomes[1].lost == ""


def test_plans_that_are_none_are_refused(fleet):
    cloud = fleet._peers["cloud"]
    for choices in ([0], [0, 10], [0, -1], [0, 1, 2]):
        with pytest.raises(CallError, match=r"plan: expected 2 choices in 0\.\.9"):
            cloud.call("SetPlan", pb.Plan(step=1, choices=choices, session=fleet._hold.session), 5.0)


def peer_as(fleet, name, node):
    identity = Identity.read(pathlib.Path(fleet.inventory.certificates), name)
    return Peer(node, fleet.inventory.node(node).address, identity)


def test_a_device_speaks_for_itself_only(fleet):
    peer = peer_as(fleet, "S2", "edge")
    for method, request in (("Decide", pb.DecideRequest(device="S1")), ("Tell", pb.Report(device="S1"))):
        with pytest.raises(CallError, match=r"PERMISSION_DENIED: .*: expected 'S2' from 'S2', found 'S1'"):
            peer.call(method, request, 5.0)
    peer.close()


def test_orders_are_the_operators_only(fleet):
    peer = peer_as(fleet, "S2", "S1")
    with pytest.raises(CallError, match="SetBackground: expected operator as the caller, found device 'S2'"):
        peer.call("SetBackground", pb.Background(cpu=0.5), 5.0)
    peer.close()


def test_models_that_a_node_lacks_are_refused(fleet):
    peer = peer_as(fleet, "S1", "edge")
    with pytest.raises(CallError, match="NOT_FOUND: model: expected one of d0, found 'd7'"):
        peer.call("Classify", pb.ClassifyRequest(device="S1", model="d7", image=bytes(150528)), 5.0)
    peer.close()


def test_a_policy_plugged_into_the_cloud_decides(model_dir, certificates):
    inventory = fleets.inventory(model_dir, certificates, devices=2)
    with fleets.running(inventory, cloud=FixedPolicy([6, EDGE])) as (fleet, _):
        with pytest.raises(CallError, match="since a policy is plugged in"):
            fleet._peers["cloud"].call("SetPlan", pb.Plan(step=1, choices=[0, 0]), 5.0)
        devices = [fleet._peers[name].call("Infer", pb.InferRequest(step=9), DEADLINE_S) for name in ("S1", "S2")]
    assert [reply.report.choice for reply in devices] == [6, EDGE]
    assert [reply.report.outcome for reply in devices] == ["ok", "ok"]
    assert all(len(reply.classes) == 5 for reply in devices)


def test_weak_links_cost_each_outgoing_message(model_dir, certificates):
    def overhead(steps, device):
        return min(step[device].response_ms - step[device].queue_ms - step[device].compute_ms for step in steps)

    inventory = fleets.inventory(model_dir, certificates, devices=2, links=True, weak=("S1",), scale=2.0)
    with fleets.running(inventory) as (fleet, _):
        rows = [fleet.step([7, 7], DEADLINE_S) for _ in range(8)]
        while overhead(rows, 1) >= 20.0 and len(rows) < 60:  # the machine may be busy, but not always
            rows.append(fleet.step([7, 7], DEADLINE_S))
        offload = [fleet.step([EDGE, 7], DEADLINE_S) for _ in range(8)]
        levels = wait_for(lambda: levels if (levels := list(fleet.state().levels))[4] == 1 else None)
        assert levels[5] == 0
        fleet.set_link("edge", up_ms=20.0)  # S1's link stays as it is; the edge's own way up is weak now
        fleet.set_link("S2", up_ms=0.0, down_ms=20.0)
        wait_for(lambda: fleet.state().levels[-2] == 1)
        edge_weak = [fleet.step([7, 7], DEADLINE_S)[1].decide_ms for _ in range(8)]

    # Of a few steps the fastest, which other work on the machine can only make slower.
    assert overhead(rows, 1) < 20.0 <= overhead(rows, 0)  # the request for a decision
    assert overhead(offload, 0) >= 40.0  # and the input
    assert min(edge_weak) >= 40.0  # the request on to the cloud, the decision back to the device


def test_one_operator_drives_at_a_time(model_dir, certificates, monkeypatch):
    monkeypatch.setattr(hold, "HOLD_S", 1.0)
    monkeypatch.setattr(hold, "RENEW_S", 0.25)
    inventory = fleets.inventory(model_dir, certificates, devices=1, scale=1.0)
    with fleets.running(inventory) as (first, _), Fleet(inventory) as second:
        first.step([7], DEADLINE_S)
        time.sleep(1.5)  # longer than a hold: it is renewed
        for attempt in (lambda: second.step([6], DEADLINE_S), second.drive):
            with pytest.raises(Occupied, match=r"expected no other operator, found it driven by 'process \d+ on "):
                attempt()
        assert second.state().reports[0].choice == 7  # looking on is free
        first.step([5], DEADLINE_S)
        first._hold._stop.set()  # it dies: nobody says so
        started = time.monotonic()
        second.drive()
        assert time.monotonic() - started > 0.2
        with pytest.raises(Occupied):
            first.step([7], DEADLINE_S)
        assert second.step([6], DEADLINE_S)[0].lost == ""
        second.close()
        with Fleet(inventory) as third:  # which is let go at once
            assert third.step([4], DEADLINE_S)[0].lost == ""
