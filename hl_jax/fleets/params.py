"""A user's own fleet as the arrays that its environment computes with."""

from __future__ import annotations

import math
from statistics import NormalDist

import chex
import jax.numpy as jnp
import numpy as np

from hl_jax import profiles
from hl_jax.fleets.machines import Link, Machine, Station
from hl_jax.fleets.scenario import PLACES, FleetScenario
from hl_jax.objective import Penalty
from hl_jax.profiles import Curve
from hl_jax.simulator import NO_PENALTY, Chains, Conditions, chains_of, occupancy

# Where a given log-normal noise is tabulated: closer together where it bends.
LAW = np.concatenate([[1e-5, 1e-4, 1e-3, 5e-3], np.linspace(0.01, 0.99, 50), [0.995, 0.999, 0.9999, 0.99999]])
LATE = 0.95  # the quantile of a response time that a deadline asks of


@chex.dataclass(frozen=True)
class FleetParams:
    """A fleet as arrays. Times in ms, accuracies in %, energies in mJ, powers in W (mJ per ms)."""

    median_ms: chex.Array  # [N, C] of computing alone; inf: no such choice
    mean: chex.Array  # [N, C] the mean time's part of the median
    late: chex.Array  # [N, C] the same of the quantile that deadlines ask of
    probabilities: chex.Array  # [Q] ascending from 0 to 1
    factors: chex.Array  # [N, C, Q] quantiles of a time, in its medians
    energy_mj: chex.Array | None  # [N, C] of computing on the device, mean; 0 of what is offloaded. None: not all known
    where: chex.Array  # [C] int32: placement.DEVICE, EDGE or CLOUD
    edge: chex.Array  # [N] int32, the edge that a device hangs on; E: none
    cloud: chex.Array  # [N] int32, its cloud; K: none
    edge_cloud: chex.Array  # [N] int32 1 where its cloud's tasks pass its edge's link
    way_ms: chex.Array  # [N, 3] to and fro, by where: nothing to the device itself
    radio_ms: chex.Array  # [N] of that a device sends or receives itself
    radio_mj: chex.Array  # [N] what it draws meanwhile
    wait_w: chex.Array  # [] and while it waits for an offloaded task
    edges: chex.Array  # [E, N+1] what multiplies computing, by number of tasks
    clouds: chex.Array  # [K, N+1]
    task_load: chex.Array  # [N, C] utilization that a task adds to its node over a monitor's window
    weak_ms: chex.Array
    busy_cpu_factor: chex.Array
    busy_memory_factor: chex.Array
    monitor_period_ms: chex.Array
    accuracy: chex.Array  # [C] %
    constraint: chex.Array  # %
    deadline_ms: chex.Array  # [N] inf: none
    weights: chex.Array  # [2] what a ms and what a mJ cost
    penalty_missing: chex.Array  # [P] missing percentage points, ascending from 0
    penalty_ms: chex.Array  # [P] penalty there, in costs; linear between, constant beyond
    start: Conditions  # of N devices and M = E + K nodes
    chains: Chains
    dynamic: chex.Array  # [] bool: start from random conditions


def _given_law(noise: float) -> Curve:
    """Log-normal noise of this standard deviation of the logarithm, with a mean of 1 median or a little more."""
    drawn = np.exp(noise * np.array([NormalDist().inv_cdf(one) for one in LAW]))
    return Curve(np.concatenate([[0.0], LAW, [1.0]]), np.concatenate([drawn[:1], drawn, drawn[-1:]]))


def _table(fleet: FleetScenario) -> dict[str, np.ndarray]:
    """Medians, laws and energies of every device's choices, a machine of a kind read once."""
    users, choices = fleet.users, fleet.choices
    law = None if fleet.noise is None else _given_law(fleet.noise)
    probabilities = np.array(profiles.PROBABILITIES) if law is None else law.probabilities
    read: dict[tuple[str, int], tuple[float, np.ndarray, float]] = {}

    def row(machine: Machine, choice: int) -> tuple[float, np.ndarray, float]:
        if (machine.kind, choice) not in read:
            option, profile = fleet.options[choice], fleet.kinds[machine.kind]
            model = fleet.pool.names[option.model]
            entry, curve = profile.entry(option.target, model), profile.curve(option.target, model)
            factors = curve.factors if law is None else law.factors
            energy = profile.energy_mj(option.target, model)
            read[machine.kind, choice] = (entry.p50_ms, factors, math.nan if energy is None else energy)
        return read[machine.kind, choice]

    found = {
        "median_ms": np.full((users, choices), np.inf),
        "factors": np.ones((users, choices, probabilities.size)),
        "energy_mj": np.zeros((users, choices)),
    }
    for device, (member, mask) in enumerate(zip(fleet.devices, fleet.mask, strict=True)):
        places = fleet.places(member)
        for choice in np.flatnonzero(mask):
            option = fleet.options[choice]
            machine = places[PLACES.index(option.place)]
            assert machine is not None  # the mask says so
            median, found["factors"][device, choice], energy = row(machine, int(choice))
            speed = member.speed if machine is member else 1.0
            found["median_ms"][device, choice] = median / speed
            if machine is member:
                found["energy_mj"][device, choice] = energy / speed
    return found | {"probabilities": probabilities}


def _nodes(stations: tuple[Station, ...], users: int) -> np.ndarray:
    """What multiplies computing at each node by its number of tasks. [M, N+1]."""
    each = [occupancy(one.contention, one.slots, 1, users) for one in stations]
    return np.array(each).reshape(len(stations), users + 1)


def _conditions(fleet: FleetScenario) -> Conditions:
    nodes = (*fleet.edges, *fleet.clouds)
    none = jnp.zeros(fleet.users, jnp.int32)
    idle = jnp.zeros(len(nodes), jnp.int32)
    return Conditions(
        device_cpu=none,
        device_memory=none,
        device_weak=jnp.array([one.link.state == "weak" for one in fleet.devices], jnp.int32),
        node_cpu=idle,
        node_memory=idle,
        node_weak=jnp.array([one.link.state == "weak" for one in nodes], jnp.int32),
    )


def ways(fleet: FleetScenario) -> dict[str, np.ndarray]:
    """What the ways take, and what they cost a device in energy."""
    way, radio_ms, radio_mj = np.zeros((fleet.users, 3)), np.zeros(fleet.users), np.zeros(fleet.users)
    send, receive = (power / 1000.0 for power in (fleet.radio.send_mw, fleet.radio.receive_mw))  # mJ per ms
    for index, device in enumerate(fleet.devices):
        up, down = device.link.up_ms(fleet.input_kb), device.link.down_ms(fleet.output_kb)
        edge = fleet.edge_of(device)
        further = 0.0
        if edge is not None:
            further = edge.link.rtt_ms + edge.link.up_ms(fleet.input_kb) + edge.link.down_ms(fleet.output_kb)
        own = device.link.rtt_ms + up + down
        way[index] = (0.0, own, own + further)
        radio_ms[index], radio_mj[index] = up + down, send * up + receive * down
    return {"way_ms": way, "radio_ms": radio_ms, "radio_mj": radio_mj}


def _load(fleet: FleetScenario, mean_ms: np.ndarray) -> np.ndarray:
    """Utilization that each choice's task adds over a monitor's window. [N, C]."""
    load = np.where(np.isfinite(mean_ms), mean_ms, 0.0) / fleet.monitor_period_ms
    slots = np.array(
        [[1 if one is None else getattr(one, "slots", 1) for one in fleet.places(d)] for d in fleet.devices]
    )
    return load / slots[:, [PLACES.index(option.place) for option in fleet.options]]


def _check_deadlines(fleet: FleetScenario, way_ms: np.ndarray, median_ms: np.ndarray, late: np.ndarray) -> None:
    """Some choice of each device keeps its deadline, alone on its node and in the best of conditions.

    In float32, as `environment.problem` counts, so that the two agree about a deadline that is just kept.

    Raises:
      ValueError: naming the first device without one.
    """
    if all(one.deadline_ms is None for one in fleet.devices):
        return

    def weak(link: Link, leave: tuple[float, float] | None) -> float:
        stays = link.state == "weak" and (leave is None or leave[1] == 0.0)
        return fleet.disturbances.weak_ms if stays else 0.0

    changes = fleet.dynamics
    added = np.zeros(way_ms.shape, np.float32)
    for index, device in enumerate(fleet.devices):
        edge = fleet.edge_of(device)
        added[index, 1:] += np.float32(weak(device.link, changes.device_link if changes else None))
        if edge is not None:
            added[index, 2] += np.float32(weak(edge.link, changes.node_link if changes else None))
    where = [PLACES.index(option.place) for option in fleet.options]
    way = (way_ms.astype(np.float32) + added)[:, where]
    computing = median_ms.astype(np.float32) * late.astype(np.float32)
    for device, ways_there, computed in zip(fleet.devices, way, computing, strict=True):
        if device.deadline_ms is not None and not (computed <= np.float32(device.deadline_ms) - ways_there).any():
            least = math.ceil(100.0 * float((ways_there + computed).min())) / 100.0
            expected = f"at least {least:g} ms, the 95th percentile of its fastest choice alone"
            raise ValueError(f"devices {device.name}: deadline_ms: expected {expected}, found {device.deadline_ms:g}")


def make_params(fleet: FleetScenario, penalty: Penalty = NO_PENALTY) -> FleetParams:
    """Turns a validated fleet, and what breaking its constraint costs, into arrays.

    Raises:
      ValueError: if an energy counts that nobody has measured, or a deadline can't be kept.
    """
    table, way = _table(fleet), ways(fleet)
    if missing := fleet.unmeasured():
        expected, found = f"measured energies for scenario {fleet.name}", f"none for {', '.join(missing)}"
        raise ValueError(f"profiles: expected {expected}, found {found}")
    curves = table["factors"]
    mean = np.trapezoid(curves, table["probabilities"], axis=-1)
    late = np.apply_along_axis(lambda one: np.interp(LATE, table["probabilities"], one), -1, curves)
    _check_deadlines(fleet, way["way_ms"], table["median_ms"], late)
    edges = [one.name for one in fleet.edges]
    clouds = [one.name for one in fleet.clouds]
    edge_of = [fleet.edge_of(one) for one in fleet.devices]
    cloud_of = [fleet.cloud_of(one) for one in fleet.devices]
    places = {place: code for code, place in enumerate(PLACES)}

    def floats(values: np.ndarray | list[float] | float) -> chex.Array:
        return jnp.asarray(values, jnp.float32)

    return FleetParams(
        median_ms=floats(table["median_ms"]),
        mean=floats(mean),
        late=floats(late),
        probabilities=floats(table["probabilities"]),
        factors=floats(curves),
        energy_mj=None if np.isnan(table["energy_mj"]).any() else floats(table["energy_mj"]),
        where=jnp.array([places[option.place] for option in fleet.options], jnp.int32),
        edge=jnp.array([len(edges) if one is None else edges.index(one.name) for one in edge_of], jnp.int32),
        cloud=jnp.array([len(clouds) if one is None else clouds.index(one.name) for one in cloud_of], jnp.int32),
        edge_cloud=jnp.array([one is not None for one in edge_of], jnp.int32),
        wait_w=floats(fleet.radio.wait_mw / 1000.0),
        edges=floats(_nodes(fleet.edges, fleet.users)),
        clouds=floats(_nodes(fleet.clouds, fleet.users)),
        task_load=floats(_load(fleet, table["median_ms"] * mean)),
        weak_ms=floats(fleet.disturbances.weak_ms),
        busy_cpu_factor=floats(fleet.disturbances.busy_cpu_factor),
        busy_memory_factor=floats(fleet.disturbances.busy_memory_factor),
        monitor_period_ms=floats(fleet.monitor_period_ms),
        accuracy=floats(list(fleet.choice_accuracy())),
        constraint=floats(fleet.constraint),
        deadline_ms=floats([math.inf if one.deadline_ms is None else one.deadline_ms for one in fleet.devices]),
        weights=floats(list(fleet.goal.weights)),
        penalty_missing=floats(list(penalty.missing)),
        penalty_ms=floats(list(penalty.ms)),
        start=_conditions(fleet),
        chains=chains_of(fleet.dynamics),
        dynamic=jnp.bool_(fleet.dynamics is not None),
        **{name: floats(values) for name, values in way.items()},
    )
