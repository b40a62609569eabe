"""Small fleets for tests: inventories with free ports, real certificates, models built once."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from edge_cloud import certificates as authority
from edge_cloud.client import Fleet
from edge_cloud.inventory import RESERVED, Emulation, Inventory, NodeSpec
from edge_cloud.node import Links, Node
from hl_jax import simulator
from hl_jax.objective import straight_penalty
from hl_jax.scenario import Scenario
from launch.fleet import model_files
from launch.fleet.testbed import with_ports

ROOT = pathlib.Path(__file__).parent.parent.parent
MODELS = tuple(f"d{index}" for index in range(8))
EDGE, CLOUD = len(MODELS), len(MODELS) + 1  # choices
# Fixed CPU times: what a test expects then doesn't depend on the machine.
CPU_MS = {"d0": 10.0, "d1": 8.0, "d2": 6.0, "d3": 5.0, "d4": 9.0, "d5": 7.0, "d6": 4.0, "d7": 3.0}
LOCAL = "127.0.0.1:0"


def built_models() -> pathlib.Path:
    """The eight models of Table III, built if they aren't there."""
    folder = ROOT / ".cache" / "models"
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / "models.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one worker builds them, the others wait
        model_files.build(folder, model_files.read_recipes(ROOT / "data" / "pools" / "mobilenet.toml"))
    return folder


def make_certificates(folder: pathlib.Path, devices: int = 5) -> None:
    """An authority with certificates for all nodes that `inventory` names."""
    names = [*(f"S{index + 1}" for index in range(devices)), "edge", "cloud", *RESERVED]
    authority.make(folder, {name: ["127.0.0.1"] for name in names})


def inventory(
    model_dir: pathlib.Path,
    certificates: pathlib.Path,
    devices: int = 2,
    links: bool = False,
    weak: tuple[str, ...] = (),
    scale: float = 5.0,
    faults: bool = False,
    **changes: Any,
) -> Inventory:
    """A fleet on free ports; `links` puts relays on all links."""
    up = LOCAL if links else ""
    names = [(f"S{index + 1}", "device", 1) for index in range(devices)]
    nodes = tuple(
        NodeSpec(name, kind, LOCAL, cores, link="weak" if name in weak else "regular", uplink=up)
        for name, kind, cores in [*names, ("edge", "edge", 2), ("cloud", "cloud", 4)]
    )
    values: dict[str, Any] = {"deadline_ms": 5000.0, "monitor_period_ms": 200.0}
    made = Inventory(
        name="test",
        nodes=nodes,
        models=MODELS,
        model_dir=str(model_dir),
        certificates=str(certificates),
        emulation=Emulation("calibrated", scale, CPU_MS, control=LOCAL if links else "", faults=faults),
        **(values | changes),
    )
    return with_ports(made)


@contextlib.contextmanager
def running(inventory: Inventory, **policies: Any) -> Iterator[tuple[Fleet, dict[str, Node]]]:
    """All nodes of a fleet in this process, known to the cloud, with its operator."""
    with contextlib.ExitStack() as stack:
        if inventory.emulation is not None and inventory.emulation.control:
            stack.enter_context(Links(inventory))
        nodes = {
            node.name: stack.enter_context(Node(inventory, node.name, policies.get(node.name)))
            for node in reversed(inventory.nodes)
        }
        fleet = stack.enter_context(Fleet(inventory, timeout_s=10.0))
        fleet.wait_until_known(30.0)
        yield fleet, nodes


def params_of(scenario: Scenario) -> simulator.EnvParams:
    """The scenario's arrays with a penalty that no test breaks for profit."""
    return simulator.make_params(scenario, straight_penalty(100.0, 212.0))


def changed(inventory: Inventory, name: str, **changes: Any) -> Inventory:
    """The inventory with one node changed."""
    nodes = tuple(dataclasses.replace(node, **changes) if node.name == name else node for node in inventory.nodes)
    return dataclasses.replace(inventory, nodes=nodes)


def wait_for(condition: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    """Waits until a condition holds, and gives its value."""
    ends = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < ends, f"expected the condition to hold within {timeout_s:g} s"
        time.sleep(0.02)
    return value
