"""All nodes of a fleet on this machine: `python -m launch.testbed --action=up`, then `--action=status` or `down`."""

from __future__ import annotations

import atexit
import contextlib
import json
import pathlib
from collections.abc import Callable

import psutil
from absl import flags

from edge_cloud import inventory as inventories
from edge_cloud.client import Fleet
from edge_cloud.inventory import InventoryError
from launch import errors
from launch.errors import InputError
from launch.local_fleet import FLEET, GRACE_S, STATE, Testbed

_ACTION = flags.DEFINE_enum(
    "action", "up", ["up", "status", "down"], "Start all nodes, ask for their health, or end them."
)
_INVENTORY = flags.DEFINE_string("inventory", "data/inventories/local.toml", "The fleet (TOML); only up reads it.")
_STATE_DIR = flags.DEFINE_string("state_dir", ".testbed", "Folder of a running testbed: logs, certificates, ports.")


def running(folder: pathlib.Path) -> dict[str, psutil.Process]:
    """The processes of a testbed that was brought up in `folder` and still run.

    Raises:
      InputError: if there was none.
    """
    try:
        entries = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--state_dir: expected a testbed that is up, found none in {folder}") from error
    found = {}
    for name, entry in entries.items():
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(entry["pid"])
            # A number may have been given to another process since.
            if process.create_time() == entry["started"] and process.status() != psutil.STATUS_ZOMBIE:
                found[name] = process
    return found


def _up(folder: pathlib.Path) -> int:
    if (folder / STATE).exists() and running(folder):
        raise InputError(f"--action: expected no running testbed in {folder}, found one; --action=down ends it")
    try:
        inventory = inventories.load(_INVENTORY.value)
    except InventoryError as error:
        raise InputError(str(error)) from error
    testbed = Testbed(inventory, folder, with_parent=False)
    testbed.start()
    atexit.unregister(testbed.stop)
    print(f"up: {', '.join(testbed.names())}; inventory {folder / FLEET}")
    return 0


def _status(folder: pathlib.Path) -> int:
    processes = running(folder)
    with Fleet(inventories.load(folder / FLEET)) as fleet:
        serving = fleet.serving(1.0)
    for name, fine in serving.items():
        place = f"process {processes[name].pid}" if name in processes else "no process"
        print(f"{name:<8} {'serving' if fine else 'not serving':<12} {place}")
    return 0 if all(serving.values()) else 1


def _down(folder: pathlib.Path) -> int:
    processes = list(running(folder).values())
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
            process.resume()
    for process in psutil.wait_procs(processes, GRACE_S)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, GRACE_S)
    (folder / STATE).unlink(missing_ok=True)
    print(f"down: {len(processes)} processes ended")
    return 0


_DO: dict[str, Callable[[pathlib.Path], int]] = {"up": _up, "status": _status, "down": _down}


def main() -> int:
    """Does what `--action` says."""
    return _DO[_ACTION.value](pathlib.Path(_STATE_DIR.value))


if __name__ == "__main__":
    errors.run(main)
