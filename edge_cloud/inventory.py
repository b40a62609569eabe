"""The inventory: one file that names a fleet's nodes with their addresses, links, cores, models and certificates.

A TOML file for people, or a JSON file of the same shape, which the local testbed writes once it knows its ports.
Paths in it are relative to it. On real machines the `[emulation]` table is left out.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import secrets
import tomllib
from collections.abc import Mapping
from typing import Any

from edge_cloud.background import MOST_CPU
from edge_cloud.slots import PACINGS, Pacing

KINDS = ("device", "edge", "cloud")
LINKS = ("regular", "weak")
LINK_CONTROL = "links"  # the process that emulates the links
OPERATOR = "operator"  # whoever drives the fleet
RESERVED = (LINK_CONTROL, OPERATOR)  # they have certificates too


class InventoryError(ValueError):
    """The inventory can't be used: one line with what was expected, what was found, and where."""


def _require(ok: bool, what: str, expected: str, found: object) -> None:
    if not ok:
        shown = repr(found)
        raise InventoryError(f"{what}: expected {expected}, found {shown if len(shown) <= 80 else shown[:77] + '...'}")


def _number(value: object, what: str, low: float, high: float) -> None:
    fine = isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
    _require(fine, what, f"a number in [{low:g}, {high:g}]", value)


def _integer(value: object, what: str, low: int, high: int) -> None:
    fine = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    _require(fine, what, f"an integer in [{low}, {high}]", value)


def _name(value: object, what: str) -> None:
    # Names become file names and host names in certificates.
    fine = isinstance(value, str) and 0 < len(value) <= 63 and value.replace("-", "").isalnum() and value.isascii()
    _require(fine, what, "letters, digits and '-'", value)


def split_address(address: str) -> tuple[str, int]:
    """`host:port` as its two parts; an IPv6 host stands in brackets.

    Raises:
      InventoryError: if it isn't one.
    """
    host, colon, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
    fine = bool(host) and colon == ":" and port.isascii() and port.isdigit() and int(port) <= 65535
    _require(fine, "address", "host:port", address)
    return host.strip("[]"), int(port)


@dataclasses.dataclass(frozen=True)
class NodeSpec:
    """One node. Port 0 in an address: the local testbed picks one."""

    name: str
    kind: str
    address: str  # where it listens
    cores: int = 1
    speed: float = 1.0  # with pacing: 2.0 computes twice as fast
    link: str = "regular"  # with emulation, a weak link delays every outgoing message
    uplink: str = ""  # with emulation: where the relay to its upper neighbour listens; empty: none
    background_cpu: float = 0.0  # part of each core that a background load takes
    background_memory_mb: float = 0.0
    memory_mb: float = 0.0  # with emulation: the node's memory; 0: the machine's

    def __post_init__(self) -> None:
        _name(self.name, "nodes.name")
        where = f"nodes.{self.name}"
        _require(self.name not in RESERVED, f"{where}.name", f"another name than {', '.join(RESERVED)}", self.name)
        _require(self.kind in KINDS, f"{where}.kind", ", ".join(KINDS), self.kind)
        _require(self.link in LINKS, f"{where}.link", " or ".join(LINKS), self.link)
        _integer(self.cores, f"{where}.cores", 1, 256)
        _number(self.speed, f"{where}.speed", 0.01, 100.0)
        _number(self.background_cpu, f"{where}.background_cpu", 0.0, MOST_CPU)
        _number(self.background_memory_mb, f"{where}.background_memory_mb", 0.0, 65536.0)
        _number(self.memory_mb, f"{where}.memory_mb", 0.0, 1e7)
        for field in ("address", "uplink"):
            value = getattr(self, field)
            if field == "address" or value:
                try:
                    split_address(value)
                except InventoryError as error:
                    raise InventoryError(f"{where}.{field}: {error}") from error


@dataclasses.dataclass(frozen=True)
class Emulation:
    """How one machine plays several: slower cores, delayed links, faults on demand."""

    pacing: str = "off"
    scale: float = 1.0
    cpu_ms: Mapping[str, float] = dataclasses.field(default_factory=dict)  # by model; empty: measured at start
    weak_link_ms: float = 20.0  # added to every outgoing message of a node behind a weak link (the paper's)
    control: str = ""  # where the links' process takes orders; empty: links aren't emulated
    faults: bool = False  # whether an operator may tell nodes to misbehave

    def __post_init__(self) -> None:
        _require(self.pacing in PACINGS, "emulation.pacing", ", ".join(PACINGS), self.pacing)
        _number(self.scale, "emulation.scale", 1.0, 10000.0)
        _require(isinstance(self.cpu_ms, Mapping), "emulation.cpu_ms", "a table of models", self.cpu_ms)
        for name, value in self.cpu_ms.items():
            _number(value, f"emulation.cpu_ms.{name}", 1e-3, 1e6)
        _number(self.weak_link_ms, "emulation.weak_link_ms", 0.0, 10000.0)
        _require(isinstance(self.faults, bool), "emulation.faults", "true or false", self.faults)
        if self.control:
            split_address(self.control)


@dataclasses.dataclass(frozen=True)
class Inventory:
    """A fleet: N devices, one edge, one cloud. Devices dial the edge, the edge dials the cloud."""

    name: str
    nodes: tuple[NodeSpec, ...]
    models: tuple[str, ...]  # d0 first: what edge and cloud run
    model_dir: str
    certificates: str
    deadline_ms: float = 10000.0  # of a step
    monitor_period_ms: float = 1000.0
    waiting: int = 16  # requests that may wait for a node's cores
    emulation: Emulation | None = None

    def __post_init__(self) -> None:
        _require(isinstance(self.name, str) and self.name.isprintable(), "name", "a text", self.name)
        _require(1 <= len(self.models) <= 32, "models", "1 to 32 of them", len(self.models))
        for index, model in enumerate(self.models):
            _name(model, f"models[{index}]")
        for field in ("model_dir", "certificates"):
            value = getattr(self, field)
            _require(isinstance(value, str) and value != "", field, "the path of a folder", value)
        _number(self.deadline_ms, "deadline_ms", 1.0, 3.6e6)
        _number(self.monitor_period_ms, "monitor_period_ms", 10.0, 60000.0)
        _integer(self.waiting, "waiting", 1, 10000)
        names = [node.name for node in self.nodes]
        _require(len(set(names)) == len(names), "nodes", "distinct names", names)
        for kind, fine, expected in (("device", 1, "at least one"), ("edge", 1, "one"), ("cloud", 1, "one")):
            count = sum(node.kind == kind for node in self.nodes)
            _require(count == fine or (kind == "device" and count > fine), f"nodes of kind {kind}", expected, count)
        unknown = set(self.emulation.cpu_ms) - set(self.models) if self.emulation else set()
        _require(not unknown, "emulation.cpu_ms", f"models among {', '.join(self.models)}", sorted(unknown))

    def node(self, name: str) -> NodeSpec:
        """The node of that name.

        Raises:
          InventoryError: if there is none.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        known = ", ".join(node.name for node in self.nodes)
        raise InventoryError(f"name: expected one of {known}, found {name!r}")

    @property
    def devices(self) -> tuple[NodeSpec, ...]:
        return tuple(node for node in self.nodes if node.kind == "device")

    @property
    def edge(self) -> NodeSpec:
        return next(node for node in self.nodes if node.kind == "edge")

    @property
    def cloud(self) -> NodeSpec:
        return next(node for node in self.nodes if node.kind == "cloud")

    def upper(self, node: NodeSpec) -> NodeSpec | None:
        """A device's edge, the edge's cloud, the cloud's nothing."""
        return {"device": self.edge, "edge": self.cloud, "cloud": None}[node.kind]

    def dial_address(self, node: NodeSpec) -> str:
        """Where `node` reaches its upper neighbour: there, or at the relay in between."""
        upper = self.upper(node)
        if upper is None:
            raise InventoryError(f"nodes.{node.name}: expected a node with an upper neighbour, found the cloud")
        relayed = self.emulation is not None and self.emulation.control != "" and node.uplink != ""
        return node.uplink if relayed else upper.address

    def pool_of(self, node: NodeSpec) -> tuple[str, ...]:
        """Models that a node loads: edge and cloud always run the first one."""
        return self.models if node.kind == "device" else self.models[:1]

    def pacing(self, node: NodeSpec) -> Pacing:
        """How a node holds its slots; `cpu_ms` may still have to be measured."""
        if self.emulation is None:
            return Pacing()
        return Pacing(self.emulation.pacing, self.emulation.scale / node.speed, dict(self.emulation.cpu_ms))


def _record(record: type[Any], data: Any, where: str, **given: Any) -> Any:
    """Builds one of the records above from a table, refusing unknown and missing keys."""
    _require(isinstance(data, Mapping), where, "a table", data)
    fields = {field.name: field for field in dataclasses.fields(record)}
    for key in data:
        _require(key in fields, where, f"one of {', '.join(fields)}", key)
    values = dict(data) | given
    for name, field in fields.items():
        optional = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        _require(name in values or optional, where, f"the key {name!r}", "none")
    return record(**values)


def from_data(data: Any) -> Inventory:
    """An inventory from its plain data, the shape of its file.

    Raises:
      InventoryError: where a value in it can't be used.
    """
    _require(isinstance(data, dict), "inventory", "a table", data)
    _require(isinstance(data.get("nodes"), list), "nodes", "a list of tables", data.get("nodes"))
    _require(isinstance(data.get("models"), list), "models", "a list of names", data.get("models"))
    nodes = tuple(_record(NodeSpec, entry, f"nodes[{index}]") for index, entry in enumerate(data["nodes"]))
    emulation = data.get("emulation")
    inventory: Inventory = _record(
        Inventory,
        data,
        "inventory",
        nodes=nodes,
        models=tuple(data["models"]),
        emulation=None if emulation is None else _record(Emulation, emulation, "emulation"),
    )
    return inventory


def as_data(inventory: Inventory) -> dict[str, Any]:
    """The same as plain data, as JSON has it; folders become absolute."""
    document: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(inventory)))
    for key in ("model_dir", "certificates"):
        document[key] = str(pathlib.Path(document[key]).resolve())
    return document


def load(path: str | pathlib.Path) -> Inventory:
    """Reads an inventory; the folders it names are taken as relative to it.

    Raises:
      InventoryError: where the file or a value in it can't be used.
    """
    path = pathlib.Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise InventoryError(f"inventory: expected a readable file, found {error.strerror} at {path}") from error
    except (ValueError, RecursionError) as error:
        raise InventoryError(f"inventory: expected TOML (or .json), found {error} in {path}") from error
    try:
        inventory = from_data(data)
    except InventoryError as error:
        raise InventoryError(f"{error} in {path}") from error
    return dataclasses.replace(
        inventory,
        model_dir=str(path.parent / inventory.model_dir),
        certificates=str(path.parent / inventory.certificates),
    )


def save(inventory: Inventory, path: pathlib.Path) -> None:
    """Writes an inventory as JSON, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    partial.write_text(json.dumps(as_data(inventory), indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
