"""The report says what the run folders and the paper's tables say: JSON, Markdown, a page that needs nothing else."""

from __future__ import annotations

import base64
import dataclasses
import html.parser
import json
import re
import tomllib

import numpy as np
import pytest

from hl_jax import evaluation
from launch.beyond import bars
from launch.host import provenance
from launch.host.errors import InputError
from launch.host.files import write_json
from launch.report import html as report_html
from launch.report import markdown as report_markdown
from launch.reproduce import collect as report_collect
from launch.reproduce import document as report_document
from launch.reproduce import plan as report_plan
from launch.reproduce import report
from launch.reproduce import sb3 as peer
from tests.helpers import fake_reproduction as fake
from tests.helpers.builders import ROOT

MIN = fake.unit("A", 5, "Min", "hybrid", "5")
MAX = fake.unit("A", 5, "Max", "hybrid", "5", "6", "7")
THREE = {agent: fake.unit("A", 3, "85", agent, "6", "7", "fig3") for agent in ("hybrid", "dqn")}
THREE["q_learning"] = fake.unit("A", 3, "85", "q_learning", "6", "7")
PEER = fake.unit("A", 3, "85", peer.AGENT, "peer")


def build(plan, out, **changes):
    options = {"command": "python -m launch.reproduce", "quick": False, "tables": report_plan.TABLES, **changes}
    return report.build(plan, out, **options)


def paper(number: int) -> dict:
    return tomllib.loads((ROOT / "data" / "paper" / f"table{number}.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A report with every part: (report, folder). Three seeds a unit."""
    out = tmp_path_factory.mktemp("reproduction")
    fake.write_unit(
        out,
        MIN,
        [
            fake.seed_entry(MIN, 0, 1000),
            fake.seed_entry(MIN, 1, None, art_ms=80.0, accuracy=74.88, decision=["d6/L", *["d7/L"] * 4]),
            fake.seed_entry(MIN, 2, 1200),
        ],
    )
    fake.write_units(out, [MAX], lambda _, seed: (8000, 6000, 7000)[seed])
    fake.write_units(out, [THREE["hybrid"]], lambda _, seed: (1000, 3000, 2000)[seed])
    fake.write_units(out, [THREE["dqn"]], lambda _, seed: (8000, 8000, 9000)[seed])
    fake.write_units(out, [THREE["q_learning"]], lambda _, seed: (4000, None, None)[seed])
    fake.write_units(out, [PEER], lambda _, seed: (9000, None, 7000)[seed])
    made = build([MIN, MAX, *THREE.values(), PEER], out)
    report.write(made, out)
    return made, out


def test_a_seed_that_failed_is_a_shortfall_and_counts_nowhere(tmp_path):
    broken = {"failed": {"epoch": 3, "what": "q_params isn't finite"}, "art_ms": None, "feasible": None, "decision": []}
    seeds = [fake.seed_entry(MIN, 0, 1000), fake.seed_entry(MIN, 1, None, **broken), fake.seed_entry(MIN, 2, 1200)]
    fake.write_unit(tmp_path, MIN, seeds)
    fake.write_unit(tmp_path, MAX, [fake.seed_entry(MAX, seed, None, **broken) for seed in (0, 1, 2)])
    made = build([MIN, MAX], tmp_path)
    report.write(made, tmp_path)
    ours = made["table5"]["rows"][0]["ours"]
    assert (ours["seeds"], ours["agreeing"], ours["differing"]) == (2, [0, 2], [])
    assert made["table5"]["rows"][1]["ours"] is None
    told = [one["text"] for one in made["shortfalls"] if one["kind"] == "failed"]
    assert len(told) == 2
    assert "seed 1, epoch 3: q_params isn't finite" in told[0]


def test_every_printed_number_is_the_paper_s(full):
    made, _ = full
    by_row = {(row["experiment"], str(row["constraint"])): row for row in paper(5)["rows"]}
    for row in made["table5"]["rows"]:
        printed = by_row[row["experiment"], row["constraint"]]
        assert row["paper"] == {name: printed[name] for name in ("decision", "art_ms", "accuracy")}
    by_cell = {(row["users"], str(row["constraint"])): row for row in paper(6)["rows"]}
    assert len(made["table6"]["rows"]) == 2
    for row in made["table6"]["rows"]:
        printed = by_cell[row["users"], row["constraint"]]
        names = {"hybrid": "ours_steps", "dqn": "adadeep_steps", "q_learning": "autoscale_steps"}
        assert row["paper"] == {agent: printed[name] for agent, name in names.items()}
    minutes = made["table7"]["rows"][0]["agents"]["hybrid"]
    assert (minutes["compute_min"]["paper"], minutes["experience_min"]["paper"]) == (1.0, 26.0)
    assert [entry["row"] for entry in made["contradictions"]] == ["B/80", "D/Min"]
    assert made["table6"]["headline"]["dqn"]["paper"] == 11.6
    assert made["table6"]["headline"]["q_learning"]["paper"] == 166.6


def test_table_v_by_hand(full):
    made, _ = full
    first, last = made["table5"]["rows"]
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
    assert {name: made["table5"][name] for name in expected} == expected


def test_a_decision_agrees_by_ties_and_equal_devices_only():
    scenario, best = MAX.settings.scenario, ["d0/L", "d0/L", "d0/L", "d0/E", "d0/C"]
    art = fake.optimum(scenario).art_ms
    same = fake.seed_entry(MAX, 0, 1, decision=["d0/C", "d0/E", "d0/L", "d0/L", "d0/L"], art_ms=art * (1 + 1e-4))
    assert report_collect.agrees(same, best, scenario)
    tied = fake.seed_entry(MAX, 0, 1, decision=["d4/L"] * 5, art_ms=art * (1 + 1e-6))
    assert report_collect.agrees(tied, best, scenario)
    near = {**tied, "art_ms": art * 1.0019}  # as near as the printed table's own ties
    assert report_collect.agrees(near, best, scenario)
    assert not report_collect.agrees(near, best, scenario, evaluation.EXACT)
    assert not report_collect.agrees({**tied, "art_ms": art * 1.0021}, best, scenario)
    assert not report_collect.agrees({**tied, "feasible": False, "art_ms": 0.5 * art}, best, scenario)


def test_table_vi_by_hand(full):
    made, _ = full
    three, five = made["table6"]["rows"]
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
    assert made["table6"]["within_paper"] == 1
    assert made["table6"]["run"] == 2


def test_headline_is_the_largest_ratio_at_five_users(tmp_path):
    plan = [fake.unit("A", 5, limit, agent, "6") for limit in ("80", "85") for agent in ("hybrid", "dqn", "q_learning")]
    steps = {"hybrid": 1000, "dqn": 9000, "q_learning": None}
    fake.write_units(
        tmp_path, plan, lambda made, _: steps[made.agent] and steps[made.agent] + 10 * int(made.constraint)
    )
    headline = build(plan, tmp_path)["table6"]["headline"]
    assert headline["dqn"]["most"] == pytest.approx(9800 / 1800)
    assert headline["dqn"]["least"] == pytest.approx(9850 / 1850)
    assert headline["q_learning"]["most"] is None
    assert headline["q_learning"]["most_at_least"] == pytest.approx(10_000 / 1800)


def test_table_vii_by_hand(full):
    made, _ = full
    three, five = (row["agents"] for row in made["table7"]["rows"])
    # 2,000 steps of 0.6 s and of 1 ms.
    assert three["hybrid"]["experience_min"]["median"] == pytest.approx(20.0)
    assert three["hybrid"]["experience_min"]["ratio"] == pytest.approx(20.0 / 26.0)
    assert three["hybrid"]["compute_min"]["median"] == pytest.approx(2.0 / 60.0, abs=1e-3)
    assert three["q_learning"]["total_min"]["median"] is None
    assert three["q_learning"]["compute_min"]["paper"] is None
    assert three["hybrid"]["steps_per_s"] == pytest.approx(1000.0)
    assert five["hybrid"]["experience_min"]["median"] == pytest.approx(70.0)


def test_curves_end_at_the_optimum(full):
    made, _ = full
    (panel,) = made["figure3"]["panels"]
    assert panel["users"] == 3
    curves = {curve["agent"]: curve for curve in panel["curves"]}
    hybrid = curves["hybrid"]
    # The fastest seed stops at 1,000 steps: by then it is at the optimum, the others at a half and a third of theirs.
    assert hybrid["steps"][-1] == 1000
    assert hybrid["low"][-1] == pytest.approx(hybrid["optimum_ms"] * (1 + 3.0 * 0.5 / 2.0), rel=0.2)
    assert hybrid["steps_to_optimal"] == 2000
    bands = zip(hybrid["low"], hybrid["median"], hybrid["high"], strict=True)
    assert all(low <= middle <= high for low, middle, high in bands)


def test_peer_stands_beside_dqn(full):
    made, _ = full
    (row,) = made["peer"]["rows"]
    assert row["theirs"]["succeeded"] == 2
    assert row["theirs"]["median"] == 9000
    assert row["ours"]["median"] == 8000
    assert row["speed_ratio"] == pytest.approx(1.0)


def test_shortfalls_are_listed(full):
    made, _ = full
    texts = [entry["text"] for entry in made["shortfalls"] if entry["kind"] != "beyond"]
    assert "Table V, A/Min: 1 of 3 seeds decide worse (seed 1)." in texts
    assert "Table VI, 5 users, Max: hybrid needs a median of 7,000 steps, over the paper's 6,000." in texts
    assert "Table VI, 3 users, 85%: 2 of 3 seeds of q_learning never got there in 10,000 steps (seed 1, 2)." in texts
    assert any("dqn needs 4.0 times hybrid's steps; in the paper AdaDeep needs 5.0 times" in text for text in texts)
    assert len(texts) == 4


def test_what_factored_shows_is_read_from_its_records(tmp_path, monkeypatch):
    records, out = tmp_path / "factored", tmp_path / "out"
    records.mkdir()
    out.mkdir()
    monkeypatch.setattr(report_collect, "FACTORED", records)
    assert build([MIN], out)["beyond"] == {"rows": [], "users": [], "commits": []}

    def line(users, steps):
        reached = [step for step in steps if step is not None]
        counts = {"median": float(np.median(reached)), "succeeded": len(reached), "seeds": len(steps)}
        return {"users": users, "steps": steps, "steps_to_optimal": counts, "worst": max(reached)}

    for name, lines in (("users", [line(1, [2, 3, 4]), line(50, [1, None, 5])]), ("noise10", [line(5, [14, 15, 16])])):
        (records / f"{name}.json").write_text(json.dumps({"lines": lines, "commit": "abc"}), encoding="utf-8")
    write_json(records / "report.json", bars.told(bars.read(records)))  # as `launch.beyond` does
    made = build([MIN], out)
    assert {row["title"]: row["met"] for row in made["beyond"]["rows"]} == {
        "the same at 10 % noise": True,
        "1 to 100 devices at 85 %": False,
    }
    assert [entry["text"] for entry in made["shortfalls"] if entry["kind"] == "beyond"] == [
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
    (entry,) = [entry for entry in build([made], tmp_path)["shortfalls"] if entry["kind"] != "beyond"]
    assert entry["kind"] == "art"
    assert re.search(
        r"D/Min: ART is 151\.\d+ ms, -4\.\d % off the printed 158\.53 \(a row that contradicts", entry["text"]
    )


def test_json_is_the_report(full):
    made, out = full
    assert json.loads((out / "report.json").read_text(encoding="utf-8")) == json.loads(json.dumps(made))
    assert made["run"]["machine"]["cores"] >= 1
    assert made["run"]["versions"]["jax"]
    assert made["defaults"]["hybrid"]["epochs"]


def test_no_path_of_this_machine_gets_in(full):
    _, out = full
    for name in ("report.json", "report.md", "report.html"):
        text = (out / name).read_text(encoding="utf-8")
        assert str(out) not in text
        assert str(ROOT) not in text


class Page(html.parser.HTMLParser):
    """What a page refers to, and whether its tags are closed."""

    VOID = ("meta", "link", "img", "source", "br")

    def __init__(self) -> None:
        super().__init__()
        self.references: list[str] = []
        self.ids: list[str] = []
        self.tables: list[list[str]] = []  # classes of what each table is in
        self.open: list[tuple[str, str]] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.references += [given[name] for name in ("src", "href", "srcset", "action", "data") if name in given]
        self.ids += [given["id"]] if "id" in given else []
        self.tags.append(tag)
        if tag == "table":
            self.tables.append([classes for _, classes in self.open])
        if tag not in self.VOID:
            self.open.append((tag, given.get("class", "")))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag


def test_page_needs_nothing_else(full):
    _, out = full
    text = (out / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    local = [reference for reference in page.references if reference.startswith("#")]
    assert {reference[1:] for reference in local} == set(page.ids)
    embedded = [reference for reference in page.references if not reference.startswith("#")]
    assert embedded
    assert all(reference.startswith("data:") for reference in embedded)
    assert not re.search(r"https?://|@import|url\(|<script|\bon\w+=", re.sub(r"base64,[^\"]+", "", text))
    pictures = [reference for reference in embedded if reference.startswith("data:image/png;base64,")]
    assert len(pictures) == 6  # three pictures, light and dark
    assert all(base64.b64decode(one.partition(",")[2]).startswith(b"\x89PNG") for one in pictures)
    assert page.tables
    assert all("scroll" in classes for classes in page.tables)
    assert '<meta name="viewport" content="width=device-width' in text


def test_page_shows_text_as_text(full):
    made, _ = full
    strange = {**made, "run": {**made["run"], "command": "python -m launch.reproduce --out='<b>&\"x'"}}
    text = report_html.render(report_document.page(strange), {})
    assert "<b>&" not in text
    assert "--out='&lt;b&gt;&amp;" in text


def test_markdown_tables_are_whole_and_pictures_there(full):
    made, out = full
    text = (out / "report.md").read_text(encoding="utf-8")
    width = None
    for line in text.splitlines():
        cells = line.replace("\\|", "").count("|")
        width = None if not line.startswith("|") else cells if width is None else width
        assert width is None or cells == width, line
    for name in re.findall(r"!\[.*\]\((.*)\)", text):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    assert "| 3 | 85% | 2,000 (3 of 3) | *2,000* | ✓ 1.00× |" in text
    assert "quick" not in text
    assert report_markdown.render(report_document.page(made), {}).count("![") == 0


def test_a_quick_report_says_so_on_top(full, tmp_path):
    made, _ = full
    (first,) = report_document.warnings({**made, "quick": True})
    assert first.startswith("This is a quick run")
    page = report_html.render(report_document.page({**made, "quick": True}), {})
    assert page.index("This is a quick run") < page.index("<table")
    assert report_document.warnings(made) == []


def test_a_partial_report_says_so_and_shows_what_is_missing(tmp_path):
    plan = [MIN, MAX, THREE["hybrid"], THREE["dqn"]]
    fake.write_units(tmp_path, [THREE["hybrid"]], lambda *_: 1000)
    made = build(plan, tmp_path)
    assert report_document.warnings(made) == ["This is a partial report: 3 of 4 units of work aren't finished."]
    report.write(made, tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| A | Min | not run |" in text
    assert "0 of 20 rows were run" in text


def test_a_report_without_any_table(tmp_path):
    report.write(build([MIN], tmp_path, tables=("5",)), tmp_path)
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize(("installed", "expected"), [(False, "isn't installed"), (True, "was left out")])
def test_a_report_without_a_peer_says_why(tmp_path, monkeypatch, installed, expected):
    monkeypatch.setattr(peer, "installed", lambda: installed)
    made = build([THREE["dqn"]], tmp_path)
    assert f"Stable-Baselines3 {expected}" in report_markdown.render(report_document.page(made), {})


def test_wall_clock_keys_are_named(full):
    made, _ = full

    def keys(value):
        if isinstance(value, dict):
            return set(value) | {key for item in value.values() for key in keys(item)}
        return {key for item in value for key in keys(item)} if isinstance(value, list) else set()

    assert set(report_collect.CLOCK) <= keys(made)


def test_a_damaged_run_folder_is_named(tmp_path):
    made = dataclasses.replace(THREE["hybrid"])
    fake.write_units(tmp_path, [made], lambda *_: 1000)
    (tmp_path / "units" / made.folder / "metrics.csv").write_text("seed,real_steps\n0,1\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"metrics\.csv: expected a run's metrics, found .* in "):
        build([made], tmp_path)
    (tmp_path / "units" / made.folder / "summary.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"summary\.json: expected JSON"):
        build([made], tmp_path)
    (tmp_path / "log.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"log\.json: expected a log of units of work"):
        provenance.read_log(tmp_path)
