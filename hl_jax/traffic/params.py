"""A scenario under traffic as arrays, and the sizes that a compiled program needs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from hl_jax.arrivals import Arrivals, Bandwidth, Traffic
from hl_jax.objective import Penalty
from hl_jax.scenario import Scenario
from hl_jax.simulator import NO_PENALTY
from hl_jax.simulator import make_params as fleet_params
from hl_jax.traffic.drawing import GRID, Law, Stamps
from hl_jax.traffic.environment import TrafficParams
from hl_jax.traffic.links import Rate

SPREAD, BURSTY_SPREAD = 7.0, 14.0  # standard deviations above the mean that there is room for, of requests in a period
ROLLOUT_MS = 60_000.0  # at least simulated to judge a standing decision, after the first control period
ROLLOUT_REQUESTS = 40.0  # on average at least in that: of as many there is one, all but certainly
UNLIMITED = 64  # requests of a device that may be under way where nodes refuse none
FAST = 1e30  # kbit/ms of a link whose delay is all
NEVER = 3e38  # ms; an infinite deadline, which can still be calculated with


def most_requests(arrivals: Sequence[Arrivals], period_ms: float) -> int:
    """How many requests of a device there is room for in one control period."""
    found = 1
    for one in arrivals:
        mean = period_ms * one.per_ms
        if one.kind == "trace":
            periods = _periods(one, period_ms)[1]
            most = int(np.max(np.diff(periods)))
        elif one.variation == 0.0:
            most = math.ceil(mean + one.jitter_ms / one.interval_ms) + 1
        else:
            deviations = (SPREAD if one.variation <= 1.0 else BURSTY_SPREAD) * max(one.variation, 0.2)
            most = math.ceil(mean + deviations * math.sqrt(mean) + 4.0)
        found = max(found, most)
    return found


def _periods(one: Arrivals, period_ms: float) -> tuple[np.ndarray, np.ndarray]:
    """Offsets of a trace's stamps in their control periods [L], and where each of T periods begins [T + 1]."""
    stamps = np.array(one.stamps_ms, np.float64)
    count = round(one.length_ms / period_ms)
    which = np.minimum(np.floor(stamps / period_ms).astype(np.int64), count - 1)
    offset = np.round((stamps - which * period_ms) * GRID) / GRID
    return offset.astype(np.float32), np.searchsorted(which, np.arange(count + 1)).astype(np.int32)


def _stamps(arrivals: Sequence[Arrivals], period_ms: float) -> Stamps | None:
    traced = [_periods(one, period_ms) if one.kind == "trace" else None for one in arrivals]
    if not any(traced):
        return None
    periods = next(len(each[1]) for each in traced if each)
    none = (np.zeros(0, np.float32), np.zeros(periods, np.int32))
    each = [none if one is None else one for one in traced]
    most = max(len(offset) for offset, _ in each)
    return Stamps(
        offset=jnp.array([np.pad(offset, (0, most - len(offset))) for offset, _ in each]),
        first=jnp.array([first for _, first in each]),
    )


def law_of(traffic: Traffic) -> Law:
    """How each device's requests come, as arrays."""
    each = traffic.arrivals

    def column(values: Sequence[float]) -> jnp.ndarray:
        return jnp.array(values, jnp.float32)

    return Law(
        interval_ms=column([one.interval_ms for one in each]),
        variation=column([one.variation for one in each]),
        jitter_ms=column([one.jitter_ms for one in each]),
        phase_ms=column([one.phase(index) for index, one in enumerate(each)]),
        stamps=_stamps(each, traffic.period_ms),
        bursts=any(one.variation not in (0.0, 1.0) for one in each),
    )


def _rates(bandwidth: Bandwidth, period_ms: float, periods: int) -> list[tuple[list[float], list[float]]]:
    """A link's pieces in each of so many control periods: since when (ms from its start), and the rate."""
    length = bandwidth.length_ms or periods * period_ms
    repeated = math.ceil(periods * period_ms / length)
    since = np.concatenate([np.array(bandwidth.since_ms) + turn * length for turn in range(repeated)])
    rates = np.tile(np.array(bandwidth.mbps), repeated)
    found = []
    for start in np.arange(periods) * period_ms:
        first = int(np.searchsorted(since, start, side="right")) - 1
        last = int(np.searchsorted(since, start + period_ms, side="left"))
        moments = np.maximum(since[first:last] - start, 0.0)
        found.append((moments.tolist(), rates[first:last].tolist()))
    return found


def _rate(bandwidths: Sequence[Bandwidth | None], period_ms: float, periods: int) -> Rate:
    """Links as arrays [L, T, K]."""
    fast = [([0.0], [FAST])] * periods
    each = [fast if one is None else _rates(one, period_ms, periods) for one in bandwidths]
    most = max(len(moments) for link in each for moments, _ in link)
    # Further pieces begin after the period and carry what the last one does.
    since = [[m + [2.0 * period_ms + i for i in range(most - len(m))] for m, _ in link] for link in each]
    rates = [[r + [r[-1]] * (most - len(r)) for _, r in link] for link in each]
    return Rate(since=jnp.array(since, jnp.float32), kbit_per_ms=jnp.array(rates, jnp.float32))


def make_params(scenario: Scenario, penalty: Penalty = NO_PENALTY) -> TrafficParams:
    """Turns a validated scenario with traffic, and what breaking its constraint costs, into arrays.

    Raises:
      ValueError: if it has no traffic, traces don't fit its control periods, or a time matters that nobody measured.
    """
    traffic = scenario.traffic
    if traffic is None:
        raise ValueError(f"traffic: expected a scenario with some, found none in {scenario.name}")
    period, links = traffic.period_ms, traffic.links
    periods = traffic.link_periods
    room = most_requests(traffic.arrivals, period)
    fleet = fleet_params(scenario, penalty)
    slots = (1, scenario.edge.cores, scenario.cloud.cores)
    mean_rate = sum(one.per_ms for one in traffic.arrivals)
    longest = float(jnp.max(fleet.node_ms)) + scenario.timing.weak_device_ms + scenario.timing.weak_cloud_offload_ms
    on_the_way = math.ceil(room * min(longest / period + 0.2, 1.0))
    uplink = None if traffic.uplink is None else _rate([traffic.uplink], period, periods)
    return TrafficParams(
        fleet=fleet,
        law=law_of(traffic),
        per_ms=jnp.array([one.per_ms for one in traffic.arrivals], jnp.float32),
        period_ms=jnp.float32(period),
        deadline_ms=jnp.float32(NEVER if traffic.deadline_ms is None else traffic.deadline_ms),
        lost_ms=jnp.float32(traffic.counted_ms),
        input_kbit=jnp.float32(8.0 * traffic.input_kb),
        link=_rate(links, period, periods) if any(links) else None,
        uplink=None if uplink is None else Rate(since=uplink.since[0], kbit_per_ms=uplink.kbit_per_ms[0]),
        slots=slots,
        room=room,
        rollout=1 + max(1, round(ROLLOUT_MS / period), math.ceil(ROLLOUT_REQUESTS / period / mean_rate)),
        carried=(traffic.waiting * 2 + max(slots) + on_the_way) if traffic.waiting else UNLIMITED + 2 * room,
        waiting=traffic.waiting,
        gives_up=traffic.late == "dropped",
        objective=traffic.objective_code,
    )
