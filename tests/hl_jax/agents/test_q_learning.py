"""Tabular Q-learning: its block minima, its rows, Q-learning's own update, and that it finds an optimum."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hl_jax import evaluation, simulator, training
from hl_jax.agents.q_learning import agent as q_learning
from hl_jax.objective import sufficient_penalty
from hl_jax.optimum import oracle
from tests.helpers.builders import small_scenario

SCENARIO = small_scenario(2, constraint=80.0, noise=0.03)
PARAMS = simulator.make_params(SCENARIO, sufficient_penalty(SCENARIO))
LEVELS = tuple(int(level) for level in simulator.observation_levels(2))
CONFIG = q_learning.QLearningConfig(epochs=6, epoch_steps=200, states=8, q_penalty="learned")


@functools.cache
def trained(seed: int, config: q_learning.QLearningConfig = CONFIG):
    """A run's last state and evaluation."""
    agent = q_learning.sized(config, 2, SCENARIO.choices)
    starts = evaluation.start_states(jax.random.key(0), PARAMS, 1)
    init, epoch = training.programs(agent)
    run = init(jnp.array([seed], jnp.int32), PARAMS)
    for number in range(1, config.epochs + 1):
        run, report = epoch(run, agent.plan(number), PARAMS, starts)
    return jax.tree.map(lambda leaf: leaf[0], (run.agent, report))


def test_finds_the_optimum():
    optimum = oracle.brute_force(PARAMS)
    _, report = trained(0)
    assert bool(report.evaluation.feasible.all())
    np.testing.assert_allclose(report.evaluation.art_ms, optimum.art_ms, rtol=1e-5)


def test_block_minima_are_the_table_s():
    state, _ = trained(0)
    # The compiler may round the two differently, by one unit in the last place.
    np.testing.assert_allclose(state.least, state.table.min(axis=2), rtol=3e-7)
    # 25 joint actions fill five blocks of five.
    assert state.table.shape == (8, 5, 5)
    assert int(state.real_steps) == CONFIG.epochs * CONFIG.epoch_steps
    assert int(state.model_steps) == 0


def test_padding_is_never_chosen():
    agent = q_learning.sized(CONFIG, 1, 5)
    state = agent.init(jax.random.key(0), jnp.zeros(9, jnp.int32))
    assert state.table.shape == (8, 2, 3)  # five actions in blocks of three
    assert np.isinf(np.asarray(state.table[:, 1, 2])).all()
    state = state.replace(table=jnp.where(jnp.isinf(state.table), jnp.inf, 7.0), least=jnp.full((8, 2), 7.0))
    assert int(agent.decide(state, jnp.zeros(9, jnp.int32))[0]) == 0


def test_one_update_by_hand():
    config = dataclasses.replace(CONFIG, step_size=0.5, gamma=0.4, cost_scale_ms=100.0, states=4)
    agent = q_learning.sized(config, 1, 5)
    here, there = jnp.zeros(9, jnp.int32), jnp.ones(9, jnp.int32)
    state = agent.init(jax.random.key(0), here)
    state = agent.learn(state, jnp.int32(4), jnp.float32(300.0), there)  # 0 + 0.5 * (3 + 0.4 * 0 - 0)
    assert float(state.table[0, 1, 1]) == pytest.approx(1.5)
    assert int(state.rows) == 2
    state = state.replace(table=state.table.at[1].add(2.0), least=state.least.at[1].add(2.0), obs=here.astype(jnp.int8))
    state = agent.learn(state, jnp.int32(4), jnp.float32(300.0), there)  # 1.5 + 0.5 * (3 + 0.4 * 2 - 1.5)
    assert float(state.table[0, 1, 1]) == pytest.approx(2.65)
    assert int(state.rows) == 2


def test_states_beyond_the_table_share_its_last_row():
    config = dataclasses.replace(CONFIG, states=2)
    agent = q_learning.sized(config, 1, 5)
    state = agent.init(jax.random.key(0), jnp.zeros(9, jnp.int32))
    for level in (1, 0, 1):
        state = agent.learn(state, jnp.int32(0), jnp.float32(100.0), jnp.full(9, level, jnp.int32))
    state = agent.learn(state, jnp.int32(0), jnp.float32(100.0), jnp.full(9, 2, jnp.int32))
    assert int(state.rows) == 2
    np.testing.assert_array_equal(state.seen, [[0] * 9, [2] * 9])


def test_seeds_differ_and_repeat():
    first, second = trained(0)[0], trained(1)[0]
    assert not np.array_equal(first.table, second.table)
    again = trained.__wrapped__(0)[0]
    np.testing.assert_array_equal(first.table, again.table)


def test_a_table_that_is_too_large_is_refused():
    with pytest.raises(ValueError, match=r"--states: expected a table of at most 4 GiB.*found 64 x 10 \*\* 8"):
        q_learning.sized(q_learning.QLearningConfig(), 8, 10)


@pytest.mark.parametrize("explore", ["joint", "choice"])
def test_what_is_known_to_break_the_constraint_is_never_tried(explore):
    accuracy = SCENARIO.choice_accuracy()
    told = dataclasses.replace(CONFIG, q_penalty="known", explore=explore, epsilon_start=0.9, epsilon_end=0.9)
    agent = q_learning.sized(told, 2, SCENARIO.choices, accuracy, 80.0)
    every = np.array(list(np.ndindex(5, 5)))
    fine = np.array(accuracy)[every].mean(axis=1) >= 80.0
    assert 0 < fine.sum() < 25
    np.testing.assert_array_equal(agent.allowed, np.flatnonzero(fine))
    state = agent.init(jax.random.key(0), jnp.zeros(12, jnp.int32))
    np.testing.assert_array_equal(np.isfinite(state.table[0].reshape(-1)), fine)
    taken = set()
    act = jax.jit(agent.act)
    for _ in range(400):
        state, action = act(state, jnp.float32(0.9))
        taken.add(int(action))
        state = agent.learn(state, action, jnp.float32(100.0), jnp.zeros(12, jnp.int32))
    assert taken == set(np.flatnonzero(fine))
    assert (agent.bound_to, agent.accuracy) == (80.0, accuracy)


def test_each_device_s_choice_may_be_drawn_by_itself():
    agent = q_learning.sized(dataclasses.replace(CONFIG, explore="choice"), 2, 5)
    state = agent.init(jax.random.key(3), jnp.zeros(12, jnp.int32))
    act, changed = jax.jit(agent.act), []
    for _ in range(600):
        state, action = act(state, jnp.float32(0.3))
        changed.append(np.count_nonzero(np.array(divmod(int(action), 5))))  # the greedy one is 0, 0
    assert np.mean(np.array(changed) == 1) == pytest.approx(2 * 0.24 * 0.76, abs=0.07)
    assert np.mean(np.array(changed) == 2) == pytest.approx(0.24**2, abs=0.04)


def test_what_must_be_known_must_be_given():
    with pytest.raises(ValueError, match="accuracy: expected one of each of 5 choices, found 0"):
        q_learning.sized(dataclasses.replace(CONFIG, q_penalty="known"), 2, 5)
