"""What a reproduction consists of: units of work, each one training of some seeds, and what each agent is given.

A unit that several tables need is run once. Its folder's name ends in a digest of its settings, so that other settings
(another number of seeds, new defaults) get another folder and never mix with what was there.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from hl_jax.agents import registry
from hl_jax.objective import CONSTRAINTS, constraint_value
from hl_jax.scenario import Scenario
from launch.host.errors import InputError
from launch.host.files import ROOT
from launch.inputs import scenario_files
from launch.inputs.settings import Settings
from launch.reproduce import sb3 as peer

TABLES = ("5", "6", "7", "fig3", "peer")
AGENTS = ("hybrid", "dqn", "q_learning", peer.AGENT)
EXPERIMENTS = ("A", "B", "C", "D")
COMPARED = ("Min", "80", "85", "Max")  # Table VI's constraints
SEEDS = {"hybrid": 10, "dqn": 5, "q_learning": 5, peer.AGENT: 5}
QUICK_SEEDS = 2


@dataclasses.dataclass(frozen=True)
class Budget:
    """What an agent is given at some number of users."""

    changes: dict[str, Any]  # fields of its configuration
    seconds: float  # of one seed on one core, about; only tells how much of the plan is done
    why: str


# Every departure from the agents' defaults, in one place. A seed that doesn't get there within its budget counts as
# never. Schedules (epsilon, step sizes) stretch over the epochs, so that a larger budget also learns more slowly.
BUDGETS: dict[tuple[str, int], Budget] = {
    ("hybrid", 1): Budget({}, 5.0, "the defaults"),
    ("hybrid", 2): Budget({}, 6.0, "the defaults"),
    ("hybrid", 3): Budget({}, 7.0, "the defaults"),
    ("hybrid", 4): Budget({}, 8.0, "the defaults"),
    ("hybrid", 5): Budget({}, 10.0, "the defaults"),
    ("dqn", 1): Budget({"epochs": 20}, 2.0, "ten joint actions"),
    ("dqn", 2): Budget({"epochs": 40}, 3.0, "a hundred joint actions"),
    ("dqn", 3): Budget({"epochs": 40}, 4.0, "several times what it needs"),
    ("dqn", 4): Budget({}, 26.0, "the defaults"),
    ("dqn", 5): Budget({}, 44.0, "the defaults"),
    ("q_learning", 3): Budget({"epochs": 200, "epoch_steps": 100}, 2.0, "over twice the paper's most (7,000)"),
    ("q_learning", 4): Budget({"epochs": 200, "epoch_steps": 1000}, 6.0, "over twice the paper's most (90,000)"),
    ("q_learning", 5): Budget({"epochs": 200, "epoch_steps": 10000}, 46.0, "twice the paper's most (1,000,000)"),
    (peer.AGENT, 3): Budget({"epochs": 40}, 110.0, "as dqn"),
    (peer.AGENT, 5): Budget({"epochs": 1}, 90.0, "its speed only: too slow to learn here"),
}


@dataclasses.dataclass(frozen=True)
class Unit:
    """One training: some seeds of an agent in one scenario."""

    experiment: str
    users: int
    constraint: str
    agent: str
    tables: tuple[str, ...]  # which need it
    settings: Settings

    @property
    def folder(self) -> str:
        """Name of its run folder."""
        digest = self.settings.digest[:8]
        return f"{self.experiment}-{self.users}-{self.constraint}-{self.agent}-{digest}"

    @property
    def title(self) -> str:
        """How it is called in messages."""
        constraint = constraint_text(self.constraint)
        users = "1 user" if self.users == 1 else f"{self.users} users"
        return f"{self.agent}, experiment {self.experiment}, {users}, constraint {constraint}"

    @property
    def budget(self) -> Budget:
        return BUDGETS[self.agent, self.users]

    @property
    def weight(self) -> float:
        """About how many core seconds it takes."""
        return self.budget.seconds * len(self.settings.seeds)


def constraint_text(constraint: str) -> str:
    """A constraint as the paper's tables write it: `Min`, `80%`, `Max`."""
    return constraint if constraint in ("Min", "Max") else f"{constraint}%"


@functools.cache
def _file(experiment: str) -> Scenario:
    return scenario_files.load_scenario(ROOT / "data" / "scenarios" / f"exp{experiment}.toml")


def scenario_of(experiment: str, users: int, constraint: str) -> Scenario:
    """An experiment of the paper with so many users and that constraint."""
    scenario = _file(experiment).with_users(users)
    return dataclasses.replace(scenario, constraint=constraint_value(constraint, scenario.pool))


def settings(experiment: str, users: int, constraint: str, agent: str, seeds: int) -> Settings:
    """A unit's settings: the agent's defaults with its budget's changes."""
    defaults = registry.AGENTS["dqn" if agent == peer.AGENT else agent].config()
    return Settings(
        scenario=scenario_of(experiment, users, constraint),
        constraint=constraint,
        agent=agent,
        config=dataclasses.replace(defaults, **BUDGETS[agent, users].changes),
        seeds=tuple(range(seeds)),
        lanes=1,
    )


Cell = tuple[str, int, str, str]  # experiment, users, constraint, agent


def _cells(table: str) -> list[Cell]:
    """What a table of the paper needs."""
    ours = ("hybrid", "dqn", "q_learning")
    compared = [("A", users, limit, agent) for users in (3, 4, 5) for agent in ours for limit in COMPARED]
    return {
        "5": [(experiment, 5, limit, "hybrid") for experiment in EXPERIMENTS for limit in CONSTRAINTS],
        "6": compared,
        "7": compared,
        "fig3": [
            ("A", users, limit, agent)
            for users in (1, 2, 3, 4, 5)
            for agent in ("hybrid", "dqn")
            for limit in CONSTRAINTS
        ],
        "peer": [("A", 3, limit, agent) for agent in ("dqn", peer.AGENT) for limit in COMPARED]
        + [("A", 5, "85", peer.AGENT)],
    }[table]


# One row of each table, small fleets, two seeds: every part of the report has something of its own.
QUICK: dict[str, list[Cell]] = {
    "5": [("C", 5, "85", "hybrid")],
    "6": [("A", 3, "85", "hybrid"), ("A", 3, "85", "dqn"), ("A", 3, "85", "q_learning")],
    "7": [("A", 3, "85", "hybrid"), ("A", 3, "85", "dqn"), ("A", 3, "85", "q_learning")],
    "fig3": [("A", 3, "85", "hybrid"), ("A", 3, "85", "dqn")],
    "peer": [("A", 3, "85", "dqn"), ("A", 3, "85", peer.AGENT)],
}


def plan(tables: tuple[str, ...], chosen: tuple[str, ...], seeds: int, quick: bool) -> list[Unit]:
    """The units that some tables need of some agents, each once and of so many seeds (0: as many as an agent gets).

    Raises:
      InputError: if nothing is left.
    """
    needed: dict[Cell, list[str]] = {}
    for table in tables:
        for cell in QUICK[table] if quick else _cells(table):
            if cell[3] in chosen:
                needed.setdefault(cell, []).append(table)
    if not needed:
        raise InputError(
            f"--agents: expected one that --tables={','.join(tables)} needs, found only {', '.join(chosen)}"
        )
    usual = dict.fromkeys(AGENTS, QUICK_SEEDS) if quick else SEEDS
    found = [Unit(*cell, tuple(where), settings(*cell, seeds or usual[cell[3]])) for cell, where in needed.items()]
    # The paper's own agent first, then from few users to many: what is cheap and matters most is there early.
    return sorted(found, key=lambda unit: (AGENTS.index(unit.agent), unit.users))
