"""The operator's side: drives a running fleet from outside, as the adapter and the tests do.

One step: the joint decision is planned at the cloud, then every device is asked for one inference at once. Whatever
happens to a node, a step ends by its deadline; a request without a result is lost, and its reason is kept.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import pathlib
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grpc
import numpy as np

from edge_cloud import messages_pb2 as pb
from edge_cloud.hold import Hold, Occupied, occupied
from edge_cloud.inventory import LINK_CONTROL, OPERATOR, Inventory
from edge_cloud.rpc import CallError, Identity, Peer

ORDER_TIMEOUT_S = 2.0
LARGEST_MS = 1e12  # of a device's own clock
PLAN_S = 0.25


@dataclasses.dataclass(frozen=True)
class Told:
    """What a device has told of its own requests while one standing decision was in force."""

    reports: list[pb.RequestsReport] = dataclasses.field(default_factory=list)
    closed: bool = False  # nothing more comes of it
    missing: bool = False  # reports that nobody has got


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One device's request in one step; times in ms. A lost request has its step's deadline as response time."""

    device: str
    lost: str  # why; empty if it has a result
    response_ms: float
    gone: bool = False  # the device itself didn't answer, or no decision reached it
    decide_ms: float = 0.0
    queue_ms: float = 0.0
    compute_ms: float = 0.0


class Fleet:
    """A running fleet. Use as a context.

    Args:
      inventory: the fleet.
      timeout_s: how long an order may take.
      name: who drives it, for people; default this process and its machine.

    Raises:
      ValueError: if there is no operator's certificate that can be used.
    """

    def __init__(self, inventory: Inventory, timeout_s: float = ORDER_TIMEOUT_S, name: str = "") -> None:
        self.inventory, self._timeout_s = inventory, timeout_s
        identity = Identity.read(pathlib.Path(inventory.certificates), OPERATOR)
        self._peers = {node.name: Peer(node.name, node.address, identity) for node in inventory.nodes}
        if inventory.emulation and inventory.emulation.control:
            self._peers[LINK_CONTROL] = Peer(LINK_CONTROL, inventory.emulation.control, identity)
        # Steps of an earlier operator must not be mistaken for ours: numbers start anywhere.
        self._steps: Iterator[int] = itertools.count(secrets.randbits(62))
        name = name or f"process {os.getpid()} on {socket.gethostname()}"
        self._hold = Hold(self._peers[inventory.cloud.name], name)
        self._number = 0  # of the last standing decision
        self._marks: dict[str, tuple[int, int]] = {}  # by device, the last report that has come

    def drive(self) -> None:
        """Takes the fleet, and holds it until it is closed; the first step does so by itself.

        Raises:
          Occupied: if another operator drives it: who, is in the message.
          CallError: if the cloud doesn't answer.
        """
        self._hold.wait(self._timeout_s)

    def step(
        self, choices: Sequence[int], deadline_s: float, images: Sequence[np.ndarray] | None = None
    ) -> list[Outcome]:
        """One joint decision [N], carried out on each device's own image or on given ones ([224, 224, 3] uint8).

        Returns within `deadline_s`, with an outcome per device. The first step takes the fleet (`drive`).

        Raises:
          Occupied: if another operator drives the fleet.
        """
        ends = time.monotonic() + deadline_s
        if not self._hold.kept:
            self._taken(lambda: self._hold.take(min(PLAN_S, deadline_s / 4.0)))
        devices, step = self.inventory.devices, next(self._steps)
        plan = pb.Plan(step=step, choices=choices, session=self._hold.session)
        cloud = self._peers[self.inventory.cloud.name]
        planning = cloud.start("SetPlan", plan, deadline_s)
        with contextlib.suppress(grpc.FutureTimeoutError):
            # First, so that it takes no time from the requests.
            planning.exception(min(PLAN_S, deadline_s / 4.0))
            self._taken(lambda: cloud.answer("SetPlan", planning))
        contents = [image.tobytes() for image in images] if images is not None else [b""] * len(devices)
        calls = [
            self._peers[device.name].start("Infer", pb.InferRequest(step=step, image=content), ends - time.monotonic())
            for device, content in zip(devices, contents, strict=True)
        ]
        outcomes = []
        for device, choice, call in zip(devices, choices, calls, strict=True):
            outcomes.append(self._outcome(device.name, step, choice, call, 1000.0 * deadline_s))
        planning.cancel()  # it has long been answered, unless the cloud is lost
        return outcomes

    # -- Requests at their own times --------------------------------------------------------------------------------

    def set_traffic(self, traffic: Mapping[str, pb.Traffic]) -> None:
        """Has devices make requests of their own, by name.

        Raises:
          CallError: if one of them doesn't take the order.
        """
        calls = {name: self._peers[name].start("SetTraffic", one, self._timeout_s) for name, one in traffic.items()}
        for name, call in calls.items():
            self._peers[name].answer("SetTraffic", call)

    def stand(self, choices: Sequence[int], fallbacks: Sequence[int], valid_s: float) -> int:
        """Tells all devices what to do with their own requests from now on. Returns the decision's number.

        Raises:
          Occupied: if another operator drives the fleet.
          CallError: if the cloud doesn't take it.
        """
        if not self._hold.kept:
            self._hold.take(self._timeout_s)
        self._number += 1
        session, valid_ms = self._hold.session, 1000.0 * valid_s
        standing = pb.Standing(
            session=session, number=self._number, choices=choices, fallbacks=fallbacks, valid_ms=valid_ms
        )
        try:
            self._order(self.inventory.cloud.name, "SetStanding", standing)
        except CallError as error:
            raise occupied(error) from error
        return self._number

    def collect(self, number: int, timeout_s: float) -> dict[str, Told]:
        """What devices have told since the last time, up to the end of a standing decision of this number.

        Returns once every device has, or after `timeout_s`; who hasn't is not `closed`.
        """
        ends = time.monotonic() + timeout_s
        found = {device.name: Told() for device in self.inventory.devices}
        while not all(one.closed for one in found.values()) and (left := ends - time.monotonic()) > 0.0:
            marks = [
                pb.ReportMark(device=name, started=mark[0], sequence=mark[1]) for name, mark in self._marks.items()
            ]
            request = pb.CollectRequest(session=self._hold.session, marks=marks, wait_ms=1000.0 * left)
            try:
                reply = self._order(self.inventory.cloud.name, "CollectRequests", request, left + self._timeout_s)
            except CallError as error:
                if isinstance(error := occupied(error), Occupied):
                    raise error from None
                time.sleep(min(0.05, left))
                continue
            for report in reply.reports:
                if report.device in found:
                    found[report.device] = self._with(found[report.device], report, number)
        return found

    def quieten(self) -> list[str]:
        """Has all devices make no more requests of their own. Returns those that didn't take the order."""
        calls = {}
        for device in self.inventory.devices:
            calls[device.name] = self._peers[device.name].start("SetTraffic", pb.Traffic(), ORDER_TIMEOUT_S)
        missed = []
        for name, call in calls.items():
            try:
                self._peers[name].answer("SetTraffic", call)
            except CallError:
                missed.append(name)
        return missed

    def _with(self, told: Told, report: pb.RequestsReport, number: int) -> Told:
        before = self._marks.get(report.device)
        self._marks[report.device] = (report.started, report.sequence)
        if report.session != self._hold.session:  # of an earlier operator's decision, or of none
            return told
        gap = before is not None and before[0] == report.started and report.sequence != before[1] + 1
        if not all(0.0 <= value <= LARGEST_MS for value in (report.now_ms, *report.made_ms)):
            return dataclasses.replace(told, missing=True)  # garbage
        return Told(
            reports=[*told.reports, report],
            closed=told.closed or (report.closed and report.number >= number),
            missing=told.missing or gap,
        )

    def _taken(self, order: Callable[[], object]) -> None:
        try:
            order()
        except CallError as error:
            # If the cloud is lost, the requests will find out.
            if isinstance(error := occupied(error), Occupied):
                raise error from None

    def _outcome(self, device: str, step: int, choice: int, call: Any, deadline_ms: float) -> Outcome:
        try:
            report = self._peers[device].answer("Infer", call).report
        except CallError as error:
            return Outcome(device, str(error), deadline_ms, gone=True)
        lost = "" if report.outcome == "ok" else report.outcome or "no outcome"
        if not lost and (report.step, report.choice, report.device) != (step, choice, device):
            found = f"step {report.step}, choice {report.choice} of {report.device[:40]!r}"
            lost = f"Infer at {device}: expected step {step}, choice {choice}, found {found}"
        times = (report.response_ms, report.decide_ms, report.queue_ms, report.compute_ms)
        if not lost and not (all(np.isfinite(value) and value >= 0.0 for value in times) and report.response_ms > 0.0):
            lost = f"Infer at {device}: expected finite times, found {times}"
        response_ms = deadline_ms if lost else min(times[0], deadline_ms)
        # A device that was never told what to do says nothing of what it was to do.
        return Outcome(device, lost, response_ms, lost != "" and report.choice < 0, *times[1:])

    def state(self, timeout_s: float | None = None) -> pb.FleetState:
        """The fleet's state as the cloud knows it.

        Raises:
          CallError: if the cloud doesn't answer.
        """
        state: pb.FleetState = self._order(self.inventory.cloud.name, "GetState", pb.StateRequest(), timeout_s)
        return state

    def set_background(self, node: str, cpu: float, memory_mb: float = 0.0) -> None:
        """Puts a background load on a node.

        Raises:
          CallError: if the node doesn't take the order.
        """
        self._order(node, "SetBackground", pb.Background(cpu=cpu, memory_mb=memory_mb))

    def set_fault(self, node: str, kind: str, delay_ms: float = 0.0) -> None:
        """Makes a node misbehave (`late`, `garbage`) or behave again ("").

        Raises:
          CallError: if the node doesn't take the order.
        """
        self._order(node, "SetFault", pb.Fault(kind=kind, delay_ms=delay_ms))

    def set_link(self, node: str, up_ms: float = 0.0, down_ms: float = 0.0, cut: bool = False) -> None:
        """Delays or cuts the link above a node.

        Raises:
          CallError: if the links' process doesn't take the order.
        """
        self._order(LINK_CONTROL, "SetLink", pb.LinkSetting(link=node, up_ms=up_ms, down_ms=down_ms, cut=cut))

    def serving(self, timeout_s: float = 1.0) -> Mapping[str, bool]:
        """Whether each node says that it serves."""
        return {name: peer.is_serving(timeout_s) for name, peer in self._peers.items()}

    def wait_until_known(self, timeout_s: float) -> None:
        """Waits until the cloud has heard of every node lately.

        Raises:
          TimeoutError: names the nodes that it hasn't heard of.
        """
        ends = time.monotonic() + timeout_s
        names = [*(device.name for device in self.inventory.devices), self.inventory.edge.name]
        fresh_ms = 3.0 * self.inventory.monitor_period_ms
        missing, state = names, None
        while time.monotonic() < ends:
            with contextlib.suppress(CallError):
                state = self.state()
                # A state lists devices, edge, cloud, in this order.
                ages = list(state.ages_ms)[:-1]
                missing = [name for name, age in zip(names, ages, strict=True) if not 0.0 <= age <= fresh_ms]
                if not missing:
                    return
            time.sleep(0.02)
        found = "no answer" if state is None else f"no news of {', '.join(missing)}"
        cloud = self.inventory.cloud.name
        raise TimeoutError(f"fleet: expected news of every node at {cloud} within {timeout_s:g} s, found {found}")

    def _order(self, node: str, method: str, request: Any, timeout_s: float | None = None) -> Any:
        if node not in self._peers:
            raise CallError(node, method, "NOT_FOUND", f"expected one of {', '.join(self._peers)}")
        return self._peers[node].call(method, request, timeout_s or self._timeout_s)

    def close(self) -> None:
        """Lets the fleet go, and closes all connections."""
        self._hold.close()
        for peer in self._peers.values():
            peer.close()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
