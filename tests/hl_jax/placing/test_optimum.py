"""The true optimum of a placement: brute force, HiGHS and SCIP against one another and against a naive enumeration."""

from __future__ import annotations

import itertools
import os
from typing import Any

import numpy as np
import pytest

from hl_jax.optimum import placing
from hl_jax.placement import CLOUD, DEVICE, EDGE
from tests.helpers import scip_placement
from tests.helpers.placements import Size, draw, plain

SCIP_PROBLEMS = int(os.environ.get("HL_JAX_SCIP_PLACEMENTS", "8"))  # 50 in the longer mode
# Few choices, so that all joint actions can be gone through: users, edges, clouds, models, targets.
SMALL = [(1, 1, 1, 3), (3, 2, 1, 2), (4, 1, 2, 2), (4, 3, 0, 2), (4, 0, 1, 2), (3, 0, 0, 4), (5, 2, 1, 1)]


def small(index: int) -> dict[str, Any]:
    users, edges, clouds, models = SMALL[index % len(SMALL)]
    size = Size(users, edges, clouds, models, targets=(2, 1, 1), limited=0.4, energy=bool(index % 2))
    return draw(np.random.default_rng([1, index]), size)


def naive(arrays: dict[str, Any]) -> float:
    """The least mean cost, one joint action after the other, as the definition says; inf where nothing is possible."""
    users, choices = arrays["base"].shape
    best = np.inf
    for joint in itertools.product(range(choices), repeat=users):
        nodes = []
        for i, c in enumerate(joint):
            place = arrays["where"][c]
            nodes.append((place, {DEVICE: i, EDGE: arrays["edge"][i], CLOUD: arrays["cloud"][i]}[place]))
        total, fine = 0.0, True
        for i, c in enumerate(joint):
            place, node = nodes[i]
            there = nodes.count(nodes[i]) if place != DEVICE else 1
            rows = {DEVICE: np.ones((users, users + 1)), EDGE: arrays["edges"], CLOUD: arrays["clouds"]}[place]
            fine &= node < len(rows) and there <= arrays["most"][i, c] and bool(np.isfinite(arrays["base"][i, c]))
            if not fine:
                break
            total += float(arrays["base"][i, c]) + float(arrays["share"][i, c]) * float(rows[node, there])
        accurate = np.mean([float(arrays["accuracy"][i, c]) for i, c in enumerate(joint)])
        if fine and accurate >= float(arrays["constraint"]) - 1e-3:
            best = min(best, total / users)
    return best


@pytest.mark.parametrize("index", range(14))
def test_brute_force_and_milp_are_a_naive_enumeration(index: int) -> None:
    arrays = small(index)
    expected = naive(arrays)
    if not np.isfinite(expected):
        for solve in (placing.brute_force, placing.milp):
            with pytest.raises(ValueError, match="expected"):
                solve(plain(arrays))
        return
    for solve in (placing.brute_force, placing.milp, placing.optimum):
        found = solve(plain(arrays))
        assert found.cost == pytest.approx(expected, rel=1e-9)
        assert found.bound <= expected * (1.0 + 1e-9)
        assert found.bound >= expected * (1.0 - 1e-6)


def test_the_small_problems_are_of_all_kinds() -> None:
    """Else the test above proves little: offloading is worth it in some, limits and constraints bind in some."""
    offloaded = limits = constraints = 0
    for index in range(14):
        arrays = small(index)
        best = naive(arrays)
        if not np.isfinite(best):
            continue
        action = placing.brute_force(plain(arrays)).action
        offloaded += any(arrays["where"][c] != DEVICE for c in action)
        constraints += naive(arrays | {"constraint": np.float32(0.0)}) < best * (1.0 - 1e-6)
        limits += naive(arrays | {"most": np.full_like(arrays["most"], 9)}) < best * (1.0 - 1e-6)
    assert offloaded >= 5
    assert constraints >= 5
    assert limits >= 2


@pytest.mark.parametrize("index", range(SCIP_PROBLEMS))
def test_a_second_solver_finds_the_same_optimum(index: int) -> None:
    users = (3, 5, 8, 10)[index % 4]
    size = Size(users, (2, 3)[index % 2], (1, 2)[index // 4 % 2], models=4, targets=(2, 1, 1), energy=bool(index % 3))
    problem = plain(draw(np.random.default_rng([2, index]), size))
    expected = scip_placement.least_cost(problem)
    if np.isfinite(expected):
        # SCIP's costs are rounded to a millionth of the largest.
        unit = float(np.max(np.where(np.isfinite(problem.base), problem.base + problem.share * 10.0, 0.0)))
        assert placing.milp(problem).cost == pytest.approx(expected, rel=1e-6, abs=1e-6 * unit)
    else:
        with pytest.raises(ValueError, match="found none"):
            placing.milp(problem)


def test_what_is_not_possible_is_refused() -> None:
    size = Size(4, 1, 1, models=2, targets=(1, 1, 1), masked=0.0, limited=0.0)
    arrays = draw(np.random.default_rng(3), size, constraint=0.0)
    beyond = plain(arrays | {"constraint": np.float32(95.0)})
    for solve in (placing.brute_force, placing.milp, placing.optimum):
        with pytest.raises(
            ValueError, match=r"constraint: expected a joint action that is allowed .* found none of 95 %"
        ):
            solve(beyond)
    base = arrays["base"].copy()
    base[2] = np.inf
    with pytest.raises(ValueError, match=r"choices: expected at least one for every device, found none for \[2\]"):
        placing.optimum(plain(arrays | {"base": base}))
    # Everybody must be at the one edge, where nobody may be beside another.
    base = np.where(arrays["where"][None, :] == EDGE, arrays["base"], np.inf).astype(np.float32)
    crowded = arrays | {"base": base, "most": np.ones_like(arrays["most"]), "edge": np.zeros_like(arrays["edge"])}
    for solve in (placing.brute_force, placing.milp):
        with pytest.raises(ValueError, match="found none"):
            solve(plain(crowded))


def test_too_many_joint_actions_are_left_to_milp() -> None:
    problem = plain(draw(np.random.default_rng(4), Size(12, 2, 1)))
    assert placing.joint_actions(problem) > 10**7
    with pytest.raises(ValueError, match="devices: expected at most 10,000,000 joint actions for brute force, found"):
        placing.brute_force(problem)
    assert placing.optimum(problem).cost == placing.milp(problem).cost
    with pytest.raises(ValueError, match="devices: expected an answer within 1e-06 s, found none for 12 of them"):
        placing.milp(problem, time_limit_s=1e-6)
