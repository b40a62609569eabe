"""The report says what the run folders and the paper's tables say: JSON, Markdown, a page that needs nothing else."""

from __future__ import annotations

import base64
import dataclasses
import html.parser
import json
import re

import pytest

from launch.host.errors import InputError
from launch.host.worklog import WorkLog
from launch.inputs import public
from launch.report import html as report_html
from launch.report import markdown as report_markdown
from launch.reproduce import report
from launch.reproduce.sections import SECTIONS
from tests.helpers import fake_reproduction as fake
from tests.helpers.builders import ROOT


def test_json_is_the_report(full):
    made, out = full
    content = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert content == json.loads(json.dumps(made.as_json()))
    assert content["run"]["machine"]["cores"] >= 1
    assert content["run"]["versions"]["jax"]
    assert content["defaults"]["hybrid (told)"]["epochs"]


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
    command = "python -m launch.reproduce --out='<b>&\"x'"
    strange = dataclasses.replace(made, run=dataclasses.replace(made.run, command=command))
    text = report_html.render(report.page(strange), {})
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
    assert report_markdown.render(report.page(made), {}).count("![") == 0


def test_a_quick_report_says_so_on_top(full, tmp_path):
    made, _ = full
    quick = dataclasses.replace(made, quick=True)
    (first,) = quick.warnings()
    assert first.startswith("This is a quick run")
    page = report_html.render(report.page(quick), {})
    assert page.index("This is a quick run") < page.index("<table")
    assert made.warnings() == []


def test_a_partial_report_says_so_and_shows_what_is_missing(tmp_path):
    plan = [fake.MIN, fake.MAX, fake.THREE["hybrid"], fake.THREE["dqn"]]
    fake.write_units(tmp_path, [fake.THREE["hybrid"]], lambda *_: 1000)
    made = fake.build(plan, tmp_path)
    assert made.warnings() == ["This is a partial report: 3 of 4 units of work aren't finished."]
    report.write(made, tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| A | Min | not run |" in text
    assert "0 of 20 rows were run" in text


def test_a_report_without_any_table(tmp_path):
    report.write(fake.build([fake.MIN], tmp_path, tables=("5",)), tmp_path)
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize(("installed", "expected"), [(False, "isn't installed"), (True, "was left out")])
def test_a_report_without_a_peer_says_why(tmp_path, monkeypatch, installed, expected):
    monkeypatch.setattr(public, "installed", lambda: installed)
    made = fake.build([fake.THREE["dqn"]], tmp_path)
    assert f"Stable-Baselines3 {expected}" in report_markdown.render(report.page(made), {})


def test_wall_clock_keys_are_named(numbers):
    def keys(value):
        if isinstance(value, dict):
            return set(value) | {key for item in value.values() for key in keys(item)}
        return {key for item in value for key in keys(item)} if isinstance(value, list) else set()

    # Those of a section that nothing was run for aren't in it.
    assert report.clock() - keys(numbers) <= set(SECTIONS["knowledge"].clock)
    assert {"wall_s", "compute_min", "total_min", "steps_per_s"} < report.clock()


def test_a_damaged_run_folder_is_named(tmp_path):
    made = fake.THREE["hybrid"]
    folder = made.run_folder(tmp_path)
    fake.write_units(tmp_path, [made], lambda *_: 1000)
    folder.metrics.write_text("seed,real_steps\n0,1\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"metrics\.csv: expected a run's metrics, found .* in "):
        fake.build([made], tmp_path)
    folder.summary_file.write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"summary\.json: expected JSON"):
        fake.build([made], tmp_path)
    folder.summary_file.unlink()
    (tmp_path / "log.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"log\.json: expected JSON"):
        fake.build([made], tmp_path)
    (tmp_path / "log.json").write_text('{"units": {"a": {"wall_s": "long"}}}', encoding="utf-8")
    with pytest.raises(InputError, match=r"log\.json: expected `float`, found `str`"):
        WorkLog(tmp_path).read()
