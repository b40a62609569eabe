"""From measuring a fleet to its twin's best candidates, with a fleet that the simulator plays."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from edge_cloud import inventory as inventories
from hl_jax import simulator
from hl_jax.fitting import twin
from hl_jax.optimum import candidates, oracle
from launch.fleet import profile as fleet_profile
from launch.inputs import scenario_files
from tests.helpers import fleets

SCENARIO = scenario_files.load_scenario(fleets.ROOT / "data" / "scenarios" / "expC.toml")
INVENTORY = inventories.load(fleets.ROOT / "data" / "inventories" / "local.toml")


class Played:
    """In the place of `TestbedEnv`: a fleet that obeys the paper's times, on cores that serve a queue."""

    def __init__(self, scenario, inventory, params):
        nodes = {name: dataclasses.replace(getattr(scenario, name), contention="queue") for name in ("edge", "cloud")}
        played = dataclasses.replace(scenario, timing=SCENARIO.timing, **nodes)  # whatever its twin believes
        self.params = simulator.make_params(played)
        self.conditions, self.fleet, self.inventory = self.params.start, self, inventory
        self.names = [device.name for device in scenario.devices]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def set_link(self, node, up_ms=0.0, down_ms=0.0):
        if node in self.names:
            weak = self.conditions.device_weak.at[self.names.index(node)].set(up_ms > 0)
            self.conditions = self.conditions.replace(device_weak=weak)
        else:
            self.conditions = self.conditions.replace(node_weak=jnp.array([up_ms > 0, 0], jnp.int32))

    def profile(self, action, times):
        mean = simulator.response_ms(self.params, self.conditions, jnp.array(action, jnp.int32))
        return np.tile(np.asarray(mean), (times, 1))


@pytest.fixture
def played(monkeypatch):
    monkeypatch.setattr(fleet_profile, "TestbedEnv", Played)


def test_a_fleet_that_is_measured_gives_its_own_times(played):
    made = twin.fit(SCENARIO, fleet_profile.measure(SCENARIO, INVENTORY, repeats=2))
    # A weak cloud isn't measured, and the table's cores are the scenario's: all else must come back.
    assert made.timing.unmeasured == ("weak_cloud_offload_ms",)
    assert made.timing.speeds == tuple((device.name, device.speed) for device in SCENARIO.devices)
    for field in dataclasses.fields(made.timing):
        if field.name in ("weak_cloud_offload_ms", "unmeasured", "speeds"):
            continue
        expected = getattr(SCENARIO.timing, field.name)
        assert getattr(made.timing, field.name) == pytest.approx(expected, rel=2e-3, abs=0.05), field.name
    assert fleet_profile.summary_of(made.error_percent)["worst"] < 0.1


@pytest.mark.parametrize(("users", "models"), [(1, 8), (2, 3), (5, 8), (9, 8)])
def test_every_device_runs_every_model_and_every_number_of_tasks_is_sent(users, models):
    planned = fleet_profile.planned_actions(users, models)
    assert all(len(action) == users for action in planned)
    for device in range(users):
        assert {action[device] for action in planned} >= set(range(models))
    for tier in (models, models + 1):
        assert {action.count(tier) for action in planned} == set(range(users + 1))


def test_held_out_errors_are_those_of_the_prediction(played):
    nodes = {name: dataclasses.replace(getattr(SCENARIO, name), contention="queue") for name in ("edge", "cloud")}
    right = dataclasses.replace(SCENARIO, **nodes)
    errors, seen = fleet_profile.held_out(right, INVENTORY, count=6, repeats=2)
    assert len(seen) == 6
    assert np.abs(errors).max() < 0.01
    slower = dataclasses.replace(right.timing, local_ms=tuple(1.1 * ms for ms in right.timing.local_ms))
    errors, _ = fleet_profile.held_out(dataclasses.replace(right, timing=slower), INVENTORY, count=6, repeats=2)
    assert 0.0 < np.median(errors) <= 10.0


def test_the_best_candidates_are_the_oracles_and_equal_devices_count_once():
    scenario = dataclasses.replace(SCENARIO.with_users(4), constraint=85.0)
    found = candidates.best_candidates(scenario, 20)
    best = oracle.brute_force(simulator.make_params(scenario))
    assert found[0][1] == pytest.approx(best.art_ms, rel=1e-5)
    assert [art for _, art in found] == sorted(art for _, art in found)
    forms = [candidates.canonical(scenario, action) for action, _ in found]
    assert len(set(forms)) == len(forms) == 20
    # S1 to S3 are behind weak links, S4 is not: it isn't exchanged with them.
    assert candidates.canonical(scenario, (5, 3, 4, 1)) == (3, 4, 5, 1)
    accuracy = np.array(scenario.pool.accuracy + scenario.pool.accuracy[:1] * 2)
    assert all(accuracy[list(action)].mean() >= 85.0 - 1e-3 for action, _ in found)
