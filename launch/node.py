"""Runs one node of a fleet: `python -m launch.node --inventory=fleet.toml --name=S1`, on any machine.

`requirements-node.txt` is all it needs: no JAX. SIGTERM and SIGINT stop it gracefully.
"""

from __future__ import annotations

import os
import pathlib
import signal
import threading
from collections.abc import Callable

from absl import flags

from edge_cloud import inventory as inventories
from edge_cloud.inventory import Inventory, InventoryError, split_address
from launch.host import errors
from launch.host.errors import InputError

_INVENTORY = flags.DEFINE_string("inventory", None, "Inventory (TOML) that names the fleet's nodes.", required=True)
_NAME = flags.DEFINE_string("name", None, "Which node to run; links: the emulation of the links.", required=True)
_WITH_PARENT = flags.DEFINE_bool(
    "exit_with_parent", False, "Stop when the process that started this one is gone, as the testbed wants."
)
PARENT_PERIOD_S = 0.5


def _check_ports(inventory: Inventory, name: str) -> None:
    for node in inventory.nodes:
        if split_address(node.address)[1] == 0:
            raise InputError(
                f"nodes.{node.name}.address: expected a port other than 0 to run {name} by itself, found "
                f"{node.address!r}; only launch.testbed picks ports"
            )


def _serve(close: Callable[[], None], started: str) -> None:
    """Waits for a signal, or for the parent to go."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    parent = os.getppid()
    print(f"serving: {started}", flush=True)
    while not stop.wait(PARENT_PERIOD_S):
        if _WITH_PARENT.value and os.getppid() != parent:
            print("stopping: the parent is gone", flush=True)
            break
    close()
    print("stopped", flush=True)


def main() -> None:
    """Runs the node until it is told to stop."""
    try:
        inventory = inventories.load(_INVENTORY.value)
        _check_ports(inventory, _NAME.value)
        # The runtime is slow to load: a wrong inventory is told at once.
        from edge_cloud import node as nodes

        if _NAME.value == "links":
            _serve(nodes.Links(inventory).close, f"links of {inventory.name}")
        else:
            spec = inventory.node(_NAME.value)
            _serve(nodes.Node(inventory, spec.name).close, f"{nodes.describe(spec)}, at {spec.address}")
    except InventoryError as error:
        raise InputError(f"{error} of {pathlib.Path(_INVENTORY.value)}") from error
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from error


if __name__ == "__main__":
    errors.run(main)
