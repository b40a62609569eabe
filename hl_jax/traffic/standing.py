"""What a standing joint decision is worth: rollouts under it from an idle fleet, in conditions that stand still.

Rollouts with the same keys have the same requests, whatever is decided (common random numbers), so that decisions are
compared by what differs between them and not by their luck.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp

from hl_jax.simulator import Conditions
from hl_jax.traffic import environment, flow, reports
from hl_jax.traffic.environment import TrafficOrchestration, TrafficParams
from hl_jax.traffic.flow import Requests


@chex.dataclass(frozen=True)
class Worth:
    """What one rollout shows."""

    cost_ms: chex.Array  # [] by the objective, the constraint apart
    mean_ms: chex.Array  # [] mean response time
    quantiles_ms: chex.Array  # [3] of response times
    missed: chex.Array  # [] part of the requests
    requests: chex.Array  # [] int32, requests that were over, which all this is of
    untold: chex.Array  # [] int32, requests that there was no room to simulate: they count as lost


def still(params: TrafficParams, conditions: Conditions) -> TrafficParams:
    """The same in conditions that don't change."""
    chains = jax.tree.map(jnp.zeros_like, params.fleet.chains)
    fleet = dataclasses.replace(params.fleet, start=conditions, chains=chains, dynamic=jnp.bool_(False))
    return dataclasses.replace(params, fleet=fleet)


def _periods(params: TrafficParams, action: chex.Array, key: chex.PRNGKey) -> tuple[Requests, chex.Array]:
    """The control periods of one rollout: every request under way in each ([T, N, M]), and how many were untold ([T]).

    The key is consumed.
    """
    env = TrafficOrchestration()
    reset_key, run_key = jax.random.split(key)
    _, state = env.reset(reset_key, params)

    def period(carry: Any, _: None) -> tuple[Any, Any]:
        state, key = carry
        key, period_key = jax.random.split(key)
        state, requests, told = env.period(period_key, state, action, params)
        return (state, key), (requests, told["untold"])

    _, found = jax.lax.scan(period, (state, run_key), length=params.rollout)
    requests, untold = found
    return requests, untold


def worth(params: TrafficParams, action: chex.Array, key: chex.PRNGKey) -> Worth:
    """One rollout of a joint decision ([N]) in the scenario's own conditions; the key is consumed."""
    requests, untold = _periods(params, action, key)
    seen = reports.finished(requests, params.period_ms, params.deadline_ms, params.lost_ms)
    seen = jax.tree.map(lambda leaf: leaf[1:].reshape(-1), seen)  # the fleet fills in the first period
    count, left_out = jnp.sum(seen.over), jnp.sum(untold)
    known = count / jnp.maximum(count + left_out, 1)

    def counted(value: chex.Array, lost: chex.Array | float) -> chex.Array:
        return known * value + (1.0 - known) * lost

    late = params.deadline_ms if params.objective == "misses" else params.lost_ms
    return Worth(
        cost_ms=counted(environment.cost_of(params, seen), late),
        mean_ms=counted(reports.mean(seen.response, seen.over), params.lost_ms),
        quantiles_ms=reports.quantiles(seen.response, seen.over),
        missed=counted(reports.mean(seen.missed.astype(jnp.float32), seen.over), 1.0),
        requests=count,
        untold=left_out,
    )


@chex.dataclass(frozen=True)
class Stay:
    """Requests of one rollout, from its start. All [K]; times in ms."""

    over: chex.Array  # bool; the other rows hold nothing
    response: chex.Array
    lost: chex.Array  # bool
    choice: chex.Array
    arrival: chex.Array  # at the node that computes it
    end: chex.Array  # when it leaves that


def stays(params: TrafficParams, action: chex.Array, key: chex.PRNGKey) -> Stay:
    """When each request of a rollout of a joint decision ([N]) is at its node; the key is consumed."""
    requests, _ = _periods(params, action, key)
    seen = reports.finished(requests, params.period_ms, params.deadline_ms, params.lost_ms)
    begins = params.period_ms * jnp.arange(params.rollout)[:, None, None]
    local = requests.choice < params.fleet.local_ms.shape[1]
    after = environment.network(params, params.fleet.start, jnp.int32(0)).after_ms[None, :, None]
    end = begins + requests.at - jnp.where(local & ~requests.lost, after, 0.0)
    spent = jnp.where(requests.lost, 0.0, requests.service) + requests.waited
    found = Stay(
        over=seen.over,
        response=seen.response,
        lost=seen.lost,
        choice=requests.choice,
        arrival=end - spent,
        end=end,
    )
    return jax.tree.map(lambda leaf: leaf.reshape(-1), found)


def replayed(params: TrafficParams, action: chex.Array, times: chex.Array) -> Requests:
    """What becomes of given requests under a joint decision, noise-free and from an idle fleet, to the last one's end.

    Args:
      params: the scenario, whose conditions stand still.
      action: [N].
      times: [N, M] ms when they are made, ascending, infinite where there are fewer.

    Returns:
      the requests, [N, M].
    """
    conditions = params.fleet.start
    services = environment.services_ms(params.fleet, conditions)
    requests = environment.made(action, times, services, jnp.ones_like(times))
    network, models = environment.network(params, conditions, jnp.int32(0)), params.fleet.local_ms.shape[1]
    return flow.through(network, environment.idle_stations(params), requests, jnp.float32(jnp.inf), models)[1]
