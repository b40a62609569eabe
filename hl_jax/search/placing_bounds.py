"""Lower bounds of a placement's least total cost, by Lagrangian duality: edges fall apart, and each is solved exactly.

Let a price p >= 0 of accuracy and, for a given number of tasks q_k at each cloud k, a wage w_k be fixed. Then

    p * need + sum_k w_k * q_k + sum_i min over i's choices of (cost - p * accuracy - wage at its cloud)

is at most the cost of any joint action that meets the constraint with q_k tasks at the clouds: what is added is at
least 0 times what it is multiplied with. A device's best choice away from its edge depends on nobody else; of the tasks
at an edge only their number n matters. For each n the n devices that gain most by going there are taken: sorting is
exact, whatever the occupancy. So the minimum over the edge's n is exact, too, and edges don't know of each other.

Where the q can't all be tried, devices and clouds are taken apart: a device "sells" its task to its cloud for a price
of its own, a_i, and each cloud takes, for each q, the q tasks that cost it least beyond what they bring. Any a_i gives
a bound that holds for every q at once; `Apart` has it by cloud and q. `slack` covers what float32 rounds.
"""

from __future__ import annotations

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from hl_jax.placement import CLOUD, DEVICE, EDGE
from hl_jax.search.costs import BIG
from hl_jax.search.placing_tables import Tables, clouds_of, needed

WAGE_STEPS = 9
WINDOW = 11  # numbers of tasks at a node that are looked at while wages are searched for


@chex.dataclass(frozen=True)
class Priced:
    """What devices' best choices cost at one price of accuracy, less what their accuracy is worth."""

    price: chex.Array  # []
    local: chex.Array  # [N] on the device; BIG where impossible, as all
    edge: chex.Array  # [N+1, N] at its edge, with so many tasks there
    cloud: chex.Array  # [N+1, N] at its cloud, with so many tasks there
    untold: chex.Array  # [N+1, N] the same without regard to how many tasks are allowed there


def at_price(tables: Tables, price: chex.Array) -> Priced:
    """The costs at one price ([])."""
    users = tables.base.shape[0]
    counts = jnp.arange(users + 1)
    base = tables.base - price * tables.gain

    def best(place: int, told: bool) -> chex.Array:
        occupancy = tables.occupancy[tables.nodes[:, place], : users + 1].T  # [N+1, N]
        cost = base[None] + tables.share[None] * occupancy[:, :, None]
        fine = (tables.where == place)[None, None, :] & (tables.base < BIG)[None]
        if told:
            fine &= (tables.most[None] >= counts[:, None, None]) & (counts > 0)[:, None, None]
        return jnp.min(jnp.where(fine, cost, BIG), axis=2, initial=BIG)

    return Priced(
        price=price,
        local=best(DEVICE, False)[0],
        edge=best(EDGE, True),
        cloud=best(CLOUD, True),
        untold=best(CLOUD, False),
    )


def every(groups: int, users: int) -> chex.Array:
    """All numbers of tasks for each of some nodes. [G, N+1]."""
    return jnp.broadcast_to(jnp.arange(users + 1), (groups, users + 1))


def around(counts: chex.Array, users: int) -> chex.Array:
    """The `WINDOW` numbers of tasks around those of each node ([G]); all where there are no more. [G, W]."""
    window = min(WINDOW, users + 1)
    first = jnp.clip(counts - window // 2, 0, users + 1 - window)
    return first[:, None] + jnp.arange(window)[None, :]


def _fewest(
    there: chex.Array, elsewhere: chex.Array, group: chex.Array, numbers: chex.Array
) -> tuple[chex.Array, chex.Array]:
    """The least sums over groups of devices when just so many of each are `there` ([N+1, N]), the others `elsewhere`.

    Args:
      there: by number of tasks there.
      elsewhere: [N].
      group: [N] of G; devices with G or more are left out.
      numbers: [G, W] of tasks.

    Returns:
      The sums, [G, W], and who is there, [W, N].
    """
    groups, window = numbers.shape
    number = jnp.concatenate([numbers, jnp.zeros((1, window), numbers.dtype)])[jnp.minimum(group, groups)].T  # [W, N]
    entry = jnp.take_along_axis(there, number, axis=0)
    gain, index = entry - elsewhere[None, :], jnp.arange(group.shape[0])
    # How many others of its group come before a device.
    earlier = ((index[:, None] < index[None, :]) & (group[:, None] == group[None, :]))[None]
    later = ((index[:, None] > index[None, :]) & (group[:, None] == group[None, :]))[None]
    first, second = gain[:, :, None], gain[:, None, :]
    rank = jnp.sum(((first <= second) & earlier) | ((first < second) & later), axis=1, dtype=jnp.int32)
    chosen = rank < number
    cost = jnp.where(chosen, entry, elsewhere[None, :])
    members = group[None, :] == jnp.arange(groups)[:, None]  # [G, N]
    sums = jnp.sum(jnp.where(members[:, None, :], cost[None], 0.0), axis=2)
    enough = jnp.sum(members, axis=1)[:, None] >= numbers
    return jnp.where(enough, jnp.minimum(sums, BIG), BIG), chosen


@chex.dataclass(frozen=True)
class Split:
    """What is least where edges fall apart."""

    total: chex.Array  # [] the sum over edges and devices without one
    at_edge: chex.Array  # [N] bool, whose task is at its edge then
    at_cloud: chex.Array  # [N] bool, whose task is at its cloud
    number: chex.Array  # [E+1] of tasks at the edges; 0 for devices without one


def split(tables: Tables, priced: Priced, cloud: chex.Array, numbers: chex.Array) -> Split:
    """The least sum of all devices' costs when each may go to its cloud for `cloud` ([N]).

    It is a bound only if `numbers` ([E+1, W]) holds every number of tasks at the edges.
    """
    elsewhere = jnp.minimum(priced.local, cloud)
    group = tables.nodes[:, EDGE]
    sums, chosen = _fewest(priced.edge, elsewhere, group, numbers)
    best = jnp.argmin(sums, axis=1)  # [E+1]
    at_edge = chosen[best[group], jnp.arange(group.shape[0])]
    return Split(
        total=jnp.minimum(jnp.sum(jnp.min(sums, axis=1)), BIG),
        at_edge=at_edge,
        at_cloud=~at_edge & (cloud < priced.local),
        number=jnp.take_along_axis(numbers, best[:, None], axis=1)[:, 0],
    )


def slack(tables: Tables, price: chex.Array, wages: chex.Array) -> chex.Array:
    """What float32 may have added to a bound: a few roundings of each device's terms. []."""
    return 2e-7 * tables.base.shape[0] * (price + jnp.max(jnp.abs(wages), initial=0.0))


def _of_cloud(values: chex.Array, cloud: chex.Array) -> chex.Array:
    """Each device's entry of one per cloud ([K]), 0 where it has none. [N]."""
    return jnp.concatenate([values, jnp.zeros(1, values.dtype)])[cloud]


def _asked(table: chex.Array, cloud: chex.Array, counts: chex.Array, wages: chex.Array) -> chex.Array:
    """What devices' tasks cost at their clouds beside `counts` ([K]) by a table ([N+1, N]), less the wage. [N]."""
    entry = jnp.take_along_axis(table, _of_cloud(counts, cloud)[None, :], axis=0)[0]
    return jnp.where((entry < BIG) & (cloud < counts.shape[0]), entry - _of_cloud(wages, cloud), BIG)


def _there(found: Split, cloud: chex.Array, clouds: int) -> chex.Array:
    """Tasks at the clouds. [K]."""
    return jnp.sum((cloud[None, :] == jnp.arange(clouds)[:, None]) & found.at_cloud[None, :], axis=1)


def _reach(priced: Priced, entry: chex.Array) -> chex.Array:
    """The highest wage of interest: what would send everybody to its cloud, or nobody, who has a choice. []."""
    other = jnp.minimum(priced.local, jnp.min(priced.edge, axis=0))
    return 1e-3 + jnp.max(jnp.where((entry < BIG) & (other < BIG), jnp.abs(entry - other), 0.0))


def _halved(more: Callable[[chex.Array], chex.Array], reach: chex.Array, clouds: int) -> chex.Array:
    """Wages ([K]) between -reach and reach up to which `more` ([K] bool) is true, by halving."""

    def step(_: int, carry: tuple[chex.Array, chex.Array]) -> tuple[chex.Array, chex.Array]:
        low, high = carry
        wages = 0.5 * (low + high)
        higher = more(wages)
        return jnp.where(higher, wages, low), jnp.where(higher, high, wages)

    start = jnp.broadcast_to(reach, (clouds,))
    low, high = jax.lax.fori_loop(0, WAGE_STEPS, step, (-start, start))
    return 0.5 * (low + high)


@chex.dataclass(frozen=True)
class Waged:
    """The best wages found for one price and one number of tasks at each cloud."""

    bound: chex.Array  # [] total
    wages: chex.Array  # [K]


def waged(tables: Tables, priced: Priced, counts: chex.Array, near: chex.Array) -> Waged:
    """The bound with given numbers of tasks at the clouds ([K]).

    Wages are searched for with numbers of tasks at the edges that lie around `near` ([E+1]).
    """
    users, clouds, edges = tables.base.shape[0], counts.shape[0], near.shape[0] - 1
    cloud = clouds_of(tables, edges)
    window = around(near, users)

    def more(wages: chex.Array) -> chex.Array:
        asked = _asked(priced.cloud, cloud, counts, wages)
        return _there(split(tables, priced, asked, window), cloud, clouds) < counts

    zero = jnp.zeros(clouds)
    entry = _asked(priced.cloud, cloud, counts, zero)
    wages = _halved(more, _reach(priced, entry), clouds) if clouds else zero
    total = split(tables, priced, _asked(priced.cloud, cloud, counts, wages), every(edges + 1, users)).total
    bound = jnp.minimum(total + priced.price * needed(tables) + jnp.sum(wages * counts), BIG)
    return Waged(bound=bound - slack(tables, priced.price, wages), wages=wages)


@chex.dataclass(frozen=True)
class Apart:
    """A bound for every number of tasks at every cloud: `rest` and one entry of `clouds` for each cloud."""

    rest: chex.Array  # []
    clouds: chex.Array  # [K, N+1] BIG where impossible


def apart(tables: Tables, priced: Priced, counts: chex.Array, near: chex.Array) -> Apart:
    """The bound by cloud and number of tasks, when tasks are sold at what they cost beside `counts` ([K]) less a wage.

    The wages are such that the clouds take as many tasks as devices sell, numbers of tasks around `counts` and, at the
    edges, around `near` ([E+1]) looked at.
    """
    users, clouds, edges = tables.base.shape[0], counts.shape[0], near.shape[0] - 1
    cloud = clouds_of(tables, edges)
    at_edges, at_clouds = around(near, users), around(counts, users)
    counts = jnp.maximum(counts, 1)

    def taken(asked: chex.Array, numbers: chex.Array) -> chex.Array:
        beyond = priced.cloud - jnp.where(asked < BIG, asked, 0.0)[None, :]
        beyond = jnp.where(priced.cloud < BIG, beyond, BIG)
        return _fewest(beyond, jnp.zeros_like(asked), cloud, numbers)[0]

    def more(wages: chex.Array) -> chex.Array:
        asked = _asked(priced.untold, cloud, counts, wages)
        best = jnp.argmin(taken(asked, at_clouds), axis=1)
        wanted = jnp.take_along_axis(at_clouds, best[:, None], axis=1)[:, 0]
        return _there(split(tables, priced, asked, at_edges), cloud, clouds) < wanted

    zero = jnp.zeros(clouds)
    wages = _halved(more, _reach(priced, _asked(priced.untold, cloud, counts, zero)), clouds) if clouds else zero
    asked = _asked(priced.untold, cloud, counts, wages)
    rest = split(tables, priced, asked, every(edges + 1, users)).total + priced.price * needed(tables)
    return Apart(
        rest=jnp.minimum(rest, BIG) - slack(tables, priced.price, wages),
        clouds=taken(asked, every(clouds, users)),
    )


def joint_action(tables: Tables, priced: Priced, at: Waged, counts: chex.Array, edges: int) -> chex.Array:
    """What devices do where a bound is met, `counts` tasks ([K]) expected at the clouds. May be forbidden. [N]."""
    users = tables.base.shape[0]
    cloud = clouds_of(tables, edges)
    asked = _asked(priced.cloud, cloud, counts, at.wages)
    found = split(tables, priced, asked, every(edges + 1, users))
    place = jnp.where(found.at_edge, EDGE, jnp.where(found.at_cloud, CLOUD, DEVICE))
    beside = jnp.where(found.at_edge, found.number[tables.nodes[:, EDGE]], _of_cloud(counts, cloud))
    node = jnp.take_along_axis(tables.nodes, place[:, None], axis=1)[:, 0]
    cost = tables.base - priced.price * tables.gain + tables.share * tables.occupancy[node, beside][:, None]
    possible = tables.base < BIG
    allowed = (tables.where[None, :] == place[:, None]) & (tables.most >= beside[:, None]) & possible
    return jnp.argmin(jnp.where(allowed, cost, jnp.where(possible, BIG, 2.0 * BIG)), axis=1).astype(jnp.int32)
