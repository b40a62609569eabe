"""`import hl_jax`: cheap, typed, and all that a researcher needs for ten lines of Python."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hl_jax
from hl_jax import evaluation, with_jax
from hl_jax.agents import registry
from hl_jax.agents.q_learning.agent import QLearning, TableState
from hl_jax.agents.q_learning.config import QLearningConfig
from hl_jax.agents.world import Agent
from launch.inputs.scenario_files import load_scenario
from launch.inputs.settings import Settings
from launch.runs import unit
from launch.runs.folder import RunFolder
from tests.helpers.builders import DYNAMICS, ROOT, SCENARIOS, small_scenario

SMALL = {"epochs": 12, "epoch_steps": 30}


@pytest.fixture(scope="module")
def trained() -> hl_jax.Trained:
    scenario = small_scenario(2, constraint=80.0, noise=0.03)
    return hl_jax.train(hl_jax.agent("q_learning", scenario, **SMALL), scenario, seeds=(3, 1))


# -- Importing ----------------------------------------------------------------------------------------------------


@pytest.mark.process
@pytest.mark.parametrize(
    "modules", ["hl_jax", "hl_jax.agents.registry, hl_jax.objective, hl_jax.scenario", "launch.inputs.flags"]
)
def test_importing_loads_no_jax(modules):
    script = (
        f"import sys, {modules}; print([name for name in ('jax', 'flax', 'gymnasium', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_name_of_the_face_is_there():
    assert len(set(hl_jax.__all__)) == len(hl_jax.__all__)
    assert set(hl_jax.__all__) <= set(dir(hl_jax))
    for name in hl_jax.__all__:
        assert getattr(hl_jax, name) is not None
    assert set(with_jax.__all__) < set(hl_jax.__all__)
    with pytest.raises(AttributeError, match="module 'hl_jax' has no attribute 'trian'"):
        hl_jax.trian  # noqa: B018 - is what is tested


def test_the_types_are_announced():
    assert (ROOT / "hl_jax" / "py.typed").exists()


# -- The paper's experiments --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["A", "B", "C", "D"])
def test_experiments_are_those_of_the_files(name):
    assert hl_jax.experiment(name) == load_scenario(SCENARIOS / f"exp{name}.toml")


def test_an_experiment_takes_what_is_asked_for():
    found = hl_jax.experiment("B", users=3, constraint="Max", noise=0.1)
    assert (found.users, found.constraint, found.noise) == (3, 89.9, 0.1)
    assert [device.link for device in found.devices] == ["regular", "weak", "regular"]
    with pytest.raises(ValueError, match="experiment: expected A, B, C, D, found 'E'"):
        hl_jax.experiment("E")
    with pytest.raises(ValueError, match=r"users: expected 1 to 5 .* found 6"):
        hl_jax.experiment("A", users=6)


def test_the_oracle_and_labels():
    scenario = small_scenario(2)
    best = hl_jax.oracle(scenario)
    assert scenario.labels(best.decision) == ("d2/L", "d2/L")
    assert best.decision == hl_jax.brute_force(hl_jax.make_params(scenario)).decision


# -- Agents -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Constants(QLearningConfig):
    epochs: int = 3


def make(config: Constants, scenario: hl_jax.Scenario) -> QLearning:
    return QLearning(config, scenario.users, scenario.choices)


def test_agents_by_name_and_by_function():
    scenario = small_scenario(2)
    assert hl_jax.agent("q_learning", scenario, epochs=7).epochs == 7
    assert hl_jax.agent(make, scenario).epochs == 3
    assert hl_jax.agent(make, scenario, epochs=4).epochs == 4
    with pytest.raises(ValueError, match=r"agent: expected one of hybrid, .*, found 'ppo'"):
        hl_jax.agent("ppo", scenario)
    with pytest.raises(ValueError, match=r"agent: expected some of epochs, .*, found 'epoch'"):
        hl_jax.agent("factored", scenario, epoch=4)


def test_what_is_asked_of_an_agent_is_its_protocol():
    named = {name for name in vars(Agent) if not name.startswith("_")}
    assert set(registry.PARTS) == named


# -- Training -----------------------------------------------------------------------------------------------------


def test_training_is_what_launch_train_does(trained, tmp_path):
    """The same seeds in one program each: every figure of every epoch is the same, bit for bit."""
    config = registry.AGENTS["q_learning"].config(**SMALL)
    chosen = Settings(trained.scenario, "80", "q_learning", config, seeds=(0, 1), lanes=2)
    unit.run(chosen, RunFolder(tmp_path / "run"), threads=1, pictures=False)
    again = hl_jax.train(hl_jax.agent("q_learning", trained.scenario, **SMALL), trained.scenario, seeds=2)
    lines = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    rows = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
    for lane in range(2):
        own = [row for row in rows if row["seed"] == str(lane)]
        for name in ("real_steps", "model_steps", "train_art_ms", "art_ms", "accuracy", "regret_percent"):
            assert [float(row[name]) for row in own] == getattr(again, name)[lane].tolist(), name
        assert [row["feasible"] == "True" for row in own] == again.feasible[lane].tolist()


def test_seeds_differ_and_a_seed_is_its_own(trained):
    again = hl_jax.train(trained.agent, trained.scenario, seeds=(1, 2))
    assert trained.regret_percent.shape == (2, 12)
    assert trained.decision.shape == (2, 12, 2)
    np.testing.assert_array_equal(again.train_art_ms[0], trained.train_art_ms[1])
    assert (trained.train_art_ms[0] != trained.train_art_ms[1]).any()


def test_steps_to_optimal_and_decisions(trained):
    good = trained.feasible & (trained.regret_percent <= 1.0)
    for lane, found in enumerate(trained.steps_to_optimal()):
        assert found == evaluation.first_lasting(trained.real_steps[lane].tolist(), good[lane].tolist())
    assert all(steps is not None for steps in trained.steps_to_optimal(tolerance=1000.0))
    obs, _ = hl_jax.Orchestration().reset(jax.random.key(0), hl_jax.make_params(trained.scenario))
    for lane, seed in enumerate(trained.seeds):
        decision = trained.decide(seed, obs)
        assert decision.shape == (2,)
        assert trained.labels[lane] == trained.scenario.labels(trained.decision[lane, -1])
    with pytest.raises(ValueError, match="seed: expected one of 3, 1, found 0"):
        trained.decide(0, obs)


def test_progress_is_told_after_each_epoch(trained):
    told = []
    hl_jax.train(trained.agent, trained.scenario, (3, 1), progress=lambda epoch, now: told.append((epoch, now)))
    assert [epoch for epoch, _ in told] == list(range(1, 13))
    np.testing.assert_array_equal([now.art_ms for _, now in told], trained.art_ms.T)


@pytest.mark.parametrize("seeds", [0, (), (1, 1), (-1,)])
def test_seeds_that_are_none_are_refused(trained, seeds):
    with pytest.raises(ValueError, match="seeds: expected at least one, distinct and from 0 on, found"):
        hl_jax.train(trained.agent, trained.scenario, seeds)


def test_evaluating_where_it_was_trained_repeats_the_last_epoch(trained):
    now = hl_jax.evaluate(trained)
    np.testing.assert_array_equal(now.decision, trained.decision[:, -1])
    np.testing.assert_allclose(now.regret_percent, trained.regret_percent[:, -1], rtol=1e-5, atol=1e-5)


def test_evaluating_elsewhere_asks_another_optimum(trained):
    weak = dataclasses.replace(trained.scenario, edge=hl_jax.Node("weak", 2), dynamics=DYNAMICS)
    there = hl_jax.evaluate(trained, weak)
    assert there.optimum_ms > trained.optimum_ms
    assert there.regret_percent.shape == (2,)
    with pytest.raises(ValueError, match="scenario small: devices: expected S1, S2, found S1, S2, S3"):
        hl_jax.evaluate(trained, small_scenario(3))


@dataclasses.dataclass(frozen=True)
class Broken(QLearning):
    """Learns nothing that is a number."""

    def learn(self, state: TableState, *seen: Any) -> TableState:
        return super().learn(state, *seen).replace(least=jnp.full_like(state.least, jnp.nan))


def test_a_seed_that_cannot_go_on_is_told_of(trained):
    agent = Broken(trained.agent.config, trained.agent.users, trained.agent.choices)
    with jax.debug_nans(False):
        found = hl_jax.train(agent, trained.scenario, seeds=1)
    assert found.failed == ("least, table aren't finite or not valid",)
    assert found.steps_to_optimal() == (None,)
    assert np.isnan(found.regret_percent[0, -1])
    assert found.real_steps.shape == (1, 1)  # nobody went on
    assert np.isfinite(np.asarray(found.state(0).least)).all()
