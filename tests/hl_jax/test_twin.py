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
from tests.helpers.builders import DYNAMICS, small_scenario

USERS = 4
SCENARIO = small_scenario(
    USERS,
    devices=tuple(Device(f"S{index}", speed=2.0 if index == 1 else 1.0) for index in range(USERS)),
    edge=Node("regular", 2, twin.CONTENTION),
    cloud=Node("regular", 3, twin.CONTENTION),
)
# What the builders' cores are calibrated to is the queue's own here.
TIMING = dataclasses.replace(SCENARIO.timing, cloud_reference_cores=3)


def observe(
    noise: float = 0.0, repeats: int = 1, seed: int = 0, places=("", "device", "edge", "cloud"), scenario=SCENARIO
) -> list[Observation]:
    """A fleet with `TIMING`, as the simulator has it, under all links."""
    generator, seen = np.random.default_rng(seed), []
    for place in places:
        params = simulator.make_params(dataclasses.replace(scenario, timing=TIMING))
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
        if field.name == "speeds":
            continue
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


def test_speeds_are_measured_not_believed():
    """The scenario says 2 and 1; the fleet has 3, 0.5 and twice as said, and keeps the scenario's scale."""
    true = (1.0, 3.0, 0.5, 1.0)
    fleet = dataclasses.replace(
        SCENARIO,
        devices=tuple(dataclasses.replace(one, speed=s) for one, s in zip(SCENARIO.devices, true, strict=True)),
    )
    seen = observe(scenario=fleet) + observe(scenario=fleet, places=("",))
    made = twin.fit(SCENARIO, seen)
    found = np.array([dict(made.timing.speeds)[one.name] for one in SCENARIO.devices])
    scale = found[0] / true[0]
    assert found == pytest.approx(scale * np.array(true), rel=2e-3)
    assert np.log(found / [1.0, 2.0, 1.0, 1.0]).mean() == pytest.approx(0.0, abs=2e-3)
    # What matters is what the times come to.
    assert np.array(made.timing.local_ms) / scale == pytest.approx(TIMING.local_ms, rel=2e-3)
    assert np.abs(made.error_percent).max() < 0.2
    there = dataclasses.replace(SCENARIO, timing=made.timing)
    assert there.speeds == pytest.approx(found)


def test_equal_devices_stay_equal_in_noise():
    made = twin.fit(SCENARIO, observe(noise=0.05, repeats=6))
    assert dict(made.timing.speeds) == {"S0": 1.0, "S1": 2.0, "S2": 1.0, "S3": 1.0}


def test_what_was_not_measured_says_so_and_is_refused_where_it_matters():
    made = twin.fit(SCENARIO, observe(places=("",)))
    weak = {f"{name}_ms" for name in twin.SHARED if name.startswith("weak")}
    assert set(made.timing.unmeasured) == weak
    regular = dataclasses.replace(SCENARIO, timing=made.timing)
    assert regular.unmeasured() == ()
    simulator.make_params(regular)
    for change, missing in (
        ({"edge": Node("weak", 2, twin.CONTENTION)}, ("weak_edge_ms", "weak_edge_offload_ms")),
        ({"cloud": Node("weak", 3, twin.CONTENTION)}, ("weak_cloud_offload_ms",)),
        (
            {"devices": (*SCENARIO.devices[:3], Device("S3", "weak"))},
            ("weak_device_ms", "weak_device_offload_ms"),
        ),
        ({"devices": (*SCENARIO.devices[:3], Device("stranger"))}, ("speeds.stranger",)),
        ({"dynamics": DYNAMICS}, tuple(sorted(weak, key=made.timing.unmeasured.index))),
    ):
        other = dataclasses.replace(regular, **change)
        assert set(other.unmeasured()) == set(missing), change
        with pytest.raises(ValueError, match=f"calibration: expected measured times .* found none for .*{missing[0]}"):
            simulator.make_params(other)
    without = dataclasses.replace(regular, edge=Node("weak", 2), offloading=False)
    assert without.unmeasured() == ("weak_edge_ms",)


def test_a_node_whose_tasks_never_wait_tells_nothing_of_waiting():
    """Two devices, and a cloud of three cores; a third device would wait there as long as nobody has measured."""
    two = SCENARIO.with_users(2)
    seen = [
        Observation(one.action[:2], one.response_ms[:, :2], one.weak_devices[:2], one.weak_edge, one.weak_cloud)
        for one in observe()
        if len({*one.action[2:]} & {3, 4}) == 0 or one.action[0] == one.action[3]
    ]
    seen = [one for one in seen if one.action.count(3) <= 1]
    made = twin.fit(two, [one for one in seen if one.action.count(4) != 2] + observe_two(two))
    assert "cloud_share_ms" in made.timing.unmeasured
    assert dataclasses.replace(two, timing=made.timing).unmeasured() == ()
    four = dataclasses.replace(SCENARIO, timing=dataclasses.replace(made.timing, speeds=()))
    assert "cloud_share_ms" in four.unmeasured()


def observe_two(scenario):
    params = simulator.make_params(dataclasses.replace(scenario, timing=TIMING))
    return [
        Observation(
            action,
            np.asarray(simulator.response_ms(params, params.start, jnp.array(action, jnp.int32)))[None],
            (False, False),
        )
        for action in [(0, 1), (1, 2), (2, 0), (3, 0), (4, 1), (4, 4)]
    ]


def test_links_that_were_always_weak_are_in_the_other_times():
    made = twin.fit(SCENARIO, observe(places=("edge",)))
    assert {"weak_edge_ms", "weak_edge_offload_ms"} <= set(made.timing.unmeasured)
    assert made.timing.local_ms[0] > TIMING.local_ms[0]
