"""The Gymnasium wrapper over users' own fleets: which actions there are, and whose numbers it gives."""

from __future__ import annotations

import dataclasses
import itertools

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

from hl_jax.fleets.machines import Member
from hl_jax.gymnasium_env import OrchestrationGymEnv, decode_action, encode_action
from hl_jax.objective import Goal
from tests.helpers import numpy_fleet
from tests.helpers.builders import DYNAMICS
from tests.helpers.numpy_fleet import fleet

ALIKE = fleet(devices=tuple(Member(name, "phone", "left") for name in "ab"), edges=fleet().edges[:1], dynamics=DYNAMICS)
UNLIKE = fleet(devices=fleet().devices[:2], edges=fleet().edges[:1], noise=0.0)


@pytest.mark.parametrize("flat", [False, True])
def test_gymnasium_s_checker_accepts_it(flat):
    """Where every device has every choice: the checker draws any action."""
    arguments = {"scenario": ALIKE, "flatten_actions": flat}
    spec = EnvSpec("Fleet-v0", entry_point=OrchestrationGymEnv, kwargs=arguments, max_episode_steps=5)
    check_env(gymnasium.make(spec).unwrapped)  # warnings are errors


def test_masks_say_which_actions_there_are():
    env, flat = OrchestrationGymEnv(UNLIKE), OrchestrationGymEnv(UNLIKE, flatten_actions=True)
    assert env.action_space == gymnasium.spaces.MultiDiscrete([15, 15])
    np.testing.assert_array_equal(env.action_masks(), [*[True] * 15, *[True] * 3, *[False] * 3, *[True] * 9])
    masks = flat.action_masks()
    assert masks.shape == (225,)
    for joint in itertools.product(range(15), repeat=2):
        assert masks[encode_action(np.array(joint), 15)] == (joint[1] not in (3, 4, 5))


@pytest.mark.parametrize("flat", [False, True])
def test_a_choice_that_is_not_there_is_refused(flat):
    env = OrchestrationGymEnv(UNLIKE, flatten_actions=flat)
    env.reset(seed=0)
    joint = np.array([0, 4])
    with pytest.raises(ValueError, match=r"^action: expected a choice that b has, found mid/L:gpu$"):
        env.step(encode_action(joint, 15) if flat else joint)
    masks = env.action_masks()
    action = np.int64(np.flatnonzero(masks)[-1]) if flat else np.array([14, 14])
    assert np.isfinite(env.step(action)[1])
    if flat:
        np.testing.assert_array_equal(decode_action(int(action), 2, 15), [14, 14])


def test_numbers_are_the_fleet_s():
    env = OrchestrationGymEnv(dataclasses.replace(UNLIKE, noise=None, goal=Goal("both", 0.3), constraint=85.0))
    obs, _ = env.reset(seed=0)
    assert env.observation_space.shape == obs.shape == (3 * 2 + 3 * 2,)
    for action in ([0, 7], [14, 8]):
        _, reward, terminated, truncated, info = env.step(np.array(action))
        assert not terminated
        assert not truncated
        params = env.unwrapped._params
        truth = numpy_fleet.expected(env.scenario, params.start, tuple(action))
        np.testing.assert_allclose(info["mean_ms"], truth.response_ms, rtol=1e-5)
        assert info["feasible"] == truth.feasible
        assert info["missed"].dtype == bool
        assert info["response_ms"].dtype == np.float64
        assert reward == -info["cost_ms"]
        if not truth.feasible:
            assert info["cost_ms"] > truth.cost  # a penalty is in it


def test_seeds_make_the_difference():
    env = OrchestrationGymEnv(dataclasses.replace(ALIKE, noise=None))

    def course(seed: int) -> list[list[float]]:
        found = [env.reset(seed=seed)[0].tolist()]
        for action in ([0, 6], [9, 3], [14, 14]):
            obs, reward, *_, info = env.step(np.array(action))
            found.append([*obs.tolist(), reward, *info["response_ms"]])
        return found

    assert course(1) == course(1)
    assert course(1) != course(2)
