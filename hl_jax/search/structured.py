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

from hl_jax.choices import choice_count, cloud_choice, edge_choice, local_models, node_choices
from hl_jax.search.costs import BIG, NOTHING, Costs, Found, accuracy_units, check, mean_response_ms, possible
from hl_jax.search.trees import Effort, Places, Tree, plant

MARGIN = 2e-6  # relative; covers the rounding of float32 sums
EXACT_USERS = 10  # up to here a search that isn't certain is repeated with a wider beam


def default_effort(users: int, choices: int, k: int) -> Effort:
    """What reaches the optimum up to `EXACT_USERS` devices, and stays within a few ms above."""
    if users <= EXACT_USERS:
        beam = 64 if k == 1 else 128
        return Effort(beam=max(beam, 8 * k), occupancies=(users + 1) * (users + 2) // 2, choices=choices)
    return Effort(beam=max(96, 4 * k), occupancies=32, choices=min(choices, 8))


@chex.dataclass(frozen=True)
class _Beam:
    """Partial joint actions."""

    bound: chex.Array  # [B] ms; BIG where the place is empty
    extra: chex.Array  # [B] ms beyond the occupancy's bound, so far
    occupancy: chex.Array  # [B] int32
    missing: chex.Array  # [3, B] int32: edge tasks, cloud tasks and units of accuracy still to come
    dropped: chex.Array  # [] least bound among all that fell off


@chex.dataclass(frozen=True)
class _Branches:
    """Every partial joint action with each of T choices for its next device."""

    choice: chex.Array  # [B, T]
    extra: chex.Array  # [B, T] ms beyond the occupancy's bound
    missing: chex.Array  # [3, B, T] int32
    bound: chex.Array  # [B * T] ms; BIG where it leads nowhere
    complete: chex.Array  # [B * T] ms with all remaining devices' defaults; BIG where these leave something missing


def _repair(missing: chex.Array, later: chex.Array, add: chex.Array, drop: chex.Array) -> chex.Array:
    """Least ms by which the defaults must be left so that nothing is missing. All [3, ...] -> [...]."""
    short = missing - later
    # Tasks must come out even; accuracy may be more than needed. One change may repair several things: the maximum.
    cost = jnp.where(short > 0, short * add, -short * drop)
    return jnp.minimum(jnp.max(cost, axis=0), BIG)


def _reachable(missing: chex.Array, remaining: chex.Array, units: chex.Array, most: chex.Array | None) -> chex.Array:
    """Whether so many remaining devices hold the missing tasks, and can hold the accuracy. [3, ...] -> [...].

    `most` is what they can hold of it where that doesn't follow from their number and the choices' `units` ([C]).
    """
    edge, cloud, accuracy = missing
    local = remaining - edge - cloud
    if most is None:
        models = local_models(units.shape[0])
        most = local * jnp.max(units[:models]) + edge * units[edge_choice(models)] + cloud * units[cloud_choice(models)]
    return (edge >= 0) & (cloud >= 0) & (local >= 0) & (most >= accuracy)


def _branches(tree: Tree, units: chex.Array, beam: _Beam, remaining: chex.Array, here: Places) -> _Branches:
    """What each partial joint action becomes; `remaining` devices follow."""
    at = beam.occupancy
    choice = here.choice[at]  # [B, T]
    extra = beam.extra[:, None] + here.extra[at]
    offloads = [choice == node for node in node_choices(local_models(units.shape[-1]))]
    missing = beam.missing[:, :, None] - jnp.stack([*offloads, here.units[at]]).astype(jnp.int32)  # [3, B, T]
    following = [x[:, at][:, :, None] for x in (here.later, here.add, here.drop)]
    so_far = tree.bound[at][:, None] + extra
    most = None if here.most is None else here.most[at][:, None]
    alive = (beam.bound[:, None] < BIG / 2) & _reachable(missing, remaining, units, most)
    bound = jnp.where(alive, jnp.minimum(so_far + _repair(missing, *following), BIG), BIG)
    # What it costs to let all remaining devices take their default, where that leaves nothing missing.
    short = missing - following[0]
    fits = (short[0] == 0) & (short[1] == 0) & (short[2] <= 0)
    complete = jnp.minimum(so_far - short[2] * tree.price[at][:, None], BIG)
    complete = jnp.where(alive & fits, complete, BIG)
    return _Branches(
        choice=choice, extra=extra, missing=missing, bound=bound.reshape(-1), complete=complete.reshape(-1)
    )


def _kept(branches: _Branches, width: int, k: int) -> tuple[chex.Array, chex.Array, chex.Array]:
    """Which branches stay in the beam ([B] indices), their bounds (BIG where none), and the least bound left out."""
    # Some places are for the best whole joint actions so far, so that the beam never ends without any.
    kept_complete = min(k + 7, width // 2)
    promising = width - kept_complete
    _, index = jax.lax.top_k(-branches.bound, promising)
    left_out = jnp.min(branches.bound.at[index].set(BIG))
    negated, whole = jax.lax.top_k(-branches.complete.at[index].set(BIG), kept_complete)
    index, none = jnp.concatenate([index, whole]), negated <= -BIG / 2
    bound = branches.bound[index].at[promising:].set(jnp.where(none, BIG, branches.bound[whole]))
    return index, bound, left_out


def _distinct(
    occupancy: chex.Array, missing: chex.Array, bound: chex.Array, users: int, k: int
) -> tuple[chex.Array, chex.Array]:
    """An order of the beam ([B] indices), and where in it an entry has K better equals ([B] bool).

    Equals have the same occupancy, counts and accuracy, so the same devices behind them: only the K best matter.
    """
    place_key = (occupancy * (users + 1) + missing[0]) * (users + 1) + missing[1]
    first, second, _, order = jax.lax.sort((place_key, missing[2], bound, jnp.arange(bound.shape[0])), num_keys=3)
    same = (first == jnp.roll(first, k)) & (second == jnp.roll(second, k))
    return order, same & (jnp.arange(bound.shape[0]) >= k)


def _branch(
    tree: Tree, units: chex.Array, width: int, k: int, beam: _Beam, item: tuple[chex.Array, Places]
) -> tuple[_Beam, Any]:
    """Every partial joint action takes each choice for its next device; `item` is how many follow it, and its place.

    Also returns parents [B] and choices [B].
    """
    remaining, here = item
    at, users = beam.occupancy, tree.order.shape[1]
    branches = _branches(tree, units, beam, remaining, here)
    skipped = jnp.maximum(tree.bound[at] + beam.extra + here.skipped[at], beam.bound)
    index, bound, left_out = _kept(branches, width, k)
    tried = branches.choice.shape[1]
    parent, taken = index // tried, index % tried
    at, missing = at[parent], branches.missing.reshape(3, -1)[:, index]
    order, repeated = _distinct(at, missing, bound, users, k)
    parent, taken = parent[order], taken[order]
    beam = _Beam(
        bound=jnp.where(repeated, BIG, bound[order]),
        extra=branches.extra[parent, taken],
        occupancy=at[order],
        missing=missing[:, order],
        dropped=jnp.minimum(beam.dropped, jnp.minimum(jnp.min(skipped), left_out)),
    )
    return beam, (parent, branches.choice[parent, taken])


def _root(tree: Tree, rest: chex.Array, need: chex.Array, width: int) -> _Beam:
    """The beam before any device has a choice: all occupancies, then empty places."""
    planted = tree.bound.shape[0]
    occupancy = jnp.pad(jnp.arange(planted), (0, width - planted))
    return _Beam(
        bound=jnp.pad(tree.bound, (0, width - planted), constant_values=BIG),
        extra=jnp.zeros(width),
        occupancy=occupancy,
        missing=jnp.concatenate([tree.counts[occupancy].T, jnp.full((1, width), need)]).astype(jnp.int32),
        dropped=rest,
    )


def _joint_actions(tree: Tree, beam: _Beam, ends: chex.Array, steps: tuple[chex.Array, chex.Array]) -> chex.Array:
    """The joint actions behind the beam's `ends` ([K]); `steps` holds each device's parents and choices. [K, N]."""

    def back(index: chex.Array, step: tuple[chex.Array, chex.Array]) -> tuple[chex.Array, chex.Array]:
        parent, choice = step
        return parent[index], choice[index]

    _, picked = jax.lax.scan(back, ends, steps, reverse=True)  # [N, K], by place
    order = tree.order[beam.occupancy[ends]]  # [K, N]
    actions = jnp.zeros(order.shape, jnp.int32)
    return jnp.put_along_axis(actions, order, picked.T.astype(jnp.int32), axis=1, inplace=False)


def _search(costs: Costs, impossible: chex.Array, k: int, effort: Effort) -> Found:
    users = costs.local.shape[0]
    # Every pair (edge, cloud) of numbers of tasks.
    pairs = np.array([(n, m) for n in range(users + 1) for m in range(users + 1 - n)], np.int32)
    tree, rest = plant(costs, jnp.asarray(pairs), effort)
    units, need = accuracy_units(costs)
    width = max(effort.beam, tree.bound.shape[0])
    beam, steps = jax.lax.scan(
        functools.partial(_branch, tree, units, width, k),
        _root(tree, rest, need, width),
        (jnp.arange(users)[::-1], tree.places),
    )
    negated, ends = jax.lax.top_k(-beam.bound, min(k, width))
    actions = _joint_actions(tree, beam, ends, steps)
    mean = jax.vmap(functools.partial(mean_response_ms, costs))(actions)
    mean = jnp.where(-negated < BIG / 2, mean, jnp.inf)
    ranked = jnp.argsort(mean)
    mean = mean[ranked]
    others = jnp.where(beam.dropped < BIG / 2, beam.dropped / users * (1.0 - MARGIN), jnp.inf)
    return Found(
        actions=jnp.where(jnp.isfinite(mean)[:, None], actions[ranked], NOTHING),
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
    first = default_effort(users, choice_count(models), k)
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
