"""Evaluating what was learned, and nothing else: checkpoints that are missing, and scenarios that are another's."""

from __future__ import annotations

import dataclasses
import json
import shutil

import jax.numpy as jnp
import pytest

from hl_jax.agents.q_learning.config import QLearningConfig
from hl_jax.agents.world import observed_levels
from launch.host.errors import InputError
from launch.inputs import agents
from launch.inputs.scenario_files import load_scenario
from launch.inputs.settings import RealSettings, Settings
from launch.runs import learned
from launch.runs.folder import RunFolder
from launch.runs.learned import Seed
from tests.helpers.builders import ROOT, SCENARIOS

TRAIN = (
    f"--scenario={SCENARIOS / 'expA.toml'}",
    "--agent=q_learning",
    "--users=2",
    "--constraint=85",
    "--epochs=4",
    "--epoch_steps=200",
    "--seeds=2",
)


@pytest.fixture
def run(command, tmp_path):
    folder = tmp_path / "run"
    assert command("train", *TRAIN, f"--run_dir={folder}").status == 0
    return RunFolder(folder)


@pytest.fixture
def evaluated(command, run):
    return lambda *flags: command("evaluate", f"--run_dir={run}", "--format=json", *flags)


def test_what_was_learned_is_judged(run, evaluated):
    done = evaluated()
    result = json.loads(done.out)
    stored = run.summary()
    assert done.err == ""
    assert [seed["seed"] for seed in result["seeds"]] == [0, 1]
    for seed, own in zip(result["seeds"], stored.seeds, strict=True):
        assert seed["epoch"] == 4
        assert tuple(seed["decision"]) == own.decision
        assert seed["art_ms"] == pytest.approx(own.art_ms, rel=1e-6)


def test_nothing_learned_is_not_judged(run, evaluated, tmp_path, command):
    """A folder with config.json alone, a unit of a sweep, a run that was interrupted before its first checkpoint."""
    shutil.rmtree(run.checkpoints)
    done = evaluated()
    assert (done.status, done.out) == (2, "")
    assert "checkpoints: expected those of seeds that have learned, found none in" in done.err
    run.checkpoints.mkdir()
    assert evaluated().status == 2
    only = RunFolder(tmp_path / "only")
    only.path.mkdir()
    shutil.copy(run.config, only.config)
    assert command("evaluate", f"--run_dir={only}").status == 2


def test_seeds_that_left_nothing_are_told_and_left_out(run, evaluated):
    run.group(0).unlink()
    done = evaluated()
    assert "left out, because they have no checkpoint: seeds 0" in done.err
    assert [seed["seed"] for seed in json.loads(done.out)["seeds"]] == [1]


def test_an_unfinished_run_says_so(run, evaluated):
    """The same checkpoints, but the run has more epochs before it."""
    settings = run.settings()
    longer = dataclasses.replace(settings, config=dataclasses.replace(settings.config, epochs=9))
    for index in (0, 1):
        file = run.group(index)
        head, _, rest = file.read_bytes().partition(b"\n")
        file.write_bytes(head.replace(settings.digest.encode(), longer.digest.encode()) + b"\n" + rest)
    run.config.unlink()
    run.begin(longer)
    assert "not at their last epoch, 9: seed 0 after 4, seed 1 after 4" in evaluated().err


def test_a_run_on_real_nodes_is_judged_by_its_own_checkpoints(run, evaluated):
    """They are of one seed each, and lie under other names."""
    real = RealSettings(inventory={}, twin=False, init_from="", measurements=1)
    settings = dataclasses.replace(run.settings(), real=real)
    agent = agents.make_agent(settings.agent, settings.config, settings.scenario)
    simulated = learned.read(run.settings(), run)
    shutil.rmtree(run.path)
    there = RunFolder(run.path)
    there.begin(settings)
    there.checkpoints.mkdir()
    with pytest.raises(InputError, match="found none"):
        learned.read(settings, there)
    obs = jnp.zeros(len(observed_levels(settings.scenario)), jnp.int32)
    for number, one in simulated.items():
        seed = Seed(number, learned.first_run(agent, number, obs).replace(agent=one.state), (0, 0))
        seed.save(settings, there)
    with pytest.raises(InputError, match=r"found only seed-0000.ckpt, seed-0001.ckpt, of before the first epoch"):
        learned.read(settings, there)
    for number, one in simulated.items():
        Seed(number, learned.first_run(agent, number, obs).replace(agent=one.state), (0, 0), one.epoch).save(
            settings, there
        )
    done = evaluated()
    assert "learned on real nodes without a twin" in done.err
    optimum = [seed["regret_percent"] for seed in json.loads(done.out)["seeds"]]
    assert len(optimum) == 2


def scenario_file(tmp_path, change):
    """Experiment A, changed as text; its pool and calibration where they were."""
    text = (SCENARIOS / "expA.toml").read_text().replace('"../', f'"{SCENARIOS.parent}/')
    path = tmp_path / "other.toml"
    path.write_text(change(text))
    return path


def test_other_conditions_of_the_same_devices_are_fine(evaluated, tmp_path):
    weak = scenario_file(tmp_path, lambda text: text.replace('link = "regular"', 'link = "weak"'))
    assert evaluated(f"--scenario={weak}").status == 0


def reordered(tmp_path, text):
    """The pool with its second and third model exchanged: as many choices, with other numbers."""
    pool = (ROOT / "data" / "pools" / "mobilenet.toml").read_text()
    head, *models = pool.split("[[models]]")
    models[1], models[2] = models[2], models[1]
    (tmp_path / "pool.toml").write_text("[[models]]".join([head, *models]))
    return text.replace(f"{SCENARIOS.parent}/pools/mobilenet.toml", str(tmp_path / "pool.toml"))


def less_accurate(tmp_path, text):
    pool = (ROOT / "data" / "pools" / "mobilenet.toml").read_text()
    (tmp_path / "pool.toml").write_text(pool.replace("accuracy = 88.2", "accuracy = 87.2"))
    return text.replace(f"{SCENARIOS.parent}/pools/mobilenet.toml", str(tmp_path / "pool.toml"))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (reordered, "models: expected d0, d1, d2,"),
        (less_accurate, "accuracies (%): expected "),
        (lambda _, text: text.replace('"S1"', '"S9"'), "devices: expected S1, S2, found S9, S2"),
        (lambda _, text: text.replace('"S1"', '"S0"').replace('"S2"', '"S1"'), "devices: expected S1, S2, found S0,"),
    ],
)
def test_what_must_match_is_compared_by_name_and_content(evaluated, tmp_path, change, expected):
    other = scenario_file(tmp_path, lambda text: change(tmp_path, text))
    assert other.read_text() != (SCENARIOS / "expA.toml").read_text()
    done = evaluated(f"--scenario={other}")
    assert (done.status, done.out) == (2, "")
    assert f"--scenario: {expected}" in done.err


def test_other_knobs_are_other_choices(evaluated):
    done = evaluated(f"--scenario={SCENARIOS / 'expA.toml'}", "--knobs=models")
    assert done.status == 2
    assert "choices: expected" in done.err


def test_a_donor_of_another_fleet_is_refused(run, tmp_path):
    """`--init_from`: as many devices and choices, but others."""
    on_fleet = pytest.importorskip("launch.runs.on_fleet")
    inventories = pytest.importorskip("edge_cloud.inventory")
    fleet = inventories.as_data(inventories.load(ROOT / "data" / "inventories" / "local.toml"))
    real = RealSettings(inventory=fleet, twin=False, init_from=str(run), measurements=1)
    settings = dataclasses.replace(run.settings(), real=real)
    donors = on_fleet.RealRun(settings, RunFolder(tmp_path / "new"))._donors
    assert len(donors) == 2
    other = load_scenario(scenario_file(tmp_path, lambda text: reordered(tmp_path, text))).with_users(2)
    with pytest.raises(InputError, match="--init_from: models: expected d0, d2, d1"):
        on_fleet.RealRun(dataclasses.replace(settings, scenario=other), RunFolder(tmp_path / "new"))
    run.group(1).unlink()
    with pytest.raises(InputError, match="--init_from: expected a checkpoint of every seed, found none of seed 1"):
        on_fleet.RealRun(settings, RunFolder(tmp_path / "new"))


def test_a_constraint_that_was_another_goes_over_to_who_takes_it_as_an_input(tmp_path):
    """`factored` of another constraint goes on under this run's own."""
    on_fleet = pytest.importorskip("launch.runs.on_fleet")
    scenario = load_scenario(SCENARIOS / "expA.toml").with_users(1)
    settings = Settings(scenario, "85", "q_learning", QLearningConfig(epochs=1, epoch_steps=1), (0,), 1)
    asked = []

    class Remembering:
        def under(self, state, constraint):
            asked.append(constraint)
            return state

    runner = object.__new__(on_fleet.RealRun)
    runner.agent, runner.settings = Remembering(), settings
    agent = agents.make_agent(settings.agent, settings.config, scenario)
    obs = jnp.zeros(len(observed_levels(scenario)), jnp.int32)
    first = learned.first_run(agent, 0, obs)
    runner._donors = [first.agent]
    on_fleet.learned, kept = type("Learned", (), {"first_run": staticmethod(lambda *_: first)}), on_fleet.learned
    try:
        runner.fresh(0, obs)
    finally:
        on_fleet.learned = kept
    assert asked == [scenario.constraint]
