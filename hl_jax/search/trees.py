"""Where a structured search starts: each promising occupancy with its bound, and what its devices may do, in order.

An occupancy's devices are ordered by how undecided they are. All that branching reads is what a choice costs beyond the
occupancy's Lagrangian bound (`bounds`), and what repairing the devices' default choices would cost.
"""

from __future__ import annotations

import dataclasses

import chex
import jax
import jax.numpy as jnp

from hl_jax.choices import choice_count, local_models, node_choices
from hl_jax.search import bounds
from hl_jax.search.costs import BIG, Costs, accuracy_units, relaxed


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


@chex.dataclass(frozen=True)
class Tree:
    """The occupancies kept ([P])."""

    bound: chex.Array  # [P] ms
    price: chex.Array  # [P] ms per unit of accuracy
    counts: chex.Array  # [P, 2]
    order: chex.Array  # [P, N] devices in the order of branching
    places: Places  # [N, ...] in that order


@chex.dataclass(frozen=True)
class Places:
    """What a device at one place of each occupancy's order may do, and what may still happen after it.

    Of three numbers the first is of tasks at the edge, the second of tasks at the cloud, the third of accuracy. Their
    axis comes first, since XLA on a CPU is slow along a last axis of three.
    """

    choice: chex.Array  # [P, T] the T most promising choices
    units: chex.Array  # [P, T] int32: accuracy that they bring
    most: chex.Array | None  # [P] int32: most accuracy that all later places bring; None: it follows from their number
    extra: chex.Array  # [P, T] ms that they cost beyond the bound
    skipped: chex.Array  # [P] ms that the best choice left out would cost
    later: chex.Array  # [3, P] int32: what the defaults of all later places bring
    add: chex.Array  # [3, P] least ms that one more costs at any later place
    drop: chex.Array  # [3, P] the same for one less


def _after(values: chex.Array, end: float) -> chex.Array:
    """For every place the least of all later ones, `end` for the last: [P, N, 3] -> [N, 3, P]."""
    low = jax.lax.cummin(values, axis=1, reverse=True)
    return jnp.concatenate([low[:, 1:], jnp.full_like(low[:, :1], end)], axis=1).transpose(1, 2, 0)


def _promising(costs: Costs, counts: chex.Array, kept: int) -> tuple[chex.Array, bounds.Rough, chex.Array]:
    """The `kept` occupancies ([P_all, 2]) of least rough bound, with it, and the least bound of the others."""
    rough = bounds.rough(relaxed(costs), counts)
    if kept >= counts.shape[0]:
        return counts, rough, jnp.float32(BIG)
    _, which = jax.lax.top_k(-rough.bound, kept)
    rest = jnp.min(rough.bound.at[which].set(BIG))
    return counts[which], jax.tree.map(lambda x: x[which], rough), rest


def _refined(costs: Costs, counts: chex.Array, price: chex.Array) -> tuple[bounds.Dual, chex.Array]:
    """Bounds of occupancies ([P, 2]), and what each choice costs beyond the best one under their multipliers.

    `price` [P] is where the search for multipliers starts; the costs are [P, N, C] ms.
    """
    problems = jax.vmap(bounds.problem, in_axes=(None, 0))(costs, counts)
    dual = jax.vmap(bounds.refine)(problems, price)
    scores = jnp.swapaxes(jax.vmap(bounds.reduced)(problems, dual.price, dual.wages), 1, 2)
    return dual, jnp.minimum(scores - jnp.min(scores, axis=2, keepdims=True), BIG)


def _repairs(
    extra: chex.Array, second: chex.Array, default: chex.Array, units: chex.Array
) -> tuple[chex.Array, chex.Array]:
    """Least ms that one more, and one less, of tasks at edge and cloud and of accuracy cost at a place. [P, N, 3] each.

    `extra` [P, N, C] is each choice's cost beyond the default's, `second` [P, N] the least of them but the default's,
    `units` [P, N, C] their accuracies.
    """
    gain = (units - jnp.take_along_axis(units, default, axis=2)).astype(jnp.float32)  # [P, N, C]
    per_unit = extra / jnp.where(gain == 0.0, 1.0, jnp.abs(gain))
    add, drop = [], []
    for node in node_choices(local_models(extra.shape[2])):
        there = default[:, :, 0] == node
        add.append(jnp.where(there, BIG, extra[:, :, node]))
        drop.append(jnp.where(there, second, BIG))
    add.append(jnp.min(jnp.where(gain > 0.0, per_unit, BIG), axis=2))
    drop.append(jnp.min(jnp.where(gain < 0.0, per_unit, BIG), axis=2))
    return jnp.stack(add, axis=2), jnp.stack(drop, axis=2)


def _later(values: chex.Array) -> chex.Array:
    """For every place the sum of all later ones. Same shape, [P, N, ...]."""
    return jnp.flip(jnp.cumsum(jnp.flip(values, 1), axis=1), 1) - values


def _brought_later(default: chex.Array, units: chex.Array, models: int) -> chex.Array:
    """Tasks at edge and cloud, and accuracy, that the defaults ([P, N, 1]) of all later places bring. [3 last]."""
    offloaded = [default == node for node in node_choices(models)]
    brought = jnp.take_along_axis(units, default, axis=2)
    return _later(jnp.concatenate([*offloaded, brought], axis=2).astype(jnp.int32))


def plant(costs: Costs, counts: chex.Array, effort: Effort) -> tuple[Tree, chex.Array]:
    """The trees of the most promising of all occupancies ([P_all, 2]), and the least bound of the others."""
    models = costs.local.shape[1]
    choices = choice_count(models)
    tried, each = min(effort.choices, choices), jnp.arange(choices)
    units, _ = accuracy_units(costs)
    counts, rough, rest = _promising(costs, counts, min(effort.occupancies, counts.shape[0]))
    dual, extra = _refined(costs, counts, rough.price)
    default = jnp.argmin(extra, axis=2, keepdims=True)
    second = jnp.min(jnp.where(each[None, None, :] == default, BIG, extra), axis=2)
    # Edge, cloud and the most accurate local model are always tried: with them every count and accuracy is in reach.
    always = (each >= models) | (each == jnp.argmax(costs.accuracy[:models]))
    _, choice = jax.lax.top_k(jnp.where(always[None, None, :], 1.0, -extra), min(tried + 1, choices))
    # A device is as undecided as its second choice is cheap.
    order = jnp.argsort(second, axis=1)

    def ordered(x: chex.Array) -> chex.Array:
        return jnp.take_along_axis(x, order.reshape(order.shape + (1,) * (x.ndim - 2)), axis=1)

    extra, choice, second, default = ordered(extra), ordered(choice), ordered(second), ordered(default)
    tried_extra = jnp.take_along_axis(extra, choice, axis=2)
    # By occupancy and place, as all else.
    units = jnp.broadcast_to(units, extra.shape) if costs.weights is None else units[order]
    add, drop = _repairs(extra, second, default, units)
    price = dual.price / bounds.accuracy_scale(costs)
    drops = _after(drop, BIG)
    # Accuracy to spare may also be kept: it costs the price that the bound credits it with.
    drops = drops.at[:, 2].set(jnp.minimum(drops[:, 2], price[None, :]))
    places = Places(
        choice=jnp.swapaxes(choice[:, :, :tried], 0, 1),
        units=jnp.swapaxes(jnp.take_along_axis(units, choice[:, :, :tried], axis=2), 0, 1),
        most=None if costs.weights is None else _later(jnp.max(units, axis=2)).T,
        extra=jnp.swapaxes(tried_extra[:, :, :tried], 0, 1),
        skipped=tried_extra[:, :, tried].T if tried < choices else jnp.full_like(second.T, BIG),
        later=_brought_later(default, units, models).transpose(1, 2, 0),
        add=_after(add, BIG),
        drop=drops,
    )
    return Tree(bound=dual.bound, price=price, counts=counts, order=order, places=places), rest
