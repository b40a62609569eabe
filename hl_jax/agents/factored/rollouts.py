"""Planning under traffic: the event simulation with learned numbers, for the joint decisions that look best.

A formula ranks all joint decisions through their structure (`search`), and the first K are rolled out: all of them with
the same requests, drawn from what is known of the devices' demand.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp

from hl_jax.agents.factored import queueing
from hl_jax.choices import local_models, node_choices
from hl_jax.search import structured
from hl_jax.search.costs import Costs
from hl_jax.traffic import environment, flow, reports
from hl_jax.traffic.drawing import on_grid
from hl_jax.traffic.flow import Network, Stations
from hl_jax.traffic.queues import idle

FILLING = 0.1  # part of a rollout in which the fleet fills, and whose requests don't count
REGULAR = 0.5  # coefficient of variation below which the next request is due a gap after the last one
WORTH_CHANGING = 0.003  # by how much another decision must be better than the one before
AT_A_TIME = 16  # decisions that are rolled out together: those of a hundred devices then stay in a core's cache
SURELY = 1.5  # standard errors by which it must be


@chex.dataclass(frozen=True)
class Learned:
    """The numbers of the event simulation."""

    computing_ms: chex.Array  # [N, C] what a task keeps a slot for
    way_ms: chex.Array  # [N, C] what else its response takes without waiting
    per_ms: chex.Array  # [N] mean requests
    variation: chex.Array  # [N] coefficient of variation of their gaps
    since_ms: chex.Array  # [N] since the last one


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is known of the fleet's structure, and what is wanted."""

    users: int
    accuracy: tuple[float, ...]  # [C] %
    weights: tuple[float, ...]  # [N] how much each device counts in its mean, mean 1; none: all as much
    slots: tuple[int, int, int]  # of a device, of the edge, of the cloud
    period_ms: float
    deadline_ms: float
    lost_ms: float
    gives_up: bool
    objective: str

    @property
    def models(self) -> int:
        return local_models(len(self.accuracy))

    def mean_accuracy(self, action: chex.Array) -> chex.Array:
        """Of a joint decision ([N]), over requests, %. []."""
        each = jnp.asarray(self.accuracy, jnp.float32)[action]
        return jnp.mean(each * jnp.asarray(self.weights, jnp.float32) if self.weights else each)


def formula(asked: Asked, learned: Learned, noise: float, constraint: chex.Array) -> Costs:
    """What each choice costs by the formula, for every number of tasks at edge and cloud; each device weighted."""
    models, users = asked.models, asked.users
    weight = learned.per_ms / jnp.mean(learned.per_ms)
    square = learned.variation**2

    def cost(alone: chex.Array, wait: chex.Array, load: chex.Array) -> chex.Array:
        if asked.objective != "misses":
            return alone + wait
        late = queueing.missed(alone, wait, load, jnp.float32(asked.deadline_ms), noise)
        # Among those that are as often late, the quicker ones.
        return asked.deadline_ms * late + 0.01 * (alone + wait)

    service, rate = learned.computing_ms[:, :models], jnp.broadcast_to(learned.per_ms[:, None], (users, models))
    mine = jnp.broadcast_to(square[:, None], (users, models))
    wait = queueing.wait_ms(rate, service, float(asked.slots[0]), mine, asked.period_ms)
    local = cost(service + learned.way_ms[:, :models], wait, rate * service / asked.slots[0])
    tasks = jnp.arange(users + 1, dtype=jnp.float32)
    # Many streams together come as if by chance, however regular each of them is.
    mixed = 1.0 + (jnp.mean(square) - 1.0) / jnp.maximum(tasks, 1.0)
    nodes = []
    for place, slots in enumerate(asked.slots[1:]):
        column = models + place
        service = jnp.full(users + 1, jnp.mean(learned.computing_ms[:, column]))
        arriving = tasks * jnp.mean(learned.per_ms)
        wait = queueing.wait_ms(arriving, service, float(slots), mixed, asked.period_ms)
        alone = learned.computing_ms[:, column] + learned.way_ms[:, column]
        load = arriving * service / slots
        nodes.append(jax.vmap(lambda one, wait=wait, load=load: cost(jnp.full_like(wait, one), wait, load))(alone))
    known = jnp.asarray(asked.accuracy, jnp.float32)
    scale = weight[:, None]
    return Costs(
        local=scale * local,
        edge=scale * nodes[0],
        cloud=scale * nodes[1],
        accuracy=known,
        constraint=constraint,
        weights=jnp.asarray(asked.weights, jnp.float32) if asked.weights else None,
    )


def requests_in_advance(key: chex.PRNGKey, learned: Learned, count: int) -> tuple[chex.Array, chex.Array]:
    """When each device may make its next requests: [N, count] ms, and until when all of them are known ([] ms).

    The key is consumed. Gaps are Weibull's with the learned mean and variation (Justus 1978), which holds a clock,
    Poisson's requests, and bursts.
    """
    shape = jnp.maximum(learned.variation, 0.02) ** -1.086
    power = 1.0 / shape[:, None]
    mean = jnp.exp(jax.lax.lgamma(1.0 + power))
    drawn = jax.random.exponential(key, (learned.per_ms.shape[0], count)) ** power / mean
    gaps = drawn / learned.per_ms[:, None]
    due = jnp.maximum(gaps[:, 0] - learned.since_ms, 0.0)
    gaps = gaps.at[:, 0].set(jnp.where(learned.variation < REGULAR, due, gaps[:, 0]))
    times = jnp.cumsum(gaps, axis=1)
    return on_grid(times), jnp.min(times[:, -1])


def _rollout(
    asked: Asked, learned: Learned, action: chex.Array, times: chex.Array, factors: chex.Array, until: chex.Array
) -> chex.Array:
    """What one joint decision ([N]) costs in one rollout ([N, R] requests, up to `until`). [] ms."""
    users = jnp.arange(asked.users)
    way = learned.way_ms[users, action]
    remote = action >= asked.models
    network = Network(
        near_ms=jnp.where(remote, way, 0.0),
        beyond_ms=jnp.zeros(2),
        after_ms=jnp.where(remote, 0.0, way),
        link=None,
        uplink=None,
        input_kbit=jnp.float32(0.0),
        patience_ms=jnp.float32(asked.deadline_ms) if asked.gives_up else None,
    )
    device, edge, cloud = (idle(slots, 0) for slots in asked.slots)
    stations = Stations(
        devices=jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (asked.users, *leaf.shape)), device),
        links=None,
        uplink=None,
        edge=edge,
        cloud=cloud,
    )
    made = environment.made(action, jnp.where(times < until, times, jnp.inf), learned.computing_ms, factors)
    _, requests = flow.through(network, stations, made, jnp.float32(jnp.inf), asked.models)
    seen = reports.finished(requests, jnp.float32(jnp.inf), jnp.float32(asked.deadline_ms), jnp.float32(asked.lost_ms))
    seen = seen.replace(over=seen.over & (requests.made >= FILLING * until))
    return environment.objective_of(asked.objective, seen, jnp.float32(asked.deadline_ms))


def rolled_out(
    key: chex.PRNGKey, asked: Asked, learned: Learned, actions: chex.Array, noise: float, rollouts: int, count: int
) -> chex.Array:
    """What joint decisions ([K, N]) cost in so many rollouts of `count` requests of each device. [K, rollouts] ms.

    The key is consumed; all decisions meet the same requests.
    """
    time_key, factor_key = jax.random.split(key)
    each: Any = jax.vmap(lambda one: requests_in_advance(one, learned, count))
    times, until = each(jax.random.split(time_key, rollouts))
    factors = jnp.exp(noise * jax.random.normal(factor_key, times.shape) - 0.5 * noise**2)
    by_rollout = jax.vmap(_rollout, in_axes=(None, None, None, 0, 0, 0))

    def one(action: chex.Array) -> chex.Array:
        costs: chex.Array = by_rollout(asked, learned, action, times, factors, until)
        return costs

    found: chex.Array = jax.lax.map(one, actions, batch_size=AT_A_TIME)
    return found


def preferred(worth: chex.Array, there: chex.Array) -> chex.Array:
    """Which of K decisions is the one to take ([] index), by rollouts' costs ([K, rollouts]); the last one stands.

    The standing one is kept unless another is surely better. What isn't `there` ([K] bool) isn't taken.
    """
    mean = jnp.where(there, jnp.mean(worth, axis=1), jnp.inf)
    best = jnp.argmin(mean)
    difference = worth[-1] - worth[best]
    error = jnp.std(difference) / jnp.sqrt(worth.shape[1] - 1.0) if worth.shape[1] > 1 else jnp.float32(0.0)
    enough = jnp.maximum(SURELY * error, WORTH_CHANGING * mean[best])
    return jnp.where(there[-1] & (jnp.mean(difference) <= enough), worth.shape[0] - 1, best)


def candidates(costs: Costs, k: int, users: int) -> tuple[chex.Array, chex.Array]:
    """The K joint decisions of least cost by the formula ([K, N]), and which there are ([K] bool)."""
    found = structured.k_best(costs, k, structured.default_effort(users, costs.accuracy.shape[0], k))
    there = jnp.isfinite(found.mean_ms)
    return jnp.where(there[:, None], found.actions, found.actions[:1]), there


def tasks_there(asked: Asked, action: chex.Array) -> chex.Array:
    """Tasks of a joint decision ([N]) at edge and cloud. [2]."""
    return jnp.stack([jnp.sum(action == node) for node in node_choices(asked.models)])
