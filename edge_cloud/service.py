"""Intelligent Service: answers classify calls with a node's pool of models, on its core slots."""

from __future__ import annotations

import math
import time

import grpc
import numpy as np

from edge_cloud import messages_pb2 as pb
from edge_cloud.rpc import Call, Refused
from edge_cloud.runtime import IMAGE_BYTES, IMAGE_SHAPE, TOP
from edge_cloud.slots import Expired, QueueFull, Slots


def image_of(data: bytes) -> np.ndarray:
    """The image [224, 224, 3] uint8 that a request carries.

    Raises:
      Refused: if it has another size.
    """
    if len(data) != IMAGE_BYTES:
        expected = f"{IMAGE_BYTES} bytes (224 x 224 x 3)"
        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"image: expected {expected}, found {len(data)}")
    return np.frombuffer(data, np.uint8).reshape(IMAGE_SHAPE)


def classify(slots: Slots, node: str, request: pb.ClassifyRequest, deadline_s: float) -> pb.ClassifyReply:
    """Runs a request's model on its image on this node.

    Raises:
      Refused: if the model or image can't be used, the model gives no finite scores, too many wait, or the deadline
        passes first, or the request's patience before its turn comes.
    """
    if request.model not in slots.models:
        known = ", ".join(slots.models)
        raise Refused(grpc.StatusCode.NOT_FOUND, f"model: expected one of {known}, found {request.model[:40]!r}")
    try:
        timed = slots.run(request.model, image_of(request.image), deadline_s, _patience_s(request, deadline_s))
    except QueueFull as error:
        raise Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)) from error
    except Expired as error:
        raise Refused(grpc.StatusCode.DEADLINE_EXCEEDED, str(error)) from error
    except ValueError as error:
        raise Refused(grpc.StatusCode.INTERNAL, str(error)) from error
    return pb.ClassifyReply(
        step=request.step,
        node=node,
        model=request.model,
        classes=timed.inference.classes,
        scores=timed.inference.scores,
        queue_ms=timed.queue_ms,
        compute_ms=timed.compute_ms,
    )


def _patience_s(request: pb.ClassifyRequest, remaining_s: float) -> float:
    """For how long a request waits for its turn; infinite: as long as its caller does.

    Said as what is left of the caller's time then, which gRPC tells at every node: so no clock is compared, and the way
    here counts.
    """
    if not 0.0 <= request.spare_ms < math.inf:
        found = f"{request.spare_ms:g}"
        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"spare_ms: expected one from 0 on, found {found}")
    return max(remaining_s - request.spare_ms / 1000.0, 0.0) if request.spare_ms else math.inf


def check_reply(request: pb.ClassifyRequest, reply: pb.ClassifyReply) -> str:
    """What is wrong with a reply; empty if nothing is."""
    if (reply.step, reply.model) != (request.step, request.model):
        found = f"step {reply.step}, {reply.model[:40]!r}"
        return f"expected step {request.step}, {request.model!r}, found {found}"
    if not 1 <= len(reply.classes) <= TOP or len(reply.scores) != len(reply.classes):
        return f"expected 1 to {TOP} classes with scores, found {len(reply.classes)} and {len(reply.scores)}"
    if not all(index >= 0 for index in reply.classes) or len(set(reply.classes)) < len(reply.classes):
        return f"expected distinct classes from 0 on, found {list(reply.classes)}"
    times = (reply.queue_ms, reply.compute_ms)
    if not np.isfinite([*reply.scores, *times]).all() or min(times) < 0.0:
        return f"expected finite scores and times, found {(*reply.scores, *times)}"
    return ""


def acknowledged(call: Call) -> pb.Ack:
    """An answer that says when it was sent, and how long the request was here."""
    return pb.Ack(sent_at_ms=1000.0 * time.time(), held_ms=call.held_ms)
