"""All nodes of a fleet as processes of this machine: what `launch.testbed` brings up and the adapter runs on.

What belongs to a running testbed is in one folder: the inventory with the ports it got, certificates, logs, and the
processes' numbers.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import json
import os
import pathlib
import platform
import signal
import socket
import subprocess
import sys
import time

import psutil

from edge_cloud import inventory as inventories
from edge_cloud.inventory import RESERVED, Inventory, split_address
from edge_cloud.runtime import load_pool, measure_cpu_ms
from launch.fleet import model_files
from launch.fleet.inventory import connected
from launch.host.errors import InputError, RunError
from launch.host.files import ROOT, write_json

POOL = "data/pools/mobilenet.toml"
STATE, FLEET = "testbed.json", "inventory.json"
NODE = "launch.node"
CPU_TIMES = "cpu_ms.json"  # in the folder of the models
CPU_REPEATS = 31  # inferences of each model
READY_S = 90.0  # for all nodes to load their models and serve, on a machine with two slow cores
GRACE_S = 5.0  # from SIGTERM to SIGKILL
TRIES = 3  # a port that was free may be taken before its node listens


def _arguments(folder: pathlib.Path, name: str) -> list[str]:
    return [f"--inventory={folder / FLEET}", f"--name={name}"]


def running(folder: pathlib.Path) -> dict[str, psutil.Process]:
    """The nodes' processes of a testbed in `folder`, by name, whoever started them and whatever became of him.

    They are known by their command line, which names the folder and the node. A process's number may be another's by
    now, and the time it started at changes with the clock.
    """
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line = process.cmdline()
            if NODE not in line or process.status() == psutil.STATUS_ZOMBIE:
                continue
            name = next((part.removeprefix("--name=") for part in line if part.startswith("--name=")), "")
            if set(_arguments(folder.resolve(), name)) <= set(line):
                found[name] = process
    return found


class TestbedError(RunError):
    """A node didn't start. The message holds the end of its log."""


def _free_ports(count: int, host: str) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((host, 0))
        return [each.getsockname()[1] for each in sockets]


def with_ports(inventory: Inventory) -> Inventory:
    """The inventory with a free port wherever it says 0."""

    def filled(address: str) -> str:
        if not address:
            return address
        host, port = split_address(address)
        return f"{host}:{port or _free_ports(1, host)[0]}"

    nodes = tuple(
        dataclasses.replace(node, address=filled(node.address), uplink=filled(node.uplink)) for node in inventory.nodes
    )
    emulation = inventory.emulation
    if emulation is not None:
        emulation = dataclasses.replace(emulation, control=filled(emulation.control))
    return dataclasses.replace(inventory, nodes=nodes, emulation=emulation)


def with_models(inventory: Inventory) -> Inventory:
    """Builds the models that are missing, and measures their CPU times where the pacing wants them.

    Raises:
      InputError: if they can't be built.
    """
    folder = pathlib.Path(inventory.model_dir)
    missing = [name for name in inventory.models if not (folder / f"{name}.tflite").exists()]
    if missing:  # what is there may be the user's own
        recipes = [recipe for recipe in model_files.read_recipes(pathlib.Path(POOL)) if recipe.name in missing]
        unknown = set(missing) - {recipe.name for recipe in recipes}
        if unknown:
            raise InputError(f"models: expected files in {folder}, found none for {', '.join(sorted(unknown))}")
        model_files.build(folder, recipes)
    emulation = inventory.emulation
    if emulation is None or emulation.pacing != "calibrated" or set(inventory.models) <= set(emulation.cpu_ms):
        return inventory
    emulation = dataclasses.replace(emulation, cpu_ms=_cpu_ms(folder, inventory.models) | dict(emulation.cpu_ms))
    return dataclasses.replace(inventory, emulation=emulation)


def _cpu_ms(folder: pathlib.Path, names: tuple[str, ...]) -> dict[str, float]:
    """CPU times of the models on this machine, ms: measured once, and kept beside them.

    Nodes that measured for themselves would disturb one another; and a fleet whose times changed from start to start
    would be another fleet each time: a run couldn't be resumed, nor a digital twin be used.
    """
    path = folder / CPU_TIMES
    files = {name: (folder / f"{name}.tflite").stat().st_mtime_ns for name in names}
    made_of = {"machine": platform.node(), "files": files}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["of"] == made_of:
            return {name: float(kept["cpu_ms"][name]) for name in names}
    measured = measure_cpu_ms(load_pool(folder, names), CPU_REPEATS)
    write_json(path, {"of": made_of, "cpu_ms": measured}, indent=2)
    return measured


def make_certificates(inventory: Inventory) -> list[str]:
    """Makes the certificates of all nodes, the operator and the link emulation that are missing.

    Returns:
      The names for which one was made now.

    Raises:
      InputError: if the folder can't be used, or `cryptography` isn't installed.
    """
    try:
        from edge_cloud import certificates  # only who makes certificates needs the package
    except ImportError as error:
        raise InputError(f"certificates: expected the package cryptography, found {error}") from error
    hosts = {node.name: [split_address(node.address)[0]] for node in inventory.nodes}
    hosts |= {name: [] for name in RESERVED}
    try:
        return certificates.make(pathlib.Path(inventory.certificates), hosts)
    except (OSError, ValueError) as error:
        raise InputError(f"certificates: expected a usable folder, found {error}") from error


class Testbed:
    """A fleet's nodes as processes on this machine. Use as a context: leaving it ends them, whatever happened.

    Args:
      inventory: the fleet; ports 0 are replaced by free ones.
      folder: where logs, certificates and the final inventory go.
      with_parent: nodes stop when this process is gone, even if it was killed.

    Attributes:
      inventory: the fleet with its ports, once started.
    """

    def __init__(self, inventory: Inventory, folder: pathlib.Path, with_parent: bool = True) -> None:
        self.inventory, self._folder, self._with_parent = inventory, folder.resolve(), with_parent
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Starts all nodes and waits until they serve and the cloud knows of all of them.

        Raises:
          InputError: if models or certificates can't be had.
          TestbedError: if a node doesn't start.
        """
        try:
            self._start()
        except OSError as error:
            self.stop()
            where = f" at {error.filename}" if error.filename else ""
            expected = f"free ports and a folder that can be written ({self._folder})"
            raise InputError(f"testbed: expected {expected}, found {error.strerror or error}{where}") from error

    def _start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        given = with_models(dataclasses.replace(self.inventory, certificates=str(self._folder / "certificates")))
        make_certificates(given)
        atexit.register(self.stop)
        for attempt in range(1, TRIES + 1):
            self.inventory = with_ports(given)
            inventories.save(self.inventory, self._folder / FLEET)
            try:
                # From the top down, so that a node's first calls find their neighbour.
                for name in self.names():
                    self._spawn(name)
                self._wait_until_serving()
                self._write_state()
                return
            except TestbedError as error:
                self.stop()
                if attempt == TRIES or "address" not in str(error):
                    raise
            except BaseException:
                self.stop()
                raise

    def names(self) -> list[str]:
        """All processes: cloud, edge, devices, and the links if they are emulated."""
        inventory = self.inventory
        nodes = [inventory.cloud.name, inventory.edge.name, *(device.name for device in inventory.devices)]
        emulated = inventory.emulation is not None and inventory.emulation.control
        return ["links", *nodes] if emulated else nodes

    def pid(self, name: str) -> int:
        """Process number of a node."""
        return self._processes[name].pid

    def kill(self, name: str) -> None:
        """Ends a node with SIGKILL, as a crash would."""
        self._processes[name].kill()
        self._processes[name].wait()

    def pause(self, name: str) -> None:
        """Makes a node hang (SIGSTOP)."""
        self._processes[name].send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Lets a hanging node go on."""
        self._processes[name].send_signal(signal.SIGCONT)

    def restart(self, name: str) -> None:
        """Starts a node that was killed again, at its old address. Doesn't wait until it serves."""
        self._spawn(name)

    def stop(self) -> None:
        """Ends all processes: gracefully, then by force."""
        atexit.unregister(self.stop)
        running = [process for process in self._processes.values() if process.poll() is None]
        for process in running:
            process.terminate()
            process.send_signal(signal.SIGCONT)  # one that hangs wouldn't hear
        ends = time.monotonic() + GRACE_S
        for process in running:
            try:
                process.wait(max(ends - time.monotonic(), 0.01))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()
        (self._folder / STATE).unlink(missing_ok=True)

    def _spawn(self, name: str) -> None:
        command = [sys.executable, "-m", NODE, *_arguments(self._folder, name)]
        if self._with_parent:
            command.append("--exit_with_parent")
        environment = dict(os.environ, PYTHONPATH=str(ROOT.absolute()))
        with (self._folder / f"{name}.log").open("ab") as log:
            # A session of its own: Ctrl-C reaches this process alone, which ends them in order.
            self._processes[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def _wait_until_serving(self) -> None:
        ends = time.monotonic() + READY_S
        with connected(self.inventory) as fleet:
            waiting = set(self.names())
            while waiting:
                for name in sorted(waiting):
                    if self._processes[name].poll() is not None:
                        raise TestbedError(f"{name}: expected it to serve, found it ended: {self._last_line(name)}")
                waiting = {name for name, fine in fleet.serving(1.0).items() if not fine}
                if waiting and time.monotonic() > ends:
                    found = ", ".join(sorted(waiting))
                    raise TestbedError(f"nodes: expected all to serve within {READY_S:g} s, found not: {found}")
                time.sleep(0.1 if waiting else 0.0)
            try:
                fleet.wait_until_known(max(ends - time.monotonic(), 5.0))
            except TimeoutError as error:
                raise TestbedError(str(error)) from error

    def _last_line(self, name: str) -> str:
        lines = (self._folder / f"{name}.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "its log is empty"

    def _write_state(self) -> None:
        entries = {name: {"pid": process.pid} for name, process in self._processes.items()}
        write_json(self._folder / STATE, entries, indent=2)

    def __enter__(self) -> Testbed:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
