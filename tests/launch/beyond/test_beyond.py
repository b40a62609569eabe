"""`launch.beyond`: rows that are measured part by part go on where they were, and what their statistics say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hl_jax import evaluation
from launch.beyond import endurance as beyond_endurance
from launch.beyond import kept as beyond_kept
from launch.beyond import running
from launch.beyond.bars import ROWS
from launch.beyond.kept import Kept
from launch.beyond.lines import BruteLine, EnduranceLine
from tests.helpers.builders import small_scenario


def measured(kept: Kept, names: str, fail_at: str = "") -> tuple[list[BruteLine], list[str]]:
    """All parts' lines, and which were measured for it."""
    asked: list[str] = []

    def part(name: str) -> list[BruteLine]:
        if name == fail_at:
            raise KeyboardInterrupt
        asked.append(name)
        return [BruteLine(name, instances=2, same=1, proven=1)]

    parts = {name: (lambda name=name: part(name)) for name in names}
    try:
        return kept.measure(BruteLine, parts, lambda line: line.case), asked
    except KeyboardInterrupt:
        return [], asked


def test_an_interrupted_row_goes_on_and_other_code_or_seeds_begin_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(beyond_kept.provenance, "commit", lambda: "abc")
    path = tmp_path / "cells.partial.json"
    assert measured(Kept(path, 20), "abcd", fail_at="c") == ([], ["a", "b"])
    lines, asked = measured(Kept(path, 20), "abcd")
    assert asked == ["c", "d"]
    assert [line.case for line in lines] == list("abcd")
    assert measured(Kept(path, 5), "ab")[1] == ["a", "b"]
    monkeypatch.setattr(beyond_kept.provenance, "commit", lambda: "def")
    kept = Kept(path, 5)
    assert measured(kept, "ab")[1] == ["a", "b"]
    kept.discard()
    assert not path.exists()


@pytest.mark.parametrize("commit", ["abc+", None])
def test_code_without_a_name_is_never_taken_for_the_same(tmp_path, monkeypatch, commit):
    monkeypatch.setattr(beyond_kept.provenance, "commit", lambda: commit)
    path = tmp_path / "cells.partial.json"
    assert measured(Kept(path, 20), "ab", fail_at="b")[1] == ["a"]
    assert measured(Kept(path, 20), "ab")[1] == ["a", "b"]


def test_the_worst_window_by_hand():
    costs = np.full((2, 300), 100.0)
    costs[:, :60] = 1e6  # before that nothing is asked
    costs[1, 200] = 180.0
    assert beyond_endurance.worst_window(costs, 100.0) == pytest.approx(1.0)
    costs[1, 279] = 180.0  # 80 steps from 200 to 279 hold both
    assert beyond_endurance.worst_window(costs, 100.0) == pytest.approx(2.0)
    costs[1, 279], costs[1, 280] = 100.0, 180.0
    assert beyond_endurance.worst_window(costs, 100.0) == pytest.approx(1.0)


def test_a_decision_that_breaks_its_constraint_is_infinitely_bad():
    art = np.array([[[[100.0, 101.0]], [[150.0, 102.0]]]])  # [S, T, E, H]
    feasible = np.array([[[[True, True]], [[True, False]]]])
    decisions = np.zeros((1, 2, 1, 2, 3), int)
    seen = evaluation.Evaluation(decisions=decisions, art_ms=art, cost_ms=art, accuracy=art, feasible=feasible)
    found = beyond_endurance.regrets(seen, np.array([100.0]))
    np.testing.assert_allclose(found, [[[[0.0, 1.0]], [[50.0, np.inf]]]])


def test_the_bar_of_endurance_can_fail_in_every_part():
    line = EnduranceLine(
        case="B/Min",
        seeds=10,
        steps=20_000,
        not_finite=0,
        decisions=100,
        over_share_percent=0.1,
        bad_evaluations_percent=0.1,
        worst_regret_percent=5.0,
        worst_window_percent=1.5,
        steps_after_change=6,
        step_time_ratio=1.1,
        peak_memory_gib=1.0,
    )
    met = ROWS["endurance"].met
    assert met([line, dataclasses.replace(line, worst_window_percent=None, steps_after_change=None)])
    assert met([dataclasses.replace(line, steps=1000, step_time_ratio=1.2)])  # too short to tell
    for worse in (
        {"not_finite": 1},
        {"over_share_percent": 0.11},
        {"worst_regret_percent": 5.1},
        {"worst_regret_percent": None},  # a decision broke its constraint
        {"step_time_ratio": 1.2},
        {"worst_window_percent": 1.6},
        {"steps_after_change": 7},
        {"steps_after_change": None},  # it never noticed
    ):
        assert not met([line, dataclasses.replace(line, **worse)])


def test_every_horizon_is_at_least_three_hundred_steps():
    """The last round's records were just short of where `factored` died."""
    assert running.STEPS >= 300
    assert running.STEPS % running.CHUNK == running.WATCHED % running.CHUNK == 0


def test_a_course_is_measured_and_judged(monkeypatch):
    """A short one on a small fleet: every number is there, and what is counted adds up."""
    from hl_jax.agents.factored import agent as factored

    scenario = small_scenario(2, constraint=80.0, noise=0.03)
    agent = factored.sized(factored.FactoredConfig(recent=8), 2, scenario.choice_accuracy(), 80.0)
    monkeypatch.setattr(beyond_endurance, "agent_for", lambda users: agent)
    course = beyond_endurance.Course("small", scenario, seeds=2, steps=160, every=4, priced=True)
    (line,) = beyond_endurance.measure(course)
    judged = (160 - 50) // 4 + 1  # steps 52, 56, …, 160
    assert line.decisions == 2 * judged * evaluation.HORIZON
    assert (line.not_finite, line.steps_after_change) == (0, None)
    assert line.over_share_percent == 0.0
    assert line.worst_window_percent is not None
    assert dataclasses.asdict(course)["name"] == line.case
