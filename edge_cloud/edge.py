"""The edge: between the devices and the cloud. Passes requests, decisions and reports on; computes what it is given."""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import grpc
from google.protobuf.message import Message

from edge_cloud import messages_pb2 as pb
from edge_cloud.leases import LONGEST_MS, Asking, StandingTable, waiting_s
from edge_cloud.monitor import Delay
from edge_cloud.rpc import Call, CallError, Peer, Refused
from edge_cloud.service import acknowledged, classify
from edge_cloud.slots import Slots

STEPS_KEPT = 16  # whose decisions are remembered
PASS_S = 2.0  # for an answer of the cloud

Tell = Callable[[str, Message, float], Any]  # method, message, seconds to wait for the answer


class DelayBook:
    """Delays of the nodes below, by what they send."""

    def __init__(self) -> None:
        self._delays: dict[str, Delay] = defaultdict(Delay)
        self._lock = threading.Lock()

    def stamp(self, status: pb.Status, sender: str) -> None:
        """Fills in a status's delay, if it comes from its own node and not passed on by another."""
        if status.node == sender:
            with self._lock:
                status.delay_ms = self._delays[sender].add(status.sent_at_ms, status.round_trip_ms)


class _Asked:
    """A step's joint decision that one request is asking the cloud for, and others wait for."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.decision: pb.Decision | None = None
        self.error: Refused | None = None


class Decisions:
    """Asks the cloud for each step's joint decision once, whoever of the devices asks first.

    Args:
      ask: passes a request on to the cloud.
      devices: their names, in the inventory's order.
    """

    def __init__(self, ask: Callable[[pb.DecideRequest, Call], pb.Decision], devices: Sequence[str]) -> None:
        self._ask, self._devices = ask, tuple(devices)
        self._steps: OrderedDict[int, _Asked] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, request: pb.DecideRequest, call: Call) -> pb.Decision:
        """One device's part of the decision.

        Raises:
          Refused: if the cloud doesn't give it in time. The next request asks again.
        """
        if request.device not in self._devices:
            known, found = ", ".join(self._devices), f"{request.device[:40]!r}"
            raise Refused(grpc.StatusCode.NOT_FOUND, f"device: expected one of {known}, found {found}")
        with self._lock:
            asked = self._steps.get(request.step)
            first = asked is None
            if asked is None:
                asked = self._steps[request.step] = _Asked()
                while len(self._steps) > STEPS_KEPT:
                    self._steps.popitem(last=False)
        if first:
            self._fill(asked, request, call)
        elif not asked.done.wait(call.remaining_s):
            raise Refused(grpc.StatusCode.DEADLINE_EXCEEDED, f"decision: expected one for step {request.step} in time")
        if asked.decision is None:
            raise asked.error or Refused(grpc.StatusCode.UNAVAILABLE, "decision: expected one, found none")
        choice = asked.decision.joint[self._devices.index(request.device)]
        return pb.Decision(step=request.step, choice=choice)

    def _fill(self, asked: _Asked, request: pb.DecideRequest, call: Call) -> None:
        try:
            decision = self._ask(request, call)
            if decision.step != request.step or len(decision.joint) != len(self._devices):
                expected = f"{len(self._devices)} choices for step {request.step}"
                found = f"{len(decision.joint)} for step {decision.step}"
                raise Refused(grpc.StatusCode.UNAVAILABLE, f"decision: expected {expected}, found {found}")
            asked.decision = decision
        except Refused as error:
            asked.error = error
        finally:
            if asked.decision is None:
                with self._lock:
                    self._steps.pop(request.step, None)
            asked.done.set()


class EdgeRouter:
    """Serves the edge's methods.

    Args:
      name: the edge's.
      devices: the devices' names, in the inventory's order.
      slots: where it computes.
      cloud: the cloud node.
      status: reads the edge's monitor.
      tell: tells the cloud something, and takes in what its answer shows of the link.
    """

    def __init__(
        self,
        name: str,
        devices: Sequence[str],
        slots: Slots,
        cloud: Peer,
        status: Callable[[], pb.Status],
        tell: Tell,
    ) -> None:
        self._name, self._slots, self._cloud = name, slots, cloud
        self._status, self._tell = status, tell
        self._delays = DelayBook()
        self._decisions = Decisions(lambda request, call: self._pass("Decide", request, call), devices)
        self._devices, self._standing = tuple(devices), StandingTable()
        self._asking = Asking(self._ask, "standing")

    def close(self) -> None:
        """Asks no more."""
        self._asking.close()

    def decide(self, request: pb.DecideRequest, call: Call) -> Message:
        """Steps 2 to 4: passes a step's first request on, and every device's part of the decision back."""
        return self._decisions.of(request, call)

    def _ask(self, wait_s: float) -> bool:
        known = self._standing.get()
        question = pb.StandingRequest(session=known.session, number=known.number, wait_ms=1000.0 * wait_s)
        standing: pb.Standing = self._cloud.call("GetStanding", question, wait_s + PASS_S)
        if not standing.number:
            return False  # a cloud that came back knows of none: what stands here does so until it is over
        sizes = (len(standing.choices), len(standing.fallbacks))
        if sizes != (len(self._devices),) * 2 or not 0.0 <= standing.valid_ms <= LONGEST_MS:
            found = f"{sizes[0]} choices, {sizes[1]} fallbacks, {standing.valid_ms:g} ms"
            expected = f"{len(self._devices)} of each, for up to {LONGEST_MS:g} ms"
            raise CallError(self._cloud.name, "GetStanding", "INVALID_REPLY", f"expected {expected}, found {found}")
        self._standing.set(standing)
        return (standing.session, standing.number) != (known.session, known.number)

    def get_lease(self, request: pb.LeaseRequest, call: Call) -> Message:
        """What one device is to do, once that is another than it knows, or it has waited long enough."""
        wait_s = waiting_s(request.wait_ms, call.remaining_s)
        standing = self._standing.after(request.session, request.number, wait_s)
        if not standing.number:
            return pb.Lease()
        index = self._devices.index(request.device)
        return pb.Lease(
            session=standing.session,
            number=standing.number,
            choice=standing.choices[index],
            fallback=standing.fallbacks[index],
            valid_ms=standing.valid_ms,
        )

    def tell_requests(self, report: pb.RequestsReport, call: Call) -> Message:
        """Passes a device's report on."""
        self._pass("TellRequests", report, call, self._tell)
        return acknowledged(call)

    def classify(self, request: pb.ClassifyRequest, call: Call) -> Message:
        """Computes here, or passes the input on to the cloud."""
        if request.where == "cloud":
            passed: Message = self._pass("Classify", request, call)
            return passed
        return classify(self._slots, self._name, request, call.remaining_s)

    def tell(self, report: pb.Report, call: Call) -> Message:
        """Step 5: passes a report on, with the edge's own state."""
        for status in report.statuses:
            self._delays.stamp(status, call.caller)
        report.statuses.append(self._status())
        self._pass("Tell", report, call, self._tell)
        return acknowledged(call)

    def broadcast(self, statuses: pb.StatusList, call: Call) -> Message:
        """Passes a device's state on to the cloud."""
        for status in statuses.statuses:
            self._delays.stamp(status, call.caller)
        self._pass("Broadcast", statuses, call, self._tell)
        return acknowledged(call)

    def _pass(self, method: str, request: Message, call: Call, send: Tell | None = None) -> Any:
        try:
            return (send or self._cloud.call)(method, request, call.remaining_s)
        except CallError as error:
            code = getattr(grpc.StatusCode, error.code, grpc.StatusCode.UNAVAILABLE)
            raise Refused(code, str(error)) from error
