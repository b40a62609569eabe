"""What config.json keeps of a run on a fleet of one's own, read back the same."""

from __future__ import annotations

import dataclasses
import json

import pytest

from hl_jax.agents.factored.config import FactoredConfig
from hl_jax.scenario import Scenario
from launch.host.errors import InputError
from launch.inputs.scenario_files import load_any, papers
from launch.inputs.settings import Settings, read_settings
from tests.helpers.builders import DYNAMICS, SCENARIOS, small_scenario
from tests.helpers.numpy_fleet import fleet

CONFIG = FactoredConfig()


def settings(scenario) -> Settings:
    return Settings(scenario=scenario, constraint="80", agent="factored", config=CONFIG, seeds=(0, 1), lanes=1)


@pytest.mark.parametrize("name", ["own", "mixed", "campus"])
def test_settings_are_read_back_the_same(tmp_path, name):
    scenario = fleet(dynamics=DYNAMICS, noise=0.1) if name == "own" else load_any(SCENARIOS / f"{name}.toml")
    mine = settings(scenario)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(mine.as_json(), allow_nan=False))
    again = read_settings(path)
    assert again == mine
    assert again.digest == mine.digest
    assert settings(dataclasses.replace(scenario, constraint=70.0)).digest != mine.digest


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (
            lambda scenario: scenario["devices"][0].update(above="nobody"),
            "devices a: above: expected left, right, up",
        ),
        (lambda scenario: scenario["devices"].append(3), "devices: expected a table, found 3"),
        (lambda scenario: scenario.update(profiles=None), "profiles: expected a list of tables, found None"),
        (lambda scenario: scenario["profiles"][0].update(targets=[]), "targets: expected at least one, found 0"),
        (lambda scenario: scenario.pop("pool"), "pool: expected a table, found None"),
    ],
)
def test_spoiled_settings_are_one_line(tmp_path, spoil, expected):
    data = json.loads(json.dumps(settings(fleet()).as_json()))
    spoil(data["scenario"])
    path = tmp_path / "config.json"
    path.write_text(json.dumps(data))
    with pytest.raises(InputError) as caught:
        read_settings(path)
    assert str(caught.value).startswith("config.json: expected a run's settings, found ")
    assert expected in str(caught.value)


def test_settings_of_the_paper_s_form_stay_so(tmp_path):
    mine = settings(small_scenario(2))
    path = tmp_path / "config.json"
    path.write_text(json.dumps(mine.as_json()))
    assert isinstance(read_settings(path).scenario, Scenario)
    assert papers(mine.scenario) == mine.scenario
    with pytest.raises(InputError, match="--scenario: expected one edge and one cloud here, found a fleet"):
        papers(fleet())
