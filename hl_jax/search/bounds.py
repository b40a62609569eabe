"""Lower bounds of the least total response time under a fixed occupancy, by Lagrangian duality.

With `n` tasks at the edge and `m` at the cloud, the least total cost is at least

    sum_i min_j (cost_ij - price * accuracy_j - wage_j) + price * need + wage_edge * n + wage_cloud * m

for every price >= 0 of accuracy and every pair of wages (0 for local choices). `rough` tries a grid of prices for all
occupancies at once, with wages that follow from sorting; `refine` maximises over all three numbers for one occupancy.
Costs are sums over devices (ms); accuracies here are fractions of the pool's range, so that a price is in ms.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from hl_jax.choices import local_models, node_choices
from hl_jax.search.costs import BIG, Costs, accuracy_units

PRICES = 24  # of each of the two grids, coarse and fine
LOWEST_PRICE = 1e-3  # of the highest, in the coarse grid
# Near the strictest constraints, where prices are steep, faster cooling or longer steps end far from the maximum.
NEWTON_STEPS = 20
COOLING = 0.7  # of the smoothing, at each Newton step
REACH = 4.0  # most by which a step may change a multiplier, in temperatures


@chex.dataclass(frozen=True)
class Problem:
    """One occupancy: the cost of every choice, and what the accuracies must add up to."""

    cost: chex.Array  # [C, N] ms; BIG where the choice is impossible. Devices last: the long axis is the fast one
    accuracy: chex.Array  # [C] fraction of the pool's range; [C, N] where devices count differently
    need: chex.Array  # [] least sum of `accuracy`
    counts: chex.Array  # [2] tasks at edge and cloud


@chex.dataclass(frozen=True)
class Dual:
    """Multipliers of one occupancy, and the bound that they give."""

    price: chex.Array  # [] ms per range of accuracy
    wages: chex.Array  # [2] ms per task at edge and cloud
    bound: chex.Array  # [] ms, total


@chex.dataclass(frozen=True)
class Rough:
    """Bounds of many occupancies, and the multipliers behind them."""

    bound: chex.Array  # [P] ms, total; BIG where no joint action meets the constraint
    price: chex.Array  # [P]


def _scaled(costs: Costs) -> tuple[chex.Array, chex.Array]:
    """Accuracies ([C] or [N, C]) and need, shifted and scaled to the pool's range."""
    users = costs.local.shape[0]
    units, need = accuracy_units(costs)
    low, high = jnp.min(units), jnp.max(units)
    scale = jnp.maximum(high - low, 1).astype(jnp.float32)
    return (units - low) / scale, (need - users * low) / scale


def accuracy_scale(costs: Costs) -> chex.Array:
    """The pool's range of accuracy in `UNITS`."""
    units, _ = accuracy_units(costs)
    return jnp.maximum(jnp.max(units) - jnp.min(units), 1).astype(jnp.float32)


def problem(costs: Costs, counts: chex.Array) -> Problem:
    """The problem under one occupancy ([2] int32 tasks at edge and cloud)."""
    users, models = costs.local.shape
    units, need_units = accuracy_units(costs)
    accuracy, need = _scaled(costs)
    offloaded = jnp.sum(counts)
    # What the constraint leaves over when every task is as accurate as it may be; one alone may not lose more.
    if costs.weights is None:
        best_local = jnp.max(units[:models])
        slack = (users - offloaded) * best_local + jnp.sum(counts * units[models:]) - need_units
        allowed = (best_local - units[:models] <= slack)[:, None]
    else:
        best = jnp.max(units, axis=1)
        slack = jnp.sum(best) - need_units
        allowed = (best[:, None] - units[:, :models] <= slack).T
    local = jnp.where(allowed & (offloaded < users), costs.local.T, BIG)
    edge = jnp.where((counts[0] > 0) & (slack >= 0), costs.edge[:, counts[0]], BIG)
    cloud = jnp.where((counts[1] > 0) & (slack >= 0), costs.cloud[:, counts[1]], BIG)
    cost = jnp.concatenate([local, edge[None, :], cloud[None, :]])
    return Problem(cost=cost, accuracy=accuracy.T, need=need, counts=counts)


def reduced(item: Problem, price: chex.Array, wages: chex.Array) -> chex.Array:
    """Cost of every choice less what its accuracy and its place earn. [C, N]."""
    places = jnp.concatenate([jnp.zeros(local_models(item.accuracy.shape[0])), wages])
    if item.accuracy.ndim == 1:
        earned = (price * item.accuracy + places)[:, None]
    else:
        earned = price * item.accuracy + places[:, None]
    return jnp.where(item.cost < BIG, item.cost - earned, BIG)


def dual_bound(item: Problem, price: chex.Array, wages: chex.Array) -> chex.Array:
    """The bound that these multipliers give (ms, total)."""
    least = jnp.sum(jnp.min(reduced(item, price, wages), axis=0))
    return jnp.minimum(least + price * item.need + jnp.sum(wages * item.counts), BIG)


def _prices(costs: Costs) -> chex.Array:
    """A coarse grid from 0 to a price at which only accuracy counts. [PRICES]."""
    accuracy, _ = _scaled(costs)
    apart = jnp.abs(accuracy[..., :, None] - accuracy[..., None, :])
    smallest = jnp.min(jnp.where(apart > 0.0, apart, 1.0))
    tables = (costs.local, costs.edge[:, 1:], costs.cloud[:, 1:])
    highest = jnp.max(jnp.stack([jnp.max(t) for t in tables])) - jnp.min(jnp.stack([jnp.min(t) for t in tables]))
    steps = jnp.linspace(0.0, 1.0, PRICES - 1)
    grid = highest / smallest * (LOWEST_PRICE * smallest) ** (1.0 - steps)
    return jnp.concatenate([jnp.zeros(1), grid])


def _at_price(costs: Costs, counts: chex.Array, price: chex.Array) -> chex.Array:
    """Bounds of all occupancies ([P, 2]) at one price. [P] ms.

    An offloaded task costs at least its device's part plus its node's: edge[i, n] >= part_i + f(n). Then the best set
    of devices to offload follows from sorting. Either the sets of edge and cloud are chosen apart (and may overlap), or
    their union is (and each of its devices pays the cheaper part): both are relaxations, and the better one counts.
    """
    accuracy, need = _scaled(costs)
    models = costs.local.shape[1]
    accuracy = jnp.broadcast_to(accuracy, (costs.local.shape[0], accuracy.shape[-1]))
    local = jnp.min(costs.local - price * accuracy[:, :models], axis=1)
    sums, nodes, gains = [], [], []
    for node, table in enumerate((costs.edge, costs.cloud)):
        part = table[:, 1]
        nodes.append(jnp.min(table - part[:, None], axis=0))  # f(n), [N+1]
        gain = part - price * accuracy[:, node_choices(models)[node]] - local
        gains.append(gain)
        sums.append(jnp.concatenate([jnp.zeros(1), jnp.cumsum(jnp.sort(gain))]))
    either = jnp.concatenate([jnp.zeros(1), jnp.cumsum(jnp.sort(jnp.minimum(*gains)))])
    edge, cloud = counts[:, 0], counts[:, 1]
    chosen = jnp.maximum(sums[0][edge] + sums[1][cloud], either[edge + cloud])
    return jnp.sum(local) + price * need + chosen + edge * nodes[0][edge] + cloud * nodes[1][cloud]


def rough(costs: Costs, counts: chex.Array) -> Rough:
    """Bounds of all occupancies ([P, 2] int32), each at the best price of two grids."""
    users, models = costs.local.shape
    at = jax.vmap(_at_price, in_axes=(None, None, 0))
    coarse = _prices(costs)
    bounds = at(costs, counts, coarse)
    units, need = accuracy_units(costs)
    if costs.weights is None:
        most = counts @ units[models:] + (users - jnp.sum(counts, axis=1)) * jnp.max(units[:models])
    else:
        most = jnp.full(counts.shape[0], jnp.sum(jnp.max(units, axis=1)))
    possible = most >= need
    top = jnp.max(bounds, axis=0)
    # The second grid lies around the best price of the most promising occupancy.
    best = jnp.argmax(bounds[:, jnp.argmin(jnp.where(possible, top, BIG))])
    around = (coarse[jnp.maximum(best - 1, 0)], coarse[jnp.minimum(best + 1, PRICES - 1)])
    fine = jnp.linspace(*around, PRICES)
    prices = jnp.concatenate([coarse, fine])
    bounds = jnp.concatenate([bounds, at(costs, counts, fine)])
    which = jnp.argmax(bounds, axis=0)
    return Rough(bound=jnp.where(possible, jnp.max(bounds, axis=0), BIG), price=prices[which])


def _first_wages(item: Problem, price: chex.Array) -> chex.Array:
    """Wages at which, each node looked at alone, as many devices would go there as should. [2]."""
    scores = reduced(item, price, jnp.zeros(2))
    local = jnp.min(scores[:-2], axis=0)
    gains = jnp.sort(scores[-2:] - local[None, :], axis=1)
    users = item.cost.shape[1]
    last = jnp.take_along_axis(gains, jnp.maximum(item.counts - 1, 0)[:, None], axis=1)[:, 0]
    following = jnp.take_along_axis(gains, jnp.minimum(item.counts, users - 1)[:, None], axis=1)[:, 0]
    wages = 0.5 * (last + following)
    return jnp.where((item.counts > 0) & (jnp.abs(wages) < BIG / 4), wages, 0.0)


def _solve3(matrix: chex.Array, right: chex.Array) -> chex.Array:
    """Solves a symmetric positive definite [3, 3] system by cofactors: elementwise, so cheap under `vmap`."""
    first, second, third = matrix
    cofactors = jnp.stack([jnp.cross(second, third), jnp.cross(third, first), jnp.cross(first, second)])
    return right @ cofactors / jnp.sum(first * cofactors[0])


def _moments(accuracy: chex.Array, there: chex.Array, share: chex.Array) -> tuple[chex.Array, chex.Array]:
    """Accuracy and tasks at both nodes where each device's choices have shares ([C, N]).

    Returns each device's mean ([3, N]), and the sum of the mean products ([3, 3]).
    """
    if accuracy.ndim == 1:
        earning = jnp.stack([accuracy, *there], axis=1)  # [C, 3]
        return earning.T @ share, (earning.T * jnp.sum(share, axis=1)[None, :]) @ earning
    offloaded = there @ share  # [2, N]
    mean = jnp.concatenate([jnp.sum(accuracy * share, axis=0)[None, :], offloaded])
    square = jnp.diag(jnp.concatenate([jnp.sum(accuracy**2 * share)[None], jnp.sum(offloaded, axis=1)]))
    mixed = jnp.sum(there @ (accuracy * share), axis=1)
    return mean, square.at[0, 1:].set(mixed).at[1:, 0].set(mixed)


def refine(item: Problem, price: chex.Array) -> Dual:
    """Maximises the bound over price and wages from a first price: Newton steps on a smoothed bound.

    The minimum over choices is smoothed by a temperature that falls step by step. The bound returned is the exact
    one, the best of those met on the way, so it holds however far the steps got.
    """
    choices = item.cost.shape[0]
    there = jax.nn.one_hot(jnp.arange(-2, 0) % choices, choices)  # [2, C]
    target = jnp.concatenate([item.need[None], item.counts.astype(jnp.float32)])
    users = item.cost.shape[1]
    finite = jnp.where(item.cost < BIG, item.cost, 0.0)
    # Where a device has one choice only, the spread would be 0: a thousandth of the largest cost stands in.
    least = jnp.min(jnp.where(item.cost < BIG, item.cost, BIG), axis=0)
    spread = jnp.sum(jnp.max(finite, axis=0) - jnp.minimum(least, jnp.max(finite, axis=0))) / users
    spread = jnp.maximum(spread, 1e-3 * jnp.max(finite) + 1e-6)

    def exact(point: chex.Array) -> chex.Array:
        return dual_bound(item, point[0], point[1:])

    def step(index: int, carry: tuple[chex.Array, chex.Array, chex.Array]) -> tuple[chex.Array, chex.Array, chex.Array]:
        point, best, bound = carry
        temperature = spread / 16.0 * COOLING**index
        share = jax.nn.softmax(-reduced(item, point[0], point[1:]) / temperature, axis=0)
        mean, square = _moments(item.accuracy, there, share)
        gradient = target - jnp.sum(mean, axis=1)
        curvature = square - mean @ mean.T
        gradient = jnp.where((point == 0.0) & (jnp.arange(3) == 0) & (gradient < 0.0), 0.0, gradient)
        # The Newton step, multiplied through by the temperature: dividing by it would overflow.
        move = _solve3(curvature + 0.02 * jnp.eye(3), gradient * temperature)
        reach = REACH * temperature
        point = point + jnp.clip(move, -reach, reach)
        point = point.at[0].set(jnp.maximum(point[0], 0.0))
        value = exact(point)
        return point, jnp.where(value > bound, point, best), jnp.maximum(value, bound)

    start = jnp.concatenate([price[None], _first_wages(item, price)])
    _, best, bound = jax.lax.fori_loop(0, NEWTON_STEPS, step, (start, start, exact(start)))
    return Dual(price=best[0], wages=best[1:], bound=bound)
