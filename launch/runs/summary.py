"""What a run showed, seed by seed: summary.json, and what is read from it."""

from __future__ import annotations

import dataclasses
import pathlib
import statistics as plain_statistics
from collections.abc import Mapping
from typing import Any

import numpy as np

from hl_jax import evaluation, health, statistics
from hl_jax.oracle import Optimum
from launch.host.files import read_json
from launch.inputs.settings import Settings

METRICS = (
    "seed",
    "epoch",
    "real_steps",
    "model_steps",
    "train_art_ms",
    "train_cost_ms",
    "infeasible_share",
    "elapsed_s",
    "art_ms",
    "accuracy",
    "feasible",
    "regret_percent",
)


@dataclasses.dataclass(frozen=True)
class Oracle:
    """True optima in the states that a run is evaluated in, without noise."""

    optima: tuple[Optimum, ...]  # [E]

    @property
    def art_ms(self) -> float:
        return float(np.mean([optimum.art_ms for optimum in self.optima]))


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why a seed ended before its time."""

    epoch: int  # the one after which it couldn't go on; all before it count
    what: str

    def line(self, agent: str, seed: int) -> str:
        """For a person."""
        return f"{agent}, seed {seed}, epoch {self.epoch}: {self.what}"


def failure(epoch: int, agent: Any, learning: dict[str, Any], wrong: np.ndarray) -> Failure:
    """What `health.check` found after one seed's epoch; `agent` is any state of that agent."""
    names = health.names(agent, learning)
    return Failure(epoch=epoch, what=health.described([name for name, flag in zip(names, wrong, strict=True) if flag]))


def is_optimal(row: dict[str, Any], tolerance: float) -> bool:
    """Whether an evaluation met the constraint within `tolerance` of the oracle; never where nobody knows that."""
    return bool(row["feasible"]) and row["regret_percent"] is not None and row["regret_percent"] <= 100.0 * tolerance


# A seed whose first epoch already failed has no row: nothing is known of it.
NO_ROW: dict[str, Any] = {
    **dict.fromkeys(("art_ms", "accuracy", "feasible")),
    "real_steps": 0,
    "model_steps": 0,
    "decision": [],
}


def seed_summary(
    seed: int,
    rows: list[dict[str, Any]],
    oracle: Oracle | None,
    labels: tuple[str, ...],
    failure: Failure | None = None,
) -> dict[str, Any]:
    """One seed's entry of summary.json. Without an oracle everything that needs one is null.

    A seed that failed never counts as optimal; the rest is what its last finite epoch showed.
    """
    steps, last = [row["real_steps"] for row in rows], rows[-1] if rows else NO_ROW

    def steps_to(tolerance: float) -> int | None:
        if failure is not None:
            return None
        return evaluation.first_lasting(steps, [is_optimal(row, tolerance) for row in rows])

    optimal = steps_to(evaluation.TOLERANCE)

    def up_to_optimal(name: str) -> float | None:
        return None if optimal is None else sum(row[name] for row in rows if row["real_steps"] <= optimal)

    return {
        "seed": seed,
        "failed": None if failure is None else dataclasses.asdict(failure),
        "steps_to_optimal": optimal,
        "steps_to_exact": steps_to(evaluation.EXACT),
        "real_steps": last["real_steps"],
        "model_steps": last["model_steps"],
        "art_ms": last["art_ms"],
        "oracle_art_ms": oracle.art_ms if oracle else None,
        "accuracy": last["accuracy"],
        "feasible": last["feasible"],
        "decision": [labels[choice] for choice in last["decision"]],
        "experience_s": sum(row["elapsed_s"] for row in rows),
        "compute_s": sum(row["compute_s"] for row in rows),
        "experience_to_optimal_s": up_to_optimal("elapsed_s"),
        "compute_to_optimal_s": up_to_optimal("compute_s"),
        **last.get("measured", {}),  # of a real fleet
    }


def summarize(
    settings: Settings,
    env: str,
    histories: dict[int, list[dict[str, Any]]],
    oracle: Oracle | None,
    failures: dict[int, Failure],
) -> dict[str, Any]:
    """summary.json's content."""
    labels = settings.scenario.choice_labels()
    seeds = [seed_summary(seed, histories[seed], oracle, labels, failures.get(seed)) for seed in settings.seeds]
    whole = [seed for seed in seeds if seed["failed"] is None]  # a failed seed isn't a slow one
    return {
        "experiment": settings.scenario.name,
        "agent": settings.agent,
        "users": settings.scenario.users,
        "constraint": settings.constraint,
        "env": env,
        "seeds": seeds,
        "aggregate": {
            "steps_to_optimal": statistics.summarize([seed["steps_to_optimal"] for seed in whole]),
            "steps_to_exact": statistics.summarize([seed["steps_to_exact"] for seed in whole]),
            "failed": len(seeds) - len(whole),
            "art_ms": plain_statistics.mean(seed["art_ms"] for seed in whole) if whole else None,
            "oracle_art_ms": oracle.art_ms if oracle else None,
        },
    }


def finished(folder: pathlib.Path) -> dict[str, Any] | None:
    """The summary of a finished run, None of any other folder."""
    summary: dict[str, Any] | None = read_json(folder / "summary.json")
    return summary


def failed_seeds(summary: dict[str, Any]) -> list[str]:
    """A line for each seed of a finished run that failed."""
    failed = [(seed["seed"], Failure(**seed["failed"])) for seed in summary["seeds"] if seed.get("failed")]
    return [failure.line(summary["agent"], seed) for seed, failure in failed]


def whole_seeds(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """The seeds of a finished run that didn't fail."""
    return [seed for seed in summary["seeds"] if not seed.get("failed")]


def failures(folders: Mapping[str, pathlib.Path]) -> dict[str, str]:
    """What became of those of some finished runs whose seeds failed, by the same names."""
    found = {name: finished(folder) for name, folder in folders.items()}
    lines = {name: "; ".join(failed_seeds(one)) for name, one in found.items() if one is not None}
    return {name: line for name, line in lines.items() if line}
