"""Evaluations: what counts as reached, decisions followed by hand, and that looking changes nothing."""

from __future__ import annotations

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hl_jax import evaluation, simulator, training
from hl_jax.agents.world import Run, Totals, World, compiled_world, real_step
from hl_jax.objective import straight_penalty
from hl_jax.simulator import Orchestration
from tests.helpers.builders import D0, D1, D2, DYNAMICS, EDGE, small_scenario
from tests.helpers.trees import again, assert_identical


@pytest.mark.parametrize(
    ("good", "expected"),
    [
        ("", None),
        ("+", 10),
        ("-", None),
        ("---", None),
        ("+++", 10),
        ("--+", 30),
        ("-++", 20),
        ("++-", None),  # lost again
        ("+-+", 30),  # an early success that didn't last
        ("-+-++", 40),
    ],
)
def test_first_lasting(good, expected):
    steps = [10 * (index + 1) for index in range(len(good))]
    assert evaluation.first_lasting(steps, [sign == "+" for sign in good]) == expected


@given(st.lists(st.booleans(), max_size=12))
def test_first_lasting_is_the_earliest_from_which_all_are_good(good):
    steps = [7 * index for index in range(len(good))]
    lasting = [step for index, step in enumerate(steps) if all(good[index:])]
    assert evaluation.first_lasting(steps, good) == min(lasting, default=None)


def test_first_lasting_needs_as_many_results_as_steps():
    with pytest.raises(ValueError, match="zip"):
        evaluation.first_lasting([1, 2], [True])


def test_a_fixed_decision_by_hand():
    """Two devices under 86 %: d0 takes 400 ms, d1 200 ms; together 85 %, one point short; noise isn't drawn."""
    scenario = small_scenario(2, constraint=86.0, noise=0.3)
    params = simulator.make_params(scenario, straight_penalty(7.0, 11.0))
    starts = evaluation.start_states(jax.random.key(0), params, 1)
    seen = evaluation.evaluate(lambda obs: jnp.array([D0, D1], jnp.int32), params, starts)
    shape = (1, evaluation.HORIZON)
    np.testing.assert_array_equal(seen.decisions, np.broadcast_to([D0, D1], (*shape, 2)))
    np.testing.assert_allclose(seen.art_ms, np.full(shape, 300.0), rtol=1e-6)
    np.testing.assert_allclose(seen.cost_ms, np.full(shape, 318.0), rtol=1e-6)
    np.testing.assert_allclose(seen.accuracy, np.full(shape, 85.0), rtol=1e-6)
    np.testing.assert_array_equal(seen.feasible, np.zeros(shape, bool))
    seen = evaluation.evaluate(lambda obs: jnp.array([D0, EDGE], jnp.int32), params, starts)
    np.testing.assert_allclose(seen.cost_ms, np.full(shape, 350.0), rtol=1e-6)
    assert seen.feasible.all()


def test_each_decision_sees_what_the_last_one_left():
    """Everybody goes to the edge when it is idle, and stays away when it isn't."""
    params = simulator.make_params(small_scenario(2))
    edge_level = 3 * 2  # after P, M and B of two devices

    def decide(obs: chex.Array) -> chex.Array:
        return jnp.where(obs[edge_level] > 0, D2, EDGE) * jnp.ones(2, jnp.int32)

    starts = evaluation.start_states(jax.random.key(0), params, 1)
    seen = evaluation.evaluate(decide, params, starts)
    np.testing.assert_array_equal(seen.decisions[0], [[EDGE, EDGE], [D2, D2], [EDGE, EDGE]])
    np.testing.assert_allclose(seen.art_ms[0], [500.0, 100.0, 500.0], rtol=1e-6)  # 300 + 200 for the second task


def test_standing_still_changes_no_condition_but_leaves_the_load():
    """Under chains that move with certainty, and the same loads as a real step leaves."""
    restless = dataclasses.replace(
        DYNAMICS, device_busy=(1.0, 1.0), device_memory=(1.0, 1.0), device_link=(1.0, 1.0), cpu_level_move=0.5
    )
    params = simulator.make_params(small_scenario(2, dynamics=restless))
    _, state = Orchestration().reset(jax.random.key(3), params)
    action = jnp.array([D0, EDGE], jnp.int32)
    still = simulator.standing_still(params, state, action)
    assert_identical(still.conditions, state.conditions)
    _, moved, *_ = Orchestration().step(jax.random.key(4), state, action, params)
    assert not np.array_equal(moved.conditions.device_cpu, state.conditions.device_cpu)
    assert_identical(still.replace(conditions=moved.conditions), moved)


def test_an_evaluation_draws_nothing():
    """Noise and moving conditions are in the scenario; evaluations repeat, and the conditions stay each start's own."""
    params = simulator.make_params(small_scenario(2, noise=0.5, dynamics=DYNAMICS))
    starts = evaluation.start_states(jax.random.key(1), params, 16)
    assert len(np.unique(np.asarray(starts.conditions.device_cpu), axis=0)) > 1
    look = jax.jit(lambda: evaluation.evaluate(lambda obs: jnp.array([D1, D2], jnp.int32), params, starts))
    first = look()
    assert_identical(first, look())
    np.testing.assert_array_equal(first.art_ms, np.repeat(first.art_ms[:, :1], evaluation.HORIZON, axis=1))
    assert len(np.unique(np.asarray(first.art_ms))) > 1


@chex.dataclass(frozen=True)
class WalkerState:
    key: chex.PRNGKey
    obs: chex.Array
    real_steps: chex.Array
    model_steps: chex.Array


@dataclasses.dataclass(frozen=True)
class Walker:
    """The simplest agent: it goes on with random joint actions, and decides for the edge."""

    epochs: int = 3

    def init(self, key: chex.PRNGKey, obs: chex.Array) -> WalkerState:
        return WalkerState(key=key, obs=obs, real_steps=jnp.int32(0), model_steps=jnp.int32(0))

    def plan(self, epoch: int) -> chex.Array:
        return jnp.int32(5 + epoch)

    def epoch(self, world: World, run: Run, plan: chex.Array) -> tuple[Run, dict[str, chex.Array]]:
        def step(run: Run) -> Run:
            key, action_key = jax.random.split(run.agent.key)
            run, obs, _ = real_step(world, run, jax.random.randint(action_key, (2,), 0, 5))
            return run.replace(agent=run.agent.replace(key=key, obs=obs, real_steps=run.agent.real_steps + 1))

        return world.repeat(plan, step, run.replace(totals=Totals.zero())), {}

    def decide(self, state: Any, obs: chex.Array) -> chex.Array:
        return jnp.full(2, EDGE, jnp.int32)


def test_an_evaluation_does_not_move_the_training_environment():
    agent, params = Walker(), simulator.make_params(small_scenario(2, noise=0.1, dynamics=DYNAMICS))
    starts = evaluation.start_states(jax.random.key(1), params, 4)
    watched = training.init(agent, jnp.int32(3), params)
    unwatched = again(watched)
    with_looking = jax.jit(lambda run, plan: training.epoch(agent, run, plan, params, starts))
    without = jax.jit(lambda run, plan: agent.epoch(compiled_world(Orchestration(), params), run, plan)[0])
    for epoch in (1, 2, 3):
        watched, report = with_looking(watched, agent.plan(epoch))
        unwatched = without(unwatched, agent.plan(epoch))
    assert_identical(watched, unwatched)
    assert report.real_steps == watched.env.time == 6 + 7 + 8
    assert report.totals.steps == 8  # of the last epoch
    assert report.evaluation.decisions.shape == (4, evaluation.HORIZON, 2)


def test_totals_are_means_of_what_real_steps_return():
    """The elapsed time is the slowest device's."""
    params = simulator.make_params(small_scenario(2, constraint=90.0), straight_penalty(10.0, 0.0))
    run = training.init(Walker(), jnp.int32(0), params)
    world = compiled_world(Orchestration(), params)
    run, _, _ = real_step(world, run, jnp.array([D0, D2], jnp.int32))
    run, _, _ = real_step(world, run, jnp.array([D0, EDGE], jnp.int32))
    totals = {field.name: float(getattr(run.totals, field.name)) for field in dataclasses.fields(Totals)}
    expected = {"steps": 2, "invalid": 0, "requests": 4, "untold": 0, "cost_ms": 305, "art_ms": 300}
    expected |= {"infeasible": 0.5, "elapsed_ms": 400}
    assert totals == pytest.approx(expected)
    assert run.env.time == 2
