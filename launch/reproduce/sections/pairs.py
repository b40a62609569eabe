"""Two agents beside each other: what the section `knowledge` compares."""

from __future__ import annotations

import dataclasses

import numpy as np

from hl_jax import statistics
from hl_jax.objective import CONSTRAINTS
from hl_jax.statistics import Ratio, Spread
from launch.reproduce.sections.section import Work
from launch.reproduce.units import Case
from launch.runs.summary import Summary

USERS = 5


@dataclasses.dataclass(frozen=True)
class Learned(Spread):
    """One agent's real steps to optimal, and what they took."""

    experience_s: float | None  # median up to the optimum, as the steps would have taken for real
    compute_s: float | None  # the same of computing, on one core


@dataclasses.dataclass(frozen=True)
class Pair:
    """hybrid beside dqn in one cell, both with the same knowledge."""

    experiment: str
    constraint: str
    knowledge: str
    noise: float | None  # None: the experiment's
    hybrid: Learned
    dqn: Learned
    ratio: Ratio  # dqn's steps over hybrid's

    @property
    def decided(self) -> int:
        """1: hybrid is sooner, -1: later, 0: neither is decided (95 %)."""
        low, high = self.ratio.interval
        if low is not None and low > 1.0:
            return 1
        return -1 if high is not None and high < 1.0 else 0


@dataclasses.dataclass(frozen=True)
class Other:
    """An agent as the literature sets it, or tabular, in one cell."""

    agent: str
    knowledge: str
    users: int
    constraint: str
    steps: Spread
    budget_steps: int


@dataclasses.dataclass(frozen=True)
class Factor:
    """What one difference between two agents is worth in experiment A: one's median steps over the other's."""

    what: str
    value: float | None  # in the middle cell
    cells: int
    of: int  # cells that were run; in the others most seeds of one never got there


def _steps(summary: Summary) -> list[int | None]:
    return [seed.steps_to_optimal for seed in summary.whole]


def _learned(summary: Summary) -> Learned:
    experience = statistics.summarize([seed.experience_to_optimal_s for seed in summary.whole]).median
    compute = statistics.summarize([seed.compute_to_optimal_s for seed in summary.whole]).median
    return Learned(**dataclasses.asdict(summary.aggregate.steps_to_optimal), experience_s=experience, compute_s=compute)


def pair(case: Case, work: Work) -> Pair | None:
    """Hybrid and dqn in a case's cell; None until both are finished."""
    hybrid, dqn = (work.summary(case._replace(agent=agent)) for agent in ("hybrid", "dqn"))
    if hybrid is None or dqn is None:
        return None
    ratio = statistics.ratio_of_medians(_steps(dqn), _steps(hybrid))
    return Pair(case.experiment, case.constraint, case.knowledge, case.noise, _learned(hybrid), _learned(dqn), ratio)


def other(case: Case, work: Work) -> Other | None:
    """One agent; None until it is finished."""
    summary = work.summary(case)
    if summary is None:
        return None
    budget = min(seed.real_steps for seed in summary.whole)
    return Other(case.agent, case.knowledge, case.users, case.constraint, summary.aggregate.steps_to_optimal, budget)


def factor(what: str, slow: tuple[str, str], quick: tuple[str, str], work: Work) -> Factor:
    """The median ratio over experiment A's cells of two agents, each an agent and what it is told."""
    ratios, run = [], 0
    for limit in CONSTRAINTS:
        found = [work.summary(Case("A", USERS, limit, *one)) for one in (slow, quick)]
        if found[0] is None or found[1] is None:
            continue
        run += 1
        above, below = (one.aggregate.steps_to_optimal.median for one in found if one)
        if above is not None and below is not None:
            ratios.append(above / below)
    return Factor(what, float(np.median(ratios)) if ratios else None, len(ratios), run)
