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
SAME_SPEED = 0.03  # of its logarithm: by so much a speed that is as the scenario says may seem another
MOST_TURNS = 50
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
    waits: bool = True  # whether tasks' waiting for one another is in these times


@dataclasses.dataclass(frozen=True)
class Twin:
    """What was fitted, and how well: relative errors of each observation's ART, %."""

    timing: Timing  # with the devices' speeds, and the names of what the observations don't tell
    noise: float
    error_percent: tuple[float, ...]


def _row(scenario: Scenario, seen: Observation, device: int, speed: float) -> np.ndarray:
    """What one device's time under one joint action consists of: [l + 9] numbers of each parameter."""
    models, choice = len(scenario.pool.names), seen.action[device]
    local, shared = np.zeros(models), dict.fromkeys(SHARED, 0.0)
    if choice < models:
        local[choice] = 1.0 / speed
    else:
        name, node = (("edge", scenario.edge), ("cloud", scenario.cloud))[choice - models]
        tasks = seen.action.count(choice) if seen.waits else 1
        shared[f"{name}_alone"] = 1.0
        # One task alone counts in `alone`; the reference is a node of these cores, so the numbers are the queue's.
        shared[f"{name}_share"] = float(simulator.queue_occupancy(np.arange(tasks + 1), node.cores)[-1]) - 1.0
        shared["weak_device_offload"] = float(seen.weak_devices[device])
        shared["weak_edge_offload"] = float(seen.weak_edge)
        shared["weak_cloud_offload"] = float(seen.weak_cloud and name == "cloud")
    shared["weak_device"] = float(seen.weak_devices[device])
    shared["weak_edge"] = float(seen.weak_edge)
    return np.array([*local, *shared.values()])


class _Data:
    """Every device's time under every joint action: [D, l + 9] rows for given speeds, [D] times (ms)."""

    def __init__(self, scenario: Scenario, observations: Sequence[Observation]) -> None:
        self.scenario, self.observations = scenario, observations
        self.device = np.tile(np.arange(scenario.users), len(observations))
        self.local = np.array(
            [choice < len(scenario.pool.names) for seen in observations for choice in seen.action], bool
        )

    def rows(self, speeds: np.ndarray) -> np.ndarray:
        return np.array(
            [_row(self.scenario, seen, one, speeds[one]) for seen in self.observations for one in range(len(speeds))]
        )

    def times(self, rows: np.ndarray) -> np.ndarray:
        """Mean times, of those of whom the same is predicted: one who comes last to a node waits the longest.

        The model has their mean; fitting each relative to itself would favour those who don't wait.
        """
        found: list[float] = []
        for index, seen in enumerate(self.observations):
            own = rows[index * self.scenario.users : (index + 1) * self.scenario.users]
            each = np.nanmean(seen.response_ms, axis=0)
            found += [float(each[[np.array_equal(row, other) for other in own]].mean()) for row in own]
        return np.array(found)


def _told(rows: np.ndarray) -> np.ndarray:
    """Which parameters the rows tell: those that aren't made up of earlier ones, which stand for both then. [P]."""
    kept: list[int] = []
    for index in range(rows.shape[1]):
        if np.linalg.matrix_rank(rows[:, [*kept, index]]) > len(kept):
            kept.append(index)
    return np.isin(np.arange(rows.shape[1]), kept)


def _speeds(data: _Data, local_ms: np.ndarray, parameters: np.ndarray, speeds: np.ndarray) -> np.ndarray:
    """The devices' speeds that fit their local times best, times of speed 1 and links given. [N]; NaN: never local."""
    rows, models = data.rows(np.ones(len(speeds))), len(local_ms)
    alone, links = rows[:, :models] @ local_ms, rows[:, models:] @ parameters[models:]
    times = data.times(data.rows(speeds))
    found = np.full(len(speeds), np.nan)
    for device in range(len(speeds)):
        own = data.local & (data.device == device)
        part, rest = alone[own] / times[own], 1.0 - links[own] / times[own]
        slowness = float(part @ rest) / float(part @ part) if own.any() else np.nan
        found[device] = 1.0 / slowness if slowness > 0.0 else np.nan
    return np.clip(found, 0.01, 100.0)


def fit(scenario: Scenario, observations: Sequence[Observation], shares: tuple[float, float] | None = None) -> Twin:
    """The timing model that fits the observations best.

    Speeds are fitted too: in turns with the times, around the scenario's own, whose scale they keep. A device whose
    speed is within `SAME_SPEED` of its own keeps that, so that equal devices stay equal.

    Args:
      scenario: the fleet's devices, cores and pool; the factors of Busy are taken from its timing.
      observations: each model on some device, and a task on edge and cloud. What else they don't tell (a link that is
        never weak in them, a node whose tasks never wait) is named in the result as unmeasured.
      shares: ms for which a task keeps a core of the edge, of the cloud, where that was seen by itself.

    Raises:
      ValueError: if a model was never run, or edge or cloud never.
    """
    # Where a device never answered, the others may not have been disturbed as usual: that tells nothing.
    observations = [seen for seen in observations if np.isfinite(seen.response_ms).any(axis=0).all()]
    models, own = len(scenario.pool.names), np.array([device.speed for device in scenario.devices])
    names = (*scenario.pool.names, *SHARED)
    data, speeds = _Data(scenario, observations), own
    rows = data.rows(speeds) if observations else np.zeros((0, len(names)))
    needed = [*range(models), names.index("edge_alone"), names.index("cloud_alone")]
    if missing := [names[index] for index in needed if not rows[:, index].any()]:
        raise ValueError(f"observations: expected some of every model and node, found none of {', '.join(missing)}")
    told = _told(data.rows(np.ones(scenario.users)))  # speeds are fitted too, so what differs by them tells nothing
    for _ in range(MOST_TURNS):
        rows = data.rows(speeds)
        weights = 1.0 / data.times(rows)
        parameters, _ = optimize.nnls(rows[:, told] * weights[:, None], np.ones(len(rows)))
        parameters = _spread(parameters, told)
        found = _speeds(data, parameters[:models], parameters, speeds)
        known = np.isfinite(found)
        found[known] /= np.exp(np.mean(np.log(found[known] / own[known])))
        found[~known] = own[~known]
        found = np.where(np.abs(np.log(found / own)) < SAME_SPEED, own, found)
        if np.abs(np.log(found / speeds)).max() < 1e-6:
            break
        speeds = found
    parameters = np.round(parameters, DECIMALS)
    speeds = np.round(speeds, DECIMALS)
    untold = [name for name, known in zip(names, told, strict=True) if not known]
    if shares is not None:
        untold = [name for name in untold if not name.endswith("_share")]
        parameters[[names.index(f"{node}_share") for node in ("edge", "cloud")]] = np.round(shares, DECIMALS)
    timing = _timing(scenario, parameters, untold)
    measured = zip(scenario.devices, speeds.tolist(), known, strict=True)
    timing = dataclasses.replace(timing, speeds=tuple((one.name, speed) for one, speed, fine in measured if fine))
    errors = []
    for seen in observations:
        mean = float(np.nanmean(seen.response_ms, axis=0).mean())  # whoever was seen more often counts no more
        predicted = np.mean([_row(scenario, seen, one, speeds[one]) @ parameters for one in range(scenario.users)])
        errors.append(100.0 * (float(predicted) / mean - 1.0))
    return Twin(timing=timing, noise=_noise(scenario, observations), error_percent=tuple(errors))


def _spread(values: np.ndarray, told: np.ndarray) -> np.ndarray:
    """Values of what is told, 0 of the rest."""
    found = np.zeros(len(told))
    found[told] = values
    return found


def _timing(scenario: Scenario, parameters: np.ndarray, untold: Sequence[str]) -> Timing:
    """The parameters ([l + 9]) as a calibration; `untold` are those of `SHARED` that nothing was seen of."""
    models = len(scenario.pool.names)
    value = dict(zip(SHARED, parameters[models:].tolist(), strict=True))
    return dataclasses.replace(
        scenario.timing,
        local_ms=tuple(parameters[:models].tolist()),
        edge_ms=value["edge_alone"],
        cloud_ms=value["cloud_alone"],
        edge_share_ms=min(value["edge_share"], value["edge_alone"]),
        cloud_share_ms=min(value["cloud_share"], value["cloud_alone"]),
        edge_reference_cores=scenario.edge.cores,
        cloud_reference_cores=scenario.cloud.cores,
        **{f"{name}_ms": value[name] for name in SHARED if name.startswith("weak")},
        unmeasured=tuple(f"{name}_ms" for name in untold),
    )


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
