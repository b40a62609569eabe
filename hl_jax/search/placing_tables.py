"""What the search for a placement reads: a `Placement` scaled, with impossible choices taken out, and nodes numbered.

Costs are divided by the largest one, so that tolerances and prices mean the same whatever the unit. Accuracies are
integers of 1e-4 percentage points, so that sums are exact, and beside them fractions of their range, so that a price of
accuracy is a cost. Node E stands for every device itself: its occupancy is 1 whatever is there.
"""

from __future__ import annotations

import chex
import jax.numpy as jnp

from hl_jax.objective import ROUNDING
from hl_jax.placement import CLOUD, DEVICE, EDGE, Placement
from hl_jax.placement import check as check_shapes
from hl_jax.search.costs import BIG, UNITS

TINY = 1e-30  # the largest cost where all are 0


@chex.dataclass(frozen=True)
class Tables:
    """N devices' C choices at V = E + 1 + K + 1 nodes: edges, the devices themselves, clouds, and none."""

    base: chex.Array  # [N, C] BIG where the choice is impossible
    share: chex.Array  # [N, C] 0 where the choice is impossible
    most: chex.Array  # [N, C] int32, tasks at the node; anything where the task is on the device itself
    where: chex.Array  # [C] int32
    nodes: chex.Array  # [N, 3] int32: the device's node for DEVICE, EDGE and CLOUD
    occupancy: chex.Array  # [V, N+2] finite; that of 0 tasks is 1
    units: chex.Array  # [N, C] int32 accuracy
    need: chex.Array  # [] int32, least sum of `units`
    gain: chex.Array  # [N, C] accuracy as a fraction of its range
    range: chex.Array  # [] units
    scale: chex.Array  # [] what costs were divided by


def clouds_of(tables: Tables, edges: int) -> chex.Array:
    """Each device's cloud, K where it has none. [N]."""
    return tables.nodes[:, CLOUD] - edges - 1


def _occupancies(problem: Placement) -> tuple[chex.Array, chex.Array]:
    """Occupancy by node, [V, N+2], and the most tasks with which it is finite, [V]."""
    users = problem.base.shape[0]
    one = jnp.ones((1, users + 1), problem.base.dtype)
    rows = jnp.concatenate([problem.edges, one, problem.clouds, one])
    rows = rows.at[:, 0].set(1.0)
    finite = jnp.isfinite(rows)
    last = jnp.sum(jnp.cumprod(finite, axis=1), axis=1, dtype=jnp.int32) - 1
    rows = jnp.where(finite, rows, 1.0)
    return jnp.concatenate([rows, rows[:, -1:]], axis=1), last


def tables(problem: Placement) -> tuple[Tables, chex.Array]:
    """The tables of a problem, and how many choices of devices (N * C in all) can't be made at all."""
    users, _, edges, clouds = check_shapes(problem)
    occupancy, last = _occupancies(problem)
    itself = jnp.full_like(problem.edge, edges)
    nodes = jnp.stack([itself, problem.edge, edges + 1 + problem.cloud], axis=1)
    on_device = problem.where == DEVICE
    alone = jnp.where(on_device, 1, 0)[None, :]
    at_node = jnp.minimum(problem.most, last[nodes[:, problem.where]])
    there = jnp.stack([jnp.ones(users, bool), problem.edge < edges, problem.cloud < clouds], axis=1)[:, problem.where]
    finite = jnp.isfinite(problem.base) & jnp.isfinite(problem.share)
    known = jnp.isin(problem.where, jnp.array([DEVICE, EDGE, CLOUD]))[None, :]
    possible = finite & there & known & (problem.most >= 1) & (at_node >= 1)
    base, share = jnp.where(possible, problem.base, 0.0), jnp.where(possible, problem.share, 0.0)
    scale = jnp.maximum(jnp.max(jnp.abs(base) + share), TINY)
    units = jnp.round(problem.accuracy * UNITS).astype(jnp.int32)
    low, high = jnp.min(units), jnp.max(units)
    span = jnp.maximum(high - low, 1)
    least = (problem.constraint - ROUNDING) * UNITS
    # Apart, since float32 can't hold the whole sum. No need beyond what any sum reaches: int32 holds that, too.
    least = jnp.clip(least, -1.0, high + 1.0)
    whole = jnp.floor(least)
    return Tables(
        base=jnp.where(possible, base / scale, BIG),
        share=share / scale,
        most=jnp.where(alone > 0, users + 2, at_node),
        where=problem.where,
        nodes=nodes,
        occupancy=occupancy,
        units=units,
        need=users * whole.astype(jnp.int32) + jnp.ceil(users * (least - whole)).astype(jnp.int32),
        gain=(units - low) / span,
        range=span.astype(jnp.float32),
        scale=scale,
    ), jnp.sum(~possible, dtype=jnp.int32)


def needed(tables: Tables) -> chex.Array:
    """The least sum of `gain`. []."""
    users = tables.gain.shape[0]
    return (tables.need - users * jnp.min(tables.units)) / tables.range


def taken(table: chex.Array, action: chex.Array) -> chex.Array:
    """A table's entries ([N, C]) for a joint action ([N]). [N]."""
    return jnp.take_along_axis(table, action[:, None], axis=1)[:, 0]


def at_counts(tables: Tables, action: chex.Array) -> tuple[chex.Array, chex.Array]:
    """Each task's node ([N]), and the number of tasks at each node ([V])."""
    node = jnp.take_along_axis(tables.nodes, tables.where[action][:, None], axis=1)[:, 0]
    there = node[:, None] == jnp.arange(tables.occupancy.shape[0])[None, :]
    return node, jnp.sum(there, axis=0, dtype=jnp.int32)


def value(tables: Tables, action: chex.Array) -> chex.Array:
    """Total (scaled) cost of a joint action; inf where it isn't allowed or not accurate enough. []."""
    node, counts = at_counts(tables, action)
    beside = counts[node]
    costs = taken(tables.base, action) + taken(tables.share, action) * tables.occupancy[node, beside]
    allowed = (beside <= taken(tables.most, action)) & (taken(tables.base, action) < BIG)
    fine = jnp.all(allowed) & (jnp.sum(taken(tables.units, action)) >= tables.need)
    return jnp.where(fine, jnp.sum(costs), jnp.inf)
