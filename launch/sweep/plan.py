"""What a sweep consists of: points (settings of a training), and units of work (a point's seeds, `lanes` at a time).

A unit's folder is named after a digest of its point, so that a point that two sweeps or two axes share is trained once,
and an axis value or seeds that are added leave all that is finished as it is. Every point is checked by the very
parsers and checks of `launch.train` before anything runs.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import pathlib
from collections.abc import Sequence

from absl import flags

from hl_jax import training
from launch.host.errors import InputError
from launch.inputs import agents
from launch.inputs.flags import HOW_TO_RUN, given, own_flags, settings
from launch.inputs.settings import Settings
from launch.runs.folder import RunFolder
from launch.sweep.axes import Assignment

FLAGS = flags.FLAGS
# Flags of a training that aren't varied: what decides no result, and what says how many results there are.
NO_AXES = (*HOW_TO_RUN, "seeds", "first_seed", "lanes")
OWN_FLAGS = ("seeds", "first_seed", "lanes", "checkpoint_epochs", "run_dir", "flagfile")


def axis_flags() -> set[str]:
    """Names of the flags that may be varied."""
    return {flag.name for flag in own_flags()} - set(NO_AXES)


def check_names(names: Sequence[str]) -> None:
    """Checks that each is a flag that may be varied.

    Raises:
      InputError: if one isn't.
    """
    known = axis_flags()
    for name in names:
        if name in NO_AXES:
            raise InputError(f"--grid: expected a flag that decides what is learned, found {name} (give --{name})")
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), 1)
            hint = f" (did you mean {near[0]}?)" if near else " (python -m launch.train --helpfull lists them)"
            raise InputError(f"--grid: expected a flag of launch.train, found {name}{hint}")


@dataclasses.dataclass(frozen=True)
class Unit:
    """Work that is done at once: some seeds of a point."""

    point: str  # its point's name
    settings: Settings  # with this unit's seeds
    program: str  # the same for units that run the same compiled program

    @property
    def folder(self) -> str:
        """Where it belongs under the sweep's `units/`."""
        seeds = self.settings.seeds
        last = f"-{seeds[-1]:04d}" if len(seeds) > 1 else ""
        return f"{self.point}/seed-{seeds[0]:04d}{last}"

    def run_folder(self, out: pathlib.Path) -> RunFolder:
        """Its run's folder in a sweep's."""
        return RunFolder(out / "units" / self.folder)


@dataclasses.dataclass(frozen=True)
class Point:
    """One setting in one task: what is trained, and by which values of the axes."""

    assignment: Assignment
    settings: Settings  # with all seeds that are asked for

    @property
    def name(self) -> str:
        """Of its folder: the same for the same training, whatever axes led to it and however many seeds it has."""
        digest = dataclasses.replace(self.settings, seeds=()).digest[:12]
        scenario = self.settings.scenario
        return f"{scenario.name}-{scenario.users}-{self.settings.constraint}-{self.settings.agent}-{digest}"

    @property
    def program(self) -> str:
        """Names the compiled program: an agent's, with the environment as argument, so that most scenarios share it."""
        chosen = self.settings
        agent = agents.make_agent(chosen.agent, chosen.config, chosen.scenario)
        # A changing scenario is evaluated in more states, and sizes follow from the devices, which every agent knows.
        parts = (agent, chosen.lanes, chosen.scenario.dynamics is not None)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def units(self) -> list[Unit]:
        """Aligned blocks of `lanes` seeds, so that more seeds add blocks and change none.

        The last block's seeds are all computed, asked for or not: a compiled program's size can't change.
        """
        lanes, seeds = self.settings.lanes, self.settings.seeds
        blocks = range(seeds[0] // lanes, seeds[-1] // lanes + 1)
        own = [tuple(range(block * lanes, (block + 1) * lanes)) for block in blocks]
        name, program = self.name, self.program
        return [Unit(name, dataclasses.replace(self.settings, seeds=some), program) for some in own]


def point(assignment: Assignment) -> Point:
    """The training that an assignment describes, checked as launch.train checks it.

    Raises:
      InputError: naming the assignment, if it can't be trained.
    """
    try:
        with given(assignment):
            found = settings()
            # Written one way, so that 85, 85.0 and what the scenario says itself are one point.
            found = dataclasses.replace(found, constraint=f"{found.scenario.constraint:g}")
        training.params_for(agents.make_agent(found.agent, found.config, found.scenario), found.scenario)
    except InputError as error:
        where = ", ".join(f"{name}={value}" for name, value in assignment.items())
        raise InputError(f"{error} (of the sweep's point {where}; nothing was run)") from error
    return Point(assignment, found)


def points(assignments: Sequence[Assignment]) -> list[Point]:
    """All trainings of a sweep.

    Raises:
      InputError: if one can't be trained.
    """
    checked: set[str] = set()
    for assignment in assignments:
        if new := assignment.keys() - checked:
            check_names(sorted(new))
            checked |= new
    return [point(assignment) for assignment in assignments]


def all_units(plan: Sequence[Point]) -> list[Unit]:
    """Every unit of a sweep once, a point's side by side."""
    found: dict[str, Unit] = {}
    for one in plan:
        for unit in one.units():
            found.setdefault(unit.folder, unit)
    return list(found.values())
