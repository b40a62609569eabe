"""`launch.beyond`'s row `changing`: what one seed's course tells, and what the row's bar asks."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hl_jax import statistics
from hl_jax.agents import registry
from hl_jax.agents.q_learning.agent import QLearning
from launch.beyond import changing
from launch.beyond.lines import ChangingLine, Mark
from launch.beyond.running import scenario
from launch.host.errors import RunError
from launch.inputs.agents import make_agent

ASKED = scenario("dynamic", "80").with_users(2)


@pytest.fixture
def few(monkeypatch):
    """Few states and early marks."""
    for name, value in {"MARKS": (60, 100, 10_000), "FRESH": 30, "WATCHED": 4}.items():
        monkeypatch.setattr(changing, name, value)


def test_a_course_is_judged_after_each_epoch_and_at_the_marks(few):
    config = registry.AGENTS["q_learning"].config(epochs=4, epoch_steps=50, states=32, q_penalty="known")
    agent = make_agent("q_learning", config, ASKED)
    found = changing.course(agent, ASKED, seed=3, steps=150)
    assert found.steps == [50, 100, 150]  # and no epoch more
    assert [after for after, _, _ in found.marks] == [60, 100]
    assert all(met == 1.0 and 0.0 < regret < 1000.0 for _, regret, met in found.marks)  # it never breaks what it knows
    assert all(np.isfinite(found.regret))
    assert found.compute_s > 0.0
    again = changing.course(agent, ASKED, seed=3, steps=150)
    assert (again.steps, again.regret, again.marks) == (found.steps, found.regret, found.marks)


def test_the_states_at_the_marks_are_not_those_that_are_watched(few):
    watched, fresh = changing.states(ASKED, 1, 4), changing.states(ASKED, 2, 30)
    assert len(watched.optima) == 4
    assert len(set(fresh.optima.tolist())) > 5
    assert not set(watched.optima.tolist()) >= set(fresh.optima.tolist())


class Spoilt(QLearning):
    """Its table becomes NaN in the second epoch; what it decides then is a joint action like any other."""

    def epoch(self, world, run, plan):
        run, learning = QLearning.epoch(self, world, run, plan)
        table = jnp.where(run.agent.real_steps > 10, jnp.nan, run.agent.table)
        return run.replace(agent=run.agent.replace(table=table)), learning


def test_what_is_not_finite_is_an_error(few):
    config = registry.AGENTS["q_learning"].config(epochs=3, epoch_steps=10, q_penalty="learned")
    spoilt = Spoilt(config, ASKED.users, ASKED.choices)
    with jax.debug_nans(False), pytest.raises(RunError, match=r"found .*table.* \(seed 0, epoch 2\)"):
        changing.course(spoilt, ASKED, seed=0, steps=30)


def line(agent: str, steps: tuple[int | None, ...], users: int = 3, late: float = 1.0, kept: float = 1.0):
    marks = tuple(Mark(after, percent, percent, percent, kept) for after, percent in ((1500, 1.5), (10_000, late)))
    spread = statistics.summarize(steps)
    return ChangingLine(f"{agent}, {users} users, 85 %", agent, users, "85", 10_000, spread, steps, marks, 1.0)


@pytest.mark.parametrize(
    ("changes", "met"),
    [
        ({}, True),
        ({"steps": (None, None, 700)}, False),  # most never got there
        ({"late": 2.5}, False),  # forgotten again
        ({"kept": 0.99}, False),
    ],
)
def test_what_the_bar_asks_of_hybrid(changes, met):
    ours = line("hybrid", **{"steps": (600, 700, 800), **changes})
    assert changing.met([ours, line("dqn", (3500, 3600, None))]) == met
    assert not changing.met([ours, line("dqn", (3400, 3400, 3600))])  # less than five times as many
    assert changing.met([ours, line("dqn", (None, None, 3600))]) == met  # most never
    if not changes:
        told = changing.result([ours, line("dqn", (3500, 3600, None))])
        assert told == (
            "3 users, 85 %: hybrid 700, dqn 3,600 steps; hybrid 1.50 % after 1,500, 1.00 % after 10,000, constraint "
            "kept in 100.00 %"
        )


def test_early_marks_are_not_judged():
    early = dataclasses.replace(line("hybrid", (600,)), marks=(Mark(500, 9.0, 9.0, 9.0, 1.0), *line("", (1,)).marks))
    assert changing.met([early, line("dqn", (None,))])
