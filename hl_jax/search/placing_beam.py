"""Branch and bound in breadth over a few devices' placements: certain wherever nothing of promise falls off the beam.

Labels (partial joint actions) start with a number of tasks for each cloud. Devices come edge by edge; before the first
of an edge a label takes a number of tasks for it, then each device takes a choice, and costs are a plain sum. What the
devices to come cost at least is known for each of several prices and wages: the least sum that puts just so many more
of them at the edge (dynamic programming, from the last device to the first), and every later edge at its best. Of
labels with the same tasks to come one that is neither cheaper nor more accurate than another is dropped, and so is one
whose bound reaches a joint action known already. What else falls off lowers the bound that is returned.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp

from hl_jax.placement import CLOUD, EDGE
from hl_jax.search.costs import BIG
from hl_jax.search.placing_bounds import Priced
from hl_jax.search.placing_tables import Tables, clouds_of

HIGHEST = 2**31 - 1  # of an int32
TIE = 3e-7  # relative; labels that would be better by less aren't followed


@chex.dataclass(frozen=True)
class Roots:
    """R numbers of tasks at the clouds, each with wages for each of M prices."""

    counts: chex.Array  # [R, K] int32
    wages: chex.Array  # [M, R, K]
    slack: chex.Array  # [M, R] what rounding may add to a bound
    possible: chex.Array  # [R] bool: whether to look at it


@chex.dataclass(frozen=True)
class _Place:
    """One device, in the order of branching; R, M as in `Roots`, n tasks at its edge, j of them still to come."""

    device: chex.Array  # []
    first: chex.Array  # [] bool: the first of its edge
    last: chex.Array  # [] bool: the last of its edge
    before: chex.Array  # [M, R, N+1] least (priced) sum of it and all that follow, by n = j
    after: chex.Array  # [M, R, N+1, N+1] least sum of all that follow, by n and j
    remaining: chex.Array  # [] int32 devices that follow
    least: chex.Array  # [] int32 units that they bring whatever they do
    most: chex.Array  # [] int32 units that they can bring


@chex.dataclass(frozen=True)
class _Labels:
    """Partial joint actions."""

    bound: chex.Array  # [B] total; BIG where the place is empty
    cost: chex.Array  # [B] so far
    root: chex.Array  # [B] int32
    count: chex.Array  # [B] int32 n, 0 between edges
    edge: chex.Array  # [B] int32 j, tasks still to come at the edge
    clouds: chex.Array  # [K, B] int32 tasks still to come
    missing: chex.Array  # [B] int32 units
    dropped: chex.Array  # [] least bound among all that fell off


@chex.dataclass(frozen=True)
class Found:
    """The best joint action below the known one, and the least bound of what wasn't followed."""

    action: chex.Array  # [N]; anything where `total` is BIG
    total: chex.Array  # []
    dropped: chex.Array  # []


def _away(tables: Tables, priced: Priced, roots: Roots, edges: int) -> chex.Array:
    """What a device costs at least away from its edge, by price and root. [M, R, N]."""
    cloud = clouds_of(tables, edges)
    prices, starts, clouds = roots.wages.shape
    away = jnp.broadcast_to(priced.local[:, None, :], (prices, starts, cloud.shape[0]))
    for k in range(clouds):
        there = priced.cloud[:, roots.counts[:, k], :]
        there = jnp.where(there < BIG, there - roots.wages[:, :, k][:, :, None], BIG)
        away = jnp.where((cloud == k)[None, None, :], jnp.minimum(away, there), away)
    return away


def _to_come(priced: Priced, away: chex.Array, order: chex.Array, last: chex.Array) -> tuple[chex.Array, chex.Array]:
    """`before` and `after` of all places ([N, ...]), by dynamic programming from the last device to the first."""
    prices, starts, users = away.shape
    each = jnp.arange(users + 1)

    def step(inside: chex.Array, item: tuple[chex.Array, chex.Array]) -> tuple[chex.Array, Any]:
        device, last = item
        later = jnp.min(jnp.diagonal(inside, axis1=2, axis2=3), axis=2)  # every later edge at its best
        ended = jnp.where(each[None, None, None, :] == 0, later[:, :, None, None], BIG)
        after = jnp.where(last, ended, inside)
        joined = jnp.pad(after[..., :-1], ((0, 0), (0, 0), (0, 0), (1, 0)), constant_values=BIG)
        stays = away[:, :, device][:, :, None, None] + after
        goes = priced.edge[:, :, device][:, None, :, None] + joined
        before = jnp.minimum(jnp.minimum(stays, goes), BIG)
        return before, (jnp.diagonal(before, axis1=2, axis2=3), after)

    nothing = jnp.where(each[:, None] + each[None, :] == 0, 0.0, BIG)  # behind which there is no device
    start = jnp.broadcast_to(nothing, (prices, starts, users + 1, users + 1))
    _, (before, after) = jax.lax.scan(step, start, (order, last), reverse=True)
    return before, after


def _later(values: chex.Array) -> chex.Array:
    """For every place the sum of all later ones. [N]."""
    return jnp.flip(jnp.cumsum(jnp.flip(values))) - values


def _places(tables: Tables, priced: Priced, roots: Roots, edges: int) -> _Place:
    """All devices' places ([N, ...]), edge by edge; `priced` has a leading axis of prices, M."""
    users = tables.base.shape[0]
    order = jnp.argsort(tables.nodes[:, EDGE])
    edge = tables.nodes[order, EDGE]
    change = edge[1:] != edge[:-1]
    first, last = jnp.concatenate([jnp.ones(1, bool), change]), jnp.concatenate([change, jnp.ones(1, bool)])
    before, after = _to_come(priced, _away(tables, priced, roots, edges), order, last)
    possible, none = tables.base < BIG, HIGHEST // (2 * users)
    return _Place(
        device=order,
        first=first,
        last=last,
        before=before,
        after=after,
        remaining=jnp.arange(users)[::-1],
        least=_later(jnp.min(jnp.where(possible, tables.units, none), axis=1)[order]),
        most=_later(jnp.max(jnp.where(possible, tables.units, -none), axis=1)[order]),
    )


def _worth(
    tables: Tables, priced: Priced, roots: Roots, labels: _Labels, devices: chex.Array
) -> tuple[chex.Array, chex.Array]:
    """What is added to the sums of `devices` devices to come, by price ([M, B]), and each root's wages [M, K, B]."""
    missing = (labels.missing - devices * jnp.min(tables.units)) / tables.range
    wages = jnp.swapaxes(roots.wages[:, labels.root, :], 1, 2)
    worth = priced.price[:, None] * missing[None, :] - roots.slack[:, labels.root]
    return worth + jnp.sum(wages * labels.clouds[None], axis=1), wages


def _kept(bound: chex.Array, width: int) -> tuple[chex.Array, chex.Array, chex.Array]:
    """The `width` lowest bounds, where they are, and the lowest of the others."""
    if bound.shape[0] <= width:
        padded = jnp.pad(bound, (0, width - bound.shape[0]), constant_values=BIG)
        return padded, jnp.minimum(jnp.arange(width), bound.shape[0] - 1), jnp.float32(BIG)
    negated, index = jax.lax.top_k(-bound, width + 1)
    return -negated[:width], index[:width], -negated[width]


def _with_count(
    tables: Tables, priced: Priced, roots: Roots, labels: _Labels, place: _Place, known: chex.Array
) -> tuple[_Labels, chex.Array]:
    """Labels that have taken a number of tasks for the edge that begins here, if one does; and their parents."""
    width, each = labels.bound.shape[0], jnp.arange(place.before.shape[2])
    worth, _ = _worth(tables, priced, roots, labels, place.remaining + 1)
    bound = labels.cost[:, None] + jnp.max(worth[:, :, None] + place.before[:, labels.root, :], axis=0)
    bound = jnp.maximum(bound, labels.bound[:, None])
    bound = jnp.where(bound < known * (1.0 - TIE), bound, BIG)
    bound = jnp.where(place.first, bound, jnp.where(each[None, :] == 0, labels.bound[:, None], BIG))
    bound, index, left_out = _kept(bound.reshape(-1), width)
    parent, count = index // each.shape[0], (index % each.shape[0]).astype(jnp.int32)
    labels = dataclasses.replace(
        labels,
        bound=bound,
        cost=labels.cost[parent],
        root=labels.root[parent],
        count=jnp.where(place.first, count, labels.count[parent]),
        edge=jnp.where(place.first, count, labels.edge[parent]),
        clouds=labels.clouds[:, parent],
        missing=labels.missing[parent],
        dropped=jnp.minimum(labels.dropped, left_out),
    )
    return labels, parent


def _costs(tables: Tables, roots: Roots, labels: _Labels, device: chex.Array, mine: chex.Array) -> chex.Array:
    """What labels cost once a device has taken each of its choices; BIG where it can't. [B, C].

    `mine` [K] says which cloud is the device's.
    """
    total = jnp.sum(jnp.where(mine[:, None], roots.counts[labels.root].T, 0), axis=0)  # [B] at its cloud, in the end
    to_come = jnp.sum(jnp.where(mine[:, None], labels.clouds, 0), axis=0)
    # By where the task runs: how many are there, and whether one more is expected.
    beside = jnp.stack([jnp.ones_like(total), labels.count, total], axis=1)
    expected = jnp.stack([jnp.ones_like(total), labels.edge, to_come], axis=1) > 0
    occupancy = tables.occupancy[tables.nodes[device][None, :], beside]
    where, possible = tables.where, tables.base[device] < BIG
    fine = expected[:, where] & (beside[:, where] <= tables.most[device][None, :]) & possible[None]
    cost = labels.cost[:, None] + tables.base[device][None] + tables.share[device][None] * occupancy[:, where]
    return jnp.where(fine, cost, BIG)


def _least(
    tables: Tables, priced: Priced, roots: Roots, labels: _Labels, place: _Place, mine: chex.Array
) -> chex.Array:
    """What is added at least to labels' `_costs` by the devices that follow. [B, C]."""
    worth, wages = _worth(tables, priced, roots, labels, place.remaining + 1)
    wage = jnp.sum(jnp.where(mine[None, :, None], wages, 0.0), axis=1)  # [M, B]
    stay, go = (place.after[:, labels.root, labels.count, j] for j in (labels.edge, jnp.maximum(labels.edge - 1, 0)))
    following = jnp.stack([worth + stay, worth + go, worth + stay - wage], axis=2)  # [M, B, 3]
    gain = tables.gain[place.device][None, :]
    least = jnp.full((labels.root.shape[0], gain.shape[1]), -BIG)
    for m in range(priced.price.shape[0]):
        least = jnp.maximum(least, following[m][:, tables.where] - priced.price[m] * gain)
    return least


def _with_choice(
    tables: Tables, priced: Priced, roots: Roots, labels: _Labels, place: _Place, known: chex.Array, edges: int
) -> tuple[_Labels, chex.Array, chex.Array]:
    """Labels in which the device has taken each of its choices; their parents and choices."""
    choices, device = tables.base.shape[1], place.device
    mine = jnp.arange(labels.clouds.shape[0]) == tables.nodes[device, CLOUD] - edges - 1
    cost = _costs(tables, roots, labels, device, mine)
    bound = jnp.maximum(cost + _least(tables, priced, roots, labels, place, mine), labels.bound[:, None])
    missing = labels.missing[:, None] - tables.units[device][None, :]
    fine = (cost < BIG) & (missing <= place.most) & (bound < known * (1.0 - TIE))
    bound, index, left_out = _kept(jnp.where(fine, bound, BIG).reshape(-1), labels.bound.shape[0])
    parent, choice = index // choices, (index % choices).astype(jnp.int32)
    took = tables.where[choice]
    labels = dataclasses.replace(
        labels,
        bound=bound,
        cost=cost.reshape(-1)[index],
        root=labels.root[parent],
        count=jnp.where(place.last, 0, labels.count[parent]),
        edge=labels.edge[parent] - (took == EDGE),
        clouds=labels.clouds[:, parent] - (mine[:, None] & (took == CLOUD)[None, :]),
        # Accuracy to spare is worth nothing: less missing than what comes anyway is the same.
        missing=jnp.maximum(missing.reshape(-1)[index], place.least),
        dropped=jnp.minimum(labels.dropped, left_out),
    )
    return labels, parent, choice


def _undominated(labels: _Labels) -> tuple[_Labels, chex.Array]:
    """Labels sorted by what is to come, those dominated emptied; and the order ([B])."""
    alive = labels.bound < BIG
    root = jnp.where(alive, labels.root, HIGHEST)
    to_come = (root, labels.count, labels.edge, *labels.clouds)
    *keys, _, missing, order = jax.lax.sort(
        (*to_come, labels.cost, labels.missing, jnp.arange(alive.shape[0])), num_keys=len(to_come) + 2
    )
    fresh = jnp.zeros(alive.shape, bool).at[0].set(True)
    for key in keys:
        fresh |= key != jnp.roll(key, 1)

    def least(first: tuple[chex.Array, chex.Array], second: tuple[chex.Array, chex.Array]) -> Any:
        return first[0] | second[0], jnp.where(second[0], second[1], jnp.minimum(first[1], second[1]))

    _, running = jax.lax.associative_scan(least, (fresh, missing))
    dominated = ~fresh & (jnp.roll(running, 1) <= missing)
    labels = dataclasses.replace(
        labels,
        bound=jnp.where(dominated, BIG, labels.bound[order]),
        cost=labels.cost[order],
        root=labels.root[order],
        count=labels.count[order],
        edge=labels.edge[order],
        clouds=labels.clouds[:, order],
        missing=labels.missing[order],
    )
    return labels, order


def search(tables: Tables, priced: Priced, roots: Roots, known: chex.Array, width: int, edges: int) -> Found:
    """The best joint action with the roots' numbers of tasks at the clouds that costs less than `known` in total.

    Args:
      tables: N devices.
      priced: at M prices (a leading axis).
      roots: R of them; the first `width`, if there are more, in which case the bound of the others is lost: see to it.
      known: [] total of a joint action known already, BIG where none is.
      width: labels kept, at least R.
      edges: E.
    """
    users, starts = tables.base.shape[0], roots.counts.shape[0]
    places = _places(tables, priced, roots, edges)
    pad = (0, max(width - starts, 0))
    root = jnp.pad(jnp.arange(starts), pad)
    labels = _Labels(
        bound=jnp.where(jnp.pad(roots.possible, pad), -BIG, BIG),
        cost=jnp.zeros(root.shape),
        root=root,
        count=jnp.zeros_like(root),
        edge=jnp.zeros_like(root),
        clouds=roots.counts[root].T,
        missing=jnp.full_like(root, tables.need),
        dropped=jnp.float32(BIG),
    )

    def step(labels: _Labels, place: _Place) -> tuple[_Labels, tuple[chex.Array, chex.Array]]:
        labels, first = _with_count(tables, priced, roots, labels, place, known)
        labels, second, choice = _with_choice(tables, priced, roots, labels, place, known, edges)
        labels, order = _undominated(labels)
        return labels, (first[second[order]], choice[order])

    labels, steps = jax.lax.scan(step, labels, places)
    whole = (labels.bound < BIG) & (labels.missing <= 0) & (labels.edge == 0) & jnp.all(labels.clouds == 0, axis=0)
    total = jnp.where(whole, labels.cost, BIG)
    best = jnp.argmin(total)

    def back(index: chex.Array, step: tuple[chex.Array, chex.Array]) -> tuple[chex.Array, chex.Array]:
        parent, choice = step
        return parent[index], choice[index]

    _, picked = jax.lax.scan(back, best, steps, reverse=True)
    action = jnp.zeros(users, jnp.int32).at[places.device].set(picked)
    return Found(action=action, total=total[best], dropped=labels.dropped)
