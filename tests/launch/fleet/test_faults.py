"""Nodes that die, hang, answer late or garbage, and come back; links that are cut. Real processes, real kill -9.

`HL_JAX_SOAK_MINUTES=30` makes the last test a long one.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time

import jax
import jax.numpy as jnp
import numpy as np
import psutil
import pytest

from edge_cloud import inventory as inventories
from edge_cloud.rpc import CallError
from hl_jax.agents.factored.config import FactoredConfig
from hl_jax.agents.stepped import Stepped, host_world
from hl_jax.agents.world import Run, Totals
from launch.fleet import adapter
from launch.fleet.adapter import TestbedEnv
from launch.inputs import scenario_files
from launch.inputs.agents import make_agent
from tests.helpers import fleets
from tests.helpers.fleets import CLOUD, EDGE, params_of, wait_for

pytestmark = [pytest.mark.process, pytest.mark.clock]

DEADLINE_MS = 4000.0
SOAK_MINUTES = float(os.environ.get("HL_JAX_SOAK_MINUTES", "0"))
FEWEST_FAULTS = 6  # in the short mode
SLACK_S = 1.5  # for this process to be given the processor
LOCAL_ONLY = [7, 7]


@pytest.fixture(scope="module")
def env(model_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    inventory = inventories.load(fleets.ROOT / "data" / "inventories" / "local.toml")
    emulation = dataclasses.replace(inventory.emulation, scale=4.0, cpu_ms=fleets.CPU_MS, faults=True)
    changes = {"model_dir": str(model_dir), "emulation": emulation, "deadline_ms": DEADLINE_MS}
    inventory = dataclasses.replace(inventory, monitor_period_ms=300.0, **changes)
    scenario = scenario_files.load_scenario(fleets.ROOT / "data" / "scenarios" / "expA.toml").with_users(2)
    with TestbedEnv(scenario, inventory, params_of(scenario), folder=folder, record=folder / "steps.jsonl") as env:
        yield env


def observed_step(env: TestbedEnv, action) -> tuple[np.ndarray, dict]:
    """One step, which must keep its deadline and account for every device. Returns what is observed then, too."""
    started = time.monotonic()
    obs, _, _, _, info = env.step(action)
    assert time.monotonic() - started <= env.deadline_s + adapter.STATE_S + SLACK_S
    assert obs.shape == (12,)
    lost = info["lost"]
    assert (info["response_ms"][lost] == DEADLINE_MS).all()
    assert (info["response_ms"] <= DEADLINE_MS).all()
    assert [reason != "" for reason in info["reasons"]] == lost.tolist()
    return obs, info


def step(env: TestbedEnv, action) -> dict:
    return observed_step(env, action)[1]


def recovered(env: TestbedEnv) -> None:
    """Every node is used again."""
    wait_for(lambda: not step(env, [EDGE, CLOUD])["lost"].any(), 60.0)


def test_a_device_that_dies_costs_the_deadline_and_comes_back(env):
    recovered(env)
    env.testbed.kill("S1")
    info = step(env, LOCAL_ONLY)
    assert info["lost"].tolist() == [True, False]
    assert "Infer at S1: UNAVAILABLE" in info["reasons"][0]
    assert info["gone"].tolist() == [True, False]
    assert info["response_ms"][0] == DEADLINE_MS
    assert info["art_ms"] == pytest.approx(info["response_ms"][1])  # of those who are there
    env.testbed.restart("S1")
    recovered(env)


@pytest.mark.parametrize("name", ["edge", "cloud"])
def test_an_edge_or_cloud_that_dies_is_used_again_when_it_is_back(env, name):
    recovered(env)
    env.testbed.kill(name)
    info = step(env, LOCAL_ONLY)  # without edge and cloud nobody decides
    assert info["lost"].all()
    assert all(name in reason for reason in info["reasons"])
    env.testbed.restart(name)
    recovered(env)


@pytest.mark.parametrize(("name", "lost"), [("S2", [False, True]), ("edge", [True, True]), ("cloud", [True, True])])
def test_a_node_that_hangs_does_not_hold_a_step_past_its_deadline(env, name, lost):
    recovered(env)
    env.testbed.pause(name)
    try:
        info = step(env, LOCAL_ONLY)
        assert info["lost"].tolist() == lost
        assert info["stale"] == (name == "cloud")
    finally:
        env.testbed.resume(name)
    recovered(env)


def test_late_answers_cost_their_delay_or_the_deadline(env):
    recovered(env)
    env.fleet.set_fault("cloud", "late", 300.0)
    info = step(env, LOCAL_ONLY)
    assert not info["lost"].any()
    assert (info["response_ms"] >= 300.0).all()
    env.fleet.set_fault("cloud", "late", DEADLINE_MS + 500.0)
    info = step(env, LOCAL_ONLY)
    assert info["lost"].all()
    env.fleet.set_fault("cloud", "")
    time.sleep(0.6)  # answers that are late still arrive: the next steps must not take them for theirs
    recovered(env)


@pytest.mark.parametrize(("name", "lost"), [("S1", [True, False]), ("edge", [True, True])])
def test_garbage_is_a_lost_request(env, name, lost):
    recovered(env)
    env.fleet.set_fault(name, "garbage")
    try:
        info = step(env, LOCAL_ONLY)
        assert info["lost"].tolist() == lost
    finally:
        env.fleet.set_fault(name, "")
    recovered(env)


def test_a_link_that_is_cut_takes_its_device_with_it(env):
    recovered(env)
    env.fleet.set_link("S1", cut=True)
    info = step(env, [EDGE, EDGE])
    assert info["lost"].tolist() == [True, False]
    env.fleet.set_link("S1")
    recovered(env)


class Training:
    """`factored`, learning from whatever the fleet answers, an epoch of one real step at a time."""

    def __init__(self, env: TestbedEnv) -> None:
        self.lost = 0
        self._agent = make_agent("factored", FactoredConfig(recent=32), env.scenario)
        self._host, self._env = Stepped(self._agent), env
        agent_key, env_key = jax.random.split(jax.random.key(0))
        agent = self._agent.init(agent_key, jnp.asarray(env.reset()))
        self._run = Run(agent=agent, env=jnp.int32(0), env_key=env_key, totals=Totals.zero())

    @property
    def steps(self) -> int:
        return int(self._run.agent.real_steps)

    def epoch(self) -> None:
        def take(index, key, action):
            obs, info = observed_step(self._env, np.asarray(action))
            self.lost += int(info["lost"].sum())
            names = ("cost_ms", "art_ms", "feasible", "response_ms")
            return index + 1, jnp.asarray(obs), {name: jnp.asarray(info[name]) for name in names}

        self._run, _ = self._host.epoch(host_world(take), self._run, self._host.plan(1))


def _break(env: TestbedEnv, kind: str, name: str) -> None:
    if kind == "die":
        env.testbed.kill(name)
    elif kind == "hang":
        env.testbed.pause(name)
    elif kind == "cut":
        env.fleet.set_link(name, cut=True)
    else:
        env.fleet.set_fault(name, kind, 2.0 * DEADLINE_MS if kind == "late" else 0.0)


def _mend(env: TestbedEnv, kind: str, name: str) -> None:
    if kind == "die":
        env.testbed.restart(name)
    elif kind == "hang":
        env.testbed.resume(name)
    elif kind == "cut":
        env.fleet.set_link(name)
    else:
        env.fleet.set_fault(name, "")


def test_faults_drawn_at_random(env):
    """Training goes on: every step is accounted for and keeps its deadline, nodes come back, memory stays flat."""
    random = np.random.default_rng(0)
    training = Training(env)
    recovered(env)
    nodes = ("S1", "S2", "edge", "cloud")
    memory = {name: psutil.Process(env.testbed.pid(name)).memory_info().rss for name in (*nodes, "links")}
    ends, faults, epochs = time.monotonic() + 60.0 * SOAK_MINUTES, 0, 0
    while faults < FEWEST_FAULTS or time.monotonic() < ends:
        kind = ("die", "hang", "late", "garbage", "cut")[faults % 5]
        name = str(random.choice(("S1", "S2", "edge") if kind == "cut" else nodes))
        try:
            _break(env, kind, name)
        except CallError:
            continue  # it isn't quite back from the last fault: another is drawn
        for _ in range(int(random.integers(1, 3))):
            training.epoch()
            epochs += 1
        wait_for(lambda kind=kind, name=name: _mended(env, kind, name), 30.0)
        recovered(env)
        faults += 1
    assert training.steps == epochs
    assert training.lost >= faults  # each was felt
    for name, before in memory.items():
        now = psutil.Process(env.testbed.pid(name)).memory_info().rss
        assert now < 1.5 * before + 20e6, f"{name}: {before / 1e6:.0f} to {now / 1e6:.0f} MB after {faults} faults"
    lines = [json.loads(line) for line in env._record_path.read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(env.steps))
    children = psutil.Process().children(recursive=True)
    assert len([child for child in children if child.status() != psutil.STATUS_ZOMBIE]) == len(env.testbed.names())
    print(
        f"{faults} faults, {env.steps} steps, {epochs} of them of training, {training.lost} of whose requests were lost"
    )


def _mended(env: TestbedEnv, kind: str, name: str) -> bool:
    try:
        _mend(env, kind, name)
    except CallError:
        return False
    return True
