"""The structured search against brute force, against HiGHS, and against its own promises."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from hl_jax.optimum import milp
from hl_jax.search import bounds, structured
from hl_jax.search.costs import BIG, NOTHING, Costs, accuracy_units, mean_response_ms, require

ACCURACY = (90.0, 88.0, 85.0, 74.5, 89.0, 87.0, 83.0, 72.5)
TIMES = (460.0, 280.0, 170.0, 90.0, 250.0, 165.0, 110.0, 75.0)
LIMIT = 95.0  # %, above every accuracy used here


def random_costs(rng: np.random.Generator, users: int, models: int = 8, equal: bool = False) -> Costs:
    """Unequal devices behind random links, nodes of random size and contention, a random constraint."""
    if models == 8:
        times, accuracy = np.array(TIMES), np.array(ACCURACY)
    else:
        times = np.sort(rng.uniform(50.0, 600.0, models))[::-1] * rng.uniform(0.8, 1.2, models)
        accuracy = np.round(np.sort(rng.uniform(60.0, LIMIT, models))[::-1], 1)
    speed = np.ones(users) if equal else 2.0 ** rng.uniform(-1.0, 1.0, users)
    link = np.zeros(users) if equal else rng.uniform(0.0, 150.0, users) * rng.integers(0, 2, users)
    tasks = np.arange(users + 1)
    tables = []
    for alone, share in ((160.0, 200.0), (290.0, 75.0)):
        cores = int(rng.integers(1, max(2, users // 3) + 1))
        sharing = [
            1 + np.maximum(tasks - 1, 0) / cores,
            np.maximum(np.ceil(tasks / cores), 1),
            1 + (tasks / cores) ** 2,
        ]
        tables.append(alone + share * sharing[int(rng.integers(3))][None, :] + link[:, None])
    return Costs(
        local=jnp.asarray(times / speed[:, None] + link[:, None], jnp.float32),
        edge=jnp.asarray(tables[0], jnp.float32),
        cloud=jnp.asarray(tables[1], jnp.float32),
        accuracy=jnp.asarray([*accuracy, accuracy[0], accuracy[0]], jnp.float32),
        constraint=jnp.float32(rng.uniform(accuracy.min(), accuracy.max())),
    )


best = jax.jit(structured.best)
k_best = jax.jit(structured.k_best, static_argnums=1)


@functools.cache
def joint_actions(users: int, choices: int) -> tuple[np.ndarray, np.ndarray]:
    """All joint actions [A, N], and how many tasks each sends to edge and cloud [2, A]."""
    actions = np.array(list(itertools.product(range(choices), repeat=users)), np.int32)
    return actions, np.stack([np.sum(actions == choices - 2 + node, axis=1) for node in (0, 1)])


def brute_force(costs: Costs, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best joint actions [k, N] and their means [k] (inf where the constraint isn't met), in float64."""
    local, edge, cloud = (np.asarray(x, np.float64) for x in (costs.local, costs.edge, costs.cloud))
    accuracy = np.asarray(costs.accuracy, np.float64)
    users, models = local.shape
    actions, there = joint_actions(users, models + 2)
    total, accurate = np.zeros(len(actions)), np.zeros(len(actions))
    for device in range(users):
        # By choice and by the occupancy of either node: one look-up for each joint action.
        choice = actions[:, device]
        mine = np.concatenate([local[device], [0.0, 0.0]])[choice]
        mine += np.where(choice == models, edge[device, there[0]], 0.0)
        total += mine + np.where(choice == models + 1, cloud[device, there[1]], 0.0)
        accurate += accuracy[choice] * (1.0 if costs.weights is None else float(costs.weights[device]))
    mean = np.where(accurate / users >= float(costs.constraint) - 1e-3, total / users, np.inf)
    order = np.argpartition(mean, k)[: k + 1]
    order = order[np.argsort(mean[order], kind="stable")][:k]
    return actions[order], mean[order]


def assert_same_best(found: structured.Found, actions: np.ndarray, means: np.ndarray) -> None:
    """The same K best, up to joint actions that are equally good."""
    np.testing.assert_allclose(np.asarray(found.mean_ms), means, rtol=1e-6)
    finite = np.isfinite(means)
    clear = finite & (means < means[finite].max(initial=0.0) * (1.0 - 1e-6))
    listed = set(map(tuple, np.asarray(found.actions)[finite].tolist()))
    assert len(listed) == finite.sum(), "a joint action is listed twice"
    assert set(map(tuple, actions[clear].tolist())) <= listed


def program(costs: Costs) -> milp.Program:
    local, edge, cloud = (np.asarray(x, np.float64) for x in (costs.local, costs.edge, costs.cloud))
    part = np.stack([edge[:, 1] - edge[0, 1], cloud[:, 1] - cloud[0, 1]], axis=1)
    return milp.Program(
        local=local,
        part=part,
        node=np.stack([edge[0], cloud[0]]),
        accuracy=np.asarray(costs.accuracy, np.float64),
        constraint=float(costs.constraint),
    )


def test_k_best_are_brute_forces() -> None:
    rng = np.random.default_rng(1)
    for _ in range(40):
        costs = random_costs(rng, 5)
        found = k_best(costs, 10)
        assert bool(found.exact)
        assert_same_best(found, *brute_force(costs, 10))


def test_k_best_where_devices_count_differently_are_brute_forces() -> None:
    rng = np.random.default_rng(3)
    for index in range(40):
        users = 5 if index % 4 else 3
        weights = rng.dirichlet(np.full(users, 0.7)) * users
        costs = random_costs(rng, users).replace(weights=jnp.asarray(weights, jnp.float32))
        found = k_best(costs, 10)
        assert bool(found.exact)
        assert_same_best(found, *brute_force(costs, 10))


def test_weights_of_one_change_nothing() -> None:
    rng = np.random.default_rng(4)
    for users in (5, 12):
        costs = random_costs(rng, users)
        plain, weighted = (best(one) for one in (costs, costs.replace(weights=jnp.ones(users))))
        np.testing.assert_allclose(plain.mean_ms, weighted.mean_ms, rtol=1e-4)
        assert weighted.lower_bound_ms <= plain.mean_ms[0] * (1.0 + 1e-6)


@pytest.mark.parametrize("constraint", [0.0, 80.0, 85.0, 89.0, 90.0])
def test_equal_devices_tie_and_are_searched_exactly(constraint: float) -> None:
    costs = random_costs(np.random.default_rng(2), 5, equal=True).replace(constraint=jnp.float32(constraint))
    found = k_best(costs, 10)
    assert_same_best(found, *brute_force(costs, 10))


@pytest.mark.parametrize(("users", "instances"), [(2, 20), (5, 20), (10, 20), (30, 8), (100, 4)])
def test_best_is_highs_optimum(users: int, instances: int) -> None:
    rng = np.random.default_rng(users)
    for index in range(instances):
        costs = random_costs(rng, users, equal=index % 10 == 0)
        found = jax.tree.map(np.asarray, best(costs))
        truth = milp.solve(program(costs), 1e-7 if users <= 10 else 1e-5, time_limit_s=30.0)
        assert found.mean_ms[0] <= truth.art_ms * (1.0 + (1e-6 if users <= 10 else 1e-3))
        assert found.mean_ms[0] >= truth.bound_ms * (1.0 - 1e-6)
        assert found.lower_bound_ms <= truth.art_ms * (1.0 + 1e-6)
        assert costs.accuracy[found.actions[0]].mean() >= costs.constraint - 1e-3


def relaxed_ms(item: bounds.Problem) -> float:
    """Least total cost of an occupancy's linear relaxation, by HiGHS: the greatest value that its dual can have."""
    cost, accuracy = np.asarray(item.cost, np.float64), np.asarray(item.accuracy, np.float64)
    choices, users = cost.shape
    places = np.eye(choices)[-2:]
    found = optimize.linprog(
        np.where(cost < BIG, cost, 1e7).T.reshape(-1),
        A_ub=-np.tile(accuracy, users)[None, :],
        b_ub=[-float(item.need)],
        A_eq=np.vstack([np.kron(np.eye(users), np.ones(choices)), np.tile(places, users)]),
        b_eq=[*np.ones(users), *np.asarray(item.counts)],
    )
    assert found.status == 0
    return float(found.fun)


@pytest.mark.parametrize("seed", range(4))
def test_bounds_converge_near_the_strictest_constraints(seed: int) -> None:
    users, rng = 50, np.random.default_rng(seed)
    costs = random_costs(rng, users)
    costs = costs.replace(constraint=jnp.float32(rng.uniform(88.0, 89.8)))
    pairs = jnp.asarray([(n, m) for n in range(users + 1) for m in range(users + 1 - n)], jnp.int32)
    rough = jax.jit(bounds.rough)(costs, pairs)
    likely = jnp.argsort(rough.bound)[:8]
    problems = jax.vmap(bounds.problem, in_axes=(None, 0))(costs, pairs[likely])
    dual = np.asarray(jax.jit(jax.vmap(bounds.refine))(problems, rough.price[likely]).bound)
    relaxed = np.array([relaxed_ms(jax.tree.map(lambda leaf, at=at: leaf[at], problems)) for at in range(8)])
    assert (dual <= relaxed * (1.0 + structured.MARGIN)).all()
    np.testing.assert_allclose(dual, relaxed, rtol=1e-3)


@pytest.mark.parametrize(("constraint", "enough"), [(88.5808, True), (88.58104, False), (88.5811, False)])
def test_a_mean_accuracy_that_misses_the_constraint_by_less_than_a_unit_misses_it(constraint, enough) -> None:
    # Four devices at 88.9 and one at 87.3: 88.58 on the mean; 1e-3 may be missing, a unit is 1e-4.
    costs = random_costs(np.random.default_rng(5), 5)
    units, need = accuracy_units(costs.replace(constraint=jnp.float32(constraint)))
    assert units.dtype == need.dtype == jnp.int32
    assert (round(10_000 * (4 * 88.9 + 87.3)) >= int(need)) == enough


def test_a_pool_of_32_models_is_searched() -> None:
    rng = np.random.default_rng(3)
    for _ in range(3):
        costs = random_costs(rng, 20, models=32)
        found = jax.tree.map(np.asarray, best(costs))
        truth = milp.solve(program(costs), 1e-4, time_limit_s=30.0)
        assert truth.bound_ms * (1.0 - 1e-6) <= found.mean_ms[0] <= truth.art_ms * 1.001
        assert found.lower_bound_ms <= truth.art_ms * (1.0 + 1e-6)


def test_means_are_those_of_the_actions_and_in_order() -> None:
    costs = random_costs(np.random.default_rng(4), 5)
    found = k_best(costs, 10)
    means = jax.vmap(mean_response_ms, in_axes=(None, 0))(costs, found.actions)
    np.testing.assert_allclose(found.mean_ms, means, rtol=1e-6)
    assert np.all(np.diff(np.asarray(found.mean_ms)) >= 0.0)
    assert float(found.lower_bound_ms) <= float(found.mean_ms[0])


def test_fewer_feasible_than_k_are_marked() -> None:
    # Two devices, one model of 90 % and two of less; only the first model and offloading reach 90 %: 9 joint actions.
    costs = Costs(
        local=jnp.array([[50.0, 20.0, 10.0], [60.0, 25.0, 12.0]]),
        edge=jnp.array([[0.0, 30.0, 40.0]] * 2),
        cloud=jnp.array([[0.0, 35.0, 36.0]] * 2),
        accuracy=jnp.array([90.0, 80.0, 70.0, 90.0, 90.0]),
        constraint=jnp.float32(90.0),
    )
    found = k_best(costs, 12)
    assert np.isfinite(np.asarray(found.mean_ms)).sum() == 9
    assert bool(found.exact)
    # By hand: edge and cloud, in either order, cost (30 + 35) / 2.
    np.testing.assert_allclose(found.mean_ms[:2], [32.5, 32.5])


def test_a_constraint_that_cannot_be_met_finds_nothing() -> None:
    costs = random_costs(np.random.default_rng(5), 5).replace(constraint=jnp.float32(LIMIT))
    found = best(costs)
    assert np.isinf(float(found.mean_ms[0]))
    assert np.isinf(float(found.lower_bound_ms))


def test_the_constraint_is_rounded_as_the_simulators() -> None:
    costs = random_costs(np.random.default_rng(6), 5).replace(constraint=jnp.float32(90.0 + 0.9e-3))
    assert np.isfinite(float(best(costs).mean_ms[0]))
    assert np.isinf(float(best(costs.replace(constraint=jnp.float32(90.0 + 1.2e-3))).mean_ms[0]))


def test_one_device() -> None:
    costs = random_costs(np.random.default_rng(7), 1)
    found = k_best(costs, 3)
    assert_same_best(found, *brute_force(costs, 3))


def test_vmap_gives_what_single_calls_give() -> None:
    rng = np.random.default_rng(8)
    several = [random_costs(rng, 5) for _ in range(4)]
    together = jax.jit(jax.vmap(structured.best))(jax.tree.map(lambda *x: jnp.stack(x), *several))
    for index, costs in enumerate(several):
        np.testing.assert_allclose(together.mean_ms[index], best(costs).mean_ms, rtol=1e-6)


def test_less_effort_keeps_the_bound_honest() -> None:
    rng = np.random.default_rng(9)
    find = jax.jit(lambda costs: structured.best(costs, structured.Effort(beam=4, occupancies=3, choices=4)))
    uncertain = 0
    for _ in range(30):
        costs = random_costs(rng, 4)
        found, truth = find(costs), brute_force(costs, 1)[1][0]
        uncertain += not bool(found.exact)
        assert float(found.lower_bound_ms) <= truth * (1.0 + 1e-6) <= float(found.mean_ms[0]) * (1.0 + 2e-6)
        if bool(found.exact):
            np.testing.assert_allclose(found.mean_ms[0], truth, rtol=2e-6)
    assert uncertain > 0, "so little effort should leave something open"


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e7])
def test_costs_that_are_not_finite_are_impossible_choices(scale: float) -> None:
    """Against brute force over what is left; where nothing is left there is no action, rather than any."""
    rng = np.random.default_rng(10)
    find = jax.jit(lambda costs: structured.k_best(costs, 3))
    nothing = 0
    for round_ in range(60):
        costs = random_costs(rng, 3, models=4)
        part = (0.0, 0.3, 0.8)[round_ % 3]
        tables = [np.array(scale * table, np.float32) for table in (costs.local, costs.edge, costs.cloud)]
        for table in tables:
            gone = rng.random(table.shape) < part
            table[gone] = rng.choice([np.nan, np.inf, -np.inf], gone.sum())
        local, edge, cloud = map(jnp.asarray, tables)
        costs = costs.replace(local=local, edge=edge, cloud=cloud)  # type: ignore[attr-defined]
        with jax.debug_nans(False):
            found = find(costs)
        means = []
        for joint in itertools.product(range(6), repeat=3):
            sent = joint.count(4), joint.count(5)
            each = [
                tables[0][i, c] if c < 4 else (tables[1][i, sent[0]] if c == 4 else tables[2][i, sent[1]])
                for i, c in enumerate(joint)
            ]
            fine = np.mean(np.asarray(costs.accuracy)[list(joint)]) >= float(costs.constraint) - 1e-3
            if fine and np.isfinite(each).all():
                means.append(np.mean(each))
        expected = np.sort(means)[:3]
        np.testing.assert_allclose(found.mean_ms[: len(expected)], expected, rtol=1e-5)
        assert np.isinf(found.mean_ms[len(expected) :]).all()
        assert (np.asarray(found.actions)[len(expected) :] == NOTHING).all()
        read = [tables[0], tables[1][:, 1:], tables[2][:, 1:]]
        assert int(found.impossible) == sum(int((~np.isfinite(table)).sum()) for table in read)
        if len(expected):
            assert float(found.lower_bound_ms) <= expected[0] * (1.0 + 1e-6)
            require(found)
        else:
            nothing += 1
            with pytest.raises(ValueError, match="expected a joint action that meets the constraint at a finite cost"):
                require(found)
    assert nothing


def test_bad_arguments_are_refused() -> None:
    costs = random_costs(np.random.default_rng(10), 3)
    with pytest.raises(ValueError, match="k: expected at least 1, found 0"):
        structured.k_best(costs, 0)
    with pytest.raises(ValueError, match="beam: expected at least 1, found 0"):
        structured.Effort(beam=0, occupancies=1, choices=1)
    with pytest.raises(AssertionError):
        best(costs.replace(edge=costs.edge[:, :-1]))
