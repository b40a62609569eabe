"""The search for a placement against the true optimum, and against its own promises."""

from __future__ import annotations

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hl_jax import placement
from hl_jax.optimum import placing as oracle
from hl_jax.placement import EDGE
from hl_jax.search import placing
from hl_jax.search.costs import NOTHING
from tests.helpers.placements import Size, draw, on_device, plain

# 300 in the longer mode, in which there are larger fleets, too.
PROBLEMS = int(os.environ.get("HL_JAX_PLACEMENTS", "30"))
SIZES = [(5, 2, 0), (6, 3, 1), (10, 3, 1), (20, 3, 1)]  # users, edges, clouds
MORE_SIZES = [(2, 1, 1), (3, 0, 1), (8, 2, 2), (10, 5, 2), (15, 4, 2), (30, 4, 1), (50, 5, 2), (100, 5, 1)]
CLOSE = 1e-3  # relative, above the optimum, that the answer for a larger fleet may lie

best = jax.jit(placing.best, static_argnums=1)


def problem(index: int) -> tuple[Size, dict[str, Any]]:
    sizes = SIZES + MORE_SIZES if PROBLEMS > 30 else SIZES
    users, edges, clouds = sizes[index % len(sizes)]
    size = Size(users, edges, clouds, energy=bool(index // len(sizes) % 2))
    return size, draw(np.random.default_rng([5, index]), size)


def assert_right(size: Size, arrays: dict[str, Any], found: placing.Placed) -> str:
    """Checks an answer against the true optimum; returns what a table says of it."""
    try:
        true = oracle.milp(plain(arrays), relative_gap=1e-7 if size.users <= 10 else 1e-5)
    except ValueError:
        assert np.isinf(found.mean_cost)
        assert (np.asarray(found.action) == NOTHING).all()
        return "none"
    cost, bound = float(found.mean_cost), float(found.lower_bound)
    assert bound <= true.cost * (1.0 + 1e-6), "the bound is violated"
    assert true.bound * (1.0 - 2e-6) <= cost <= true.cost * (1.0 + (1e-6 if size.users <= 10 else CLOSE))
    if bool(found.exact):
        assert cost <= true.cost * (1.0 + 6e-6)
    action = jnp.asarray(found.action)
    assert float(placement.mean_cost(on_device(arrays), action)) == pytest.approx(cost, rel=1e-6)
    return f"{cost / true.cost - 1.0:.1e}, bound {bound / true.cost - 1.0:.1e}, exact {bool(found.exact)}"


@pytest.mark.parametrize("index", range(PROBLEMS))
def test_it_finds_the_true_optimum(index: int) -> None:
    size, arrays = problem(index)
    found = best(on_device(arrays), None)
    print(size.users, size.edges, size.clouds, assert_right(size, arrays, found))
    assert bool(found.exact) or size.users > placing.EXACT_USERS


def test_vmap_gives_what_single_calls_give() -> None:
    several = [on_device(draw(np.random.default_rng([6, s]), Size(6, 3, 1))) for s in range(4)]
    together = jax.jit(jax.vmap(placing.best))(jax.tree.map(lambda *x: jnp.stack(x), *several))
    for index, one in enumerate(several):
        np.testing.assert_allclose(together.mean_cost[index], best(one, None).mean_cost, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-4, 1e6])
def test_the_unit_of_costs_is_all_the_same(scale: float) -> None:
    for seed in range(3):
        arrays = draw(np.random.default_rng([7, seed]), Size(6, 3, 1))
        scaled = arrays | {name: (arrays[name] * scale).astype(np.float32) for name in ("base", "share")}
        first, second = best(on_device(arrays), None), best(on_device(scaled), None)
        np.testing.assert_allclose(second.mean_cost, float(first.mean_cost) * scale, rtol=1e-5)


def test_what_is_not_possible_is_said() -> None:
    size = Size(6, 3, 1)
    arrays = draw(np.random.default_rng(8), size, constraint=0.0)
    nobody = arrays["base"].copy()
    nobody[3] = np.inf
    # Everybody must be at one edge, where nobody may be beside another.
    edge_only = np.where(arrays["where"][None, :] == EDGE, arrays["share"], np.inf).astype(np.float32)
    crowded = {"base": edge_only, "most": np.ones_like(arrays["most"]), "edge": np.zeros_like(arrays["edge"])}
    for changed in ({"constraint": np.float32(95.0)}, {"base": nobody}, crowded):
        found = best(on_device(arrays | changed), None)
        assert np.isinf(found.mean_cost)
        assert np.isinf(found.lower_bound)
        assert bool(found.exact)
        assert (np.asarray(found.action) == NOTHING).all()
    possible = np.isfinite(nobody) & (arrays["most"] > 0)
    possible &= (arrays["where"][None, :] != EDGE) | (arrays["edge"] < 3)[:, None]
    possible &= (arrays["where"][None, :] != placement.CLOUD) | (arrays["cloud"] < 1)[:, None]
    assert int(best(on_device(arrays | {"base": nobody}), None).impossible) == int((~possible).sum())


def test_less_effort_keeps_the_bound_honest() -> None:
    effort = placing.Effort(tried=2, roots=1, starts=0, first_moves=1, prices=(1.0,), beam=0)
    uncertain = 0
    for seed in range(12):
        size = Size(6, 3, 1)
        arrays = draw(np.random.default_rng([9, seed]), size)
        try:
            true = oracle.milp(plain(arrays)).cost
        except ValueError:
            continue
        found = best(on_device(arrays), effort)
        uncertain += not bool(found.exact)
        assert float(found.lower_bound) <= true * (1.0 + 1e-6) <= float(found.mean_cost) * (1.0 + 2e-6)
    assert uncertain, "so little effort should leave something open"


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="roots: expected at least 1, found 0"):
        placing.Effort(tried=1, roots=0, starts=0, first_moves=1, prices=(1.0,), beam=0)
    arrays = draw(np.random.default_rng(10), Size(3, 1, 1))
    with pytest.raises(AssertionError):
        placing.best(on_device(arrays | {"most": arrays["most"][:, 1:]}))
