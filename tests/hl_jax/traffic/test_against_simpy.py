"""The event simulation against SimPy's: the same requests of small random fleets, one by one."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hl_jax
from hl_jax.arrivals import Arrivals, Bandwidth, Traffic
from hl_jax.choices import node_choices
from hl_jax.scenario import Device, Node, Scenario
from hl_jax.traffic import environment
from hl_jax.traffic.drawing import GRID
from hl_jax.traffic.environment import TrafficOrchestration, TrafficParams, TrafficState
from hl_jax.traffic.flow import OVER
from hl_jax.traffic.params import make_params
from tests.helpers import simpy_fleet
from tests.helpers.simpy_fleet import Ask

FLEETS = int(os.environ.get("HL_JAX_FLEETS", "21"))  # 50 in the longer mode
FAMILY = 7
SECONDS = 60
CLOSE_MS = 1e-3
CYCLE = 4.0  # control periods after which links are as at the start
ROOM = 40


def a_bandwidth(rng: np.random.Generator, length_ms: float, may_be_fast: bool) -> Bandwidth | None:
    """A link of some kind: its delay alone, one rate, or a trace with an outage now and then."""
    kind = rng.random()
    if kind < 0.3 and may_be_fast:
        return None
    if kind < 0.5:
        return Bandwidth(mbps=(rng.uniform(4.0, 40.0),), length_ms=length_ms)
    since = np.concatenate([[0.0], np.sort(rng.uniform(0.0, length_ms, 5)).round()])
    rates = rng.uniform(4.0, 20.0, 6) * (rng.random(6) < 0.8)
    rates[0] = 10.0
    return Bandwidth(mbps=tuple(rates.tolist()), since_ms=tuple(since.tolist()), length_ms=length_ms)


def a_fleet(number: int, paper: Scenario) -> tuple[Scenario, np.random.Generator]:
    """A random fleet, and what draws the rest of its test. A few in a row have sizes in common, and so a program."""
    sizes, rng = np.random.default_rng(number // FAMILY), np.random.default_rng([number])
    users, cores = int(sizes.integers(1, 7)), sizes.integers(1, 5, 2)
    with_links, with_uplink, patient, drops = sizes.random(4) < 0.5
    period, interval = float(rng.choice([500.0, 1000.0, 2000.0])), float(rng.choice([250.0, 500.0, 1000.0]))
    traffic = Traffic(
        arrivals=tuple(Arrivals(interval_ms=interval * rng.uniform(0.7, 1.4)) for _ in range(users)),
        period_ms=period,
        deadline_ms=None if patient else float(rng.uniform(300.0, 900.0)),
        late="dropped" if drops and not patient else "counts",
        waiting=int(sizes.choice([1, 3, 16])),
        links=tuple(a_bandwidth(rng, CYCLE * period, True) for _ in range(users)) if with_links else (),
        uplink=a_bandwidth(rng, CYCLE * period, False) if with_uplink else None,
    )
    links = [str(link) for link in rng.choice(["regular", "weak"], users + 2)]
    scenario = dataclasses.replace(
        paper,
        devices=tuple(Device(f"D{index}", links[index], rng.uniform(0.5, 2.0)) for index in range(users)),
        edge=Node(links[-2], int(cores[0])),
        cloud=Node(links[-1], int(cores[1])),
        traffic=traffic,
    )
    return scenario, rng


@dataclasses.dataclass(frozen=True)
class Ours:
    """What the event simulation made of a fleet's requests."""

    asks: list[Ask]
    over: dict[tuple[int, float], tuple[float, bool]]


@jax.jit
def _advanced(params: TrafficParams, state: TrafficState, action: Any, times: Any, factors: Any) -> Any:
    following, requests, no_room = environment.advanced(params, state, action, times, factors)
    services = environment.services_ms(params.fleet, state.monitors.conditions)
    new = environment.made(action, times, services, factors)
    clocks = following.clocks.replace(period=following.clocks.period + 1)
    return following.replace(clocks=clocks), requests, no_room, new


def ours(params: TrafficParams, scenario: Scenario, rng: np.random.Generator) -> Ours:
    """Lets requests of our own through the fleet, with another decision now and then, until all are over."""
    users, period = scenario.users, float(params.period_ms)
    _, state = TrafficOrchestration().reset(jax.random.key(0), params)
    where = dict(zip(node_choices(len(scenario.pool.names)), (simpy_fleet.EDGE, simpy_fleet.CLOUD), strict=True))
    asks, over = [], {}
    action = rng.integers(0, scenario.choices, users)
    number = 0
    while number * period < SECONDS * 1000 or np.any(state.under_way.stage):
        if rng.random() < 0.3:
            action = rng.integers(0, scenario.choices, users)
        times = np.full((users, params.room), np.inf, np.float32)
        if number * period < SECONDS * 1000:
            for device, arrivals in enumerate(scenario.traffic.arrivals):
                count = min(rng.poisson(period / arrivals.interval_ms), params.room)
                times[device, :count] = np.sort(np.round(rng.uniform(0.0, period - 1.0, count) * GRID) / GRID)
        factors = np.exp(0.3 * rng.standard_normal(times.shape)).astype(np.float32)
        state, requests, no_room, new = jax.device_get(_advanced(params, state, action, times, factors))
        assert int(no_room) == 0
        start = number * period
        for device, place in zip(*np.nonzero(np.isfinite(times)), strict=True):
            went = where.get(int(action[device]), simpy_fleet.LOCAL)
            made = start + float(times[device, place])
            asks.append(Ask(int(device), made, went, float(new.service[device, place])))
        ended = (requests.stage == OVER) & (requests.at <= period)
        for device, place in zip(*np.nonzero(ended), strict=True):
            made = round(start + float(requests.made[device, place]), 4)
            over[int(device), made] = (start + float(requests.at[device, place]), not requests.lost[device, place])
        number += 1
    return Ours(asks=asks, over=over)


def pieces(bandwidth: Bandwidth | None) -> list[tuple[float, float]] | None:
    return None if bandwidth is None else list(zip(bandwidth.since_ms, bandwidth.mbps, strict=True))


@pytest.mark.parametrize("number", range(FLEETS))
def test_every_response_time_is_simpys(number):
    scenario, rng = a_fleet(number, hl_jax.experiment("A"))
    params = dataclasses.replace(make_params(scenario), room=ROOM, carried=ROOM)
    found = ours(params, scenario, rng)
    traffic = scenario.traffic
    ways = environment.network(params, params.fleet.start, jnp.int32(0))
    fleet = simpy_fleet.Fleet(
        near=np.asarray(ways.near_ms, float).tolist(),
        to_edge=float(ways.beyond_ms[0]),
        to_cloud=float(ways.beyond_ms[1]),
        after=np.asarray(ways.after_ms, float).tolist(),
        slots=params.slots,
        waiting=traffic.waiting,
        patience=traffic.deadline_ms if traffic.late == "dropped" else None,
        kbit=8.0 * traffic.input_kb,
        links=[pieces(one) for one in traffic.links] if any(traffic.links) else [None] * scenario.users,
        uplink=pieces(traffic.uplink),
        cycle=CYCLE * traffic.period_ms,
    )
    expected = simpy_fleet.run(fleet, found.asks)
    assert len(found.asks) > 20
    worst = 0.0
    for ask, (ended, done) in zip(found.asks, expected, strict=True):
        mine = found.over[ask.device, round(ask.made, 4)]
        assert mine[1] == done, ask
        worst = max(worst, abs(mine[0] - ended))
    assert worst < CLOSE_MS
