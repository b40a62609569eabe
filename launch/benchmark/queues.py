"""How fast requests go through a fleet's queues, beside SimPy: the same requests on both, one after the other.

SimPy's model is the one that its documentation would have one write: a source for each device, a process for each
request, a resource for each node. Both give every request's response time, and these must agree.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Generator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hl_jax.arrivals import Arrivals, Traffic
from hl_jax.choices import node_choices
from hl_jax.scenario import Scenario
from hl_jax.traffic import environment, flow, params
from hl_jax.traffic.drawing import on_grid
from hl_jax.traffic.environment import TrafficParams
from launch.host.errors import InputError, RunError

INTERVAL_MS = 1000.0
# Devices, rollouts in one call, requests of each device in a rollout.
CASES = ((5, 1, 200), (5, 64, 200), (100, 1, 60), (100, 64, 60))
SHORTEST_S = 0.2  # of one turn of ours
EXACT_MS = 0.1  # of times up to some minutes, in float32: what response times may differ by

Fleet = tuple[np.ndarray, np.ndarray, np.ndarray]  # actions [N], times [L, N, R] and computing [L, N, R], ms


@dataclasses.dataclass(frozen=True)
class Queues:
    """Requests a second through a fleet, on one core."""

    devices: int
    rollouts: int  # in one call
    requests: int  # in one call
    ours_requests_per_s: float
    simpy_requests_per_s: float
    ratio: float  # median of `ratios`
    ratios: list[float]
    compile_s: float
    simpy: str  # its version


def fleet_of(scenario: Scenario, devices: int) -> Scenario:
    """So many devices like the scenario's first ones, again and again, that ask by chance once a second."""
    each = [scenario.devices[index % scenario.users] for index in range(devices)]
    named = tuple(dataclasses.replace(device, name=f"{index}") for index, device in enumerate(each))
    traffic = Traffic(arrivals=(Arrivals(interval_ms=INTERVAL_MS),) * devices, waiting=0)
    return dataclasses.replace(scenario, devices=named, constraint=0.0, dynamics=None, traffic=traffic)


def _requests(fleet: TrafficParams, rollouts: int, count: int) -> Fleet:
    """One task at the edge, some at the cloud, the others where they are asked, none of them overloaded."""
    devices = fleet.weights.shape[0]
    edge, cloud = node_choices(fleet.fleet.local_ms.shape[1])
    action = np.zeros(devices, np.int32)
    action[0], action[1:3] = edge, cloud
    random = np.random.default_rng(0)
    times = np.cumsum(random.exponential(INTERVAL_MS, (rollouts, devices, count)), axis=-1)
    mean = np.asarray(environment.services_ms(fleet.fleet, fleet.fleet.start))[np.arange(devices), action]
    computing = mean[:, None] * np.exp(0.03 * random.standard_normal(times.shape))
    return action, np.asarray(on_grid(jnp.asarray(times))), np.asarray(on_grid(jnp.asarray(computing)))


class Ours:
    """All rollouts in one compiled call."""

    def __init__(self, fleet: TrafficParams, requests: Fleet) -> None:
        action, times, computing = (jnp.asarray(part) for part in requests)
        network = environment.network(fleet, fleet.fleet.start, jnp.int32(0))
        stations, models = environment.idle_stations(fleet), fleet.fleet.local_ms.shape[1]
        ones = jnp.ones(fleet.fleet.accuracy.shape[0])

        def rollout(times: jax.Array, computing: jax.Array) -> jax.Array:
            made = environment.made(action, times, jnp.broadcast_to(ones, (len(action), len(ones))), computing)
            _, over = flow.through(network, stations, made, jnp.float32(jnp.inf), models)
            return over.at - over.made

        self._inputs = (times, computing)
        start = time.perf_counter()
        self._call = jax.jit(jax.vmap(rollout)).lower(*self._inputs).compile()
        self.compile_s = time.perf_counter() - start

    def run(self) -> np.ndarray:
        """Every response time. [L, N, R] ms."""
        return np.asarray(self._call(*self._inputs))


class SimPy:
    """One rollout as processes."""

    def __init__(self, fleet: TrafficParams, requests: Fleet) -> None:
        try:
            import simpy
        except ImportError as error:
            raise InputError("benchmark: expected requirements-peer.txt installed, found no simpy") from error
        self._simpy, self.version = simpy, simpy.__version__
        network = environment.network(fleet, fleet.fleet.start, jnp.int32(0))
        edge, cloud = node_choices(fleet.fleet.local_ms.shape[1])
        near, after, beyond = (
            np.asarray(part).tolist() for part in (network.near_ms, network.after_ms, network.beyond_ms)
        )
        action, times, computing = requests
        self._slots = fleet.slots
        self._places = [{edge: 0, cloud: 1}.get(int(one)) for one in action]
        self._ways = [
            (0.0, after[index]) if place is None else (near[index] + beyond[place], 0.0)
            for index, place in enumerate(self._places)
        ]
        self._times, self._computing = times[0].astype(float).tolist(), computing[0].astype(float).tolist()

    def run(self) -> np.ndarray:
        """Every response time of the first rollout. [N, R] ms."""
        env = self._simpy.Environment()
        device, *nodes = self._slots
        shared = [self._simpy.Resource(env, slots) for slots in nodes]
        found = np.zeros((len(self._times), len(self._times[0])))

        def request(
            place: Any, way: tuple[float, float], computing: float, row: np.ndarray, number: int
        ) -> Generator[Any]:
            made = env.now
            if way[0]:
                yield env.timeout(way[0])
            with place.request() as turn:
                yield turn
                yield env.timeout(computing)
            row[number] = env.now - made + way[1]

        def source(index: int) -> Generator[Any]:
            where = self._places[index]
            place = self._simpy.Resource(env, device) if where is None else shared[where]
            before = 0.0
            for number, (made, computing) in enumerate(zip(self._times[index], self._computing[index], strict=True)):
                yield env.timeout(made - before)
                before = made
                env.process(request(place, self._ways[index], computing, found[index], number))

        for index in range(len(found)):
            env.process(source(index))
        env.run()
        return found


def _rate(run: Callable[[], object], requests: int, shortest_s: float) -> float:
    """Requests a second, over at least so long."""
    calls, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < shortest_s or not calls:
        run()
        calls += 1
    return calls * requests / spent


def _figures(scenario: Scenario, devices: int, rollouts: int, count: int, repeats: int) -> Queues:
    fleet = params.make_params(fleet_of(scenario, devices))
    requests = _requests(fleet, rollouts, count)
    ours, theirs = Ours(fleet, requests), SimPy(fleet, requests)
    apart = np.abs(ours.run()[0] - theirs.run()).max()
    if apart > EXACT_MS:
        raise RunError(f"benchmark: expected the same response times as SimPy's, found {apart:.3f} ms between them")
    each = devices * count
    turns = [
        (_rate(ours.run, rollouts * each, SHORTEST_S), _rate(theirs.run, each, SHORTEST_S)) for _ in range(repeats)
    ]
    ratios = [mine / other for mine, other in turns]
    return Queues(
        devices=devices,
        rollouts=rollouts,
        requests=rollouts * each,
        ours_requests_per_s=statistics.median(mine for mine, _ in turns),
        simpy_requests_per_s=statistics.median(other for _, other in turns),
        ratio=statistics.median(ratios),
        ratios=ratios,
        compile_s=ours.compile_s,
        simpy=theirs.version,
    )


def queue_figures(scenario: Scenario, repeats: int) -> list[Queues]:
    """Requests a second of fleets of five and a hundred devices, alone and in many rollouts at once.

    Raises:
      RunError: if both simulations don't say the same.
    """
    return [_figures(scenario, *case, repeats) for case in CASES]
