"""The best placement of tasks in a tree of nodes (`hl_jax.placement`), with its own lower bound. Pure JAX.

1. A joint action (`placing_moves.priced`): moves of single devices, at a price of accuracy that is found by halving.
2. Lower bounds (`placing_bounds`) at prices around it: for every number of tasks at every cloud at once, then again,
   with wages of their own, for the numbers of least bound (the roots).
3. From that joint action, and from some in which the bounds are met: moves of one and two devices until none helps.
4. Branch and bound (`placing_beam`) below what was found. Up to `EXACT_USERS` devices it is repeated with a wider beam
   where something of promise fell off the first. Above, `lower_bound` says how far the answer can be from the optimum.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import chex
import jax
import jax.numpy as jnp

from hl_jax import placement
from hl_jax.placement import Placement
from hl_jax.search import placing_beam, placing_bounds, placing_moves
from hl_jax.search.costs import BIG, NOTHING
from hl_jax.search.placing_beam import Roots
from hl_jax.search.placing_bounds import Priced, Waged
from hl_jax.search.placing_tables import Tables, at_counts, tables, value

MARGIN = 2e-6  # relative; covers the rounding of float32 sums
EXACT_USERS = 10  # up to here a search that isn't certain is repeated with wider beams
MOST_ROOTS = 286  # three clouds' numbers of ten devices' tasks
WIDER = (1, 24)
COARSE = (0.0, 0.15, 0.5, 1.0, 1.5, 2.5)  # of the first price of accuracy
FINE = (0.75, 1.0, 1.3)  # of the first price, and of the best of these
MIDDLE = 20.0  # in place of the first price where moves found none with which the constraint is kept


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much a search may do. More finds better joint actions and tighter bounds, in proportionally more time."""

    tried: int  # numbers of tasks at the clouds that have a bound of their own
    roots: int  # of these, the ones of least bound that are looked at more closely
    starts: int  # joint actions that moves start from, beside the first
    first_moves: int  # after each of which all second moves are tried
    prices: tuple[float, ...]  # of accuracy, in the first and in the best of `COARSE`, for the roots' bounds
    beam: int  # partial joint actions kept; 0: no branch and bound

    def __post_init__(self) -> None:
        for name, least in (("tried", 1), ("roots", 1), ("starts", 0), ("first_moves", 1), ("beam", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, found {getattr(self, name)}")


# 100 devices in some 200 ms; then half of the answers are more than 0.1 % above the optimum.
QUICK = Effort(tried=12, roots=3, starts=0, first_moves=24, prices=(1.0,), beam=32)


@chex.dataclass(frozen=True)
class Placed:
    """The best joint action found, and what is certain about it."""

    action: chex.Array  # [N] int32; NOTHING where none was found
    mean_cost: chex.Array  # [] inf where none was found
    lower_bound: chex.Array  # [] no joint action that is allowed and meets the constraint has a lower mean cost
    exact: chex.Array  # [] bool: certainly the best (to a rounding of 1e-6), or certainly none is possible
    impossible: chex.Array  # [] int32, how many of the N * C choices can't be made at all


def default_effort(users: int, clouds: int) -> Effort:
    """What reaches the optimum up to `EXACT_USERS` devices, and 0.1 % above.

    It takes some 15 ms at 20 devices, 30 at 30, 200 at 50 and 850 at 100.
    Branch and bound holds N * N^2 numbers for each root and price: beyond 120 devices they must be few.
    """
    if users <= EXACT_USERS:
        ways = min(math.comb(users + clouds, clouds), MOST_ROOTS)  # numbers of tasks at the clouds
        return Effort(tried=ways, roots=ways, starts=0, first_moves=16, prices=FINE, beam=128)
    if users <= 30:
        return Effort(tried=31, roots=4, starts=0, first_moves=24, prices=FINE, beam=48)
    if users <= 60 and clouds > 1:
        return Effort(tried=120, roots=12, starts=2, first_moves=32, prices=FINE, beam=96)
    if users <= 60:
        return Effort(tried=41, roots=6, starts=2, first_moves=32, prices=FINE, beam=96)
    if users <= 120:
        return Effort(tried=101, roots=6, starts=2, first_moves=32, prices=FINE, beam=96)
    return QUICK


def _lowest(apart: placing_bounds.Apart, users: int, roots: int) -> tuple[chex.Array, chex.Array, chex.Array]:
    """The numbers of tasks at the clouds of least bound ([R, K]), their bounds ([R]), and the least of the others."""
    clouds = apart.clouds.shape[0]
    least = jnp.min(apart.clouds, axis=1)
    values, counts, rest = apart.rest[None] + jnp.sum(least), jnp.zeros((1, 0), jnp.int32), jnp.float32(BIG)
    for k in range(clouds):
        sums = values[:, None] + (apart.clouds[k] - least[k])[None, :]
        sums = jnp.where(jnp.sum(counts, axis=1)[:, None] + jnp.arange(users + 1)[None, :] <= users, sums, BIG)
        sums = jnp.minimum(sums, BIG).reshape(-1)
        kept = min(roots, sums.shape[0])
        negated, index = jax.lax.top_k(-sums, min(kept + 1, sums.shape[0]))
        if sums.shape[0] > kept:
            rest = jnp.minimum(rest, -negated[-1])
        values, index = -negated[:kept], index[:kept]
        count = (index % (users + 1)).astype(jnp.int32)
        counts = jnp.concatenate([counts[index // (users + 1)], count[:, None]], axis=1)
    return counts, values, rest


@chex.dataclass(frozen=True)
class _Dual:
    """What the bounds say. R roots, M prices."""

    prices: chex.Array  # [M]
    counts: chex.Array  # [R, K]
    waged: Waged  # [M, R, ...]
    bound: chex.Array  # [R] total
    rest: chex.Array  # [] least bound of all numbers of tasks that aren't among the roots


def _waged(problem: Tables, near: chex.Array, counts: chex.Array, price: chex.Array) -> Waged:
    """Bounds at one price for several numbers of tasks at the clouds ([R, K]). [R, ...]."""
    priced = placing_bounds.at_price(problem, price)
    return jax.vmap(placing_bounds.waged, in_axes=(None, None, 0, None))(problem, priced, counts, near)


def _widest(
    problem: Tables, near: chex.Array, there: chex.Array, prices: chex.Array, tried: int
) -> tuple[tuple[chex.Array, chex.Array, chex.Array], chex.Array]:
    """What `_lowest` makes of the best bound for all numbers of tasks at the clouds at once, and the best price.

    `near` [E+1] and `there` [K] are a joint action's numbers of tasks. A bound for all numbers at once is best at
    another price than one for a certain number of them: the price returned is the best for `there`.
    """

    def at(price: chex.Array) -> tuple[placing_bounds.Apart, chex.Array]:
        priced = placing_bounds.at_price(problem, price)
        alone = placing_bounds.waged(problem, priced, there, near).bound
        return placing_bounds.apart(problem, priced, there, near), alone

    aparts, alone = jax.lax.map(at, prices)
    best = jnp.argmax(aparts.rest + jnp.sum(jnp.min(aparts.clouds, axis=2), axis=1))
    lowest = _lowest(jax.tree.map(lambda x: x[best], aparts), problem.base.shape[0], tried)
    return lowest, prices[jnp.argmax(alone)]


def _dual(problem: Tables, action: chex.Array, price: chex.Array, effort: Effort, shape: tuple[int, int]) -> _Dual:
    """Bounds around a joint action and a price of accuracy; `shape` is E and K."""
    edges, clouds = shape
    _, counts = at_counts(problem, action)
    near, there = counts[: edges + 1].at[edges].set(0), counts[edges + 1 : edges + 1 + clouds]
    price = jnp.maximum(price, 1e-3)
    lowest, best = _widest(problem, near, there, price * jnp.array(COARSE), effort.tried)
    counts, values, rest = lowest
    if (roots := min(effort.roots, counts.shape[0])) < counts.shape[0]:
        values = jnp.maximum(values, _waged(problem, near, counts, best).bound)
        negated, index = jax.lax.top_k(-values, roots + 1)
        rest = jnp.minimum(rest, -negated[-1])
        counts, values = counts[index[:roots]], -negated[:roots]
    prices = (jnp.stack([price, best])[:, None] * jnp.array(effort.prices)[None, :]).reshape(-1)
    waged = jax.lax.map(functools.partial(_waged, problem, near, counts), prices)
    bound = jnp.maximum(jnp.max(waged.bound, axis=0), values)
    return _Dual(prices=prices, counts=counts, waged=waged, bound=bound, rest=rest)


def _starts(problem: Tables, dual: _Dual, starts: int, edges: int) -> tuple[chex.Array, chex.Array]:
    """Joint actions behind the best bounds of the most promising roots ([S, N]), and their prices ([S])."""
    _, root = jax.lax.top_k(-dual.bound, min(starts, dual.bound.shape[0]))

    def at(root: chex.Array) -> tuple[chex.Array, chex.Array]:
        m = jnp.argmax(dual.waged.bound[:, root])
        priced = placing_bounds.at_price(problem, dual.prices[m])
        waged = jax.tree.map(lambda x: x[m, root], dual.waged)
        return placing_bounds.joint_action(problem, priced, waged, dual.counts[root], edges), dual.prices[m]

    return jax.lax.map(at, root)


@chex.dataclass(frozen=True)
class _Answer:
    """Totals of scaled costs."""

    action: chex.Array  # [N]
    total: chex.Array  # [] BIG where none was found
    bound: chex.Array  # []


def _certain(answer: _Answer) -> chex.Array:
    return answer.bound >= answer.total * (1.0 - 2.0 * MARGIN)


def _branched(problem: Tables, dual: _Dual, answer: _Answer, width: int, edges: int) -> _Answer:
    """The answer after branch and bound below it."""
    priced: Priced = jax.vmap(placing_bounds.at_price, in_axes=(None, 0))(problem, dual.prices)
    slack = jax.vmap(jax.vmap(placing_bounds.slack, in_axes=(None, None, 0)), in_axes=(None, 0, 0))
    roots = Roots(
        counts=dual.counts,
        wages=dual.waged.wages,
        slack=slack(problem, dual.prices, dual.waged.wages),
        possible=dual.bound < answer.total,
    )
    found = placing_beam.search(problem, priced, roots, answer.total, width, edges)
    better = found.total < answer.total
    total = jnp.where(better, found.total, answer.total)
    bound = jnp.minimum(jnp.minimum(found.dropped, dual.rest), total)
    return _Answer(
        action=jnp.where(better, found.action, answer.action),
        total=total,
        bound=jnp.maximum(answer.bound, bound),
    )


def _certified(problem: Tables, dual: _Dual, answer: _Answer, width: int, edges: int) -> _Answer:
    """The answer, after branch and bound where it isn't certain."""

    # One item after the other under `vmap`, where a `cond` would do the search for all of them.
    @jax.custom_batching.sequential_vmap
    def certain(problem: Tables, dual: _Dual, answer: _Answer) -> _Answer:
        return jax.lax.cond(_certain(answer), lambda: answer, lambda: _branched(problem, dual, answer, width, edges))

    return certain(problem, dual, answer)


def _search(problem: Tables, effort: Effort, shape: tuple[int, int]) -> _Answer:
    users = problem.base.shape[0]
    price, first = placing_moves.priced(problem)
    price = jnp.where(price < 0.9 * placing_moves.HIGHEST_PRICE, price, MIDDLE)
    dual = _dual(problem, first, price, effort, shape)
    actions, prices = first[None], price[None]
    if effort.starts:
        more, at = _starts(problem, dual, effort.starts, shape[0])
        actions, prices = jnp.concatenate([actions, more]), jnp.concatenate([prices, at])

    def improved(start: tuple[chex.Array, chex.Array]) -> tuple[chex.Array, chex.Array]:
        action = placing_moves.improve(problem, *start, effort.first_moves)
        return action, value(problem, action)

    actions, totals = jax.lax.map(improved, (actions, prices))
    best = jnp.argmin(totals)
    total = jnp.where(jnp.isfinite(totals[best]), totals[best], BIG)
    # No bound says that the accuracy can't be reached at any price.
    possible = jnp.where(problem.base < BIG, problem.units, -1)
    reachable = jnp.all(jnp.max(possible, axis=1) >= 0) & (jnp.sum(jnp.max(possible, axis=1)) >= problem.need)
    bound = jnp.where(reachable, jnp.minimum(dual.rest, jnp.min(dual.bound)), BIG)
    answer = _Answer(action=actions[best], total=total, bound=bound)
    for times in (WIDER if users <= EXACT_USERS else WIDER[:1]) if effort.beam else ():
        answer = _certified(problem, dual, answer, max(times * effort.beam, dual.bound.shape[0]), shape[0])
    return answer


def best(problem: Placement, effort: Effort | None = None) -> Placed:
    """The joint action of least mean cost that is allowed and meets the constraint, and a lower bound.

    Where nothing is possible `Placed` holds no action. A search that found none isn't a proof: `exact` says whether
    it is one; up to `EXACT_USERS` devices it is.

    Args:
      problem: N devices with C choices each, E edges, K clouds.
      effort: instead of the default.
    """
    users, _, edges, clouds = placement.check(problem)
    effort = default_effort(users, clouds) if effort is None else effort
    scaled, impossible = tables(problem)
    answer = _search(scaled, effort, (edges, clouds))
    found = answer.total < BIG
    costs = placement.costs(problem, answer.action)
    mean = jnp.where(found, jnp.mean(costs), jnp.inf)
    bound = jnp.where(answer.bound < BIG / 2, answer.bound * scaled.scale / users, jnp.inf)
    bound = jnp.minimum(bound * (1.0 - jnp.sign(bound) * MARGIN), mean * (1.0 - jnp.sign(mean) * MARGIN))
    return Placed(
        action=jnp.where(found, answer.action, NOTHING),
        mean_cost=mean,
        lower_bound=bound,
        exact=_certain(answer),
        impossible=impossible,
    )
