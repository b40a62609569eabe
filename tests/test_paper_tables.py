"""Tables II to VII as data: they agree with one another, with the scenarios, and with what the text claims."""

from __future__ import annotations

import tomllib

import numpy as np
import pytest

from hl_jax import simulator
from hl_jax.objective import CONSTRAINTS, constraint_value
from launch.inputs.scenario_files import load_scenario
from tests.helpers.builders import ROOT, SCENARIOS, small_scenario

EXPERIMENTS = ("A", "B", "C", "D")


def table(number: int) -> dict:
    return tomllib.loads((ROOT / "data" / "paper" / f"table{number}.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("number", [2, 4, 5, 6, 7])
def test_every_table_names_its_source_and_units(number):
    data = table(number)
    assert data["source"].startswith("paper, Table ")
    assert data["units"]


def test_table_ii_is_what_the_simulator_observes():
    components = table(2)["components"]
    of_a_device = [entry["levels"] for entry in components if entry["node"] == "device"]
    of_nodes = [entry["levels"] for entry in components if entry["node"] in ("edge", "cloud")]
    levels = simulator.observation_levels(users=1)
    assert sorted(levels) == sorted(of_a_device + of_nodes)
    assert len(simulator.observation_levels(users=5)) == 5 * len(of_a_device) + len(of_nodes)


def test_table_iv_is_what_the_scenario_files_say():
    entries = table(4)["experiments"]
    assert [entry["name"] for entry in entries] == list(EXPERIMENTS)
    for entry in entries:
        scenario = load_scenario(SCENARIOS / f"exp{entry['name']}.toml")
        assert scenario.name == entry["name"]
        assert [device.link for device in scenario.devices] == entry["devices"]
        assert scenario.edge.link == entry["edge"]
        assert (scenario.edge.cores, scenario.cloud.cores) == (2, 4)


def test_table_v_has_every_experiment_and_constraint_in_order():
    found = [(row["experiment"], str(row["constraint"])) for row in table(5)["rows"]]
    assert found == [(experiment, constraint) for experiment in EXPERIMENTS for constraint in CONSTRAINTS]


def accuracy_of_models(row: dict) -> float:
    pool = load_scenario(SCENARIOS / "expA.toml").pool
    accuracy = dict(zip(pool.names, pool.accuracy, strict=True))
    return float(np.mean([accuracy[choice.split("/")[0]] for choice in row["decision"]]))


def test_table_v_decisions_are_choices_and_meet_their_constraints():
    scenario = load_scenario(SCENARIOS / "expA.toml")
    for row in table(5)["rows"]:
        assert len(row["decision"]) == 5
        assert set(row["decision"]) <= set(scenario.choice_labels())
        assert accuracy_of_models(row) >= constraint_value(row["constraint"], scenario.pool) - 1e-3


def test_art_falls_as_the_constraint_is_relaxed():
    for experiment in EXPERIMENTS:
        times = [row["art_ms"] for row in table(5)["rows"] if row["experiment"] == experiment]
        assert times == sorted(times)


def test_exactly_two_rows_contradict_themselves():
    rows = table(5)["rows"]
    contradicting = {f"{row['experiment']}/{row['constraint']}": row for row in rows if "contradiction" in row}
    assert list(contradicting) == ["B/80", "D/Min"]
    for row in rows:
        average = accuracy_of_models(row)
        if "contradiction" in row:
            assert abs(average - row["accuracy"]) > 1.0
            assert average == pytest.approx(row["accuracy_of_models"], abs=1e-9)
            assert f"{average:.2f} %" in row["contradiction"]
            assert f"{row['accuracy']:.2f}" in row["contradiction"]
        else:
            assert average == pytest.approx(row["accuracy"], abs=0.011)
    assert contradicting["B/80"]["accuracy_of_models"] == 81.40
    assert contradicting["D/Min"]["accuracy_of_models"] == 74.88


def test_table_vi_yields_the_speed_ups_that_the_text_claims():
    data = table(6)
    assert [row["users"] for row in data["rows"]] == [3] * 4 + [4] * 4 + [5] * 4
    assert [str(row["constraint"]) for row in data["rows"]] == ["Min", "80", "85", "Max"] * 3
    five = [row for row in data["rows"] if row["users"] == 5]
    over_adadeep = max(row["adadeep_steps"] / row["ours_steps"] for row in five)
    over_autoscale = max(row["autoscale_steps"] / row["ours_steps"] for row in five)
    assert 0.0 <= over_adadeep - data["claims"]["over_adadeep"] < 0.1
    assert 0.0 <= over_autoscale - data["claims"]["over_autoscale"] < 0.1


def test_table_vii_adds_up_and_yields_the_claims():
    data = table(7)
    rows = {row["users"]: row for row in data["rows"]}
    assert list(rows) == [3, 4, 5]
    for row in rows.values():
        for agent, total in row["total"].items():
            # Totals are printed with two digits.
            parts = row["computation"].get(agent, 0.0) + row["experience"][agent]
            assert parts == pytest.approx(total, rel=0.085)
    five, claims = rows[5], data["claims"]
    assert rows[4]["total"]["adadeep"] / rows[4]["total"]["ours"] == claims["total_over_adadeep"]
    assert five["total"]["autoscale"] / five["total"]["ours"] == pytest.approx(claims["total_over_autoscale"], abs=0.05)
    computation = five["computation"]["adadeep"] / five["computation"]["ours"]
    assert computation == pytest.approx(claims["computation_over_adadeep"], abs=0.05)
    assert 0.0 <= five["experience"]["adadeep"] / five["experience"]["ours"] - claims["experience_over_adadeep"] < 0.1


@pytest.mark.parametrize(
    ("constraint", "expected"), [("Min", 0.0), ("min", 0.0), ("Max", 90.0), (85, 85.0), ("85", 85.0), (" 72.5 ", 72.5)]
)
def test_constraints_by_name_and_number(constraint, expected):
    assert constraint_value(constraint, small_scenario().pool) == expected


@pytest.mark.parametrize("constraint", ["", "best", "nan", "inf", -1, 90.5, "1e3", True])
def test_what_is_no_constraint_is_refused(constraint):
    with pytest.raises(ValueError, match=r"constraint: expected Min, Max or a number in \[0, 90\] \(%\), found "):
        constraint_value(constraint, small_scenario().pool)
