"""Small scenarios with round numbers, so that expected values can be worked out by hand."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from hl_jax.agents.hybrid.config import HybridConfig
from hl_jax.scenario import Device, Dynamics, ModelPool, Node, Scenario, Timing
from launch.inputs.flags import config_from

ROOT = pathlib.Path(__file__).parent.parent.parent
SCENARIOS = ROOT / "data" / "scenarios"

POOL = ModelPool(names=("d0", "d1", "d2"), accuracy=(90.0, 80.0, 70.0), million_macs=(500.0, 100.0, 40.0))
TIMING = Timing(
    local_ms=(400.0, 200.0, 100.0),
    edge_ms=300.0,
    cloud_ms=350.0,
    edge_share_ms=200.0,
    cloud_share_ms=80.0,
    edge_reference_cores=2,
    cloud_reference_cores=4,
    weak_device_ms=70.0,
    weak_edge_ms=3.0,
    weak_edge_offload_ms=30.0,
    weak_cloud_offload_ms=50.0,
    busy_cpu_factor=2.0,
    busy_memory_factor=1.5,
    weak_device_offload_ms=12.0,
)
DYNAMICS = Dynamics(
    device_busy=(0.1, 0.3),
    device_memory=(0.05, 0.2),
    device_link=(0.2, 0.2),
    node_memory=(0.3, 0.1),
    node_link=(0.1, 0.1),
    cpu_level_move=0.25,
    cpu_level_max=4,
)
# Joint choices of these scenarios: three models, then edge and cloud.
D0, D1, D2, EDGE, CLOUD = range(5)


def literal(**changes: Any) -> HybridConfig:
    """Hybrid's constants by the letter of Algorithm 1 (data/flags/literal.flags), with changes."""
    found: HybridConfig = config_from(ROOT / "data" / "flags" / "literal.flags", "hybrid")
    return dataclasses.replace(found, **changes)


def small_scenario(users: int = 3, **changes: Any) -> Scenario:
    """A fleet of equal devices on regular links without noise; `changes` are fields of `Scenario`."""
    scenario = Scenario(
        name="small",
        pool=POOL,
        timing=TIMING,
        devices=tuple(Device(f"S{index + 1}") for index in range(users)),
        edge=Node("regular", 2),
        cloud=Node("regular", 4),
        noise=0.0,
    )
    return dataclasses.replace(scenario, **changes)
