"""A sweep's report says what its run folders say, and calls real only what the seeds support."""

from __future__ import annotations

import csv
import dataclasses
import html.parser
import json
import math
import pathlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from absl import flags

from hl_jax import comparison
from launch.host import provenance
from launch.inputs.flags import given
from launch.report import html as as_html
from launch.runs.folder import failures
from launch.runs.history import Row
from launch.runs.summary import summarize
from launch.sweep import collect, page, plan
from launch.sweep.axes import Axis, Grid, axis, grid_assignments
from launch.sweep.plan import Point
from launch.sweep.report import Comparison, Report, Search
from tests.helpers.builders import SCENARIOS

BASE = {"scenario": str(SCENARIOS / "expC.toml"), "users": "2", "constraint": "85", "agent": "hybrid"}
BUDGET = 4000


@pytest.fixture(scope="module", autouse=True)
def _no_git() -> Iterator[None]:
    """A report asks for the commit, which starts a process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "commit", lambda: None)
        yield


def planned(seeds: int, **texts: str) -> tuple[list[Point], tuple[Axis, ...]]:
    flags.FLAGS.mark_as_parsed()
    made = tuple(axis(name, text) for name, text in texts.items())
    with given(BASE | {"seeds": str(seeds)}):
        return plan.points(grid_assignments((Grid(made),))), made


def row(seed: int, epoch: int, steps: int | None) -> Row:
    """An epoch of a seed that is at the optimum from `steps` on; nothing is learned."""
    at = BUDGET * epoch // 8
    return Row(
        seed=seed,
        epoch=epoch,
        real_steps=at,
        model_steps=0,
        train_art_ms=250.0,
        train_cost_ms=250.0,
        infeasible_share=0.0,
        experience_s=1.0,
        art_ms=200.0,
        accuracy=85.5,
        feasible=True,
        regret_percent=0.0 if steps is not None and at >= steps else 50.0,
        decision=(4, 8),
        learning={},
        compute_s=0.125,
    )


def write(points: list[Point], out: pathlib.Path, steps: Callable[[dict[str, str], int], int | None]) -> None:
    """Finished units whose seeds get to the optimum after `steps(assignment, seed)`."""
    for point in points:
        for unit in point.units():
            found = {seed: steps(point.assignment, seed) for seed in unit.settings.seeds}
            histories = {seed: [row(seed, epoch, found[seed]) for epoch in range(1, 9)] for seed in found}
            run = unit.run_folder(out)
            run.path.mkdir(parents=True, exist_ok=True)
            run.write_results(unit.settings, histories, None, pictures=False)
            made = summarize(unit.settings, histories, None, {})
            # Between two evaluations, where no history has it.
            seeds = [
                dataclasses.replace(
                    seed, steps_to_optimal=found[seed.seed], steps_to_exact=found[seed.seed], oracle_art_ms=200.0
                )
                for seed in made.seeds
            ]
            whole = dataclasses.replace(made, seeds=tuple(seeds))
            run.summary_file.write_text(json.dumps(whole.as_json()), encoding="utf-8")


def build(
    out: pathlib.Path, points: list[Point], axes: tuple[Axis, ...], failed: dict[str, str] | None = None
) -> Report:
    return collect.build(points, out, command="the test's", axes=axes, failed=failed or {})


def lognormal(assignment: dict[str, str], seed: int, factor: float = 1.0) -> int:
    """Steps around 1,000, drawn for this assignment and seed alone."""
    draw = np.random.default_rng([seed, *json.dumps(assignment, sort_keys=True).encode()]).normal()
    return round(1000.0 * factor * math.exp(0.3 * draw))


def test_a_run_that_failed_is_told_and_counts_nowhere(tmp_path):
    points, axes = planned(6, k_best="5,20")
    write(points, tmp_path, lognormal)
    whole = build(tmp_path, points, axes)
    unit = points[0].units()[0]
    file = unit.run_folder(tmp_path).summary_file
    summary = json.loads(file.read_text(encoding="utf-8"))
    summary["seeds"][0] |= {"failed": {"epoch": 7, "what": "q_params isn't finite"}, "steps_to_optimal": None}
    file.write_text(json.dumps(summary), encoding="utf-8")
    failed = failures({unit.folder: file.parent})
    report = build(tmp_path, points, axes, failed)
    assert failed == {unit.folder: f"hybrid, seed {unit.settings.seeds[0]}, epoch 7: q_params isn't finite"}
    before, after = whole.cells[0].steps, report.cells[0].steps
    assert (before.seeds, after.seeds, after.succeeded) == (6, 5, 5)
    assert report.cells[1] == whole.cells[1]
    page.write(report, tmp_path)
    assert "epoch 7" in (tmp_path / "report.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Two axes of settings, two tasks, ten seeds: k_best=20 needs half the steps, gamma changes nothing."""
    out = tmp_path_factory.mktemp("sweep")
    points, axes = planned(10, k_best="5,20", gamma="0.1,0.3", constraint="80,Max")

    def steps(one: dict[str, str], seed: int) -> int | None:
        if one["constraint"] == "Max" and one["k_best"] == "5" and seed < 3:
            return None
        return lognormal(
            one, seed, (0.5 if one["k_best"] == "20" else 1.0) * (3.0 if one["constraint"] == "Max" else 1.0)
        )

    write(points, out, steps)
    report = build(out, points, axes)
    page.write(report, out)
    return report, out


def verdict(report: Report, first: str, second: str) -> Comparison:
    (found,) = (one for one in report.comparisons if (one.first, one.second) == (first, second))
    return found


def test_the_difference_is_found_and_what_is_the_same_is_undecided(full):
    report, _ = full
    k_best = verdict(report, "k_best=5", "k_best=20")
    assert k_best.verdict == "k_best=20 needs fewer steps"
    assert k_best.tested.improvement > 0.85
    assert k_best.tasks == 4  # two values of gamma, two constraints
    assert k_best.seeds == (40, 40)
    gamma = verdict(report, "gamma=0.1", "gamma=0.3")
    assert gamma.verdict == "undecided"
    assert gamma.tested.interval[0] < 0.5 < gamma.tested.interval[1]
    # Settings with the first one, over both tasks.
    both = verdict(report, "k_best=5, gamma=0.1", "k_best=20, gamma=0.1")
    assert (both.kind, both.tasks, both.seeds) == ("setting", 2, (20, 20))
    assert len(report.comparisons) == 2 + 3


def test_p_values_are_corrected_for_all_comparisons_at_once(full):
    report, _ = full
    tested = [one.tested for one in report.comparisons]
    expected = comparison.holm([one.p_value for one in tested])
    np.testing.assert_allclose([one.adjusted for one in tested], expected)


def test_numbers_are_the_runs(full):
    report, out = full
    (cell,) = (c for c in report.cells if (c.setting, c.task) == ("k_best=5, gamma=0.1", "constraint=Max"))
    one = {"k_best": "5", "gamma": "0.1", "constraint": "Max"}
    done = [lognormal(one, seed, 3.0) for seed in range(3, 10)]
    assert (cell.steps.seeds, cell.steps.succeeded) == (10, 7)
    ordered = [*sorted(done), math.inf, math.inf, math.inf]
    assert cell.steps.median == (ordered[4] + ordered[5]) / 2
    with (out / "runs.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 80
    never = [row for row in rows if row["steps_to_optimal"] == ""]
    assert {(row["setting"], row["task"], row["seed"]) for row in never} == {
        (f"k_best=5, gamma={gamma}", "constraint=Max", str(seed)) for gamma in ("0.1", "0.3") for seed in range(3)
    }
    (setting,) = (one for one in report.settings if one.setting == "k_best=20, gamma=0.3")
    assert (setting.tasks, setting.seeds, setting.succeeded, setting.relative) == (2, 20, 20, True)
    low, high = setting.iqm_interval
    assert low < setting.iqm < high


def test_a_run_that_never_got_there_is_no_point_of_the_distribution(full):
    report, _ = full
    (panel,) = (panel for panel in report.panels if panel.axis == "k_best")
    first, second = panel.lines
    assert (first.runs, len(first.reached)) == (40, 34)
    assert (second.runs, len(second.reached)) == (40, 40)


COLUMNS = {  # as in data/results, so that what is kept there can be compared
    "settings": "setting,task,seeds,succeeded,median,median_interval_low,median_interval_high,iqm,iqm_interval_low,"
    "iqm_interval_high,least_budget,most_budget,feasible,art_over_optimum",
    "comparisons": "kind,axis,first,second,tasks,seeds,improvement,interval_low,interval_high,p_value,adjusted,"
    "least_adjusted,decidable,verdict",
    "runs": "setting,task,point,seed,failed,steps_to_optimal,steps_to_exact,real_steps,model_steps,art_ms,"
    "oracle_art_ms,accuracy,feasible,experience_s,compute_s,experience_to_optimal_s,compute_to_optimal_s",
}
KEYS = {
    "": "about compared tasks settings cells comparisons level panels runs axes search run trained",
    "settings": "setting tasks seeds succeeded iqm iqm_interval relative",
    "panels": "axis lines",
    "axes": "name values",
    "search": "kind about no_comparison trials",
    "run": "command commits versions machine units finished failed wall_s peak_memory_gib",
}


def test_names_in_the_files_are_as_ever(full):
    _, out = full
    for name, columns in COLUMNS.items():
        assert (out / f"{name}.csv").read_text(encoding="utf-8").splitlines()[0] == columns
    data = json.loads((out / "report.json").read_text(encoding="utf-8"))
    for name, keys in KEYS.items():
        part = data[name] if name else data
        assert list(part[0] if isinstance(part, list) else part) == keys.split()
    for rows, name in (("cells", "settings"), ("comparisons", "comparisons"), ("runs", "runs")):
        with (out / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            assert len(data[rows]) == len(list(csv.DictReader(file)))
        plain = list(dict.fromkeys(column.removesuffix("_low") for column in COLUMNS[name].split(",")))
        assert list(data[rows][0]) == [column for column in plain if not column.endswith("_high")]
    assert list(data["panels"][0]["lines"][0]) == ["name", "runs", "reached", "budget", "curve"]
    assert list(data["panels"][0]["lines"][0]["curve"]) == ["steps", "median", "low", "high"]


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
    points, axes = planned(2, gamma="0.1,0.2")
    write(points, tmp_path, lambda *_: 500)
    report = build(tmp_path, points, axes, {"units/x": "<script>alert(1)</script>"})
    odd = dataclasses.replace(report.comparisons[0], first="<b>")
    report = dataclasses.replace(report, comparisons=(odd,), compared=("<i>",))
    text = as_html.render(page.compose(report), {})
    assert "<script>" not in text
    assert "&lt;b&gt;" in text
    assert "<i>" not in text


def test_too_few_seeds_are_said_to_be_too_few(tmp_path):
    points, axes = planned(3, gamma="0.1,0.2")
    write(points, tmp_path, lambda one, seed: (10 if one["gamma"] == "0.2" else 1000) + seed)
    report = build(tmp_path, points, axes)
    (found,) = report.comparisons
    assert (found.verdict, found.tested.improvement) == ("undecided", 1.0)
    assert page.verdict_cell(found, report.level).text == "undecided: too few seeds to tell"
    assert any("with fewer than 5 hardly anything" in text for text in page.warnings(report))


def test_the_same_training_under_two_names_isn_t_compared(tmp_path):
    points, axes = planned(5, gamma="0.2,0.20,0.3")
    write(points, tmp_path, lambda one, seed: 500 + seed)
    report = build(tmp_path, points, axes)
    assert verdict(report, "gamma=0.2", "gamma=0.20").verdict == "the same settings"
    assert verdict(report, "gamma=0.2", "gamma=0.3").verdict == "undecided"
    tiles = {tile.label: tile.value for tile in page.compose(report).tiles}
    assert tiles["runs got to the optimum for good"] == "10 of 10"


def test_the_same_runs_are_compared_once(tmp_path):
    """Two axes, each varied alone around a first setting that is in both grids."""
    flags.FLAGS.mark_as_parsed()
    made = [axis(name, text) for name, text in (("k_best", "300,30"), ("gamma", "0,0.3,0.2"))]
    with given(BASE | {"seeds": "5"}):
        points = plan.points(grid_assignments([Grid((one,)) for one in made]))
    write(points, tmp_path, lambda one, seed: 500 + seed)
    pairs = [(one.first, one.second) for one in build(tmp_path, points, tuple(made)).comparisons]
    assert pairs == [
        ("k_best=300", "k_best=30"),
        *(("gamma=0", "gamma=0.3"), ("gamma=0", "gamma=0.2"), ("gamma=0.3", "gamma=0.2")),
        ("k_best=300", "gamma=0"),
    ]


def test_agents_of_different_constants_are_compared_as_settings(tmp_path):
    points, axes = planned(5, agent="hybrid,q_learning", step_size="0.3,0.6")
    write(points, tmp_path, lambda one, seed: (500 if one["agent"] == "hybrid" else 900) + seed)
    found = [(one.kind, one.first, one.second) for one in build(tmp_path, points, axes).comparisons]
    assert found == [
        ("axis", "step_size=0.3", "step_size=0.6"),  # and no two agents with all else equal
        *(("setting", "agent=hybrid", f"agent=q_learning, step_size={size}") for size in ("0.3", "0.6")),
    ]


def test_a_partial_sweep_says_so(tmp_path):
    points, axes = planned(5, gamma="0.1,0.2,0.3")
    write(points[:2], tmp_path, lambda one, seed: 500 + seed)
    report = build(tmp_path, points, axes, {"a/seed-0000": "it broke"})
    assert page.warnings(report) == ["This is a partial report: 5 of 15 units of work aren't finished."]
    assert verdict(report, "gamma=0.1", "gamma=0.3").verdict == "not run"
    page.write(report, tmp_path)
    assert "Not done: `a/seed-0000`: it broke" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_only_the_seeds_that_are_asked_for_are_reported(tmp_path):
    many, axes = planned(8, gamma="0.1,0.2")
    write(many, tmp_path, lambda *_: 500)
    few, _ = planned(6, gamma="0.1,0.2")
    assert [cell.steps.seeds for cell in build(tmp_path, few, axes).cells] == [6, 6]


def test_tasks_alone_are_compared_with_each_other(tmp_path):
    points, axes = planned(10, users="2,3")
    write(points, tmp_path, lambda one, seed: (100 if one["users"] == "2" else 900) + seed)
    report = build(tmp_path, points, axes)
    assert verdict(report, "users=2", "users=3").verdict == "users=2 needs fewer steps"


def test_steps_that_nobody_needed_are_drawn_too(tmp_path):
    points, axes = planned(5, gamma="0.1,0.2")
    write(points, tmp_path, lambda *_: None)
    report = build(tmp_path, points, axes)
    page.write(report, tmp_path)
    assert report.settings[0].iqm is None
    json.loads((tmp_path / "report.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)


def test_drawn_settings_come_best_first_and_long_names_have_numbers(tmp_path):
    points, axes = planned(5, gamma="0.1,0.2,0.3", q_learning_rate="0.001", direct_updates="10")
    needed = {"0.1": 900, "0.2": None, "0.3": 500}
    write(points, tmp_path, lambda one, seed: needed[one["gamma"]])
    search = Search("random")
    report = collect.build(points, tmp_path, command="the test's", axes=axes, failed={}, search=search)
    assert report.comparisons == ()
    page.write(report, tmp_path)
    names = [one.setting for one in report.settings]
    assert [name.split(",")[0] for name in names] == ["gamma=0.3", "gamma=0.1", "gamma=0.2"]
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert [f"| {place} | {name} |" in text for place, name in enumerate(names, 1)] == [True] * 3
