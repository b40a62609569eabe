"""The Intelligent Orchestrator, hosted at the cloud: keeps the fleet's state and answers where requests are computed.

Which joint decision is taken is up to a policy that is plugged in. `PlannedPolicy` takes the decisions of whoever
drives the fleet from outside, a learning agent for example; `FixedPolicy` always takes the same.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol

import grpc
from google.protobuf.message import Message

from edge_cloud import messages_pb2 as pb
from edge_cloud import monitor
from edge_cloud.collecting import Collection
from edge_cloud.edge import DelayBook
from edge_cloud.leases import StandingTable, checked, waiting_s
from edge_cloud.rpc import Call, Refused
from edge_cloud.service import acknowledged, classify
from edge_cloud.slots import Slots

PLANS_KEPT = 16
LIVES_KEPT = 8  # of a node: what is still under way when it starts again is known to be old
LONGEST_HOLD_MS = 60000.0


class Policy(Protocol):
    """Decides for the whole fleet at once."""

    def decide(self, step: int, levels: Callable[[], Sequence[int]], timeout_s: float) -> Sequence[int]:
        """The joint decision [N] of a step, each 0..l+1. `levels` reads the state (Table II, [3N + 6]).

        Raises:
          TimeoutError: if there is none within `timeout_s`.
        """
        ...


class FixedPolicy:
    """Always the same joint decision [N]."""

    def __init__(self, choices: Sequence[int]) -> None:
        self._choices = tuple(choices)

    def decide(self, step: int, levels: Callable[[], Sequence[int]], timeout_s: float) -> Sequence[int]:
        return self._choices


class PlannedPolicy:
    """Decisions that are set from outside, step by step; a request that comes first waits for its step's."""

    def __init__(self) -> None:
        self._plans: OrderedDict[int, tuple[int, ...]] = OrderedDict()
        self._changed = threading.Condition()

    def set(self, step: int, choices: Sequence[int]) -> None:
        """Plans a step; the oldest plans are forgotten."""
        with self._changed:
            self._plans[step] = tuple(choices)
            while len(self._plans) > PLANS_KEPT:
                self._plans.popitem(last=False)
            self._changed.notify_all()

    def decide(self, step: int, levels: Callable[[], Sequence[int]], timeout_s: float) -> Sequence[int]:
        with self._changed:
            if not self._changed.wait_for(lambda: step in self._plans, timeout_s):
                raise TimeoutError(f"plan: expected one for step {step} within {1000 * timeout_s:.0f} ms")
            return self._plans[step]


class Helm:
    """Who drives the fleet: one operator at a time, who holds it for a while and says so again before that is over."""

    def __init__(self) -> None:
        self._session, self._name, self._until = 0, "", 0.0
        self._lock = threading.Lock()

    def take(self, request: pb.Operator) -> None:
        """Gives the fleet to an operator, or lets it go (a hold of 0 ms).

        Raises:
          Refused: if another holds it.
        """
        if not request.session or not 0.0 <= request.hold_ms <= LONGEST_HOLD_MS:
            found = f"session {request.session}, {request.hold_ms:g} ms"
            expected = f"a session other than 0, and a hold in [0, {LONGEST_HOLD_MS:g}] ms"
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"operator: expected {expected}, found {found}")
        with self._lock:
            self._check(request.session)
            self._session, self._name = request.session, request.name[:200]
            self._until = time.monotonic() + request.hold_ms / 1000.0

    def check(self, session: int) -> None:
        """Passes who holds the fleet, and anyone while nobody does: a cloud that comes back knows of no hold.

        Raises:
          Refused: if another does.
        """
        with self._lock:
            self._check(session)

    def _check(self, session: int) -> None:
        if session != self._session and (left := self._until - time.monotonic()) > 0.0:
            found = f"it driven by {self._name!r} (for {left:.1f} s more at least)"
            raise Refused(grpc.StatusCode.ALREADY_EXISTS, f"fleet: expected no other operator, found {found}")


class FleetTable:
    """The latest state of every node, and each device's latest report.

    A node's readings are ordered by their numbers within one of its lives; the life heard of last is the present one.
    No clock says which came first: a device's may be set back at any time.
    """

    def __init__(self, devices: Sequence[str], edge: str, cloud: str) -> None:
        self.devices, self.edge, self.cloud = tuple(devices), edge, cloud
        self._statuses: dict[str, tuple[float, pb.Status]] = {}
        self._latest: dict[str, OrderedDict[int, int]] = {name: OrderedDict() for name in (*self.devices, edge, cloud)}
        self._reports: dict[str, pb.Report] = {}
        self._lock = threading.Lock()

    def update(self, status: pb.Status) -> None:
        """Takes a status in, unless it is of no known node, or was overtaken by a later one of the same life."""
        if status.node not in self._latest:
            return
        with self._lock:
            lives = self._latest[status.node]
            if status.sequence <= lives.get(status.started, -1):
                return
            lives[status.started] = status.sequence
            lives.move_to_end(status.started)
            while len(lives) > LIVES_KEPT:
                lives.popitem(last=False)
            kept = pb.Status()
            kept.CopyFrom(status)
            self._statuses[status.node] = (time.monotonic(), kept)

    def report(self, report: pb.Report) -> None:
        """Keeps a device's report."""
        with self._lock:
            self._reports[report.device] = report

    def state(self) -> pb.FleetState:
        """Table II's levels, statuses with their ages (-1: never heard of), and reports."""
        with self._lock:
            statuses, reports = dict(self._statuses), dict(self._reports)
        now, unknown = time.monotonic(), (-1.0, pb.Status())
        names = (*self.devices, self.edge, self.cloud)
        readings = [statuses.get(name, unknown) for name in names]
        found = [status for _, status in readings]
        count = len(self.devices)
        devices, tiers = found[:count], found[count:]
        # Nobody stands above the cloud: what its messages take is seen by the edge.
        tier_delays = (tiers[0].delay_ms, tiers[0].upper_delay_ms)
        levels = [
            *(monitor.is_busy(status.cpu) for status in devices),
            *(monitor.is_memory_busy(status.memory) for status in devices),
            *(monitor.is_weak(status.delay_ms) for status in devices),
            *(monitor.cpu_level(status.cpu) for status in tiers),
            *(monitor.is_memory_busy(status.memory) for status in tiers),
            *(monitor.is_weak(delay) for delay in tier_delays),
        ]
        ages = [1000.0 * (now - heard) if heard >= 0.0 else -1.0 for heard, _ in readings]
        return pb.FleetState(levels=levels, statuses=found, ages_ms=ages, reports=list(reports.values()))


class Orchestrator:
    """Serves the cloud's methods.

    Args:
      table: the fleet's state.
      choices: l + 2, the number of choices per device.
      slots: where the cloud computes.
      status: reads the cloud's monitor.
      policy: decides; by default what `SetPlan` plans.
    """

    def __init__(
        self,
        table: FleetTable,
        choices: int,
        slots: Slots,
        status: Callable[[], pb.Status],
        policy: Policy | None = None,
    ) -> None:
        self._table, self._choices, self._slots, self._status = table, choices, slots, status
        self._policy: Policy = policy or PlannedPolicy()
        self._delays = DelayBook()
        self._helm = Helm()
        self._standing, self._collection = StandingTable(), Collection(table.devices)

    def decide(self, request: pb.DecideRequest, call: Call) -> Message:
        """Steps 3 and 4: where the request of one device is computed."""
        if request.device not in self._table.devices:
            known = ", ".join(self._table.devices)
            found = f"{request.device[:40]!r}"
            raise Refused(grpc.StatusCode.NOT_FOUND, f"device: expected one of {known}, found {found}")
        try:
            joint = self._policy.decide(request.step, lambda: self._table.state().levels, call.remaining_s)
        except TimeoutError as error:
            raise Refused(grpc.StatusCode.DEADLINE_EXCEEDED, str(error)) from error
        choice = joint[self._table.devices.index(request.device)]
        return pb.Decision(step=request.step, choice=choice, joint=joint)

    def classify(self, request: pb.ClassifyRequest, call: Call) -> Message:
        """Computes here."""
        return classify(self._slots, self._table.cloud, request, call.remaining_s)

    def tell(self, report: pb.Report, call: Call) -> Message:
        """Step 5: keeps a report and the states that came with it."""
        self._hear(report.statuses, call)
        del report.statuses[:]
        self._table.report(report)
        return acknowledged(call)

    def broadcast(self, statuses: pb.StatusList, call: Call) -> Message:
        """Keeps the states of nodes."""
        self._hear(statuses.statuses, call)
        return acknowledged(call)

    def set_operator(self, request: pb.Operator, call: Call) -> Message:
        """Lets one operator at a time drive the fleet."""
        self._helm.take(request)
        return acknowledged(call)

    def set_plan(self, plan: pb.Plan, call: Call) -> Message:
        """Takes the joint decision of a step from whoever drives the fleet."""
        self._helm.check(plan.session)
        count = len(self._table.devices)
        if not isinstance(self._policy, PlannedPolicy):
            raise Refused(grpc.StatusCode.FAILED_PRECONDITION, "plan: expected none, since a policy is plugged in")
        if len(plan.choices) != count or not all(0 <= choice < self._choices for choice in plan.choices):
            expected = f"{count} choices in 0..{self._choices - 1}"
            found = str(list(plan.choices))[:80]
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"plan: expected {expected}, found {found}")
        self._policy.set(plan.step, plan.choices)
        return acknowledged(call)

    def set_standing(self, standing: pb.Standing, call: Call) -> Message:
        """Takes what all devices are to do from now on from whoever drives the fleet."""
        self._helm.check(standing.session)
        checked(standing, len(self._table.devices), self._choices - 2)
        if not self._standing.set(standing):
            found = f"number {standing.number} after {self._standing.get().number}"
            raise Refused(grpc.StatusCode.FAILED_PRECONDITION, f"standing: expected a later decision, found {found}")
        return acknowledged(call)

    def get_standing(self, request: pb.StandingRequest, call: Call) -> Message:
        """What stands, once that is another than the edge knows, or it has waited long enough."""
        return self._standing.after(request.session, request.number, waiting_s(request.wait_ms, call.remaining_s))

    def tell_requests(self, report: pb.RequestsReport, call: Call) -> Message:
        """Keeps what a device tells of its requests."""
        self._collection.add(report)
        return acknowledged(call)

    def collect_requests(self, request: pb.CollectRequest, call: Call) -> Message:
        """Gives whoever drives the fleet what devices have told."""
        self._helm.check(request.session)
        return pb.Collected(reports=self._collection.take(request.marks, waiting_s(request.wait_ms, call.remaining_s)))

    def get_state(self, request: pb.StateRequest, call: Call) -> Message:
        """The fleet's state, the cloud's own read now."""
        self._table.update(self._status())
        return self._table.state()

    def _hear(self, statuses: Sequence[pb.Status], call: Call) -> None:
        for status in statuses:
            self._delays.stamp(status, call.caller)
            self._table.update(status)
