"""The fit: its solver, that it recovers known times, and that the committed calibration keeps its promises."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import tomllib

import numpy as np
import pytest
from scipy import optimize

from hl_jax.choices import choice_labels
from hl_jax.fitting import calibration
from hl_jax.objective import constraint_value
from hl_jax.optimum import oracle
from hl_jax.scenario import LINKS, Device, Node, Scenario, Timing
from hl_jax.simulator import make_params
from launch.inputs.scenario_files import load_pool, load_scenario
from tests.helpers import numpy_simulator
from tests.helpers.builders import ROOT, SCENARIOS

POOL = load_pool(ROOT / "data" / "pools" / "mobilenet.toml")
FILE = ROOT / "data" / "calibration" / "paper.json"
DOCUMENT = json.loads(FILE.read_text(encoding="utf-8"))
ROWS = tomllib.loads((ROOT / "data" / "paper" / "table5.toml").read_text(encoding="utf-8"))["rows"]
LABELS = choice_labels(POOL.names)
RELATIVE_TIE = calibration.TIE_TOLERANCE + calibration.MARGIN


def label(row: dict) -> str:
    return f"{row['experiment']}/{row['constraint']}"


def scenario_of(row: dict, timing: Timing | None = None) -> Scenario:
    """The row's scenario as a user would run it, from the files; optionally with other times."""
    scenario = load_scenario(SCENARIOS / f"exp{row['experiment']}.toml")
    changes = {} if timing is None else {"timing": timing}
    return dataclasses.replace(scenario, constraint=constraint_value(row["constraint"], POOL), **changes)


def art_ms(scenario: Scenario, decision: list[int] | tuple[int, ...]) -> float:
    """ART by the slow simulator."""
    quiet = numpy_simulator.Background(
        device_cpu=[0] * scenario.users,
        device_memory=[0] * scenario.users,
        device_weak=[int(device.link == "weak") for device in scenario.devices],
        node_cpu=[0, 0],
        node_memory=[0, 0],
        node_weak=[int(node.link == "weak") for node in (scenario.edge, scenario.cloud)],
    )
    return float(np.mean(numpy_simulator.response_ms(scenario, quiet, decision)))


def actions(row: dict) -> list[int]:
    return [LABELS.index(choice) for choice in row["decision"]]


def is_optimal(row: dict, timing: Timing | None = None) -> bool:
    """Whether Table V's own joint action is among the best ones, ties included."""
    optimum = oracle.brute_force(make_params(scenario_of(row, timing)), tie_tolerance=RELATIVE_TIE)
    return bool((optimum.optimal == actions(row)).all(axis=1).any())


def fit_rows() -> list[calibration.Row]:
    rows = []
    for row in ROWS:
        scenario = scenario_of(row)
        rows.append(
            calibration.Row(
                label=label(row),
                weak_devices=tuple(device.link == "weak" for device in scenario.devices),
                weak_edge=scenario.edge.link == "weak",
                constraint=scenario.constraint,
                decision=tuple(actions(row)),
                art_ms=row["art_ms"],
                trusted="contradiction" not in row,
            )
        )
    return rows


def assumptions() -> calibration.Assumptions:
    names = [field.name for field in dataclasses.fields(calibration.Assumptions)]
    return calibration.Assumptions(**{name: DOCUMENT[name] for name in names})


def test_the_committed_times_reproduce_table_v():
    errors = np.array([art_ms(scenario_of(row), actions(row)) - row["art_ms"] for row in ROWS])
    percent = 100 * errors / [row["art_ms"] for row in ROWS]
    assert len(errors) == 20
    assert np.sqrt(np.mean(errors**2)) <= 2.5
    assert np.max(np.abs(percent)) <= 2.5
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(DOCUMENT["fit"]["rmse_ms"], abs=1e-4)
    assert np.max(np.abs(percent)) == pytest.approx(DOCUMENT["fit"]["worst_percent"], abs=1e-4)
    listed = [DOCUMENT["fit"]["rows"][label(row)]["error_percent"] for row in ROWS]
    np.testing.assert_allclose(percent, listed, atol=1e-4)


def test_brute_force_returns_table_v_except_where_it_contradicts_itself():
    disagreeing = [label(row) for row in ROWS if not is_optimal(row)]
    assert len(ROWS) - len(disagreeing) >= 18
    assert disagreeing == [label(row) for row in ROWS if "contradiction" in row] == ["B/80", "D/Min"]
    assert DOCUMENT["fit"]["not_required_optimal"] == disagreeing


def test_most_rows_need_no_tie_tolerance():
    excess = {name: entry["excess_over_best_percent"] for name, entry in DOCUMENT["fit"]["rows"].items()}
    tied = [name for name, value in excess.items() if 0.0 < value <= 100 * RELATIVE_TIE]
    assert tied == ["C/85", "C/89", "D/89"]
    for row in ROWS:
        optimum = oracle.brute_force(make_params(scenario_of(row)))
        own = art_ms(scenario_of(row), actions(row))
        assert 100 * (own / optimum.art_ms - 1) == pytest.approx(excess[label(row)], abs=2e-4)


@pytest.mark.parametrize("node", ["edge", "cloud"])
def test_the_assumed_shares_lie_above_what_optimality_needs(node):
    least = DOCUMENT["fit"][f"least_{node}_share_ms"]
    assert 0.0 < least < DOCUMENT[f"{node}_share_ms"]
    timing = load_scenario(SCENARIOS / "expA.toml").timing
    trusted = [row for row in ROWS if "contradiction" not in row]
    above = dataclasses.replace(timing, **{f"{node}_share_ms": least + 0.01})
    below = dataclasses.replace(timing, **{f"{node}_share_ms": least - 0.2})
    assert all(is_optimal(row, above) for row in trusted)
    assert not all(is_optimal(row, below) for row in trusted)


def test_times_are_ordered_and_interpolated_as_documented():
    d0, d1, d2, d3, d4, d5, d6, d7 = (DOCUMENT["local_ms"][name] for name in POOL.names)
    assert d0 >= d1 >= d2 >= d3 > 0
    assert d4 >= d5 >= d6 >= d7 > 0
    macs = POOL.million_macs
    slope = (d2 - d3) / (macs[2] - macs[3])
    assert d0 == pytest.approx(d3 + slope * (macs[0] - macs[3]), abs=1e-3)
    assert d1 == pytest.approx(d3 + slope * (macs[1] - macs[3]), abs=1e-3)


def test_every_number_has_a_status():
    names = {field.name for field in dataclasses.fields(Timing)} - {"local_ms", "speeds", "unmeasured"}
    names |= {f"local_ms.{name}" for name in POOL.names}
    assert set(DOCUMENT["status"]) == names
    assert {text.split(":")[0] for text in DOCUMENT["status"].values()} == {"measured", "fitted", "assumed"}


@pytest.mark.parametrize("seed", range(5))
def test_solver_agrees_with_a_bounded_one(seed):
    random = np.random.default_rng(seed)
    matrix, target = random.normal(size=(12, 4)), random.normal(size=12)
    expected = optimize.lsq_linear(matrix, target, bounds=(0.1, 0.4), tol=1e-12).x
    inequality, bound = np.vstack([np.eye(4), -np.eye(4)]), np.array([0.1] * 4 + [-0.4] * 4)
    found = calibration.constrained_least_squares(matrix, target, inequality, bound)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_solver_says_what_is_wrong():
    with pytest.raises(ValueError, match="found inequalities that contradict"):
        calibration.constrained_least_squares(np.eye(2), np.zeros(2), np.array([[1.0, 0], [-1, 0]]), np.array([1.0, 1]))
    with pytest.raises(ValueError, match="to determine 2 parameters, found dependent columns"):
        calibration.constrained_least_squares(np.ones((3, 2)), np.zeros(3), np.eye(2), np.zeros(2))


def test_fit_recovers_known_times():
    times = np.array([150.0, 80.0, 240.0, 160.0, 110.0, 70.0])
    slope = (times[0] - times[1]) / (POOL.million_macs[2] - POOL.million_macs[3])
    large = [times[1] + slope * (POOL.million_macs[index] - POOL.million_macs[3]) for index in (0, 1)]
    truth = dataclasses.replace(
        load_scenario(SCENARIOS / "expA.toml").timing,
        local_ms=(*large, *times),
        edge_ms=330.0,
        cloud_ms=350.0,
        weak_device_ms=60.0,
        weak_edge_ms=4.0,
        weak_edge_offload_ms=20.0,
        weak_cloud_offload_ms=20.0,
    )
    rows = [
        dataclasses.replace(fitted, art_ms=art_ms(scenario_of(row, truth), actions(row)), trusted=False)
        for row, fitted in zip(ROWS, fit_rows(), strict=True)
    ]
    found = calibration.fit(rows, POOL, assumptions())
    assert found.rmse_ms < 1e-3
    np.testing.assert_allclose(found.timing.local_ms, truth.local_ms, atol=0.02)
    for field in ("edge_ms", "cloud_ms", "weak_device_ms", "weak_edge_ms", "weak_edge_offload_ms"):
        assert getattr(found.timing, field) == pytest.approx(getattr(truth, field), abs=0.02)


def test_the_linear_model_is_the_simulator_with_shared_nodes_too():
    decision = (8, 8, 9, 9, 9)
    timing = load_scenario(SCENARIOS / "expA.toml").timing
    for weak_devices, weak_edge in (((True, False, True, False, False), True), ((False,) * 5, False)):
        scenario = Scenario(
            name="shared",
            pool=POOL,
            timing=timing,
            devices=tuple(Device(f"S{index}", LINKS[weak]) for index, weak in enumerate(weak_devices)),
            edge=Node(LINKS[weak_edge], 2),
            cloud=Node("regular", 4),
        )
        extra = calibration.Row("shared", weak_devices, weak_edge, 0.0, decision, 500.0, trusted=False)
        found = calibration.fit([*fit_rows(), extra], POOL, assumptions())
        shared = dataclasses.replace(scenario, timing=found.timing)
        assert found.fitted_ms[-1] == pytest.approx(art_ms(shared, decision), abs=1e-6)


def test_exact_ties_are_possible_and_cost_more_than_the_bar():
    found = calibration.fit(fit_rows(), POOL, assumptions(), tie_tolerance=0.0)
    assert found.timing.edge_ms == pytest.approx(found.timing.cloud_ms, abs=1e-3)
    assert found.timing.local_ms[2] == pytest.approx(found.timing.local_ms[5], abs=1e-3)
    assert found.rmse_ms == pytest.approx(DOCUMENT["fit"]["rmse_ms_without_tie_tolerance"], abs=1e-4)
    assert found.rmse_ms > 2.5


def test_fit_refuses_what_it_does_not_fit():
    rows = fit_rows()
    with pytest.raises(ValueError, match="pool: expected the 8 models of Table III, found 1"):
        calibration.fit(
            rows, dataclasses.replace(POOL, names=("d0",), accuracy=(89.9,), million_macs=(569,)), assumptions()
        )
    with pytest.raises(ValueError, match=r"rows: expected some, .* found numbers \[\]"):
        calibration.fit([], POOL, assumptions())
    with pytest.raises(ValueError, match=r"A/Min: expected choices in 0\.\.9, found \(10,"):
        dataclasses.replace(rows[0], decision=(10, 0, 0, 0, 0))
    with pytest.raises(ValueError, match="A/Min: expected 1 links, found 5"):
        dataclasses.replace(rows[0], decision=(0,))


@pytest.mark.process
def test_fitting_again_gives_the_committed_bytes(tmp_path):
    line = [sys.executable, "-m", "launch.calibrate", "--source=paper", f"--out={tmp_path / 'again.json'}"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again.json").read_bytes() == FILE.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again.json"]
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:21]] == [label(row) for row in ROWS]
    assert sum("the row contradicts itself" in line for line in lines) == 2
    assert "18 of 20" in lines[21]


def test_command_refuses_bad_input_in_one_line(refused, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(ROOT / "data", data)
    broken = data / "paper" / "table5.toml"
    broken.write_text(broken.read_text(encoding="utf-8").replace('"d7/L"', '"d9/L"', 1), encoding="utf-8")
    for arguments, message in (
        (
            [f"--data={data}"],
            "error: rows[0].decision: expected 5 of d0/L, d1/L, d2/L, d3/L, d4/L, d5/L, d6/L, d7/L, ",
        ),
        (
            [f"--out={tmp_path / 'none' / 'out.json'}"],
            "error: out.json: expected a file that can be written, found No such",
        ),
    ):
        assert refused(*arguments, name="calibrate", cwd=ROOT).startswith(message)
