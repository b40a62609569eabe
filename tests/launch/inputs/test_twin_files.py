"""A twin's calibration file: what wasn't measured, devices and models that are others, and what is none."""

from __future__ import annotations

import json
import shutil

import pytest

from launch.host.errors import InputError
from launch.inputs.scenario_files import load_calibration, load_scenario
from tests.helpers.builders import ROOT

CALIBRATION = "calibration/paper.json"


@pytest.fixture
def folder(tmp_path):
    """A copy of data/ whose files a test may spoil."""
    shutil.copytree(ROOT / "data", tmp_path / "data")
    return tmp_path / "data"


def twin_file(folder, **changes):
    """The paper's calibration as that of a fleet that was measured."""
    path = folder / CALIBRATION
    values = json.loads(path.read_text()) | {"speeds": {f"S{index}": 1.5 for index in range(1, 6)}} | changes
    path.write_text(json.dumps(values))
    return path


def test_a_time_that_was_not_measured_is_refused_where_it_matters(folder):
    scenario = load_scenario(folder / "scenarios" / "expA.toml")
    found = load_calibration(twin_file(folder, weak_edge_ms=None, weak_edge_offload_ms=None), scenario.pool)
    there = found.apply(scenario)
    assert there.unmeasured() == ()
    assert there.speeds == (1.5,) * 5
    weak = load_calibration(folder / CALIBRATION, scenario.pool).apply(
        load_scenario(folder / "scenarios" / "expB.toml")
    )
    assert weak.unmeasured() == ("weak_edge_ms", "weak_edge_offload_ms")


def test_a_device_that_was_not_measured_is_refused(folder):
    scenario = load_scenario(folder / "scenarios" / "expA.toml")
    for speeds in ({"S1": 1.0, "S2": 2.0}, {"S1": 1.0, "S2": 2.0, "S3": None, "S4": None}):
        there = load_calibration(twin_file(folder, speeds=speeds), scenario.pool).apply(scenario)
        assert there.unmeasured() == ("speeds.S3", "speeds.S4", "speeds.S5")
        assert there.with_users(2).unmeasured() == ()


def test_a_model_of_another_accuracy_is_another_model(folder):
    scenario = load_scenario(folder / "scenarios" / "expA.toml")
    accuracy = dict(zip(scenario.pool.names, scenario.pool.accuracy, strict=True))
    load_calibration(twin_file(folder, accuracy=accuracy), scenario.pool)
    with pytest.raises(InputError, match=r"models.d3: expected 12.5 %, as of the model that was measured in .*, found"):
        load_calibration(twin_file(folder, accuracy=accuracy | {"d3": 12.5}), scenario.pool)
    with pytest.raises(InputError, match="accuracy: expected the key 'd7', found none"):
        load_calibration(
            twin_file(folder, accuracy={name: accuracy[name] for name in list(accuracy)[:7]}), scenario.pool
        )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"speeds": [1.0]}, "speeds: expected a table, found"),
        ({"speeds": {"S1": 0.0}}, "speeds.'S1': expected a number in"),
        ({"speeds": {"S1": "fast"}}, "speeds.'S1': expected a number in"),
        ({"edge_reference_cores": None}, "unmeasured: expected some of"),
        ({"local_ms": {"d0": None}}, "local_ms: expected the key 'd1'"),
    ],
)
def test_malformed_twins_are_one_line(folder, changes, expected):
    pool = load_scenario(folder / "scenarios" / "expA.toml").pool
    with pytest.raises(InputError, match=expected):
        load_calibration(twin_file(folder, **changes), pool)
