"""Seven network namespaces with their own addresses: the inventory path end to end, one of them cut off and restored.

Everything stays inside namespaces that this test makes: a hub with a bridge, the nodes, and the operator.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys

import pytest

from edge_cloud import inventory as inventories
from edge_cloud.certificates import make
from edge_cloud.inventory import RESERVED, Emulation, Inventory, NodeSpec
from tests.helpers import fleets

DEVICES = ("S1", "S2", "S3", "S4", "S5")
NODES = (*DEVICES, "edge", "cloud")
OPERATOR = """
import sys
from edge_cloud import inventory
from edge_cloud.client import Fleet
with Fleet(inventory.load(sys.argv[1]), timeout_s=10.0) as fleet:
    fleet.wait_until_known(120.0)
    print("known", flush=True)
    for line in sys.stdin:
        choices = [int(word) for word in line.split()]
        outcomes = fleet.step(choices, 4.0)
        print(" ".join(outcome.device for outcome in outcomes if outcome.lost), flush=True)
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=20)


@pytest.fixture
def network():
    """Namespaces by node name, with their addresses; `hub` holds the bridge."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the ip command (iproute2)")
    prefix = f"hl{os.getpid()}"
    spaces = {name: f"{prefix}-{name}" for name in ("hub", *NODES, "operator")}
    with contextlib.ExitStack() as stack:
        for space in spaces.values():
            try:
                ip("netns", "add", space)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"network namespaces can't be made here: {error.stderr.decode().strip()}")
            stack.callback(ip, "netns", "del", space)
        try:
            ip("-n", spaces["hub"], "link", "add", "bridge0", "type", "bridge")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"bridges can't be made here: {error.stderr.decode().strip()}")
        ip("-n", spaces["hub"], "link", "set", "bridge0", "up")
        addresses = {}
        for index, name in enumerate((*NODES, "operator"), start=1):
            ip("-n", spaces["hub"], "link", "add", name, "type", "veth", "peer", "eth0", "netns", spaces[name])
            ip("-n", spaces["hub"], "link", "set", name, "master", "bridge0", "up")
            ip("-n", spaces[name], "addr", "add", f"10.77.0.{index}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                ip("-n", spaces[name], "link", "set", device, "up")
            addresses[name] = f"10.77.0.{index}"
        yield spaces, addresses


@pytest.mark.process
@pytest.mark.clock
def test_a_fleet_on_addresses_of_its_own(network, model_dir, tmp_path):
    spaces, addresses = network
    nodes = tuple(
        NodeSpec(name, kind, f"{addresses[name]}:4701", cores)
        for name, kind, cores in [
            *((name, "device", 1) for name in DEVICES),
            ("edge", "edge", 2),
            ("cloud", "cloud", 4),
        ]
    )
    make(tmp_path, {name: [addresses.get(name, "127.0.0.1")] for name in (*NODES, *RESERVED)})
    inventory = Inventory(
        name="namespaces",
        nodes=nodes,
        models=fleets.MODELS,
        model_dir=str(model_dir),
        certificates=str(tmp_path),
        monitor_period_ms=300.0,
        emulation=Emulation("calibrated", 4.0, fleets.CPU_MS),
    )
    inventories.save(inventory, tmp_path / "fleet.json")
    environment = dict(os.environ, PYTHONPATH=str(fleets.ROOT))

    def start(name: str, *command: str, **pipes) -> subprocess.Popen:
        return subprocess.Popen(
            ["ip", "netns", "exec", spaces[name], sys.executable, *command], env=environment, text=True, **pipes
        )

    with contextlib.ExitStack() as stack:
        for name in NODES:
            command = ["-m", "launch.node", f"--inventory={tmp_path / 'fleet.json'}", f"--name={name}"]
            node = start(name, *command, "--exit_with_parent", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            stack.callback(node.wait, 30)
            stack.callback(node.terminate)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        operator = start("operator", "-c", OPERATOR, str(tmp_path / "fleet.json"), **pipes)
        stack.enter_context(operator)  # closes its pipes
        stack.callback(operator.kill)

        def lost(choices: str) -> str:
            operator.stdin.write(choices + "\n")
            operator.stdin.flush()
            return operator.stdout.readline().strip()

        assert operator.stdout.readline() == "known\n"
        assert lost("7 7 7 8 9") == ""
        ip("-n", spaces["hub"], "link", "set", "S2", "down")
        assert lost("7 7 7 8 9") == "S2"
        ip("-n", spaces["hub"], "link", "set", "S2", "up")
        fleets.wait_for(lambda: lost("7 8 7 8 9") == "", 60.0)
        ip("-n", spaces["hub"], "link", "set", "edge", "down")
        assert lost("7 7 7 7 7") == "S1 S2 S3 S4 S5"
        ip("-n", spaces["hub"], "link", "set", "edge", "up")
        fleets.wait_for(lambda: lost("7 7 7 8 9") == "", 60.0)
