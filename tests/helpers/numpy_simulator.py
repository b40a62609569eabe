"""A slow second simulator, written from the paper and DESIGN with one loop per device, to compare the JAX one with.

It reads a `Scenario` itself, so that `make_params` is compared too, and computes in float64.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from hl_jax.scenario import Node, Scenario


@dataclasses.dataclass(frozen=True)
class Background:
    """Conditions as plain numbers; pairs are (edge, cloud)."""

    device_cpu: Sequence[int]
    device_memory: Sequence[int]
    device_weak: Sequence[int]
    node_cpu: Sequence[int]
    node_memory: Sequence[int]
    node_weak: Sequence[int]


def slowdown(node: Node, tasks: int, reference_cores: int) -> float:
    """What multiplies one task's share when `tasks` of them are on a node."""
    if node.contention == "steps":
        return max(1, math.ceil(tasks / node.cores))
    if node.contention == "queue":
        return sum(math.ceil(place / node.cores) for place in range(1, tasks + 1)) / tasks if tasks else 1
    further = (tasks - 1) * reference_cores / node.cores
    return 1 + (further if node.contention == "linear" else further * further)


def computing_ms(scenario: Scenario, background: Background, device: int, choice: int) -> float:
    """Time that a device itself computes; 0 when it offloads."""
    if choice >= len(scenario.pool.names):
        return 0.0
    time = scenario.timing.local_ms[choice] / scenario.speeds[device]
    if background.device_cpu[device]:
        time *= scenario.timing.busy_cpu_factor
    if background.device_memory[device]:
        time *= scenario.timing.busy_memory_factor
    return time


def remote_ms(scenario: Scenario, background: Background, which: int, tasks: int) -> float:
    """Time of each of `tasks` tasks on the edge (0) or the cloud (1), links of those nodes included."""
    timing = scenario.timing
    node = (scenario.edge, scenario.cloud)[which]
    alone = (timing.edge_ms, timing.cloud_ms)[which]
    share = (timing.edge_share_ms, timing.cloud_share_ms)[which]
    cores = (timing.edge_reference_cores, timing.cloud_reference_cores)[which]
    computing = share * slowdown(node, tasks, cores)
    computing /= 1 - background.node_cpu[which] / 9  # the background leaves only the rest of the processor
    if background.node_memory[which]:
        computing *= timing.busy_memory_factor
    time = alone - share + computing
    if background.node_weak[0]:  # whatever is offloaded passes the edge
        time += timing.weak_edge_offload_ms
    if which == 1 and background.node_weak[1]:
        time += timing.weak_cloud_offload_ms
    return time


def response_ms(scenario: Scenario, background: Background, action: Sequence[int]) -> list[float]:
    """Noise-free response time of each device, ms."""
    models, times = len(scenario.pool.names), []
    for device, choice in enumerate(action):
        if choice < models:
            time = computing_ms(scenario, background, device, choice)
        else:
            time = remote_ms(scenario, background, choice - models, list(action).count(choice))
        if background.device_weak[device]:
            time += scenario.timing.weak_device_ms
            time += scenario.timing.weak_device_offload_ms if choice >= models else 0.0
        if background.node_weak[0]:
            time += scenario.timing.weak_edge_ms
        times.append(time)
    return times


def mean_accuracy(scenario: Scenario, action: Sequence[int]) -> float:
    """Mean accuracy of the chosen models, %; edge and cloud run the first one."""
    accuracy = scenario.pool.accuracy
    return sum(accuracy[choice] if choice < len(accuracy) else accuracy[0] for choice in action) / len(action)


def cost_ms(scenario: Scenario, times: Sequence[float], action: Sequence[int], offset: float, slope: float) -> float:
    """Average response time, plus the penalty where the constraint is broken, ms."""
    missing = scenario.constraint - mean_accuracy(scenario, action)
    penalty = offset + slope * missing if missing > 1e-3 else 0.0
    return sum(times) / len(times) + penalty


def monitors(scenario: Scenario, background: Background, before: Background, action: Sequence[int]) -> list[int]:
    """Table II after a joint action: the coming step's background, and what `action` put there under `before`."""
    period, models = scenario.monitor_period_ms, len(scenario.pool.names)
    device_cpu = []
    for device, choice in enumerate(action):
        used = computing_ms(scenario, before, device, choice) / period
        device_cpu.append(1 if background.device_cpu[device] or used >= 0.5 else 0)
    levels = []
    timing = scenario.timing
    for which, node in enumerate((scenario.edge, scenario.cloud)):
        share = (timing.edge_share_ms, timing.cloud_share_ms)[which]
        cores = (timing.edge_reference_cores, timing.cloud_reference_cores)[which]
        used = list(action).count(models + which) * share * cores / node.cores / period
        levels.append(min(8, background.node_cpu[which] + math.floor(9 * min(used, 1.0) + 1e-4)))
    return [
        *device_cpu,
        *background.device_memory,
        *background.device_weak,
        *levels,
        *background.node_memory,
        *background.node_weak,
    ]
