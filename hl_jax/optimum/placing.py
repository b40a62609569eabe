"""The true optimum of a placement (`hl_jax.placement`): by brute force where there are few joint actions, else MILP.

Everything is float64 NumPy, costs included, and shares nothing with the planner, so that each can check the other. The
program has a binary for each (device, choice, number of tasks at its node): then costs are known numbers, whatever the
form of the occupancy, and its relaxation is tight. HiGHS (SciPy) solves it, in two steps: by the relaxation's reduced
costs most binaries are 1 in no joint action that is better than `NEAR` above the relaxation; the program of the others
is small, and its answer is proven if it is no worse than that. Otherwise the step is repeated with what is needed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
from scipy import optimize, sparse

from hl_jax.choices import MOST_JOINT_ACTIONS
from hl_jax.objective import ROUNDING
from hl_jax.placement import CLOUD, DEVICE, EDGE, Placement

CHUNK = 10**5  # joint actions evaluated at once, at most
GAP = 1e-7  # relative, between the answer and its bound, at which the solver may stop
PROVEN = 1e-4  # relative gap that an optimum may have
TIME_LIMIT_S = 120.0  # for each program
NEAR = 2e-3  # relative, above the relaxation


@dataclasses.dataclass(frozen=True)
class Optimum:
    """The best joint action."""

    cost: float  # mean over devices
    bound: float  # no allowed joint action that meets the constraint has a lower one
    action: tuple[int, ...]  # [N]
    accuracy: float  # of `action`, %


@dataclasses.dataclass(frozen=True)
class _Program:
    """A placement in float64, with all nodes in one list: edges, then clouds."""

    base: np.ndarray  # [N, C]
    share: np.ndarray  # [N, C]
    most: np.ndarray  # [N, C]
    node: np.ndarray  # [N, C] which of V nodes; V: the device itself
    allowed: np.ndarray  # [N, C] whether the choice can be made at all
    occupancy: np.ndarray  # [V + 1, N + 1]; the last is 1
    accuracy: np.ndarray  # [N, C] %
    constraint: float  # %


def _program(problem: Placement) -> _Program:
    base, share, accuracy = (np.asarray(x, np.float64) for x in (problem.base, problem.share, problem.accuracy))
    where, edge, cloud, most = (np.asarray(x) for x in (problem.where, problem.edge, problem.cloud, problem.most))
    edges, clouds = np.asarray(problem.edges, np.float64), np.asarray(problem.clouds, np.float64)
    users, nodes = base.shape[0], len(edges) + len(clouds)
    there = {DEVICE: np.full(users, nodes), EDGE: edge, CLOUD: len(edges) + cloud}
    node = np.stack([there[int(place)] for place in where], axis=1)
    exists = {DEVICE: np.ones(users, bool), EDGE: edge < len(edges), CLOUD: cloud < len(clouds)}
    allowed = np.stack([exists[int(place)] for place in where], axis=1)
    allowed = allowed & np.isfinite(base) & np.isfinite(share) & (most >= 1)
    if not allowed.any(axis=1).all():
        lacking = np.flatnonzero(~allowed.any(axis=1)).tolist()
        raise ValueError(f"choices: expected at least one for every device, found none for {lacking}")
    occupancy = np.concatenate([edges.reshape(-1, users + 1), clouds.reshape(-1, users + 1), np.ones((1, users + 1))])
    # A device without such a node has an index beyond the list, and nothing allowed there.
    return _Program(
        np.where(allowed, base, 0.0),
        np.where(allowed, share, 0.0),
        most,
        np.where(allowed, node, nodes),
        allowed,
        occupancy,
        accuracy,
        float(problem.constraint),
    )


def _evaluate(program: _Program, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean costs [A] of joint actions [A, N], inf where something isn't allowed; and mean accuracies [A]."""
    device = np.arange(program.base.shape[0])[None, :]
    node, nodes = program.node[device, actions], len(program.occupancy) - 1
    count = np.ones(actions.shape, np.int64)
    for each in range(nodes):
        here = node == each
        count = np.where(here, here.sum(axis=1, keepdims=True), count)
    cost = program.base[device, actions] + program.share[device, actions] * program.occupancy[node, count]
    fine = program.allowed[device, actions] & (count <= program.most[device, actions])
    mean = np.where(fine.all(axis=1), cost.mean(axis=1), np.inf)
    return mean, program.accuracy[device, actions].mean(axis=1)


def _meets(program: _Program, accuracy: np.ndarray) -> np.ndarray:
    # A float64 sum of the same numbers may differ in its last places from another.
    return accuracy >= program.constraint - ROUNDING - 1e-9


def _nothing(program: _Program, why: str = "") -> ValueError:
    expected = "a joint action that is allowed and has the mean accuracy asked for"
    return ValueError(f"constraint: expected {expected}, found none of {program.constraint:g} %{why}")


def joint_actions(problem: Placement) -> int:
    """How many joint actions of possible choices there are.

    Raises:
      ValueError: if a device has no choice.
    """
    return math.prod(_program(problem).allowed.sum(axis=1).tolist())


def _chunks(program: _Program) -> Iterator[np.ndarray]:
    options = [np.flatnonzero(row) for row in program.allowed]
    sizes = [len(one) for one in options]
    for first in range(0, math.prod(sizes), CHUNK):
        index = np.unravel_index(np.arange(first, min(first + CHUNK, math.prod(sizes))), sizes)
        yield np.stack([one[at] for one, at in zip(options, index, strict=True)], axis=1)


def brute_force(problem: Placement) -> Optimum:
    """Evaluates every joint action.

    Raises:
      ValueError: if there are more than `MOST_JOINT_ACTIONS` of them, or none is allowed and meets the constraint.
    """
    program = _program(problem)
    if (found := math.prod(program.allowed.sum(axis=1).tolist())) > MOST_JOINT_ACTIONS:
        expected = f"at most {MOST_JOINT_ACTIONS:,} joint actions for brute force"
        raise ValueError(f"devices: expected {expected}, found {found:.3g}")
    best, action = np.inf, np.zeros(0, np.int64)
    for actions in _chunks(program):
        cost, accuracy = _evaluate(program, actions)
        cost = np.where(_meets(program, accuracy), cost, np.inf)
        if cost.min() < best:
            best, action = float(cost.min()), actions[cost.argmin()]
    if not np.isfinite(best):
        raise _nothing(program)
    return _optimum(program, action, best)


def _optimum(program: _Program, action: np.ndarray, bound: float) -> Optimum:
    """What an action costs, evaluated apart from the solver; it is not below a bound that rounding lifted."""
    cost, accuracy = (float(one[0]) for one in _evaluate(program, action[None]))
    return Optimum(cost, min(bound, cost), tuple(action.tolist()), accuracy)


@dataclasses.dataclass(frozen=True)
class _Columns:
    """One binary for each device, choice and number of tasks at its node that isn't dominated. [X] each."""

    device: np.ndarray
    choice: np.ndarray
    node: np.ndarray
    count: np.ndarray
    cost: np.ndarray


def _undominated(cost: np.ndarray, accuracy: np.ndarray) -> np.ndarray:
    """Indices of the choices ([C] each) than which none costs no more and is as accurate."""
    order = np.lexsort((-accuracy, cost))
    highest = np.concatenate([[-np.inf], np.maximum.accumulate(accuracy[order])[:-1]])
    return order[accuracy[order] > highest]


def _columns(program: _Program) -> _Columns:
    """All that could be part of an optimum: at one node beside so many tasks a dominated choice never need be taken."""
    rows: list[tuple[int, int, int, int, float]] = []
    itself = len(program.occupancy) - 1
    for device in range(len(program.base)):
        for node in np.unique(program.node[device, program.allowed[device]]):
            here = np.flatnonzero(program.allowed[device] & (program.node[device] == node))
            hanging = int(np.any(program.allowed & (program.node == node), axis=1).sum())
            for count in range(1, 2 if node == itself else hanging + 1):
                fine = here[program.most[device, here] >= count]
                cost = program.base[device, fine] + program.share[device, fine] * program.occupancy[node, count]
                fine, cost = fine[np.isfinite(cost)], cost[np.isfinite(cost)]
                for index in _undominated(cost, program.accuracy[device, fine]):
                    rows.append((device, int(fine[index]), int(node), count, float(cost[index])))
    whole = np.array([row[:4] for row in rows], np.int64).reshape(-1, 4)
    cost = np.array([row[4] for row in rows], np.float64)
    return _Columns(whole[:, 0], whole[:, 1], whole[:, 2], whole[:, 3], cost)


def _constraints(program: _Program, columns: _Columns) -> tuple[optimize.LinearConstraint, int]:
    """Rows over all binaries x, then y[node, count] (the node has so many tasks); and how many y there are."""
    users, counts = program.base.shape[0], program.base.shape[0] + 1
    nodes, taken = len(program.occupancy) - 1, len(columns.device)
    each, offloaded = np.arange(taken), np.flatnonzero(columns.node < nodes)
    block = columns.node * counts + columns.count  # which y
    entries, low, high, rows = [], [], [], 0

    def add(row: np.ndarray, column: np.ndarray, value: np.ndarray, least: np.ndarray, most: np.ndarray) -> None:
        nonlocal rows
        entries.append((rows + row, column, value))
        low.append(least)
        high.append(most)
        rows += len(least)

    one = np.ones(users)
    add(columns.device, each, np.ones(taken), one, one)
    met = np.array([users * (program.constraint - ROUNDING)])
    add(np.zeros(taken, np.int64), each, program.accuracy[columns.device, columns.choice], met, np.array([np.inf]))
    if nodes:
        y = np.arange(nodes * counts)
        add(y // counts, taken + y, np.ones(len(y)), np.ones(nodes), np.ones(nodes))
        # So many tasks where y says so.
        row = np.concatenate([block[offloaded], y])
        value = np.concatenate([np.ones(len(offloaded)), -(y % counts).astype(np.float64)])
        add(row, np.concatenate([offloaded, taken + y]), value, np.zeros(len(y)), np.zeros(len(y)))
        # No device is there with a number of tasks that y denies.
        pairs, row = np.unique(columns.device[offloaded] * len(y) + block[offloaded], return_inverse=True)
        value = np.concatenate([np.ones(len(offloaded)), -np.ones(len(pairs))])
        row = np.concatenate([row, np.arange(len(pairs))])
        column = np.concatenate([offloaded, taken + pairs % len(y)])
        add(row, column, value, np.full(len(pairs), -np.inf), np.zeros(len(pairs)))
    row, column, value = (np.concatenate(parts) for parts in zip(*entries, strict=True))
    matrix = sparse.csr_matrix((value, (row, column)), shape=(rows, taken + nodes * counts))
    return optimize.LinearConstraint(matrix, np.concatenate(low), np.concatenate(high)), nodes * counts


def _relaxed(cost: np.ndarray, constraints: optimize.LinearConstraint) -> tuple[float, np.ndarray] | None:
    """The least cost of the relaxation, and each column's reduced cost; None where nothing is possible."""
    low, high, matrix = constraints.lb, constraints.ub, constraints.A
    equal = low == high
    above, below = ~equal & np.isfinite(low), ~equal & np.isfinite(high)
    result = optimize.linprog(
        cost,
        A_ub=sparse.vstack([matrix[below], -matrix[above]]),
        b_ub=np.concatenate([high[below], -low[above]]),
        A_eq=matrix[equal],
        b_eq=low[equal],
        bounds=(0.0, 1.0),
        method="highs-ipm",
    )
    return None if result.x is None else (float(result.fun), np.asarray(result.lower.marginals))


def milp(problem: Placement, relative_gap: float = GAP, time_limit_s: float = TIME_LIMIT_S) -> Optimum:
    """Solves the program.

    Args:
      problem: N devices.
      relative_gap: between the answer and its bound, at which the solver may stop.
      time_limit_s: after which it stops with what it has, for each of a few programs.

    Raises:
      ValueError: if no joint action is allowed and meets the constraint, or none was found in time.
    """
    program = _program(problem)
    columns = _columns(program)
    users, taken = len(program.base), len(columns.device)
    if len(np.unique(columns.device)) < users:
        raise _nothing(program)
    constraints, numbers = _constraints(program, columns)
    cost = np.concatenate([columns.cost / users, np.zeros(numbers)])
    relaxed = _relaxed(cost, constraints)
    if relaxed is None:
        raise _nothing(program)
    least, reduced = relaxed
    near = NEAR * abs(least)
    while True:
        # A joint action with any other column costs more than the relaxation by that column's reduced cost at least.
        kept = np.flatnonzero(reduced <= near)
        result = optimize.milp(
            cost[kept],
            constraints=optimize.LinearConstraint(constraints.A[:, kept], constraints.lb, constraints.ub),
            integrality=np.ones(len(kept)),
            bounds=optimize.Bounds(0.0, 1.0),
            options={"mip_rel_gap": relative_gap, "time_limit": time_limit_s, "presolve": True},
        )
        if result.x is None and result.status == 1:
            expected = f"an answer within {time_limit_s:g} s"
            raise ValueError(f"devices: expected {expected}, found none for {users} of them")
        if result.x is not None:
            chosen = kept[result.x > 0.5]
            chosen = chosen[chosen < taken]
            action = np.zeros(users, np.int64)
            action[columns.device[chosen]] = columns.choice[chosen]
            everything = len(kept) == len(cost)
            bound = float(result.mip_dual_bound)
            found = _optimum(program, action, bound if everything else min(bound, least + near))
            if everything or result.fun <= least + near:
                return found
            near = (float(result.fun) - least) * (1.0 + 1e-6)
        elif len(kept) == len(cost):
            raise _nothing(program)
        else:
            near = max(8.0 * near, 1e-9 * float(cost.max()))


def optimum(problem: Placement) -> Optimum:
    """The best joint action: by brute force where there are few, else by `milp`.

    Raises:
      ValueError: if no joint action is allowed and meets the constraint, or none is proven optimal in time.
    """
    if joint_actions(problem) <= MOST_JOINT_ACTIONS:
        return brute_force(problem)
    found = milp(problem)
    if found.bound < found.cost - PROVEN * abs(found.cost):
        expected = f"an optimum that is proven within {PROVEN:g}"
        raise ValueError(f"devices: expected {expected}, found one between {found.bound:g} and {found.cost:g}")
    return found
