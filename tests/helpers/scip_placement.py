"""The best placement by SCIP: a second exact solver, and a program of another form than `hl_jax.optimum.placing`'s.

Binaries say which choice a device takes, and how many tasks are at a node; continuous parts join the two. Nothing is
left out because it is dominated.
Costs are integers of a millionth of the largest one.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pyscipopt

from hl_jax.objective import ROUNDING
from hl_jax.placement import CLOUD, DEVICE, EDGE, Placement

PARTS = 10**6


def least_cost(problem: Placement) -> float:
    """The least mean cost; inf where nothing is possible."""
    base, share, accuracy = (np.asarray(x, np.float64) for x in (problem.base, problem.share, problem.accuracy))
    users, choices = base.shape
    sharing = {EDGE: np.asarray(problem.edges, np.float64), CLOUD: np.asarray(problem.clouds, np.float64)}
    hangs = {EDGE: np.asarray(problem.edge), CLOUD: np.asarray(problem.cloud)}
    model = pyscipopt.Model()
    model.hideOutput()
    model.setParam("limits/time", 120.0)
    taken: dict[tuple[int, int], Any] = {}
    costs: dict[tuple[int, int, int], float] = {}  # of a device's choice beside so many tasks
    for i, c in itertools.product(range(users), range(choices)):
        place = int(problem.where[c])
        if not np.isfinite(base[i, c]) or (place != DEVICE and hangs[place][i] >= len(sharing[place])):
            continue
        taken[i, c] = model.addVar(vtype="B")
        most = min(int(problem.most[i, c]), users) if place != DEVICE else 1
        for n in range(1, most + 1):
            beside = 1.0 if place == DEVICE else sharing[place][hangs[place][i], n]
            costs[i, c, n] = base[i, c] + share[i, c] * beside
    unit = max(costs.values()) / PARTS
    whole = {key: round(cost / unit) for key, cost in costs.items()}
    number: dict[tuple[int, int, int], Any] = {}
    for place, occupancy in sharing.items():
        for node in range(len(occupancy)):
            here = [taken[key] for key in taken if problem.where[key[1]] == place and hangs[place][key[0]] == node]
            for n in range(users + 1):
                number[place, node, n] = model.addVar(vtype="B")
            model.addCons(pyscipopt.quicksum(number[place, node, n] for n in range(users + 1)) == 1)
            counted = pyscipopt.quicksum(n * number[place, node, n] for n in range(users + 1))
            model.addCons(pyscipopt.quicksum(here) == counted)
    total = []
    for i in range(users):
        mine = [c for c in range(choices) if (i, c) in taken]
        if not mine:
            return float("inf")
        model.addCons(pyscipopt.quicksum(taken[i, c] for c in mine) == 1)
        beside: dict[tuple[int, int], list[Any]] = {}
        for c in mine:
            place = int(problem.where[c])
            if place == DEVICE:
                total.append(whole[i, c, 1] * taken[i, c])
                continue
            parts = {n: model.addVar(lb=0.0, ub=1.0) for n in range(1, users + 1) if (i, c, n) in whole}
            model.addCons(pyscipopt.quicksum(parts.values()) == taken[i, c])
            for n, part in parts.items():
                total.append(whole[i, c, n] * part)
                beside.setdefault((place, n), []).append(part)
        for (place, n), parts_there in beside.items():
            model.addCons(pyscipopt.quicksum(parts_there) <= number[place, int(hangs[place][i]), n])
    met = pyscipopt.quicksum(accuracy[key] * one for key, one in taken.items())
    model.addCons(met >= users * (float(problem.constraint) - ROUNDING))
    model.setObjective(pyscipopt.quicksum(total))
    model.optimize()
    status = model.getStatus()
    assert status in ("optimal", "infeasible"), f"SCIP ended with {status}"
    if status == "infeasible":
        return float("inf")
    # The integers chose; what is compared is what it costs.
    chosen = {i: c for (i, c), one in taken.items() if model.getVal(one) > 0.5}
    place = {
        i: (int(problem.where[c]), int(hangs[int(problem.where[c])][i]))
        for i, c in chosen.items()
        if problem.where[c] != DEVICE
    }
    beside = [list(place.values()).count(place[i]) if i in place else 1 for i in range(users)]
    return float(np.mean([costs[i, chosen[i], beside[i]] for i in range(users)]))
