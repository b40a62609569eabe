"""The best and the K best joint actions, by branch and bound in breadth, with its own lower bound.

All occupancies start in one beam, each with its Lagrangian bound (`bounds`). Device after device (of an occupancy, the
least decided first) every partial joint action branches into its choices. What a choice costs beyond the bound adds
up, and so does the least cost of repairing what the remaining devices' default choices would miss. Of partial actions
with equal counts and accuracy only K are kept, and the beam keeps the lowest bounds. Whatever falls off the beam
lowers the bound that is returned: an answer below that bound is certainly optimal.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from hl_jax.structured import bounds
from hl_jax.structured.costs import (
    BIG,
    NOTHING,
    Costs,
    Found,
    accuracy_units,
    check,
    mean_response_ms,
    possible,
    relaxed,
)

MARGIN = 2e-6  # relative; covers the rounding of float32 sums
EXACT_USERS = 10  # up to here a search that isn't certain is repeated with a wider beam


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much a search may do. More finds better joint actions and tighter bounds, in proportionally more time."""

    beam: int  # partial joint actions kept
    occupancies: int  # of which the Lagrangian bound is refined; the rest keep a rough one
    choices: int  # tried per device, the most promising ones

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise ValueError(f"{field.name}: expected at least 1, found {getattr(self, field.name)}")


def default_effort(users: int, choices: int, k: int) -> Effort:
    """What reaches the optimum up to `EXACT_USERS` devices, and stays within a few ms above."""
    if users <= EXACT_USERS:
        beam = 64 if k == 1 else 128
        return Effort(beam=max(beam, 8 * k), occupancies=(users + 1) * (users + 2) // 2, choices=choices)
    return Effort(beam=max(96, 4 * k), occupancies=32, choices=min(choices, 8))


@chex.dataclass(frozen=True)
class _Tree:
    """The occupancies kept ([P])."""

    bound: chex.Array  # [P] ms
    price: chex.Array  # [P] ms per unit of accuracy
    counts: chex.Array  # [P, 2]
    order: chex.Array  # [P, N] devices in the order of branching
    places: _Places  # [N, ...] in that order


@chex.dataclass(frozen=True)
class _Places:
    """What a device at one place of each occupancy's order may do, and what may still happen after it.

    Of three numbers the first is of tasks at the edge, the second of tasks at the cloud, the third of accuracy. Their
    axis comes first, since XLA on a CPU is slow along a last axis of three.
    """

    choice: chex.Array  # [P, T] the T most promising choices
    extra: chex.Array  # [P, T] ms that they cost beyond the bound
    skipped: chex.Array  # [P] ms that the best choice left out would cost
    later: chex.Array  # [3, P] int32: what the defaults of all later places bring
    add: chex.Array  # [3, P] least ms that one more costs at any later place
    drop: chex.Array  # [3, P] the same for one less


@chex.dataclass(frozen=True)
class _Beam:
    """Partial joint actions."""

    bound: chex.Array  # [B] ms; BIG where the place is empty
    extra: chex.Array  # [B] ms beyond the occupancy's bound, so far
    occupancy: chex.Array  # [B] int32
    missing: chex.Array  # [3, B] int32: edge tasks, cloud tasks and units of accuracy still to come
    dropped: chex.Array  # [] least bound among all that fell off


def _after(values: chex.Array, end: float) -> chex.Array:
    """For every place the least of all later ones, `end` for the last: [P, N, 3] -> [N, 3, P]."""
    low = jax.lax.cummin(values, axis=1, reverse=True)
    return jnp.concatenate([low[:, 1:], jnp.full_like(low[:, :1], end)], axis=1).transpose(1, 2, 0)


def _plant(costs: Costs, counts: chex.Array, effort: Effort) -> tuple[_Tree, chex.Array]:
    """The trees of the most promising of all occupancies ([P_all, 2]), and the least bound of the others."""
    models = costs.local.shape[1]
    kept = min(effort.occupancies, counts.shape[0])
    tried = min(effort.choices, models + 2)
    units, _ = accuracy_units(costs)
    scale = bounds.accuracy_scale(costs)
    rough = bounds.rough(relaxed(costs), counts)
    if kept < counts.shape[0]:
        _, which = jax.lax.top_k(-rough.bound, kept)
        rest = jnp.min(rough.bound.at[which].set(BIG))
        counts, rough = counts[which], jax.tree.map(lambda x: x[which], rough)
    else:
        rest = jnp.float32(BIG)
    problems = jax.vmap(bounds.problem, in_axes=(None, 0))(costs, counts)
    dual = jax.vmap(bounds.refine)(problems, rough.price)
    scores = jnp.swapaxes(jax.vmap(bounds.reduced)(problems, dual.price, dual.wages), 1, 2)  # [P, N, C]
    extra = jnp.minimum(scores - jnp.min(scores, axis=2, keepdims=True), BIG)
    default = jnp.argmin(extra, axis=2, keepdims=True)
    second = jnp.min(jnp.where(jnp.arange(models + 2)[None, None, :] == default, BIG, extra), axis=2)
    # Edge, cloud and the most accurate local model are always tried: with them every count and accuracy is in reach.
    always = jnp.array([False] * models + [True, True]) | (jnp.arange(models + 2) == jnp.argmax(units[:models]))
    _, choice = jax.lax.top_k(jnp.where(always[None, None, :], 1.0, -extra), min(tried + 1, models + 2))
    # A device is as undecided as its second choice is cheap.
    order = jnp.argsort(second, axis=1)
    take = lambda x: jnp.take_along_axis(x, order.reshape(order.shape + (1,) * (x.ndim - 2)), axis=1)  # noqa: E731
    extra, choice, second, default = take(extra), take(choice), take(second), take(default)
    tried_extra = jnp.take_along_axis(extra, choice, axis=2)
    gain = (units[None, None, :] - units[default]).astype(jnp.float32)  # [P, N, C]
    per_unit = extra / jnp.where(gain == 0.0, 1.0, jnp.abs(gain))
    add, drop = [], []
    for node in (models, models + 1):
        there = default[:, :, 0] == node
        add.append(jnp.where(there, BIG, extra[:, :, node]))
        drop.append(jnp.where(there, second, BIG))
    add.append(jnp.min(jnp.where(gain > 0.0, per_unit, BIG), axis=2))
    drop.append(jnp.min(jnp.where(gain < 0.0, per_unit, BIG), axis=2))
    price = dual.price / scale
    drops = _after(jnp.stack(drop, axis=2), BIG)
    # Accuracy to spare may also be kept: it costs the price that the bound credits it with.
    drops = drops.at[:, 2].set(jnp.minimum(drops[:, 2], price[None, :]))
    brought = jnp.concatenate([default == models, default == models + 1, units[default]], axis=2).astype(jnp.int32)
    later = jnp.flip(jnp.cumsum(jnp.flip(brought, 1), axis=1), 1) - brought
    places = _Places(
        choice=jnp.swapaxes(choice[:, :, :tried], 0, 1),
        extra=jnp.swapaxes(tried_extra[:, :, :tried], 0, 1),
        skipped=tried_extra[:, :, tried].T if tried < models + 2 else jnp.full_like(second.T, BIG),
        later=later.transpose(1, 2, 0),
        add=_after(jnp.stack(add, axis=2), BIG),
        drop=drops,
    )
    return _Tree(bound=dual.bound, price=price, counts=counts, order=order, places=places), rest


def _repair(missing: chex.Array, later: chex.Array, add: chex.Array, drop: chex.Array) -> chex.Array:
    """Least ms by which the defaults must be left so that nothing is missing. All [3, ...] -> [...]."""
    short = missing - later
    # Tasks must come out even; accuracy may be more than needed. One change may repair several things: the maximum.
    cost = jnp.where(short > 0, short * add, -short * drop)
    return jnp.minimum(jnp.max(cost, axis=0), BIG)


def _branch(
    tree: _Tree, units: chex.Array, width: int, k: int, beam: _Beam, item: tuple[chex.Array, _Places]
) -> tuple[_Beam, Any]:
    """Every partial joint action takes each choice for its next device; `item` is how many follow it, and its place.

    Also returns parents [B] and choices [B].
    """
    remaining, here = item
    models = units.shape[0] - 2
    users = tree.order.shape[1]
    kept_complete = min(k + 7, width // 2)
    at = beam.occupancy
    choice = here.choice[at]  # [B, T]
    extra = beam.extra[:, None] + here.extra[at]
    takes = jnp.stack([(choice == models), (choice == models + 1), units[choice]]).astype(jnp.int32)
    missing = beam.missing[:, :, None] - takes  # [3, B, T]
    following = [x[:, at][:, :, None] for x in (here.later, here.add, here.drop)]
    so_far = tree.bound[at][:, None] + extra
    # What remains must hold the missing tasks, and must be able to hold the missing accuracy.
    edge, cloud, accuracy = missing
    local = remaining - edge - cloud
    most = local * jnp.max(units[:models]) + edge * units[models] + cloud * units[models + 1]
    reachable = (edge >= 0) & (cloud >= 0) & (local >= 0) & (most >= accuracy)
    alive = (beam.bound[:, None] < BIG / 2) & reachable
    bound = jnp.where(alive, jnp.minimum(so_far + _repair(missing, *following), BIG), BIG).reshape(-1)
    # What it costs to let all remaining devices take their default, where that leaves nothing missing.
    short = missing - following[0]
    fits = (short[0] == 0) & (short[1] == 0) & (short[2] <= 0)
    complete = so_far - short[2] * tree.price[at][:, None]
    complete = jnp.where(alive & fits, jnp.minimum(complete, BIG), BIG).reshape(-1)
    skipped = jnp.maximum(tree.bound[at] + beam.extra + here.skipped[at], beam.bound)
    promising = width - kept_complete
    _, index = jax.lax.top_k(-bound, promising)
    left_out = jnp.min(bound.at[index].set(BIG))
    dropped = jnp.minimum(beam.dropped, jnp.minimum(jnp.min(skipped), left_out))
    # Some places are for the best whole joint actions so far, so that the beam never ends without any.
    negated, whole = jax.lax.top_k(-complete.at[index].set(BIG), kept_complete)
    index, none = jnp.concatenate([index, whole]), negated <= -BIG / 2
    bound = bound[index].at[promising:].set(jnp.where(none, BIG, bound[whole]))
    parent, taken = index // choice.shape[1], index % choice.shape[1]
    at, missing = at[parent], missing.reshape(3, -1)[:, index]
    # Of equals (same occupancy, counts and accuracy, so the same devices behind them) only the K best matter.
    place_key = (at * (users + 1) + missing[0]) * (users + 1) + missing[1]
    first, second, _, by_key = jax.lax.sort((place_key, missing[2], bound, jnp.arange(width)), num_keys=3)
    repeated = (first == jnp.roll(first, k)) & (second == jnp.roll(second, k)) & (jnp.arange(width) >= k)
    parent, taken = parent[by_key], taken[by_key]
    beam = _Beam(
        bound=jnp.where(repeated, BIG, bound[by_key]),
        extra=extra[parent, taken],
        occupancy=at[by_key],
        missing=missing[:, by_key],
        dropped=dropped,
    )
    return beam, (parent, choice[parent, taken])


def _search(costs: Costs, impossible: chex.Array, k: int, effort: Effort) -> Found:
    users = costs.local.shape[0]
    # Every pair (edge, cloud) of numbers of tasks.
    pairs = np.array([(n, m) for n in range(users + 1) for m in range(users + 1 - n)], np.int32)
    tree, rest = _plant(costs, jnp.asarray(pairs), effort)
    units, need = accuracy_units(costs)
    planted, width = tree.bound.shape[0], max(effort.beam, tree.bound.shape[0])
    pad = lambda x, fill: jnp.concatenate([x, jnp.full((width - planted,), fill, x.dtype)])  # noqa: E731
    occupancy = pad(jnp.arange(planted), 0)
    beam = _Beam(
        bound=pad(tree.bound, BIG),
        extra=jnp.zeros(width),
        occupancy=occupancy,
        missing=jnp.concatenate([tree.counts[occupancy].T, jnp.full((1, width), need)]).astype(jnp.int32),
        dropped=rest,
    )
    beam, (parents, choices) = jax.lax.scan(
        functools.partial(_branch, tree, units, width, k), beam, (jnp.arange(users)[::-1], tree.places)
    )
    negated, ends = jax.lax.top_k(-beam.bound, min(k, width))

    def back(index: chex.Array, level: tuple[chex.Array, chex.Array]) -> tuple[chex.Array, chex.Array]:
        parent, choice = level
        return parent[index], choice[index]

    _, picked = jax.lax.scan(back, ends, (parents, choices), reverse=True)  # [N, K], by place
    order = tree.order[beam.occupancy[ends]]  # [K, N]
    actions = jnp.zeros((ends.shape[0], users), jnp.int32)
    actions = jnp.put_along_axis(actions, order, picked.T.astype(jnp.int32), axis=1, inplace=False)
    mean = jax.vmap(functools.partial(mean_response_ms, costs))(actions)
    found = -negated < BIG / 2
    mean = jnp.where(found, mean, jnp.inf)
    ranked = jnp.argsort(mean)
    mean = mean[ranked]
    actions = jnp.where(jnp.isfinite(mean)[:, None], actions[ranked], NOTHING)
    others = jnp.where(beam.dropped < BIG / 2, beam.dropped / users * (1.0 - MARGIN), jnp.inf)
    return Found(
        actions=actions,
        mean_ms=mean,
        lower_bound_ms=jnp.minimum(mean[0] * (1.0 - MARGIN), others),
        exact=others >= mean[-1] * (1.0 - 2.0 * MARGIN),
        impossible=impossible,
    )


def k_best(costs: Costs, k: int, effort: Effort | None = None) -> Found:
    """The `k` joint actions of least mean response time that meet the constraint, and a lower bound.

    A choice whose cost isn't finite can't be made. Where nothing is possible at all, `Found` holds no action; on the
    host `costs.require` says so.

    Up to `EXACT_USERS` devices a search that isn't certain is repeated once with a much wider beam; `exact` says
    whether that was enough. Above, `lower_bound_ms` says how far the best joint action can be from the optimum.

    Args:
      costs: N devices with C choices each; see `Costs`.
      k: how many, at least 1.
      effort: instead of the default; then nothing is repeated.
    """
    users, models = check(costs)
    if k < 1:
        raise ValueError(f"k: expected at least 1, found {k}")
    costs, impossible = possible(costs)
    if effort is not None:
        return _search(costs, impossible, k, effort)
    first = default_effort(users, models + 2, k)
    found = _search(costs, impossible, k, first)
    if users > EXACT_USERS:
        return found
    wider = dataclasses.replace(first, beam=32 * first.beam)

    # One item after the other under `vmap`, where a `cond` would do the wide search for all of them.
    @jax.custom_batching.sequential_vmap
    def certain(costs: Costs, found: Found) -> Found:
        return jax.lax.cond(
            found.exact, lambda _: found, lambda costs: _search(costs, found.impossible, k, wider), costs
        )

    return certain(costs, found)


def best(costs: Costs, effort: Effort | None = None) -> Found:
    """The best joint action (K = 1); see `k_best`."""
    return k_best(costs, 1, effort)
