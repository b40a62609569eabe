"""The fleet under traffic: a step is a control period in which requests come when they come, under one joint decision.

The same interface as `simulator.Orchestration`, and the same times: a node's `share_ms` (its reference cores' worth of
one task) is what a task keeps a slot for, the rest of a task's time alone is its way there. What differs is that tasks
queue, first come, first served, instead of slowing one another.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp

from hl_jax import objective
from hl_jax.choices import node_choices
from hl_jax.scenario import LEVELS
from hl_jax.simulator import Conditions, EnvParams, next_conditions, observe, stationary_conditions
from hl_jax.simulator import EnvState as Monitors
from hl_jax.traffic import drawing, flow, links, reports
from hl_jax.traffic.drawing import STATIC, Clocks, Law, on_grid
from hl_jax.traffic.flow import IN_LINK, NOWHERE, OVER, Network, Requests, Stations
from hl_jax.traffic.links import Rate
from hl_jax.traffic.queues import idle
from hl_jax.traffic.reports import Finished

LONGEST_SILENCE = 1000  # control periods without any finished request before a step ends all the same


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrafficParams:
    """A scenario under traffic as arrays, and the sizes that a compiled program is made for."""

    fleet: EnvParams
    law: Law
    per_ms: chex.Array  # [N] mean requests of each device
    period_ms: chex.Array
    deadline_ms: chex.Array  # infinite: none
    lost_ms: chex.Array  # what a request without a result counts
    input_kbit: chex.Array
    link: Rate | None  # [N, T, K] of each of T control periods, which follow one another again and again
    uplink: Rate | None  # [T, K]
    slots: tuple[int, int, int] = dataclasses.field(metadata=STATIC)  # of a device, of the edge, of the cloud
    room: int = dataclasses.field(metadata=STATIC)  # R, most requests of a device in a period
    rollout: int = dataclasses.field(metadata=STATIC)  # control periods in which a standing decision is judged
    carried: int = dataclasses.field(metadata=STATIC)  # B, most requests of a device under way between periods
    waiting: int = dataclasses.field(metadata=STATIC)  # W, places to wait at a node; 0: no limit
    gives_up: bool = dataclasses.field(metadata=STATIC)  # whether a task isn't begun after its deadline
    objective: str = dataclasses.field(metadata=STATIC)  # mean, misses, or a quantile as its number

    @property
    def weights(self) -> chex.Array:
        """[N] each device's part of all requests."""
        return self.per_ms / jnp.sum(self.per_ms)

    @property
    def dynamic(self) -> chex.Array:
        return self.fleet.dynamic


@chex.dataclass(frozen=True)
class TrafficState:
    """What goes on from one control period to the next."""

    monitors: Monitors
    clocks: Clocks
    stations: Stations
    under_way: Requests  # [N, B]


def _nobody(users: int, room: int) -> Requests:
    zero, none = jnp.zeros((users, room), jnp.float32), jnp.zeros((users, room), jnp.int32)
    return Requests(
        stage=none + NOWHERE, made=zero, choice=none, service=zero, at=zero, passed=zero, waited=zero, lost=zero > 0.0
    )


def idle_stations(params: TrafficParams) -> Stations:
    """A fleet where nothing runs."""
    users = params.law.interval_ms.shape[0]
    device, edge, cloud = params.slots

    def each(server: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (users, *leaf.shape)), server)

    return Stations(
        devices=each(idle(device, params.waiting)),
        links=None if params.link is None else each(links.empty(params.waiting)),
        uplink=None if params.uplink is None else links.empty(params.waiting),
        edge=idle(edge, params.waiting),
        cloud=idle(cloud, params.waiting),
    )


def services_ms(fleet: EnvParams, conditions: Conditions) -> chex.Array:
    """What a task of each device takes of computing for each choice, noise-free. [N, C] ms."""
    slow = jnp.where(conditions.device_cpu == 1, fleet.busy_cpu_factor, 1.0) * jnp.where(
        conditions.device_memory == 1, fleet.busy_memory_factor, 1.0
    )
    busy = (conditions.node_cpu / LEVELS).astype(jnp.float32)
    nodes = fleet.share_ms * jnp.where(conditions.node_memory == 1, fleet.busy_memory_factor, 1.0) / (1.0 - busy)
    users = fleet.local_ms.shape[0]
    return jnp.concatenate([fleet.local_ms * slow[:, None], jnp.broadcast_to(nodes, (users, 2))], axis=1)


def network(params: TrafficParams, conditions: Conditions, period: chex.Array) -> Network:
    """The way through the fleet in one control period."""
    fleet = params.fleet
    weak_edge = conditions.node_weak[0] * fleet.weak_edge_ms
    own = conditions.device_weak * fleet.weak_device_ms + weak_edge
    # A task for the cloud passes the edge (Fig. 1, steps 2 and 3), so a weak edge link costs it too.
    there = fleet.node_ms + jnp.cumsum(conditions.node_weak * fleet.weak_offload_ms)
    near = jnp.min(there)

    def now(rate: Rate | None) -> Rate | None:
        return None if rate is None else jax.tree.map(lambda leaf: leaf[..., period % leaf.shape[-2], :], rate)

    return Network(
        near_ms=on_grid(near + own + conditions.device_weak * fleet.weak_device_offload_ms),
        beyond_ms=on_grid(there - near),
        after_ms=on_grid(own),
        link=now(params.link),
        uplink=now(params.uplink),
        input_kbit=params.input_kbit,
        patience_ms=params.deadline_ms if params.gives_up else None,
    )


def made(action: chex.Array, times: chex.Array, services: chex.Array, factors: chex.Array) -> Requests:
    """Requests of one period under a joint decision.

    Args:
      action: [N] the standing decision.
      times: [N, R] when they are made, infinite where there is none.
      services: [N, C] ms of computing.
      factors: [N, R] by which each request's computing differs.
    """
    there = jnp.isfinite(times)
    mean = jnp.take_along_axis(services, action[:, None], axis=1)
    nobody = _nobody(*times.shape)
    return nobody.replace(
        stage=jnp.where(there, flow.MADE, NOWHERE),
        made=jnp.where(there, times, 0.0),
        choice=jnp.broadcast_to(action[:, None], times.shape),
        service=on_grid(mean * factors),
    )


def _kept(requests: Requests, until: chex.Array, room: int) -> tuple[Requests, chex.Array]:
    """The requests ([N, M]) that aren't over by `until`, in order ([N, room]), and how many had no room ([])."""
    stays = (requests.stage != NOWHERE) & ~((requests.stage == OVER) & (requests.at <= until))
    place = jnp.where(stays, jnp.cumsum(stays, axis=1) - 1, room)  # beyond the end: dropped
    rows = jnp.arange(stays.shape[0])[:, None]

    def packed(field: chex.Array, empty: chex.Array) -> chex.Array:
        return empty.at[rows, place].set(field, mode="drop")

    kept = jax.tree.map(packed, requests, _nobody(stays.shape[0], room))
    in_link = (kept.stage == IN_LINK) | (kept.stage == flow.IN_UPLINK)  # whose `at` is work, counted anew already
    moved = kept.replace(
        made=kept.made - until, passed=kept.passed - until, at=jnp.where(in_link, kept.at, kept.at - until)
    )
    return moved, jnp.sum(jnp.maximum(jnp.sum(stays, axis=1) - room, 0))


def objective_of(wanted: str, seen: Finished, deadline_ms: chex.Array) -> chex.Array:
    """What requests cost by an objective (`TrafficParams.objective`), ms; the constraint apart."""
    if wanted == "mean":
        return reports.mean(seen.response, seen.over)
    if wanted == "misses":
        return deadline_ms * reports.mean(seen.missed.astype(jnp.float32), seen.over)
    return reports.quantiles(seen.response.reshape(-1), seen.over.reshape(-1), (float(wanted),))[0]


def cost_of(params: TrafficParams, seen: Finished) -> chex.Array:
    """What a period's requests cost by the scenario's objective, ms; the constraint apart."""
    return objective_of(params.objective, seen, params.deadline_ms)


def mean_accuracy(params: TrafficParams, action: chex.Array) -> chex.Array:
    """Mean accuracy of a joint decision ([N]), each device weighted by its requests, %. []."""
    return jnp.sum(params.weights * params.fleet.accuracy[action])


def penalty_ms(params: TrafficParams, accuracy: chex.Array) -> chex.Array:
    """What breaking the constraint costs at a mean accuracy (%)."""
    fleet = params.fleet
    return objective.penalty_ms(accuracy, fleet.constraint, fleet.penalty_missing, fleet.penalty_ms)


def settled(params: TrafficParams, state: TrafficState, action: chex.Array) -> TrafficState:
    """The state as monitors show it on average after a period under a joint decision ([N]), conditions as they are."""
    services = services_ms(params.fleet, state.monitors.conditions)
    work = params.per_ms * jnp.take_along_axis(services, action[:, None], axis=1)[:, 0]
    models = params.fleet.local_ms.shape[1]
    nodes = jnp.stack([jnp.sum(jnp.where(action == node, work, 0.0)) for node in node_choices(models)])
    slots = jnp.array(params.slots, jnp.float32)
    monitors = dataclasses.replace(
        state.monitors,
        device_load=jnp.minimum(jnp.where(action < models, work, 0.0) / slots[0], 1.0),
        node_load=jnp.minimum(nodes / slots[1:], 1.0),
        time=state.monitors.time + 1,
    )
    return state.replace(monitors=monitors)


def _load(params: TrafficParams, requests: Requests) -> tuple[chex.Array, chex.Array]:
    """What monitors show of a period's computing: the part of the slots' time that was taken. [N], [2]."""
    done = (requests.stage == OVER) & ~requests.lost
    inside = jnp.minimum(requests.at, params.period_ms) - jnp.maximum(requests.at - requests.service, 0.0)
    work = jnp.where(done, jnp.maximum(inside, 0.0), 0.0)
    models = params.fleet.local_ms.shape[1]
    device = jnp.sum(jnp.where(requests.choice < models, work, 0.0), axis=1)
    nodes = jnp.stack([jnp.sum(jnp.where(requests.choice == node, work, 0.0)) for node in node_choices(models)])
    slots = jnp.array(params.slots, jnp.float32)
    return (
        jnp.minimum(device / (slots[0] * params.period_ms), 1.0),
        jnp.minimum(nodes / (slots[1:] * params.period_ms), 1.0),
    )


def told_of(params: TrafficParams, action: chex.Array, seen: Finished, made: dict[str, chex.Array]) -> dict[str, Any]:
    """What a step tells (`TrafficOrchestration.step`): of what is over, and of what was `made` (with its `periods`)."""
    count = jnp.sum(seen.over, axis=1)
    done = seen.over & ~seen.lost
    mine = done & (seen.choice == action[:, None])  # what the standing decision did, not the one before
    way = seen.response - seen.waiting - seen.computing
    response = reports.mean(seen.response, seen.over, axis=1)
    by_device = jax.vmap(reports.quantiles)(seen.response, seen.over)
    overall = reports.quantiles(seen.response.reshape(-1), seen.over.reshape(-1))
    accuracy = mean_accuracy(params, action)
    some = jnp.any(seen.over)  # else it costs what a request without a result does
    art = jnp.where(some, reports.mean(seen.response, seen.over), params.lost_ms)
    cost = jnp.where(some, cost_of(params, seen), params.lost_ms)
    return made | {
        "count": count,
        # Where nothing was over there is no time: `gone` says so.
        "response_ms": jnp.where(count > 0, response, params.lost_ms),
        "gone": count == 0,
        "lost": ~jnp.any(done, axis=1),
        "p50_ms": by_device[:, 0],
        "p95_ms": by_device[:, 1],
        "p99_ms": by_device[:, 2],
        "missed": jnp.sum(seen.missed, axis=1),
        "waiting_ms": reports.mean(seen.waiting, seen.over, axis=1),
        "done": jnp.sum(mine, axis=1),
        "computing_ms": reports.mean(seen.computing, mine, axis=1),
        "way_ms": reports.mean(way, mine, axis=1),
        "art_ms": art,
        "objective_ms": cost,
        "elapsed_ms": made["periods"] * params.period_ms,
        "overall_ms": overall,
        "accuracy": accuracy,
        "feasible": objective.meets(accuracy, params.fleet.constraint),
        "cost_ms": cost + penalty_ms(params, accuracy),
    }


def advanced(
    params: TrafficParams, state: TrafficState, action: chex.Array, times: chex.Array, factors: chex.Array
) -> tuple[TrafficState, Requests, chex.Array]:
    """One control period under the joint decision `action` ([N]), conditions and clocks apart.

    Args:
      params: the scenario.
      state: at its start.
      action: [N] int32.
      times: [N, R] ms when requests are made, ascending, infinite where there are fewer.
      factors: [N, R] by which each request's computing differs from the mean.

    Returns:
      the state after it; every request that was under way in it ([N, B + R]); how many there was no room for ([]).
    """
    until, conditions = params.period_ms, state.monitors.conditions
    ways = network(params, conditions, state.clocks.period)
    new = made(action, times, services_ms(params.fleet, conditions), factors)
    requests = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), state.under_way, new)
    stations, requests = flow.through(ways, state.stations, requests, until, params.fleet.local_ms.shape[1])
    under_way, no_room = _kept(requests, until, params.carried)
    device_load, node_load = _load(params, requests)
    monitors = dataclasses.replace(
        state.monitors, device_load=device_load, node_load=node_load, time=state.monitors.time + 1
    )
    following = state.replace(monitors=monitors, stations=flow.later(stations, until), under_way=under_way)
    return following, requests, no_room


def _together(before: dict[str, chex.Array], now: dict[str, chex.Array]) -> dict[str, chex.Array]:
    """What two control periods that follow one another tell of the requests made in them (`drawing.gaps_between`)."""
    summed = {name: before[name] + now[name] for name in ("requests", "untold", "made", "gaps")}
    gaps = jnp.maximum(summed["gaps"], 1)
    means = {
        name: (before["gaps"] * before[name] + now["gaps"] * now[name]) / gaps for name in ("gap_ms", "gap_square_ms2")
    }
    return now | summed | means


class TrafficOrchestration:
    """The environment in gymnax 1.0's convention. Stateless: everything is in `TrafficParams` and `TrafficState`."""

    def reset(self, key: chex.PRNGKey, params: TrafficParams) -> tuple[chex.Array, TrafficState]:
        """Starts with an idle fleet. Returns the observation [F] int32 and the state; the key is consumed."""
        conditions_key, clock_key = jax.random.split(key)
        users = params.law.interval_ms.shape[0]
        monitors = Monitors(
            conditions=stationary_conditions(conditions_key, params.fleet),
            device_load=jnp.zeros(users, jnp.float32),
            node_load=jnp.zeros(2, jnp.float32),
            time=jnp.int32(0),
        )
        state = TrafficState(
            monitors=monitors,
            clocks=drawing.start(clock_key, params.law),
            stations=idle_stations(params),
            under_way=_nobody(users, params.carried),
        )
        return observe(monitors), state

    def period(
        self, key: chex.PRNGKey, state: TrafficState, action: chex.Array, params: TrafficParams
    ) -> tuple[TrafficState, Requests, dict[str, chex.Array]]:
        """One control period under the joint decision `action` ([N] int32); the key is consumed.

        Returns:
          the state after it; every request that was under way in it ([N, B + R]); and how many were made and untold.
        """
        noise_key, chain_key = jax.random.split(key)
        clocks, times, beyond = drawing.draw(params.law, state.clocks, params.period_ms, params.room)
        noise = params.fleet.noise
        # The mean of the log-normal factor is 1, so that the noise-free time is the expected one.
        factors = jnp.exp(noise * jax.random.normal(noise_key, times.shape) - 0.5 * noise**2)
        following, requests, no_room = advanced(params, state, action, times, factors)
        conditions = next_conditions(chain_key, params.fleet, state.monitors.conditions)
        gaps = drawing.gaps_between(state.clocks, clocks, times)
        told = gaps | {"requests": jnp.sum(gaps["made"]) + jnp.sum(beyond), "untold": jnp.sum(beyond) + no_room}
        following = following.replace(
            clocks=clocks, monitors=dataclasses.replace(following.monitors, conditions=conditions)
        )
        return following, requests, told

    def step(
        self, key: chex.PRNGKey, state: TrafficState, action: chex.Array, params: TrafficParams
    ) -> tuple[chex.Array, TrafficState, chex.Array, chex.Array, chex.Array, dict[str, chex.Array]]:
        """Control periods under the joint decision `action` ([N] int32) until a request is over, mostly one.

        The key is consumed.

        Returns:
          obs [F] int32, state, reward = -cost (ms), terminated, truncated (both False), and info, of each device [N]:
          `count` of requests that were over, `response_ms` (mean; what got no result counts `lost_ms`), `p50_ms`,
          `p95_ms`, `p99_ms`, `missed`, `waiting_ms`, `gone` (nothing was over), `lost` (nothing got a result); of
          those that got one as this decision says, `done` of them, mean `computing_ms` and `way_ms`; of its requests,
          how many it `made`, `gaps` between them with mean `gap_ms` and mean square `gap_square_ms2`, and the time
          `since_ms` the last one; of all: `art_ms`, `overall_ms` [3] (its 50, 95 and 99 % quantiles), `accuracy` (%),
          `feasible`, `objective_ms`, `cost_ms` (with the penalty), `elapsed_ms`, `requests` made, `periods`, and
          `untold`: requests that there was no room to simulate.
        """
        chex.assert_shape(action, params.per_ms.shape)

        def seen(requests: Requests) -> Finished:
            return reports.finished(requests, params.period_ms, params.deadline_ms, params.lost_ms)

        def silent(carry: Any) -> chex.Array:
            _, requests, _, periods = carry
            return ~jnp.any(seen(requests).over) & (periods < LONGEST_SILENCE)

        def once(carry: Any) -> Any:
            state, _, told, periods = carry
            state, requests, more = self.period(jax.random.fold_in(key, periods), state, action, params)
            return state, requests, _together(told, more), periods + 1

        nobody = _nobody(params.per_ms.shape[0], params.carried + params.room)
        shapes = jax.eval_shape(lambda: self.period(key, state, action, params)[2])
        told = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        state, requests, told, periods = jax.lax.while_loop(silent, once, (state, nobody, told, jnp.int32(0)))
        info = told_of(params, action, seen(requests), told | {"periods": periods})
        return observe(state.monitors), state, -info["cost_ms"], jnp.bool_(False), jnp.bool_(False), info
