"""The edge: between the devices and the cloud. Passes requests, decisions and reports on; computes what it is given."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import Message

from edge_cloud import messages_pb2 as pb
from edge_cloud.monitor import Delay
from edge_cloud.rpc import Call, CallError, Peer, Refused
from edge_cloud.service import acknowledged, classify
from edge_cloud.slots import Slots


class DelayBook:
    """Delays of the nodes below, by what they send."""

    def __init__(self) -> None:
        self._delays: dict[str, Delay] = defaultdict(Delay)
        self._lock = threading.Lock()

    def stamp(self, status: pb.Status, sender: str) -> None:
        """Fills in a status's delay, if it comes from its own node and not passed on by another."""
        if status.node == sender:
            with self._lock:
                status.delay_ms = self._delays[sender].add(status.sent_at_ms)


class EdgeRouter:
    """Serves the edge's methods.

    Args:
      name: the edge's.
      slots: where it computes.
      cloud: the cloud node.
      status: reads the edge's monitor.
      hear: told of each acknowledgement of the cloud.
    """

    def __init__(
        self,
        name: str,
        slots: Slots,
        cloud: Peer,
        status: Callable[[], pb.Status],
        hear: Callable[[pb.Ack], None],
    ) -> None:
        self._name, self._slots, self._cloud = name, slots, cloud
        self._status, self._hear = status, hear
        self._delays = DelayBook()

    def decide(self, request: pb.DecideRequest, call: Call) -> Message:
        """Steps 2 to 4: passes a request on and the decision back."""
        _check_sender(request.device, call)
        return self._pass("Decide", request, call)

    def classify(self, request: pb.ClassifyRequest, call: Call) -> Message:
        """Computes here, or passes the input on to the cloud."""
        if request.where == "cloud":
            return self._pass("Classify", request, call)
        return classify(self._slots, self._name, request, call.remaining_s)

    def tell(self, report: pb.Report, call: Call) -> Message:
        """Step 5: passes a report on, with the edge's own state."""
        _check_sender(report.device, call)
        for status in report.statuses:
            self._delays.stamp(status, call.caller)
        report.statuses.append(self._status())
        self._hear(self._pass("Tell", report, call))
        return acknowledged()

    def broadcast(self, statuses: pb.StatusList, call: Call) -> Message:
        """Passes a device's state on to the cloud."""
        for status in statuses.statuses:
            self._delays.stamp(status, call.caller)
        self._hear(self._pass("Broadcast", statuses, call))
        return acknowledged()

    def _pass(self, method: str, request: Any, call: Call) -> Any:
        try:
            return self._cloud.call(method, request, call.remaining_s)
        except CallError as error:
            code = getattr(grpc.StatusCode, error.code, grpc.StatusCode.UNAVAILABLE)
            raise Refused(code, str(error)) from error


def _check_sender(device: str, call: Call) -> None:
    """A device speaks for itself only."""
    if device != call.caller:
        expected = f"the caller's own name, {call.caller!r}"
        raise Refused(grpc.StatusCode.PERMISSION_DENIED, f"device: expected {expected}, found {device[:40]!r}")
