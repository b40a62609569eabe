"""The agents by name: their default constants and how to make them for a scenario."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from hl_jax import simulator
from hl_jax.agents import factored, hybrid, q_learning
from hl_jax.agents.config import HybridConfig
from hl_jax.agents.world import Agent
from hl_jax.penalty import sufficient_penalty
from hl_jax.scenario import Scenario
from launch.host.errors import InputError


def _same(state: Any, constraint: float) -> Any:
    """What an agent that learned its constraint from penalties does about another one: nothing."""
    del constraint
    return state


@dataclasses.dataclass(frozen=True)
class AgentSpec:
    """An agent: its defaults, what makes it for a scenario, and how a trained state takes another constraint (%)."""

    defaults: Any
    make: Callable[[Any, Scenario], Agent]
    under: Callable[[Any, float], Any] = _same


def _levels(scenario: Scenario) -> tuple[int, ...]:
    return tuple(int(level) for level in simulator.observation_levels(scenario.users))


def _hybrid(config: HybridConfig, scenario: Scenario) -> Agent:
    return hybrid.make(config, scenario.users, scenario.choices, _levels(scenario))


def _direct_only(config: HybridConfig, scenario: Scenario) -> Agent:
    return hybrid.make(config, scenario.users, scenario.choices, _levels(scenario), plans=False)


def _q_learning(config: q_learning.QLearningConfig, scenario: Scenario) -> Agent:
    return q_learning.make(config, scenario.users, scenario.choices, _levels(scenario))


def _factored(config: factored.FactoredConfig, scenario: Scenario) -> Agent:
    if not scenario.offloading:
        raise ValueError("--knobs: expected both or offloading for this agent, found models")
    # All that it is told: how many devices, how accurate the choices are, and what is asked. No time of any kind.
    return factored.make(config, scenario.users, scenario.choice_accuracy(), scenario.constraint)


AGENTS = {
    "hybrid": AgentSpec(HybridConfig(), _hybrid),
    # Direct RL alone, learning after each step. Of the two best settings in data/results/tuning the one that stays the
    # better at five users; all that was searched is written out, so that it doesn't follow hybrid's defaults.
    "dqn": AgentSpec(
        HybridConfig(
            epochs=200,
            direct_sessions=100,
            direct_steps=1,
            direct_updates=10,
            gamma=0.0,
            q_learning_rate=3.6e-3,
            epsilon_end=0.05,
            priority_exponent=0.2,
            penalty_factor=1.2,
        ),
        _direct_only,
    ),
    "q_learning": AgentSpec(q_learning.QLearningConfig(), _q_learning),
    "factored": AgentSpec(factored.FactoredConfig(), _factored, factored.under),
}


def make_agent(name: str, config: Any, scenario: Scenario) -> Agent:
    """The agent for a scenario's devices, choices and constraint.

    Raises:
      InputError: if it can't handle so many.
    """
    try:
        return AGENTS[name].make(config, scenario)
    except ValueError as error:
        raise InputError(f"{error} (--agent={name}, scenario {scenario.name})") from error


def make_params(config: Any, scenario: Scenario) -> simulator.EnvParams:
    """The scenario's arrays with the agent's penalty; an agent without one never breaks the constraint."""
    factor = getattr(config, "penalty_factor", HybridConfig().penalty_factor)
    return simulator.make_params(scenario, sufficient_penalty(scenario, factor))
