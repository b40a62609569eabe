"""Calls: deadlines, malformed and oversized requests, certificates, garbage replies; real servers on port 0."""

from __future__ import annotations

import os
import socket
import ssl
import threading

import grpc
import pytest

from edge_cloud import messages_pb2 as pb
from edge_cloud import rpc
from edge_cloud.access import Access
from edge_cloud.certificates import make
from edge_cloud.rpc import CallError, Faults, Identity, Peer, Refused, Server
from tests.helpers.fleets import wait_for

pytestmark = pytest.mark.clock


class Open(Access):
    """Everybody may call everything: who may what is asked in test_access.py."""

    def refusal(self, method, caller, request):
        return ""


OPEN = Open({"server": "cloud"}, {}, "server")
REQUESTS = int(os.environ.get("HL_JAX_BAD_REQUESTS", "500"))  # 10,000 in the longer mode


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    make(folder, {"server": ["127.0.0.1"], "client": []})
    return folder


@pytest.fixture
def served(folder):
    """A server that answers `Decide`, with the seconds that its caller left; and its faults."""
    seen = []

    def decide(request, call):
        seen.append((call.caller, call.remaining_s))
        if request.device == "refuse":
            raise Refused(grpc.StatusCode.NOT_FOUND, "device: expected another, found this")
        return pb.Decision(step=request.step, choice=3)

    faults = Faults()
    server = Server("127.0.0.1:0", {"Decide": decide}, Identity.read(folder, "server"), OPEN, workers=4, faults=faults)
    server.serving()
    yield server, seen, faults
    server.close(0.1)


@pytest.fixture
def peer(folder, served):
    peer = Peer("server", f"127.0.0.1:{served[0].port}", Identity.read(folder, "client"))
    yield peer
    peer.close()


def test_a_call_is_answered_and_the_caller_is_known(peer, served):
    assert peer.call("Decide", pb.DecideRequest(step=7, device="S1"), 5.0) == pb.Decision(step=7, choice=3)
    ((caller, remaining),) = served[1]
    assert caller == "client"
    assert 0.0 < remaining <= 5.0
    assert peer.is_serving(5.0)


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "grpc_proxy", "HTTPS_PROXY", "all_proxy"])
def test_nodes_find_one_another_whatever_proxy_the_environment_names(folder, served, monkeypatch, variable):
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    peer = Peer("server", f"127.0.0.1:{served[0].port}", Identity.read(folder, "client"))
    assert peer.call("Decide", pb.DecideRequest(step=3), 5.0).step == 3
    assert peer.is_serving(5.0)
    peer.close()


def test_a_refusal_carries_its_reason(peer):
    with pytest.raises(CallError, match="Decide at server: NOT_FOUND: device: expected another, found this"):
        peer.call("Decide", pb.DecideRequest(device="refuse"), 5.0)


def test_an_unknown_method_is_refused(peer):
    with pytest.raises(CallError, match="UNIMPLEMENTED"):
        peer.call("SetPlan", pb.Plan(), 5.0)


def raw_channel(folder, port, options=()):
    identity = Identity.read(folder, "client")
    credentials = grpc.ssl_channel_credentials(identity.authority, identity.key, identity.certificate)
    return grpc.secure_channel(
        f"127.0.0.1:{port}", credentials, [("grpc.ssl_target_name_override", "server"), *options]
    )


def test_a_call_without_a_deadline_is_refused(folder, served):
    with raw_channel(folder, served[0].port) as channel:
        stub = channel.unary_unary(f"/{rpc.SERVICE}/Decide")
        with pytest.raises(grpc.RpcError) as error:
            stub(pb.DecideRequest().SerializeToString())
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "deadline: expected one" in error.value.details()
    assert served[1] == []


def test_malformed_and_oversized_requests_leave_it_serving(folder, served, peer):
    codes = []
    with raw_channel(folder, served[0].port) as channel:
        stub = channel.unary_unary(f"/{rpc.SERVICE}/Decide")
        for index in range(REQUESTS):
            # A field of a length that isn't there; now and then a message of more bytes than may be.
            data = os.urandom(rpc.MOST_BYTES + 1) if index % 50 == 0 else b"\x12\xff" + os.urandom(index % 40)
            with pytest.raises(grpc.RpcError) as error:
                stub(data, timeout=10.0)
            codes.append(error.value.code())
    assert set(codes) == {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == (REQUESTS + 49) // 50
    assert served[1] == []
    assert peer.call("Decide", pb.DecideRequest(step=1), 10.0).choice == 3


def test_bytes_that_are_not_http_leave_it_serving(served, peer):
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", served[0].port), 5.0) as connection:
            connection.sendall(os.urandom(2000))
    assert peer.call("Decide", pb.DecideRequest(step=1), 10.0).choice == 3


def test_a_client_without_a_certificate_is_refused(folder, served):
    credentials = grpc.ssl_channel_credentials((folder / "ca.pem").read_bytes())
    options = [("grpc.ssl_target_name_override", "server")]
    with grpc.secure_channel(f"127.0.0.1:{served[0].port}", credentials, options) as channel:
        stub = channel.unary_unary(f"/{rpc.SERVICE}/Decide")
        with pytest.raises(grpc.RpcError) as error:
            stub(b"", timeout=5.0)
    assert error.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert served[1] == []


def test_a_client_without_tls_is_refused(served):
    with grpc.insecure_channel(f"127.0.0.1:{served[0].port}") as channel:
        stub = channel.unary_unary(f"/{rpc.SERVICE}/Decide")
        with pytest.raises(grpc.RpcError):
            stub(b"", timeout=5.0)
    assert served[1] == []


def test_a_client_of_another_authority_is_refused(folder, served, tmp_path):
    make(tmp_path, {"client": []})
    identity = Identity.read(tmp_path, "client")
    # It trusts the server; the server doesn't trust it.
    identity = Identity((folder / "ca.pem").read_bytes(), identity.certificate, identity.key)
    peer = Peer("server", f"127.0.0.1:{served[0].port}", identity)
    with pytest.raises(CallError):
        peer.call("Decide", pb.DecideRequest(), 5.0)
    peer.close()
    assert served[1] == []


def test_a_server_of_another_authority_or_name_is_refused(folder, served, tmp_path):
    make(tmp_path, {"client": []})
    port = served[0].port
    for name, identity in (
        ("server", Identity.read(tmp_path, "client")),
        ("edge", Identity.read(folder, "client")),
    ):
        peer = Peer(name, f"127.0.0.1:{port}", identity)
        with pytest.raises(CallError, match=r"UNAVAILABLE|DEADLINE"):
            peer.call("Decide", pb.DecideRequest(), 5.0)
        peer.close()
    assert served[1] == []


def test_tls_itself_demands_a_certificate(folder, served):
    """The same without gRPC: the handshake or the first read fails."""
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(("127.0.0.1", served[0].port), 5.0) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="server") as secure:
                secure.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
                answer = secure.recv(1)  # TLS 1.3 tells of the refusal with the first data
        except (ssl.SSLError, ConnectionError):
            answer = b""
    assert answer == b""


def test_garbage_is_told_from_a_reply(peer, served):
    served[2].set(pb.Fault(kind="garbage"))
    codes = []
    for step in range(20):  # now and then random bytes are a message: of another step
        try:
            assert peer.call("Decide", pb.DecideRequest(step=step + 1), 5.0).step != step + 1
        except CallError as error:
            codes.append(error.code)
    assert "INVALID_REPLY" in codes
    assert set(codes) == {"INVALID_REPLY"}
    served[2].set(pb.Fault())
    assert peer.call("Decide", pb.DecideRequest(step=1), 5.0).choice == 3


def test_a_late_answer_is_not_waited_for(peer, served):
    peer.call("Decide", pb.DecideRequest(), 10.0)
    served[2].set(pb.Fault(kind="late", delay_ms=400.0))
    with pytest.raises(CallError, match="DEADLINE_EXCEEDED"):
        peer.call("Decide", pb.DecideRequest(), 0.1)
    assert peer.call("Decide", pb.DecideRequest(step=5), 10.0).step == 5


@pytest.mark.parametrize("fault", [pb.Fault(kind="odd"), pb.Fault(kind="late", delay_ms=1e9)])
def test_an_unknown_fault_is_refused(fault):
    with pytest.raises(Refused, match="fault: expected '', 'late' or 'garbage'"):
        Faults().set(fault)


def test_more_calls_than_there_is_room_for_are_refused(folder):
    go = threading.Event()

    def decide(request, call):
        go.wait(20.0)
        return pb.Decision()

    server = Server("127.0.0.1:0", {"Decide": decide}, Identity.read(folder, "server"), OPEN, workers=2)
    peer = Peer("server", f"127.0.0.1:{server.port}", Identity.read(folder, "client"))
    calls = [peer.start("Decide", pb.DecideRequest(), 20.0) for _ in range(12)]
    # Four stay: two are served, two wait for a worker.
    wait_for(lambda: sum(call.done() for call in calls) >= 8)
    codes = [call.code() for call in calls if call.done()]
    go.set()
    served = [call.result(20.0) for call in calls if call.exception(20.0) is None]
    peer.close()
    server.close(0.1)
    assert codes == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 8
    assert len(served) == 4


def test_an_address_that_is_taken_is_an_error(folder, served):
    with pytest.raises(OSError, match="address: expected a free address"):
        Server(f"127.0.0.1:{served[0].port}", {}, Identity.read(folder, "server"), OPEN, workers=1)


def test_missing_certificates_are_named(folder):
    with pytest.raises(ValueError, match=r"certificates: expected ca.pem and the node's .pem and .key, found No such"):
        Identity.read(folder, "nobody")
