"""The true optimum of fleets too large for brute force: a mixed-integer linear program, solved by HiGHS (SciPy).

It reads response times off the simulator's own `response_ms`, one probe each, and shares nothing with
`hl_jax.structured`, so that each can check the other. The simulator's offloaded tasks take what their device adds plus
what their node's occupancy makes of it; the program relies on that, and probes that it is so.
"""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
from scipy import optimize, sparse

from hl_jax import simulator
from hl_jax.choices import node_choices, node_tasks
from hl_jax.objective import ROUNDING

ADDITIVE_TOLERANCE = 1e-5  # relative; a few float32 roundings


@dataclasses.dataclass(frozen=True)
class Program:
    """A fleet as the program sees it: offloaded, device i takes `part[i, node] + node[node, n]` beside n - 1 others."""

    local: np.ndarray  # [N, l] ms
    part: np.ndarray  # [N, D] ms at edge and cloud; D is 2, or 0 where nothing can be offloaded
    node: np.ndarray  # [D, N+1] ms, by number of tasks; 0 is never read
    accuracy: np.ndarray  # [C] %
    constraint: float  # %


@dataclasses.dataclass(frozen=True)
class Solution:
    """What the solver found."""

    art_ms: float  # average response time of `decision`, ms
    bound_ms: float  # no feasible joint action has a lower one
    accuracy: float  # of `decision`, %
    decision: tuple[int, ...]  # [N]


def probe(params: simulator.EnvParams, conditions: simulator.Conditions | None = None) -> Program:
    """Reads a program's numbers off the simulator by evaluating joint actions.

    Args:
      params: the scenario, N devices with C choices each.
      conditions: background load and links; the scenario's own where None.

    Raises:
      ValueError: if offloaded tasks' times aren't a device's part plus a node's part.
    """
    users, models = params.local_ms.shape
    conditions = params.start if conditions is None else conditions
    evaluate = jax.jit(jax.vmap(simulator.response_ms, in_axes=(None, None, 0)))
    accuracy, constraint = np.asarray(params.accuracy, np.float64), float(params.constraint)
    if params.accuracy.shape[0] == models:  # nothing can be offloaded
        each = np.full((users, models), np.arange(models), np.int32).T
        local = np.asarray(evaluate(params, conditions, each), np.float64).T
        return Program(local, np.zeros((users, 0)), np.zeros((0, users + 1)), accuracy, constraint)
    # On each node: each device alone; then for each n the first n devices, and the last n. The others compute locally.
    alone = np.eye(users, dtype=bool)
    first = np.arange(users)[None, :] < np.arange(1, users + 1)[:, None]
    joint = [np.full((users, models), np.arange(models)).T]
    joint += [np.where(there, node, 0) for node in node_choices(models) for there in (alone, first, first[:, ::-1])]
    times = np.asarray(evaluate(params, conditions, np.concatenate(joint).astype(np.int32)), np.float64)
    local, rest = times[:models].T, times[models:].reshape(2, 3, users, users)
    part, node = np.zeros((users, 2)), np.zeros((2, users + 1))
    for index in (0, 1):
        # Alone, where times are short and their float32 differences exact enough.
        part[:, index] = np.diagonal(rest[index, 0]) - rest[index, 0, 0, 0]
        node[index, 1:] = rest[index, 1, :, 0]
        for there, found in zip((first, first[:, ::-1]), rest[index, 1:], strict=True):
            expected = part[None, :, index] + node[index, 1:, None]
            if not np.allclose(found[there], expected[there], rtol=ADDITIVE_TOLERANCE, atol=0.0):
                worst = float(np.max(np.abs(found - expected)[there]))
                raise ValueError(
                    "response times: expected an offloaded task's to be a device's part plus a node's, "
                    f"found a difference of {worst:g} ms"
                )
    return Program(local, part, node, accuracy, constraint)


def _constraints(program: Program) -> optimize.LinearConstraint:
    """Rows over all x, then all y: a choice for each device, a number of tasks for each node, the least accuracy."""
    users, models = program.local.shape
    nodes, counts = program.part.shape[1], np.arange(users + 1)
    choices, occupied = models + nodes, users + 1
    taken = users * choices
    identity = sparse.identity(users, format="csr")
    no_counts = sparse.csr_matrix((users, nodes * occupied))
    rows = [sparse.hstack([sparse.kron(identity, np.ones((1, choices))), no_counts])]
    low, high = [np.ones(users)], [np.ones(users)]
    for node in range(nodes):
        one_count, tasks = np.zeros((1, taken + nodes * occupied)), np.zeros((1, taken + nodes * occupied))
        block = slice(taken + node * occupied, taken + (node + 1) * occupied)
        one_count[0, block] = 1.0
        tasks[0, node_choices(models)[node] : taken : choices] = 1.0
        tasks[0, block] = -counts
        rows += [sparse.csr_matrix(one_count), sparse.csr_matrix(tasks)]
        low += [np.ones(1), np.zeros(1)]
        high += [np.ones(1), np.zeros(1)]
    met = np.zeros((1, taken + nodes * occupied))
    met[0, :taken] = np.tile(program.accuracy, users)
    rows.append(sparse.csr_matrix(met))
    low.append(np.array([users * (program.constraint - ROUNDING)]))
    high.append(np.array([np.inf]))
    return optimize.LinearConstraint(sparse.vstack(rows, format="csr"), np.concatenate(low), np.concatenate(high))


def solve(program: Program, relative_gap: float = 1e-7, time_limit_s: float = 120.0) -> Solution:
    """Solves a program.

    Binary x[i, j] says that device i takes choice j, binary y[node, n] that n tasks are at the node; n tasks there
    cost n * node[n], whoever they belong to.

    Args:
      program: N devices with C choices each.
      relative_gap: between the solution and the bound, at which the solver may stop.
      time_limit_s: after which it stops with what it has.

    Raises:
      ValueError: if no joint action meets the constraint, or none was found in time.
    """
    users, choices = program.local.shape[0], program.local.shape[1] + program.part.shape[1]
    taken = users * choices
    occupied = np.arange(users + 1) * program.node
    cost = np.concatenate([np.hstack([program.local, program.part]).reshape(-1), occupied.reshape(-1)])
    result = optimize.milp(
        cost,
        constraints=_constraints(program),
        integrality=np.ones(cost.shape[0]),
        bounds=optimize.Bounds(0.0, 1.0),
        options={"mip_rel_gap": relative_gap, "time_limit": time_limit_s, "presolve": True},
    )
    if result.x is None:
        raise ValueError(
            f"constraint: expected a mean accuracy that some joint action meets, found {program.constraint:g} % "
            f"({result.message})"
        )
    decision = np.argmax(result.x[:taken].reshape(users, choices), axis=1)
    table = np.hstack([program.local, program.part])
    there = [int(count) for count in node_tasks(decision, program.local.shape[1])][: program.part.shape[1]]
    total = table[np.arange(users), decision].sum() + sum(n * program.node[node, n] for node, n in enumerate(there))
    return Solution(
        art_ms=float(total / users),
        bound_ms=float(min(result.mip_dual_bound, total) / users),
        accuracy=float(program.accuracy[decision].mean()),
        decision=tuple(int(choice) for choice in decision),
    )


def optimum(
    params: simulator.EnvParams,
    conditions: simulator.Conditions | None = None,
    relative_gap: float = 1e-7,
    time_limit_s: float = 120.0,
) -> Solution:
    """The best joint action that meets `params.constraint`; see `probe` and `solve`."""
    return solve(probe(params, conditions), relative_gap, time_limit_s)
