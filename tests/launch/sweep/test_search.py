"""Searching settings: draws that depend on nothing but their number, Optuna's trials, and what a trial is worth."""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest
from absl import flags

from launch.host.errors import InputError
from launch.host.records import as_data
from launch.runs.summary import SeedSummary
from launch.sweep import search
from launch.sweep.axes import Axis, axis
from launch.sweep.collect import Run
from launch.sweep.search import Trial, Worth

needs_optuna = pytest.mark.skipif(not importlib.util.find_spec("optuna"), reason="needs requirements-sweep.txt")


@pytest.fixture(autouse=True)
def parsed_flags():
    flags.FLAGS.mark_as_parsed()


def axes(**texts: str) -> list[Axis]:
    return [axis(name, text) for name, text in texts.items()]


def test_more_trials_and_other_axes_leave_a_draw_as_it_is():
    few = search.random_settings(axes(gamma="0:0.9", k_best="1,5,10"), 5, 0)
    many = search.random_settings(axes(width="8:64", k_best="1,5,10", gamma="0:0.9"), 9, 0)
    assert few == [{name: one[name] for name in ("gamma", "k_best")} for one in many[:5]]
    assert few != search.random_settings(axes(gamma="0:0.9", k_best="1,5,10"), 5, 1)
    assert len({one["gamma"] for one in many}) == 9


def values(name: str, text: str, count: int = 2000) -> np.ndarray:
    return np.array([float(one[name]) for one in search.random_settings(axes(**{name: text}), count, 0)])


def test_draws_are_spread_as_asked():
    plain, log = values("gamma", "0.1:0.9"), values("q_learning_rate", "log:1e-4:1e-1")
    assert (plain >= 0.1).all()
    assert (plain <= 0.9).all()
    # Means of 2,000: standard errors are 0.8 / sqrt(12 * 2000) = 0.0052 and 3 / sqrt(24000) = 0.0194.
    assert plain.mean() == pytest.approx(0.5, abs=4 * 0.0052)
    assert np.log10(log).mean() == pytest.approx(-2.5, abs=4 * 0.0194)
    assert (log >= 1e-4).all()
    assert (log <= 1e-1).all()
    # Integers, ends included: each of 1..4 with probability 1/4, standard error 0.0097.
    whole = values("k_best", "1:4")
    np.testing.assert_allclose([(whole == value).mean() for value in (1, 2, 3, 4)], 0.25, atol=4 * 0.0097)
    assert set(values("k_best", "log:1:4")) == {1.0, 2.0, 3.0, 4.0}
    assert set(values("alpha_schedule", "log:1:4", 1)) != set()
    listed = [one["agent"] for one in search.random_settings(axes(agent="hybrid,dqn"), 200, 0)]
    assert 60 < listed.count("dqn") < 140


def test_ends_hold_every_value():
    found = search.ends(axes(gamma="0:0.9", k_best="2.5:7", agent="hybrid,dqn"))
    assert {one["gamma"] for one in found} == {"0", "0.9"}
    assert {one["k_best"] for one in found} == {"3", "7"}
    assert {one["agent"] for one in found} == {"hybrid", "dqn"}
    with pytest.raises(InputError, match=r"--k_best: expected an interval with an integer in it, found 2\.2:2\.8"):
        search.ends(axes(k_best="2.2:2.8"))


def test_an_agent_gets_its_own_constants_only():
    space = axes(agent="hybrid,q_learning", k_best="1:300", step_size="0:1", gamma="0:0.9")
    own = {"hybrid": {"agent", "k_best", "gamma"}, "q_learning": {"agent", "step_size", "gamma"}}
    drawn = search.random_settings(space, 20, 0)
    assert {one["agent"] for one in drawn} == own.keys()
    assert all(one.keys() == own[one["agent"]] for one in drawn)
    checked = search.ends(space)
    assert all(one.keys() == own[one["agent"]] for one in checked)
    assert {one.get("k_best") for one in checked} == {"1", "300", None}
    assert {one.get("step_size") for one in checked} == {"0", "1", None}


def test_tasks_aren_t_searched():
    searched, tasks = search.split(axes(gamma="0:0.9", constraint="80,85", users="2,3"))
    assert [one.name for one in searched] == ["gamma"]
    assert tasks == [{"constraint": limit, "users": users} for limit in ("80", "85") for users in ("2", "3")]
    assert search.split(axes(gamma="0:0.9"))[1] == [{}]
    with pytest.raises(InputError, match="--search: expected an axis other than scenario"):
        search.split(axes(constraint="80,85"))
    with pytest.raises(InputError, match="--constraint: expected values"):
        search.split(axes(gamma="0:0.9", constraint="80:85"))


def runs(*steps: int | None) -> list[Run]:
    """Runs of 1,000 real steps that got to the optimum after `steps`."""
    found = []
    for seed, one in enumerate(steps):
        known = {"art_ms": 200.0, "oracle_art_ms": 200.0, "accuracy": 85.0, "feasible": True, "decision": ("d4/L",)}
        times = {"experience_s": 1.0, "compute_s": 1.0, "experience_to_optimal_s": None, "compute_to_optimal_s": None}
        summary = SeedSummary(seed, None, one, one, 1000, 0, **known, **times)
        found.append(Run(summary, np.array([1000.0]), np.array([0.0])))
    return found


def test_expected_running_time_by_hand():
    assert search.expected_running_time([runs(100, 300)]) == pytest.approx(200.0)
    assert search.expected_running_time([runs(100, None)]) == pytest.approx(1100.0)
    assert search.expected_running_time([runs(100), runs(400)]) == pytest.approx(200.0)
    assert search.expected_running_time([runs(100), runs(None)]) == math.inf


def searched_by(sampler: str, trials: int, batch: int = 3) -> tuple[list[Trial], list[int]]:
    """A search for the minimum of a bowl; the third setting tried can't be run, the fourth never gets there."""
    asked: list[int] = []
    tried: list[dict[str, str]] = []

    def run(settings):
        asked.append(len(settings))
        found = []
        for one in settings:
            tried.append(one)
            x, y = float(one["gamma"]), math.log10(float(one["q_learning_rate"]))
            value = 100.0 + 1000.0 * (x - 0.6) ** 2 + 100.0 * (y + 2.0) ** 2
            found.append({3: Worth(None, 0, 1), 4: Worth(math.inf, 0, 5)}.get(len(tried), Worth(value, 5, 5)))
        return found

    made = search.sampler(sampler, 0)
    space = axes(gamma="0:0.9", q_learning_rate="log:1e-4:1e-1")
    return search.optuna_trials(space, trials, sampler=made, batch=batch, run=run), asked


@needs_optuna
@pytest.mark.parametrize("sampler", search.SAMPLERS)
def test_a_search_goes_the_same_way_again_and_goes_on(sampler):
    first, asked = searched_by(sampler, 7)
    again, _ = searched_by(sampler, 12)
    assert asked == [3, 3, 1]
    assert [one.setting for one in again[:6]] == [one.setting for one in first[:6]]
    assert [one.number for one in again] == list(range(12))
    assert first[2].worth.value is None
    assert len({one.setting["gamma"] for one in again}) > 6


@needs_optuna
def test_tpe_does_better_than_chance():
    found, _ = searched_by("tpe", 60)
    worth = [one.worth.value for one in found]
    late = [value for value in worth[40:] if value is not None]
    early = [value for value in worth[:10] if value is not None and math.isfinite(value)]
    assert np.median(late) - 100.0 < 0.6 * (np.median(early) - 100.0)  # over the best there is


def test_trials_are_shown_best_first_as_strict_json():
    trials = [Trial(0, {"gamma": "0.1"}, Worth(math.inf, 0, 5)), Trial(1, {"gamma": "0.2"}, Worth(250.0, 5, 5))]
    shown = as_data(search.reported("random", trials, "about"))["trials"]
    found = [(one["number"], one["value"], one["got_there"]) for one in shown]
    assert found == [(1, 250.0, "5 of 5"), (0, None, "0 of 5")]
