"""The best standing joint decision under traffic: candidates race on the same requests until one is certainly ahead.

Nobody can compute the mean of queues like these, so it is estimated: rollouts of every candidate with common random
numbers, more and more of them, and who is behind the leader with certainty drops out (racing, Maron and Moore 1994,
with paired differences). Up to `MOST_USERS` devices every joint decision that keeps the constraint is a candidate, up
to permutations of equal devices; those drop out at once whose tasks take longer without any waiting than the leader's.
For more devices races lead from neighbour to neighbour.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from hl_jax import objective
from hl_jax.choices import MOST_JOINT_ACTIONS
from hl_jax.optimum import oracle
from hl_jax.simulator import Conditions
from hl_jax.traffic import environment, standing
from hl_jax.traffic.environment import TrafficParams

MOST_USERS = 5  # whose joint decisions are all candidates
CERTAIN = 1e-4  # probability that one who isn't behind is taken to be, by Student's t of paired differences
SAME = 0.002  # relative difference of cost below which two decisions count as equally good
FIRST, MOST_ROLLOUTS = 4, 512  # rollouts of each candidate in the first round; of the last ones at most
LANES = 64  # rollouts in one compiled call
MOST_CLIMBS = 200
BEFORE = 256  # candidates of the least time without waiting, of which the first leader is one


@dataclasses.dataclass(frozen=True)
class Raced:
    """The best standing joint decision, and how sure that is."""

    decision: tuple[int, ...]
    cost_ms: float  # by the objective, mean over rollouts
    error_ms: float  # standard error of that
    mean_ms: float  # mean response time
    accuracy: float  # %, each device weighted by its requests
    rivals: tuple[tuple[int, ...], ...]  # decisions that aren't certainly behind
    behind_ms: float  # how much better than the decision one of the rivals may be, at most, with certainty `CERTAIN`
    candidates: int  # decisions that were considered
    complete: bool  # whether these were all that keep the constraint
    rollouts: int


def costs(params: TrafficParams, action: chex.Array, seed: chex.Array, numbers: chex.Array) -> standing.Worth:
    """Rollouts with these numbers ([L]) of a joint decision ([N]). Leading axis L."""

    def one(number: chex.Array) -> standing.Worth:
        return standing.worth(params, action, jax.random.fold_in(jax.random.key(seed), number))

    return jax.vmap(one)(numbers)


@jax.jit
def each_cost(params: TrafficParams, actions: chex.Array, seed: chex.Array, numbers: chex.Array) -> standing.Worth:
    """A rollout with each of these numbers ([L]) of as many joint decisions ([L, N])."""
    each = jax.vmap(lambda action, number: costs(params, action, seed, number[None]))(actions, numbers)
    return jax.tree.map(lambda leaf: leaf[:, 0], each)


def unloaded_ms(params: TrafficParams, conditions: Conditions) -> np.ndarray:
    """What each device's task takes for each choice where nothing waits, noise-free. [N, C] ms."""
    ways = environment.network(params, conditions, jnp.int32(0))
    services = np.asarray(environment.services_ms(params.fleet, conditions), np.float64)
    choices = services.shape[1]
    way = np.repeat(np.asarray(ways.after_ms, np.float64)[:, None], choices, axis=1)
    if params.fleet.accuracy.shape[0] > params.fleet.local_ms.shape[1]:
        way[:, -2:] = np.asarray(ways.near_ms, np.float64)[:, None] + np.asarray(ways.beyond_ms, np.float64)[None, :]
    return way + services


def _equal_devices(params: TrafficParams) -> list[list[int]]:
    """Devices that nothing tells apart, in groups."""
    law, fleet = params.law, params.fleet
    columns = [law.interval_ms, law.variation, law.jitter_ms, params.weights, fleet.start.device_weak]
    table = [np.asarray(column, np.float64)[:, None] for column in columns] + [np.asarray(fleet.local_ms)]
    table += [np.asarray(x)[:, None] for x in (fleet.start.device_cpu, fleet.start.device_memory)]
    # A clock's phase belongs to its device, as time stamps and a link of its own do.
    apart = np.asarray(law.variation) == 0.0
    if law.stamps is not None:
        apart |= np.asarray(law.stamps.first)[:, -1] > 0
    if params.link is not None:
        apart |= True
    rows = np.concatenate([*table, np.where(apart, np.arange(len(apart)) + 1.0, 0.0)[:, None]], axis=1)
    _, group = np.unique(rows, axis=0, return_inverse=True)
    return [np.flatnonzero(group == one).tolist() for one in range(group.max() + 1)]


def _all_candidates(params: TrafficParams) -> np.ndarray:
    """Every joint decision that keeps the constraint, one of those that differ by equal devices only. [A, N]."""
    users, choices = params.weights.shape[0], params.fleet.accuracy.shape[0]
    if choices**users > MOST_JOINT_ACTIONS:
        raise ValueError(f"users: expected at most {MOST_JOINT_ACTIONS:,} joint actions, found {choices}^{users}")
    actions = np.stack(np.unravel_index(np.arange(choices**users), (choices,) * users), axis=1).astype(np.int32)
    keep = _keep_constraint(params, actions)
    for group in _equal_devices(params):
        for one, following in itertools.pairwise(group):
            keep &= actions[:, one] <= actions[:, following]
    return actions[keep]


def _margin(rollouts: int) -> float:
    """Standard errors of a paired difference by which one must be behind to be out."""
    return float(scipy.stats.t.isf(CERTAIN, rollouts - 1))


@dataclasses.dataclass
class _Race:
    """Who is still in it ([A, N]), and what rollouts have shown of each ([A, rollouts])."""

    params: TrafficParams
    actions: np.ndarray
    seed: int
    costs: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0)))
    means: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0)))

    def run(self, rollouts: int) -> None:
        """So many more rollouts of everybody."""
        count = len(self.actions)
        first = self.costs.shape[1]
        pairs = [(index, first + number) for index in range(count) for number in range(rollouts)]
        found, means = [], []
        for low in range(0, len(pairs), LANES):
            block = pairs[low : low + LANES]
            padded = np.array(block + [block[-1]] * (LANES - len(block)))
            seen = jax.device_get(
                each_cost(self.params, self.actions[padded[:, 0]], jnp.int32(self.seed), padded[:, 1])
            )
            if most := seen.untold.max():
                raise ValueError(f"traffic: expected room for all requests of a rollout, found {most} more")
            if not seen.requests.min():
                raise ValueError("traffic: expected requests in every rollout, found none in one")
            found.append(seen.cost_ms[: len(block)])
            means.append(seen.mean_ms[: len(block)])
        shape = (count, rollouts)
        new = [np.concatenate(each).astype(np.float64).reshape(shape) for each in (found, means)]
        old = [each if first else np.zeros((count, 0)) for each in (self.costs, self.means)]
        self.costs, self.means = (np.concatenate(pair, axis=1) for pair in zip(old, new, strict=True))

    def against_the_leader(self) -> tuple[int, np.ndarray, np.ndarray]:
        """The leader, by how much each is behind it on average, and that difference's standard error. [A] each."""
        leader = int(np.argmin(self.costs.mean(axis=1)))
        differences = self.costs - self.costs[leader]
        return leader, differences.mean(axis=1), differences.std(axis=1, ddof=1) / math.sqrt(self.costs.shape[1])

    def keep(self, who: np.ndarray) -> None:
        self.actions, self.costs, self.means = self.actions[who], self.costs[who], self.means[who]


def race(params: TrafficParams, candidates: np.ndarray, complete: bool = False, seed: int = 0) -> Raced:
    """Lets joint decisions ([A, N], all of which keep the constraint) race.

    Args:
      params: the scenario, in conditions that stand still.
      candidates: who takes part.
      complete: whether these are all that keep the constraint.
      seed: of the rollouts.

    Raises:
      ValueError: if there is nobody, or rollouts have no room for their requests.
    """
    if not len(candidates):
        found = f"{float(params.fleet.constraint):g} %"
        raise ValueError(f"constraint: expected a mean accuracy that some joint action meets, found {found}")
    considered = len(candidates)
    # The least that each may cost, for sure: its mean time where nothing waits, or what a lost request counts.
    alone = unloaded_ms(params, params.fleet.start)[np.arange(candidates.shape[1]), candidates]
    alone = np.minimum(alone, float(params.lost_ms))
    least = alone @ np.asarray(params.weights, np.float64)
    order = np.argsort(least, kind="stable")
    # Where hardly any deadline is missed, costs are compared as if one request in twenty were late.
    least_cost = 0.05 * float(params.deadline_ms) if params.objective == "misses" else 0.0
    runners = _Race(params, candidates[order][:BEFORE], seed)
    runners.run(FIRST)
    if params.objective == "mean":
        leader, _, _ = runners.against_the_leader()
        bar = runners.costs[leader].mean() + _margin(FIRST) * runners.costs[leader].std(ddof=1) / math.sqrt(FIRST)
        more = candidates[order][BEFORE:][least[order][BEFORE:] <= bar]
    else:
        more = candidates[order][BEFORE:]
    if len(more):
        late = _Race(params, more, seed)
        late.run(FIRST)
        runners.actions = np.concatenate([runners.actions, late.actions])
        runners.costs = np.concatenate([runners.costs, late.costs])
        runners.means = np.concatenate([runners.means, late.means])
    while True:
        leader, behind, error = runners.against_the_leader()
        rollouts = runners.costs.shape[1]
        runners.keep(behind <= _margin(rollouts) * error)
        leader, behind, error = runners.against_the_leader()
        cost = runners.costs[leader].mean()
        unsure = np.delete(_margin(rollouts) * error - behind, leader)
        if not unsure.size or unsure.max() <= SAME * max(cost, least_cost) or rollouts >= MOST_ROLLOUTS:
            break
        runners.run(rollouts)
    decision = runners.actions[leader]
    accuracy = np.asarray(params.fleet.accuracy, np.float64)[decision] @ np.asarray(params.weights, np.float64)
    return Raced(
        decision=tuple(decision.tolist()),
        cost_ms=float(cost),
        error_ms=float(runners.costs[leader].std(ddof=1) / math.sqrt(rollouts)),
        mean_ms=float(runners.means[leader].mean()),
        accuracy=float(accuracy),
        rivals=tuple(tuple(row.tolist()) for index, row in enumerate(runners.actions) if index != leader),
        behind_ms=float(max(unsure.max(), 0.0)) if unsure.size else 0.0,
        candidates=considered,
        complete=complete,
        rollouts=rollouts,
    )


def _keep_constraint(params: TrafficParams, actions: np.ndarray) -> np.ndarray:
    """Which joint decisions ([A, N]) keep the constraint. [A]."""
    accuracy = np.asarray(params.fleet.accuracy, np.float64)[actions] @ np.asarray(params.weights, np.float64)
    return np.asarray(accuracy >= float(params.fleet.constraint) - objective.ROUNDING)


def _neighbours(params: TrafficParams, decision: np.ndarray) -> np.ndarray:
    """A joint decision ([N]) and its neighbours: [A, N], itself first.

    These keep the constraint and differ by one device's choice, or by two devices' that change places.
    """
    users, choices = params.weights.shape[0], params.fleet.accuracy.shape[0]
    changed = np.repeat(decision[None], users * choices, axis=0)
    changed[np.arange(users * choices), np.repeat(np.arange(users), choices)] = np.tile(np.arange(choices), users)
    pairs = np.array(list(itertools.combinations(range(users), 2)))
    swapped = np.repeat(decision[None], len(pairs), axis=0)
    swapped[np.arange(len(pairs)), pairs[:, 0]] = decision[pairs[:, 1]]
    swapped[np.arange(len(pairs)), pairs[:, 1]] = decision[pairs[:, 0]]
    others = np.unique(np.concatenate([changed, swapped]), axis=0)
    others = others[_keep_constraint(params, others) & (others != decision).any(axis=1)]
    return np.concatenate([decision[None], others]).astype(np.int32)


def _climbed(params: TrafficParams, starts: np.ndarray) -> Raced:
    """The best that races of neighbours lead to, from the best of some joint decisions ([A, N]).

    Nobody proves that nothing better is elsewhere: `complete` is False.
    """
    found = race(params, starts)
    for _ in range(MOST_CLIMBS):
        following = race(params, _neighbours(params, np.array(found.decision, np.int32)))
        # Where it isn't certainly behind, the one before stays: races of equals would go on for ever.
        if following.decision == found.decision or found.decision in following.rivals:
            return following
        found = following
    return found


def optimum(params: TrafficParams, conditions: Conditions | None = None, among: Sequence[Sequence[int]] = ()) -> Raced:
    """The best standing joint decision: among all for up to `MOST_USERS` devices.

    For more devices the best that changes of one or two devices' choices lead to, from the lock-step optimum, from what
    is best where nothing waits, and from those given; `complete` says which it was.

    Raises:
      ValueError: if no joint decision keeps the constraint.
    """
    still = standing.still(params, params.fleet.start if conditions is None else conditions)
    users = params.weights.shape[0]
    if users <= MOST_USERS:
        return race(still, _all_candidates(still), complete=True)
    models, alone = still.fleet.local_ms.shape[1], unloaded_ms(still, still.fleet.start)
    quickest = [np.argmin(each, axis=1).astype(np.int32) for each in (alone, alone[:, :models])]
    together = np.array(oracle.optimum(still.fleet).decision, np.int32)
    given = np.array(among, np.int32).reshape(-1, users)
    every = np.unique(np.stack([*given, *(_mended(still, one) for one in (together, *quickest))]), axis=0)
    return _climbed(still, every[_keep_constraint(still, every)])


def _mended(params: TrafficParams, decision: np.ndarray) -> np.ndarray:
    """A joint decision ([N]) that keeps the constraint: devices, those with the most requests first, become accurate.

    Nobody has to be more accurate than the most accurate local model; where that isn't enough, nothing is.
    """
    mended, models = decision.copy(), params.fleet.local_ms.shape[1]
    best = int(np.argmax(np.asarray(params.fleet.accuracy)[:models]))
    for device in np.argsort(-np.asarray(params.weights), kind="stable"):
        if _keep_constraint(params, mended[None])[0]:
            break
        mended[device] = best
    return mended
