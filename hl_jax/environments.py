"""Which environment a scenario is run in: the paper's, that with traffic, or that of a user's own fleet."""

from __future__ import annotations

from typing import Any

import chex

from hl_jax import objective, simulator
from hl_jax.fleets import environment as fleet_environment
from hl_jax.fleets import params as fleet_params
from hl_jax.fleets.environment import FleetOrchestration
from hl_jax.fleets.params import FleetParams
from hl_jax.fleets.scenario import AnyScenario, FleetScenario
from hl_jax.objective import Penalty
from hl_jax.simulator import EnvParams, EnvState, Orchestration
from hl_jax.traffic import environment as traffic_environment
from hl_jax.traffic import params as traffic_params
from hl_jax.traffic.environment import TrafficOrchestration, TrafficParams, TrafficState

Params = EnvParams | TrafficParams | FleetParams
State = EnvState | TrafficState


def make_params(scenario: AnyScenario, penalty: Penalty = simulator.NO_PENALTY) -> Params:
    """A scenario as arrays, and what breaking its constraint costs.

    Raises:
      ValueError: if a time matters that nobody has measured, or traces don't fit the control periods.
    """
    if isinstance(scenario, FleetScenario):
        return fleet_params.make_params(scenario, penalty)
    if scenario.traffic is None:
        return simulator.make_params(scenario, penalty)
    return traffic_params.make_params(scenario, penalty)


def sufficient_penalty(scenario: AnyScenario, factor: float = 1.0) -> Penalty:
    """What breaking a scenario's constraint must cost, times `factor`, so that it never pays.

    Raises:
      ValueError: if an energy counts that nobody has measured.
    """
    if isinstance(scenario, FleetScenario):
        return fleet_environment.sufficient_penalty(fleet_params.make_params(scenario), factor)
    return objective.sufficient_penalty(scenario, factor)


def environment(params: Params) -> Any:
    """What runs these: `Orchestration`, `TrafficOrchestration` or `FleetOrchestration`."""
    if isinstance(params, FleetParams):
        return FleetOrchestration()
    return TrafficOrchestration() if isinstance(params, TrafficParams) else Orchestration()


def mean_accuracy(params: Params, action: chex.Array) -> chex.Array:
    """Mean accuracy of a joint decision ([N]) over a fleet's requests, %. []."""
    if isinstance(params, TrafficParams):
        return traffic_environment.mean_accuracy(params, action)
    if isinstance(params, FleetParams):
        return fleet_environment.mean_accuracy(params, action)
    return simulator.mean_accuracy(params, action)
