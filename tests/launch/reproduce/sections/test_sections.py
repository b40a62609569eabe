"""Each section says what run folders and the paper's tables say, worked out by hand; and a new one is one module."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import tomllib

import numpy as np
import pytest

from hl_jax import evaluation
from hl_jax.statistics import Spread
from launch.beyond import bars
from launch.beyond.lines import StepsLine, UsersLine
from launch.host import provenance
from launch.host.files import write_json
from launch.host.records import as_data
from launch.reproduce import plan, report
from launch.reproduce.sections import SECTIONS, factored, table5
from launch.runs.summary import Failure
from tests.helpers import fake_reproduction as fake
from tests.helpers.builders import ROOT


def paper(number: int) -> dict:
    return tomllib.loads((ROOT / "data" / "paper" / f"table{number}.toml").read_text(encoding="utf-8"))


def test_a_seed_that_failed_is_a_shortfall_and_counts_nowhere(tmp_path):
    broken = {
        "failed": Failure(3, "q_params isn't finite"),
        "art_ms": None,
        "accuracy": None,
        "feasible": None,
        "decision": (),
    }
    seeds = [fake.seed_entry(fake.MIN, 0, 1000), fake.seed_entry(fake.MIN, 1, None, **broken)]
    fake.write_unit(tmp_path, fake.MIN, [*seeds, fake.seed_entry(fake.MIN, 2, 1200)])
    fake.write_unit(tmp_path, fake.MAX, [fake.seed_entry(fake.MAX, seed, None, **broken) for seed in (0, 1, 2)])
    made = fake.build([fake.MIN, fake.MAX], tmp_path)
    report.write(made, tmp_path)
    first, second = made.sections["5"].rows
    assert (first.ours.seeds, first.ours.agreeing, first.ours.differing) == (2, (0, 2), ())
    assert second.ours is None
    told = [one.text for one in made.shortfalls if one.kind == "failed"]
    assert len(told) == 2
    assert "seed 1, epoch 3: q_params isn't finite" in told[0]


def test_every_printed_number_is_the_paper_s(numbers):
    by_row = {(row["experiment"], str(row["constraint"])): row for row in paper(5)["rows"]}
    for row in numbers["table5"]["rows"]:
        printed = by_row[row["experiment"], row["constraint"]]
        assert row["paper"] == {name: printed[name] for name in ("decision", "art_ms", "accuracy")}
    by_cell = {(row["users"], str(row["constraint"])): row for row in paper(6)["rows"]}
    assert len(numbers["table6"]["rows"]) == 2
    for row in numbers["table6"]["rows"]:
        printed = by_cell[row["users"], row["constraint"]]
        names = {"hybrid": "ours_steps", "dqn": "adadeep_steps", "q_learning": "autoscale_steps"}
        assert row["paper"] == {agent: printed[name] for agent, name in names.items()}
    minutes = numbers["table7"]["rows"][0]["agents"]["hybrid"]
    assert (minutes["compute_min"]["paper"], minutes["experience_min"]["paper"]) == (1.0, 26.0)
    assert [entry["row"] for entry in numbers["contradictions"]] == ["B/80", "D/Min"]
    assert numbers["table6"]["headline"]["dqn"]["paper"] == 11.6
    assert numbers["table6"]["headline"]["q_learning"]["paper"] == 166.6


def test_table_v_by_hand(numbers):
    first, last = numbers["table5"]["rows"]
    assert (first["constraint"], last["constraint"]) == ("Min", "Max")
    assert first["ours"]["agreeing"] == [0, 2]
    assert first["ours"]["differing"] == [1]
    assert first["ours"]["agrees"]
    assert first["ours"]["exact"]
    assert first["ours"]["seed"] == 0
    assert first["ours"]["decision"] == ["d7/L"] * 5
    assert first["ours"]["as_printed"]
    assert first["ours"]["art_ratio"] == pytest.approx(first["oracle"]["art_ms"] / 72.08)
    # Max: any two of five equal devices go to edge and cloud, in either order.
    assert last["optimal_decisions"] == 20
    assert last["ours"]["as_printed"]
    expected = {"run": 2, "agreeing": 2, "exact": 2, "agreeing_every_seed": 1, "art_near": 2, "of": 20}
    assert {name: numbers["table5"][name] for name in expected} == expected


def test_a_decision_agrees_by_ties_and_equal_devices_only():
    scenario, best = fake.MAX.settings.scenario, ["d0/L", "d0/L", "d0/L", "d0/E", "d0/C"]
    art = fake.optimum(scenario).art_ms
    same = fake.seed_entry(fake.MAX, 0, 1, decision=("d0/C", "d0/E", "d0/L", "d0/L", "d0/L"), art_ms=art * (1 + 1e-4))
    assert table5.agrees(same, best, scenario)
    tied = fake.seed_entry(fake.MAX, 0, 1, decision=("d4/L",) * 5, art_ms=art * (1 + 1e-6))
    assert table5.agrees(tied, best, scenario)
    near = dataclasses.replace(tied, art_ms=art * 1.0019)  # as near as the printed table's own ties
    assert table5.agrees(near, best, scenario)
    assert not table5.agrees(near, best, scenario, evaluation.EXACT)
    assert not table5.agrees(dataclasses.replace(tied, art_ms=art * 1.0021), best, scenario)
    assert not table5.agrees(dataclasses.replace(tied, feasible=False, art_ms=0.5 * art), best, scenario)


def test_table_vi_by_hand(numbers):
    three, five = numbers["table6"]["rows"]
    assert three["agents"]["hybrid"]["median"] == 2000
    assert three["agents"]["hybrid"]["ratio"] == 1.0
    assert three["agents"]["dqn"]["ratio"] == 0.8
    learned = three["agents"]["q_learning"]
    assert (learned["median"], learned["ratio"], learned["succeeded"], learned["never"]) == (None, None, 1, [1, 2])
    assert three["over_hybrid"]["dqn"] == {"ours": 4.0, "at_least": None, "paper": 5.0}
    # Most seeds never got there: more than the budget over hybrid's, never the budget as if it had been reached.
    assert three["over_hybrid"]["q_learning"] == {"ours": None, "at_least": 5.0, "paper": 1.5}
    assert five["agents"]["hybrid"]["median"] == 7000
    assert five["over_hybrid"]["dqn"] is None
    assert numbers["table6"]["within_paper"] == 1
    assert numbers["table6"]["run"] == 2


def test_headline_is_the_largest_ratio_at_five_users(tmp_path):
    needed = [
        fake.unit("A", 5, limit, agent, "6") for limit in ("80", "85") for agent in ("hybrid", "dqn", "q_learning")
    ]
    steps = {"hybrid": 1000, "dqn": 9000, "q_learning": None}
    fake.write_units(
        tmp_path, needed, lambda one, _: (least := steps[one.case.agent]) and least + 10 * int(one.case.constraint)
    )
    headline = fake.numbers(needed, tmp_path)["table6"]["headline"]
    assert headline["dqn"]["most"] == pytest.approx(9800 / 1800)
    assert headline["dqn"]["least"] == pytest.approx(9850 / 1850)
    assert headline["q_learning"]["most"] is None
    assert headline["q_learning"]["most_at_least"] == pytest.approx(10_000 / 1800)


def test_table_vii_by_hand(numbers):
    three, five = (row["agents"] for row in numbers["table7"]["rows"])
    # 2,000 steps of 0.6 s and of 1 ms.
    assert three["hybrid"]["experience_min"]["median"] == pytest.approx(20.0)
    assert three["hybrid"]["experience_min"]["ratio"] == pytest.approx(20.0 / 26.0)
    assert three["hybrid"]["compute_min"]["median"] == pytest.approx(2.0 / 60.0, abs=1e-3)
    assert three["q_learning"]["total_min"]["median"] is None
    assert three["q_learning"]["compute_min"]["paper"] is None
    assert three["hybrid"]["steps_per_s"] == pytest.approx(1000.0)
    assert five["hybrid"]["experience_min"]["median"] == pytest.approx(70.0)


def test_curves_end_at_the_optimum(numbers):
    (panel,) = numbers["figure3"]["panels"]
    assert panel["users"] == 3
    curves = {curve["agent"]: curve for curve in panel["curves"]}
    hybrid = curves["hybrid"]
    # The fastest seed stops at 1,000 steps: by then it is at the optimum, the others at a half and a third of theirs.
    assert hybrid["steps"][-1] == 1000
    assert hybrid["low"][-1] == pytest.approx(hybrid["optimum_ms"] * (1 + 3.0 * 0.5 / 2.0), rel=0.2)
    assert hybrid["steps_to_optimal"] == 2000
    bands = zip(hybrid["low"], hybrid["median"], hybrid["high"], strict=True)
    assert all(low <= middle <= high for low, middle, high in bands)


def test_peer_stands_beside_dqn(numbers):
    (row,) = numbers["peer"]["rows"]
    assert row["theirs"]["succeeded"] == 2
    assert row["theirs"]["median"] == 9000
    assert row["ours"]["median"] == 8000
    assert row["ours"]["budget_steps"] == fake.BUDGET


def test_shortfalls_are_listed(numbers):
    texts = [entry["text"] for entry in numbers["shortfalls"] if entry["kind"] != "beyond"]
    assert "Table V, A/Min: 1 of 3 seeds decide worse (seed 1)." in texts
    assert "Table VI, 5 users, Max: hybrid needs a median of 7,000 steps, over the paper's 6,000." in texts
    assert "Table VI, 3 users, 85%: 2 of 3 seeds of q_learning never got there in 10,000 steps (seed 1, 2)." in texts
    assert any("dqn needs 4.0 times hybrid's steps; in the paper AdaDeep needs 5.0 times" in text for text in texts)
    assert len(texts) == 4


def test_what_factored_shows_is_read_from_its_records(tmp_path, monkeypatch):
    records, out = tmp_path / "factored", tmp_path / "out"
    records.mkdir()
    out.mkdir()
    monkeypatch.setattr(factored, "RECORDS", records)
    nothing = {"rows": [], "users": [], "commits": [], "others": {}}
    assert fake.numbers([fake.MIN], out)["beyond"] == nothing

    def line(kind, steps, **more):
        reached = [step for step in steps if step is not None]
        spread = Spread(len(steps), len(reached), float(np.median(reached)), (None, None), None, (None, None))
        worst = max(reached)
        return kind(case="", steps_to_optimal=spread, worst=worst, steps=tuple(steps), false_alarms=0, **more)

    users = [line(UsersLine, [2, 3, 4], users=1), line(UsersLine, [1, None, 5], users=50)]
    for name, lines in (("users", users), ("noise10", [line(StepsLine, [14, 15, 16])])):
        made_by = (name, "python -m launch.beyond", "abc", {}, provenance.machine(), 1.0, 1.0)
        write_json(records / f"{name}.json", as_data(bars.Measured(*made_by, lines)))
    write_json(records / "report.json", bars.told(bars.read(records)))  # as `launch.beyond` does
    made = fake.build([fake.MIN], out)
    assert {row.title: row.met for row in made.sections["factored"].rows} == {
        "the same at 10 % noise": True,
        "1 to 100 devices at 85 %": False,
    }
    assert [entry.text for entry in made.shortfalls if entry.kind == "beyond"] == [
        "factored, 1 to 100 devices at 85 %: medians 3 to 3, worst seed 5, 5 of 6 succeed "
        "(bar: more devices make learning no dearer: no median above those of up to five devices, all succeed)."
    ]
    report.write(made, out)
    shown = (out / "report.md").read_text(encoding="utf-8")
    assert "✓ medians 15 to 15, worst seed 16, 3 of 3 succeed" in shown
    assert "](users.png)" in shown
    assert (out / "users.png").read_bytes().startswith(b"\x89PNG")


def test_art_off_by_more_than_three_percent_is_listed(tmp_path):
    made = fake.unit("D", 5, "Min", "hybrid", "5")
    fake.write_units(tmp_path, [made], lambda *_: 1000)
    (entry,) = [one for one in fake.build([made], tmp_path).shortfalls if one.kind != "beyond"]
    assert entry.kind == "art"
    assert re.search(
        r"D/Min: ART is 151\.\d+ ms, -4\.\d % off the printed 158\.53 \(a row that contradicts", entry.text
    )


MODULE = '''
"""How much of its budget hybrid uses with two users."""

import dataclasses
from typing import ClassVar

from launch.report.blocks import Cell, Figures, Heading, Table, Tile
from launch.report.plotting import DARK, LIGHT, Picture, png, styled_axes
from launch.reproduce.sections.section import Section, Shortfall
from launch.reproduce.units import Case


@dataclasses.dataclass(frozen=True)
class Use(Section):
    name: ClassVar[str] = "use"
    about: ClassVar[str] = "the budget that is used"
    key: ClassVar[str] = "budget_use"

    used_percent: dict[str, float]

    @classmethod
    def cases(cls, quick):
        return [Case("A", 2, limit, "hybrid") for limit in (("85",) if quick else ("85", "Max"))]

    @classmethod
    def compute(cls, work):
        done = {unit.case.constraint: work.summary(unit.case) for unit in work.needed_by(cls.name)}
        return cls({
            limit: 100.0 * one.aggregate.steps_to_optimal.median / one.whole[0].real_steps
            for limit, one in done.items()
            if one
        })

    def pictures(self):
        drawn = []
        for theme in (LIGHT, DARK):
            figure, axes = styled_axes(theme, 2.0, 2.0)
            axes.plot(list(self.used_percent.values()))
            drawn.append(png(figure))
        return {"use": Picture(*drawn, "Budgets used", "A caption of its own.", 100)}

    def blocks(self):
        rows = tuple((Cell(limit), Cell(f"{used:.1f} %")) for limit, used in self.used_percent.items())
        return [Heading("Use of budgets"), Figures(("use",)), Table(("Cnst", "used"), rows)]

    def tiles(self):
        return [Tile(f"{max(self.used_percent.values()):.0f} %", "of a budget is used at most")]

    def shortfalls(self):
        over = [limit for limit, used in self.used_percent.items() if used > 50.0]
        return [Shortfall("use", f"{limit} uses more than half.") for limit in over]
'''


def test_a_new_section_is_one_module_and_one_entry(tmp_path, monkeypatch, command):
    """It is planned, can be asked for alone, and is in report.json, on both pages, in the tiles and the shortfalls."""
    (tmp_path / "use.py").write_text(MODULE, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("use", tmp_path / "use.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(SECTIONS, module.Use.name, module.Use)

    out = tmp_path / "out"
    planned = plan.units(("use", "fig3"), ("hybrid",), 3, False)
    two = [unit for unit in planned if "use" in unit.tables]
    assert [(unit.case.users, unit.case.constraint, unit.tables) for unit in two] == [
        (2, "85", ("use", "fig3")),
        (2, "Max", ("use", "fig3")),
    ]
    fake.write_units(out, two, lambda unit, _: 2500 if unit.case.constraint == "85" else 8000)
    done = command("reproduce", "--tables=use", "--seeds=3", "--report_only", f"--run_dir={out}")
    assert done.status == 0, done.err
    assert "      80 %  of a budget is used at most" in done.out.splitlines()

    numbers = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert numbers["tables"] == ["use"]
    assert numbers["budget_use"] == {"used_percent": {"85": 25.0, "Max": 80.0}}
    assert {"kind": "use", "text": "Max uses more than half."} in numbers["shortfalls"]
    shown = (out / "report.md").read_text(encoding="utf-8")
    for text in ("## Use of budgets", "| 85 | 25.0 % |", "![Budgets used](use.png)", "- **80 %** of a budget"):
        assert text in shown
    assert "- Max uses more than half." in shown
    assert (out / "use.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "report.html").read_text(encoding="utf-8")
    for text in ("Use of budgets</h2>", "<td", "A caption of its own.", "Max uses more than half.", "<b>80 %</b>"):
        assert text in page
    assert "Table VI: steps" not in shown  # asked for alone

    # Beside the others it is one more.
    fake.write_units(out, [fake.MIN], lambda *_: 1000)
    report.write(fake.build([*two, fake.MIN], out), out)
    shown = (out / "report.md").read_text(encoding="utf-8")
    assert (
        shown.index("## Table V: decisions") < shown.index("## Use of budgets") < shown.index("## Where we fall short")
    )


def test_a_section_that_is_not_there_cannot_be_asked_for(refused):
    message = "error: --tables: expected a comma list of 5, 6, knowledge, 7, fig3, peer, found 'use'"
    assert refused("--tables=use", name="reproduce") == message


def test_sections_keep_apart(numbers):
    """No two have a name, a key or a picture in common, and no key is the report's own."""
    kinds = list(SECTIONS.values())
    assert [kind.name for kind in kinds] == list(SECTIONS)
    keys = [kind.key for kind in kinds]
    assert len(set(keys)) == len(keys)
    assert not set(keys) & {field.name for field in dataclasses.fields(report.Report)}
    assert set(keys) < numbers.keys()
