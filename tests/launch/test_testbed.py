"""The commands as a user runs them: testbed up, status, down; one node; certificates; what is wrong in one line."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import psutil
import pytest

from edge_cloud import inventory as inventories
from launch.fleet.testbed import FLEET, STATE, running
from launch.latency import disagreements
from tests.helpers import fleets


def run(module: str, *arguments: str, status: int = 0) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", f"launch.{module}", *arguments]
    done = subprocess.run(command, cwd=fleets.ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done


@pytest.fixture
def fleet_file(model_dir, tmp_path):
    """A fleet of one device, with ports that the testbed picks."""
    text = (fleets.ROOT / "data" / "inventories" / "local.toml").read_text()
    text = text.replace("../../models", str(model_dir)).replace("../../certificates", "certificates")
    head, *nodes = text.split("[[nodes]]")
    kept = [node for node in nodes if not any(f'"S{index}"' in node for index in range(2, 6))]
    path = tmp_path / "fleet.toml"
    path.write_text("[[nodes]]".join([head, *kept]))
    return path


@pytest.mark.process
def test_up_status_down(fleet_file, tmp_path):
    state = f"--state_dir={tmp_path / 'testbed'}"
    try:
        up = run("testbed", "--action=up", f"--inventory={fleet_file}", state)
        assert "up: links, cloud, edge, S1" in up.stdout
        status = run("testbed", "--action=status", state)
        assert status.stdout.count(" serving") == 4
        again = run("testbed", "--action=up", f"--inventory={fleet_file}", state, status=2)
        assert "expected no running testbed" in again.stderr
        pids = [int(line.split()[-1]) for line in status.stdout.splitlines()]
        os.kill(pids[0], 9)
        broken = run("testbed", "--action=status", state, status=1)
        assert "not serving" in broken.stdout
    finally:
        down = run("testbed", "--action=down", state)
    assert "down: 3 processes ended" in down.stdout
    assert not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids)
    assert "expected a testbed that is up" in run("testbed", "--action=down", state, status=2).stderr


@pytest.mark.process
def test_a_testbeds_processes_are_known_by_what_they_run(tmp_path, monkeypatch, command):
    """Not by their start, which moves with the clock, nor by numbers in a file: a crash may have left none."""
    folder = tmp_path / "testbed"
    line = [sys.executable, "-c", "import time; time.sleep(60)", "launch.node"]
    ours = [f"--inventory={folder.resolve() / FLEET}", "--name=S1"]
    others = [f"--inventory={tmp_path / 'other' / FLEET}", "--name=S1"]
    with subprocess.Popen([*line, *ours]) as mine, subprocess.Popen([*line, *others]) as stranger:
        try:
            fleets.wait_for(lambda: list(running(folder)) == ["S1"])
            earlier = psutil.Process.create_time
            monkeypatch.setattr(psutil.Process, "create_time", lambda self: earlier(self) + 3600.0)
            assert running(folder)["S1"].pid == mine.pid
            (folder / STATE).unlink(missing_ok=True)  # whoever started them was killed before he wrote it
            done = command("testbed", "--action=down", f"--state_dir={folder}")
            assert (done.status, done.out) == (0, "down: 1 processes ended\n")
            fleets.wait_for(lambda: mine.poll() is not None)
            assert stranger.poll() is None
        finally:
            for process in (mine, stranger):
                process.kill()


@pytest.mark.process
def test_a_fleet_that_is_down_is_told_as_such(fleet_file, tmp_path):
    """Not as a record file that can't be written."""
    fixed = tmp_path / "fixed.toml"
    text = fleet_file.read_text().replace("127.0.0.1:0", "127.0.0.1:1")
    fixed.write_text(text.replace("deadline_ms = ", "deadline_ms = 500.0 # "))
    run("certs", f"--inventory={fixed}")
    done = run(
        "train",
        "--env=testbed",
        f"--inventory={fixed}",
        f"--scenario={fleets.ROOT / 'data' / 'scenarios' / 'expA.toml'}",
        "--users=1",
        "--agent=factored",
        "--seeds=1",
        "--epochs=1",
        f"--run_dir={tmp_path / 'run'}",
        status=1,
    )
    assert "error: fleet: expected news of every node" in one_line(done)


@pytest.mark.process
def test_certificates_for_an_inventory(command, fleet_file, tmp_path):
    made = run("certs", f"--inventory={fleet_file}")
    assert "made S1, edge, cloud, links, operator" in made.stdout
    assert (tmp_path / "certificates" / "S1.pem").exists()
    again = command("certs", f"--inventory={fleet_file}")
    assert again.status == 0
    assert "made nothing, all there" in again.out


def one_line(done: subprocess.CompletedProcess) -> str:
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:") or "Traceback" in line]
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_a_node_that_can_not_run_says_why(refused, fleet_file, tmp_path):
    def failed(*arguments):
        return refused(*arguments, name="node")

    assert "expected a readable file" in failed(f"--inventory={tmp_path / 'none.toml'}", "--name=S1")
    assert "expected a port other than 0" in failed(f"--inventory={fleet_file}", "--name=S1")
    fixed = tmp_path / "fixed.toml"
    fixed.write_text(fleet_file.read_text().replace("127.0.0.1:0", "127.0.0.1:1"))
    assert "name: expected one of S1, edge, cloud, found 'S9'" in failed(f"--inventory={fixed}", "--name=S9")
    assert "certificates: expected ca.pem" in failed(f"--inventory={fixed}", "--name=S1")


@pytest.mark.process
def test_a_node_whose_address_is_taken_says_so(model_dir, certificates, tmp_path):
    inventory = fleets.inventory(model_dir, certificates, devices=1)
    host, port = inventories.split_address(inventory.cloud.address)
    inventories.save(inventory, tmp_path / "fleet.json")
    with socket.create_server((host, port)):
        done = run("node", f"--inventory={tmp_path / 'fleet.json'}", "--name=cloud", status=2)
    assert "address: expected a free address" in one_line(done)


@pytest.mark.process
def test_a_node_stops_gracefully_on_sigterm(model_dir, certificates, tmp_path):
    inventory = fleets.inventory(model_dir, certificates, devices=1)
    inventories.save(inventory, tmp_path / "fleet.json")
    command = [sys.executable, "-m", "launch.node", f"--inventory={tmp_path / 'fleet.json'}", "--name=cloud"]
    with subprocess.Popen(command, cwd=fleets.ROOT, stdout=subprocess.PIPE, text=True) as node:
        assert node.stdout.readline().startswith("serving: cloud: cloud, 4 cores")
        node.terminate()
        assert node.stdout.readline() == "stopped\n"
        assert node.wait(30) == 0


@pytest.mark.process
def test_a_bare_device_needs_no_jax(model_dir, certificates, tmp_path):
    """The node's own imports, with JAX and its kin forbidden."""
    inventory = fleets.inventory(model_dir, certificates, devices=1)
    inventories.save(inventory, tmp_path / "fleet.json")
    script = (
        "import sys\n"
        "for name in ('jax', 'jaxlib', 'flax', 'optax', 'chex', 'scipy', 'h5py', 'cryptography', 'matplotlib'):\n"
        "    sys.modules[name] = None\n"
        "import launch.node\n"
        "from edge_cloud import inventory, node\n"
        f"with node.Node(inventory.load({str(tmp_path / 'fleet.json')!r}), 'cloud') as cloud:\n"
        "    print('port', cloud.port)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=fleets.ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("port ")


def test_orders_of_models_are_compared():
    assert disagreements({"a": 3.0, "b": 2.0, "c": 1.0}, {"a": 30.0, "b": 20.0, "c": 10.0}) == []
    assert disagreements({"a": 3.0, "b": 2.0, "c": 1.0}, {"a": 30.0, "b": 10.0, "c": 20.0}) == ["b, c"]
    assert disagreements({"a": 2.0, "b": 2.05}, {"a": 30.0, "b": 10.0}) == []  # too close to call


@pytest.mark.process
def test_the_generated_messages_are_those_of_the_proto_file(tmp_path):
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-I{fleets.ROOT}", f"--python_out={tmp_path}"]
    command = [*protoc, f"--pyi_out={tmp_path}", str(fleets.ROOT / "edge_cloud" / "messages.proto")]
    subprocess.run(command, check=True, timeout=60)
    for file in ("messages_pb2.py", "messages_pb2.pyi"):
        committed = (fleets.ROOT / "edge_cloud" / file).read_text()
        assert (tmp_path / "edge_cloud" / file).read_text() == committed, "make messages generates them"
