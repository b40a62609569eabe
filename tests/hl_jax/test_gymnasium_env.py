"""The Gymnasium wrapper: other people's checkers and agents accept it, and its numbers are the simulator's."""

from __future__ import annotations

import dataclasses

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

from hl_jax.gymnasium_env import OrchestrationGymEnv, decode_action, encode_action
from hl_jax.objective import straight_penalty
from launch.inputs.scenario_files import load_scenario
from tests.helpers import numpy_simulator
from tests.helpers.builders import CLOUD, D0, D1, D2, DYNAMICS, EDGE, SCENARIOS, small_scenario
from tests.helpers.needs import needs_peer
from tests.helpers.numpy_simulator import Background

NOISY = small_scenario(2, noise=0.05, constraint=80.0, dynamics=DYNAMICS)


@pytest.mark.parametrize("flat", [False, True])
def test_gymnasium_s_checker_accepts_it(flat):
    arguments = {"scenario": NOISY, "flatten_actions": flat}
    spec = EnvSpec("Orchestration-v0", entry_point=OrchestrationGymEnv, kwargs=arguments, max_episode_steps=5)
    check_env(gymnasium.make(spec).unwrapped)  # warnings are errors


@needs_peer
@pytest.mark.parametrize("flat", [False, True])
def test_stable_baselines_checker_accepts_it(flat):
    from stable_baselines3.common import env_checker as sb3_checker  # here, with PyTorch: it is slow to load

    sb3_checker.check_env(OrchestrationGymEnv(NOISY, flatten_actions=flat), warn=True)


def test_spaces():
    scenario = load_scenario(SCENARIOS / "expA.toml")
    env = OrchestrationGymEnv(scenario)
    assert env.action_space == gymnasium.spaces.MultiDiscrete([10] * 5)
    assert env.observation_space == gymnasium.spaces.Box(0.0, 1.0, (21,), np.float32)
    flat = OrchestrationGymEnv(scenario, flatten_actions=True)
    assert flat.action_space == gymnasium.spaces.Discrete(100_000)


def test_numbers_are_the_simulator_s():
    scenario = small_scenario(3, constraint=85.0, monitor_period_ms=800.0)
    env = OrchestrationGymEnv(scenario)
    obs, info = env.reset(seed=0)
    np.testing.assert_array_equal(obs, np.zeros(15, np.float32))
    assert info == {}
    action = np.array([D0, EDGE, EDGE])
    obs, reward, terminated, truncated, info = env.step(action)
    none = (0, 0, 0)
    idle = Background(none, none, none, (0, 0), (0, 0), (0, 0))
    times = numpy_simulator.response_ms(scenario, idle, action)
    assert times == [400, 500, 500]
    np.testing.assert_allclose(info["response_ms"], times, rtol=1e-6)
    np.testing.assert_allclose(info["mean_ms"], times, rtol=1e-6)
    assert reward == pytest.approx(-1400 / 3)
    assert (info["cost_ms"], info["art_ms"]) == pytest.approx((1400 / 3, 1400 / 3))
    assert info["accuracy"] == pytest.approx(90.0)
    assert info["feasible"] is True
    assert (terminated, truncated) == (False, False)
    # 400 of 800 ms is Busy; the edge's level 4 of 0..8 is 0.5.
    np.testing.assert_allclose(obs, [1, 0, 0, *[0] * 6, 0.5, 0, *[0] * 4])
    assert {type(value) for value in info.values()} == {float, bool, np.ndarray}


def test_the_penalty_is_in_the_reward():
    env = OrchestrationGymEnv(small_scenario(2, constraint=80.0), straight_penalty(30.0, 10.0))
    env.reset(seed=0)
    _, reward, _, _, info = env.step(np.array([D1, D2]))  # 75 %: 30 ms and 5 points at 10 ms
    assert reward == pytest.approx(-(150 + 30 + 50))
    assert info["feasible"] is False


def trajectory(env: OrchestrationGymEnv, seed: int | None, steps: int = 12) -> list[np.ndarray]:
    obs, _ = env.reset(seed=seed)
    seen = [obs]
    for step in range(steps):
        obs, reward, *_ = env.step(step % env.action_space.n)
        seen.append(np.append(obs, reward))
    return seen


def test_the_seed_decides_everything():
    first, second = (OrchestrationGymEnv(NOISY, flatten_actions=True) for _ in range(2))
    one = trajectory(first, 5)
    for left, right in zip(one, trajectory(second, 5), strict=True):
        np.testing.assert_array_equal(left, right)
    goes_on, goes_on_too = trajectory(first, None), trajectory(second, None)
    for left, right in zip(goes_on, goes_on_too, strict=True):
        np.testing.assert_array_equal(left, right)
    rewards = [[item[-1] for item in seen[1:]] for seen in (one, goes_on, trajectory(first, 6))]
    assert len({tuple(values) for values in rewards}) == 3
    assert len(set(rewards[0])) == len(rewards[0])  # every step draws its own noise


def test_episodes_end_only_when_asked_to():
    env = OrchestrationGymEnv(NOISY, max_episode_steps=3)
    for _ in range(2):
        env.reset(seed=0)
        assert [env.step(np.array([0, 0]))[3] for _ in range(3)] == [False, False, True]


def test_misuse_is_refused():
    env = OrchestrationGymEnv(NOISY)
    with pytest.raises(gymnasium.error.ResetNeeded, match="expected a call of reset before, found none"):
        env.step(np.array([0, 0]))
    env.reset(seed=0)
    for action in (np.array([0, 5]), np.array([0]), np.array([-1, 0])):
        with pytest.raises(ValueError, match=r"action: expected an element of MultiDiscrete\(\[5 5\]\), found array"):
            env.step(action)
    with pytest.raises(ValueError, match="max_episode_steps: expected at least 1 or None, found 0"):
        OrchestrationGymEnv(NOISY, max_episode_steps=0)
    with pytest.raises(ValueError, match=r"flatten_actions: expected at most 2\^63 joint actions, found 5\^30"):
        OrchestrationGymEnv(small_scenario(30), flatten_actions=True)


def test_flat_actions_are_mixed_radix():
    assert encode_action(np.array([1, 2, 3]), 10) == 123  # the first device is the most significant digit
    np.testing.assert_array_equal(decode_action(123, 5, 10), [0, 0, 1, 2, 3])
    seen = {tuple(decode_action(index, 3, 4).tolist()) for index in range(64)}
    assert len(seen) == 64
    assert all(encode_action(decode_action(index, 3, 4), 4) == index for index in range(64))


def test_both_action_forms_are_the_same_step():
    flat = OrchestrationGymEnv(NOISY, flatten_actions=True)
    joint = OrchestrationGymEnv(NOISY)
    flat.reset(seed=3)
    joint.reset(seed=3)
    for action in ([D0, D2], [EDGE, CLOUD], [CLOUD, D1]):
        index = encode_action(np.array(action), 5)
        assert flat.step(index)[1] == joint.step(np.array(action))[1]


@needs_peer
def test_stable_baselines_dqn_learns_on_it():
    """Two users, 25 joint actions: an independent DQN finds the optimum through the wrapper alone."""
    import torch
    from stable_baselines3 import DQN

    torch.set_num_threads(1)
    scenario = dataclasses.replace(small_scenario(2, constraint=80.0), noise=0.03)
    env = OrchestrationGymEnv(scenario, flatten_actions=True, max_episode_steps=20)
    scaled = gymnasium.wrappers.TransformReward(env, lambda reward: reward / 100.0)
    agent = DQN(
        "MlpPolicy",
        scaled,
        gamma=0.0,
        learning_rate=1e-2,
        learning_starts=100,
        train_freq=2,
        exploration_fraction=0.6,
        seed=0,
        device="cpu",
        policy_kwargs={"net_arch": [32]},
    )
    agent.learn(600)
    obs, _ = env.reset(seed=1)
    index, _ = agent.predict(obs, deterministic=True)
    _, _, _, _, info = env.step(int(index))
    # By hand: d1 on both keeps 80 % in 200 ms; d0 with d2 keeps it in (400 + 100) / 2, or 200 with the edge's 300.
    assert info["feasible"]
    assert info["art_ms"] == pytest.approx(200.0, rel=0.15)
