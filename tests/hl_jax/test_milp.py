"""The oracle for large fleets against brute force, and the scenario files that need it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hl_jax import simulator
from hl_jax.objective import CONSTRAINTS, constraint_value
from hl_jax.optimum import milp, oracle
from hl_jax.scenario import Device, Node
from launch.inputs.scenario_files import load_scenario
from tests.helpers.builders import SCENARIOS, small_scenario

OFFLOADING = {"ten": 10, "twenty": 20, "fifty": 50, "hundred": 100, "unequal": 5}


@pytest.mark.parametrize("experiment", ["A", "B", "C", "D"])
@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_it_is_brute_force_on_the_papers_experiments(experiment: str, constraint: str) -> None:
    scenario = load_scenario(SCENARIOS / f"exp{experiment}.toml").with_users(4)
    value = constraint_value(constraint, scenario.pool)
    params = simulator.make_params(dataclasses.replace(scenario, constraint=value))
    truth, found = oracle.brute_force(params), milp.optimum(params)
    np.testing.assert_allclose(found.art_ms, truth.art_ms, rtol=2e-6)
    assert found.bound_ms <= truth.art_ms * (1.0 + 2e-6)
    assert simulator.meets_constraint(params, np.array(found.decision, np.int32))


@pytest.mark.parametrize("form", ["linear", "steps", "quadratic"])
def test_unequal_devices_and_other_contention(form: str) -> None:
    devices = tuple(
        Device(f"S{i}", link, speed) for i, (link, speed) in enumerate([("weak", 0.2), ("regular", 2.0)] * 2)
    )
    scenario = small_scenario(devices=devices, edge=Node("weak", 1, form), cloud=Node("weak", 2, form), constraint=84.0)
    params = simulator.make_params(scenario)
    np.testing.assert_allclose(milp.optimum(params).art_ms, oracle.brute_force(params).art_ms, rtol=2e-6)


def test_a_constraint_that_cannot_be_met_is_refused() -> None:
    params = simulator.make_params(small_scenario()).replace(constraint=np.float32(99.0))
    with pytest.raises(
        ValueError, match=r"constraint: expected a mean accuracy that some joint action meets, found 99 %"
    ):
        milp.optimum(params)


def test_times_of_another_structure_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    true = simulator.response_ms

    def squared(params: simulator.EnvParams, conditions: simulator.Conditions, action: np.ndarray) -> np.ndarray:
        return true(params, conditions, action) ** 2

    devices = tuple(Device(f"S{i}", link) for i, link in enumerate(["regular", "weak"]))
    params = simulator.make_params(small_scenario(devices=devices))
    monkeypatch.setattr(simulator, "response_ms", squared)
    with pytest.raises(ValueError, match="expected an offloaded task's to be a device's part plus a node's"):
        milp.probe(params)


@pytest.mark.parametrize("name", OFFLOADING)
def test_the_best_decision_of_a_large_scenario_offloads_a_fifth(name: str) -> None:
    scenario = load_scenario(SCENARIOS / f"{name}.toml")
    assert scenario.users == OFFLOADING[name]
    for constraint in CONSTRAINTS if scenario.users > 5 else (scenario.constraint,):
        value = constraint_value(constraint, scenario.pool)
        params = simulator.make_params(dataclasses.replace(scenario, constraint=value))
        found = milp.optimum(params, relative_gap=1e-4)
        offloaded = sum(choice >= len(scenario.pool.names) for choice in found.decision)
        assert offloaded >= scenario.users / 5
        alone = milp.probe(params)
        local = milp.solve(dataclasses.replace(alone, part=alone.part + 1e6), relative_gap=1e-4)
        assert local.art_ms > 1.01 * found.art_ms, "all local would be within 1 %"


@pytest.mark.parametrize("users", [1, 3, 5, 6])
def test_a_fleet_that_offloads_nothing_has_an_optimum_too(users: int) -> None:
    """`--knobs=models`: devices differ in speed and link, and the models' accuracies must do."""
    scenario = load_scenario(SCENARIOS / "unequal.toml" if users <= 5 else SCENARIOS / "ten.toml").with_users(users)
    params = simulator.make_params(scenario.with_knobs("models"))
    assert params.accuracy.shape[0] == params.local_ms.shape[1]
    found = milp.optimum(params)
    best = oracle.brute_force(params)
    assert found.art_ms == pytest.approx(best.art_ms, rel=1e-6)
    assert tuple(found.decision) in {tuple(one) for one in best.optimal.tolist()}
    assert oracle.optimum(params).art_ms == pytest.approx(best.art_ms, rel=1e-6)


def test_a_large_fleet_that_offloads_nothing_is_solved() -> None:
    scenario = load_scenario(SCENARIOS / "hundred.toml").with_knobs("models")
    best = oracle.optimum(simulator.make_params(scenario))
    assert len(best.decision) == 100
    assert max(best.decision) < len(scenario.pool.names)
