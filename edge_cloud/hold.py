"""One operator drives a fleet at a time: how an operator takes it at the cloud, and goes on holding it."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time

import grpc

from edge_cloud import messages_pb2 as pb
from edge_cloud.rpc import CallError, Peer

HOLD_S = 4.0  # how long the fleet of an operator that died stays its own
RENEW_S = 1.0


class Occupied(CallError):
    """Another operator drives the fleet; the message says who."""


class Hold:
    """An operator's hold of a fleet.

    Args:
      cloud: the fleet's cloud node.
      name: who this is, for people.

    Attributes:
      session: which operator this is, as plans say.
      kept: whether it was taken; a thread goes on holding it then.
    """

    def __init__(self, cloud: Peer, name: str) -> None:
        self._cloud, self._name = cloud, name
        self.session = secrets.randbits(64) | 1
        self.kept = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True, name="operator")

    def take(self, timeout_s: float) -> None:
        """Takes the fleet, if nobody else holds it.

        Raises:
          Occupied: if another operator does.
          CallError: if the cloud doesn't answer.
        """
        self._ask(HOLD_S, timeout_s)
        if not self.kept:
            self.kept = True
            self._thread.start()

    def wait(self, timeout_s: float) -> None:
        """The same; first waits for as long as an operator that died holds it.

        Raises:
          Occupied: if another operator drives it.
          CallError: if the cloud doesn't answer.
        """
        ends = time.monotonic() + HOLD_S + RENEW_S
        while not self.kept:
            try:
                self.take(timeout_s)
            except Occupied:
                if time.monotonic() > ends:
                    raise
                time.sleep(RENEW_S / 4.0)

    def _ask(self, seconds: float, timeout_s: float) -> None:
        request = pb.Operator(session=self.session, name=self._name, hold_ms=1000.0 * seconds)
        try:
            self._cloud.call("SetOperator", request, timeout_s)
        except CallError as error:
            raise occupied(error) from error

    def _renew(self) -> None:
        while not self._stop.wait(RENEW_S):
            with contextlib.suppress(CallError):  # if another has it by now, the next plan is refused
                self._ask(HOLD_S, RENEW_S)

    def close(self) -> None:
        """Lets the fleet go."""
        if self.kept:
            self._stop.set()
            self._thread.join(2.0 * RENEW_S)
            with contextlib.suppress(CallError):
                self._ask(0.0, RENEW_S)
            self.kept = False


def occupied(error: CallError) -> CallError:
    """The same error, by its own type if another operator is why."""
    if error.code != grpc.StatusCode.ALREADY_EXISTS.name:
        return error
    return Occupied(error.peer, error.method, error.code, error.detail)
