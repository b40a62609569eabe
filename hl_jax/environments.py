"""Which environment a scenario is run in: the paper's, where all devices ask at one instant, or that with traffic."""

from __future__ import annotations

from typing import Any

import chex

from hl_jax import simulator
from hl_jax.objective import Penalty
from hl_jax.scenario import Scenario
from hl_jax.simulator import EnvParams, EnvState, Orchestration
from hl_jax.traffic import environment as traffic_environment
from hl_jax.traffic import params as traffic_params
from hl_jax.traffic.environment import TrafficOrchestration, TrafficParams, TrafficState

Params = EnvParams | TrafficParams
State = EnvState | TrafficState


def make_params(scenario: Scenario, penalty: Penalty = simulator.NO_PENALTY) -> Params:
    """A scenario as arrays, and what breaking its constraint costs.

    Raises:
      ValueError: if a time matters that nobody has measured, or traces don't fit the control periods.
    """
    if scenario.traffic is None:
        return simulator.make_params(scenario, penalty)
    return traffic_params.make_params(scenario, penalty)


def environment(params: Params) -> Any:
    """What runs these: `Orchestration` or `TrafficOrchestration`."""
    return TrafficOrchestration() if isinstance(params, TrafficParams) else Orchestration()


def mean_accuracy(params: Params, action: chex.Array) -> chex.Array:
    """Mean accuracy of a joint decision ([N]) over a fleet's requests, %. []."""
    if isinstance(params, TrafficParams):
        return traffic_environment.mean_accuracy(params, action)
    return simulator.mean_accuracy(params, action)
