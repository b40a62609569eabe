"""The edge asks the cloud once a step, whoever of the devices comes first; what becomes of a decision that fails."""

from __future__ import annotations

import concurrent.futures
import threading

import grpc
import pytest

from edge_cloud import messages_pb2 as pb
from edge_cloud.edge import STEPS_KEPT, Decisions
from edge_cloud.rpc import Refused
from tests.helpers.fleets import wait_for

pytestmark = pytest.mark.clock

DEVICES = ("S1", "S2", "S3")


class Waiting:
    """A call with so many seconds left."""

    def __init__(self, remaining_s: float = 20.0) -> None:
        self.remaining_s = remaining_s


def request(device: str, step: int = 1) -> pb.DecideRequest:
    return pb.DecideRequest(step=step, device=device)


def test_one_question_serves_all_devices_that_wait():
    asked, go = [], threading.Event()

    def ask(one, call):
        asked.append(one.device)
        assert go.wait(20.0)
        return pb.Decision(step=one.step, choice=9, joint=[5, 6, 7])

    decisions = Decisions(ask, DEVICES)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(decisions.of, request(device), Waiting()) for device in DEVICES]
        wait_for(lambda: asked)
        with pytest.raises(Refused, match="decision: expected one for step 1 in time"):
            decisions.of(request("S1"), Waiting(0.05))
        go.set()
        # Each gets its own part, and no other's.
        assert [answer.result(20.0) for answer in answers] == [pb.Decision(step=1, choice=c) for c in (5, 6, 7)]
    assert len(asked) == 1
    assert decisions.of(request("S2"), Waiting()).choice == 6
    assert len(asked) == 1


def test_a_failure_reaches_who_waited_and_the_next_one_asks_again():
    answers = [
        Refused(grpc.StatusCode.UNAVAILABLE, "no cloud"),
        pb.Decision(step=2, joint=[1, 2, 3]),  # of another step
        pb.Decision(step=1, joint=[1, 2]),  # of another fleet
        pb.Decision(step=1, joint=[1, 2, 3]),
    ]

    def ask(one, call):
        answer = answers.pop(0)
        if isinstance(answer, Refused):
            raise answer
        return answer

    decisions = Decisions(ask, DEVICES)
    with pytest.raises(Refused, match="no cloud"):
        decisions.of(request("S1"), Waiting())
    for found in ("3 for step 2", "2 for step 1"):
        with pytest.raises(Refused, match=f"decision: expected 3 choices for step 1, found {found}"):
            decisions.of(request("S1"), Waiting())
    assert decisions.of(request("S3"), Waiting()).choice == 3
    with pytest.raises(Refused, match="device: expected one of S1, S2, S3, found 'S9'"):
        decisions.of(request("S9"), Waiting())


def test_old_steps_are_forgotten():
    asked = []

    def ask(one, call):
        asked.append(one.step)
        return pb.Decision(step=one.step, joint=[0, 0, 0])

    decisions = Decisions(ask, DEVICES)
    for step in range(STEPS_KEPT + 1):
        decisions.of(request("S1", step), Waiting())
    decisions.of(request("S2", STEPS_KEPT), Waiting())
    assert asked == list(range(STEPS_KEPT + 1))
    decisions.of(request("S2", 0), Waiting())
    assert asked[-1] == 0
