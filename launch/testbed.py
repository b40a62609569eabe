"""All nodes of a fleet on this machine: `python -m launch.testbed --action=up`, then `--action=status` or `down`.

`--action=draw` makes a picture of what runs on real nodes left: `--topology=RUN`, who computes what under one run's
decision, with every device's response time; or `--regret=NAME=RUN,…`, regret of the greedy decision (by the twin's
times) against real steps, for runs that started differently.
"""

from __future__ import annotations

import atexit
import contextlib
import pathlib
from collections.abc import Callable

import psutil
from absl import flags

from edge_cloud.client import Fleet
from launch.fleet.inventory import connected, read_inventory
from launch.fleet.testbed import FLEET, GRACE_S, STATE, Testbed, running
from launch.host import errors, locks
from launch.host.errors import InputError, RunError
from launch.host.files import write_atomically
from launch.runs import fleet_figures

_ACTION = flags.DEFINE_enum(
    "action", "up", ["up", "status", "down", "draw"], "Start all nodes, ask for their health, end them; or draw runs."
)
_INVENTORY = flags.DEFINE_string("inventory", "data/inventories/local.toml", "The fleet (TOML); only up reads it.")
_STATE_DIR = flags.DEFINE_string("state_dir", ".testbed", "Folder of a running testbed: logs, certificates, ports.")
_TOPOLOGY = flags.DEFINE_string("topology", "", "To draw: a finished run on real nodes; its first seed's policy.")
_REGRET = flags.DEFINE_list("regret", [], "To draw and compare: NAME=RUN_FOLDER of finished runs with a twin.")
_OUT = flags.DEFINE_string("out", "", "PNG file to draw.")


def _connected(folder: pathlib.Path) -> Fleet:
    if not (folder / STATE).exists() and not running(folder):
        raise InputError(f"--state_dir: expected a testbed that is up, found none in {folder}")
    return connected(read_inventory(str(folder / FLEET)))


def _up(folder: pathlib.Path) -> int:
    inventory = read_inventory(_INVENTORY.value)
    with locks.held(folder, "--state_dir"):
        if running(folder):
            raise InputError(f"--action: expected no running testbed in {folder}, found one; --action=down ends it")
        testbed = Testbed(inventory, folder, with_parent=False)
        testbed.start()
        atexit.unregister(testbed.stop)
    print(f"up: {', '.join(testbed.names())}; inventory {folder / FLEET}")
    return 0


def _status(folder: pathlib.Path) -> int:
    with _connected(folder) as fleet:
        serving = fleet.serving(1.0)
    processes = running(folder)
    for name, fine in serving.items():
        place = f"process {processes[name].pid}" if name in processes else "no process"
        print(f"{name:<8} {'serving' if fine else 'not serving':<12} {place}")
    return 0 if all(serving.values()) else 1


def _down(folder: pathlib.Path) -> int:
    processes = list(running(folder).values())
    if not processes and not (folder / STATE).exists():
        raise InputError(f"--state_dir: expected a testbed that is up, found none in {folder}")
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
            process.resume()
    for process in psutil.wait_procs(processes, GRACE_S)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    left = psutil.wait_procs(processes, GRACE_S)[1]
    if left:
        raise RunError(f"down: expected all to end, found still running: {', '.join(str(one.pid) for one in left)}")
    (folder / STATE).unlink(missing_ok=True)
    print(f"down: {len(processes)} processes ended")
    return 0


def _draw(_: pathlib.Path) -> int:
    if not _OUT.value:
        raise InputError("--out: expected a PNG file to draw, found none")
    if bool(_TOPOLOGY.value) == bool(_REGRET.value):
        raise InputError("--topology, --regret: expected one of them, found both or none")
    if _TOPOLOGY.value:
        content = fleet_figures.topology(pathlib.Path(_TOPOLOGY.value))
    else:
        parts = [entry.partition("=") for entry in _REGRET.value]
        if any(not folder for _, _, folder in parts):
            raise InputError(f"--regret: expected NAME=RUN_FOLDER,…, found {','.join(_REGRET.value)!r}")
        content = fleet_figures.regret({name: pathlib.Path(folder) for name, _, folder in parts})
    write_atomically(pathlib.Path(_OUT.value), content)
    return 0


_DO: dict[str, Callable[[pathlib.Path], int]] = {"up": _up, "status": _status, "down": _down, "draw": _draw}


def main() -> int:
    """Does what `--action` says."""
    return _DO[_ACTION.value](pathlib.Path(_STATE_DIR.value))


if __name__ == "__main__":
    errors.run(main)
