"""`factored` under traffic: its tables against plain Gaussian algebra, its knowledge of demand, and what it learns."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hl_jax
from hl_jax import environments, training
from hl_jax.agents.factored import demand, queueing, rollouts, tables
from hl_jax.agents.factored.rollouts import Learned
from hl_jax.agents.world import compiled_world, misfit, real_step
from hl_jax.arrivals import Arrivals, Traffic
from hl_jax.optimum import racing
from hl_jax.traffic import environment, standing

USERS, COLUMNS = 3, 4
PRIOR = tables.Prior(
    column=1.2, row=0.7, own=(0.1, 0.3, 0.1, 0.02), by_device=(True, True, True, False), report=0.05, least=0.01
)


def as_one_gaussian(reports):
    """Means and covariance of all cells ([N * C]) by the joint Gaussian, and the table with the same reports."""
    level = np.array([4.0, 5.0, 4.5, 5.5])
    size = USERS * COLUMNS
    covariance = np.zeros((size, size))
    for one in range(size):
        for other in range(size):
            (i, c), (j, d) = divmod(one, COLUMNS), divmod(other, COLUMNS)
            if c == d:
                covariance[one, other] += PRIOR.column**2
            if i == j and PRIOR.by_device[c] and PRIOR.by_device[d]:
                covariance[one, other] += PRIOR.row**2
            if one == other:
                covariance[one, other] += PRIOR.own[c] ** 2
    mean = np.tile(level, USERS)
    table = tables.empty(jnp.array(level), USERS)
    for columns, values, counts in reports:
        table = tables.add(table, PRIOR, jnp.array(columns), jnp.array(values), jnp.array(counts, jnp.float32))
        for device, (column, value, count) in enumerate(zip(columns, values, counts, strict=True)):
            if not count:
                continue
            cell = device * COLUMNS + column
            variance = PRIOR.report**2 / count + PRIOR.least**2
            gain = covariance[:, cell] / (covariance[cell, cell] + variance)
            mean = mean + gain * (value - mean[cell])
            covariance = covariance - np.outer(gain, covariance[cell])
    return mean.reshape(USERS, COLUMNS), covariance, table


REPORTS = [([0, 1, 3], [4.2, 5.5, 5.0], [5, 3, 4]), ([0, 3, 3], [4.25, 5.1, 0.0], [2, 1, 0])]


def test_tables_are_the_joint_gaussian():
    mean, covariance, table = as_one_gaussian(REPORTS)
    known = tables.belief(table, PRIOR)
    assert np.allclose(tables.means(table, PRIOR, known), mean, atol=2e-4)
    variance = np.diag(covariance).reshape(USERS, COLUMNS)
    assert np.allclose(tables.variances(table, PRIOR, known), variance, rtol=5e-3, atol=1e-5)


def test_samples_have_the_posteriors_moments():
    mean, covariance, table = as_one_gaussian(REPORTS)
    known = tables.belief(table, PRIOR)
    drawn = jax.vmap(lambda key: tables.sample(key, table, PRIOR, known))(jax.random.split(jax.random.key(0), 20_000))
    flat = np.asarray(drawn, np.float64).reshape(-1, USERS * COLUMNS)
    assert np.allclose(flat.mean(axis=0), mean.ravel(), atol=0.03)
    assert np.allclose(np.cov(flat.T), covariance, atol=0.05)


def test_what_fades_is_unsure_again():
    _, _, table = as_one_gaussian(REPORTS)
    later = tables.faded(table, 0.01)
    sure, unsure = (tables.variances(one, PRIOR, tables.belief(one, PRIOR)) for one in (table, later))
    reported = np.asarray(table.precision) > 0.0
    assert np.all(np.asarray(unsure)[reported] > 3.0 * np.asarray(sure)[reported])
    assert np.all(np.asarray(unsure) > np.asarray(sure) - 1e-4)


def _periods(intervals_ms, variation, periods, seed=0):
    """Reports of devices whose gaps are gamma distributed, in control periods of 5 s."""
    rng = np.random.default_rng(seed)
    known, last = demand.nothing(len(intervals_ms)), np.zeros(len(intervals_ms))
    clocks = rng.uniform(0, intervals_ms)
    for _ in range(periods):
        made, gaps, gap, square = (np.zeros(len(intervals_ms)) for _ in range(4))
        for device, interval in enumerate(intervals_ms):
            times = []
            while clocks[device] < 5000.0:
                times.append(clocks[device])
                step = interval if variation == 0 else rng.gamma(variation**-2) * interval * variation**2
                clocks[device] += step
            seen = np.diff([last[device], *times])
            made[device], gaps[device] = len(times), len(seen)
            gap[device], square[device] = (seen.mean(), (seen**2).mean()) if len(seen) else (0.0, 0.0)
            last[device] = (times[-1] if times else last[device]) - 5000.0
            clocks[device] -= 5000.0
        info = {"made": made, "gaps": gaps, "gap_ms": gap, "gap_square_ms2": square, "since_ms": -last}
        known = demand.update(known, 5000.0, jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), info))
    return known


@pytest.mark.parametrize("variation", [0.0, 1.0, 2.0])
def test_demand_is_learned(variation):
    intervals = np.array([500.0, 1000.0, 2000.0])
    known = _periods(intervals, variation, 80)
    assert np.allclose(np.asarray(demand.per_ms(known)) * intervals, 1.0, atol=0.04 + 0.35 * variation)
    assert np.allclose(demand.variation(known), variation, atol=0.05 + 0.3 * variation)
    assert int(known.changes) == 0


def test_a_doubled_load_is_noticed_at_once():
    info = {
        "gaps": jnp.full(5, 5.0),
        "gap_ms": jnp.full(5, 1000.0),
        "gap_square_ms2": jnp.full(5, 2e6),
        "since_ms": jnp.zeros(5),
    }
    known = demand.nothing(5)
    for made in [5.0] * 20 + [10.0] * 3:
        known = demand.update(known, 5000.0, {"made": jnp.full(5, made), **info})
    assert int(known.changes) >= 1
    assert np.allclose(np.asarray(demand.per_ms(known)) * 1000.0, 2.0, rtol=0.25)


def test_the_formula_is_theorys_where_that_is_known():
    for load in (0.3, 0.7, 0.9):
        one = jnp.float32(load), jnp.float32(1.0), 1.0
        random, regular = jnp.float32(2.0), jnp.float32(1.0)  # sums of both variations, halved inside
        assert float(queueing.wait_ms(*one, random, 0.0)) == pytest.approx(load / (1 - load), rel=1e-3)
        assert float(queueing.wait_ms(*one, regular, 0.0)) == pytest.approx(0.5 * load / (1 - load), rel=1e-3)


def fleet(kind, interval, constraint="Max", users=5, **more):
    arrivals = (Arrivals(kind=kind, interval_ms=interval),) * users
    paper = hl_jax.experiment("A", constraint=constraint)
    return dataclasses.replace(paper, traffic=Traffic(arrivals=arrivals, **more))


def test_rollouts_with_true_numbers_are_the_environment():
    """What planning expects of a decision, told the truth, is what the race finds."""
    scenario = fleet("poisson", 800.0)
    params, agent = environments.make_params(scenario), hl_jax.agent("factored", scenario)
    computing = environment.services_ms(params.fleet, params.fleet.start)
    way = jnp.asarray(racing.unloaded_ms(params, params.fleet.start), jnp.float32) - computing
    learned = Learned(
        computing_ms=computing,
        way_ms=way,
        per_ms=params.per_ms,
        variation=params.law.variation,
        since_ms=jnp.zeros(5),
    )
    actions = jnp.array([[0, 0, 0, 8, 9], [8, 8, 8, 9, 9], [9, 9, 9, 9, 9]])
    found = rollouts.rolled_out(jax.random.key(0), agent.asked, learned, actions, 0.03, 32, 160).mean(axis=1)
    still = standing.still(params, params.fleet.start)
    true = jax.jit(lambda action: racing.costs(still, action, jnp.int32(0), jnp.arange(128)).cost_ms.mean())
    for action, cost in zip(actions, found, strict=True):
        assert float(true(action)) == pytest.approx(float(cost), rel=0.04)


def test_it_soon_decides_as_the_oracle():
    scenario = fleet("poisson", 1000.0, "89")  # `launch.beyond --rows=standing` has the other cases
    params, agent = environments.make_params(scenario), hl_jax.agent("factored", scenario)
    world = compiled_world(environments.environment(params), params)

    def period(run, _):
        state, action = agent.suggest(run.agent)
        run, obs, info = real_step(world, run, action)
        return run.replace(agent=agent.observe(state, action, info, obs, info["elapsed_ms"])), action

    def learned(seed):
        run, _ = jax.lax.scan(period, training.init(agent, seed, params), length=25)
        return agent.decide(run.agent, run.agent.obs)

    decided = np.asarray(jax.jit(lambda seeds: jax.lax.map(learned, seeds))(jnp.arange(3, dtype=jnp.int32)))
    best, still = racing.optimum(params), standing.still(params, params.fleet.start)
    for decision in decided:
        assert racing.race(still, decision[None]).cost_ms <= 1.04 * best.cost_ms


def test_it_says_where_it_isnt_meant_for():
    scenario = hl_jax.experiment("A", users=2)
    moving = hl_jax.Dynamics((0.1, 0.1), (0.1, 0.1), (0.1, 0.1), (0.1, 0.1), (0.1, 0.1), 0.1, 4)
    traffic = Traffic(arrivals=(Arrivals(),) * 2)
    with pytest.raises(ValueError, match="dynamics: expected none for factored under traffic"):
        hl_jax.agent("factored", dataclasses.replace(scenario, dynamics=moving, traffic=traffic))


# -- Accuracy over requests -----------------------------------------------------------------------------------------


def unequal_rates(constraint=86.0, users=3, **more):
    arrivals = tuple(Arrivals(interval_ms=interval) for interval in (500.0, 1500.0, 4000.0)[:users])
    paper = hl_jax.experiment("A", users=users, constraint=constraint)
    return dataclasses.replace(paper, traffic=Traffic(arrivals=arrivals, **more))


@pytest.mark.parametrize("name", ["hybrid", "dqn", "q_learning"])
def test_what_may_be_tried_is_what_the_environment_calls_feasible(name):
    scenario = unequal_rates()
    params = environments.make_params(scenario)
    actions = np.array(list(itertools.product(range(scenario.choices), repeat=3)), np.int32)
    expected = np.array(
        jax.vmap(lambda action: environment.mean_accuracy(params, action))(actions) >= scenario.constraint - 1e-3
    )
    agent = hl_jax.agent(name, scenario)
    if name == "q_learning":
        found = np.isin(np.arange(len(actions)), agent.allowed)
    else:
        found = np.asarray(agent.learner._accuracies()) >= scenario.constraint - 1e-3
    assert 100 < expected.sum() < len(actions) - 100
    np.testing.assert_array_equal(found, expected)
    equal = dataclasses.replace(scenario, traffic=Traffic(arrivals=(Arrivals(),) * 3))
    assert "weights" in misfit(agent, equal)
    assert misfit(agent, scenario) == ""


def test_factored_keeps_the_constraint_over_requests():
    scenario = unequal_rates(period_ms=3000.0)
    params = environments.make_params(scenario)
    agent = hl_jax.agent("factored", scenario)
    world = compiled_world(environments.environment(params), params)

    @jax.jit
    def step(run):
        state, action = agent.suggest(run.agent)
        run, obs, info = real_step(world, run, action)
        return run.replace(agent=agent.observe(state, action, info, obs, info["elapsed_ms"])), (
            action,
            info["feasible"],
        )

    run, accuracies = training.init(agent, jnp.int32(0), params), []
    for _ in range(25):
        run, (action, feasible) = step(run)
        assert bool(feasible)
        accuracies.append(float(np.mean(np.array(scenario.choice_accuracy())[np.asarray(action)])))
    # Accurate where the requests are: over devices the mean is below what is asked over requests.
    assert min(accuracies) < scenario.constraint
