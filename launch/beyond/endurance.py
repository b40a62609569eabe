"""`launch.beyond`'s row `endurance`: the same agent for thousands of steps, and what it goes on paying to explore."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from hl_jax import evaluation
from hl_jax.agents.world import Agent, Run
from hl_jax.objective import CONSTRAINTS, sufficient_penalty
from hl_jax.optimum import oracle
from hl_jax.scenario import Scenario
from hl_jax.simulator import EnvParams, make_params
from launch.beyond.kept import Kept
from launch.beyond.learning import EXPERIMENTS
from launch.beyond.lines import EnduranceLine
from launch.beyond.running import (
    CHUNK,
    SPARSE,
    agent_for,
    begin,
    go_on,
    optimum_ms,
    scenario,
    stack,
)
from launch.host import resources
from launch.host.text import fixed

SETTLED = 50  # real steps after which decisions are judged
WINDOW, WINDOWS_FROM = 80, 60  # real steps that what exploring costs is averaged over, and after which
CHANGE_STEP, AFTER_CHANGE = 1500, 100  # real steps before the edge slows down, and how long that is watched
STATES = 16  # that a policy of a changing scenario is judged in, as in a run's summary


@dataclasses.dataclass(frozen=True)
class Course:
    """One line: a scenario's seeds over so many steps."""

    name: str
    scenario: Scenario
    seeds: int
    steps: int
    every: int = SPARSE  # steps between judged decisions
    changes: bool = False  # whether the edge slows down at `CHANGE_STEP`, in a copy of the runs
    priced: bool = False  # whether what exploring costs is told


def _optima(asked: Scenario, params: EnvParams, states: int) -> np.ndarray:
    """The optimum (ms) in each state that decisions are judged in. [E]."""
    if states == 1:
        return np.array([optimum_ms(asked)])
    starts = evaluation.start_states(jax.random.key(0), params, states)
    each = [jax.tree.map(lambda leaf, index=index: leaf[index], starts.conditions) for index in range(states)]
    return np.array([oracle.brute_force(params, one).art_ms for one in each])


def regrets(seen: evaluation.Evaluation, optima: np.ndarray) -> np.ndarray:
    """Regret (%) of every judged decision, infinite where it breaks its constraint. [S, T, E, H]."""
    regret = 100.0 * (np.asarray(seen.art_ms, np.float64) / optima[None, None, :, None] - 1.0)
    return np.where(np.asarray(seen.feasible), regret, np.inf)


def worst_window(costs: np.ndarray, least_ms: float) -> float:
    """Highest mean cost (% over `least_ms`) of any `WINDOW` steps after `WINDOWS_FROM`, over seeds. [S, T] ms."""
    late = costs[:, WINDOWS_FROM:].astype(np.float64)
    sums = np.cumsum(np.concatenate([np.zeros((len(late), 1)), late], axis=1), axis=1)
    return float(100.0 * (((sums[:, WINDOW:] - sums[:, :-WINDOW]) / WINDOW).max() / least_ms - 1.0))


def _after_change(course: Course, agent: Agent, runs: Run) -> int | None:
    """Real steps until all decisions of all seeds are within 1 % for good once the edge is twice as slow."""
    timing = course.scenario.timing
    slower = dataclasses.replace(timing, edge_ms=2.0 * timing.edge_ms, edge_share_ms=2.0 * timing.edge_share_ms)
    later = dataclasses.replace(course.scenario, timing=slower)
    params, parts = stack([later] * course.seeds), []
    for _ in range(0, AFTER_CHANGE, CHUNK):
        runs, (seen, *_) = go_on(agent, runs, params)
        parts.append(regrets(seen, np.array([optimum_ms(later)])).max(axis=(2, 3)))
    good = np.concatenate(parts, axis=1).max(axis=0) <= 100.0 * evaluation.TOLERANCE
    return evaluation.first_lasting(range(1, len(good) + 1), [bool(one) for one in good])


def measure(course: Course) -> list[EnduranceLine]:
    """One line of the row."""
    asked, agent = course.scenario, agent_for(course.scenario.users)
    states = STATES if asked.dynamics else 1
    params = stack([asked] * course.seeds)
    optima = _optima(asked, make_params(asked, sufficient_penalty(asked, agent.penalty_factor)), states)
    runs = begin(agent, jnp.arange(course.seeds), params)
    regret, costs, wrong, seconds, after = [], [], [], [], None
    for done in range(0, course.steps, CHUNK):
        if course.changes and done == CHANGE_STEP:
            after = _after_change(course, agent, runs)
        began = time.process_time()  # of this program alone, whatever else the machine does
        runs, (seen, _, broken, cost) = jax.block_until_ready(go_on(agent, runs, params, course.every, states))
        seconds.append(time.process_time() - began)
        costs.append(np.asarray(cost).reshape(course.seeds, CHUNK))
        wrong.append(np.asarray(broken))
        if done >= SETTLED - SETTLED % CHUNK:
            skipped = max(SETTLED - done, 0) // course.every
            regret.append(regrets(seen, optima)[:, skipped:])
    each = np.concatenate(regret, axis=1)
    over = each > 100.0 * evaluation.TOLERANCE
    return [
        EnduranceLine(
            case=course.name,
            seeds=course.seeds,
            steps=course.steps,
            not_finite=int(np.concatenate(wrong, axis=1).any(axis=1).sum()),
            decisions=int(each.size),
            over_share_percent=float(100.0 * over.mean()),
            bad_evaluations_percent=float(100.0 * over.any(axis=(2, 3)).mean()),
            worst_regret_percent=float(each.max()) if np.isfinite(each).all() else None,
            worst_window_percent=worst_window(np.concatenate(costs, axis=1), float(optima[0]))
            if course.priced
            else None,
            steps_after_change=after,
            step_time_ratio=_flatness(seconds),
            peak_memory_gib=resources.peak_memory_gib(),
        )
    ]


def _flatness(seconds: Sequence[float]) -> float:
    """Time a step at the end and near the start (the second 1,000 steps, or the second half of a short run)."""
    part = max(min(1000 // CHUNK, len(seconds) // 3), 1)
    early, late = np.median(seconds[part : 2 * part]), np.median(seconds[-part:])
    return float(late / early)


def endurance(seeds: int, kept: Kept) -> list[EnduranceLine]:
    """All lines; `seeds` of a headline row (20) means 10 of each cell, and a quarter of them for the longest runs."""
    most, few = max(seeds // 2, 1), max(seeds // 4, 1)
    courses = [
        Course(f"{name}/{limit}", scenario(f"exp{name}", limit), most, 1000, every=1)
        for name in EXPERIMENTS
        for limit in CONSTRAINTS
    ]
    courses += [
        Course(f"{name}/{limit}, long", scenario(f"exp{name}", limit), few, 20_000)
        for name, limit in (("B", "Min"), ("D", "80"), ("D", "Max"))
    ]
    courses.append(Course("dynamic", scenario("dynamic"), few, 10_000))
    courses += [
        Course(f"{name}/{limit}, exploring", scenario(f"exp{name}", limit), most, 2000, changes=True, priced=True)
        for name, limit in (("A", "85"), ("B", "Min"), ("D", "Max"))
    ]
    parts = {course.name: functools.partial(measure, course) for course in courses}

    def told(line: EnduranceLine) -> str:
        worst = line.worst_regret_percent
        told = "broke its constraint" if worst is None else f"worst {fixed(worst, 2)} %"
        return f"above 1 % {line.over_share_percent:.3f} %, {told}"

    return kept.measure(EnduranceLine, parts, told)
