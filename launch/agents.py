"""The agents by name: their default constants and how to make them for a scenario."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from hl_jax import simulator
from hl_jax.agents import hybrid, q_learning
from hl_jax.agents.config import HybridConfig
from hl_jax.agents.world import Agent
from hl_jax.penalty import sufficient_penalty
from hl_jax.scenario import Scenario
from launch.errors import InputError


@dataclasses.dataclass(frozen=True)
class AgentSpec:
    """An agent: its defaults, and what makes it from (configuration, users, choices, levels)."""

    defaults: Any
    make: Callable[[Any, int, int, tuple[int, ...]], Agent]


def _direct_only(config: HybridConfig, users: int, choices: int, levels: tuple[int, ...]) -> Agent:
    return hybrid.make(config, users, choices, levels, plans=False)


AGENTS = {
    "hybrid": AgentSpec(HybridConfig(), hybrid.make),
    # One update a step, as Direct RL alone is usually run.
    "dqn": AgentSpec(HybridConfig(direct_sessions=100, direct_steps=1, direct_updates=1), _direct_only),
    "q_learning": AgentSpec(q_learning.QLearningConfig(), q_learning.make),
}


def make_agent(name: str, config: Any, scenario: Scenario) -> Agent:
    """The agent for a scenario's devices and choices.

    Raises:
      InputError: if it can't handle so many.
    """
    levels = tuple(int(level) for level in simulator.observation_levels(scenario.users))
    try:
        return AGENTS[name].make(config, scenario.users, scenario.choices, levels)
    except ValueError as error:
        raise InputError(f"{error} (--agent={name}, scenario {scenario.name})") from error


def make_params(config: Any, scenario: Scenario) -> simulator.EnvParams:
    """The scenario's arrays with the agent's penalty."""
    return simulator.make_params(scenario, sufficient_penalty(scenario, config.penalty_factor))
