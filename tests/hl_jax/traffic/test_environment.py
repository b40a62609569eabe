"""The environment under traffic: what a period tells, what it carries over, and what is like the paper's."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hl_jax
from hl_jax import environments, evaluation, training
from hl_jax.arrivals import Arrivals, Traffic
from hl_jax.optimum import racing
from hl_jax.simulator import EnvParams
from hl_jax.traffic import reports, standing
from hl_jax.traffic.environment import TrafficOrchestration
from hl_jax.traffic.params import make_params

ENV = TrafficOrchestration()


def fleet(users=3, interval=600.0, kind="poisson", constraint="Max", **more):
    paper = hl_jax.experiment("A", users=users, constraint=constraint)
    arrivals = (Arrivals(kind=kind, interval_ms=interval),) * users
    return dataclasses.replace(paper, traffic=Traffic(arrivals=arrivals, **more))


@jax.jit
def _steps(params, action, key):
    reset_key, run_key = jax.random.split(key)
    _, state = ENV.reset(reset_key, params)

    def step(carry, _):
        key, step_key = jax.random.split(carry[0])
        obs, state, reward, _, _, info = ENV.step(step_key, carry[1], action, params)
        return (key, state), (obs, reward, info, state)

    return jax.lax.scan(step, (run_key, state), length=60)[1]


def test_every_request_is_over_once_or_still_under_way():
    params = make_params(fleet())
    _, _, info, states = _steps(params, jnp.array([0, 8, 9]), jax.random.key(0))
    under_way = int(np.sum(np.asarray(states.under_way.stage)[-1] > 0))
    assert int(info["requests"].sum()) == int(info["count"].sum()) + under_way
    assert int(info["untold"].sum()) == 0
    assert np.array_equal(np.asarray(info["periods"]), np.ones(60))


def test_silent_control_periods_lose_no_request():
    params = make_params(fleet(users=2, interval=2000.0, period_ms=200.0))
    _, _, info, _ = _steps(params, jnp.array([7, 8]), jax.random.key(2))
    info = jax.tree.map(np.asarray, info)
    assert info["periods"].max() > 1
    assert info["made"].sum() == info["requests"].sum()
    total = np.sum(info["gaps"] * info["gap_ms"], axis=0)
    # Gaps follow one another: from a device's first request to its last one.
    assert np.all(total <= info["elapsed_ms"].sum())
    assert np.all(total >= info["elapsed_ms"].sum() - 3.0 * 2000.0 * 3.0)


def test_devices_that_cannot_offload_burden_no_node():
    scenario = fleet(users=2).with_knobs("models")
    params = make_params(scenario)
    _, _, _, states = _steps(params, jnp.array([6, 7]), jax.random.key(3))
    assert np.all(np.asarray(states.monitors.node_load) == 0.0)
    assert np.all(np.asarray(states.monitors.device_load[-1]) > 0.0)
    with pytest.raises(ValueError, match="knobs: expected both or offloading for this agent, found models"):
        hl_jax.agent("factored", scenario)


def test_rollouts_always_hold_requests():
    params = make_params(fleet(users=1, interval=100_000.0))
    still = standing.still(params, params.fleet.start)
    worth = jax.jit(racing.costs)(still, jnp.array([8]), jnp.int32(0), jnp.arange(16))
    assert int(worth.requests.min()) > 0
    busy = make_params(fleet(users=1, interval=2000.0))
    often = jax.jit(racing.costs)(standing.still(busy, busy.fleet.start), jnp.array([8]), jnp.int32(0), jnp.arange(16))
    assert float(jnp.mean(worth.cost_ms)) == pytest.approx(float(jnp.mean(often.cost_ms)), rel=0.05)


def test_unequal_rates_above_five_devices_have_an_optimum():
    arrivals = tuple(Arrivals(interval_ms=300.0 if index == 1 else 3000.0) for index in range(6))
    paper = hl_jax.experiment("A", users=5, constraint=88)
    devices = tuple(dataclasses.replace(paper.devices[0], name=f"D{index}") for index in range(6))
    params = make_params(dataclasses.replace(paper, devices=devices, traffic=Traffic(arrivals=arrivals)))
    found = racing.optimum(params)
    assert found.accuracy >= 88.0 - 1e-3
    assert not found.complete


def test_where_nothing_is_missed_the_race_ends_and_regret_is_a_number():
    scenario = fleet(users=2, interval=5000.0, constraint=0.0, deadline_ms=5000.0, objective="misses")
    params = make_params(scenario)
    found = racing.optimum(params)
    assert found.cost_ms == 0.0
    assert found.rollouts < racing.MOST_ROLLOUTS
    starts = evaluation.judged_states(params)
    truth = evaluation.optima(params, starts)
    seen = evaluation.evaluate(lambda _: jnp.array([7, 7], jnp.int32), params, starts)
    assert np.isfinite(evaluation.judged(seen, truth).regret_percent)


def test_what_a_step_tells_fits_together():
    params = make_params(fleet(deadline_ms=500.0))
    _, reward, info, _ = _steps(params, jnp.array([0, 8, 9]), jax.random.key(1))
    info = jax.tree.map(np.asarray, info)
    mean = np.sum(info["response_ms"] * info["count"], axis=1) / info["count"].sum(axis=1)
    assert np.allclose(info["art_ms"], mean, rtol=1e-5)
    assert np.array_equal(info["cost_ms"], -np.asarray(reward))
    assert np.all(info["p50_ms"] <= info["p95_ms"])
    assert np.all(info["p95_ms"] <= info["p99_ms"])
    assert np.all(info["missed"] <= info["count"])
    assert info["missed"].sum() > 0
    # Alone, a local task takes its computing and nothing else.
    assert np.allclose(info["way_ms"][:, 0], 0.0, atol=1e-3)
    assert np.allclose(info["computing_ms"][:, 1], 200.0, rtol=0.1)


def test_a_seed_is_itself_and_two_differ():
    params = make_params(fleet())
    action = jnp.array([0, 8, 9])
    first, again, other = (_steps(params, action, jax.random.key(seed))[2] for seed in (0, 0, 1))
    assert np.array_equal(first["art_ms"], again["art_ms"])
    assert not np.array_equal(first["art_ms"], other["art_ms"])


def test_a_step_lasts_until_a_request_is_over():
    params = make_params(fleet(users=1, interval=40_000.0))
    _, _, info, _ = _steps(params, jnp.array([0]), jax.random.key(0))
    assert np.all(np.asarray(info["count"]).sum(axis=1) >= 1)
    assert float(np.mean(np.asarray(info["periods"]))) > 4.0
    assert np.allclose(info["elapsed_ms"], np.asarray(info["periods"]) * 5000.0)


def test_what_waits_in_vain_is_refused_or_given_up():
    busy = fleet(users=3, interval=100.0, waiting=2)
    _, _, info, _ = _steps(make_params(busy), jnp.array([0, 0, 0]), jax.random.key(0))
    assert np.asarray(info["missed"]).sum() > 0.5 * np.asarray(info["count"]).sum()
    patient = fleet(users=3, interval=100.0, waiting=2, deadline_ms=300.0, late="dropped")
    _, _, given_up, _ = _steps(make_params(patient), jnp.array([0, 0, 0]), jax.random.key(0))
    done = np.asarray(given_up["response_ms"])
    assert np.all(done <= 1000.0)


def test_without_traffic_it_is_the_papers():
    scenario = hl_jax.experiment("B", users=3)
    assert isinstance(environments.make_params(scenario), EnvParams)
    assert "traffic" not in scenario.as_data()


def test_a_queue_without_end_stops_the_run():
    scenario = fleet(users=1, interval=100.0, waiting=0, constraint="Min")
    agent = hl_jax.agent("q_learning", scenario, epochs=1, epoch_steps=60, start_value_ms=0.0)
    params = training.params_for(agent, scenario)
    params = dataclasses.replace(params, fleet=params.fleet.replace(local_ms=params.fleet.local_ms * 100.0))
    init, epoch = training.programs(agent)
    run = init(jnp.array([0], jnp.int32), params)
    _, report = epoch(run, agent.plan(1), params, evaluation.judged_states(params))
    assert bool(np.asarray(report.wrong).any())


@pytest.mark.parametrize("kind", ["periodic", "gamma"])
def test_requests_come_as_often_as_they_should(kind):
    arrivals = Arrivals(
        kind=kind, interval_ms=300.0, **({"burstiness": 2.0} if kind == "gamma" else {"jitter_ms": 90.0})
    )
    paper = hl_jax.experiment("A", users=2)
    params = make_params(dataclasses.replace(paper, traffic=Traffic(arrivals=(arrivals,) * 2)))
    _, _, info, _ = _steps(params, jnp.array([7, 7]), jax.random.key(3))
    made, gaps = np.asarray(info["made"]), np.asarray(info["gaps"])
    assert made.sum() == pytest.approx(2 * 60 * 5000 / 300.0, rel=0.02 if kind == "periodic" else 0.2)
    mean = np.sum(gaps * np.asarray(info["gap_ms"])) / gaps.sum()
    square = np.sum(gaps * np.asarray(info["gap_square_ms2"])) / gaps.sum()
    variation = np.sqrt(square / mean**2 - 1.0)
    assert variation == pytest.approx(2.0 if kind == "gamma" else 0.3 * np.sqrt(2.0 / 12.0), rel=0.15)


def test_quantiles_are_the_least_time_that_enough_stay_within():
    times, over = jnp.arange(1.0, 101.0)[::-1], jnp.arange(100) < 90
    found = reports.quantiles(times, over)
    assert np.asarray(found).tolist() == [55.0, 96.0, 100.0]
    assert np.asarray(reports.quantiles(times, over & False)).tolist() == [0.0, 0.0, 0.0]


def test_the_race_finds_the_issue_of_lock_step():
    """Where each device asks once a second the lock-step optimum of experiment A at Max is far from the best."""
    scenario = fleet(users=5, interval=1000.0)
    params = make_params(scenario)
    best = racing.optimum(params)
    together = hl_jax.oracle(dataclasses.replace(scenario, traffic=None))
    still = standing.still(params, params.fleet.start)
    lockstep = racing.race(still, np.array([together.decision], np.int32))
    assert best.complete
    assert best.candidates == 21
    assert best.decision not in best.rivals
    assert lockstep.cost_ms > 1.3 * best.cost_ms
    assert best.behind_ms < 0.01 * best.cost_ms


def test_the_race_is_brute_force_where_nothing_waits():
    """Requests so rare that none waits: the best standing decision is each device's best choice."""
    scenario = fleet(users=2, interval=60_000.0, constraint="Min")
    params = make_params(dataclasses.replace(scenario, noise=0.0))
    alone = racing.unloaded_ms(params, params.fleet.start)
    assert racing.optimum(params).decision == tuple(alone.argmin(axis=1).tolist())
