"""A device that makes requests of its own: when they come, as its lease says, and what became of them.

Each request is carried out at once by what stands then; nothing is asked before. What was over goes into reports, one
for each standing decision at least, which are sent up until somebody has them: in order, and one after the other.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import itertools
import threading
import time
from collections.abc import Callable

from edge_cloud import messages_pb2 as pb
from edge_cloud import schedule
from edge_cloud.leases import AGAIN_S, LONGEST_MS, Asking, OwnLease
from edge_cloud.rpc import Call, CallError, Peer, Refused
from edge_cloud.service import acknowledged

MOST_UNDER_WAY = 64  # requests of a device; one more is refused
REPORT_S = 1.0  # between two reports, unless the decision changes
MOST_IN_REPORT = 500  # requests
MOST_REPORTS = 512  # that wait to be sent; older ones are dropped, and counted
TIMEOUT_S = 2.0  # of sending one

Execute = Callable[[int, int, float, float], pb.ClassifyReply]  # number, choice, seconds until lost, patience in ms


class _Book:
    """What is to be reported, by the decision in force when it happened."""

    def __init__(self, device: str, life: int) -> None:
        self._device, self._life = device, life
        self._sequence = itertools.count(1)
        self._made: list[float] = []
        self._done: list[pb.Done] = []
        self._reports: collections.deque[pb.RequestsReport] = collections.deque()
        self._dropped = 0
        self._changed = threading.Condition()

    def made(self, at_ms: float) -> None:
        with self._changed:
            self._made.append(at_ms)
            if len(self._made) >= MOST_IN_REPORT:
                self._changed.notify_all()

    def done(self, one: pb.Done) -> None:
        with self._changed:
            self._done.append(one)
            if len(self._done) >= MOST_IN_REPORT:
                self._changed.notify_all()

    def close(self, lease: tuple[int, int], closed: bool, now_ms: float, under_way: int, asking: bool) -> None:
        """Turns what has happened under a decision into reports."""
        with self._changed:
            most = max(len(self._made), len(self._done))
            if not most and not closed:
                return
            for low in range(0, max(most, 1), MOST_IN_REPORT):
                high = low + MOST_IN_REPORT
                report = pb.RequestsReport(
                    device=self._device,
                    started=self._life,
                    sequence=next(self._sequence),
                    session=lease[0],
                    number=lease[1],
                    closed=closed and high >= most,
                    now_ms=now_ms,
                    under_way=under_way,
                    asking=asking,
                    made_ms=self._made[low:high],
                    done=self._done[low:high],
                )
                self._reports.append(report)
            self._made, self._done = [], []
            while len(self._reports) > MOST_REPORTS:
                self._reports.popleft()
                self._dropped += 1
            self._changed.notify_all()

    def next(self, wait_s: float) -> pb.RequestsReport | None:
        """The first report that is to be sent; stays the first until `sent`."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._reports), wait_s)
            if not self._reports:
                return None
            self._reports[0].dropped = self._dropped
            return self._reports[0]

    def sent(self, report: pb.RequestsReport) -> None:
        with self._changed:
            if self._reports and self._reports[0] is report:
                self._reports.popleft()


class OwnRequests:
    """Serves `SetTraffic` on a device, and makes its requests.

    Args:
      name: the device's.
      life: which of its lives this is.
      models: how many it has.
      edge: the edge node.
      execute: carries one request out.
      lost_after_s: when a request without a result is lost.
    """

    def __init__(self, name: str, life: int, models: int, edge: Peer, execute: Execute, lost_after_s: float) -> None:
        self._name, self._models, self._edge = name, models, edge
        self._execute, self._lost_after_s = execute, lost_after_s
        self._lease, self._book = OwnLease(), _Book(name, life)
        self._traffic: threading.Event | None = None  # set: the present traffic ends
        self._began, self._under_way = time.monotonic(), 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._pool = concurrent.futures.ThreadPoolExecutor(MOST_UNDER_WAY, thread_name_prefix="request")
        self._closing = contextlib.ExitStack()
        self._closing.callback(self._pool.shutdown, wait=False, cancel_futures=True)
        for work in (self._report, self._send):
            thread = threading.Thread(target=work, daemon=True, name="requests")
            thread.start()
            self._closing.callback(thread.join, TIMEOUT_S + 1.0)
        asking = Asking(self._ask, "lease")
        self._closing.callback(asking.close)
        self._closing.callback(self._stop.set)

    def set_traffic(self, traffic: pb.Traffic, call: Call) -> pb.Ack:
        """Makes requests from now on, in place of those before."""
        schedule.check(traffic)
        with self._lock:
            if self._traffic is not None:
                self._traffic.set()
            self._traffic = None
            if traffic.kind:
                self._traffic, self._began = threading.Event(), time.monotonic()
                args = (traffic, self._traffic, self._began)
                threading.Thread(target=self._make, args=args, daemon=True, name="traffic").start()
        return acknowledged(call)

    def close(self) -> None:
        """Makes no more requests."""
        with self._lock:
            if self._traffic is not None:
                self._traffic.set()
        self._closing.close()

    # -- Requests ---------------------------------------------------------------------------------------------------

    def _make(self, traffic: pb.Traffic, ended: threading.Event, began: float) -> None:
        for number, at_ms in enumerate(schedule.times_ms(traffic)):
            if ended.wait(max(began + at_ms / 1000.0 - time.monotonic(), 0.0)) or self._stop.is_set():
                return
            made_ms = 1000.0 * (time.monotonic() - began)
            choice = self._lease.choice()
            with self._lock:
                full = self._under_way >= MOST_UNDER_WAY
                self._under_way += not full
            self._book.made(made_ms)
            if full:
                lost = f"requests: expected at most {MOST_UNDER_WAY} under way at {self._name}"
                self._book.done(pb.Done(made_ms=made_ms, choice=choice, lost=lost))
                continue
            try:
                self._pool.submit(self._carry_out, number, made_ms, choice, traffic.patience_ms)
            except RuntimeError as error:  # shutting down, or no thread to be had
                if self._stop.is_set():
                    return
                with self._lock:
                    self._under_way -= 1
                self._book.done(pb.Done(made_ms=made_ms, choice=choice, lost=f"requests: {error}"[:200]))

    def _carry_out(self, number: int, made_ms: float, choice: int, patience_ms: float) -> None:
        started = time.monotonic()
        done = pb.Done(made_ms=made_ms, choice=choice)
        try:
            result = self._execute(number, choice, self._lost_after_s, patience_ms)
            done.queue_ms, done.compute_ms = result.queue_ms, result.compute_ms
        except CallError as error:
            done.lost = str(error)[:200]
        except Refused as error:
            done.lost = f"Classify at {self._name}: {error.code.name}: {error.detail}"[:200]
        except Exception as error:  # noqa: BLE001 (a request that went wrong is lost, and the device goes on)
            done.lost = f"Classify at {self._name}: {type(error).__name__}: {error}"[:200]
        done.response_ms = 1000.0 * (time.monotonic() - started)
        with self._lock:
            self._under_way -= 1
        self._book.done(done)

    # -- Leases and reports -----------------------------------------------------------------------------------------

    def _ask(self, wait_s: float) -> bool:
        session, number = self._lease.name
        question = pb.LeaseRequest(device=self._name, session=session, number=number, wait_ms=1000.0 * wait_s)
        lease: pb.Lease = self._edge.call("GetLease", question, wait_s + TIMEOUT_S)
        fine = 0 <= lease.choice < self._models + 2 and 0 <= lease.fallback < self._models
        if not fine or not 0.0 <= lease.valid_ms <= LONGEST_MS:
            found = f"choice {lease.choice}, fallback {lease.fallback}, {lease.valid_ms:g} ms"
            raise CallError(self._edge.name, "GetLease", "INVALID_REPLY", f"expected a lease, found {found}")
        other = self._lease.set(lease)
        if other:
            self._close((session, number), closed=True)
        return other

    def _close(self, lease: tuple[int, int], closed: bool) -> None:
        with self._lock:
            now_ms, under_way = 1000.0 * (time.monotonic() - self._began), self._under_way
            asking = self._traffic is not None
        self._book.close(lease, closed, now_ms, under_way, asking)

    def _report(self) -> None:
        while not self._stop.wait(REPORT_S):
            self._close(self._lease.name, closed=False)

    def _send(self) -> None:
        pause = AGAIN_S[0]
        while not self._stop.is_set():
            report = self._book.next(REPORT_S)
            if report is None:
                continue
            try:
                self._edge.call("TellRequests", report, TIMEOUT_S)
                self._book.sent(report)
                pause = AGAIN_S[0]
            except CallError:
                self._stop.wait(pause)
                pause = min(2.0 * pause, AGAIN_S[1])
