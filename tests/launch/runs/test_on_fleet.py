"""Training on real nodes: what a run leaves, kill -9 and resume, going on from a twin's run, mistakes in one line."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import psutil
import pytest

from edge_cloud import inventory as inventories
from hl_jax import simulator
from hl_jax.agents.q_learning import agent as q_learning
from hl_jax.agents.q_learning.config import QLearningConfig
from hl_jax.optimum import oracle
from hl_jax.simulator import Orchestration
from launch.host.errors import InputError, RunError
from launch.inputs import agents, scenario_files
from launch.inputs.settings import RealSettings, Settings
from launch.runs import fleet_figures, learned, unit
from launch.runs import on_fleet as real
from launch.runs.folder import RunFolder
from tests.helpers import fleets

LOCAL = fleets.ROOT / "data" / "inventories" / "local.toml"
SCENARIO = scenario_files.load_scenario(fleets.ROOT / "data" / "scenarios" / "expA.toml").with_users(2)
CONFIG = QLearningConfig(epochs=3, epoch_steps=6, q_penalty="learned")


def chosen(**changes) -> Settings:
    fleet = inventories.as_data(inventories.load(LOCAL))
    known = RealSettings(inventory=fleet, twin=True, init_from="", measurements=4)
    values = {"scenario": SCENARIO, "constraint": "85", "agent": "q_learning", "config": CONFIG, "seeds": (0, 1)}
    return Settings(**({"lanes": 1, "real": known} | values | changes))


class Simulated:
    """In the place of real nodes: the simulator behind the adapter's methods. Interrupts when told to."""

    interrupt_at = -1
    reported: float | None = None  # a response time that the first device reports in step 8

    def __init__(self, scenario, inventory, params, *, folder, record):
        self.params, self.record_path, self.note = params, record, {}
        self._step = jax.jit(Orchestration().step)
        self.steps = len(record.read_text().splitlines()) if record.exists() else 0

    def __enter__(self):
        self.record = self.record_path.open("a")
        return self

    def __exit__(self, *_):
        self.record.close()

    def reset(self):
        obs, self.state = Orchestration().reset(jax.random.key(0), self.params)
        return np.asarray(obs)

    def step(self, joint):
        if self.steps == type(self).interrupt_at:
            raise KeyboardInterrupt
        obs, self.state, *rest, info = self._step(jax.random.key(self.steps), self.state, joint, self.params)
        info = jax.device_get(info) | {"lost": np.zeros(2, bool), "gone": np.zeros(2, bool)}
        if self.steps == 8 and self.reported is not None:
            info["response_ms"] = np.array([self.reported, info["response_ms"][1]], np.float32)
        outcomes = [{"response_ms": float(ms)} for ms in info["response_ms"]]
        entry = self.note | {"step": self.steps, "action": joint.tolist(), "outcomes": outcomes}
        self.record.write(json.dumps(entry) + "\n")
        self.record.flush()
        self.steps += 1
        return np.asarray(obs), *rest, info


@pytest.fixture
def simulated(monkeypatch):
    monkeypatch.setattr(real, "TestbedEnv", Simulated)
    monkeypatch.setattr(Simulated, "interrupt_at", -1)


def test_an_interrupted_run_goes_on_from_its_last_epoch(simulated, tmp_path, monkeypatch):
    monkeypatch.setattr(Simulated, "interrupt_at", 15)  # in the third epoch of the first seed
    with pytest.raises(KeyboardInterrupt):
        unit.run(chosen(), RunFolder(tmp_path / "run"))
    monkeypatch.setattr(Simulated, "interrupt_at", -1)
    summary = unit.run(chosen(), RunFolder(tmp_path / "run"))
    first, second = summary.seeds
    assert (first.real_steps, second.real_steps) == (18, 18)
    # Three steps of the epoch that was interrupted were taken for nothing, but were taken.
    assert (first.measured.interactions, second.measured.interactions) == (18 + 3 + 4, 18 + 4)
    notes = [json.loads(line) for line in (tmp_path / "run" / "steps.jsonl").read_text().splitlines()]
    assert [note["step"] for note in notes] == list(range(47))
    assert sum(note["phase"] == "measure" for note in notes) == 8
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + 6


@pytest.mark.parametrize("reported", [float("nan"), 0.0, -1.0, float("inf")])
def test_a_response_time_that_is_none_is_told_and_nothing_recorded_is_lost(simulated, tmp_path, monkeypatch, reported):
    monkeypatch.setattr(Simulated, "reported", reported)
    expected = r"response times: expected finite ones above 0 ms, found \[.*\] in seed 0, epoch 2, step 9"
    with pytest.raises(RunError, match=expected):
        unit.run(chosen(), RunFolder(tmp_path / "run"))
    assert len((tmp_path / "run" / "steps.jsonl").read_text().splitlines()) == 9
    monkeypatch.setattr(Simulated, "reported", None)
    summary = unit.run(chosen(), RunFolder(tmp_path / "run"))  # from the first epoch's checkpoint
    assert [seed.real_steps for seed in summary.seeds] == [18, 18]


class Spoilt(q_learning.QLearning):
    """Its table becomes NaN in the second epoch."""

    def epoch(self, world, run, plan):
        run, learning = q_learning.QLearning.epoch(self, world, run, plan)
        spoilt = jnp.where(run.agent.real_steps > 6, jnp.nan, run.agent.table)
        return run.replace(agent=run.agent.replace(table=spoilt)), learning


def test_on_real_nodes_the_last_finite_policy_goes_on_deciding(simulated, tmp_path, monkeypatch):
    fine = agents.make_agent("q_learning", CONFIG, SCENARIO)
    monkeypatch.setattr(real, "make_agent", lambda *_: Spoilt(**vars(fine)))
    with jax.debug_nans(False):
        summary = unit.run(chosen(), RunFolder(tmp_path / "run"))
    found = learned.read(chosen(), RunFolder(tmp_path / "run"))
    labels = SCENARIO.choice_labels()
    for seed in summary.seeds:
        assert seed.failed.epoch == 2
        assert "table" in seed.failed.what
        assert (seed.real_steps, seed.measured.measurements) == (6, 4)
        agent = found[seed.seed].state
        assert np.isfinite(agent.table[: int(agent.rows)]).all()
        joint = np.asarray(fine.decide(agent, agent.obs))
        assert " ".join(labels[choice] for choice in joint) in seed.measured.decisions
    notes = [json.loads(line) for line in (tmp_path / "run" / "steps.jsonl").read_text().splitlines()]
    assert len(notes) == 2 * (12 + 4)  # the steps of the epoch that failed are there, too


def test_a_twin_gives_an_oracle_and_none_leaves_it_open(simulated, tmp_path):
    summary = unit.run(chosen(), RunFolder(tmp_path / "twin"))
    best = oracle.brute_force(simulator.make_params(SCENARIO)).art_ms
    assert summary.env == "testbed"
    assert summary.aggregate.oracle_art_ms == pytest.approx(best)
    assert all(seed.measured.twin_art_ms > 0 and seed.art_ms > 0 for seed in summary.seeds)
    picture = fleet_figures.topology(tmp_path / "twin")
    curves = fleet_figures.regret({"from nothing": tmp_path / "twin", "again": tmp_path / "twin"})
    assert picture[:8] == curves[:8] == b"\x89PNG\r\n\x1a\n"
    alone = dataclasses.replace(chosen(), real=dataclasses.replace(chosen().real, twin=False))
    summary = unit.run(alone, RunFolder(tmp_path / "alone"))
    assert summary.aggregate.oracle_art_ms is None
    assert [seed.steps_to_optimal for seed in summary.seeds] == [None, None]
    assert "not known" in (tmp_path / "alone" / "decisions.md").read_text()


def test_agents_go_on_from_a_simulated_run(simulated, tmp_path):
    unit.run(chosen(real=None), RunFolder(tmp_path / "before"))
    started = dataclasses.replace(chosen().real, init_from=str(tmp_path / "before"))
    go_on = real.RealRun(chosen(real=started), RunFolder(tmp_path / "on"))
    obs = simulator.observe(Orchestration().reset(jax.random.key(0), go_on.params)[1])
    one, other = (go_on.fresh(number, obs).run.agent for number in (0, 1))
    assert one.table.min() < 0.5 < one.table[np.isfinite(one.table)].max()  # learned values, not the first ones
    assert not np.array_equal(one.table, other.table)
    assert go_on.fresh(0, obs).before == (18, 0)
    assert not np.array_equal(jax.random.key_data(one.key), jax.random.key_data(go_on.fresh(1, obs).run.agent.key))
    summary = unit.run(chosen(real=started), RunFolder(tmp_path / "run"))
    assert [seed.real_steps for seed in summary.seeds] == [18, 18]  # those before don't count
    with pytest.raises(InputError, match="--init_from: expected a run of --agent=q_learning with the same constants"):
        real.RealRun(chosen(real=started, config=dataclasses.replace(CONFIG, gamma=0.5)), RunFolder(tmp_path / "x"))
    fewer = SCENARIO.with_users(1)
    with pytest.raises(InputError, match="--init_from: devices: expected S1, found S1, S2"):
        real.RealRun(chosen(real=started, scenario=fewer), RunFolder(tmp_path / "x")).fresh(0, obs[:9])


def train(*arguments: str, **changes) -> subprocess.Popen:
    environment = dict(os.environ, PYTHONPATH=str(fleets.ROOT))
    command = [sys.executable, "-m", "launch.train", *arguments]
    return subprocess.Popen(command, cwd=fleets.ROOT, env=environment, stderr=subprocess.PIPE, text=True, **changes)


@pytest.mark.process
def test_kill_nine_and_resume_on_real_nodes(model_dir, tmp_path):
    before = set(psutil.Process().children())  # other tests', of this worker
    inventory = inventories.load(LOCAL)
    emulation = dataclasses.replace(inventory.emulation, scale=4.0, cpu_ms=fleets.CPU_MS)
    inventory = dataclasses.replace(
        inventory, model_dir=str(model_dir), emulation=emulation, monitor_period_ms=300.0, certificates=str(tmp_path)
    )
    inventories.save(inventory, tmp_path / "fleet.json")
    folder = tmp_path / "run"
    flags = ("--epochs=3", "--epoch_steps=10", "--seeds=1", "--users=1", "--measurements=3", f"--run_dir={folder}")
    where = ("--env=testbed", "--flagfile=expA.flags", "--agent=q_learning", f"--inventory={tmp_path / 'fleet.json'}")
    record = folder / "steps.jsonl"
    with train(*where, *flags) as trainer:
        fleets.wait_for(lambda: record.exists() and len(record.read_text().splitlines()) >= 14, 90.0)
        nodes = psutil.Process(trainer.pid).children()
        assert len(nodes) == 4
        trainer.send_signal(signal.SIGKILL)
    fleets.wait_for(lambda: not any(node.is_running() for node in nodes), 30.0)
    taken = len(record.read_text().splitlines())
    assert 14 <= taken < 30
    with train("--resume", f"--run_dir={folder}", stdout=subprocess.DEVNULL) as trainer:
        errors = trainer.stderr.read()
    assert trainer.returncode == 0, errors
    (seed,) = json.loads((folder / "summary.json").read_text())["seeds"]
    assert (seed["real_steps"], seed["lost_requests"]) == (30, 0)
    # The epoch that was cut off is taken again; what was recorded of it is kept.
    assert seed["interactions"] == len(record.read_text().splitlines()) == taken + 20 + 3
    assert set(psutil.Process().children()) <= before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--init_from=x"], "--init_from: expected with --env=testbed, found with --env=simulator"),
        (["--env=testbed", "--inventory=none.toml"], "inventory: expected a readable file"),
    ],
)
def test_mistakes_are_told_in_one_line(refused, arguments, message):
    assert message in refused("--flagfile=expA.flags", *arguments, cwd=fleets.ROOT)
