"""Reports of devices' own requests, kept at the cloud until the operator has them."""

from __future__ import annotations

import collections
import threading
from collections.abc import Iterable, Sequence

from edge_cloud import messages_pb2 as pb
from edge_cloud.rpc import MOST_BYTES

MOST_KEPT = 256  # reports of each device; older ones are dropped, and the operator sees that numbers are missing


class Collection:
    """Reports of each device, in the order in which they came."""

    def __init__(self, devices: Sequence[str]) -> None:
        self._kept: dict[str, collections.deque[pb.RequestsReport]] = {
            name: collections.deque(maxlen=MOST_KEPT) for name in devices
        }
        self._changed = threading.Condition()

    def add(self, report: pb.RequestsReport) -> None:
        """Keeps a report of a known device; once, if it was sent again because nobody seemed to have got it."""
        with self._changed:
            kept = self._kept.get(report.device)
            if kept is None:
                return
            if not any((one.started, one.sequence) == (report.started, report.sequence) for one in kept):
                kept.append(report)
                self._changed.notify_all()

    def take(self, marks: Iterable[pb.ReportMark], wait_s: float) -> list[pb.RequestsReport]:
        """Forgets what has reached the operator; what else there is, as much as fits into a message."""
        with self._changed:
            for mark in marks:
                kept = self._kept.get(mark.device, collections.deque())
                names = [(one.started, one.sequence) for one in kept]
                if (mark.started, mark.sequence) in names:
                    for _ in range(names.index((mark.started, mark.sequence)) + 1):
                        kept.popleft()
            self._changed.wait_for(lambda: any(self._kept.values()), wait_s)
            found: list[pb.RequestsReport] = []
            room = MOST_BYTES - 1024
            for kept in self._kept.values():
                for report in kept:
                    room -= report.ByteSize() + 16
                    if room < 0:
                        break
                    found.append(report)
            return found
