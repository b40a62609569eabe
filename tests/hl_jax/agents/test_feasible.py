"""What learns from penalties decides what keeps the constraint, whatever the pool's order and however fast the edge."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest

import hl_jax
from hl_jax.scenario import Device, ModelPool, Node
from tests.helpers.builders import TIMING, small_scenario

SCENARIOS = int(os.environ.get("HL_JAX_TRAINED", "3"))  # 50 in the longer mode
SMALL = {
    "epochs": 20,
    "direct_sessions": 5,
    "world_sessions": 200,
    "plan_sessions": 200,
    "k_best": 25,
    "width": 32,
    "batch": 32,
    "direct_capacity": 512,
    "world_capacity": 512,
    "plan_capacity": 64,
}


def drawn(number):
    """Two devices and three models in any order; every third time edge and cloud are fast and run the worst one."""
    random = np.random.default_rng(number)
    accuracy = random.permutation(random.choice([60.0, 70.0, 75.0, 80.0, 85.0, 89.0, 90.0], 3, replace=False))
    if number % 3 == 0:
        accuracy = np.sort(accuracy)
    local = np.round(random.uniform(20.0, 400.0, 3), 1)
    edge, cloud = np.round(random.uniform(2.0, 30.0 if number % 3 == 0 else 400.0, 2), 1)
    timing = dataclasses.replace(
        TIMING,
        local_ms=tuple(local.tolist()),
        edge_ms=float(edge),
        cloud_ms=float(cloud),
        edge_share_ms=float(edge) / 2.0,
        cloud_share_ms=float(cloud) / 4.0,
    )
    return small_scenario(
        name=f"drawn {number}",
        pool=ModelPool(("m0", "m1", "m2"), tuple(accuracy.tolist()), (1.0, 1.0, 1.0)),
        timing=timing,
        devices=(Device("S1", speed=float(random.choice([0.5, 1.0]))), Device("S2", "weak")),
        edge=Node("regular", 2),
        cloud=Node(str(random.choice(["regular", "weak"])), 4),
        constraint=float(random.choice([accuracy.max(), accuracy.mean(), np.sort(accuracy)[1]])),
        noise=0.03,
    )


@pytest.mark.parametrize("number", range(SCENARIOS))
def test_hybrids_decision_is_feasible(number):
    """One compiled program serves all of them."""
    scenario = drawn(number)
    trained = hl_jax.train(hl_jax.agent("hybrid", scenario, **SMALL), scenario, seeds=2)
    assert trained.failed == (None, None)
    assert trained.feasible[:, -1].all(), (scenario, trained.labels, hl_jax.oracle(scenario))
