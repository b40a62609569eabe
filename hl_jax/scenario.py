"""What a scenario is: devices, links, nodes, model pool, timing and constraint, as validated plain data.

These records hold the numbers of Tables III and IV and of a calibration; `launch/inputs/scenario_files.py` reads
them from files, `simulator.make_params` turns them into arrays. Times are ms, accuracies % (ImageNet top-5).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from hl_jax import checks
from hl_jax.arrivals import Traffic
from hl_jax.choices import choice_count, choice_labels, per_choice

LINKS = ("regular", "weak")
CONTENTION_FORMS = ("linear", "steps", "quadratic", "queue")
KNOBS = ("both", "offloading", "models")
LEVELS = 9  # CPU levels of edge and cloud in Table II


@dataclasses.dataclass(frozen=True)
class ModelPool:
    """The models a device may run (Table III); edge and cloud always run the first one."""

    names: tuple[str, ...]
    accuracy: tuple[float, ...]  # %
    million_macs: tuple[float, ...]

    def __post_init__(self) -> None:
        checks.require(1 <= len(self.names) <= 32, "models", "1 to 32 of them", len(self.names))
        for index, name in enumerate(self.names):
            checks.name(name, f"models[{index}].name")
        checks.distinct(self.names, "models")
        for column in ("accuracy", "million_macs"):
            values = getattr(self, column)
            checks.require(len(values) == len(self.names), column, f"one per model ({len(self.names)})", len(values))
        for name, accuracy, macs in zip(self.names, self.accuracy, self.million_macs, strict=True):
            checks.number(accuracy, f"models.{name}.accuracy", 0.0, 100.0)
            checks.number(macs, f"models.{name}.million_macs", 0.0)


@dataclasses.dataclass(frozen=True)
class Timing:
    """A calibration: what each choice takes alone, and what links, load and sharing add (ms)."""

    local_ms: tuple[float, ...]  # one per model of the pool, on a device of speed 1
    edge_ms: float  # one task alone on the edge, links included
    cloud_ms: float
    edge_share_ms: float  # the part of edge_ms that each further task on the reference node adds again
    cloud_share_ms: float
    edge_reference_cores: int
    cloud_reference_cores: int
    weak_device_ms: float  # per task of a device behind a weak link, wherever it runs
    weak_edge_ms: float  # per task of any user under a weak edge
    weak_edge_offload_ms: float  # on top, per offloaded task under a weak edge
    weak_cloud_offload_ms: float  # per task sent to a cloud behind a weak link
    busy_cpu_factor: float  # local computing beside a Busy device's background load
    busy_memory_factor: float  # computing on a node whose memory is Busy
    weak_device_offload_ms: float = 0.0  # on top, per task that a device behind a weak link offloads
    speeds: tuple[tuple[str, float], ...] = ()  # measured ones, by device's name: in the place of the devices' own
    unmeasured: tuple[str, ...] = ()  # of the fields above; they hold 0, which must not matter

    def __post_init__(self) -> None:
        for index, value in enumerate(self.local_ms):
            checks.number(value, f"local_ms[{index}]", 1e-6)
        for name, speed in self.speeds:
            checks.number(speed, f"speeds.{checks.shown(name)}", 0.01, 100.0)
        known = [field.name for field in dataclasses.fields(self) if field.name.endswith("_ms")]
        for name in self.unmeasured:
            checks.require(name in known, "unmeasured", f"some of {', '.join(known)}", name)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in ("speeds", "unmeasured"):
                continue
            if field.name.endswith("_factor"):
                checks.number(value, field.name, 1.0)
            elif field.name.endswith("_cores"):
                checks.integer(value, field.name, 1)
            elif field.name != "local_ms":
                # A task's time is above 0 wherever it runs: what is judged is divided by the least.
                checks.number(value, field.name, 1e-6 if field.name in ("edge_ms", "cloud_ms") else 0.0)
        for node in ("edge", "cloud"):
            share, alone = getattr(self, f"{node}_share_ms"), getattr(self, f"{node}_ms")
            checks.require(share <= alone, f"{node}_share_ms", f"at most {node}_ms = {alone:g}", share)


@dataclasses.dataclass(frozen=True)
class Device:
    """An end device: its link and its speed relative to the calibrated one (2.0 computes twice as fast)."""

    name: str
    link: str = "regular"
    speed: float = 1.0

    def __post_init__(self) -> None:
        checks.name(self.name, "devices.name")
        checks.require(self.link in LINKS, f"devices.{self.name}.link", " or ".join(LINKS), self.link)
        checks.number(self.speed, f"devices.{self.name}.speed", 0.01, 100.0)


@dataclasses.dataclass(frozen=True)
class Node:
    """The edge or the cloud: its link, its cores, and how tasks that share it slow one another.

    `contention` says what multiplies one task's share of the time when n tasks are there. With the further tasks
    counted as f = (n - 1) * reference cores / cores, `linear` is 1 + f (processor sharing), `quadratic` is
    1 + f^2 (interference grows), `steps` is ceil(n / cores), at least 1 (rounds of one task per core), and `queue` is
    the mean of ceil(i / cores) over the tasks i = 1..n (first come, first served, one core each).
    """

    link: str
    cores: int
    contention: str = "linear"

    def __post_init__(self) -> None:
        checks.require(self.link in LINKS, "link", " or ".join(LINKS), self.link)
        checks.integer(self.cores, "cores", 1)
        checks.require(self.contention in CONTENTION_FORMS, "contention", ", ".join(CONTENTION_FORMS), self.contention)


@dataclasses.dataclass(frozen=True)
class Dynamics:
    """Markov chains of the *dynamic* scenario: per-step probabilities of each two-state chain's two moves.

    `cpu_level_move` is the probability that a node's background CPU level goes up, and that it goes down, by
    one of Table II's nine levels; it stays in 0..`cpu_level_max`.
    """

    device_busy: tuple[float, float]  # Available -> Busy, Busy -> Available (CPU)
    device_memory: tuple[float, float]
    device_link: tuple[float, float]  # Regular -> Weak, Weak -> Regular
    node_memory: tuple[float, float]
    node_link: tuple[float, float]
    cpu_level_move: float
    cpu_level_max: int

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "cpu_level_max":
                checks.integer(value, "dynamics.cpu_level_max", 0, LEVELS - 1)
            elif field.name == "cpu_level_move":
                checks.number(value, "dynamics.cpu_level_move", 0.0, 0.5)
            else:
                pair = isinstance(value, (tuple, list)) and len(value) == 2
                checks.require(pair, f"dynamics.{field.name}", "two probabilities", value)
                for probability in value:
                    checks.number(probability, f"dynamics.{field.name}", 0.0, 1.0)


class Decided(Protocol):
    """What decisions are for: a scenario of any form."""

    @property
    def devices(self) -> Sequence[Named]: ...

    @property
    def pool(self) -> ModelPool: ...

    def choice_labels(self) -> tuple[str, ...]: ...


class Named(Protocol):
    """Whatever has a name."""

    @property
    def name(self) -> str: ...


def differing(mine: Decided, theirs: Decided) -> str:
    """What one scenario has otherwise than another of that by which a decision is known; empty if nothing."""
    for what, here, there in (
        ("devices", [device.name for device in mine.devices], [device.name for device in theirs.devices]),
        ("models", mine.pool.names, theirs.pool.names),
        ("accuracies (%)", mine.pool.accuracy, theirs.pool.accuracy),
        ("choices", mine.choice_labels(), theirs.choice_labels()),
    ):
        if list(here) != list(there):
            expected, found = (", ".join(map(str, values)) for values in (here, there))
            return f"{what}: expected {expected}, found {found}"
    return ""


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One experiment: Table IV's rows, or a user's own."""

    name: str
    pool: ModelPool
    timing: Timing
    devices: tuple[Device, ...]
    edge: Node
    cloud: Node
    constraint: float = 0.0  # mean accuracy to keep, %
    noise: float = 0.03  # standard deviation of the log of a device's response time
    monitor_period_ms: float = 1000.0  # window over which a monitor averages utilization
    dynamics: Dynamics | None = None
    offloading: bool = True  # whether edge and cloud are among the choices
    traffic: Traffic | None = None  # when requests come; None: all devices' at one instant, one a step (the paper's)

    def __post_init__(self) -> None:
        checks.name(self.name, "name")
        checks.require(len(self.devices) >= 1, "devices", "at least one", len(self.devices))
        checks.distinct([device.name for device in self.devices], "devices")
        found = len(self.timing.local_ms)
        checks.require(found == len(self.pool.names), "local_ms", f"one per model ({len(self.pool.names)})", found)
        checks.number(self.constraint, "constraint", 0.0, 100.0)
        checks.number(self.noise, "noise", 0.0, 1.0)
        checks.number(self.monitor_period_ms, "monitor_period_ms", 1.0)
        if self.traffic is not None:
            found = len(self.traffic.arrivals)
            checks.require(found == self.users, "traffic.arrivals", f"one per device ({self.users})", found)
        best = max(self.pool.accuracy)
        checks.require(
            self.constraint <= best + 1e-6,
            "constraint",
            f"a mean accuracy that some joint action meets (at most {best:g} %)",
            self.constraint,
        )

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Scenario:
        """A scenario from its plain data (`as_data`), lists where it has tuples.

        Raises:
          ValueError: naming what is missing, unknown or out of range.
        """
        kinds: dict[str, type[Any]] = {"pool": ModelPool, "timing": Timing, "edge": Node, "cloud": Node}
        checks.require(isinstance(data, Mapping), "scenario", "a table", data)
        values = dict(data)
        for name, kind in kinds.items():
            values[name] = checks.record(kind, data.get(name), name)
        devices = data.get("devices")
        checks.require(isinstance(devices, (list, tuple)), "devices", "a list of tables", devices)
        values["devices"] = tuple(checks.record(Device, device, "devices") for device in devices or ())
        if data.get("dynamics") is not None:
            values["dynamics"] = checks.record(Dynamics, data["dynamics"], "dynamics")
        if data.get("traffic") is not None:
            values["traffic"] = Traffic.from_data(data["traffic"])
        scenario: Scenario = checks.record(cls, values, "scenario")
        return scenario

    def as_data(self) -> dict[str, Any]:
        """Plain data: dictionaries, tuples, texts and numbers, which JSON can hold. No traffic: no such key."""
        data = dataclasses.asdict(self)
        return data if self.traffic is not None else {name: value for name, value in data.items() if name != "traffic"}

    @property
    def speeds(self) -> tuple[float, ...]:
        """[N] the devices' measured speeds, or their own where nobody measured any."""
        measured = dict(self.timing.speeds)
        return tuple(measured.get(device.name, device.speed) for device in self.devices)

    def unmeasured(self) -> tuple[str, ...]:
        """What matters here and nobody has measured: times of the calibration, `speeds.NAME` of devices."""
        moves, offloading = self.dynamics, self.offloading
        weak_device = any(device.link == "weak" for device in self.devices) or bool(moves and moves.device_link[0])
        weak_edge, weak_cloud = (
            node.link == "weak" or bool(moves and moves.node_link[0]) for node in (self.edge, self.cloud)
        )
        # With as many cores as devices, tasks of a queue never wait for one another.
        shared = {
            name: offloading
            and (self.users > node.cores if node.contention == "queue" and not moves else self.users > 1 or bool(moves))
            for name, node in (("edge", self.edge), ("cloud", self.cloud))
        }
        matters = {
            "edge_share_ms": shared["edge"],
            "cloud_share_ms": shared["cloud"],
            "weak_device_ms": weak_device,
            "weak_device_offload_ms": weak_device and offloading,
            "weak_edge_ms": weak_edge,
            "weak_edge_offload_ms": weak_edge and offloading,
            "weak_cloud_offload_ms": weak_cloud and offloading,
        }
        times = [name for name in self.timing.unmeasured if matters.get(name, True)]
        measured = dict(self.timing.speeds)
        strangers = [device.name for device in self.devices if measured and device.name not in measured]
        return (*times, *(f"speeds.{name}" for name in strangers))

    def unlike(self, other: Decided) -> str:
        """What another scenario has otherwise of that by which a decision is known; empty if nothing.

        A decision names devices by their place and choices by their number, so what learned here may decide there only
        if the same devices and models stand in the same places, models with the same accuracies, and if edge and cloud
        are choices in both. Links, speeds, cores, times, load and the constraint are conditions, which may differ.

        Returns:
          One line: what is expected as here, what is found there.
        """
        return differing(self, other)

    @property
    def users(self) -> int:
        return len(self.devices)

    @property
    def choices(self) -> int:
        """C: the models, then edge and cloud unless there is no offloading."""
        models = len(self.pool.names)
        return choice_count(models) if self.offloading else models

    def choice_labels(self) -> tuple[str, ...]:
        """Names of the C choices as Table V writes them: `d4/L`, …, `d0/E`, `d0/C`."""
        return choice_labels(self.pool.names, self.offloading)

    def choice_accuracy(self) -> tuple[float, ...]:
        """Accuracies of the C choices, %: the models', then the first model's at edge and cloud."""
        return per_choice(self.pool.accuracy, self.offloading)

    @property
    def accuracy_weights(self) -> tuple[float, ...]:
        """How much each device counts in the mean accuracy, which is over requests; mean 1. Empty: all as much."""
        weights = () if self.traffic is None else self.traffic.weights
        return () if len(set(weights)) < 2 else tuple(self.users * weight for weight in weights)

    def labels(self, decision: Iterable[int]) -> tuple[str, ...]:
        """A joint action ([N] choices) as Table V writes it."""
        names = self.choice_labels()
        return tuple(names[choice] for choice in decision)

    def with_users(self, users: int) -> Scenario:
        """The same scenario with its first `users` devices.

        Raises:
          ValueError: if there are fewer devices than that.
        """
        checks.require(1 <= users <= self.users, "users", f"1 to {self.users} (devices of scenario {self.name})", users)
        traffic = None if self.traffic is None else self.traffic.with_users(users)
        return dataclasses.replace(self, devices=self.devices[:users], traffic=traffic)

    def with_knobs(self, knobs: str) -> Scenario:
        """The same scenario with fewer actuation knobs (Table I): `offloading` (CO), `models` (APP), or `both`.

        With `offloading` alone a device always runs d0, with `models` alone it never offloads.
        """
        checks.require(knobs in KNOBS, "knobs", ", ".join(KNOBS), knobs)
        if knobs == "offloading":
            columns = (field.name for field in dataclasses.fields(self.pool))
            pool = ModelPool(**{name: getattr(self.pool, name)[:1] for name in columns})
            timing = dataclasses.replace(self.timing, local_ms=self.timing.local_ms[:1])
            return dataclasses.replace(self, pool=pool, timing=timing)
        return dataclasses.replace(self, offloading=knobs == "both" and self.offloading)
