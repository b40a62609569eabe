"""The digital twin's fit: a fleet that obeys the timing model is found again; noise, lost requests, what is missing."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from hl_jax import simulator
from hl_jax.fitting import twin
from hl_jax.fitting.twin import Observation
from hl_jax.scenario import Device, Node
from tests.helpers.builders import small_scenario

USERS = 4
SCENARIO = small_scenario(
    USERS,
    devices=tuple(Device(f"S{index}", speed=2.0 if index == 1 else 1.0) for index in range(USERS)),
    edge=Node("regular", 2, twin.CONTENTION),
    cloud=Node("regular", 3, twin.CONTENTION),
)
# What the builders' cores are calibrated to is the queue's own here.
TIMING = dataclasses.replace(SCENARIO.timing, cloud_reference_cores=3)


def observe(noise: float = 0.0, repeats: int = 1, seed: int = 0) -> list[Observation]:
    """A fleet with `TIMING`, as the simulator has it, under all links."""
    generator, seen = np.random.default_rng(seed), []
    for place in ("", "device", "edge", "cloud"):
        params = simulator.make_params(dataclasses.replace(SCENARIO, timing=TIMING))
        weak = jnp.array([place == "edge", place == "cloud"], jnp.int32)
        first = jnp.zeros(USERS, jnp.int32).at[0].set(place == "device")
        conditions = params.start.replace(node_weak=weak, device_weak=first)
        for action in [(k,) * USERS for k in range(5)] + [(3, 3, 3, 4), (4, 4, 2, 3), (3, 4, 1, 0)]:
            mean = np.asarray(simulator.response_ms(params, conditions, jnp.array(action, jnp.int32)))
            times = mean * np.exp(noise * generator.standard_normal((repeats, USERS)))
            seen.append(Observation(action, times, tuple(np.asarray(first) == 1), place == "edge", place == "cloud"))
    return seen


def test_a_fleet_that_obeys_the_model_is_found_again():
    made = twin.fit(SCENARIO, observe())
    for field in dataclasses.fields(TIMING):
        ours, theirs = getattr(made.timing, field.name), getattr(TIMING, field.name)
        assert ours == pytest.approx(theirs, rel=1e-4, abs=5e-3), field.name
    assert np.abs(made.error_percent).max() < 0.01


def test_noise_is_found_and_averages_out():
    made = twin.fit(SCENARIO, observe(noise=0.05, repeats=40))
    assert made.noise == pytest.approx(0.05, rel=0.15)
    assert made.timing.local_ms == pytest.approx(TIMING.local_ms, rel=0.03)
    assert (made.timing.edge_ms, made.timing.cloud_ms) == pytest.approx((TIMING.edge_ms, TIMING.cloud_ms), rel=0.05)


def test_times_of_a_queue_are_their_mean():
    """First come, first served: two of three tasks on two cores take 300 ms, the third 500, whoever comes last."""
    seen = [one for one in observe() if one.action not in [(3,) * USERS, (3, 3, 3, 4)]]
    for last in range(3):
        times = np.array([300.0, 300.0, 300.0, TIMING.local_ms[0]])
        times[last] = 500.0
        seen.append(Observation((3, 3, 3, 0), times[None], (False,) * USERS))
    made = twin.fit(SCENARIO, seen)
    assert (made.timing.edge_ms, made.timing.edge_share_ms) == pytest.approx((300.0, 200.0), rel=1e-3)
    assert np.abs(made.error_percent).max() < 0.05


def test_lost_requests_are_left_out():
    seen = observe(repeats=3)
    seen[0].response_ms[1, 2] = np.nan
    seen[5].response_ms[:, 0] = np.nan  # always lost: the joint action tells nothing that can be relied on
    assert twin.fit(SCENARIO, seen).timing.local_ms == pytest.approx(TIMING.local_ms, rel=1e-4)


def test_what_was_never_run_is_told():
    local_only = [one for one in observe() if max(one.action) < 3 and one.action[0] != 1]
    with pytest.raises(ValueError, match="expected some of every model and node, found none of d1, edge_alone"):
        twin.fit(SCENARIO, local_only)
    with pytest.raises(ValueError, match="expected some of every model and node"):
        twin.fit(SCENARIO, [])
