"""A sweep's report says what its run folders say, and calls real only what the seeds support."""

from __future__ import annotations

import csv
import html.parser
import json
import math
import pathlib
from collections.abc import Callable

import numpy as np
import pytest
from absl import flags

from hl_jax import comparison
from launch.report import html as report_html
from launch.runs.summary import failures
from launch.sweep import axes as sweep_axes
from launch.sweep import page as sweep_document
from launch.sweep import plan as sweep_plan
from launch.sweep import report as sweep_report
from launch.sweep.axes import Axis, Grid
from launch.sweep.plan import Point
from tests.helpers.builders import SCENARIOS

BASE = {"scenario": str(SCENARIOS / "expC.toml"), "users": "2", "constraint": "85", "agent": "hybrid"}
BUDGET = 4000


def plan(seeds: int, **axes: str) -> tuple[list[Point], tuple[Axis, ...]]:
    flags.FLAGS.mark_as_parsed()
    made = tuple(sweep_axes.axis(name, text) for name, text in axes.items())
    with sweep_plan.given(BASE | {"seeds": str(seeds)}):
        return sweep_plan.points(sweep_axes.grid_assignments((Grid(made),))), made


def write(points: list[Point], out: pathlib.Path, steps: Callable[[dict[str, str], int], int | None]) -> None:
    """Finished units whose seeds get to the optimum after `steps(assignment, seed)`; nothing is learned."""
    for point in points:
        for unit in point.units():
            folder = out / "units" / unit.folder
            folder.mkdir(parents=True, exist_ok=True)
            entries, lines = [], ["seed,epoch,real_steps,regret_percent"]
            for seed in unit.settings.seeds:
                found = steps(point.assignment, seed)
                entry = {"seed": seed, "steps_to_optimal": found, "steps_to_exact": found, "real_steps": BUDGET}
                entry |= {"model_steps": 0, "art_ms": 200.0, "oracle_art_ms": 200.0, "accuracy": 85.5, "feasible": True}
                entries.append({**entry, "decision": ["d4/L", "d0/E"], "compute_s": 1.0})
                for epoch in range(1, 9):
                    at = BUDGET * epoch // 8
                    lines.append(f"{seed},{epoch},{at},{0.0 if found is not None and at >= found else 50.0}")
            (folder / "metrics.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
            (folder / "summary.json").write_text(json.dumps({"seeds": entries}), encoding="utf-8")


def build(out: pathlib.Path, points: list[Point], axes: tuple[Axis, ...], failed: dict[str, str] | None = None) -> dict:
    return sweep_report.build(points, out, command="the test's", axes=axes, failed=failed or {})


def lognormal(assignment: dict[str, str], seed: int, factor: float = 1.0) -> int:
    """Steps around 1,000, drawn for this assignment and seed alone."""
    draw = np.random.default_rng([seed, *json.dumps(assignment, sort_keys=True).encode()]).normal()
    return round(1000.0 * factor * math.exp(0.3 * draw))


def test_a_run_that_failed_is_told_and_counts_nowhere(tmp_path):
    points, axes = plan(6, k_best="5,20")
    write(points, tmp_path, lognormal)
    whole = build(tmp_path, points, axes)
    unit = points[0].units()[0]
    file = tmp_path / "units" / unit.folder / "summary.json"
    summary = json.loads(file.read_text(encoding="utf-8")) | {"agent": "hybrid"}
    summary["seeds"][0] |= {"failed": {"epoch": 7, "what": "q_params isn't finite"}, "steps_to_optimal": None}
    file.write_text(json.dumps(summary), encoding="utf-8")
    failed = failures({unit.folder: file.parent})
    report = build(tmp_path, points, axes, failed)
    assert failed == {unit.folder: f"hybrid, seed {unit.settings.seeds[0]}, epoch 7: q_params isn't finite"}
    before, after = whole["cells"][0], report["cells"][0]
    assert (before["seeds"], after["seeds"], after["succeeded"]) == (6, 5, 5)
    assert report["cells"][1] == whole["cells"][1]
    sweep_report.write(report, tmp_path)
    assert "epoch 7" in (tmp_path / "report.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Two axes of settings, two tasks, ten seeds: k_best=20 needs half the steps, gamma changes nothing."""
    out = tmp_path_factory.mktemp("sweep")
    points, axes = plan(10, k_best="5,20", gamma="0.1,0.3", constraint="80,Max")

    def steps(one: dict[str, str], seed: int) -> int | None:
        if one["constraint"] == "Max" and one["k_best"] == "5" and seed < 3:
            return None
        return lognormal(
            one, seed, (0.5 if one["k_best"] == "20" else 1.0) * (3.0 if one["constraint"] == "Max" else 1.0)
        )

    write(points, out, steps)
    report = build(out, points, axes)
    sweep_report.write(report, out)
    return report, out


def verdict(report: dict, first: str, second: str) -> dict:
    (row,) = (row for row in report["comparisons"] if (row["first"], row["second"]) == (first, second))
    return row


def test_the_difference_is_found_and_what_is_the_same_is_undecided(full):
    report, _ = full
    k_best = verdict(report, "k_best=5", "k_best=20")
    assert k_best["verdict"] == "k_best=20 needs fewer steps"
    assert k_best["improvement"] > 0.85
    assert k_best["tasks"] == 4  # two values of gamma, two constraints
    assert k_best["seeds"] == [40, 40]
    gamma = verdict(report, "gamma=0.1", "gamma=0.3")
    assert gamma["verdict"] == "undecided"
    assert gamma["interval"][0] < 0.5 < gamma["interval"][1]
    # Settings with the first one, over both tasks.
    both = verdict(report, "k_best=5, gamma=0.1", "k_best=20, gamma=0.1")
    assert (both["kind"], both["tasks"], both["seeds"]) == ("setting", 2, [20, 20])
    assert len(report["comparisons"]) == 2 + 3


def test_p_values_are_corrected_for_all_comparisons_at_once(full):
    report, _ = full
    rows = report["comparisons"]
    expected = comparison.holm([row["p_value"] for row in rows])
    np.testing.assert_allclose([row["adjusted"] for row in rows], expected)


def test_numbers_are_the_runs(full):
    report, out = full
    (cell,) = (c for c in report["cells"] if c["setting"] == "k_best=5, gamma=0.1" and c["task"] == "constraint=Max")
    one = {"k_best": "5", "gamma": "0.1", "constraint": "Max"}
    done = [lognormal(one, seed, 3.0) for seed in range(3, 10)]
    assert (cell["seeds"], cell["succeeded"]) == (10, 7)
    ordered = [*sorted(done), math.inf, math.inf, math.inf]
    assert cell["median"] == (ordered[4] + ordered[5]) / 2
    with (out / "runs.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 80
    never = [row for row in rows if row["steps_to_optimal"] == ""]
    assert {(row["setting"], row["task"], row["seed"]) for row in never} == {
        (f"k_best=5, gamma={gamma}", "constraint=Max", str(seed)) for gamma in ("0.1", "0.3") for seed in range(3)
    }
    (setting,) = (row for row in report["settings"] if row["setting"] == "k_best=20, gamma=0.3")
    assert (setting["tasks"], setting["seeds"], setting["succeeded"], setting["relative"]) == (2, 20, 20, True)
    low, high = setting["iqm_interval"]
    assert low < setting["iqm"] < high


def test_a_run_that_never_got_there_is_no_point_of_the_distribution(full):
    report, _ = full
    (panel,) = (panel for panel in report["panels"] if panel["axis"] == "k_best")
    first, second = panel["lines"]
    assert (first["runs"], len(first["reached"])) == (40, 34)
    assert (second["runs"], len(second["reached"])) == (40, 40)


class Parser(html.parser.HTMLParser):
    """Tags that are open, and every address that the page would load."""

    VOID = frozenset(("meta", "link", "img", "source", "br"))

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self.loads += [
            value for name, value in attrs if name in ("src", "srcset") or (tag == "link" and name == "href")
        ]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_is_whole_and_loads_nothing(full):
    _, out = full
    parser = Parser()
    parser.feed((out / "report.html").read_text(encoding="utf-8"))
    assert parser.open == []
    assert len(parser.loads) > 5
    assert all(address.startswith("data:") for address in parser.loads)
    shown = " ".join(parser.text)
    assert "k_best=20 needs fewer steps" in shown
    assert "undecided" in shown
    for name in ("settings", "reached-k_best", "curves-k_best", "reached-gamma", "curves-gamma"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_values_are_escaped(tmp_path):
    points, axes = plan(2, gamma="0.1,0.2")
    write(points, tmp_path, lambda *_: 500)
    report = build(tmp_path, points, axes, {"units/x": "<script>alert(1)</script>"})
    report["comparisons"][0]["first"] = "<b>"
    report["compared"] = ["<i>"]
    page = report_html.render(sweep_document.page(report), {})
    assert "<script>" not in page
    assert "&lt;b&gt;" in page
    assert "<i>" not in page


def test_too_few_seeds_are_said_to_be_too_few(tmp_path):
    points, axes = plan(3, gamma="0.1,0.2")
    write(points, tmp_path, lambda one, seed: (10 if one["gamma"] == "0.2" else 1000) + seed)
    report = build(tmp_path, points, axes)
    (row,) = report["comparisons"]
    assert (row["verdict"], row["improvement"]) == ("undecided", 1.0)
    assert sweep_document.verdict_cell(row, report["level"]).text == "undecided: too few seeds to tell"
    assert any("with fewer than 5 hardly anything" in text for text in sweep_document.warnings(report))


def test_the_same_training_under_two_names_isn_t_compared(tmp_path):
    points, axes = plan(5, gamma="0.2,0.20,0.3")
    write(points, tmp_path, lambda one, seed: 500 + seed)
    report = build(tmp_path, points, axes)
    assert verdict(report, "gamma=0.2", "gamma=0.20")["verdict"] == "the same settings"
    assert verdict(report, "gamma=0.2", "gamma=0.3")["verdict"] == "undecided"
    tiles = {tile.label: tile.value for tile in sweep_document.page(report).tiles}
    assert tiles["runs got to the optimum for good"] == "10 of 10"


def test_the_same_runs_are_compared_once(tmp_path):
    """Two axes, each varied alone around a first setting that is in both grids."""
    flags.FLAGS.mark_as_parsed()
    made = [sweep_axes.axis(name, text) for name, text in (("k_best", "300,30"), ("gamma", "0,0.3,0.2"))]
    with sweep_plan.given(BASE | {"seeds": "5"}):
        points = sweep_plan.points(sweep_axes.grid_assignments([Grid((axis,)) for axis in made]))
    write(points, tmp_path, lambda one, seed: 500 + seed)
    pairs = [(row["first"], row["second"]) for row in build(tmp_path, points, tuple(made))["comparisons"]]
    assert pairs == [
        ("k_best=300", "k_best=30"),
        *(("gamma=0", "gamma=0.3"), ("gamma=0", "gamma=0.2"), ("gamma=0.3", "gamma=0.2")),
        ("k_best=300", "gamma=0"),
    ]


def test_a_partial_sweep_says_so(tmp_path):
    points, axes = plan(5, gamma="0.1,0.2,0.3")
    write(points[:2], tmp_path, lambda one, seed: 500 + seed)
    report = build(tmp_path, points, axes, {"a/seed-0000": "it broke"})
    assert sweep_document.warnings(report) == ["This is a partial report: 5 of 15 units of work aren't finished."]
    assert verdict(report, "gamma=0.1", "gamma=0.3")["verdict"] == "not run"
    sweep_report.write(report, tmp_path)
    assert "Not done: `a/seed-0000`: it broke" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_only_the_seeds_that_are_asked_for_are_reported(tmp_path):
    many, axes = plan(8, gamma="0.1,0.2")
    write(many, tmp_path, lambda *_: 500)
    few, _ = plan(6, gamma="0.1,0.2")
    assert [row["seeds"] for row in build(tmp_path, few, axes)["cells"]] == [6, 6]


def test_tasks_alone_are_compared_with_each_other(tmp_path):
    points, axes = plan(10, users="2,3")
    write(points, tmp_path, lambda one, seed: (100 if one["users"] == "2" else 900) + seed)
    report = build(tmp_path, points, axes)
    assert verdict(report, "users=2", "users=3")["verdict"] == "users=2 needs fewer steps"


def test_steps_that_nobody_needed_are_drawn_too(tmp_path):
    points, axes = plan(5, gamma="0.1,0.2")
    write(points, tmp_path, lambda *_: None)
    report = build(tmp_path, points, axes)
    sweep_report.write(report, tmp_path)
    assert report["settings"][0]["iqm"] is None
    json.loads((tmp_path / "report.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)


def test_drawn_settings_come_best_first_and_long_names_have_numbers(tmp_path):
    points, axes = plan(5, gamma="0.1,0.2,0.3", q_learning_rate="0.001", direct_updates="10")
    needed = {"0.1": 900, "0.2": None, "0.3": 500}
    write(points, tmp_path, lambda one, seed: needed[one["gamma"]])
    search = {**sweep_report.GRID, "kind": "random"}
    report = sweep_report.build(points, tmp_path, command="the test's", axes=axes, failed={}, search=search)
    sweep_report.write(report, tmp_path)
    names = [row["setting"] for row in report["settings"]]
    assert [name.split(",")[0] for name in names] == ["gamma=0.3", "gamma=0.1", "gamma=0.2"]
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert [f"| {place} | {name} |" in text for place, name in enumerate(names, 1)] == [True] * 3
