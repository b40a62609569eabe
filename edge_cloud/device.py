"""The application on an end device: one inference from request to result, steps 1 to 5 of Figure 1.

The response time runs from the request to the result, on this device's clock: the decision's way to the cloud and
back, waiting and computing where the decision says, and the links. The report (step 5) is sent after it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from edge_cloud import messages_pb2 as pb
from edge_cloud.edge import Tell
from edge_cloud.rpc import Call, CallError, Peer, Refused
from edge_cloud.service import check_reply, classify
from edge_cloud.slots import Slots

REPORT_TIMEOUT_S = 1.0
ANSWER_S = 0.1  # kept of a request's time for its answer, or a tenth of it


class DeviceApplication:
    """Serves `Infer` on a device node.

    Args:
      name: the device's.
      models: names of the l models, d0 first.
      slots: where it computes locally.
      edge: the edge node.
      camera: gives the image of a request that brings none, 224 x 224 x 3 bytes.
      status: reads the device's monitor.
      tell: tells the edge something, and takes in what its answer shows of the link.
    """

    def __init__(
        self,
        name: str,
        models: tuple[str, ...],
        slots: Slots,
        edge: Peer,
        camera: Callable[[], bytes],
        status: Callable[[], pb.Status],
        tell: Tell,
    ) -> None:
        self._name, self._models, self._slots, self._edge = name, models, slots, edge
        self._camera, self._status, self._tell = camera, status, tell

    def infer(self, request: pb.InferRequest, call: Call) -> pb.InferReply:
        """One request; a lost one is answered too, with an outcome that says why."""
        started = time.monotonic()
        # The answer, that the request was lost, has to reach who asked before he gives up: else this device seems gone.
        ends = started + call.remaining_s - min(ANSWER_S, call.remaining_s / 10.0)
        report = pb.Report(step=request.step, device=self._name, choice=-1, outcome="ok")
        reply = pb.InferReply()
        try:
            decision = self._edge.call(
                "Decide", pb.DecideRequest(step=request.step, device=self._name), ends - time.monotonic()
            )
            if decision.step != request.step or not 0 <= decision.choice < len(self._models) + 2:
                expected = f"step {request.step} and a choice in 0..{len(self._models) + 1}"
                found = f"step {decision.step}, {decision.choice}"
                raise CallError(self._edge.name, "Decide", "INVALID_REPLY", f"expected {expected}, found {found}")
            report.choice, report.decide_ms = decision.choice, 1000.0 * (time.monotonic() - started)
            result = self.execute(request.step, decision.choice, max(ends - time.monotonic(), 0.0), image=request.image)
            report.queue_ms, report.compute_ms = result.queue_ms, result.compute_ms
            reply.classes.extend(result.classes)
        except CallError as error:
            report.outcome = str(error)[:500]
        except Refused as error:
            report.outcome = f"Classify at {self._name}: {error.code.name}: {error.detail}"[:500]
        report.response_ms = 1000.0 * (time.monotonic() - started)
        reply.report.CopyFrom(report)
        report.statuses.append(self._status())
        with contextlib.suppress(CallError):  # the caller has the report; the cloud keeps the device's last one
            self._tell("Tell", report, min(call.remaining_s / 2.0, REPORT_TIMEOUT_S))
        return reply

    def execute(
        self, step: int, choice: int, timeout_s: float, patience_ms: float = 0.0, image: bytes = b""
    ) -> pb.ClassifyReply:
        """Carries one inference out where a choice says, on an image or the camera's.

        Raises:
          CallError: if it has no result from elsewhere in time.
          Refused: if it has none here.
        """
        local = choice < len(self._models)
        where = "device" if local else ("edge", "cloud")[choice - len(self._models)]
        task = pb.ClassifyRequest(
            step=step,
            device=self._name,
            where=where,
            model=self._models[choice] if local else self._models[0],
            image=image or self._camera(),
            spare_ms=max(1000.0 * timeout_s - patience_ms, 0.0) if patience_ms else 0.0,
        )
        if local:
            return classify(self._slots, self._name, task, timeout_s)
        result: pb.ClassifyReply = self._edge.call("Classify", task, timeout_s)
        if wrong := check_reply(task, result):
            raise CallError(where, "Classify", "INVALID_REPLY", wrong)
        return result
