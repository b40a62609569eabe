"""`--agent=module:function`: the agent of docs/agents.md through every command, and what is no agent."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

import hl_jax
from tests.helpers.builders import ROOT, SCENARIOS
from tests.helpers.own_agent import NAME, own_agent  # noqa: F401 - fixture
from tests.helpers.training_runs import contents

TASK = (f"--scenario={SCENARIOS / 'expA.toml'}", "--users=2", "--constraint=Min")
EPOCHS, TRIES = 30, 10

pytestmark = pytest.mark.usefixtures("own_agent")


def test_it_is_trained_resumed_and_evaluated(command, tmp_path):
    flags = (f"--agent={NAME}", f"--epochs={EPOCHS}", "--margin=0.1", "--seeds=2", "--run_dir=run")
    done = command("train", *TASK, *flags, cwd=tmp_path)
    assert done.status == 0, done.err
    folder = tmp_path / "run"
    config = json.loads((folder / "config.json").read_text())
    assert (config["agent"], config["config"]) == (NAME, {"epochs": EPOCHS, "tries": TRIES, "margin": 0.1})
    summary = json.loads((folder / "summary.json").read_text())
    assert [seed["real_steps"] for seed in summary["seeds"]] == [2 * TRIES * EPOCHS] * 2
    # Two devices with ten choices each, none of which slows another: from any start each finds its fastest model.
    assert [seed["decision"] for seed in summary["seeds"]] == [["d7/L", "d7/L"]] * 2

    (folder / "summary.json").unlink()
    resumed = command("train", "--resume", "--run_dir=run", cwd=tmp_path)
    assert resumed.status == 0, resumed.err
    again = json.loads((folder / "summary.json").read_text())
    assert [seed["decision"] for seed in again["seeds"]] == [seed["decision"] for seed in summary["seeds"]]

    judged = command("evaluate", "--run_dir=run", "--constraint=Max", "--format=json", cwd=tmp_path)
    assert judged.status == 0, judged.err
    verdict = json.loads(judged.out)
    assert (verdict["agent"], [seed["feasible"] for seed in verdict["seeds"]]) == (NAME, [False, False])


def test_the_same_agent_in_python():
    from my_package.descent import make  # type: ignore[import-not-found]

    scenario = hl_jax.experiment("A", users=2, constraint="Min")
    trained = hl_jax.train(hl_jax.agent(make, scenario, epochs=EPOCHS, margin=0.1), scenario, seeds=2)
    assert trained.labels == (("d7/L", "d7/L"),) * 2
    assert (trained.train_art_ms[0] != trained.train_art_ms[1]).any()


@pytest.mark.process
def test_a_sweep_over_its_constants(own_agent, tmp_path):  # noqa: F811 - the fixture
    axes = (f"--agent={NAME}", "--epochs=3", "--grid=margin=0,0.2", "--seeds=1", f"--run_dir={tmp_path / 'sweep'}")
    line = [sys.executable, "-m", "launch.sweep", *TASK, *axes]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        line, cwd=own_agent, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    runs = (tmp_path / "sweep" / "runs.csv").read_text().splitlines()
    assert len(runs) == 1 + 2


BASE = """
import dataclasses
from typing import TYPE_CHECKING
from hl_jax import Scenario, agent

@dataclasses.dataclass(frozen=True)
class Config:
    epochs: int = 3
{field}

def make(config: {config}, scenario: Scenario):
    return {made}
"""


def module(field: str = "", config: str = "Config", made: str = 'agent("q_learning", scenario)') -> str:
    """A user's module with something in it."""
    return BASE.format(field=f"    {field}", config=config, made=made)


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("{}", module(), "expected one of hybrid, .*, or MODULE:FUNCTION of your own, found"),
        ("nowhere.{}:make", "", "found ModuleNotFoundError: No module named 'nowhere'"),
        ("{}:make", "def make(:", r"found SyntaxError: invalid syntax \(\w+.py, line 1\)"),
        ("{}:make", "\nthere = 1 / 0", r"found ZeroDivisionError: division by zero in .*\.py, line 2"),
        ("{}:maker", module(), "found no maker in module"),
        ("{}:Config", module(), r"expected a function make\(config, scenario\), found <class"),
        ("{}:make", "make = 3", r"expected a function make\(config, scenario\), found 3"),
        ("{}:make", "def make(): ...", r"expected a function make\(config, scenario\), found make\(\)"),
        ("{}:make", "def make(config, scenario): ...", "make: expected a dataclass as config's type, found none"),
        ("{}:make", module(config="int"), "make: expected a dataclass as config's type, found <class 'int'>"),
        (
            "{}:make",
            module(config="'Later'"),
            r"expected a function make\(config, scenario\), found name 'Later' is not",
        ),
        ("{}:make", module("tries: 'Later' = 3"), "Config: expected types that can be read, found name 'Later' is not"),
        (
            "{}:make",
            module("tries: int = dataclasses.field(kw_only=True)"),
            "expected a default .*, found none for tries",
        ),
        ("{}:make", module("a: int = dataclasses.field(default=1, init=False)"), "expected constants .*, found a"),
        ("{}:make", module("seeds: int = 1"), "--seeds: expected a name of its own for a constant, found one of"),
        ("{}:make", module("sizes: tuple = (1, 2)"), r"--sizes: expected a whole number, .*, found \(1, 2\)"),
        ("{}:make", module("gamma: int = 1"), "--gamma: expected float, as other agents' constant .*, found int"),
        ("{}:make", module("def __post_init__(self): raise ValueError('no such epochs')"), "no such epochs"),
        ("{}:make", module(made="None"), "make: expected an agent with epochs, .*, found none of epochs"),
        (
            "{}:make",
            module(made="agent('q_learning', scenario, epochs=0)"),
            r"--epochs: expected a value in \[1, 1e\+09\]",
        ),
    ],
)
def test_what_is_no_agent_is_refused_in_one_line(refused, tmp_path, monkeypatch, name, source, expected):
    own = f"own_{abs(hash((name, source, expected)))}"
    (tmp_path / f"{own}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    before = contents(tmp_path).keys()
    line = refused(*TASK, f"--agent={name.format(own)}")
    assert re.match(r"error: --\w+: |error: \w+", line)
    assert re.search(expected, line), line
    assert {file for file in contents(tmp_path) if "__pycache__" not in file} == before


def test_a_constant_is_a_flag_of_its_annotated_type(command, tmp_path, monkeypatch):
    (tmp_path / "own_float.py").write_text(module("pace: float = 1"))
    monkeypatch.syspath_prepend(tmp_path)
    done = command("train", *TASK, "--agent=own_float:make", "--pace=x", cwd=tmp_path)
    assert done.status == 2
    assert "pace" in done.err


def test_a_constant_of_another_agent_is_refused(refused):
    line = refused(*TASK, "--agent=hybrid", "--step_size=0.1")
    assert line == "error: --step_size: expected with --agent=q_learning, found with --agent=hybrid"
