"""Algorithm 1 as a whole: what it counts, stores and copies; its seeds; and that it learns."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hl_jax import evaluation, simulator, training
from hl_jax.agents.hybrid import agent as hybrid
from hl_jax.agents.hybrid.agent import Hybrid
from hl_jax.agents.hybrid.learner import Learner
from hl_jax.agents.hybrid.state import Goal
from hl_jax.agents.world import Run, compiled_world
from hl_jax.objective import Penalty, sufficient_penalty
from hl_jax.optimum import oracle
from hl_jax.scenario import Device, Node, Scenario
from hl_jax.simulator import Orchestration
from tests.helpers.builders import literal, small_scenario
from tests.helpers.trees import again, assert_identical, plain

USERS, CHOICES, EPOCHS = 2, 5, 12
ACTIONS = CHOICES**USERS
LEVELS = tuple(simulator.observation_levels(USERS).tolist())
NO_GOAL = Goal.of(0.0, Penalty())
CONFIG = literal(
    epochs=EPOCHS,
    direct_sessions=4,
    direct_steps=5,
    direct_updates=20,
    world_sessions=500,
    suggest_sessions=2,
    suggest_steps=2,
    plan_sessions=300,
    k_best=6,
    gamma=0.2,
    epsilon_epochs=0.5,
    q_learning_rate=1e-2,
    width=64,
    batch=32,
    direct_capacity=1024,
    world_capacity=1024,
    plan_capacity=32,
)
CONFIGS = {
    "hybrid": CONFIG,
    "hybrid, model steps": dataclasses.replace(CONFIG, planning_step="model"),
    "dqn": dataclasses.replace(CONFIG, direct_sessions=60, direct_steps=1, direct_updates=8),
}
# One device does best with a small model of its own, the other, four times slower, at the edge.
SCENARIO = small_scenario(
    constraint=80.0, noise=0.03, devices=(Device("near"), Device("slow", "weak", speed=0.25)), name="two"
)
OTHER = dataclasses.replace(SCENARIO, constraint=90.0, edge=Node("weak", 4, "steps"))


def params_of(scenario: Scenario) -> simulator.EnvParams:
    return simulator.make_params(scenario, sufficient_penalty(scenario, CONFIG.penalty_factor))


PARAMS = params_of(SCENARIO)


def agent_of(name: str) -> Hybrid:
    return hybrid.sized(CONFIGS[name], USERS, CHOICES, LEVELS, plans=name != "dqn")


def starts(params: simulator.EnvParams) -> simulator.EnvState:
    return evaluation.start_states(jax.random.key(0), params, 1)


@functools.cache
def programs(name: str) -> tuple[Any, Any]:
    """One agent's compiled programs for two seeds; every test uses these, so that each compiles once."""
    return training.programs(agent_of(name))


def epochs(
    name: str, seeds: tuple[int, int], scenario: Scenario = SCENARIO, count: int = EPOCHS
) -> list[tuple[Run, Any]]:
    """The run and the report after every epoch, of two seeds in the two lanes of one program (leading axis)."""
    init, epoch = programs(name)
    params, seen = params_of(scenario), []
    run = init(jnp.array(seeds, jnp.int32), params)
    for number in range(1, count + 1):
        run, report = epoch(run, agent_of(name).plan(number), params, starts(params))
        seen.append((plain(run), plain(report)))
    return seen


trained = functools.cache(epochs)


def lane(tree: Any, index: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], tree)


# -- Schedules ----------------------------------------------------------------------------------------------------

# N_direct 10, N_world 1000, N_suggest 2, N_plan 500 over four epochs; halves are rounded up.
SESSIONS = {
    # alpha 1/4, 1/2, 3/4, 1: (1 - alpha/2) = .875, .75, .625, .5; (alpha + 1)/2 = .625, .75, .875, 1
    "linear": [(9, 875, 1, 313), (8, 750, 2, 375), (6, 625, 2, 438), (5, 500, 2, 500)],
    "constant:0": [(10, 1000, 1, 250)] * 4,
    "constant:0.5": [(8, 750, 2, 375)] * 4,
    "constant:1": [(5, 500, 2, 500)] * 4,
    # 1 - e^(-5/4) = .7135, 1 - e^(-5/2) = .9179, .9765, .9933
    "exp": [(6, 643, 2, 428), (5, 541, 2, 479), (5, 512, 2, 494), (5, 503, 2, 498)],
}


@pytest.mark.parametrize(("alpha", "expected"), SESSIONS.items(), ids=SESSIONS.keys())
def test_session_counts_by_hand(alpha, expected):
    config = literal(
        epochs=4, direct_sessions=10, world_sessions=1000, suggest_sessions=2, plan_sessions=500, alpha_schedule=alpha
    )
    plans = [hybrid.schedule(config, epoch, NO_GOAL) for epoch in (1, 2, 3, 4)]
    names = ("direct_sessions", "world_sessions", "suggest_sessions", "plan_sessions")
    assert [tuple(int(getattr(plan, name)) for name in names) for plan in plans] == expected


def test_epsilon_beta_and_step_sizes_by_hand():
    config = literal(
        epochs=5,
        epsilon_start=1.0,
        epsilon_end=0.2,
        epsilon_epochs=0.5,
        beta_start=0.4,
        q_learning_rate=0.1,
        model_learning_rate=0.01,
        learning_rate_end=0.2,
    )
    plans = [hybrid.schedule(config, epoch, NO_GOAL) for epoch in range(1, 6)]
    np.testing.assert_allclose([plan.epsilon for plan in plans], [1.0, 0.6, 0.2, 0.2, 0.2], rtol=1e-6)
    np.testing.assert_allclose([plan.beta for plan in plans], [0.4, 0.55, 0.7, 0.85, 1.0], rtol=1e-6)
    cosine = [1.0, 0.88284271, 0.6, 0.31715729, 0.2]  # 0.2 + 0.8 (1 + cos(pi k / 4)) / 2
    np.testing.assert_allclose([plan.q_learning_rate for plan in plans], 0.1 * np.array(cosine), rtol=1e-6)
    np.testing.assert_allclose([plan.model_learning_rate for plan in plans], 0.01 * np.array(cosine), rtol=1e-6)
    once = hybrid.schedule(dataclasses.replace(config, epochs=1, epsilon_epochs=0.0), 1, NO_GOAL)
    assert (once.epsilon, once.beta) == (np.float32(0.2), np.float32(0.4))


LEFT_OUT = [tuple(int(index in some) for index in range(4)) for some in ({0}, {2}, {0, 2}, {1, 3}, {0, 1, 2, 3})]


@pytest.mark.parametrize("name", ["hybrid", "hybrid, model steps"])
def test_whatever_phase_an_epoch_leaves_out_nothing_is_learned_from_nothing(name):
    """A buffer that holds nothing is not drawn from: an epoch without some phases, all of it finite."""
    init, epoch = programs(name)
    phases = ("direct_sessions", "world_sessions", "suggest_sessions", "plan_sessions")
    for without in LEFT_OUT:
        run = init(jnp.array((0, 1), jnp.int32), PARAMS)
        first = plain(run.agent)
        none = {phase: jnp.int32(0) for phase, left_out in zip(phases, without, strict=True) if left_out}
        run, report = epoch(run, agent_of(name).plan(1).replace(**none), PARAMS, starts(PARAMS))
        assert not np.asarray(report.wrong).any(), none
        agent = plain(run.agent)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((agent.q_params, agent.model_params)))
        if without[0]:  # D_world and D_direct hold direct steps alone
            assert_identical(agent.model_params, first.model_params)
        if without[0] and without[2]:
            assert_identical(agent.q_params, first.q_params)
            assert not np.asarray(agent.real_steps).any()


def test_direct_rl_alone_has_alpha_0():
    plans = [agent_of("dqn").plan(epoch) for epoch in (1, EPOCHS)]
    assert [int(plan.direct_sessions) for plan in plans] == [60, 60]


@pytest.mark.parametrize(
    "alpha", ["", "cosine", "constant", "constant:", "constant:1.5", "constant:-1", "constant:nan"]
)
def test_refuses_an_unknown_alpha(alpha):
    with pytest.raises(ValueError, match=rf"--alpha_schedule: expected linear, exp or constant:VALUE .*{alpha!r}"):
        literal(alpha_schedule=alpha)


# -- Counting -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_every_interaction_counts_and_nothing_else(name):
    """The environment counts its own steps; D_plan's count says how many of them planning took."""
    config, planned, model_before, real_before = CONFIGS[name], np.zeros(2, int), np.zeros(2, int), np.zeros(2, int)
    for number, (run, report) in enumerate(trained(name, (0, 1)), start=1):
        plan = agent_of(name).plan(number)
        direct = int(plan.direct_sessions) * config.direct_steps
        new = run.agent.plan.prioritized.ring.count - planned
        suggestions = int(plan.suggest_sessions) * config.suggest_steps
        np.testing.assert_array_equal(run.agent.real_steps, run.env.time)
        np.testing.assert_array_equal(report.real_steps, run.agent.real_steps)
        np.testing.assert_array_equal(report.totals.steps, run.agent.real_steps - real_before)
        real, imagined = run.agent.real_steps - real_before, run.agent.model_steps - model_before
        if name == "hybrid":
            assert (new > 0).any() or number > 1
            np.testing.assert_array_equal(real, direct + new)
            np.testing.assert_array_equal(imagined, [suggestions] * 2)
        elif name == "dqn":
            assert (new == 0).all()
            np.testing.assert_array_equal(real, [60, 60])
            np.testing.assert_array_equal(imagined, [0, 0])
        else:
            np.testing.assert_array_equal(real, [direct, direct])  # planning takes no real step
            np.testing.assert_array_equal(imagined, suggestions + new)
        np.testing.assert_array_equal(run.agent.direct.ring.count, run.agent.world.count)
        planned, model_before = planned + new, run.agent.model_steps
        real_before = run.agent.real_steps
    if name != "dqn":
        assert (planned >= 4).all()


def test_direct_steps_follow_one_another():
    """Line 13: where a step ends, the next one starts; both buffers hold the same steps."""
    run, _ = trained("dqn", (0, 1))[-1]
    for index in (0, 1):
        ring, count = lane(run.agent.direct.ring.data, index), 60 * EPOCHS
        np.testing.assert_array_equal(ring.obs[1:count], ring.next_obs[: count - 1])
        np.testing.assert_array_equal(lane(run.agent.obs, index), ring.next_obs[count - 1])
        assert_identical(ring, lane(run.agent.world.data, index))
        assert len(set(ring.action[:count].tolist())) > 10


@pytest.mark.parametrize("name", CONFIGS)
def test_an_epoch_ends_with_a_copy_of_the_network(name):
    first, last = trained(name, (0, 1))[0][0].agent, trained(name, (0, 1))[-1][0].agent
    for agent in (first, last):
        assert_identical(agent.target_params, agent.q_params)
        assert not agent.minima.held.any()
    changed = jax.tree.map(lambda old, new: bool((old != new).any()), first.q_params, last.q_params)
    assert all(jax.tree.leaves(changed)), changed


def test_planning_with_all_actions_takes_each_once_and_then_only_moves_states():
    """K = A: the first suggestion tries everything; from then on line 33 gives each action the walk's state."""
    learner = Learner(
        config=dataclasses.replace(CONFIG, k_best=ACTIONS, plan_capacity=32),
        users=USERS,
        choices=CHOICES,
        levels=LEVELS,
    )
    params = PARAMS.replace(noise=jnp.float32(0.0))
    world = compiled_world(Orchestration(), params)
    start = training.init(Hybrid(learner), jnp.int32(5), params)
    random = np.random.default_rng(0)  # networks of size 1, so that the walk goes somewhere
    start = start.replace(
        agent=start.agent.replace(
            model_params=jax.tree.map(
                lambda leaf: jnp.asarray(random.normal(size=leaf.shape), jnp.float32), start.agent.model_params
            )
        )
    )
    plan = hybrid.schedule(CONFIG, EPOCHS, NO_GOAL).replace(plan_sessions=jnp.int32(1))
    run, _ = jax.jit(lambda run: hybrid.planning(learner, world, run, plan))(again(start))
    assert run.agent.real_steps == run.env.time == ACTIONS
    assert run.agent.model_steps == 4  # two sessions of two
    state, states = start.agent.obs, []
    for _ in range(4):
        states.append(tuple(state.tolist()))
        _, _, state = jax.jit(learner.suggest)(start.agent, state)
    assert len(set(states)) > 1
    plan_buffer, data = run.agent.plan, run.agent.plan.prioritized.ring.data
    assert plan_buffer.prioritized.ring.count == ACTIONS
    for action in range(ACTIONS):
        slot = plan_buffer.slot_of[action]
        assert tuple(data.obs[slot].tolist()) == states[-1]
        joint = learner.joint(jnp.int32(action))
        mean = simulator.cost_ms(params, joint, simulator.response_ms(params, params.start, joint))
        np.testing.assert_allclose(data.cost[slot], mean / CONFIG.cost_scale_ms, rtol=1e-5)


# -- Seeds and programs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_two_seeds_differ_in_parameters_actions_and_samples(name):
    first, last = trained(name, (0, 1))[0][0].agent, trained(name, (0, 1))[-1][0].agent
    kernels = first.q_params["params"]["tables"]["rest"]
    assert (kernels[0] != kernels[1]).mean() > 0.99
    actions = first.direct.ring.data.action[:, :15]
    assert (actions[0] != actions[1]).any()
    noise = last.direct.ring.data.cost[:, :15]
    assert (noise[0] != noise[1]).all()
    # Which transitions were drawn shows in the priorities: those of one seed aren't the other's.
    tree = last.direct.tree
    assert (tree[0] != tree[1]).any()
    assert (last.key[0] != last.key[1]).any()
    initial = programs(name)[0](jnp.array([0, 1], jnp.int32), PARAMS)
    before = plain(initial).agent.q_params["params"]["tables"]["rest"]
    assert (before[0] != before[1]).mean() > 0.99


@pytest.mark.parametrize("name", CONFIGS)
def test_one_seed_twice_and_beside_another_is_bit_identical(name):
    """Beside seed 1 or seed 9, in the first lane or the second: its own results, to the last bit."""
    once = trained(name, (0, 1))[:4]
    twice, swapped = epochs(name, (0, 9), count=4), epochs(name, (9, 0), count=4)
    for first, second, third in zip(once, twice, swapped, strict=True):
        assert_identical(lane(first, 0), lane(second, 0))
        assert_identical(lane(first, 0), lane(third, 1))
        assert_identical(lane(second, 1), lane(third, 0))


@pytest.mark.parametrize("name", CONFIGS)
def test_one_program_serves_every_epoch_scenario_and_constraint_of_a_size(name):
    trained(name, (0, 1))
    here, there = trained(name, (0, 1))[-1][0], epochs(name, (0, 1), OTHER, count=2)[-1][0]
    assert (here.agent.direct.ring.data.cost != there.agent.direct.ring.data.cost).any()
    assert [program._cache_size() for program in programs(name)] == [1, 1]


# -- Learning -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", [SCENARIO, OTHER], ids=["80 %", "90 %, weak edge"])
@pytest.mark.parametrize("name", ["hybrid", "dqn"])
def test_it_finds_the_optimum(name, scenario):
    optimum = oracle.brute_force(params_of(scenario))
    for seeds in ((0, 1), (2, 3)):
        _, report = trained(name, seeds, scenario)[-1]
        assert report.evaluation.feasible.all()
        np.testing.assert_allclose(report.evaluation.art_ms, optimum.art_ms, rtol=evaluation.EXACT)
