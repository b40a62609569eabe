"""`factored`: constraints as an input, a model that recovers planted times, drift, seeds, and both kinds of world."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hl_jax import evaluation, simulator, training
from hl_jax.agents.factored import agent as factored
from hl_jax.agents.world import Run, World, compiled_world
from hl_jax.objective import constraint_value, sufficient_penalty
from hl_jax.optimum import oracle
from hl_jax.scenario import Device, Node, Scenario
from launch.evaluate import asked_constraints
from launch.host.errors import InputError
from launch.inputs.settings import Settings
from launch.runs import unit
from launch.runs.folder import RunFolder
from tests.helpers.builders import POOL, TIMING, small_scenario
from tests.helpers.trees import assert_identical

USERS, STEPS = 3, 24
SCENARIO = small_scenario(USERS, constraint=80.0, noise=0.03)
PARAMS = simulator.make_params(SCENARIO, sufficient_penalty(SCENARIO))
ACCURACY = np.array(SCENARIO.choice_accuracy())
CONFIG = factored.FactoredConfig(recent=32 * USERS)
AGENT = factored.sized(CONFIG, USERS, SCENARIO.choice_accuracy(), SCENARIO.constraint)
PROGRAMS = training.programs(AGENT)
suggest, decide, fit_model = jax.jit(AGENT.suggest), jax.jit(AGENT.decide), jax.jit(AGENT.fit_model)
observe = jax.jit(AGENT.observe)


def started(seed: int) -> Run:
    """A run before its first step, without the axis of seeds."""
    return jax.tree.map(lambda leaf: leaf[0], PROGRAMS[0](jnp.array([seed], jnp.int32), PARAMS))


@functools.cache
def trained(seed: int, slow_from: int = STEPS) -> list[tuple[Any, Any]]:
    """The agent's state and the evaluation after each of `STEPS` real steps; from `slow_from` on the edge is slower."""
    init, epoch = PROGRAMS
    starts = evaluation.start_states(jax.random.key(0), PARAMS, 1)
    run, found = init(jnp.array([seed], jnp.int32), PARAMS), []
    for step in range(STEPS):
        slow = 2.0 if step >= slow_from else 1.0
        scale = jnp.array([slow, 1.0])
        params = PARAMS.replace(node_ms=PARAMS.node_ms * scale, share_ms=PARAMS.share_ms * scale)
        run, report = epoch(run, (), params, starts)
        # The program overwrites the run that it is given.
        found.append(jax.tree.map(lambda leaf: jnp.copy(leaf[0]), (run.agent, report.evaluation)))
    return found


def test_no_decision_breaks_its_constraint_whatever_is_observed_or_known():
    random = np.random.default_rng(0)
    for state in (started(0).agent, trained(0)[2][0], trained(0)[-1][0]):
        for _ in range(30):
            obs = jnp.asarray(random.integers(0, simulator.observation_levels(USERS)), jnp.int32)
            constraint = random.uniform(ACCURACY.min(), ACCURACY.max())
            action = decide(state, obs, jnp.float32(constraint))
            assert ACCURACY[action].mean() >= constraint - 1e-3


def test_no_step_breaks_the_constraint_while_learning():
    state = started(1).agent
    for step in range(6):
        state, action = suggest(state)
        assert ACCURACY[action].mean() >= 80.0 - 1e-3
        response = jnp.full(USERS, 100.0 + 10.0 * step)
        state = fit_model(observe(state, action, response, state.obs))


def test_reaches_the_optimum_and_stays_there():
    optimum = oracle.brute_force(PARAMS).art_ms
    for _, seen in trained(0)[10:]:
        assert bool(seen.feasible.all())
        assert float(seen.art_ms.max()) <= optimum * (1.0 + evaluation.TOLERANCE)


@pytest.mark.parametrize("constraint", ["Min", "73.4", "78", "83.3", "86.6", "Max"])
def test_another_constraint_is_followed_at_once(constraint):
    state = trained(0)[-1][0]
    value = constraint_value(constraint, SCENARIO.pool)
    asked = PARAMS.replace(constraint=jnp.float32(value))
    action = decide(AGENT.under(state, value), state.obs)
    art = float(simulator.response_ms(asked, asked.start, action).mean())
    assert simulator.meets_constraint(asked, action)
    assert art <= oracle.brute_force(asked).art_ms * (1.0 + evaluation.TOLERANCE)
    np.testing.assert_array_equal(action, decide(state, state.obs, jnp.float32(value)))


def test_a_slower_edge_is_noticed_and_learned_and_nothing_is_noticed_before():
    strict = PARAMS.replace(constraint=jnp.float32(90.0))
    changed = 10
    # At Max the optimum uses the edge, so that it is seen.
    init, epoch = PROGRAMS
    starts = evaluation.start_states(jax.random.key(0), strict, 1)
    run = init(jnp.array([2], jnp.int32), strict)
    run = run.replace(agent=AGENT.under(run.agent, 90.0))
    scale = jnp.array([2.0, 1.0])
    slower = strict.replace(node_ms=strict.node_ms * scale, share_ms=strict.share_ms * scale)
    seen = []
    for step in range(STEPS):
        run, report = epoch(run, (), strict if step < changed else slower, starts)
        seen.append((int(run.agent.changes[0]), float(report.evaluation.art_ms.max())))
    assert seen[changed - 1][0] == 0
    assert seen[-1][0] >= 1
    before, after = oracle.brute_force(strict), oracle.brute_force(slower)
    assert before.decision not in set(map(tuple, after.optimal.tolist()))
    assert seen[changed - 1][1] == pytest.approx(before.art_ms, rel=evaluation.TOLERANCE)
    assert seen[-1][1] == pytest.approx(after.art_ms, rel=evaluation.TOLERANCE)


def test_the_first_step_is_drawn_from_the_prior_not_fixed():
    first = {tuple(suggest(started(seed).agent)[1].tolist()) for seed in range(12)}
    assert len(first) >= 4


def test_a_seed_repeats_to_the_bit_and_two_seeds_differ():
    again = trained.__wrapped__(0)[-1]
    assert_identical(again, trained(0)[-1])
    assert not np.array_equal(trained(1)[-1][0].posterior.mean, again[0].posterior.mean)


@pytest.mark.parametrize("form", ["linear", "steps", "quadratic"])
def test_the_model_recovers_planted_times(form):
    scenario = small_scenario(USERS, edge=Node("regular", 1, form), cloud=Node("regular", 2, form))
    params = simulator.make_params(scenario)
    random = np.random.default_rng(3)
    state = started(0).agent
    true = jax.jit(functools.partial(simulator.response_ms, params, params.start))
    tried = random.integers(0, scenario.choices, (32, USERS))
    # By chance all of them hardly ever meet on one node.
    tried[:2] = [[scenario.choices - 2] * USERS, [scenario.choices - 1] * USERS]
    for action in jnp.asarray(tried, jnp.int32):
        state = observe(state, action, true(action), state.obs)
    for _ in range(3):  # each fit starts from the last one's noise
        state = fit_model(state)
    mean = factored.posteriors.likeliest(state.posterior).mean
    weights = jnp.broadcast_to(mean, (USERS, mean.shape[0]))
    costs = AGENT.costs(state, weights, state.situation, state.constraint)
    np.testing.assert_allclose(costs.local, params.local_ms, rtol=0.02)
    for tasks in range(1, USERS + 1):
        for node, table in enumerate((costs.edge, costs.cloud)):
            there = jnp.where(jnp.arange(USERS) < tasks, scenario.choices - 2 + node, 0)
            np.testing.assert_allclose(table[:tasks, tasks], true(there)[:tasks], rtol=0.02)


def test_the_same_agent_runs_in_a_world_stepped_from_the_host():
    class Compiled:
        """The agent's phases compiled one by one; its epoch stays a Python loop."""

        def __getattr__(self, name: str) -> Any:
            compiled = {"suggest": suggest, "observe": observe, "fit_model": fit_model}
            return compiled.get(name) or getattr(AGENT, name)

    inside = compiled_world(simulator.Orchestration(), PARAMS)

    def repeat(count: int, body: Any, carry: Any) -> Any:
        for _ in range(int(count)):
            carry = body(carry)
        return carry

    world = World(repeat=repeat, step=jax.jit(inside.step))
    run = started(0)
    for _ in range(3):
        run, learning = factored.Factored.epoch(Compiled(), world, run, ())  # type: ignore[arg-type]
    there = trained(0)[2][0]
    # Programs compiled apart may round differently.
    np.testing.assert_allclose(run.agent.posterior.mean, there.posterior.mean, rtol=1e-3, atol=1e-3)
    assert int(run.agent.real_steps) == 3
    assert set(learning) == {"model_noise", "changes"}


def test_a_training_leaves_a_whole_run_folder(tmp_path):
    config = factored.FactoredConfig(epochs=4, recent=8)
    chosen = Settings(small_scenario(2, constraint=80.0), "80", "factored", config, (0, 1), 1)
    summary = unit.run(chosen, RunFolder(tmp_path / "run"), threads=1)
    assert [seed.real_steps for seed in summary.seeds] == [4, 4]
    assert all(seed.accuracy >= 80.0 for seed in summary.seeds)
    assert (tmp_path / "run" / "decisions.md").exists()


def _scaled(factor: float) -> Scenario:
    """All times of the small scenario so many times as long."""
    names = [field.name for field in dataclasses.fields(TIMING) if field.name.endswith("_ms")]
    times = {name: getattr(TIMING, name) for name in names}
    longer = {n: tuple(factor * one for one in t) if isinstance(t, tuple) else factor * t for n, t in times.items()}
    # Monitors look as often as tasks take, or all that they ever show is that a node is full.
    period = max(1000.0 * factor, 1.0)
    return small_scenario(USERS, noise=0.03, timing=dataclasses.replace(TIMING, **longer), monitor_period_ms=period)


def _speeds(*speeds: float) -> Scenario:
    devices = tuple(Device(f"S{index + 1}", speed=speed) for index, speed in enumerate(speeds))
    return small_scenario(USERS, noise=0.03, devices=devices)


EQUAL = dataclasses.replace(
    TIMING, local_ms=(200.0,) * 3, edge_ms=200.0, cloud_ms=200.0, edge_share_ms=1e-3, cloud_share_ms=1e-3
)
ONE_MODEL = dataclasses.replace(POOL, names=("d0",), accuracy=(90.0,), million_macs=(500.0,))
EXTREMES = {
    "no noise": small_scenario(USERS, noise=0.0),
    "noise of 50 %": small_scenario(USERS, noise=0.5),
    "times all equal": small_scenario(USERS, noise=0.03, timing=EQUAL),
    "one device": small_scenario(1, noise=0.03),
    "two devices": small_scenario(2, noise=0.03),
    "one model": small_scenario(
        USERS, noise=0.03, pool=ONE_MODEL, timing=dataclasses.replace(TIMING, local_ms=(400.0,))
    ),
    "speeds of 0.01 and 100": _speeds(0.01, 100.0, 1.0),
    "speed 100": _speeds(100.0, 100.0, 100.0),
    "speed 0.01": _speeds(0.01, 0.01, 0.01),
    "times of 1e-3 ms": _scaled(1e-5),
    "times of 1e7 ms": _scaled(1e5),
}


@functools.cache
def _programs(users: int, accuracy: tuple[float, ...]) -> Any:
    """What runs any scenario of a size: 60 steps of three seeds, each step's decision and whether all was well."""
    agent = factored.sized(factored.FactoredConfig(recent=24), users, accuracy, 80.0)

    @jax.jit
    def run(params: simulator.EnvParams) -> Any:
        starts = evaluation.start_states(jax.random.key(0), params, 1)

        def step(run: Run, _: None) -> Any:
            run, report = training.epoch(agent, run, (), params, starts)
            return run, (report.evaluation.cost_ms[0].max(), report.wrong.any())

        def course(seed: Any) -> Any:
            start = training.init(agent, seed, params)
            start = start.replace(agent=agent.under(start.agent, params.constraint))
            return jax.lax.scan(step, start, None, length=60)[1]

        return jax.lax.map(course, jnp.arange(3))

    return run


@pytest.mark.parametrize("name", EXTREMES)
@pytest.mark.parametrize("constraint", [70.0, 80.0, 90.0])
def test_extremes_stay_finite_and_end_at_the_optimum(name, constraint):
    scenario = dataclasses.replace(EXTREMES[name], constraint=min(constraint, max(EXTREMES[name].pool.accuracy)))
    params = simulator.make_params(scenario, sufficient_penalty(scenario))
    costs, wrong = _programs(scenario.users, scenario.choice_accuracy())(params)
    assert not np.asarray(wrong).any()
    assert np.isfinite(costs).all()
    regret = np.asarray(costs)[:, -1] / oracle.brute_force(params).art_ms - 1.0
    # With so much noise 60 steps tell means apart to some percent only.
    assert (regret <= (0.05 if scenario.noise == 0.5 else evaluation.TOLERANCE)).all(), regret


def test_ranges_of_constraints():
    assert asked_constraints("Min,85,88:88.3:0.1") == ["Min", "85", "88", "88.1", "88.2", "88.3"]
    assert len(asked_constraints("72.8:89.9:0.1")) == 172
    for wrong in ("80:70:1", "80:90:0", "80:90", "a:b:c", "0:90:0.00001"):
        with pytest.raises(InputError, match="--constraint: expected a range LOW:HIGH:STEP of at most 1000 values"):
            asked_constraints(wrong)


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="--users: expected at least 1, found 0"):
        factored.sized(CONFIG, 0, (90.0, 90.0, 90.0), 80.0)
    with pytest.raises(ValueError, match="choices: expected at least a local model, edge and cloud, found 2"):
        factored.sized(CONFIG, 2, (90.0, 90.0), 80.0)
