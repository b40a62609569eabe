"""A user's own fleet as validated plain data: a tree of nodes, measured machines, and what is asked of them.

Devices hang on edges (or straight on a cloud), edges on clouds; every node is a machine of some kind, whose profile
says what each model takes on each of its targets. `launch/inputs/fleet_files.py` reads these records from files, and
`fleets.params` turns them into arrays. Times are ms, accuracies % (ImageNet top-5), energies mJ, powers mW.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any

from hl_jax import checks
from hl_jax.choices import CLOUD, EDGE, LOCAL
from hl_jax.fleets.machines import Disturbances, Link, Machine, Member, Radio, Station
from hl_jax.objective import Goal
from hl_jax.profiles import Profile
from hl_jax.scenario import Decided, Dynamics, ModelPool, Scenario, differing

MOST_CHOICES = 1000
LEAST_TIME, NO_RADIO, PAPERS = Goal(), Radio(), Disturbances()
# Where a choice's task runs, as labels write it, in the order of the choices.
PLACES = (LOCAL, EDGE, CLOUD)


@dataclasses.dataclass(frozen=True)
class Option:
    """What one choice's number means for every device: relative to it, so that all devices have the same."""

    place: str  # on the device itself (L), at its edge (E) or at its cloud (C)
    target: str
    model: int  # in the pool

    def label(self, models: tuple[str, ...]) -> str:
        """`d4/L:gpu`."""
        return f"{models[self.model]}/{self.place}:{self.target}"


@dataclasses.dataclass(frozen=True)
class FleetScenario:
    """A user's own fleet."""

    name: str
    pool: ModelPool
    profiles: tuple[Profile, ...]
    devices: tuple[Member, ...]
    edges: tuple[Station, ...] = ()
    clouds: tuple[Station, ...] = ()
    constraint: float = 0.0  # mean accuracy to keep, %
    goal: Goal = LEAST_TIME
    noise: float | None = None  # standard deviation of the log of computing times; None: as measured, by the profiles
    monitor_period_ms: float = 1000.0
    input_kb: float = 150.528  # what an offloaded task sends: 224 x 224 pixels of three bytes
    output_kb: float = 1.0
    radio: Radio = NO_RADIO
    disturbances: Disturbances = PAPERS
    dynamics: Dynamics | None = None
    types: tuple[str, ...] = ()  # of the pool's models: FP32, Int8; (): unknown

    traffic = None  # all devices ask at one instant

    def __post_init__(self) -> None:
        checks.name(self.name, "name")
        checks.require(len(self.devices) >= 1, "devices", "at least one", len(self.devices))
        checks.distinct([one.kind for one in self.profiles], "profiles")
        checks.distinct([one.name for one in (*self.devices, *self.edges, *self.clouds)], "nodes")
        checks.number(self.constraint, "constraint", 0.0, 100.0)
        if self.noise is not None:
            checks.number(self.noise, "noise", 0.0, 1.0)
        checks.number(self.monitor_period_ms, "monitor_period_ms", 1.0)
        checks.number(self.input_kb, "input_kb", 0.0, 1e6)
        checks.number(self.output_kb, "output_kb", 0.0, 1e6)
        if self.types:
            models = len(self.pool.names)
            checks.require(len(self.types) == models, "types", f"one per model ({models})", len(self.types))
        self._check_tree()
        self._check_machines()
        count = len(self.options)
        checks.require(1 <= count <= MOST_CHOICES, "choices", f"1 to {MOST_CHOICES}", count)
        self._check_goals()

    def _check_tree(self) -> None:
        """Every device hangs on an edge or a cloud or on nothing, every edge on a cloud or on nothing."""
        edges, clouds = ({one.name for one in tier} for tier in (self.edges, self.clouds))
        for tier, nodes, allowed in (
            ("clouds", self.clouds, set()),
            ("edges", self.edges, clouds),
            ("devices", self.devices, edges | clouds),
        ):
            for one in nodes:
                if one.above == one.name:
                    checks.require(False, f"{tier} {one.name}: above", "another node", one.above)
                if one.above and one.above not in allowed:
                    known = ", ".join(sorted(allowed)) or "nothing"
                    known = known if len(known) <= 200 else f"one of {len(allowed)} nodes"
                    checks.require(False, f"{tier} {one.name}: above", known, one.above)
        hung = {one.above for one in (*self.devices, *self.edges)}
        for one in (*self.edges, *self.clouds):
            checks.require(one.name in hung, f"nodes {one.name}", "something that hangs on it", "nothing")

    def _check_machines(self) -> None:
        """Kinds have profiles; targets and models are known."""
        kinds = {one.kind: one for one in self.profiles}
        for one in (*self.devices, *self.edges, *self.clouds):
            known = ", ".join(kinds) or "none"
            checks.require(one.kind in kinds, f"{one.name}: kind", f"one with a profile ({known})", one.kind)
            targets = [target.name for target in kinds[one.kind].targets]
            for name in one.targets:
                checks.require(name in targets, f"{one.name}: targets", f"some of {', '.join(targets)}", name)
            runs = {
                entry.model
                for target in kinds[one.kind].targets
                if not one.targets or target.name in one.targets
                for entry in target.entries
            }
            for name in one.models:
                names = self.pool.names
                checks.require(name in names, f"{one.name}: models", f"some of {', '.join(names)}", name)
                checks.require(name in runs, f"{one.name}: models", "models that were measured on its targets", name)

    def _check_goals(self) -> None:
        """Each device can answer somehow; the accuracy can be reached; what energy is needed is known."""
        best = []
        for device, row in zip(self.devices, self.mask, strict=True):
            held = [self.pool.accuracy[option.model] for option, there in zip(self.options, row, strict=True) if there]
            expected = f"a model of at least {device.least_accuracy:g} % that it or a node above it holds"
            checks.require(bool(held), f"devices {device.name}", expected, "none")
            best.append(max(held))
        most = sum(best) / len(best)
        expected = f"a mean accuracy that some joint decision meets (at most {most:g} %)"
        checks.require(self.constraint <= most + 1e-6, "constraint", expected, self.constraint)

    # -- The tree ---------------------------------------------------------------------------------------------------

    @functools.cached_property
    def kinds(self) -> dict[str, Profile]:
        """Profiles by the kind of machine."""
        return {one.kind: one for one in self.profiles}

    def edge_of(self, device: Member) -> Station | None:
        """The edge that a device hangs on."""
        return next((one for one in self.edges if one.name == device.above), None)

    def cloud_of(self, device: Member) -> Station | None:
        """The cloud above a device, or above its edge."""
        edge = self.edge_of(device)
        name = device.above if edge is None else edge.above
        return next((one for one in self.clouds if one.name == name), None)

    def places(self, device: Member) -> tuple[Machine | None, Machine | None, Machine | None]:
        """What runs a device's tasks at each of `PLACES`."""
        return device, self.edge_of(device), self.cloud_of(device)

    def held(self, machine: Machine) -> dict[str, tuple[str, ...]]:
        """The models that a machine can run, by target: held, measured there, and fitting in its memory."""
        found = {}
        for target in self.kinds[machine.kind].targets:
            if machine.targets and target.name not in machine.targets:
                continue
            names = []
            for entry in target.entries:
                fits = machine.memory_mb is None or entry.memory_mb is None or entry.memory_mb <= machine.memory_mb
                holds = not machine.models or entry.model in machine.models
                if fits and holds and entry.model in self.pool.names:
                    names.append(entry.model)
            found[target.name] = tuple(names)
        return found

    # -- Choices ----------------------------------------------------------------------------------------------------

    @functools.cached_property
    def options(self) -> tuple[Option, ...]:
        """The C choices: on the device, at its edge, at its cloud; of each the targets by name, the pool's models."""
        tiers: tuple[Iterable[Machine], ...] = (self.devices, self.edges, self.clouds)
        found = []
        for place, machines in zip(PLACES, tiers, strict=True):
            held: dict[str, set[str]] = {}
            for kind, targets, models, memory in dict.fromkeys(
                (one.kind, one.targets, one.models, one.memory_mb) for one in machines
            ):
                one = Machine(name="any", kind=kind, targets=targets, models=models, memory_mb=memory)
                for target, names in self.held(one).items():
                    held.setdefault(target, set()).update(names)
            for target in sorted(held):
                found += [
                    Option(place, target, index) for index, name in enumerate(self.pool.names) if name in held[target]
                ]
        return tuple(found)

    @functools.cached_property
    def mask(self) -> tuple[tuple[bool, ...], ...]:
        """[N][C] whether a device has a choice: there is such a node, it holds the model, the device may answer so."""
        rows: dict[tuple[Any, ...], tuple[bool, ...]] = {}
        found = []
        for device in self.devices:
            key = (device.kind, device.targets, device.models, device.memory_mb, device.above, device.least_accuracy)
            if key not in rows:
                held = [None if one is None else self.held(one) for one in self.places(device)]
                rows[key] = tuple(self._there(device, held, option) for option in self.options)
            found.append(rows[key])
        return tuple(found)

    def _there(self, device: Member, held: list[dict[str, tuple[str, ...]] | None], option: Option) -> bool:
        machine = held[PLACES.index(option.place)]
        name, accuracy = self.pool.names[option.model], self.pool.accuracy[option.model]
        return machine is not None and name in machine.get(option.target, ()) and accuracy >= device.least_accuracy

    @property
    def users(self) -> int:
        return len(self.devices)

    @property
    def choices(self) -> int:
        """C."""
        return len(self.options)

    def choice_labels(self) -> tuple[str, ...]:
        """Names of the C choices: `d4/L:gpu`, `d0/E:tflite`."""
        return tuple(option.label(self.pool.names) for option in self.options)

    def choice_accuracy(self) -> tuple[float, ...]:
        """Accuracies of the C choices, %."""
        return tuple(self.pool.accuracy[option.model] for option in self.options)

    @property
    def accuracy_weights(self) -> tuple[float, ...]:
        """How much each device counts in the mean accuracy: all as much."""
        return ()

    def labels(self, decision: Iterable[int]) -> tuple[str, ...]:
        """A joint action ([N] choices) by the choices' labels."""
        names = self.choice_labels()
        return tuple(names[choice] for choice in decision)

    def unmeasured(self) -> tuple[str, ...]:
        """What matters here and nobody has measured: energies of devices' targets and models, where energy counts."""
        if not self.goal.weights[1]:
            return ()
        found: dict[str, None] = {}
        for kind, targets, models, memory in dict.fromkeys(
            (one.kind, one.targets, one.models, one.memory_mb) for one in self.devices
        ):
            one = Machine(name="any", kind=kind, targets=targets, models=models, memory_mb=memory)
            for target, names in self.held(one).items():
                unknown = [name for name in names if self.kinds[kind].energy_mj(target, name) is None]
                if unknown:
                    found[f"{kind}.{target} ({', '.join(unknown)})"] = None
        return tuple(found)

    def unlike(self, other: Decided) -> str:
        """What another scenario has otherwise of that by which a decision is known; empty if nothing.

        Not all devices have every choice, so that which ones they have counts, too.
        """
        if (difference := differing(self, other)) or not isinstance(other, FleetScenario):
            return difference
        for device, mine, theirs in zip(self.devices, self.mask, other.mask, strict=True):
            if mine != theirs:
                labels = self.choice_labels()
                expected, found = (
                    ", ".join(label for label, there in zip(labels, row, strict=True) if there)
                    for row in (mine, theirs)
                )
                return f"choices of {device.name}: expected {expected}, found {found}"
        return ""

    def with_users(self, users: int) -> FleetScenario:
        """The same fleet with its first `users` devices, and the nodes above these.

        Raises:
          ValueError: if there are fewer devices than that.
        """
        checks.require(1 <= users <= self.users, "users", f"1 to {self.users} (devices of scenario {self.name})", users)
        devices = self.devices[:users]
        hung = {one.above for one in devices}
        edges = tuple(one for one in self.edges if one.name in hung)
        hung |= {one.above for one in edges}
        clouds = tuple(one for one in self.clouds if one.name in hung)
        return dataclasses.replace(self, devices=devices, edges=edges, clouds=clouds)

    def with_knobs(self, knobs: str) -> FleetScenario:
        """The same fleet; Table I's knobs are the paper's own.

        Raises:
          ValueError: for anything but `both`.
        """
        checks.require(knobs == "both", "knobs", "both, of a fleet of its own", knobs)
        return self

    def as_data(self) -> dict[str, Any]:
        """Plain data: dictionaries, tuples, texts and numbers, which JSON can hold."""
        return dataclasses.asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> FleetScenario:
        """A fleet from its plain data (`as_data`), lists where it has tuples.

        Raises:
          ValueError: naming what is missing, unknown or out of range.
        """
        checks.require(isinstance(data, Mapping), "scenario", "a table", data)
        values = dict(data)
        values["pool"] = checks.record(ModelPool, data.get("pool"), "pool")
        values["profiles"] = tuple(Profile.from_data(one) for one in _list(data, "profiles"))
        tiers: dict[str, type[Any]] = {"devices": Member, "edges": Station, "clouds": Station}
        for name, kind in tiers.items():
            entries = []
            for one in _list(data, name):
                checks.require(isinstance(one, Mapping), name, "a table", one)
                entries.append(dict(one) | {"link": checks.record(Link, one.get("link", {}), "link")})
            values[name] = tuple(checks.record(kind, one, name) for one in entries)
        parts: dict[str, type[Any]] = {"goal": Goal, "radio": Radio, "disturbances": Disturbances}
        for name, kind in parts.items():
            values[name] = checks.record(kind, data.get(name, {}), name)
        if data.get("dynamics") is not None:
            values["dynamics"] = checks.record(Dynamics, data["dynamics"], "dynamics")
        fleet: FleetScenario = checks.record(cls, values, "scenario")
        return fleet


AnyScenario = Scenario | FleetScenario


def _list(data: Mapping[str, Any], name: str) -> list[Any]:
    found = data.get(name, ())
    checks.require(isinstance(found, (list, tuple)), name, "a list of tables", found)
    return list(found)
