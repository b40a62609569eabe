"""Calls between nodes: gRPC with mutual TLS, protobuf messages, a deadline on every call, bounded sizes.

Wire status becomes one exception type, `CallError`. Methods are registered by name (`METHODS`) as generic handlers, so
that only the messages are generated code. Bytes are parsed here, so that a malformed request is refused, not logged.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import os
import pathlib
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from edge_cloud import messages_pb2 as pb
from edge_cloud.access import Access

SERVICE = "edge_cloud.Node"
METHODS: dict[str, tuple[type[Message], type[Message]]] = {
    "Classify": (pb.ClassifyRequest, pb.ClassifyReply),
    "Decide": (pb.DecideRequest, pb.Decision),
    "Tell": (pb.Report, pb.Ack),  # step 5
    "Broadcast": (pb.StatusList, pb.Ack),
    "Infer": (pb.InferRequest, pb.InferReply),
    "SetOperator": (pb.Operator, pb.Ack),
    "SetPlan": (pb.Plan, pb.Ack),
    "GetState": (pb.StateRequest, pb.FleetState),
    "SetStanding": (pb.Standing, pb.Ack),
    "GetStanding": (pb.StandingRequest, pb.Standing),
    "GetLease": (pb.LeaseRequest, pb.Lease),
    "SetTraffic": (pb.Traffic, pb.Ack),
    "TellRequests": (pb.RequestsReport, pb.Ack),
    "CollectRequests": (pb.CollectRequest, pb.Collected),
    "SetBackground": (pb.Background, pb.Ack),
    "SetFault": (pb.Fault, pb.Ack),
    "SetLink": (pb.LinkSetting, pb.Ack),
}
MOST_BYTES = 256 * 1024  # of a message: an image of 147 KiB and room
LONGEST_S = 3600.0  # a call with a later deadline counts as one without
_OPTIONS = [
    ("grpc.max_receive_message_length", MOST_BYTES),
    ("grpc.max_send_message_length", MOST_BYTES),
    ("grpc.enable_http_proxy", 0),  # nodes find one another directly, whatever the environment names
]
# Without these a node that comes back is not looked for again for up to two minutes.
_RECONNECT = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
# A silent connection is tried, so that one through a link that was cut and restored isn't waited for.
_KEEPALIVE = [
    ("grpc.keepalive_time_ms", 10000),
    ("grpc.keepalive_timeout_ms", 2000),
    ("grpc.http2.max_pings_without_data", 0),
]
_SERVER = [("grpc.so_reuseport", 0), ("grpc.http2.min_ping_interval_without_data_ms", 5000)]

Handler = Callable[[Any, "Call"], Message]


class CallError(Exception):
    """A call had no usable answer. `code` is gRPC's name for why (`DEADLINE_EXCEEDED`), or `INVALID_REPLY`."""

    def __init__(self, peer: str, method: str, code: str, detail: str) -> None:
        super().__init__(f"{method} at {peer}: {code}: {detail}")
        self.peer, self.method, self.code, self.detail = peer, method, code, detail


class Refused(Exception):
    """A handler's way to answer with a status."""

    def __init__(self, code: grpc.StatusCode, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


@dataclasses.dataclass(frozen=True)
class Identity:
    """A node's certificate, its key, and the authority it trusts; PEM."""

    authority: bytes
    certificate: bytes
    key: bytes

    @classmethod
    def read(cls, folder: pathlib.Path, name: str) -> Identity:
        """Reads `ca.pem`, `NAME.pem` and `NAME.key`, and tries them.

        Raises:
          ValueError: if one of them can't be read or has expired, or they don't belong together.
        """
        files = [folder / file for file in ("ca.pem", f"{name}.pem", f"{name}.key")]
        try:
            parts = [file.read_bytes() for file in files]
        except OSError as error:
            expected = "ca.pem and the node's .pem and .key"
            raise ValueError(
                f"certificates: expected {expected}, found {error.strerror} at {error.filename}"
            ) from error
        _shake_hands(name, *files)
        return cls(*parts)


def _shake_hands(name: str, authority: pathlib.Path, certificate: pathlib.Path, key: pathlib.Path) -> None:
    """TLS with itself, in memory. gRPC aborts the process on some bad files, and names none of them.

    Raises:
      ValueError: saying which file is bad.
    """
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    where = authority
    try:
        client.load_verify_locations(authority)
        where = certificate
        server.load_cert_chain(certificate, key, password="")  # none is asked for on a terminal
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        here = client.wrap_bio(back, there, server_hostname=name)
        other = server.wrap_bio(there, back, server_side=True)
        for _ in range(3):  # more than TLS has turns; the client's is the last word on the server's certificate
            for side in (here, other):
                with contextlib.suppress(ssl.SSLWantReadError):  # it has said what it can, and waits for the other
                    side.do_handshake()
        here.do_handshake()
    except (ssl.SSLError, ValueError) as error:  # still waiting counts too
        found = getattr(error, "verify_message", "") or getattr(error, "reason", "") or str(error)
        expected = f"a key and a certificate of {name!r} that belong together, valid now, of the authority in ca.pem"
        raise ValueError(f"certificates: expected {expected}, found {found} at {where}") from error


class Call:
    """What a handler may know of the call it serves."""

    def __init__(self, context: grpc.ServicerContext) -> None:
        self._context = context
        self._arrived = time.monotonic()

    @property
    def held_ms(self) -> float:
        """Milliseconds since the call arrived."""
        return 1000.0 * (time.monotonic() - self._arrived)

    @property
    def remaining_s(self) -> float:
        """Seconds until the caller's deadline."""
        return max(float(self._context.time_remaining()), 0.0)

    @property
    def caller(self) -> str:
        """Name in the caller's certificate."""
        names = self._context.auth_context().get("x509_common_name", [])
        return names[0].decode() if names else ""


class Faults:
    """Misbehaviour on demand, where the inventory allows it: `late` answers and `garbage`."""

    def __init__(self) -> None:
        self._fault = pb.Fault()

    def set(self, fault: pb.Fault) -> None:
        """Takes the fault on.

        Raises:
          Refused: if it isn't one.
        """
        if fault.kind not in ("", "late", "garbage") or not 0.0 <= fault.delay_ms <= 60000.0:
            found = f"{fault.kind!r}, {fault.delay_ms:g} ms"
            expected = "'', 'late' or 'garbage', and a delay in [0, 60000] ms"
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"fault: expected {expected}, found {found}")
        self._fault = fault

    def apply(self, method: str, answer: bytes) -> bytes:
        """The answer as the fault leaves it; orders to the node itself are always answered well."""
        fault = self._fault
        if method.startswith("Set"):
            return answer
        if fault.kind == "late":
            time.sleep(fault.delay_ms / 1000.0)
        return os.urandom(64) if fault.kind == "garbage" else answer


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc] # gRPC ships no types
    def __init__(self, handlers: Mapping[str, Handler], access: Access, faults: Faults | None) -> None:
        self._handlers, self._access, self._faults = handlers, access, faults

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        prefix, _, method = details.method.rpartition("/")
        if prefix != f"/{SERVICE}" or method not in self._handlers:
            return None
        handler, (request_type, _) = self._handlers[method], METHODS[method]

        def serve(data: bytes, context: grpc.ServicerContext) -> bytes:
            remaining = context.time_remaining()
            if remaining is None or remaining > LONGEST_S:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "deadline: expected one within an hour, found none")
            call = Call(context)
            try:
                request = request_type.FromString(data)
                if refusal := self._access.refusal(method, call.caller, request):
                    raise Refused(grpc.StatusCode.PERMISSION_DENIED, refusal)
                answer = handler(request, call).SerializeToString()
            except DecodeError:
                expected = f"a {request_type.__name__}"
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"request: expected {expected}, found other bytes")
            except Refused as refused:
                context.abort(refused.code, refused.detail)
            return self._faults.apply(method, answer) if self._faults else answer

        return grpc.unary_unary_rpc_method_handler(serve)


class Server:
    """A gRPC server with a health service. Use as a context; serves once `serving` is called.

    Args:
      address: `host:port` to listen at; port 0 picks one (`port` says which).
      handlers: by method name.
      identity: certificates; clients must show one of the same authority.
      access: who may call what, about whom.
      workers: calls served at once; twice as many may be there, further ones are refused.
      faults: misbehaviour to apply.

    Raises:
      OSError: if the address can't be listened at.
    """

    def __init__(
        self,
        address: str,
        handlers: Mapping[str, Handler],
        identity: Identity,
        access: Access,
        workers: int,
        faults: Faults | None = None,
    ) -> None:
        pool = concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="call")
        self._server = grpc.server(
            pool,
            handlers=[_Handlers(handlers, access, faults)],
            options=[*_OPTIONS, *_SERVER],
            maximum_concurrent_rpcs=2 * workers,
        )
        self._health = health.HealthServicer(experimental_non_blocking=False)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        credentials = grpc.ssl_server_credentials(
            [(identity.key, identity.certificate)], identity.authority, require_client_auth=True
        )
        try:
            self.port = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise OSError(f"address: expected a free address, found {error} at {address}") from error
        if self.port == 0:
            raise OSError(f"address: expected a free address, found none at {address}")
        self._server.start()

    def serving(self) -> None:
        """Tells who asks for the node's health that it serves."""
        self._health.set("", health_pb2.HealthCheckResponse.SERVING)

    def close(self, grace_s: float = 2.0) -> None:
        """Refuses new calls, and lets those under way end within the grace period."""
        self._health.enter_graceful_shutdown()
        self._server.stop(grace_s).wait()


class Peer:
    """Another node, as a client sees it. Connects when first called, and again after failures.

    Args:
      name: its name, which its certificate must bear.
      address: `host:port` where it is reached.
      identity: the caller's certificates.
    """

    def __init__(self, name: str, address: str, identity: Identity) -> None:
        self.name, self.address = name, address
        credentials = grpc.ssl_channel_credentials(identity.authority, identity.key, identity.certificate)
        # Known by name, not by address: a relay may stand in between.
        options = [*_OPTIONS, *_RECONNECT, *_KEEPALIVE, ("grpc.ssl_target_name_override", name)]
        self._channel = grpc.secure_channel(address, credentials, options)
        self._methods: dict[str, Any] = {}
        self._lock = threading.Lock()

    def call(self, method: str, request: Message, timeout_s: float) -> Any:
        """Calls `method` of `METHODS` and waits for its reply.

        Raises:
          CallError: if there is no usable reply within `timeout_s`.
        """
        try:
            # Not a future: this thread itself waits for the network, and no other has to wake it.
            return self._parsed(method, self._stub(method)(request.SerializeToString(), timeout=timeout_s))
        except grpc.RpcError as error:
            raise self._failed(method, error) from error

    def start(self, method: str, request: Message, timeout_s: float) -> Any:
        """Calls `method` without waiting; `answer` waits."""
        return self._stub(method).future(request.SerializeToString(), timeout=timeout_s)

    def _stub(self, method: str) -> Any:
        with self._lock:
            if method not in self._methods:
                self._methods[method] = self._channel.unary_unary(f"/{SERVICE}/{method}")
            return self._methods[method]

    def answer(self, method: str, call: Any) -> Any:
        """The reply to a call that was started.

        Raises:
          CallError: if there is no usable one.
        """
        try:
            return self._parsed(method, call.result())
        except grpc.FutureCancelledError as error:
            raise CallError(self.name, method, "CANCELLED", "given up by the caller") from error
        except grpc.RpcError as error:
            raise self._failed(method, error) from error

    def _parsed(self, method: str, answer: bytes) -> Any:
        try:
            return METHODS[method][1].FromString(answer)
        except DecodeError as error:
            expected = f"a {METHODS[method][1].__name__}"
            raise CallError(self.name, method, "INVALID_REPLY", f"expected {expected}, found other bytes") from error

    def _failed(self, method: str, error: grpc.RpcError) -> CallError:
        # What is raised is both the error and the call.
        status: Any = error
        return CallError(self.name, method, status.code().name, str(status.details()))

    def is_serving(self, timeout_s: float) -> bool:
        """Whether its health service says so within `timeout_s`."""
        stub = health_pb2_grpc.HealthStub(self._channel)
        try:
            reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        except grpc.RpcError:
            return False
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)

    def close(self) -> None:
        """Closes the connection; calls under way are cancelled."""
        self._channel.close()
