"""What a structured search reads, and what it returns.

Under a fixed occupancy (how many tasks are at the edge and at the cloud) the cost of a joint action is a sum over
devices, and the accuracy constraint is a knapsack. That is the structure; where the numbers come from (a learned model
or a true one) is the caller's affair.
"""

from __future__ import annotations

import dataclasses

import chex
import jax.numpy as jnp

from hl_jax.choices import choice_count, node_tasks
from hl_jax.objective import ROUNDING

BIG = 1e12  # stands for an impossible cost, so that 0 * BIG is 0 and no infinity meets another
UNITS = 10_000  # accuracies are summed as integers of 1e-4 percentage points: exact, whatever the order
NOTHING = -1  # in place of a choice, where nothing is possible


@chex.dataclass(frozen=True)
class Costs:
    """Response times by choice and occupancy. Choices are l local models, then edge, then cloud (C = l + 2)."""

    local: chex.Array  # [N, l] ms
    edge: chex.Array  # [N, N+1] ms of device i's task at the edge when n tasks are there; n = 0 is never read
    cloud: chex.Array  # [N, N+1] ms
    accuracy: chex.Array  # [C] %
    constraint: chex.Array  # [] %, least mean accuracy
    weights: chex.Array | None = None  # [N] how much each device counts in that, mean 1; None: all as much


@chex.dataclass(frozen=True)
class Found:
    """The K best joint actions that meet the constraint, best first, and what is certain about them."""

    actions: chex.Array  # [K, N] int32; NOTHING where fewer than K joint actions are possible
    mean_ms: chex.Array  # [K] mean response time; inf where fewer than K joint actions are possible
    lower_bound_ms: chex.Array  # [] no joint action that meets the constraint has a lower mean
    exact: chex.Array  # [] bool: `actions` are certainly the K best (to a rounding of 1e-6)
    impossible: (
        chex.Array
    )  # [] int32, how many of the costs weren't finite, and so belong to choices that can't be made


def check(costs: Costs) -> tuple[int, int]:
    """Checks shapes; returns N and l."""
    chex.assert_rank([costs.local, costs.edge, costs.accuracy], [2, 2, 1])
    users, models = costs.local.shape
    chex.assert_shape([costs.edge, costs.cloud], (users, users + 1))
    chex.assert_shape(costs.accuracy, (choice_count(models),))
    chex.assert_shape(costs.constraint, ())
    if costs.weights is not None:
        chex.assert_shape(costs.weights, (users,))
    return users, models


def possible(costs: Costs) -> tuple[Costs, chex.Array]:
    """The same with `BIG` for every cost that isn't finite, and how many that are. Reads no cost of 0 tasks."""
    tables = (costs.local, costs.edge[:, 1:], costs.cloud[:, 1:])
    impossible = sum(jnp.sum(~jnp.isfinite(table), dtype=jnp.int32) for table in tables)
    local, edge, cloud = (jnp.where(jnp.isfinite(x), x, BIG) for x in (costs.local, costs.edge, costs.cloud))
    return dataclasses.replace(costs, local=local, edge=edge, cloud=cloud), jnp.asarray(impossible)


def relaxed(costs: Costs) -> Costs:
    """The same with the highest possible cost for every impossible one: less than it is, so bounds of these hold."""
    tables = (costs.local, costs.edge[:, 1:], costs.cloud[:, 1:])
    highest = jnp.max(jnp.stack([jnp.max(jnp.where(table < BIG, table, 0.0)) for table in tables]))
    local, edge, cloud = (jnp.where(x < BIG, x, highest) for x in (costs.local, costs.edge, costs.cloud))
    return dataclasses.replace(costs, local=local, edge=edge, cloud=cloud)


def require(found: Found) -> Found:
    """The same, on the host, if it holds any joint action.

    Raises:
      ValueError: if none is possible.
    """
    if not bool(jnp.isfinite(found.mean_ms[0])):
        expected = "a joint action that meets the constraint at a finite cost"
        raise ValueError(f"costs: expected {expected}, found none ({int(found.impossible)} costs aren't finite)")
    return found


def accuracy_units(costs: Costs) -> tuple[chex.Array, chex.Array]:
    """What each choice brings ([C] int32) and the least sum over devices that meets the constraint, in `UNITS`.

    Of devices that count differently it is [N, C].
    """
    users = costs.local.shape[0]
    accuracy = costs.accuracy if costs.weights is None else costs.weights[:, None] * costs.accuracy[None, :]
    units = jnp.round(accuracy * UNITS).astype(jnp.int32)
    # The part below a unit counts, too: up to a unit of each device. Apart, since float32 can't hold the whole sum.
    least = (costs.constraint - ROUNDING) * UNITS
    whole = jnp.floor(least)
    return units, users * whole.astype(jnp.int32) + jnp.ceil(users * (least - whole)).astype(jnp.int32)


def mean_response_ms(costs: Costs, action: chex.Array) -> chex.Array:
    """Mean response time of one joint action ([N] int32), ms."""
    users, models = check(costs)
    chex.assert_shape(action, (users,))
    at_edge, at_cloud = node_tasks(action, models)
    offloaded = [costs.edge[:, at_edge][:, None], costs.cloud[:, at_cloud][:, None]]
    table = jnp.concatenate([costs.local, *offloaded], axis=1)
    return jnp.mean(jnp.take_along_axis(table, action[:, None], axis=1)[:, 0])
