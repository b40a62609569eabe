"""The adapter: the contract that the simulator keeps too, on seven real processes; what it records, and its end."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import psutil
import pytest

from edge_cloud import inventory as inventories
from launch.fleet import adapter
from launch.fleet.adapter import TestbedEnv
from launch.host.errors import InputError
from launch.inputs import scenario_files
from tests.helpers import env_contract, fleets
from tests.helpers.fleets import params_of, wait_for

EXP_A = fleets.ROOT / "data" / "scenarios" / "expA.toml"
EXP_C = fleets.ROOT / "data" / "scenarios" / "expC.toml"
LOCAL = fleets.ROOT / "data" / "inventories" / "local.toml"


def local_inventory(model_dir: pathlib.Path, **changes):
    """The committed inventory, faster: fixed CPU times at a small scale."""
    inventory = inventories.load(LOCAL)
    emulation = dataclasses.replace(inventory.emulation, scale=4.0, cpu_ms=fleets.CPU_MS)
    values = {"model_dir": str(model_dir), "emulation": emulation, "monitor_period_ms": 300.0} | changes
    return dataclasses.replace(inventory, **values)


class GymnaxTestbed:
    """A fleet in gymnax 1.0's convention, which the simulator has. The state is the number of steps taken.

    `reset(key, params)` and `step(key, state, action, params)`; keys and params aren't used: the fleet is what it is.
    """

    def __init__(self, env: TestbedEnv) -> None:
        self._env = env

    def reset(self, key: Any, params: Any) -> tuple[np.ndarray, np.int32]:
        """Returns the observation [3N + 6] int32 and the state."""
        return self._env.reset(), np.int32(0)

    def step(self, key: Any, state: np.int32, action: Any, params: Any) -> tuple[Any, ...]:
        """One joint decision ([N] int32): obs, state, reward, terminated, truncated, info."""
        obs, *rest = self._env.step(np.asarray(action))
        return (obs, np.int32(state + 1), *rest)


@pytest.mark.process
@pytest.mark.clock
def test_the_contract_and_everything_that_a_step_leaves(model_dir, tmp_path):
    scenario = dataclasses.replace(scenario_files.load_scenario(EXP_C), constraint=85.0)
    record = tmp_path / "steps.jsonl"
    inventory = local_inventory(model_dir, deadline_ms=20000.0)
    with TestbedEnv(scenario, inventory, params_of(scenario), folder=tmp_path / "testbed", record=record) as env:
        names = {node.name: node for node in env.inventory.nodes}
        assert [names[name].link for name in ("S1", "S2", "S3", "S4", "S5")] == ["weak"] * 3 + ["regular"] * 2
        processes = [psutil.Process(env.testbed.pid(name)) for name in env.testbed.names()]
        env_contract.check_environment(GymnaxTestbed(env), env.params, steps=12, repeatable=False)
        # The links as the scenario has them; a machine that is busy may delay the messages of regular ones, too.
        steps_before = env.steps
        wait_for(lambda: list(env.step(np.array([7, 7, 7, 7, 7]))[0][10:15]) == [1, 1, 1, 0, 0], 60.0)
        _, reward, _, _, info = env.step(np.array([7, 7, 7, 7, 7]))
        assert not info["lost"].any()
        assert info["reasons"] == ("",) * 5
        assert not info["feasible"]
        # Table III: five d7 average 72.8 %, 12.2 points short of 85.
        assert -reward - info["art_ms"] == pytest.approx(100.0 + 212.0 * 12.2, rel=1e-3)
        assert env.profile([7, 7, 7, 7, 7], times=3).shape == (3, 5)
        for action in ([7] * 4, [7, 7, 7, 7, 10], [7, 7, 7, 7, -1], [0.5] * 5):
            with pytest.raises(ValueError, match=r"action: expected 5 integers in 0\.\.9"):
                env.step(action)
        steps = env.steps
    assert not any(process.is_running() for process in processes)
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(steps))
    assert steps_before == 12
    assert steps >= 17
    assert all(len(line["outcomes"]) == 5 for line in lines)


@pytest.mark.process
@pytest.mark.clock
def test_a_failure_takes_the_testbed_down(model_dir, tmp_path):
    scenario = scenario_files.load_scenario(EXP_A).with_users(1)
    processes = []

    def fail() -> None:
        with TestbedEnv(scenario, local_inventory(model_dir), params_of(scenario)) as env:
            processes.extend(psutil.Process(env.testbed.pid(name)) for name in env.testbed.names())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert len(processes) == 4
    assert not any(process.is_running() for process in processes)


@pytest.mark.process
@pytest.mark.clock
def test_no_node_outlives_a_trainer_that_was_killed(model_dir, tmp_path):
    script = textwrap.dedent(
        """
        import pathlib, sys, time
        from edge_cloud import inventory
        from launch.fleet import testbed
        bed = testbed.Testbed(inventory.load(sys.argv[1]), pathlib.Path(sys.argv[2]))
        bed.start()
        print(*(bed.pid(name) for name in bed.names()), flush=True)
        time.sleep(600)
        """
    )
    inventory = dataclasses.replace(local_inventory(model_dir), nodes=local_inventory(model_dir).nodes[-3:])
    inventories.save(dataclasses.replace(inventory, certificates=str(tmp_path)), tmp_path / "fleet.json")
    command = [sys.executable, "-c", script, str(tmp_path / "fleet.json"), str(tmp_path / "testbed")]
    environment = dict(os.environ, PYTHONPATH=str(fleets.ROOT))
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as trainer:
        nodes = [psutil.Process(int(word)) for word in trainer.stdout.readline().split()]
        assert len(nodes) == 4  # links, cloud, edge, one device
        assert all(node.is_running() for node in nodes)
        trainer.send_signal(signal.SIGKILL)
    wait_for(lambda: not any(node.is_running() for node in nodes), 30.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": ("d0", "d1")}, r"models: expected those of scenario A \(d0, .*\), found d0, d1 in inventory local"),
        ({"nodes": slice(1, None)}, "nodes: expected scenario A's devices, found none for S1 in local"),
    ],
)
def test_an_inventory_that_does_not_fit_is_refused(change, message):
    inventory = inventories.load(LOCAL)
    values = {key: inventory.nodes[value] if isinstance(value, slice) else value for key, value in change.items()}
    with pytest.raises(InputError, match=message):
        adapter.fleet_of(scenario_files.load_scenario(EXP_A), dataclasses.replace(inventory, **values))


def test_a_scenario_with_fewer_models_takes_those():
    scenario = scenario_files.load_scenario(EXP_A).with_knobs("offloading")
    assert adapter.fleet_of(scenario, local_inventory(pathlib.Path("models"))).models == scenario.pool.names == ("d0",)


def test_a_dynamic_scenario_is_refused():
    scenario = scenario_files.load_scenario(fleets.ROOT / "data" / "scenarios" / "dynamic.toml")
    with pytest.raises(InputError, match="expected fixed conditions on real nodes"):
        adapter.fleet_of(scenario, inventories.load(LOCAL))


def with_fixed_ports(scenario):
    """The local inventory as a fleet that runs already, fitted to a scenario."""
    fitted = adapter.fleet_of(scenario, inventories.load(LOCAL))
    nodes = tuple(
        dataclasses.replace(node, address=f"127.0.0.1:{port}") for port, node in enumerate(fitted.nodes, 9000)
    )
    return dataclasses.replace(fitted, nodes=nodes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda fleet: {"models": (*fleet.models[1::-1], *fleet.models[2:])},
            "models: expected .* d0, d1, .* found d1, d0",
        ),
        (lambda fleet: {"models": fleet.models[:3]}, "models: expected .* found d0, d1, d2 in inventory local"),
        (
            lambda fleet: {"nodes": (*fleet.nodes[1::-1], *fleet.nodes[2:])},
            "devices: expected .* found S2, S1",
        ),
        (lambda fleet: {"nodes": fleet.nodes[1:]}, "devices: expected .* found S2, S3, S4, S5"),
        (lambda fleet: replaced(fleet, 1, link="weak"), "links: expected .* found regular, weak"),
        (lambda fleet: replaced(fleet, 2, speed=2.0), r"speeds: expected .* found 1.0, 1.0, 2.0"),
        (lambda fleet: replaced(fleet, -1, cores=8), "cores of edge and cloud: expected .*2, 4, found 2, 8"),
    ],
)
def test_a_fleet_that_runs_already_is_what_the_scenario_says(change, message):
    scenario = scenario_files.load_scenario(EXP_A)
    fleet = with_fixed_ports(scenario)
    params = fleets.params_of(scenario)
    adapter.TestbedEnv(scenario, fleet, params)
    other = dataclasses.replace(fleet, **change(fleet))
    with pytest.raises(InputError, match=message):
        adapter.TestbedEnv(scenario, other, params)


def replaced(fleet, place, **changes):
    nodes = list(fleet.nodes)
    nodes[place] = dataclasses.replace(nodes[place], **changes)
    return {"nodes": tuple(nodes)}


def test_on_real_machines_nobody_knows_links_and_speeds():
    scenario = scenario_files.load_scenario(EXP_A)
    fleet = dataclasses.replace(with_fixed_ports(scenario), emulation=None)
    weak = dataclasses.replace(fleet, **replaced(fleet, 1, link="weak"))
    adapter.TestbedEnv(scenario, weak, fleets.params_of(scenario))


def test_regular_links_have_no_relay():
    inventory = inventories.load(LOCAL)
    regular = adapter.fleet_of(scenario_files.load_scenario(EXP_A), inventory)
    assert [node.uplink for node in regular.nodes] == [""] * 7
    some = adapter.fleet_of(scenario_files.load_scenario(EXP_C), inventory)
    assert [node.uplink != "" for node in some.nodes] == [True, True, True, False, False, False, False]
    edge = adapter.fleet_of(scenario_files.load_scenario(fleets.ROOT / "data" / "scenarios" / "expB.toml"), inventory)
    assert [node.uplink != "" for node in edge.nodes] == [True] * 6 + [False]
