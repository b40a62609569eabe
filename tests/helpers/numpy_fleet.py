"""A slow second environment of users' own fleets, written from what their records say: loops over devices, float64.

It reads a `FleetScenario` itself, so that `fleets.params` is compared, too. What it needs of the law of
times comes straight from a profile's rows, which therefore have a mean and a 95th percentile.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from hl_jax.fleets.machines import Disturbances, Link, Member, Radio, Station
from hl_jax.fleets.scenario import FleetScenario
from hl_jax.profiles import Entry, Profile, Target
from hl_jax.scenario import ModelPool
from hl_jax.simulator import Conditions

POOL = ModelPool(names=("big", "mid", "small"), accuracy=(90.0, 80.0, 70.0), million_macs=(500.0, 100.0, 40.0))
FORMS = ("linear", "steps", "quadratic", "queue")


def profile(kind: str, times_ms: Mapping[str, float], energy_w: float | None = 5.0) -> Profile:
    """A kind of machine: of each target the largest model's median; the others take a half and a fifth of it."""
    targets = []
    for name, ms in times_ms.items():
        entries = [
            Entry(
                model,
                p50_ms=ms * part,
                mean_ms=1.05 * ms * part,
                p90_ms=1.2 * ms * part,
                p95_ms=1.4 * ms * part,
                p99_ms=2.0 * ms * part,
                energy_mj=None if energy_w is None else energy_w * ms * part * (1.1 if part == 0.2 else 1.0),
                memory_mb=100.0 * part,
            )
            for model, part in zip(POOL.names, (1.0, 0.5, 0.2), strict=True)
        ]
        targets.append(Target(name, tuple(entries)))
    return Profile(kind, tuple(targets))


PROFILES = (
    profile("phone", {"cpu": 120.0, "gpu": 60.0}),
    profile("sensor", {"cpu": 500.0}, energy_w=1.0),
    profile("box", {"cpu": 40.0}),
    profile("server", {"cpu": 20.0, "gpu": 9.0}),
)


def fleet(**changes: Any) -> FleetScenario:
    """Three devices under two edges and a cloud; `changes` are fields of `FleetScenario`."""
    values: dict[str, Any] = {
        "name": "own",
        "pool": POOL,
        "profiles": PROFILES,
        "devices": (
            Member("a", "phone", above="left", link=Link(4.0, 100.0, 50.0)),
            Member("b", "sensor", above="left", link=Link(6.0)),
            Member("c", "phone", above="right", link=Link(2.0, 20.0)),
        ),
        "edges": (
            Station("left", "box", above="up", link=Link(10.0, 200.0, 200.0)),
            Station("right", "box", above="up", link=Link(30.0), slots=2),
        ),
        "clouds": (Station("up", "server", slots=4),),
        "constraint": 80.0,
    }
    return FleetScenario(**values | changes)


@dataclasses.dataclass(frozen=True)
class Expected:
    """What a joint action is worth: `environment.Worth`, without a penalty."""

    response_ms: list[float]
    energy_mj: list[float]
    accuracy: float
    cost: float
    feasible: bool


def _slots_share(form: str, slots: int, tasks: int) -> float:
    if form == "steps":
        return math.ceil(tasks / slots)
    if form == "queue":
        return sum(math.ceil(place / slots) for place in range(1, tasks + 1)) / tasks
    return 1.0 + ((tasks - 1) / slots) ** (2 if form == "quadratic" else 1)


def expected(fleet: FleetScenario, conditions: Conditions, action: tuple[int, ...]) -> Expected:
    """The reference."""
    named = {one.name: one for one in (*fleet.devices, *fleet.edges, *fleet.clouds)}
    profiles = {one.kind: one for one in fleet.profiles}
    stations = [one.name for one in (*fleet.edges, *fleet.clouds)]
    level, memory, weak = (
        dict(zip(stations, np.asarray(each).tolist(), strict=True))
        for each in (conditions.node_cpu, conditions.node_memory, conditions.node_weak)
    )
    more = fleet.disturbances
    runs_at = []
    for device, choice in zip(fleet.devices, action, strict=True):
        above = named.get(device.above)
        on_edge = above in fleet.edges
        place = fleet.options[choice].place
        at = {"L": device, "E": above if on_edge else None, "C": named.get(above.above) if on_edge else above}[place]
        assert at is not None
        runs_at.append(at.name)
    responses, energies, kept = [], [], True
    for index, (device, choice) in enumerate(zip(fleet.devices, action, strict=True)):
        option, machine = fleet.options[choice], named[runs_at[index]]
        (target,) = (one for one in profiles[machine.kind].targets if one.name == option.target)
        (row,) = (one for one in target.entries if one.model == fleet.pool.names[option.model])
        slow, way, sending, receiving, share = 1.0, 0.0, 0.0, 0.0, 1.0
        if machine is device:
            slow *= more.busy_cpu_factor if int(conditions.device_cpu[index]) else 1.0
            slow *= more.busy_memory_factor if int(conditions.device_memory[index]) else 1.0
            slow /= device.speed
        else:
            slow *= more.busy_memory_factor if memory[machine.name] else 1.0
            slow /= 1.0 - level[machine.name] / 9.0
            share = _slots_share(machine.contention, machine.slots, runs_at.count(machine.name))
            passed = [(device.link, int(conditions.device_weak[index]))]
            if device.above != machine.name:
                passed.append((named[device.above].link, weak[device.above]))
            for number, (link, is_weak) in enumerate(passed):
                up = 8.0 * fleet.input_kb / link.up_mbps if link.up_mbps else 0.0
                down = 8.0 * fleet.output_kb / link.down_mbps if link.down_mbps else 0.0
                way += link.rtt_ms + up + down + (more.weak_ms if is_weak else 0.0)
                if number == 0:
                    sending, receiving = up, down
        response = way + row.mean_ms * slow * share
        if device.deadline_ms is not None and way + row.p95_ms * slow * share > device.deadline_ms:
            kept = False
        if machine is device:
            energies.append(row.energy_mj * slow)
        else:
            radio = fleet.radio
            waited = radio.wait_mw * (response - sending - receiving)
            energies.append((radio.send_mw * sending + radio.receive_mw * receiving + waited) / 1000.0)
        responses.append(response)
    accuracy = sum(fleet.pool.accuracy[fleet.options[choice].model] for choice in action) / len(action)
    of_energy = {"time": 0.0, "energy": 1.0, "both": fleet.goal.energy_weight}[fleet.goal.objective]
    cost = ((1.0 - of_energy) * sum(responses) + of_energy * sum(energies)) / len(action)
    return Expected(responses, energies, accuracy, cost, kept and accuracy >= fleet.constraint - 1e-3)


def actions(fleet: FleetScenario) -> Iterator[tuple[int, ...]]:
    """Every joint action of choices that are there."""
    return itertools.product(*[[choice for choice, there in enumerate(row) if there] for row in fleet.mask])


def some_conditions(rng: np.random.Generator, users: int, nodes: int) -> Conditions:
    """Any load and links."""

    def bits(count: int) -> Any:
        return jnp.asarray(rng.integers(0, 2, count), jnp.int32)

    return Conditions(
        device_cpu=bits(users),
        device_memory=bits(users),
        device_weak=bits(users),
        node_cpu=jnp.asarray(rng.integers(0, 9, nodes), jnp.int32),
        node_memory=bits(nodes),
        node_weak=bits(nodes),
    )


def some_fleet(rng: np.random.Generator, users: int, edges: int, clouds: int, **changes: Any) -> FleetScenario:
    """A random fleet of that size whose numbers of choices, devices and nodes don't depend on chance."""

    def link() -> Link:
        rates = [float(rng.uniform(5.0, 300.0)) if rng.random() < 0.7 else None for _ in range(2)]
        return Link(float(rng.uniform(0.0, 40.0)), *rates, state=str(rng.choice(["regular", "weak"])))

    def station(name: str, kind: str, above: str) -> Station:
        way = link() if above else Link()
        return Station(name, kind, above, way, slots=int(rng.integers(1, 4)), contention=str(rng.choice(FORMS)))

    tops = [f"cloud{index}" for index in range(clouds)]
    gates = [f"edge{index}" for index in range(edges)]
    tree = [station(name, "server", "") for name in tops]
    boxes = [station(name, "box", tops[index % clouds] if clouds else "") for index, name in enumerate(gates)]
    devices = []
    for index in range(users):
        # The first ones see to it that something hangs on every edge, or on every cloud.
        if index < edges:
            above = gates[index]
        elif not edges and index < clouds:
            above = tops[index]
        else:
            above = str(rng.choice([*gates, *tops, ""]))
        kind = "phone" if index == 0 else str(rng.choice(["phone", "sensor"]))
        least, most = (60.0, 150.0) if kind == "phone" else (440.0, 1200.0)  # some choice keeps these
        deadline = float(rng.uniform(least, most)) if rng.random() < 0.5 else None
        devices.append(
            Member(
                f"device{index}",
                kind,
                above,
                link() if above else Link(),
                models=() if index == 0 or rng.random() < 0.5 else ("mid", "small"),
                speed=float(rng.uniform(0.8, 2.0)),
                least_accuracy=float(rng.choice([0.0, 75.0])),
                deadline_ms=deadline,
            )
        )
    values: dict[str, Any] = {
        "devices": tuple(devices),
        "edges": tuple(boxes),
        "clouds": tuple(tree),
        "constraint": float(rng.uniform(70.0, 80.0)),
        "radio": Radio(*rng.uniform(0.0, 4000.0, 3).tolist()),
        "disturbances": Disturbances(*rng.uniform([0.0, 1.0, 1.0], [100.0, 3.0, 2.0]).tolist()),
        "input_kb": float(rng.uniform(1.0, 300.0)),
        "output_kb": float(rng.uniform(0.0, 50.0)),
    }
    return fleet(**values | changes)
