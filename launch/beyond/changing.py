"""`launch.beyond`'s row `changing`: the paper's agents in the dynamic scenario, whose conditions change at every step.

hybrid and dqn have the same networks and know the same; q_learning has a row of its table for each state it has seen.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from hl_jax import evaluation, health, simulator, statistics, training
from hl_jax.agents import registry
from hl_jax.agents.world import Agent
from hl_jax.optimum import oracle
from hl_jax.scenario import Scenario
from hl_jax.simulator import EnvParams, EnvState
from hl_jax.statistics import Spread
from launch.beyond.kept import Kept
from launch.beyond.lines import ChangingLine, Mark
from launch.beyond.running import scenario
from launch.host.errors import RunError
from launch.inputs.agents import make_agent

USERS, LIMITS = (3, 5), ("85", "89")
MARKS = (500, 1000, 1500, 3000, 5000, 10_000)  # real steps after which policies are judged in `FRESH` states
FRESH, WATCHED = 1000, 64  # states: at the marks, and after each epoch
TOLERANCE = 2.0  # % of mean regret that counts as learned
# Real steps of a run, constants that aren't the defaults, and the part of the seeds that is run.
GIVEN: dict[str, tuple[int, dict[str, object], float]] = {
    "hybrid": (  # epsilon falls as it does in a run of 160 epochs; what follows from a state takes more learning
        10_000,
        {"epochs": 540, "epsilon_epochs": 0.015, "world_sessions": 600, "plan_sessions": 400},
        1.0,
    ),
    "dqn": (  # with hybrid's form of network, which reads a state; its own constants are for states that don't change
        10_000,
        {
            "epochs": 400,
            "epsilon_epochs": 0.0115,
            "hidden_counts": "chosen",
            "loss": "squared",
            "own_decay": 0.3,
            "q_learning_rate": 2.2e-3,
            "learning_rate_end": 0.02,
            "epoch_rate_end": 0.02,
            "priority_exponent": 0.6,
        },
        0.5,
    ),
    "q_learning": (100_000, {"epochs": 200, "epoch_steps": 500, "states": 2048}, 0.25),
}


@dataclasses.dataclass(frozen=True)
class States:
    """States to judge in, and the optimum (ms) in each."""

    starts: EnvState  # leading axis E
    optima: np.ndarray  # [E]


@functools.cache
def states(asked: Scenario, key: int, count: int) -> States:
    """Fresh states of a scenario; other keys give others."""
    params = simulator.make_params(asked)
    starts = evaluation.start_states(jax.random.key(key), params, count)
    each = [jax.tree.map(lambda leaf, index=index: leaf[index], starts.conditions) for index in range(count)]
    return States(starts, np.array([oracle.brute_force(params, one).art_ms for one in each]))


_epoch = jax.jit(training.epoch, static_argnums=0, donate_argnums=1)


@functools.partial(jax.jit, static_argnums=0)
def _judge(agent: Agent, state: Any, params: EnvParams, starts: EnvState) -> tuple[chex.Array, chex.Array]:
    """ART (ms) of what a state's policy decides in each of E states, and whether its constraint is kept. Each [E]."""

    def one(start: EnvState) -> tuple[chex.Array, chex.Array]:
        action = agent.decide(state, simulator.observe(start))
        return jnp.mean(simulator.response_ms(params, start.conditions, action)), simulator.meets_constraint(
            params, action
        )

    found: tuple[chex.Array, chex.Array] = jax.lax.map(one, starts)
    return found


@dataclasses.dataclass(frozen=True)
class Course:
    """One seed's run: where it stood after each epoch, and at the marks."""

    steps: list[int]
    regret: list[float]  # % mean over the watched states; infinite where one of them breaks the constraint
    marks: list[tuple[int, float, float]]  # real steps, mean regret (%), part of the states that keep the constraint
    compute_s: float


def course(agent: Agent, asked: Scenario, seed: int, steps: int) -> Course:
    """Runs one seed for so many real steps.

    Raises:
      RunError: if it can't go on, because what it has learned isn't finite.
    """
    params = training.params_for(agent, asked)
    first = evaluation.start_states(jax.random.key(0), params, 1)  # an epoch's own evaluation isn't used
    watched, fresh = states(asked, 1, WATCHED), states(asked, 2, FRESH)
    run = jax.jit(training.init, static_argnums=0)(agent, jnp.int32(seed), params)
    found = Course([], [], [], 0.0)
    due, spent = [mark for mark in MARKS if mark <= steps], 0.0
    for number in range(1, agent.epochs + 1):
        began = time.perf_counter()
        run, report = jax.block_until_ready(_epoch(agent, run, agent.plan(number), params, first))
        spent += time.perf_counter() - began
        taken = int(run.agent.real_steps)
        if report.wrong.any():
            names = health.names(run.agent, report.learning)
            what = health.described([name for name, wrong in zip(names, report.wrong, strict=True) if wrong])
            raise RunError(f"launch.beyond: expected a run that can go on, found {what} (seed {seed}, epoch {number})")
        art, met = map(np.asarray, _judge(agent, run.agent, params, watched.starts))
        mean = float(100.0 * (art / watched.optima - 1.0).mean())
        found.steps.append(taken)
        found.regret.append(mean if met.all() else float("inf"))
        while due and taken >= due[0]:
            art, met = map(np.asarray, _judge(agent, run.agent, params, fresh.starts))
            found.marks.append((due.pop(0), float(100.0 * (art / fresh.optima - 1.0).mean()), float(met.mean())))
        if taken >= steps:
            break
    return dataclasses.replace(found, compute_s=spent)


def _line(name: str, users: int, limit: str, seeds: int) -> ChangingLine:
    steps, changes, part = GIVEN[name]
    asked = scenario("dynamic", limit).with_users(users)
    kind = registry.AGENTS[name]
    agent = make_agent(name, kind.config(**changes), asked)
    courses = [course(agent, asked, seed, steps) for seed in range(max(round(part * seeds), 1))]
    reached = [evaluation.first_lasting(one.steps, [regret <= TOLERANCE for regret in one.regret]) for one in courses]
    return ChangingLine(
        case=f"{name}, {users} users, {limit} %",
        agent=name,
        users=users,
        constraint=limit,
        budget_steps=steps,
        steps_to_tolerance=statistics.summarize(reached),
        steps=tuple(reached),
        marks=tuple(_mark([one.marks[place] for one in courses]) for place in range(len(courses[0].marks))),
        compute_s=float(np.median([one.compute_s for one in courses])),
    )


def _mark(each: Sequence[tuple[int, float, float]]) -> Mark:
    """Over seeds."""
    after, regret, met = zip(*each, strict=True)
    return Mark(after[0], float(np.mean(regret)), float(np.median(regret)), max(regret), float(np.mean(met)))


def changing(seeds: int, kept: Kept) -> list[ChangingLine]:
    """Every agent with 3 and 5 users, under two constraints."""

    def part(name: str, users: int, limit: str) -> list[ChangingLine]:
        return [_line(name, users, limit, seeds)]

    parts = {
        f"{name}, {users} users, {limit} %": functools.partial(part, name, users, limit)
        for users in USERS
        for limit in LIMITS
        for name in GIVEN
    }

    def told(line: ChangingLine) -> str:
        return f"2 % after {_middle(line.steps_to_tolerance)} steps, {line.marks[-1].mean_percent:.2f} % at the end"

    return kept.measure(ChangingLine, parts, told)


def _middle(spread: Spread) -> str:
    return "never" if spread.median is None else f"{spread.median:,.0f}"


MOST_STEPS = {3: 1500, 5: 3000}  # after which a hybrid's mean regret is at most `TOLERANCE`


def met(lines: Sequence[ChangingLine]) -> bool:
    """Whether hybrid has learned by then and goes on so, keeps the constraint, and dqn needs five times its steps."""
    by_case = {(line.agent, line.users, line.constraint): line for line in lines}
    for line in lines:
        if line.agent != "hybrid":
            continue
        late = [mark for mark in line.marks if mark.after >= MOST_STEPS[line.users]]
        if any(mark.mean_percent > TOLERANCE or mark.kept < 0.999 for mark in late):
            return False
        ours, theirs = line.steps_to_tolerance, by_case["dqn", line.users, line.constraint].steps_to_tolerance
        if ours.median is None or (theirs.median is not None and theirs.median < 5.0 * ours.median):
            return False
    return True


def result(lines: Sequence[ChangingLine]) -> str:
    """In words."""
    parts = []
    for users in sorted({line.users for line in lines}):
        for limit in dict.fromkeys(line.constraint for line in lines):
            here = {line.agent: line for line in lines if (line.users, line.constraint) == (users, limit)}
            steps = ", ".join(f"{name} {_middle(line.steps_to_tolerance)}" for name, line in here.items())
            marks = {mark.after: mark for mark in here["hybrid"].marks}
            first, last = marks[MOST_STEPS[users]], here["hybrid"].marks[-1]
            parts.append(
                f"{users} users, {limit} %: {steps} steps; hybrid {first.mean_percent:.2f} % after {first.after:,}, "
                f"{last.mean_percent:.2f} % after {last.after:,}, constraint kept in {100.0 * last.kept:.2f} %"
            )
    return "; ".join(parts)
