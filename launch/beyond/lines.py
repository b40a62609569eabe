"""The lines of `launch.beyond`'s rows: what one case of each was measured to be."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from hl_jax.statistics import Spread


@dataclasses.dataclass(frozen=True)
class Line:
    """One case."""

    case: str


@dataclasses.dataclass(frozen=True)
class StepsLine(Line):
    """Real steps to optimal, over seeds."""

    steps_to_optimal: Spread
    worst: int | None  # None: some seed never got there
    steps: tuple[int | None, ...]  # of each seed
    false_alarms: int  # changes seen where there were none

    @property
    def median(self) -> float:
        """Infinite where most seeds never got there."""
        return never(self.steps_to_optimal.median)

    @property
    def all_succeed(self) -> bool:
        return self.steps_to_optimal.succeeded == self.steps_to_optimal.seeds


@dataclasses.dataclass(frozen=True)
class UsersLine(StepsLine):
    """The same, of a number of devices."""

    users: int


@dataclasses.dataclass(frozen=True)
class DriftLine(StepsLine):
    """The same, counted from a change on."""

    noticed: int  # seeds that saw it
    regret_after_one_step_percent: float


@dataclasses.dataclass(frozen=True)
class JudgedLine(Line):
    """One seed's policy in many cases, after so many real steps."""

    after: int
    worst_regret_percent: float
    constraint_met: int  # cases

    @staticmethod
    def times(lines: Sequence[JudgedLine]) -> list[int]:
        """After how many steps these were judged."""
        return sorted({line.after for line in lines})


@dataclasses.dataclass(frozen=True)
class DynamicLine(JudgedLine):
    """In fresh states of a changing scenario."""

    mean_regret_percent: float
    states: int
    changes_seen: int


@dataclasses.dataclass(frozen=True)
class SweepLine(JudgedLine):
    """Under constraints that it was never asked before."""

    constraints: int
    worst_at: float  # %
    over_one_percent: int  # constraints


@dataclasses.dataclass(frozen=True)
class EnduranceLine(Line):
    """One scenario's seeds over thousands of steps."""

    seeds: int
    steps: int
    not_finite: int  # seeds
    decisions: int  # judged, after the first `endurance.SETTLED` steps
    over_share_percent: float  # of them, above 1 % regret
    bad_evaluations_percent: float  # evaluations with such a decision in any state: the strictest reading
    worst_regret_percent: float | None  # None: a decision broke its constraint
    worst_window_percent: float | None  # highest mean cost of a window over the optimum; None: not asked
    steps_after_change: int | None  # None: there was none
    step_time_ratio: float  # a step at the end over one near the start
    peak_memory_gib: float


@dataclasses.dataclass(frozen=True)
class Mark:
    """What the policies of several seeds were worth in fresh states after so many real steps."""

    after: int
    mean_percent: float  # of the seeds' mean regrets
    median_percent: float
    worst_percent: float
    kept: float  # part of the decisions that keep the constraint


@dataclasses.dataclass(frozen=True)
class ChangingLine(Line):
    """An agent where conditions change."""

    agent: str
    users: int
    constraint: str
    budget_steps: int
    steps_to_tolerance: Spread  # real steps until the mean regret is at most 2 % for good, the constraint kept
    steps: tuple[int | None, ...]  # the same of each seed
    marks: tuple[Mark, ...]
    compute_s: float  # of one seed, median


@dataclasses.dataclass(frozen=True)
class LockstepLine(Line):
    """The lock-step optimum as a standing decision, beside the best one."""

    lockstep_ms: float
    best_ms: float
    more_percent: float  # mean over rollouts, and its 95 % interval
    low_percent: float
    high_percent: float
    lockstep_p99_ms: float
    best_p99_ms: float
    lockstep: str
    best: str
    rivals: int  # decisions that aren't certainly worse than the best
    behind_ms: float  # how much better one of them may be, at most


@dataclasses.dataclass(frozen=True)
class StandingLine(Line):
    """How soon an agent's standing decision is near the oracle's, for good."""

    periods_to_within: Spread  # control periods
    periods: tuple[int | None, ...]  # of each seed
    worst_done_percent: float  # of all decisions taken after the first few periods, tries included, over the oracle's
    mean_done_percent: float
    oracle_ms: float

    @property
    def median(self) -> float:
        """Infinite where most seeds never got there."""
        return never(self.periods_to_within.median)

    @property
    def all_succeed(self) -> bool:
        return self.periods_to_within.succeeded == self.periods_to_within.seeds


@dataclasses.dataclass(frozen=True)
class MissesLine(Line):
    """Parts of the requests that were late."""

    oracle_missed: float
    median_missed: float  # over seeds
    worst_missed: float
    seeds: int


@dataclasses.dataclass(frozen=True)
class BruteLine(Line):
    """The search's K best against brute force's."""

    instances: int
    same: int
    proven: int


@dataclasses.dataclass(frozen=True)
class MilpLine(Line):
    """The search against HiGHS, of a number of devices."""

    users: int
    instances: int
    offloading: int  # whose optimum offloads anything
    worst_excess: float  # relative
    worst_gap_to_own_bound: float
    bound_violated: int
    search_ms: float
    highs_ms: float
    speed_up: float


@dataclasses.dataclass(frozen=True)
class TimeLine(Line):
    """One decision on one core, of a number of devices."""

    users: int
    least_ms: float
    median_ms: float
    cpu_ms: float  # without what other programs take of the core
    compile_s: float
    gap_to_own_bound: float


def never(value: float | None) -> float:
    """What never came, as a number."""
    return float("inf") if value is None else float(value)


@dataclasses.dataclass(frozen=True)
class FleetLine(Line):
    """A user's own fleet, over seeds: real steps to within 1 % for the first time, and for good."""

    first: Spread
    steps_to_optimal: Spread
    steps: tuple[int | None, ...]  # of each seed, for good
    worst_lapse_percent: float  # of any decision once it has had time to learn; infinite: one broke a constraint
    late_percent: float  # of requests, in the worst run
    optimum: float  # in what the goal counts

    def soon(self, most: float) -> bool:
        """Whether every run is within 1 % once, and the median after at most so many steps."""
        return self.first.succeeded == self.first.seeds and never(self.first.median) <= most
