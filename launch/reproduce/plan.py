"""What a reproduction consists of: the units of work that the sections of its report need, each once."""

from __future__ import annotations

from collections.abc import Collection

from launch.host.errors import InputError
from launch.inputs import public
from launch.reproduce.sections import SECTIONS
from launch.reproduce.units import LITERATURE, TOLD, UNTOLD, Case, Unit, settings

AGENTS = ("hybrid", "dqn", "q_learning", public.NAME)
SEEDS = {"hybrid": 20, "dqn": 20, "q_learning": 5, public.NAME: 5}
MOST_SEEDS = {TOLD: 20, UNTOLD: 10, LITERATURE: 5}
QUICK_SEEDS = 2


def tables() -> tuple[str, ...]:
    """The sections that can be asked for: those that need units of work."""
    return tuple(name for name, section in SECTIONS.items() if section.cases(quick=False))


def seeds_of(case: Case, quick: bool) -> int:
    """How many a case gets."""
    return QUICK_SEEDS if quick else min(SEEDS[case.agent], MOST_SEEDS[case.knowledge])


def units(asked: Collection[str], chosen: Collection[str], seeds: int, quick: bool) -> list[Unit]:
    """The units that some sections need of some agents, each of so many seeds (0: as many as an agent gets).

    Raises:
      InputError: if nothing is left.
    """
    needed: dict[Case, list[str]] = {}
    for name in asked:
        for case in SECTIONS[name].cases(quick):
            if case.agent in chosen:
                needed.setdefault(case, []).append(name)
    if not needed:
        raise InputError(
            f"--agents: expected one that --tables={','.join(asked)} needs, found only {', '.join(chosen)}"
        )
    found = [Unit(case, tuple(names), settings(case, seeds or seeds_of(case, quick))) for case, names in needed.items()]
    # The paper's own agent first, then from few users to many: what is cheap and matters most is there early.
    return sorted(found, key=lambda unit: (AGENTS.index(unit.case.agent), unit.case.users))
