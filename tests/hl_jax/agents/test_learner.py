"""Algorithm 1's phases one by one, each against a second implementation or by hand."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hl_jax.agents.hybrid import agent as hybrid
from hl_jax.agents.hybrid.learner import Learner
from hl_jax.agents.hybrid.networks import features_of, obs_of
from hl_jax.agents.hybrid.state import AgentState, EpochPlan, Goal
from hl_jax.objective import Penalty
from hl_jax.replay import buffers, sum_tree
from hl_jax.simulator import observation_levels
from tests.helpers.builders import literal
from tests.helpers.trees import again, assert_identical

N, C, STORED = 2, 5, 20
LEVELS = tuple(observation_levels(N).tolist())
F = len(LEVELS)
EVERY = jnp.array(list(itertools.product(range(C), repeat=N)), jnp.int32)
CONFIG = literal(
    direct_updates=3, width=8, batch=8, direct_capacity=32, world_capacity=32, plan_capacity=32, k_best=4, gamma=0.5
)
LEARNER = Learner(config=CONFIG, users=N, choices=C, levels=LEVELS)
PLAN = EpochPlan(
    direct_sessions=jnp.int32(1),
    world_sessions=jnp.int32(3),
    suggest_sessions=jnp.int32(1),
    plan_sessions=jnp.int32(3),
    epsilon=jnp.float32(0.0),
    beta=jnp.float32(0.7),
    q_learning_rate=jnp.float32(0.01),
    model_learning_rate=jnp.float32(0.02),
    goal=Goal.of(0.0, Penalty()),
)


def phase(name: str) -> Any:
    """One of `LEARNER`'s phases, compiled once for all tests."""
    return jax.jit(functools.partial(getattr(Learner, name), LEARNER))


act, observe, copy_target = phase("act"), phase("observe"), phase("copy_target")
learn_direct, fit_model, learn_plan = phase("learn_direct"), phase("fit_model"), phase("learn_plan")
suggest, imagine, revisit = phase("suggest"), phase("imagine"), phase("revisit")
plan_real, plan_imagined = phase("plan_real"), phase("plan_imagined")


def told(cost_ms: float, art_ms: float) -> dict[str, chex.Array]:
    """What a step told, with the same time of every device."""
    response_ms = jnp.full(N, art_ms, jnp.float32)
    return {"cost_ms": jnp.float32(cost_ms), "art_ms": jnp.float32(art_ms), "response_ms": response_ms}


def random_obs(random: np.random.Generator) -> chex.Array:
    return jnp.asarray(random.integers(0, LEVELS), jnp.int32)


def experienced() -> AgentState:
    """An agent with `STORED` random steps behind it, networks of size 1, and a target unlike its Q-network."""
    return again(_experienced())


@functools.cache
def _experienced() -> AgentState:
    random = np.random.default_rng(7)
    agent = jax.jit(LEARNER.init)(jax.random.key(2), random_obs(random))

    def randomized(params: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), jnp.float32), params)

    agent = agent.replace(
        q_params=randomized(agent.q_params),
        target_params=randomized(agent.q_params),
        model_params=randomized(agent.model_params),
    )
    for _ in range(STORED):
        action, cost = jnp.int32(random.integers(C**N)), jnp.float32(random.uniform(100, 500))
        agent = observe(agent, action, told(cost, cost), random_obs(random))
        item = LEARNER.transition(random_obs(random), action, cost, random_obs(random))
        known = bool(buffers.contains(agent.plan, action))
        agent = agent if known else agent.replace(plan=buffers.put(agent.plan, item))
    return agent


def q_of_all(params: Any, obs: chex.Array) -> chex.Array:
    """The Q-network called with every joint action in turn."""
    features = features_of(obs, LEVELS)
    return jax.vmap(lambda action: LEARNER.q_network.apply(params, features, action))(EVERY)


def test_initially_the_target_is_the_network_and_the_buffers_are_empty():
    agent = jax.jit(LEARNER.init)(jax.random.key(0), jnp.ones(F, jnp.int32))
    assert_identical(agent.target_params, agent.q_params)
    counts = [agent.direct.ring.count, agent.world.count, agent.plan.prioritized.ring.count]
    assert [*counts, agent.real_steps, agent.model_steps] == [0] * 5
    assert (agent.plan.slot_of == buffers.NOWHERE).all()
    np.testing.assert_array_equal(agent.obs, np.ones(F))


def test_the_greedy_action_is_the_one_of_least_q():
    agent = experienced()
    for state in range(10):
        obs = random_obs(np.random.default_rng(state))
        _, action = act(again(agent).replace(obs=obs.astype(jnp.int8)), jnp.float32(0.0))
        assert action == np.argmin(q_of_all(agent.q_params, obs))
        assert action == LEARNER.greedy(agent.q_params, obs, agent.goal)


def test_exploration_is_uniform_and_as_frequent_as_epsilon_says():
    agent = experienced()
    greedy = int(act(again(agent), jnp.float32(0.0))[1])
    many = jax.jit(jax.vmap(lambda key, epsilon: LEARNER.act(agent.replace(key=key), epsilon)[1], in_axes=(0, None)))
    actions = np.asarray(many(jax.random.split(jax.random.key(0), 2000), jnp.float32(0.5)))
    counts = np.bincount(actions, minlength=C**N)
    # Binomial with p = 0.5 * 24/25: a deviation of 0.011.
    assert abs(1 - counts[greedy] / 2000 - 0.48) < 0.05
    others = np.delete(counts, greedy)
    assert others.min() > 15  # 40 each on average, deviation 6
    assert others.max() < 70


def test_a_step_is_stored_in_both_buffers_and_moves_the_state():
    before = experienced()
    after = observe(before, jnp.int32(17), told(250.0, 200.0), jnp.arange(F, dtype=jnp.int32) % 2)
    for ring in (after.direct.ring, after.world):
        slot = STORED
        assert ring.count == STORED + 1
        np.testing.assert_array_equal(ring.data.obs[slot], before.obs)
        assert (ring.data.action[slot], ring.data.cost[slot]) == (17, 2.5)  # in units of 100 ms
        np.testing.assert_array_equal(ring.data.next_obs[slot], np.arange(F) % 2)
    np.testing.assert_array_equal(after.obs, np.arange(F) % 2)
    assert after.real_steps == before.real_steps + 1
    assert after.model_steps == before.model_steps
    assert_identical(after.plan, before.plan)


def naive_updates(agent: AgentState, buffer: buffers.Prioritized, count: int) -> tuple[Any, buffers.Prioritized]:
    """Lines 14, 15 with `optax.adam` and minima found by calling the target network with every joint action."""
    optimizer = optax.adam(float(PLAN.q_learning_rate))
    params, state, key = agent.q_params, optimizer.init(agent.q_params), again(agent.key)

    @jax.jit
    def update(params: Any, state: Any, buffer: buffers.Prioritized, key: chex.PRNGKey) -> Any:
        batch = buffers.sample(buffer, key, CONFIG.batch, PLAN.beta)
        following = jax.vmap(lambda obs: jnp.min(q_of_all(agent.target_params, obs)))(batch.data.next_obs)
        target = batch.data.cost + CONFIG.gamma * following

        def errors(params: Any) -> chex.Array:
            rows = jax.vmap(lambda obs: q_of_all(params, obs))(batch.data.obs)
            return rows[jnp.arange(CONFIG.batch), batch.data.action] - target

        gradient = jax.grad(lambda params: jnp.mean(0.5 * batch.weights * errors(params) ** 2))(params)
        steps, state = optimizer.update(gradient, state)
        priorities = (jnp.abs(errors(params)) + buffers.LEAST_PRIORITY) ** CONFIG.priority_exponent
        buffer = buffer.replace(tree=sum_tree.update(buffer.tree, batch.slots, priorities))
        return optax.apply_updates(params, steps), state, buffer

    for _ in range(count):
        key, sample_key = jax.random.split(key)
        params, state, buffer = update(params, state, buffer, sample_key)
    return params, buffer


@pytest.mark.parametrize("phase", ["direct", "plan"])
def test_learning_equals_a_naive_implementation(phase):
    before = experienced()
    if phase == "direct":
        after, found = learn_direct(again(before), PLAN, jnp.int32(0)), lambda agent: agent.direct
    else:
        after, found = learn_plan(again(before), PLAN)[0], lambda agent: agent.plan.prioritized
    params, buffer = naive_updates(before, found(before), 3)
    chex.assert_trees_all_close(after.q_params, params, rtol=1e-4, atol=1e-5)
    changed = jax.tree.map(lambda new, old: bool((new != old).any()), after.q_params, before.q_params)
    assert all(jax.tree.leaves(changed)), changed
    np.testing.assert_allclose(found(after).tree, buffer.tree, rtol=1e-4, atol=1e-5)
    assert_identical(found(after).ring, found(before).ring)
    assert_identical(after.target_params, before.target_params)  # frozen between copies
    assert_identical(after.model_params, before.model_params)


def test_fitting_the_model_equals_a_naive_implementation():
    before = experienced()
    after, last_loss = fit_model(again(before), PLAN)
    optimizer = optax.adam(float(PLAN.model_learning_rate))
    params, state, key = before.model_params, optimizer.init(before.model_params), again(before.key)

    @jax.jit
    def loss(params: Any, batch: buffers.Transition) -> chex.Array:
        total = jnp.float32(0.0)
        for row in range(CONFIG.batch):
            features = features_of(batch.obs[row], LEVELS)
            cost, following = LEARNER.model.apply(params, features, EVERY[batch.action[row]])
            total += 0.5 * (cost - batch.cost[row]) ** 2
            total += jnp.mean(0.5 * (following - features_of(batch.next_obs[row], LEVELS)) ** 2)
        return total / CONFIG.batch

    for _ in range(3):
        key, sample_key = jax.random.split(key)
        batch = buffers.sample_ring(before.world, sample_key, CONFIG.batch)
        value, gradient = jax.value_and_grad(loss)(params, batch)
        steps, state = optimizer.update(gradient, state)
        params = optax.apply_updates(params, steps)
    chex.assert_trees_all_close(after.model_params, params, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(last_loss, value, rtol=1e-4)
    assert_identical(after.q_params, before.q_params)


def test_copying_the_target_forgets_the_old_ones_minima():
    learned = learn_direct(experienced(), PLAN, jnp.int32(0))
    assert learned.minima.held.any()
    copied = copy_target(learned)
    assert_identical(copied.target_params, learned.q_params)
    assert not copied.minima.held.any()
    # The next minima are the new target's.
    states = learn_direct(copied, PLAN, jnp.int32(0)).minima
    held = np.flatnonzero(states.held)
    expected = [jnp.min(q_of_all(copied.target_params, states.states[slot])) for slot in held]
    np.testing.assert_allclose(states.values[held], expected, rtol=1e-5, atol=1e-5)


def test_suggestions_are_the_k_least_predicted_costs_and_the_imagined_next_state():
    agent, obs = experienced(), random_obs(np.random.default_rng(3))
    after, actions, following = suggest(agent, obs)
    features = features_of(obs, LEVELS)
    predicted, states = jax.vmap(lambda action: LEARNER.model.apply(agent.model_params, features, action))(EVERY)
    order = np.argsort(np.asarray(predicted), kind="stable")[: CONFIG.k_best]
    np.testing.assert_array_equal(actions, order)
    np.testing.assert_array_equal(following, obs_of(states[order[0]], LEVELS))
    assert after.model_steps == agent.model_steps + 1
    assert after.real_steps == agent.real_steps
    cost_ms, imagined = imagine(agent, obs, actions[1])
    np.testing.assert_allclose(cost_ms, predicted[order[1]] * CONFIG.cost_scale_ms, rtol=1e-5)
    np.testing.assert_array_equal(imagined, obs_of(states[order[1]], LEVELS))


@pytest.mark.parametrize("step", ["real", "model"])
def test_line_31_stores_a_new_action(step):
    agent, state = experienced(), jnp.asarray([1, 0] * (F // 2), jnp.int8)
    action = jnp.int32(np.flatnonzero(np.asarray(agent.plan.slot_of) == buffers.NOWHERE)[1])
    next_obs = jnp.zeros(F, jnp.int32)
    if step == "real":
        after = plan_real(agent, action, told(120.0, 90.0), next_obs)
        cost, started, ended = 1.2, agent.obs, next_obs  # the state that the step was really taken in
        assert (after.real_steps, after.model_steps) == (agent.real_steps + 1, agent.model_steps)
        np.testing.assert_array_equal(after.obs, next_obs)
    else:
        after = plan_imagined(agent, action, state)
        imagined, ended = imagine(agent, state, action)
        cost, started = imagined / CONFIG.cost_scale_ms, state
        assert (after.real_steps, after.model_steps) == (agent.real_steps, agent.model_steps + 1)
        np.testing.assert_array_equal(after.obs, agent.obs)
    slot, data = after.plan.slot_of[action], after.plan.prioritized.ring.data
    np.testing.assert_allclose(data.cost[slot], cost, rtol=1e-5)
    np.testing.assert_array_equal(data.obs[slot], started)
    np.testing.assert_array_equal(data.next_obs[slot], ended)
    assert_identical((after.direct, after.world), (agent.direct, agent.world))


def test_lines_29_and_33_tell_new_from_known_and_only_move_the_known_ones_states():
    agent, state = experienced(), jnp.asarray([1, 0] * (F // 2), jnp.int8)
    held = np.asarray(agent.plan.slot_of) != buffers.NOWHERE
    known, new = np.flatnonzero(held)[:3], np.flatnonzero(~held)[:2]
    after, actions, count = revisit(agent, jnp.array([known[2], new[1], known[0], new[0], known[1]]), state)
    assert count == 2
    np.testing.assert_array_equal(actions, [new[1], new[0], known[2], known[0], known[1]])
    slots, ring = agent.plan.slot_of[known], agent.plan.prioritized.ring
    assert (np.asarray(ring.data.obs[slots]) != np.asarray(state)).any(axis=1).all()
    moved = ring.replace(data=ring.data.replace(obs=ring.data.obs.at[slots].set(state)))
    assert_identical(
        after, agent.replace(plan=agent.plan.replace(prioritized=agent.plan.prioritized.replace(ring=moved)))
    )


def test_refuses_what_it_cannot_search():
    with pytest.raises(ValueError, match=r"--users: expected at most 10000000 joint actions .* found 10 \*\* 8"):
        hybrid.sized(CONFIG, 8, 10, LEVELS)


def test_suggests_all_joint_actions_where_there_are_fewer_than_k():
    learner = dataclasses.replace(LEARNER, config=dataclasses.replace(CONFIG, k_best=26))
    _, actions, _ = learner.suggest(experienced(), random_obs(np.random.default_rng(3)))
    assert sorted(actions.tolist()) == list(range(25))
