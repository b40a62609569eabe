"""Options of Algorithm 1: what the networks predict and know, how line 9 draws, what planning starts from."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hl_jax import evaluation, simulator, training
from hl_jax.agents.hybrid import agent as hybrid
from hl_jax.agents.hybrid import descent
from hl_jax.agents.hybrid.config import DqnConfig, HybridConfig
from hl_jax.agents.hybrid.state import Goal
from hl_jax.agents.world import compiled_world, misfit, observed_levels
from hl_jax.choices import joint_actions
from hl_jax.objective import Penalty, meets, sufficient_penalty
from hl_jax.optimum import oracle
from tests.helpers.builders import literal, small_scenario
from tests.helpers.trees import again, assert_identical

SCENARIO = dataclasses.replace(small_scenario(users=2), constraint=80.0)
LEVELS = observed_levels(SCENARIO)
ACTIONS = joint_actions(SCENARIO.users, SCENARIO.choices)
KNOWN = HybridConfig(
    epochs=6,
    direct_sessions=4,
    direct_updates=10,
    world_sessions=200,
    suggest_sessions=2,
    suggest_steps=1,
    plan_sessions=200,
    k_best=10,
    planning_step="model",
    explore="choice",
    model_penalty="known",
    q_penalty="known",
    loss="relative",
    plan_key="state",
    plan_start="seen",
    imagined="renewed",
    weight_decay=1e-3,
    choice_tables="shared",
    head=16,
    width=8,
    direct_capacity=256,
    world_capacity=256,
    plan_capacity=256,
)


@pytest.mark.parametrize(("end", "steps"), [(1.0, 5), (0.1, 5), (0.0, 2), (0.1, 1)])
def test_a_rate_falls_within_the_epoch(end, steps):
    config = dataclasses.replace(KNOWN, epoch_rate_end=end)
    left = [float(descent.left(config, jnp.int32(step), jnp.int32(steps))) for step in range(steps)]
    assert left[0] == 1.0
    assert left == sorted(left, reverse=True)
    if steps > 1:
        assert left[-1] == pytest.approx(end, abs=1e-6)
    if steps == 5:
        assert left[2] == pytest.approx((1.0 + end) / 2.0)


@pytest.mark.parametrize("constraint", [0.0, 80.0, 90.0])
def test_one_half_of_the_suggestions_is_qs_own(constraint):
    asked = dataclasses.replace(SCENARIO, constraint=constraint)
    _, state, *_ = trained(80.0)
    learners = [hybrid.make(dataclasses.replace(KNOWN, suggested=one), asked).learner for one in ("model", "both")]
    state = learners[0].asked(state.replace(goal=state.goal.replace(constraint=jnp.float32(-1.0))), _goal(asked))
    models, both = (np.asarray(learner.suggest(state, state.obs)[1]) for learner in learners)
    values = np.asarray(learners[0].q_values(state.q_params, state.obs, state.goal))
    assert len(both) == len(set(both.tolist())) == KNOWN.k_best
    np.testing.assert_array_equal(both[:5], models[:5])
    others = np.setdiff1d(np.arange(ACTIONS), models[:5])
    np.testing.assert_allclose(values[both[5:]], np.sort(values[others])[:5])


@pytest.mark.parametrize("constraint", [0.0, 80.0, 90.0])
def test_exploring_keeps_a_known_constraint(constraint):
    asked = dataclasses.replace(SCENARIO, constraint=constraint)
    agent = hybrid.make(dataclasses.replace(KNOWN, explore="feasible"), asked)
    learner = agent.learner
    state = learner.asked(learner.init(jax.random.key(0), simulator.observe(_idle()[1])), agent.plan(1).goal)
    accuracy = np.array(asked.choice_accuracy())
    act = jax.jit(lambda key, epsilon: learner.act(state.replace(key=key), epsilon)[1])
    for epsilon in (0.0, 0.3, 1.0):
        chosen = [int(act(key, epsilon)) for key in jax.random.split(jax.random.key(1), 60)]
        kept = [
            meets(float(np.mean(accuracy[np.asarray(learner.joint(jnp.int32(one)))])), constraint) for one in chosen
        ]
        assert all(kept)
        assert (
            len(set(chosen)) > 1
            if epsilon
            else set(chosen) == {int(learner.greedy(state.q_params, state.obs, state.goal))}
        )


@pytest.mark.parametrize("step", ["real", "model"])
def test_planning_tries_nothing_that_is_out_of_the_question(step):
    """At 90 % fewer joint actions than K keep the constraint."""
    asked = dataclasses.replace(SCENARIO, constraint=90.0)
    config = dataclasses.replace(
        KNOWN, planning_step=step, imagined="kept", explore="feasible", suggested="both", k_best=ACTIONS
    )
    agent = hybrid.make(config, asked)
    params = training.params_for(agent, asked)
    starts = evaluation.start_states(jax.random.key(0), params, 1)
    run, report = training.programs(agent)[1](
        training.programs(agent)[0](jnp.array([0], jnp.int32), params), agent.plan(1), params, starts
    )
    assert report.totals.steps[0] > 0
    assert report.totals.infeasible[0] == 0.0
    ring = run.agent.plan.prioritized.ring
    tried = np.asarray(ring.data.action[0])[: int(ring.count[0])]
    accuracy = np.array(asked.choice_accuracy())
    assert len(tried) > 0
    assert all(meets(accuracy[np.array(np.unravel_index(one, (5, 5)))].mean(), 90.0) for one in tried)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_few_suggestions_are_the_models_first(k):
    _, state, *_ = trained(80.0)
    learner = hybrid.make(dataclasses.replace(KNOWN, suggested="both", k_best=k), SCENARIO).learner
    found = np.asarray(learner.suggest(state, state.obs)[1])
    assert len(found) == len(set(found.tolist())) == k
    assert found[0] == int(jnp.argmin(learner.model_values(state, state.obs)))


def _idle():
    return simulator.Orchestration().reset(jax.random.key(0), simulator.make_params(SCENARIO))


def _goal(scenario):
    return hybrid.make(KNOWN, scenario).plan(1).goal


@pytest.mark.parametrize("constraint", [0.0, 75.0, 80.0, 88.0, 90.0])
def test_what_is_known_to_break_the_constraint_is_out_of_the_question(constraint):
    agent = hybrid.make(KNOWN, dataclasses.replace(SCENARIO, constraint=constraint))
    goal = agent.plan(1).goal
    accuracy = np.array([np.mean(np.array(SCENARIO.choice_accuracy())[list(one)]) for one in np.ndindex(5, 5)])
    values = jnp.asarray(np.random.default_rng(0).uniform(1.0, 5.0, ACTIONS), jnp.float32)
    priced = agent.learner._priced(values, goal)
    allowed = np.asarray(meets(accuracy, constraint))
    np.testing.assert_array_equal(np.isfinite(priced), allowed)
    np.testing.assert_array_equal(np.asarray(priced)[allowed], np.asarray(values)[allowed])


def test_a_penalty_that_q_has_to_learn_is_added_to_what_the_model_predicts():
    config = dataclasses.replace(KNOWN, q_penalty="learned")
    agent = hybrid.make(config, SCENARIO)
    penalty = sufficient_penalty(SCENARIO, config.penalty_factor)
    params = simulator.make_params(SCENARIO, penalty)
    art = np.random.default_rng(0).uniform(1.0, 5.0, ACTIONS).astype(np.float32)
    priced = agent.learner._priced(jnp.asarray(art), agent.plan(1).goal)
    for index, action in enumerate(np.ndindex(5, 5)):
        response = jnp.full(2, 100.0 * art[index])  # costs are in units of 100 ms
        expected = simulator.cost_ms(params, jnp.array(action), response)
        np.testing.assert_allclose(100.0 * priced[index], expected, rtol=1e-5)


@functools.cache
def trained(constraint: float, seed: int = 0, k_best: int = KNOWN.k_best):
    config = dataclasses.replace(KNOWN, k_best=k_best)
    agent = hybrid.make(config, dataclasses.replace(SCENARIO, constraint=constraint))
    params = training.params_for(agent, dataclasses.replace(SCENARIO, constraint=constraint))
    init, epoch = training.programs(agent)
    run = init(jnp.array([seed], jnp.int32), params)
    starts = evaluation.start_states(jax.random.key(0), params, 1)
    for number in range(1, KNOWN.epochs + 1):
        run, report = epoch(run, agent.plan(number), params, starts)
    return agent, jax.tree.map(lambda leaf: leaf[0], run.agent), params, report


@pytest.mark.parametrize("seed", range(3))
def test_it_learns_and_follows_another_constraint_at_once(seed):
    """Where planning has told Q of every joint action; of those that it wasn't told of it can't know."""
    agent, state, params, report = trained(80.0, seed, ACTIONS)
    assert report.evaluation.feasible.all()
    assert int(report.real_steps[0]) < 120
    assert int(report.model_steps[0]) > 0
    for constraint in (0.0, 80.0, 85.0, 90.0):
        asked = params.replace(constraint=jnp.float32(constraint))
        action = agent.decide(agent.under(state, constraint), state.obs)
        assert simulator.meets_constraint(asked, action)
        art = float(simulator.response_ms(asked, asked.start, action).mean())
        assert art <= 1.15 * oracle.brute_force(asked).art_ms, constraint


@pytest.mark.parametrize("q_penalty", ["known", "learned"])
def test_a_batch_of_states_is_asked_like_one(q_penalty):
    agent = hybrid.make(dataclasses.replace(KNOWN, q_penalty=q_penalty), SCENARIO)
    params = training.params_for(agent, SCENARIO)
    batch = training.programs(agent)[0](jnp.arange(2, dtype=jnp.int32), params).agent
    both = agent.under(again(batch), 85.0)
    for seed in range(2):
        of, one = (jax.tree.map(lambda leaf, seed=seed: leaf[seed], again(states)) for states in (both, batch))
        assert_identical(of, agent.under(one, 85.0))


def test_one_program_serves_every_constraint_and_each_is_kept():
    """The compiled programs belong to equal agents; what is asked must not be the first one's."""
    before = training.programs.cache_info().misses
    (first, one, *_), (second, other, *_) = trained(80.0), trained(90.0)
    assert first == second
    assert training.programs.cache_info().misses - before <= 1
    assert (float(one.goal.constraint), float(other.goal.constraint)) == (80.0, 90.0)
    accuracy = np.array(SCENARIO.choice_accuracy())
    assert accuracy[np.asarray(second.decide(other, other.obs))].mean() >= 90.0 - 1e-3


def test_who_must_learn_the_penalty_decides_alike_under_another_constraint():
    agent = hybrid.make(literal(), SCENARIO)
    state = training.init(agent, jnp.int32(0), training.params_for(agent, SCENARIO)).agent
    asked = agent.under(state, 90.0)
    assert_identical(asked.replace(goal=state.goal), state)
    assert agent.bound_to is None


def test_a_penalty_that_only_the_model_knows_is_of_the_constraint_that_is_learned():
    """What another run left behind, or an agent made for another constraint, must not bring its own."""
    config = dataclasses.replace(KNOWN, q_penalty="learned")
    agent = hybrid.make(config, SCENARIO)
    assert misfit(agent, SCENARIO) == ""
    other = dataclasses.replace(SCENARIO, constraint=90.0)
    assert "(bound_to 90.0), found one for 80.0" in misfit(agent, other)
    state = training.init(agent, jnp.int32(0), training.params_for(agent, SCENARIO)).agent
    donor = agent.learner.asked(state, agent.plan(1).goal)
    assert donor.goal.constraint == 80.0
    further = hybrid.make(config, other)
    begun = further.learner.asked(further.under(donor, 90.0), further.plan(1).goal)
    assert_identical(begun.goal, further.plan(1).goal)


def test_accuracies_that_are_known_are_the_scenarios():
    agent = hybrid.make(KNOWN, SCENARIO)
    pool = SCENARIO.pool
    better = dataclasses.replace(pool, accuracy=(pool.accuracy[0] + 0.5, *pool.accuracy[1:]))
    assert "agent: expected one made for scenario" in misfit(agent, dataclasses.replace(SCENARIO, pool=better))
    unaware = hybrid.make(literal(), SCENARIO)
    assert misfit(unaware, dataclasses.replace(SCENARIO, pool=better)) == ""


@pytest.mark.parametrize("target", [0.0, 1e-9, -1e-9, -0.5, 1e-5])
def test_a_relative_error_of_what_is_imagined_near_zero_stays_small(target):
    learner = hybrid.make(KNOWN, SCENARIO).learner
    error = learner._error(jnp.float32(target + 0.1), jnp.float32(target))
    assert 0.0 < float(error) <= 0.1 / 0.01 * 1.001


def test_without_a_real_step_planning_starts_in_the_current_state():
    agent = hybrid.make(KNOWN, SCENARIO)
    state = training.init(agent, jnp.int32(0), training.params_for(agent, SCENARIO)).agent
    current = jnp.ones_like(state.obs)
    assert_identical(agent.learner.setting(state, current)[1], current)


def test_each_choice_is_drawn_with_probability_epsilon():
    agent = hybrid.make(KNOWN, SCENARIO)
    learner = agent.learner
    state = training.init(agent, jnp.int32(0), training.params_for(agent, SCENARIO)).agent
    state = learner.asked(state, agent.plan(1).goal)
    best = learner.joint(learner.greedy(state.q_params, state.obs, state.goal))

    @jax.jit
    def drawn(key):
        return learner.joint(learner.act(state.replace(key=key), jnp.float32(0.4))[1])

    actions = np.asarray(jax.lax.map(drawn, jax.random.split(jax.random.key(0), 4000)))
    changed = (actions != np.asarray(best)).mean(axis=0)
    np.testing.assert_allclose(changed, 0.4 * 4 / 5, atol=0.03)  # a draw may be what it was
    both = (actions != np.asarray(best)).all(axis=1).mean()
    assert both == pytest.approx(0.32**2, abs=0.02)  # each by itself


def test_planning_starts_where_it_is_told():
    agent = hybrid.make(KNOWN, SCENARIO)
    _, state, *_ = trained(80.0)
    seen = {tuple(row) for row in np.asarray(state.world.data.obs)[: int(state.world.count)].tolist()}
    starts = {
        tuple(np.asarray(agent.learner.setting(state.replace(key=key), state.obs)[1]).tolist())
        for key in jax.random.split(jax.random.key(0), 20)
    }
    assert starts <= seen
    assert len(starts) > 1
    still = hybrid.make(dataclasses.replace(KNOWN, plan_start="current"), SCENARIO).learner
    after, obs = still.setting(state, state.obs)
    assert_identical(after, state)
    assert_identical(obs, state.obs)


def test_renewed_costs_are_the_models_and_kept_ones_are_not():
    """Q after planning alone, from a D_plan whose costs are all wrong."""
    agent, state, *_ = trained(80.0)
    plan = agent.plan(1)
    ring = state.plan.prioritized.ring
    wrong = ring.replace(data=ring.data.replace(cost=jnp.full_like(ring.data.cost, 77.0)))
    spoilt = state.replace(plan=state.plan.replace(prioritized=state.plan.prioritized.replace(ring=wrong)))
    kept = hybrid.make(dataclasses.replace(KNOWN, imagined="kept"), SCENARIO).learner
    for learner, same in ((agent.learner, True), (kept, False)):
        found = [jax.jit(learner.learn_plan)(again(one), plan)[0].q_params for one in (state, spoilt)]
        equal = jax.tree.map(lambda a, b: bool((a == b).all()), *found)
        assert all(jax.tree.leaves(equal)) == same


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_penalty": "learned"}, "--model_penalty: expected known with --q_penalty=known, found learned"),
        ({"explore": "device"}, "--explore: expected one of joint, choice, feasible, found 'device'"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        HybridConfig(**changes)


@pytest.mark.parametrize("k_real", [0, 2, 100])
def test_mixed_planning_tries_the_first_suggestions_for_real_and_learns_from_them(k_real):
    config = dataclasses.replace(KNOWN, planning_step="mixed", k_real=k_real, k_best=5, direct_sessions=0)
    agent = hybrid.make(dataclasses.replace(config, suggest_sessions=1), SCENARIO)
    params = training.params_for(agent, SCENARIO)
    run = training.init(agent, jnp.int32(0), params)
    world = compiled_world(simulator.Orchestration(), params)
    run, _ = jax.jit(lambda run, plan: agent.epoch(world, run, plan))(run, agent.plan(6))
    new = int(run.agent.plan.prioritized.ring.count)  # those of five that keep the constraint
    assert 0 < new <= 5
    tried = min(k_real, new)
    assert int(run.agent.real_steps) == tried
    assert int(run.agent.direct.ring.count) == int(run.agent.world.count) == tried
    suggested = np.asarray(run.agent.plan.prioritized.ring.data.action)[:tried]
    np.testing.assert_array_equal(np.asarray(run.agent.world.data.action)[:tried], suggested)


def test_what_must_be_known_has_to_be_given():
    with pytest.raises(ValueError, match="accuracy: expected one of each of 5 choices, found 0"):
        hybrid.sized(KNOWN, 2, 5, LEVELS)


def test_direct_rl_alone_may_know_it_too():
    config = DqnConfig(
        epochs=2, direct_sessions=30, q_penalty="known", model_penalty="known", explore="choice", choice_tables="shared"
    )
    agent = hybrid.make_direct(config, SCENARIO)
    params = training.params_for(agent, SCENARIO)
    run = training.init(agent, jnp.int32(0), params)
    starts = evaluation.start_states(jax.random.key(0), params, 1)
    run, report = jax.jit(lambda run, plan: training.epoch(agent, run, plan, params, starts))(run, agent.plan(1))
    assert report.evaluation.feasible.all()
    stored = np.asarray(run.agent.direct.ring.data.cost)[: int(run.agent.direct.ring.count)]
    assert stored.max() < 100.0  # no penalty in it
    assert Goal.of(80.0, Penalty()).constraint == 80.0
