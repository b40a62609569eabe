"""hybrid beside dqn with the same knowledge: ratios by hand, what is decided, and that nothing missing is made up."""

from __future__ import annotations

import json

import pytest

from hl_jax import statistics
from launch.beyond.lines import ChangingLine, Mark
from launch.host.files import write_json
from launch.host.records import as_data
from launch.reproduce import plan, report, units
from launch.reproduce.sections import changing, knowledge
from launch.reproduce.units import LITERATURE, TOLD, UNTOLD, Case
from tests.helpers import fake_reproduction as fake

STEPS = {
    ("hybrid", TOLD): (100, 100, 110),
    ("dqn", TOLD): (200, 210, 220),
    ("hybrid", UNTOLD): (400, 400, 410),
    ("dqn", UNTOLD): (200, 200, 210),
    ("dqn", LITERATURE): (None, None, 5000),
}


def unit(agent: str, known: str, noise: float | None = None) -> units.Unit:
    case = Case("A", 5, "85", agent, known, noise)
    return units.Unit(case, ("knowledge",), units.settings(case, 3))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A report of one cell, and its folder."""
    out = tmp_path_factory.mktemp("knowledge")
    every = [unit(agent, known) for agent, known in STEPS]
    every += [unit(agent, TOLD, 0.1) for agent in ("hybrid", "dqn")]
    for one in every:
        steps = STEPS[one.case.agent, one.case.knowledge]
        fake.write_units(out, [one], lambda _, seed, steps=steps: steps[seed])
    found = fake.build(every, out, tables=("knowledge",))
    report.write(found, out)
    return found.sections["knowledge"], out


def test_ratios_are_of_the_same_knowledge(made):
    section, out = made
    told, untold = section.pairs
    assert (told.knowledge, told.ratio.value, told.decided) == (TOLD, 2.1, 1)
    assert told.ratio.interval == (pytest.approx(200 / 110, abs=1e-4), 2.2)
    assert (untold.knowledge, untold.ratio.value, untold.decided) == (UNTOLD, 0.5, -1)
    usual, noisy = section.harder
    assert usual == told
    assert (noisy.noise, noisy.hybrid.median, noisy.dqn.median) == (0.1, 100, 210)
    by_what = {one.what: (one.value, one.cells, one.of) for one in section.factors}
    assert by_what["planning, both told"] == (2.1, 1, 1)
    assert by_what["being told the penalty, dqn"] == (pytest.approx(200 / 210), 1, 1)
    # Most seeds never got there: no number is made of that.
    assert by_what["tuning, dqn that isn't told"] == (None, 0, 1)
    text = (out / "report.md").read_text(encoding="utf-8")
    assert "Where both are told, dqn takes 2.10× in the middle one of the 1 (of 1) cells in which most" in text
    assert "hybrid is decidedly sooner in 1 of 1 cells, dqn in 0." in text
    assert "A/85%, both untold: dqn takes 0.50× of hybrid's steps, decidedly fewer." in text
    assert json.loads((out / "report.json").read_text(encoding="utf-8"))["knowledge"]["claim"] == 11.6


def test_the_plan_pairs_both_agents_everywhere():
    cases = {one.case: one for one in plan.units(["knowledge"], plan.AGENTS, 0, False)}
    told = [case for case in cases if case.knowledge == TOLD and case.agent != "q_learning"]
    for case in told:
        assert case._replace(agent={"hybrid": "dqn", "dqn": "hybrid"}[case.agent]) in cases
    cells = {(case.experiment, case.constraint) for case in told if case.noise is None}
    assert len(cells) == 20 + 4  # and the unequal devices
    assert {case.noise for case in told} == {None, 0.0, 0.1, 0.3}  # 3 % is the experiments' own
    for case, one in cases.items():
        assert one.settings.scenario.noise == (0.03 if case.noise is None else case.noise)
        known = getattr(one.settings.config, "q_penalty", "learned")
        assert known == ("known" if case.knowledge == TOLD else "learned"), case
        assert len(one.settings.seeds) == plan.seeds_of(case, False)


def test_nothing_is_said_of_one_agent_alone(tmp_path):
    only = unit("hybrid", TOLD)
    fake.write_units(tmp_path, [only], lambda _, seed: 100 + seed)
    found = fake.build([only], tmp_path, tables=("knowledge",)).sections["knowledge"]
    assert (found.pairs, found.tiles(), found.blocks(), found.pictures()) == ((), [], [], {})


def test_a_ratio_of_what_never_comes_is_unknown():
    never = statistics.ratio_of_medians([None] * 4, [None] * 4)
    assert (never.value, never.interval) == (None, (None, None))
    above = statistics.ratio_of_medians([None] * 4, [10, 20, 30, 40])
    assert (above.value, above.interval) == (None, (None, None))  # more than any number
    below = statistics.ratio_of_medians([10, 20, 30, 40], [None] * 4)
    assert (below.value, below.interval) == (0.0, (0.0, 0.0))
    some = statistics.ratio_of_medians([100, 100, None], [50, 50, 50])
    assert some.value == 2.0
    assert some.interval == (2.0, None)


@pytest.mark.parametrize("file", sorted(set(units.FLAG_FILES.values())))
def test_flag_files_are_of_constants_alone(file):
    (agent, known) = next(key for key, name in units.FLAG_FILES.items() if name == file)
    config = units.constants_of(Case("A", 5, "85", agent, known))
    assert getattr(config, "q_penalty", "learned") == "learned"
    assert units.SECONDS[file] > 0.0


def test_changing_conditions_are_told_from_the_record(tmp_path, monkeypatch):
    def line(agent: str, steps: tuple[int | None, ...]) -> ChangingLine:
        marks = (Mark(500, 5.0, 4.0, 9.0, 1.0), Mark(1500, 1.25, 1.0, 2.0, 0.9995))
        spread = statistics.summarize(steps)
        return ChangingLine(f"{agent}, 3 users", agent, 3, "85", 10_000, spread, steps, marks, 90.0)

    lines = [line("hybrid", (500, 600, 700)), line("dqn", (1200, 1200, 1300)), line("q_learning", (None, None, None))]
    write_json(tmp_path / "changing.json", {"commit": "abc1234", "lines": as_data(lines), "row": "changing"})
    monkeypatch.setattr(changing, "RECORD", tmp_path / "changing.json")
    found = fake.build([fake.MIN], tmp_path / "none", tables=("5",)).sections["changing"]
    (gain,) = found.gains
    assert gain.ratio.value == 2.0
    told = " ".join(one.text for one in found.shortfalls())
    assert (
        told == "Changing conditions, 3 users, 85 %: dqn with the same knowledge takes 2.00× of hybrid's steps, not 5×."
    )
    head, _, table, after = found.blocks()
    assert head.text == "Where conditions change"
    assert [cell.text for cell in table.rows[0]][2:8] == [
        "hybrid",
        "600 (3 of 3)",
        "500 to 700",
        "5.00",
        "1.25",
        "99.95",
    ]
    assert table.rows[2][3].text == "never (0 of 3)"
    assert "abc1234" in found.blocks()[1].text
    assert "2.00×" in after.text
    monkeypatch.setattr(changing, "RECORD", tmp_path / "nothing.json")
    assert fake.build([fake.MIN], tmp_path / "none", tables=("5",)).sections["changing"].blocks() == []
    assert knowledge.USERS == 5
