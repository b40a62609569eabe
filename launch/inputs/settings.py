"""All that decides a run's results, and how config.json keeps it: to resume a run, or to evaluate what it learned."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

from hl_jax.fleets.scenario import AnyScenario, FleetScenario
from hl_jax.scenario import Scenario
from launch.host.errors import InputError
from launch.inputs import agents


@dataclasses.dataclass(frozen=True)
class RealSettings:
    """What a run on real nodes has besides."""

    inventory: dict[str, object]  # of the fleet, as plain data
    twin: bool  # whether the scenario's calibration is this fleet's, so that it has an oracle
    init_from: str  # folder of the run whose agents go on here; empty: none
    measurements: int  # real steps that measure what was learned, after the last epoch


@dataclasses.dataclass(frozen=True)
class Settings:
    """All that decides a run's results."""

    scenario: AnyScenario  # with the asked users, constraint and noise
    constraint: str  # as the user wrote it
    agent: str
    config: Any
    seeds: tuple[int, ...]
    lanes: int
    real: RealSettings | None = None  # None: on the simulator

    @property
    def env(self) -> str:
        return "simulator" if self.real is None else "testbed"

    @property
    def digest(self) -> str:
        """Names these settings, so that what was made with them is known again."""
        return hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()

    def as_json(self) -> dict[str, object]:
        """Plain data, for `config.json`."""
        values = {**dataclasses.asdict(self), "seeds": list(self.seeds)}
        if self.real is None:
            del values["real"]
        if isinstance(self.scenario, FleetScenario):
            return values
        if self.scenario.traffic is None:  # the digests of runs without it stay as they were
            del values["scenario"]["traffic"]
        for name in (
            "speeds",
            "unmeasured",
        ):  # which only a twin has: the digests of runs without one stay as they were
            if not values["scenario"]["timing"][name]:
                del values["scenario"]["timing"][name]
        return values


def read_settings(path: pathlib.Path) -> Settings:
    """A run's settings from its config.json.

    Raises:
      InputError: if the file can't be read or isn't one.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--run_dir: expected a run's folder, found {error.strerror} at {path}") from error
    except ValueError as error:
        raise InputError(f"config.json: expected a run's settings, found {error} in {path}") from error
    try:
        kind = agents.kind_of(values["agent"]).config
        return Settings(
            scenario=(FleetScenario if "profiles" in values["scenario"] else Scenario).from_data(values["scenario"]),
            constraint=values["constraint"],
            agent=values["agent"],
            config=kind(**values["config"]),
            seeds=tuple(values["seeds"]),
            lanes=values["lanes"],
            real=RealSettings(**values["real"]) if "real" in values else None,
        )
    except (ValueError, InputError) as error:
        raise InputError(f"config.json: expected a run's settings, found {error} in {path}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"config.json: expected a run's settings, found {error!r} in {path}") from error
