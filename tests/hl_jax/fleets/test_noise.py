"""Times that a fleet's environment draws: as profiles measured them, or log-normal where a scenario says so."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hl_jax.fleets.environment import FleetOrchestration
from hl_jax.fleets.machines import Link, Member, Radio, Station
from hl_jax.fleets.params import make_params
from hl_jax.fleets.scenario import FleetScenario
from launch.inputs import profile_files
from launch.inputs.scenario_files import load_pool
from tests.helpers.builders import ROOT
from tests.helpers.numpy_fleet import fleet

DRAWS = 20_000
steps = jax.jit(jax.vmap(FleetOrchestration().step, in_axes=(0, None, None, None)))
reset = jax.jit(FleetOrchestration().reset)


def measured() -> FleetScenario:
    """Four devices as MLPerf measured them, one of which offloads."""
    devices = (
        Member("pi", "raspberry-pi-4", "edge", Link(5.0, 100.0), ("tflite-2.4-fan", "armnn-21.02-fan")),
        Member("xavier", "jetson-xavier", "edge", Link(5.0, 100.0), speed=2.0),
        Member("hikey", "hikey960", "edge", Link(5.0, 100.0)),
        Member("rock", "rk3399", "edge", Link(5.0, 100.0)),
    )
    return FleetScenario(
        name="measured",
        pool=load_pool(ROOT / "data" / "pools" / "mobilenet.toml"),
        profiles=tuple(profile_files.load_profile(path) for path in profile_files.shipped_profiles()),
        devices=devices,
        edges=(Station("edge", "aws-m7g-2xlarge"),),
        radio=Radio(wait_mw=1000.0),
    )


def drawn(scenario: FleetScenario, labels: tuple[str, ...], seed: int = 0) -> dict[str, np.ndarray]:
    """What steps say beside their observations. [DRAWS, ...] each."""
    params = make_params(scenario)
    action = jnp.array([scenario.choice_labels().index(label) for label in labels], jnp.int32)
    state = reset(jax.random.key(seed), params)[1]
    return jax.device_get(steps(jax.random.split(jax.random.key(seed + 1), DRAWS), state, action, params)[-1])


def test_quantiles_are_as_measured():
    """Of rows whose tails are long: p99 is 1.4 to 3.9 medians."""
    scenario = measured()
    choices = (
        ("d0/L:tflite-2.4-fan", "d4/L:armnn-21.02", "d3/L:armnn-19.08", "d2/E:tflite"),
        ("d6/L:tflite-2.4-fan", "d7/L:tflite-2.4", "d7/L:tflite-1.15", "d0/L:tflite-2.4"),
    )
    kinds = {one.kind: one for one in scenario.profiles}
    for labels in choices:
        seen = drawn(scenario, labels)
        for index, (device, label) in enumerate(zip(scenario.devices, labels, strict=True)):
            model, _, place = label.partition("/")
            where, _, target = place.partition(":")
            away = where == "E"
            entry = kinds["aws-m7g-2xlarge" if away else device.kind].entry(target, model)
            times = (seen["response_ms"] - seen["way_ms"])[:, index] * (1.0 if away else device.speed)
            assert np.quantile(times, 0.5) == pytest.approx(entry.p50_ms, rel=0.02)
            assert np.quantile(times, 0.9) == pytest.approx(entry.p90_ms, rel=0.05)
            assert np.quantile(times, 0.99) == pytest.approx(entry.p99_ms, rel=0.15)


def test_what_is_expected_is_the_mean_of_what_is_drawn():
    """Of times, of energies, of costs; the tolerance is four standard errors."""
    scenario = dataclasses.replace(measured(), goal=dataclasses.replace(measured().goal, objective="both"))
    scenario = dataclasses.replace(scenario, devices=scenario.devices[:3])
    seen = drawn(scenario, ("d2/E:tflite", "d4/L:armnn-21.02", "d2/E:tflite"))
    for name, expected in (("response_ms", seen["mean_ms"][0]), ("cost_ms", None), ("energy_mj", None)):
        values = np.asarray(seen[name], np.float64).reshape(DRAWS, -1)
        if name == "cost_ms":
            expected = 0.5 * seen["mean_ms"][0].mean() + 0.5 * seen["energy_mj"].astype(np.float64).mean()
        elif name == "energy_mj":
            own = next(one for one in scenario.profiles if one.kind == "jetson-xavier").energy_mj("armnn-21.02", "d4")
            # A device that waits draws 1 W; sending takes 12.04 ms of the way, and draws nothing here.
            away = seen["mean_ms"][0] - 12.04224
            expected = np.array([away[0], own / 2.0, away[2]])
        error = 4.0 * values.std(axis=0) / np.sqrt(DRAWS)
        assert (np.abs(values.mean(axis=0) - expected) <= error + 1e-4 * values.mean(axis=0)).all(), name
    # Who waits for the other there is slowed by its own law: times are whole multiples.
    np.testing.assert_allclose(seen["waiting_ms"][:, [0, 2]], 0.5 * seen["computing_ms"][:, [0, 2]], rtol=1e-5)


def test_noise_may_be_log_normal():
    scenario = fleet(noise=0.1)
    seen = drawn(scenario, ("big/L:cpu", "small/L:cpu", "mid/C:gpu"))
    logs = np.log(seen["computing_ms"] / [120.0, 100.0, 4.5])
    normal = {0.01: -2.3263, 0.1: -1.2816, 0.5: 0.0, 0.9: 1.2816, 0.99: 2.3263}
    for probability, z in normal.items():
        np.testing.assert_allclose(np.quantile(logs, probability, axis=0), 0.1 * z, atol=0.008)
    np.testing.assert_allclose(logs.std(axis=0), 0.1, rtol=0.03)
    np.testing.assert_allclose(seen["mean_ms"][0, :2], np.exp(0.005) * np.array([120.0, 100.0]), rtol=2e-4)
    assert abs(np.corrcoef(logs.T)[0, 1]) < 0.03  # each device's own


def test_without_noise_a_step_takes_the_median():
    seen = drawn(fleet(noise=0.0), ("big/L:cpu", "small/L:cpu", "mid/C:gpu"))
    np.testing.assert_allclose(seen["computing_ms"], np.broadcast_to([120.0, 100.0, 4.5], (DRAWS, 3)), rtol=1e-6)


def test_deadlines_are_missed_as_often_as_their_quantile_says():
    """The 95th percentile of a sensor's small model is 140 ms: a deadline there is missed once in twenty times."""
    devices = (dataclasses.replace(fleet().devices[1], deadline_ms=140.001), fleet().devices[2])
    seen = drawn(fleet(devices=devices), ("small/L:cpu", "big/L:gpu"))
    assert seen["feasible"].all()
    assert seen["missed"][:, 0].mean() == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / DRAWS))
    assert not seen["missed"][:, 1].any()
