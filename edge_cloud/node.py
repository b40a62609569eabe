"""One node of the fleet: its Intelligent Service and Resource Monitoring, and what its place in Figure 1 adds.

`run` is what `python -m launch.node` calls. A node serves once its models are loaded, and stops gracefully on SIGTERM.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import pathlib
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import Message

from edge_cloud import messages_pb2 as pb
from edge_cloud import monitor
from edge_cloud.access import Access
from edge_cloud.background import Background
from edge_cloud.device import DeviceApplication
from edge_cloud.edge import EdgeRouter
from edge_cloud.inventory import LINK_CONTROL, Inventory, NodeSpec, split_address
from edge_cloud.orchestrator import FleetTable, Orchestrator, Policy
from edge_cloud.own_requests import OwnRequests
from edge_cloud.relay import Relay, RelayHost
from edge_cloud.rpc import Call, CallError, Faults, Handler, Identity, Peer, Refused, Server
from edge_cloud.runtime import IMAGE_BYTES, Model, load_pool, measure_cpu_ms
from edge_cloud.service import acknowledged
from edge_cloud.slots import Pacing, Slots

# Threads that serve calls beyond one per slot and waiting request: decisions, reports and orders must get through.
SPARE_WORKERS = 24


def calibrated(pacing: Pacing, models: dict[str, Model]) -> Pacing:
    """The pacing with CPU times for all models: the inventory's, or measured now."""
    if pacing.mode != "calibrated" or set(models) <= set(pacing.cpu_ms):
        return pacing
    return Pacing(pacing.mode, pacing.scale, measure_cpu_ms(models) | dict(pacing.cpu_ms))


def camera(name: str) -> Callable[[], bytes]:
    """A stand-in for a device's camera: always the same image, different for each device."""
    image = np.random.default_rng(list(name.encode())).integers(0, 256, IMAGE_BYTES, np.uint8).tobytes()
    return lambda: image


class Node:
    """A running node. Use as a context.

    Args:
      inventory: the fleet.
      name: which node of it.
      policy: cloud only: decides; by default whoever drives the fleet from outside does.

    Raises:
      ValueError: if the inventory has no such node, or its models or certificates can't be used.
      OSError: if its address can't be listened at.
    """

    def __init__(self, inventory: Inventory, name: str, policy: Policy | None = None) -> None:
        self.spec = inventory.node(name)
        self._inventory = inventory
        self._sequence = itertools.count(1)
        self._started = secrets.randbits(64)
        self._upper = monitor.Upper()
        self._stop = threading.Event()
        self._closing = contextlib.ExitStack()
        try:
            self._start(policy)
        except BaseException:
            self.close()
            raise

    def _start(self, policy: Policy | None) -> None:
        inventory, spec = self._inventory, self.spec
        identity = Identity.read(pathlib.Path(inventory.certificates), spec.name)
        names, folder = inventory.pool_of(spec), pathlib.Path(inventory.model_dir)
        first = load_pool(folder, names)
        pacing = calibrated(inventory.pacing(spec), first)
        self._background = Background(spec.cores, 1.0 if pacing.mode == "off" else pacing.scale)
        self._closing.callback(self._background.close)
        self._background.set(spec.background_cpu, spec.background_memory_mb)
        pools = itertools.chain([first], (load_pool(folder, names) for _ in itertools.count()))
        # On real cores the background load slows inferences down by itself.
        share = (lambda: 0.0) if pacing.mode == "off" else (lambda: self._background.cpu)
        self._slots = Slots(lambda: next(pools), spec.cores, pacing, inventory.waiting, share)
        self._closing.callback(self._slots.close)
        self._emulated = pacing.mode != "off"
        busy, cores = self._slots.busy_seconds, spec.cores
        if not self._emulated:
            busy, cores = monitor.machine_busy_seconds, monitor.machine_cores()
        self._utilization = monitor.Utilization(busy, cores, inventory.monitor_period_ms / 1000.0)
        self._peer: Peer | None = None
        if upper := inventory.upper(spec):
            self._peer = Peer(upper.name, inventory.dial_address(spec), identity)
            self._closing.callback(self._peer.close)
        faults = Faults() if inventory.emulation and inventory.emulation.faults else None
        handlers = self._handlers(policy)
        handlers["SetBackground"] = self._set_background
        if faults is not None:
            handlers["SetFault"] = functools.partial(_set_fault, faults)
        workers = spec.cores + inventory.waiting + SPARE_WORKERS
        if spec.kind == "edge":  # which also waits for the cloud's answers, and with every device for its next lease
            workers += inventory.cloud.cores + inventory.waiting + len(inventory.devices)
        access = Access.of(inventory, spec.name)
        self._server = Server(spec.address, handlers, identity, access, workers, faults)
        self._closing.callback(self._server.close)
        self.port = self._server.port
        for work, period_s in (
            (self._utilization.sample, inventory.monitor_period_ms / 1000.0 / monitor.SAMPLES_PER_WINDOW),
            (self._broadcast, inventory.monitor_period_ms / 1000.0),
        ):
            thread = threading.Thread(target=self._repeat, args=(work, period_s), daemon=True, name="monitor")
            thread.start()
            self._closing.callback(thread.join, 5.0)
        self._closing.callback(self._stop.set)
        self._server.serving()

    def _handlers(self, policy: Policy | None) -> dict[str, Handler]:
        """The methods of this kind of node."""
        inventory, spec, slots = self._inventory, self.spec, self._slots
        if spec.kind == "cloud":
            table = FleetTable([device.name for device in inventory.devices], inventory.edge.name, spec.name)
            cloud = Orchestrator(table, len(inventory.models) + 2, slots, self.status, policy)
            return {
                "Decide": cloud.decide,
                "Classify": cloud.classify,
                "Tell": cloud.tell,
                "Broadcast": cloud.broadcast,
                "SetOperator": cloud.set_operator,
                "SetPlan": cloud.set_plan,
                "GetState": cloud.get_state,
                "SetStanding": cloud.set_standing,
                "GetStanding": cloud.get_standing,
                "TellRequests": cloud.tell_requests,
                "CollectRequests": cloud.collect_requests,
            }
        assert self._peer is not None
        if spec.kind == "edge":
            devices = [device.name for device in inventory.devices]
            edge = EdgeRouter(spec.name, devices, slots, self._peer, self.status, self._tell)
            self._closing.callback(edge.close)
            return {
                "Decide": edge.decide,
                "Classify": edge.classify,
                "Tell": edge.tell,
                "Broadcast": edge.broadcast,
                "GetLease": edge.get_lease,
                "TellRequests": edge.tell_requests,
            }
        device = DeviceApplication(
            spec.name, inventory.models, slots, self._peer, camera(spec.name), self.status, self._tell
        )
        lost_after_s = inventory.deadline_ms / 1000.0
        own = OwnRequests(spec.name, self._started, len(inventory.models), self._peer, device.execute, lost_after_s)
        self._closing.callback(own.close)
        return {"Infer": device.infer, "SetTraffic": own.set_traffic}

    def status(self) -> pb.Status:
        """What the monitor reads now."""
        cpu = self._utilization.read()
        memory = monitor.machine_memory()
        if self._emulated:
            # The background takes what it takes of each core, whether or not an inference holds the slot.
            cpu = self._background.cpu + (1.0 - self._background.cpu) * cpu
            memory = monitor.process_memory(self.spec.memory_mb) if self.spec.memory_mb else memory
        return pb.Status(
            node=self.spec.name,
            sequence=next(self._sequence),
            sent_at_ms=1000.0 * time.time(),
            cpu=cpu,
            memory=memory,
            upper_delay_ms=self._upper.delay_ms,
            round_trip_ms=self._upper.round_trip_ms,
            started=self._started,
        )

    def _tell(self, method: str, message: Message, timeout_s: float) -> None:
        assert self._peer is not None
        sent = time.monotonic()
        ack: pb.Ack = self._peer.call(method, message, timeout_s)
        self._upper.answered(ack.sent_at_ms, 1000.0 * (time.monotonic() - sent), ack.held_ms)

    def _broadcast(self) -> None:
        if self._peer is None:
            return
        timeout_s = max(self._inventory.monitor_period_ms / 1000.0, 0.5)
        with contextlib.suppress(CallError):  # nobody to tell: the next one may get through
            self._tell("Broadcast", pb.StatusList(statuses=[self.status()]), timeout_s)

    def _repeat(self, work: Callable[[], None], period_s: float) -> None:
        while not self._stop.wait(period_s):
            work()

    def _set_background(self, request: pb.Background, call: Call) -> pb.Ack:
        try:
            self._background.set(request.cpu, request.memory_mb)
        except ValueError as error:
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
        return acknowledged(call)

    def close(self) -> None:
        """Refuses new calls, lets those under way end, and stops."""
        self._closing.close()

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _set_fault(faults: Faults, request: pb.Fault, call: Call) -> pb.Ack:
    faults.set(request)
    return acknowledged(call)


class Links:
    """The emulated links of a fleet: a relay per link, and a server that takes orders for them. Use as a context.

    Raises:
      ValueError: if the inventory emulates no links, or has no certificates for it.
      OSError: if an address can't be listened at.
    """

    def __init__(self, inventory: Inventory) -> None:
        emulation = inventory.emulation
        if emulation is None or not emulation.control:
            raise ValueError(f"emulation.control: expected host:port, found none in inventory {inventory.name}")
        identity = Identity.read(pathlib.Path(inventory.certificates), LINK_CONTROL)
        self._closing = contextlib.ExitStack()
        self._relays = RelayHost()
        self._closing.callback(self._relays.close)
        try:
            for node in inventory.nodes:
                upper = inventory.upper(node)
                if upper is None or not node.uplink:
                    continue
                up, down = (emulation.weak_link_ms * (each.link == "weak") for each in (node, upper))
                relay = Relay(split_address(node.uplink), split_address(upper.address), up, down)
                self._relays.add(node.name, relay)
            access = Access.of(inventory, LINK_CONTROL)
            self._server = Server(emulation.control, {"SetLink": self._set_link}, identity, access, workers=4)
        except BaseException:
            self.close()
            raise
        self._closing.callback(self._server.close)
        self._server.serving()

    def _set_link(self, request: pb.LinkSetting, call: Call) -> pb.Ack:
        if not (0.0 <= request.up_ms <= 60000.0 and 0.0 <= request.down_ms <= 60000.0):
            found = f"{request.up_ms:g} and {request.down_ms:g}"
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"link: expected delays in [0, 60000] ms, found {found}")
        try:
            self._relays.set(request.link, request.up_ms, request.down_ms, request.cut)
        except KeyError as error:
            found = f"{request.link[:40]!r}"
            raise Refused(grpc.StatusCode.NOT_FOUND, f"link: expected a lower node's name, found {found}") from error
        return acknowledged(call)

    def close(self) -> None:
        """Drops all connections and stops."""
        self._closing.close()

    def __enter__(self) -> Links:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def describe(spec: NodeSpec) -> str:
    """One line for the log."""
    return f"{spec.name}: {spec.kind}, {spec.cores} cores, {spec.link} link"
