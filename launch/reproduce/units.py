"""Units of work: each is one training of some seeds, in a run folder of its own; and their running, one by one.

A unit that several sections of the report need is run once. Its folder's name ends in a digest of its settings, so that
other settings (another number of seeds, new defaults) get another folder and never mix with what was there.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from hl_jax.objective import constraint_value
from hl_jax.scenario import Scenario
from launch.host import resources
from launch.host.files import ROOT
from launch.host.text import counted
from launch.host.worklog import WorkLog
from launch.inputs import agents, public, scenario_files
from launch.inputs.flags import config_from
from launch.inputs.settings import Settings
from launch.runs.folder import RunFolder
from launch.runs.summary import Summary
from launch.runs.unit import run

SECONDS_A_MINUTE = 60.0


TOLD, UNTOLD, LITERATURE = "told", "untold", "literature"


class Case(NamedTuple):
    """What is trained."""

    experiment: str
    users: int
    constraint: str
    agent: str
    knowledge: str = TOLD  # of what breaks the constraint: told, untold, or untold and set as the literature would
    noise: float | None = None  # instead of the experiment's


@dataclasses.dataclass(frozen=True)
class Budget:
    """What an agent is given at some number of users."""

    changes: dict[str, int | float]  # fields of its configuration
    seconds: float  # of one seed on one core, about; only tells how much of the plan is done
    why: str


# Every departure from the agents' defaults, in one place. A seed that doesn't get there within its budget counts as
# never. Schedules (epsilon, step sizes) stretch over the epochs, so that a larger budget also learns more slowly.
BUDGETS: dict[tuple[str, int], Budget] = {
    **{("hybrid", users): Budget({}, 3.0 + 2.0 * users, "the defaults") for users in range(1, 6)},
    **{("dqn", users): Budget({}, 2.0 + users, "the defaults") for users in range(1, 6)},
    ("q_learning", 3): Budget({"epochs": 200, "epoch_steps": 100}, 2.0, "over twice the paper's most (7,000)"),
    ("q_learning", 4): Budget({"epochs": 200, "epoch_steps": 1000}, 6.0, "over twice the paper's most (90,000)"),
    ("q_learning", 5): Budget({"epochs": 200, "epoch_steps": 10000}, 46.0, "twice the paper's most (1,000,000)"),
    (public.NAME, 3): Budget({"epochs": 40}, 110.0, "4,000 steps"),
}


# Told is what the defaults are; the others' constants are flag files, for launch.train as well.
FLAG_FILES = {
    ("hybrid", UNTOLD): "hybrid-untold",
    ("hybrid", LITERATURE): "literal",
    ("dqn", UNTOLD): "dqn-untold",
    ("dqn", LITERATURE): "dqn-literature",
    ("q_learning", UNTOLD): "q_learning-untold",
    (public.NAME, LITERATURE): "sb3_dqn-literature",
}


SECONDS = {
    "hybrid-untold": 15.0,
    "literal": 12.0,
    "dqn-untold": 8.0,
    "dqn-literature": 40.0,
    "q_learning-untold": 46.0,
    "sb3_dqn-literature": 30.0,
}


@dataclasses.dataclass(frozen=True)
class Unit:
    """One training: some seeds of an agent in one scenario."""

    case: Case
    tables: tuple[str, ...]  # the sections that need it, as --tables names them
    settings: Settings

    @property
    def folder(self) -> str:
        """Name of its run folder."""
        experiment, users, constraint, agent, *_ = self.case
        return f"{experiment}-{users}-{constraint}-{agent}-{self.settings.digest[:8]}"

    def run_folder(self, out: pathlib.Path) -> RunFolder:
        """Its run folder in a reproduction's folder."""
        return RunFolder(out / "units" / self.folder)

    @property
    def title(self) -> str:
        """How it is called in messages."""
        experiment, users, limit, agent, knowledge, noise = self.case
        many = "1 user" if users == 1 else f"{users} users"
        of = agent if knowledge == TOLD else f"{agent} ({knowledge})"
        noisy = "" if noise is None else f", {100.0 * noise:g} % noise"
        return f"{of}, experiment {experiment}, {many}, constraint {constraint_text(limit)}{noisy}"

    @property
    def budget(self) -> Budget:
        return budget(self.case)

    @property
    def weight(self) -> float:
        """About how many core seconds it takes."""
        return self.budget.seconds * len(self.settings.seeds)


def budget(case: Case) -> Budget:
    """What a case's agent is given."""
    if case.knowledge == TOLD:
        return BUDGETS[case.agent, case.users]
    name = FLAG_FILES[case.agent, case.knowledge]
    return Budget({}, SECONDS[name], f"data/flags/{name}.flags")


def constraint_text(constraint: str) -> str:
    """A constraint as the paper's tables write it: `Min`, `80%`, `Max`."""
    return constraint if constraint in ("Min", "Max") else f"{constraint}%"


UNEQUAL = "unequal"  # not the paper's: devices whose speeds span a factor of four


@functools.cache
def _file(experiment: str) -> Scenario:
    name = experiment if experiment == UNEQUAL else f"exp{experiment}"
    return scenario_files.load_scenario(ROOT / "data" / "scenarios" / f"{name}.toml")


def scenario_of(experiment: str, users: int, constraint: str) -> Scenario:
    """An experiment of the paper, or `UNEQUAL`, with so many users and that constraint."""
    scenario = _file(experiment).with_users(users)
    return dataclasses.replace(scenario, constraint=constraint_value(constraint, scenario.pool))


def constants_of(case: Case) -> Any:
    """The constants of a case's agent, less what its budget changes."""
    if case.knowledge == TOLD:
        return agents.kind_of(case.agent).config()
    return config_from(ROOT / "data" / "flags" / f"{FLAG_FILES[case.agent, case.knowledge]}.flags", case.agent)


def settings(case: Case, seeds: int) -> Settings:
    """A unit's settings: the agent's constants with its budget's changes."""
    scenario = scenario_of(case.experiment, case.users, case.constraint)
    if case.noise is not None:
        scenario = dataclasses.replace(scenario, noise=case.noise)
    return Settings(
        scenario=scenario,
        constraint=case.constraint,
        agent=case.agent,
        config=dataclasses.replace(constants_of(case), **budget(case).changes),
        seeds=tuple(range(seeds)),
        lanes=1,
    )


def _result(summary: Summary) -> str:
    steps = summary.aggregate.steps_to_optimal
    middle = "never" if steps.median is None else f"{steps.median:,.0f} steps"
    return f"{steps.succeeded} of {counted(steps.seeds, 'seed')} optimal, median {middle}"


def run_units(
    plan: Sequence[Unit], out: pathlib.Path, *, threads: int, checkpoint_epochs: int, say: Callable[[str], None]
) -> None:
    """Runs every unit that isn't finished, one after the other, each on all cores.

    Raises:
      InputError: if a folder can't be used.
      KeyboardInterrupt: after checkpointing the unit under way.
    """
    waiting = [unit for unit in plan if not unit.run_folder(out).finished]
    left, spent, done = sum(unit.weight for unit in waiting), 0.0, 0.0
    if len(waiting) < len(plan):
        say(f"{len(plan) - len(waiting)} of {len(plan)} units of work are finished already")
    log = WorkLog(out)
    for unit in waiting:
        number = plan.index(unit) + 1
        # The first units tell how fast this machine is; until then nothing is promised.
        rest = f", about {left * spent / done / SECONDS_A_MINUTE:.0f} min left" if done else ""
        say(f"[{number}/{len(plan)}] {unit.title}{rest}")
        start = time.perf_counter()
        log.note(unit.folder, 0.0, resources.peak_memory_gib(children=True))  # with its commit, however this call ends
        try:
            folder = unit.run_folder(out)
            summary = run(unit.settings, folder, threads=threads, checkpoint_epochs=checkpoint_epochs)
        finally:
            wall_s = time.perf_counter() - start
            log.note(unit.folder, wall_s, resources.peak_memory_gib(children=True))
        left -= unit.weight
        if unit is not waiting[0]:  # which compiles what others find
            spent, done = spent + wall_s, done + unit.weight
        say(f"[{number}/{len(plan)}] {unit.title}: {_result(summary)} ({wall_s:.0f} s)")
