"""The environment as a Gymnasium one, so that other people's agents run on exactly the same steps.

A thin shell around `Orchestration`: it holds the state and the key that the pure functions pass along,
scales Table II's levels to [0, 1], and turns arrays into plain numbers. Nothing is computed a second time here.
"""

from __future__ import annotations

import functools
from typing import Any

import chex
import gymnasium
import jax
import numpy as np
from gymnasium import spaces

from hl_jax.agents.world import observed_levels
from hl_jax.environments import Params, State, environment, make_params, sufficient_penalty
from hl_jax.fleets.scenario import AnyScenario, FleetScenario
from hl_jax.objective import Penalty


@jax.jit
def _reset(key: chex.PRNGKey, params: Params) -> tuple[chex.Array, State]:
    found: tuple[chex.Array, State] = environment(params).reset(key, params)
    return found


# At module level, so that environments of the same size share one compilation.
@jax.jit
def _step(key: chex.PRNGKey, state: State, action: chex.Array, params: Params) -> tuple[Any, ...]:
    next_key, step_key = jax.random.split(key)
    obs, state, reward, terminated, truncated, info = environment(params).step(step_key, state, action, params)
    return next_key, state, (obs, reward, terminated, truncated, info)


def encode_action(action: np.ndarray, choices: int) -> int:
    """Index of a joint action [N] in 0..C^N - 1: mixed radix, the first device most significant."""
    return int(np.ravel_multi_index(tuple(action), (choices,) * len(action)))


def decode_action(index: int, users: int, choices: int) -> np.ndarray:
    """Joint action of an index; the inverse of `encode_action`. Shape [N], int32."""
    return np.array(np.unravel_index(index, (choices,) * users), np.int32)


def _widened(values: np.ndarray) -> np.ndarray:
    """Numbers in float64; what is true or false stays so."""
    return values if values.dtype == bool else values.astype(float)


class OrchestrationGymEnv(gymnasium.Env[np.ndarray, Any]):
    """One fleet, one joint decision per step.

    Observation: Box [3N + 6] float32 in [0, 1], Table II's levels in `simulator.observe`'s order, each divided by
    its largest. Action: MultiDiscrete [C] * N, or with `flatten_actions` one Discrete(C^N) (`decode_action`).
    Reward: minus the cost in ms (average response time, plus the penalty where the accuracy constraint is broken);
    agents that need small rewards wrap this in `gymnasium.wrappers.TransformReward`. The info of a step holds
    `response_ms` and `mean_ms` (float64 [N]), `art_ms`, `accuracy` (%), `feasible` and `cost_ms`.

    Args:
      scenario: the fleet; its constraint is the one that is penalized.
      penalty: what breaking it adds to the cost; default the least that never pays.
      flatten_actions: one integer per joint action instead of one per device, for agents that know only those.
      max_episode_steps: truncate after so many steps; None: episodes never end, as the decision problem has no end.

    Raises:
      ValueError: if `max_episode_steps` is below 1, or the flat actions are too many to number.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (Gymnasium's own convention)

    def __init__(
        self,
        scenario: AnyScenario,
        penalty: Penalty | None = None,
        *,
        flatten_actions: bool = False,
        max_episode_steps: int | None = None,
    ) -> None:
        self.scenario = scenario
        users, choices = scenario.users, scenario.choices
        if max_episode_steps is not None and max_episode_steps < 1:
            raise ValueError(f"max_episode_steps: expected at least 1 or None, found {max_episode_steps}")
        if flatten_actions and choices**users > np.iinfo(np.int64).max:
            raise ValueError(f"flatten_actions: expected at most 2^63 joint actions, found {choices}^{users}")
        self._params = make_params(scenario, sufficient_penalty(scenario) if penalty is None else penalty)
        self._largest = np.array(observed_levels(scenario), np.float32) - 1.0
        self._flat = flatten_actions
        self._limit = max_episode_steps
        self._key: chex.PRNGKey | None = None
        self._state: State | None = None
        self._elapsed = 0
        self.observation_space = spaces.Box(0.0, 1.0, (len(self._largest),), np.float32)
        self.action_space = (
            spaces.Discrete(choices**users) if flatten_actions else spaces.MultiDiscrete([choices] * users)
        )

    @staticmethod
    def _refuse_missing(scenario: FleetScenario, joint: np.ndarray) -> None:
        """A fleet's devices don't all have every choice (`action_masks`)."""
        for device, choice, mask in zip(scenario.devices, joint.tolist(), scenario.mask, strict=True):
            if not mask[choice]:
                label = scenario.choice_labels()[choice]
                raise ValueError(f"action: expected a choice that {device.name} has, found {label}")

    def action_masks(self) -> np.ndarray:
        """Which actions there are, as masking agents expect it.

        Returns:
          [N * C] bool, each device's choices one after the other; with `flatten_actions` [C^N] of joint actions.
        """
        masks = np.ones((self.scenario.users, self.scenario.choices), bool)
        if isinstance(self.scenario, FleetScenario):
            masks = np.array(self.scenario.mask)
        return functools.reduce(np.logical_and.outer, masks).reshape(-1) if self._flat else masks.reshape(-1)

    def _observation(self, obs: np.ndarray) -> np.ndarray:
        return np.asarray(obs, np.float32) / self._largest

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode with idle nodes; the same `seed` gives the same conditions and the same noise."""
        super().reset(seed=seed)
        # Drawn from Gymnasium's generator: a reset without a seed goes on from the last seed, as its API asks.
        reset_key, self._key = jax.random.split(jax.random.key(self.np_random.integers(2**32, dtype=np.uint32)))
        obs, self._state = _reset(reset_key, self._params)
        self._elapsed = 0
        return self._observation(obs), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One joint decision.

        Raises:
          gymnasium.error.ResetNeeded: before the first reset.
          ValueError: if `action` is not in the action space.
        """
        if self._state is None:
            raise gymnasium.error.ResetNeeded("step: expected a call of reset before, found none")
        # Arrays clamp an index out of range silently, so that it must be refused here.
        if not self.action_space.contains(action):
            raise ValueError(f"action: expected an element of {self.action_space}, found {action!r}")
        users, choices = self.scenario.users, self.scenario.choices
        joint = decode_action(int(action), users, choices) if self._flat else np.asarray(action, np.int32)
        if isinstance(self.scenario, FleetScenario):
            self._refuse_missing(self.scenario, joint)
        self._key, self._state, result = _step(self._key, self._state, joint, self._params)
        obs, reward, terminated, truncated, info = jax.device_get(result)
        self._elapsed += 1
        out_of_time = self._limit is not None and self._elapsed >= self._limit
        plain = {name: value.item() if value.ndim == 0 else _widened(value) for name, value in info.items()}
        return self._observation(obs), float(reward), bool(terminated), bool(truncated) or out_of_time, plain
