"""Searching settings: draws that depend on nothing but their number, Optuna's trials, and what a trial is worth."""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest
from absl import flags

from launch.host.errors import InputError
from launch.sweep import axes as sweep_axes
from launch.sweep import search as sweep_search
from launch.sweep.search import Trial

needs_optuna = pytest.mark.skipif(not importlib.util.find_spec("optuna"), reason="needs requirements-sweep.txt")


@pytest.fixture(autouse=True)
def parsed_flags():
    flags.FLAGS.mark_as_parsed()


def axes(**texts: str) -> list[sweep_axes.Axis]:
    return [sweep_axes.axis(name, text) for name, text in texts.items()]


def test_more_trials_and_other_axes_leave_a_draw_as_it_is():
    few = sweep_search.random_settings(axes(gamma="0:0.9", k_best="1,5,10"), 5, 0)
    many = sweep_search.random_settings(axes(width="8:64", k_best="1,5,10", gamma="0:0.9"), 9, 0)
    assert few == [{name: one[name] for name in ("gamma", "k_best")} for one in many[:5]]
    assert few != sweep_search.random_settings(axes(gamma="0:0.9", k_best="1,5,10"), 5, 1)
    assert len({one["gamma"] for one in many}) == 9


def values(name: str, text: str, count: int = 2000) -> np.ndarray:
    return np.array([float(one[name]) for one in sweep_search.random_settings(axes(**{name: text}), count, 0)])


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
    listed = [one["agent"] for one in sweep_search.random_settings(axes(agent="hybrid,dqn"), 200, 0)]
    assert 60 < listed.count("dqn") < 140


def test_ends_hold_every_value():
    found = sweep_search.ends(axes(gamma="0:0.9", k_best="2.5:7", agent="hybrid,dqn"))
    assert {one["gamma"] for one in found} == {"0", "0.9"}
    assert {one["k_best"] for one in found} == {"3", "7"}
    assert {one["agent"] for one in found} == {"hybrid", "dqn"}
    with pytest.raises(InputError, match=r"--k_best: expected an interval with an integer in it, found 2\.2:2\.8"):
        sweep_search.ends(axes(k_best="2.2:2.8"))


def test_tasks_aren_t_searched():
    searched, tasks = sweep_search.split(axes(gamma="0:0.9", constraint="80,85", users="2,3"))
    assert [axis.name for axis in searched] == ["gamma"]
    assert tasks == [{"constraint": limit, "users": users} for limit in ("80", "85") for users in ("2", "3")]
    assert sweep_search.split(axes(gamma="0:0.9"))[1] == [{}]
    with pytest.raises(InputError, match="--search: expected an axis other than scenario"):
        sweep_search.split(axes(constraint="80,85"))
    with pytest.raises(InputError, match="--constraint: expected values"):
        sweep_search.split(axes(gamma="0:0.9", constraint="80:85"))


def runs(*steps: int | None) -> list[dict]:
    return [{"steps_to_optimal": one, "real_steps": 1000} for one in steps]


def test_expected_running_time_by_hand():
    assert sweep_search.expected_running_time([runs(100, 300)]) == pytest.approx(200.0)
    assert sweep_search.expected_running_time([runs(100, None)]) == pytest.approx(1100.0)
    assert sweep_search.expected_running_time([runs(100), runs(400)]) == pytest.approx(200.0)
    assert sweep_search.expected_running_time([runs(100), runs(None)]) == math.inf


def search(sampler: str, trials: int, batch: int = 3) -> tuple[list[Trial], list[int]]:
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
            found.append({3: (None, 0, 1), 4: (math.inf, 0, 5)}.get(len(tried), (value, 5, 5)))
        return found

    made = sweep_search.sampler(sampler, 0)
    space = axes(gamma="0:0.9", q_learning_rate="log:1e-4:1e-1")
    return sweep_search.optuna_trials(space, trials, sampler=made, batch=batch, run=run), asked


@needs_optuna
@pytest.mark.parametrize("sampler", sweep_search.SAMPLERS)
def test_a_search_goes_the_same_way_again_and_goes_on(sampler):
    first, asked = search(sampler, 7)
    again, _ = search(sampler, 12)
    assert asked == [3, 3, 1]
    assert [one.setting for one in again[:6]] == [one.setting for one in first[:6]]
    assert [one.number for one in again] == list(range(12))
    assert first[2].value is None
    assert len({one.setting["gamma"] for one in again}) > 6


@needs_optuna
def test_tpe_does_better_than_chance():
    found, _ = search("tpe", 60)
    late = [one.value for one in found[40:] if one.value is not None]
    early = [one.value for one in found[:10] if one.value is not None and math.isfinite(one.value)]
    assert np.median(late) - 100.0 < 0.6 * (np.median(early) - 100.0)  # over the best there is


def test_trials_are_shown_best_first_as_strict_json():
    trials = [Trial(0, {"gamma": "0.1"}, math.inf, 0, 5), Trial(1, {"gamma": "0.2"}, 250.0, 5, 5)]
    shown = sweep_search.as_json("random", trials, "about")["trials"]
    found = [(one["number"], one["value"], one["got_there"]) for one in shown]
    assert found == [(1, 250.0, "5 of 5"), (0, None, "0 of 5")]
