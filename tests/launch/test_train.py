"""`python -m launch.train` as a user runs it: what a run leaves, interruptions, and that seeds are independent."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import pathlib
import random
import re
import signal
import struct
from typing import Any

import numpy as np
import pytest

from hl_jax import simulator
from hl_jax.agents.hybrid.config import HybridConfig
from hl_jax.agents.q_learning.config import QLearningConfig
from hl_jax.optimum import oracle
from launch.inputs.scenario_files import load_scenario
from launch.inputs.settings import Settings
from launch.runs import unit
from launch.runs.folder import RunFolder
from tests.helpers.builders import SCENARIOS
from tests.helpers.training_runs import (
    EPOCHS,
    SEEDS,
    SETTINGS,
    begin,
    checkpoints,
    finish,
    read_checkpoint,
    results,
    stop,
)

pytestmark = pytest.mark.process  # `reference` is a run of its own
KILLS = int(os.environ.get("HL_JAX_KILLS", "2"))


@dataclasses.dataclass(frozen=True)
class Finished:
    folder: pathlib.Path
    out: list[str]

    def rows(self) -> list[dict[str, str]]:
        """metrics.csv."""
        return list(csv.DictReader((self.folder / "metrics.csv").read_text().splitlines()))

    def summary(self) -> dict[str, Any]:
        return json.loads((self.folder / "summary.json").read_text())


@pytest.fixture(scope="module")
def reference(uninterrupted: tuple[pathlib.Path, list[str]]) -> Finished:
    return Finished(*uninterrupted)


# -- What a run leaves (DESIGN.md, section 6) ---------------------------------------------------------------------


@pytest.mark.smoke
def test_all_files_are_there_and_nothing_else(reference):
    names = {str(path.relative_to(reference.folder)) for path in reference.folder.rglob("*") if path.is_file()}
    assert names == {
        "config.json",
        "summary.json",
        "metrics.csv",
        "decisions.md",
        "curves.png",
        "checkpoints/group-0000.ckpt",
        "checkpoints/group-0001.ckpt",
        "events/seed-0/events.out.tfevents.0",
        "events/seed-1/events.out.tfevents.0",
    }
    assert (reference.folder / "curves.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_config_holds_every_setting_and_versions(reference):
    config = json.loads((reference.folder / "config.json").read_text())
    assert set(config["config"]) == {field.name for field in dataclasses.fields(HybridConfig)}
    assert (config["config"]["epochs"], config["config"]["width"], config["config"]["gamma"]) == (
        EPOCHS,
        8,
        HybridConfig().gamma,
    )
    assert (config["agent"], config["seeds"], config["constraint"]) == ("hybrid", list(SEEDS), "85")
    assert (config["scenario"]["name"], len(config["scenario"]["devices"])) == ("A", 2)
    assert config["env"] == "simulator"
    assert {"jax", "flax", "numpy", "python"} <= config["versions"].keys()


def test_summary_has_its_fields_and_the_oracles_optimum(reference):
    summary = reference.summary()
    expected = {"experiment": "A", "agent": "hybrid", "users": 2, "constraint": "85", "env": "simulator"}
    assert {name: summary[name] for name in expected} == expected
    scenario = dataclasses.replace(load_scenario(SCENARIOS / "expA.toml").with_users(2), constraint=85.0)
    params = simulator.make_params(scenario)
    optimum = oracle.brute_force(params)
    labels = scenario.choice_labels()
    for number, seed in enumerate(summary["seeds"]):
        fields = {"seed", "steps_to_optimal", "steps_to_exact", "real_steps", "model_steps", "art_ms", "oracle_art_ms"}
        assert fields | {"accuracy", "decision", "experience_s", "compute_s"} <= seed.keys()
        assert seed["seed"] == SEEDS[number]
        assert seed["oracle_art_ms"] == pytest.approx(optimum.art_ms)
        assert all(re.fullmatch(r"d[0-7]/[LEC]", choice) for choice in seed["decision"])
        # The decision really takes and reaches what is said of it.
        action = np.array([labels.index(choice) for choice in seed["decision"]], np.int32)
        response = simulator.response_ms(params, params.start, action)
        assert seed["art_ms"] == pytest.approx(float(np.mean(response)), rel=1e-5)
        assert seed["accuracy"] == pytest.approx(float(np.mean(np.asarray(params.accuracy)[action])), rel=1e-5)
        assert seed["compute_s"] > 0
        assert seed["experience_s"] > 0.07 * seed["real_steps"]  # no step is faster than d7
    assert summary["aggregate"]["steps_to_optimal"]["seeds"] == len(SEEDS)
    assert summary["aggregate"]["oracle_art_ms"] == pytest.approx(optimum.art_ms)


def test_metrics_tell_the_same_as_the_summary(reference):
    rows = reference.rows()
    assert len(rows) == EPOCHS * len(SEEDS)
    for seed in reference.summary()["seeds"]:
        own = [row for row in rows if row["seed"] == str(seed["seed"])]
        assert [int(row["epoch"]) for row in own] == list(range(1, EPOCHS + 1))
        steps = [int(row["real_steps"]) for row in own]
        assert steps == sorted(set(steps))
        assert (steps[-1], int(own[-1]["model_steps"])) == (seed["real_steps"], seed["model_steps"])
        assert float(own[-1]["art_ms"]) == pytest.approx(seed["art_ms"])
        assert sum(float(row["experience_s"]) for row in own) == pytest.approx(seed["experience_s"])
        for name, percent in (("steps_to_optimal", 1.0), ("steps_to_exact", 1e-3)):
            good = [row["feasible"] == "True" and float(row["regret_percent"]) <= percent for row in own]
            lasting = [step for index, step in enumerate(steps) if all(good[index:])]
            assert seed[name] == min(lasting, default=None)
        assert all(float(row["regret_percent"]) > -1e-3 for row in own if row["feasible"] == "True")


def test_the_decisions_stand_beside_the_oracles(reference):
    lines = (reference.folder / "decisions.md").read_text().splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert table[0] == ["", "Cnst", "S1", "S2", "ART (ms)", "AA (%)", "steps to optimal"]
    assert [row[0] for row in table[2:]] == ["oracle", "seed 0", "seed 1"]
    for row, seed in zip(table[3:], reference.summary()["seeds"], strict=True):
        assert row[2:4] == seed["decision"]
        assert row[4] == f"{seed['art_ms']:.2f}"
        assert row[6] == ("never" if seed["steps_to_optimal"] is None else str(seed["steps_to_optimal"]))
    assert lines[2] in reference.out  # shown at the end


def test_tensorboard_events_are_whole_records(reference):
    """TFRecord: length (8 bytes), its checksum (4), content, checksum (4); a version record, and one an epoch."""
    for seed in SEEDS:
        (path,) = (reference.folder / "events" / f"seed-{seed}").iterdir()
        data, records = path.read_bytes(), []
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            records.append(data[12 : 12 + length])
            data = data[16 + length :]
        assert len(records) == 1 + EPOCHS
        for tag in (b"run/art_ms", b"run/regret_percent", b"learning/td_error"):
            assert sum(tag in record for record in records) == EPOCHS


def test_checkpoints_hold_everything_a_run_carries(reference):
    for index, path in enumerate(checkpoints(reference.folder)):
        checkpoint = read_checkpoint(path)
        assert checkpoint.notes["epoch"] == EPOCHS
        assert list(checkpoint.notes["history"]) == [str(SEEDS[index])]
        parts = "q_params target_params q_optimizer model_params model_optimizer direct world plan key env real_steps"
        for part in parts.split():
            assert any(part in name for name in checkpoint.arrays), part
        real_steps = next(values for name, values in checkpoint.arrays.items() if name.endswith("real_steps"))
        assert real_steps.tolist() == [reference.summary()["seeds"][index]["real_steps"]]


# -- Seeds --------------------------------------------------------------------------------------------------------


def test_a_seed_alone_gives_what_it_gives_among_others(reference, tmp_path):
    folder = tmp_path / "alone"
    assert finish(folder, "--seeds=1", "--first_seed=1", "--threads=1")[0] == 0
    alone, among = results(folder), results(reference.folder)
    arrays = [name for name in alone if name.startswith("checkpoints/group-0000.ckpt.")]
    assert len(arrays) > 30
    for name in arrays:
        assert alone[name] == among[name.replace("group-0000", "group-0001")], name
    assert Finished(folder, []).rows() == [row for row in reference.rows() if row["seed"] == "1"]
    assert alone["summary.json"]["seeds"] == among["summary.json"]["seeds"][1:]


@pytest.mark.smoke
def test_two_seeds_differ(reference):
    first, second = (read_checkpoint(path).arrays for path in checkpoints(reference.folder))
    for part in ("q_params", "model_params", "direct", "key"):
        names = [name for name in first if part in name and first[name].dtype.kind in "fu"]
        assert names, part
        assert any((first[name] != second[name]).any() for name in names), part


# -- Interruptions ------------------------------------------------------------------------------------------------


def test_a_run_that_is_interrupted_and_killed_ends_like_one_that_is_not(reference, tmp_path):
    """Ctrl-C, then kill -9 at random moments (how many: HL_JAX_KILLS), resumed each time: not a bit differs."""
    folder, moments = tmp_path / "killed", random.Random(os.environ.get("HL_JAX_KILLS_SEED", "0"))
    status, _, err = stop(begin(folder), folder, 2, 0.0, signal.SIGINT)
    assert status == 130
    assert err[-1] == f"interrupted; go on with: python -m launch.train --resume --run_dir={folder}"
    assert not any("Traceback" in line for line in err)
    killed = 0
    for epoch in sorted(moments.randrange(-1, int(0.8 * EPOCHS)) for _ in range(KILLS)):
        delay = moments.uniform(0.0, 3.0 if epoch < 0 else 0.03)
        killed += stop(begin(folder), folder, epoch, delay, signal.SIGKILL)[0] == -signal.SIGKILL
        assert not (folder / "summary.json").exists(), "expected to be killed before the end"
    assert killed == KILLS
    status, _, err = finish(folder)
    assert status == 0, err
    found, expected = results(folder), results(reference.folder)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == value, name


def test_one_command_starts_a_run_and_goes_on_with_it(reference, tmp_path):
    """What the script of a job types that may be ended at any time; the folder's parent isn't there yet either."""
    folder, command = tmp_path / "deep" / "run", (*SETTINGS, f"--seeds={len(SEEDS)}", "--resume")
    stop(begin(folder, "--resume"), folder, 5, 0.0, signal.SIGKILL)
    assert (folder / "config.json").exists()
    assert not (folder / "summary.json").exists()
    status, _, err = finish(folder, *command)
    assert status == 0, err
    found, expected = results(folder), results(reference.folder)
    assert [name for name, value in expected.items() if found[name] != value] == []
    kept = (folder / "summary.json").read_bytes()
    assert finish(folder, *command)[0] == 0  # finished: nothing is touched again
    assert (folder / "summary.json").read_bytes() == kept


def test_a_run_shows_what_it_has_learned_before_it_ends(tmp_path, monkeypatch):
    """metrics.csv and TensorBoard's events are there from then on, as whole files, and end the same."""
    monkeypatch.setattr(unit, "SHOWN_EVERY_S", 0.0)
    folder, seen = RunFolder(tmp_path / "run"), []
    write = RunFolder.write_progress

    def watched(self, settings, histories):
        write(self, settings, histories)
        seen.append((len(folder.metrics.read_text().splitlines()), len(list(folder.events.rglob("events.out*")))))

    monkeypatch.setattr(RunFolder, "write_progress", watched)
    scenario = load_scenario(SCENARIOS / "expA.toml").with_users(1)
    settings = Settings(scenario, "85", "q_learning", QLearningConfig(epochs=3, epoch_steps=20), (0, 1), 1)
    unit.run(settings, folder, threads=1)
    assert [lines for lines, _ in seen] == [2, 3, 4, 5, 6, 7]  # a heading, then a line for each epoch of each seed
    assert seen[-1][1] == 2
    assert len(folder.metrics.read_text().splitlines()) == 7
