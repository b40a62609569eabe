"""Who may call what, about whom: every row of the table, from every kind of certificate, at real servers on port 0."""

from __future__ import annotations

import contextlib
import datetime
import itertools

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edge_cloud import certificates as authority
from edge_cloud import messages_pb2 as pb
from edge_cloud.access import TABLE, Access, subjects
from edge_cloud.inventory import RESERVED, Inventory, NodeSpec
from edge_cloud.rpc import METHODS, CallError, Identity, Peer, Server

pytestmark = pytest.mark.clock

NODES = {"S1": "device", "S2": "device", "edge": "edge", "cloud": "cloud"}
SERVERS = (*NODES, "links")
CALLERS = (*NODES, *RESERVED, "stranger")
INVENTORY = Inventory(
    name="test",
    nodes=tuple(NodeSpec(name, kind, "127.0.0.1:1") for name, kind in NODES.items()),
    models=("d0",),
    model_dir="models",
    certificates="certificates",
)


def statuses(*names):
    return [pb.Status(node=name, sequence=1) for name in names]


def requests():
    """By method, requests about every subject and about several at once."""
    about = {}
    for device in (*NODES, "other", ""):
        about.setdefault("Decide", []).append(pb.DecideRequest(step=1, device=device))
        about.setdefault("Classify", []).append(pb.ClassifyRequest(step=1, device=device, where="edge"))
        about.setdefault("Tell", []).append(pb.Report(step=1, device=device))
        about.setdefault("GetLease", []).append(pb.LeaseRequest(device=device))
        about.setdefault("TellRequests", []).append(pb.RequestsReport(device=device))
        for told in ((device,), ("edge",), ("S1", "edge"), ("S1", "S2")):
            about["Tell"].append(pb.Report(step=1, device=device, statuses=statuses(*told)))
    for told in ((), *((name,) for name in (*NODES, "other")), ("S1", "edge"), ("S1", "S2"), ("S2", "cloud")):
        about.setdefault("Broadcast", []).append(pb.StatusList(statuses=statuses(*told)))
    for method, (request, _) in METHODS.items():
        about.setdefault(method, [request()])
    return about


def may(method, at, caller, request):
    """The table again, by hand: what `edge_cloud/README.md` says in words."""
    operators = {
        "Infer": ("S1", "S2"),
        "SetOperator": ("cloud",),
        "SetPlan": ("cloud",),
        "GetState": ("cloud",),
        "SetStanding": ("cloud",),
        "CollectRequests": ("cloud",),
        "SetTraffic": ("S1", "S2"),
        "SetBackground": ("S1", "S2", "edge", "cloud"),
        "SetFault": ("S1", "S2", "edge", "cloud"),
        "SetLink": ("links",),
    }
    if method in operators:
        return caller == "operator" and at in operators[method]
    if (at, caller) not in {("edge", "S1"), ("edge", "S2"), ("cloud", "edge")}:
        return False
    if (method, at) in {("GetStanding", "edge"), ("GetLease", "cloud")}:
        return False
    devices = {caller} if at == "edge" else {"S1", "S2"}
    nodes = devices if at == "edge" else {"S1", "S2", "edge"}
    if "device" in request.DESCRIPTOR.fields_by_name and request.device not in devices:
        return False
    return "statuses" not in request.DESCRIPTOR.fields_by_name or {one.node for one in request.statuses} <= nodes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    authority.make(folder, {name: ["127.0.0.1"] for name in CALLERS})
    return folder


@pytest.fixture(scope="module")
def served(folder):
    """Servers that answer every method at every node, and what got through to them."""
    through = []

    def handler(node, method):
        def answer(request, call):
            through.append((method, node, call.caller))
            return METHODS[method][1]()

        return answer

    with contextlib.ExitStack() as closing:
        ports, servers = {}, {}
        for node in SERVERS:
            handlers = {method: handler(node, method) for method in METHODS}
            access = Access.of(INVENTORY, node)
            server = Server("127.0.0.1:0", handlers, Identity.read(folder, node), access, workers=4)
            closing.callback(server.close, 0.1)
            ports[node], servers[node] = server.port, server
        yield ports, through, servers


def peer(folder, caller, node, ports):
    return Peer(node, f"127.0.0.1:{ports[node]}", Identity.read(folder, caller))


def test_every_method_has_a_row_and_every_row_a_method():
    assert TABLE.keys() == METHODS.keys()
    assert all(rules for rules in TABLE.values())


def test_a_request_that_names_somebody_is_about_somebody():
    """Whoever adds a field that names a node adds it to `subjects`, or shows here that it names none."""
    harmless = {"where", "model", "kind", "outcome", "image", "name", "link"}
    for method, (request, _) in METHODS.items():
        texts = {field.name for field in request.DESCRIPTOR.fields if field.type in (field.TYPE_STRING,)}
        assert texts <= harmless | {"device"}, method
        nested = {field.message_type.name for field in request.DESCRIPTOR.fields if field.message_type}
        # What an operator has of devices, and requests of whoever the report names.
        assert nested <= {"Status", "ReportMark", "Done"}, method
    assert subjects(pb.Report(device="S1", statuses=statuses("edge"))) == ({"S1"}, {"edge"})


@pytest.mark.parametrize("caller", CALLERS)
def test_exactly_the_tables_calls_go_through(caller, folder, served):
    ports, through, _ = served
    tried = 0
    for node in SERVERS:
        each = peer(folder, caller, node, ports)
        for method, request in ((name, one) for name, several in requests().items() for one in several):
            through.clear()
            try:
                each.call(method, request, 10.0)
                code = "OK"
            except CallError as error:
                code = error.code
            expected = may(method, node, caller, request)
            assert code == ("OK" if expected else "PERMISSION_DENIED"), (method, node, caller, request)
            assert through == ([(method, node, caller)] if expected else [])
            tried += 1
        each.close()
    assert tried == len(SERVERS) * sum(len(several) for several in requests().values())


def test_a_refusal_says_who_may(folder, served):
    each = peer(folder, "S2", "cloud", served[0])
    with pytest.raises(CallError, match="SetPlan: expected operator as the caller, found device 'S2'"):
        each.call("SetPlan", pb.Plan(), 10.0)
    each.close()
    each = peer(folder, "S2", "edge", served[0])
    with pytest.raises(CallError, match="Tell: expected 'S2' from 'S2', found 'S1'"):
        each.call("Tell", pb.Report(device="S1"), 10.0)
    each.close()


def test_a_device_of_another_edge_is_refused(folder):
    kinds = {"S1": "device", "S2": "device", "edge": "edge", "second": "edge", "cloud": "cloud"}
    upper = {"S1": "edge", "S2": "second", "edge": "cloud", "second": "cloud"}
    at_edge, at_cloud = Access(kinds, upper, "edge"), Access(kinds, upper, "cloud")
    assert at_edge.refusal("Decide", "S1", pb.DecideRequest(device="S1")) == ""
    assert at_edge.refusal("Decide", "S2", pb.DecideRequest(device="S2")) != ""
    assert at_cloud.refusal("Tell", "second", pb.Report(device="S2", statuses=statuses("S2", "second"))) == ""
    for device, told in (("S1", ("second",)), ("S2", ("edge",)), ("S2", ("S1",)), ("second", ())):
        assert at_cloud.refusal("Tell", "second", pb.Report(device=device, statuses=statuses(*told))) != ""


@pytest.mark.parametrize("kind", ["foreign", "expired", "not yet valid"])
@pytest.mark.parametrize("caller", ["S1", "edge", "operator"])
def test_another_authority_and_another_time_open_nothing(kind, caller, folder, served, tmp_path):
    """Its own files are in order, it trusts the server, and has the name of one who may."""
    ports, through, _ = served
    through.clear()
    if kind == "foreign":
        authority.make(tmp_path, {caller: []})
    else:
        _issue(folder, tmp_path, caller, days=(-800, -1) if kind == "expired" else (1, 800))
    own = [(tmp_path / f"{caller}.{end}").read_bytes() for end in ("pem", "key")]
    identity = Identity((folder / "ca.pem").read_bytes(), *own)
    for node, (method, several) in itertools.product(SERVERS, requests().items()):
        each = Peer(node, f"127.0.0.1:{ports[node]}", identity)
        with pytest.raises(CallError, match=r"UNAVAILABLE|DEADLINE_EXCEEDED"):
            each.call(method, several[0], 0.5)
        each.close()
    assert through == []


def _issue(folder, to, name, days):
    """A certificate of the folder's authority that is valid in these days from now."""
    own = ec.generate_private_key(ec.SECP256R1())
    signer = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    first, last = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=day) for day in days)
    certificate = (
        x509.CertificateBuilder(
            x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes()).subject,
            x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]),
            own.public_key(),
            x509.random_serial_number(),
            first,
            last,
        )
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(signer, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (to / f"{name}.pem").write_bytes(certificate.public_bytes(pem))
    (to / f"{name}.key").write_bytes(own.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))


def test_health_answers_whoever_belongs_to_the_fleets_authority(folder, served):
    each = peer(folder, "stranger", "cloud", served[0])
    assert not each.is_serving(10.0)
    served[2]["cloud"].serving()
    assert each.is_serving(10.0)
    each.close()
