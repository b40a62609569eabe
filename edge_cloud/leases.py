"""Standing decisions: what every device is to do until told otherwise, for at most so long.

They go down the tree by being asked for: a device asks the edge, the edge the cloud, each again and again, and is
answered at once when another decision stands. Validity is told as the time that is left, and each node counts that by
its own clock, so that clocks needn't agree. Nobody is asked before an inference.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import grpc

from edge_cloud import messages_pb2 as pb
from edge_cloud.rpc import CallError, Refused

LONGEST_MS = 3.6e6  # of a lease
WAIT_S = 1.0  # for which a question stays open
AGAIN_S = (0.1, 1.0)  # after a question that nobody answered: from, to


class StandingTable:
    """The standing decision as one node knows it."""

    def __init__(self) -> None:
        self._standing = pb.Standing()
        self._until = 0.0
        self._changed = threading.Condition()

    def set(self, standing: pb.Standing) -> bool:
        """Takes a decision in; False where a later one of the same operator stands already."""
        with self._changed:
            known = self._standing
            if standing.session == known.session and standing.number < known.number:
                return False
            self._standing = pb.Standing()
            self._standing.CopyFrom(standing)
            self._until = time.monotonic() + standing.valid_ms / 1000.0
            self._changed.notify_all()
            return True

    def get(self) -> pb.Standing:
        """What stands, with how long it still does."""
        with self._changed:
            return self._read()

    def after(self, session: int, number: int, wait_s: float) -> pb.Standing:
        """The same; waits for so long where it is this one, or none stands."""

        def another() -> bool:
            there = self._standing
            return there.number > 0 and (there.session, there.number) != (session, number)

        with self._changed:
            self._changed.wait_for(another, wait_s)
            return self._read()

    def _read(self) -> pb.Standing:
        found = pb.Standing()
        found.CopyFrom(self._standing)
        found.valid_ms = max(1000.0 * (self._until - time.monotonic()), 0.0)
        return found


def checked(standing: pb.Standing, devices: int, models: int) -> None:
    """Passes a decision that a fleet of so many devices with so many local models can follow.

    Raises:
      Refused: if it isn't one.
    """
    choices, fallbacks = list(standing.choices), list(standing.fallbacks)
    for what, values, below in (("choices", choices, models + 2), ("fallbacks", fallbacks, models)):
        if len(values) != devices or not all(0 <= value < below for value in values):
            expected = f"{devices} of them in 0..{below - 1}"
            raise Refused(
                grpc.StatusCode.INVALID_ARGUMENT, f"standing.{what}: expected {expected}, found {str(values)[:80]}"
            )
    if not standing.number or not 0.0 < standing.valid_ms <= LONGEST_MS:
        expected = f"a number above 0, valid for up to {LONGEST_MS:g} ms"
        found = f"number {standing.number}, {standing.valid_ms:g} ms"
        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"standing: expected {expected}, found {found}")


def waiting_s(wait_ms: float, remaining_s: float) -> float:
    """For how long a question may stay open: as it says, and no longer than its caller waits."""
    return max(min(wait_ms / 1000.0, WAIT_S, remaining_s - 0.1), 0.0) if wait_ms > 0.0 else 0.0


class Asking:
    """Asks for what stands, again and again, in a thread of its own.

    Args:
      ask: asks once, waiting up to the given seconds; whether another decision stands now.
      name: of the thread.
    """

    def __init__(self, ask: Callable[[float], bool], name: str) -> None:
        self._ask, self._stop = ask, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name=name)
        self._thread.start()

    def _run(self) -> None:
        pause = AGAIN_S[0]
        while not self._stop.is_set():
            asked = time.monotonic()
            try:
                if not self._ask(WAIT_S) and time.monotonic() - asked < AGAIN_S[0]:
                    self._stop.wait(AGAIN_S[0])  # an answer at once that says nothing new: not again and again
                pause = AGAIN_S[0]
            except CallError:
                self._stop.wait(pause)
                pause = min(2.0 * pause, AGAIN_S[1])

    def close(self) -> None:
        self._stop.set()
        self._thread.join(2.0 * WAIT_S + 1.0)


class OwnLease:
    """What one device is to do now.

    Before any decision, and once one is over, that is a local model: the fallback that came with the last one, at first
    the pool's first, which is the most accurate.
    """

    def __init__(self) -> None:
        self._lease, self._until = pb.Lease(), 0.0
        self._lock = threading.Lock()

    def set(self, lease: pb.Lease) -> bool:
        """Takes a lease in, as long as there is one; whether another decision stands now."""
        if not lease.number:
            return False
        with self._lock:
            known = self._lease
            if lease.session == known.session and lease.number < known.number:
                return False
            other = (lease.session, lease.number) != (known.session, known.number)
            self._lease, self._until = lease, time.monotonic() + lease.valid_ms / 1000.0
            return other

    @property
    def name(self) -> tuple[int, int]:
        """Session and number of the last decision."""
        with self._lock:
            return self._lease.session, self._lease.number

    def choice(self) -> int:
        """What to do with a request now."""
        with self._lock:
            return int(self._lease.choice if time.monotonic() < self._until else self._lease.fallback)
