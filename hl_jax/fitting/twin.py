"""Fits the simulator's times to steps of a real fleet: its digital twin.

Each device's response time is linear in the timing model's parameters (`simulator.response_ms` without background
load), so they follow from a least squares fit of relative errors, none below zero. Nodes serve first come, first
served, one task a core: `queue` contention.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import optimize

from hl_jax import simulator
from hl_jax.scenario import Scenario, Timing

CONTENTION = "queue"
DECIMALS = 3
LEAST_NOISE = 1e-3
SHARED = (
    "edge_alone",
    "edge_share",
    "cloud_alone",
    "cloud_share",
    "weak_device",
    "weak_device_offload",
    "weak_edge",
    "weak_edge_offload",
    "weak_cloud_offload",
)


@dataclasses.dataclass(frozen=True)
class Observation:
    """One joint action, carried out R times under some links."""

    action: tuple[int, ...]  # [N]
    response_ms: np.ndarray  # [R, N]; NaN where a request was lost
    weak_devices: tuple[bool, ...]  # [N]
    weak_edge: bool = False
    weak_cloud: bool = False


@dataclasses.dataclass(frozen=True)
class Twin:
    """What was fitted, and how well: relative errors of each observation's ART, %."""

    timing: Timing
    noise: float
    error_percent: tuple[float, ...]


def _row(scenario: Scenario, seen: Observation, device: int) -> np.ndarray:
    """What one device's time under one joint action consists of: [l + 9] numbers of each parameter."""
    models, choice = len(scenario.pool.names), seen.action[device]
    local, shared = np.zeros(models), dict.fromkeys(SHARED, 0.0)
    if choice < models:
        local[choice] = 1.0 / scenario.devices[device].speed
    else:
        name, node = (("edge", scenario.edge), ("cloud", scenario.cloud))[choice - models]
        tasks = seen.action.count(choice)
        shared[f"{name}_alone"] = 1.0
        # One task alone counts in `alone`; the reference is a node of these cores, so the numbers are the queue's.
        shared[f"{name}_share"] = float(simulator.queue_occupancy(np.arange(tasks + 1), node.cores)[-1]) - 1.0
        shared["weak_device_offload"] = float(seen.weak_devices[device])
        shared["weak_edge_offload"] = float(seen.weak_edge)
        shared["weak_cloud_offload"] = float(seen.weak_cloud and name == "cloud")
    shared["weak_device"] = float(seen.weak_devices[device])
    shared["weak_edge"] = float(seen.weak_edge)
    return np.array([*local, *shared.values()])


def predicted_ms(scenario: Scenario, parameters: np.ndarray, seen: Observation) -> np.ndarray:
    """Response times [N] that parameters [l + 9] give for an observation, ms."""
    return np.array([_row(scenario, seen, device) @ parameters for device in range(scenario.users)])


def fit(scenario: Scenario, observations: Sequence[Observation]) -> Twin:
    """The timing model that fits the observations best.

    Args:
      scenario: the fleet's devices, cores and pool; what isn't observed (the factors of Busy) is taken from its timing.
      observations: each model on some device, and different numbers of tasks on edge and cloud; a link that is never
        weak in them costs nothing in the result.

    Raises:
      ValueError: if a model was never run, or edge or cloud never.
    """
    # Where a device never answered, the others may not have been disturbed as usual: that tells nothing.
    observations = [seen for seen in observations if np.isfinite(seen.response_ms).any(axis=0).all()]
    rows, times = [], []
    for seen in observations:
        own = [_row(scenario, seen, device) for device in range(scenario.users)]
        each = np.nanmean(seen.response_ms, axis=0)
        rows += own
        # Whoever comes last to a node waits the longest, and the model has their mean: the mean of what is predicted to
        # be the same. Fitting each relative to itself would favour those who don't wait.
        times += [float(each[[np.array_equal(row, other) for other in own]].mean()) for row in own]
    models = len(scenario.pool.names)
    names = (*scenario.pool.names, *SHARED)
    used = np.any(np.array(rows) != 0.0, axis=0) if rows else np.zeros(len(names), bool)
    missing = [name for name, seen_it in zip(names[: models + 4], used[: models + 4], strict=True) if not seen_it]
    if missing:
        raise ValueError(f"observations: expected some of every model and node, found none of {', '.join(missing)}")
    weights = 1.0 / np.array(times)
    parameters, _ = optimize.nnls(np.array(rows) * weights[:, None], np.ones(len(times)))
    parameters = np.round(parameters, DECIMALS)
    value = dict(zip(SHARED, parameters[models:].tolist(), strict=True))
    timing = dataclasses.replace(
        scenario.timing,
        local_ms=tuple(parameters[:models].tolist()),
        edge_ms=value["edge_alone"],
        cloud_ms=value["cloud_alone"],
        edge_share_ms=min(value["edge_share"], value["edge_alone"]),
        cloud_share_ms=min(value["cloud_share"], value["cloud_alone"]),
        edge_reference_cores=scenario.edge.cores,
        cloud_reference_cores=scenario.cloud.cores,
        weak_device_ms=value["weak_device"],
        weak_device_offload_ms=value["weak_device_offload"],
        weak_edge_ms=value["weak_edge"],
        weak_edge_offload_ms=value["weak_edge_offload"],
        # Where no cloud was weak: taken as a weak edge's.
        weak_cloud_offload_ms=value["weak_cloud_offload" if used[-1] else "weak_edge_offload"],
    )
    errors = []
    for seen in observations:
        measured = float(np.nanmean(seen.response_ms))
        errors.append(100.0 * (float(predicted_ms(scenario, parameters, seen).mean()) / measured - 1.0))
    return Twin(timing=timing, noise=_noise(scenario, observations), error_percent=tuple(errors))


def _noise(scenario: Scenario, observations: Sequence[Observation]) -> float:
    """Standard deviation of the log of a device's time, over repetitions of local tasks: who waits varies otherwise."""
    spreads = []
    for seen in observations:
        local = np.array(seen.action) < len(scenario.pool.names)
        logs = np.log(seen.response_ms[:, local])
        logs = logs[np.isfinite(logs).all(axis=1)]
        if len(logs) > 1:
            spreads += np.std(logs, axis=0, ddof=1).tolist()
    # The median: a pause of the machine in one of them says nothing of the others.
    return round(max(float(np.median(spreads)) if spreads else 0.0, LEAST_NOISE), 4)
