"""A fleet with its own traffic as an environment: the simulator's contract, its record, and nodes that die under it."""

from __future__ import annotations

import dataclasses
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edge_cloud import inventory as inventories
from hl_jax.agents.factored.config import FactoredConfig
from hl_jax.agents.stepped import Stepped, host_world
from hl_jax.agents.world import Run, Totals
from hl_jax.arrivals import Arrivals, Bandwidth, Traffic
from hl_jax.traffic import params as traffic_params
from hl_jax.traffic.environment import TrafficOrchestration
from launch.fleet.adapter import TestbedEnv, fleet_of
from launch.fleet.standing import StandingEnv, traffic_of
from launch.host.errors import InputError
from launch.inputs import scenario_files
from launch.inputs.agents import make_agent
from tests.helpers import fleets
from tests.helpers.fleets import EDGE, wait_for

pytestmark = [pytest.mark.process, pytest.mark.clock]

LOCAL = fleets.ROOT / "data" / "inventories" / "local.toml"
PERIOD_MS = 800.0


def scenario(**changes):
    one = scenario_files.load_scenario(fleets.ROOT / "data" / "scenarios" / "expA.toml").with_users(2)
    arrivals = (Arrivals(kind="periodic", interval_ms=100.0), Arrivals(kind="poisson", interval_ms=80.0))
    return dataclasses.replace(one, traffic=Traffic(arrivals=arrivals, period_ms=PERIOD_MS, **changes))


@pytest.fixture(scope="module")
def env(model_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("standing")
    inventory = inventories.load(LOCAL)
    emulation = dataclasses.replace(inventory.emulation, scale=2.0, cpu_ms=fleets.CPU_MS, faults=True)
    inventory = dataclasses.replace(
        inventory, model_dir=str(model_dir), emulation=emulation, deadline_ms=2000.0, monitor_period_ms=300.0
    )
    one = scenario()
    params = traffic_params.make_params(one)
    with StandingEnv(one, inventory, params, folder=folder, record=folder / "steps.jsonl") as env:
        env.reset()
        yield env


def settled(env, action):
    """A step in which everybody did what stands, and nobody was lost."""

    def step():
        info = env.step(action)[-1]
        fine = not info["unheard"].any() and not info["lost_requests"] and (info["done"] == info["count"]).all()
        return info if fine else None

    return wait_for(step, 60.0)


def test_a_step_tells_what_the_simulator_tells(env):
    key = jax.random.key(0)
    simulated = TrafficOrchestration()
    _, state = simulated.reset(key, env.traffic)
    *_, expected = jax.jit(simulated.step)(key, state, jnp.array([6, 7]), env.traffic)
    settled(env, [6, EDGE])  # how often a device asks is told from its second report on
    info = settled(env, [6, EDGE])
    assert info.keys() >= expected.keys()
    for name, value in expected.items():
        found = np.asarray(info[name])
        assert (found.shape, found.dtype.kind) == (value.shape, np.asarray(value).dtype.kind), name
    assert (info["computing_ms"] >= [7.99, 19.99]).all()
    assert (info["way_ms"] >= 0.0).all()
    assert info["made"][0] == pytest.approx(8, abs=2)  # one each 100 ms
    assert info["elapsed_ms"] == pytest.approx(PERIOD_MS, rel=0.5)
    assert info["cost_ms"] >= info["art_ms"] > 0.0
    for wrong in ([7], [7, 10], [0.5, 0.5]):
        with pytest.raises(ValueError, match=r"action: expected 2 integers in 0\.\.9"):
            env.step(wrong)


def test_a_device_that_dies_is_unheard_and_asks_again_when_it_is_back(env):
    settled(env, [7, 7])
    env.testbed.kill("S1")
    env.step([7, 7])
    info = env.step([7, 7])[-1]
    assert info["unheard"].tolist() == [True, False]
    assert info["gone"].tolist() == [True, False]
    assert info["count"][1] > 0
    env.testbed.restart("S1")
    wait_for(lambda: env.step([7, 7])[-1]["made"][0] > 0, 60.0)
    settled(env, [7, 7])


def test_devices_go_on_without_the_cloud(env):
    settled(env, [7, 6])
    env.testbed.kill("cloud")
    info = env.step([7, 6])[-1]
    assert info["unheard"].all()
    assert info["stale"]
    assert info["cost_ms"] == env.traffic.lost_ms  # nobody has told of anything
    time.sleep(3.0 * PERIOD_MS / 1000.0)  # the lease is over: each does its own fallback
    env.testbed.restart("cloud")
    # What the devices did meanwhile is told when somebody listens again.
    found = []

    def told():
        found.extend(len(seen.done) for seen in env.seen)
        return not env.step([7, 6])[-1]["unheard"].any()

    wait_for(told, 60.0)
    assert sum(len(seen.done) for seen in env.seen) + sum(found) > 2 * 8
    settled(env, [7, 6])


def test_tasks_for_an_edge_that_dies_are_lost_and_say_why(env):
    settled(env, [7, 7])
    env.testbed.kill("edge")
    env.testbed.restart("edge")
    settled(env, [EDGE, EDGE])
    lines = [json.loads(line) for line in env._record_path.read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(env.steps))
    assert {row["device"] for line in lines for row in line["devices"]} == {"S1", "S2"}


def test_factored_learns_from_it(env):
    settled(env, [7, 7])
    agent = make_agent("factored", FactoredConfig(rolled_out=4, rollouts=2), env.scenario)
    host = Stepped(agent)
    agent_key, env_key = jax.random.split(jax.random.key(0))
    run = Run(
        agent=agent.init(agent_key, jnp.asarray(env.reset())),
        env=jnp.int32(0),
        env_key=env_key,
        totals=Totals.zero(),
    )

    def take(index, key, action):
        obs, *_, info = env.step(np.asarray(action))
        return index + 1, jnp.asarray(obs), {name: jnp.asarray(value) for name, value in info.items()}

    for epoch in range(1, 7):
        run, _ = host.epoch(host_world(take), run, host.plan(epoch))
    assert int(run.agent.real_steps) == 6
    learned = agent.model(run.agent)
    assert np.isfinite(np.asarray(learned.computing_ms)).all()
    np.testing.assert_allclose(1.0 / learned.per_ms, [100.0, 80.0], rtol=0.5)


def test_what_real_nodes_cannot_do_is_refused():
    one = scenario()
    with pytest.raises(InputError, match="expected one without traffic, since devices ask together here, found some"):
        TestbedEnv(one, inventories.load(LOCAL), fleets.params_of(dataclasses.replace(one, traffic=None)))
    linked = dataclasses.replace(one.traffic, links=(Bandwidth(mbps=(1.0,)), None))
    with pytest.raises(InputError, match="mbps: expected none of real links"):
        traffic_of(dataclasses.replace(one, traffic=linked))
    with pytest.raises(InputError, match=r"waiting: expected at least 1 place to wait at a real node, found 0"):
        fleet_of(scenario(waiting=0), inventories.load(LOCAL))
    stamps = tuple(float(index) for index in range(20_000))
    traced = (Arrivals(kind="trace", stamps_ms=stamps, length_ms=32_000.0), one.traffic.arrivals[1])
    with pytest.raises(
        InputError, match=r"S1 on real nodes: traffic\.stamps_ms: expected 1 to 16000 of them, found 20000"
    ):
        traffic_of(dataclasses.replace(one, traffic=dataclasses.replace(one.traffic, arrivals=traced)))
