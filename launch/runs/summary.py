"""What a run came to, seed by seed: summary.json."""

from __future__ import annotations

import dataclasses
import statistics as plain_statistics
from collections.abc import Mapping, Sequence

import numpy as np

from hl_jax import evaluation, health, statistics
from hl_jax.statistics import Spread
from launch.host.records import as_data, from_data
from launch.inputs.settings import Settings
from launch.runs.history import Histories, History, Measured, Oracle, Row


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why a seed ended before its time."""

    epoch: int  # the one after which it couldn't go on; all before it count
    what: str

    def line(self, agent: str, seed: int) -> str:
        """For a person."""
        return f"{agent}, seed {seed}, epoch {self.epoch}: {self.what}"


def failure(epoch: int, agent: object, learning: Mapping[str, object], wrong: np.ndarray) -> Failure:
    """What `health.check` found after one seed's epoch; `agent` is any state of that agent."""
    names = health.names(agent, learning)
    return Failure(epoch=epoch, what=health.described([name for name, flag in zip(names, wrong, strict=True) if flag]))


@dataclasses.dataclass(frozen=True)
class SeedSummary:
    """One seed. Without an oracle everything that needs one is None; a seed that failed never counts as optimal."""

    seed: int
    failed: Failure | None
    steps_to_optimal: int | None  # None: never
    steps_to_exact: int | None
    real_steps: int
    model_steps: int
    art_ms: float | None  # of the last decision, as measured where it was; None where its first epoch failed
    oracle_art_ms: float | None
    accuracy: float | None
    feasible: bool | None
    decision: tuple[str, ...]  # by the choices' labels
    experience_s: float
    compute_s: float
    experience_to_optimal_s: float | None
    compute_to_optimal_s: float | None
    measured: Measured | None = None  # of a real fleet; beside the others in summary.json

    @property
    def times(self) -> tuple[float, float]:
        """ART and the oracle's (ms), of a seed that didn't fail and ran where the optimum is known."""
        assert self.art_ms is not None
        assert self.oracle_art_ms is not None
        return self.art_ms, self.oracle_art_ms


@dataclasses.dataclass(frozen=True)
class Aggregate:
    """All seeds that didn't fail: a failed seed isn't a slow one."""

    steps_to_optimal: Spread
    steps_to_exact: Spread
    failed: int  # how many did
    art_ms: float | None
    oracle_art_ms: float | None


@dataclasses.dataclass(frozen=True)
class Summary:
    """summary.json."""

    experiment: str
    agent: str
    users: int
    constraint: str
    env: str
    seeds: tuple[SeedSummary, ...]
    aggregate: Aggregate

    @property
    def whole(self) -> tuple[SeedSummary, ...]:
        """The seeds that didn't fail."""
        return tuple(seed for seed in self.seeds if seed.failed is None)

    @property
    def failures(self) -> list[str]:
        """A line for each seed that did."""
        return [seed.failed.line(self.agent, seed.seed) for seed in self.seeds if seed.failed is not None]

    def as_json(self) -> dict[str, object]:
        """Plain data, for summary.json: what a fleet measured stands beside a seed's other figures."""
        seeds: list[dict[str, object]] = [as_data(seed) for seed in self.seeds]
        for seed in seeds:
            measured = seed.pop("measured")
            seed |= measured if isinstance(measured, dict) else {}
        data: dict[str, object] = as_data(self)
        return data | {"seeds": seeds}


_ONLY_MEASURED = {field.name for field in dataclasses.fields(Measured)} - {
    field.name for field in dataclasses.fields(SeedSummary)
}


def _with_measured(seed: object) -> object:
    """What a fleet measured stands beside a seed's other figures in summary.json, and is a record of its own here."""
    if not isinstance(seed, dict) or not seed.keys() & _ONLY_MEASURED:
        return seed
    measured = {"art_ms": seed.get("art_ms")} | {name: seed[name] for name in seed.keys() & _ONLY_MEASURED}
    return {name: value for name, value in seed.items() if name not in _ONLY_MEASURED} | {"measured": measured}


def from_json(data: object, where: str) -> Summary:
    """A summary from summary.json's content.

    Raises:
      InputError: if it is of another version, or none.
    """
    if isinstance(data, dict) and isinstance(data.get("seeds"), list):
        data = {**data, "seeds": [_with_measured(seed) for seed in data["seeds"]]}
    return from_data(Summary, data, where)


def is_optimal(row: Row, tolerance: float) -> bool:
    """Whether an evaluation met the constraint within `tolerance` of the oracle; never where nobody knows that."""
    return row.feasible and row.regret_percent is not None and row.regret_percent <= 100.0 * tolerance


def seed_summary(
    seed: int, rows: History, oracle: Oracle | None, labels: Sequence[str], failed: Failure | None = None
) -> SeedSummary:
    """One seed's entry; of a seed that failed, what its last finite epoch showed."""
    steps, last = [row.real_steps for row in rows], rows[-1] if rows else None

    def steps_to(tolerance: float) -> int | None:
        if failed is not None:
            return None
        return evaluation.first_lasting(steps, [is_optimal(row, tolerance) for row in rows])

    optimal = steps_to(evaluation.TOLERANCE)
    before = [row for row in rows if optimal is not None and row.real_steps <= optimal]
    measured = last.measured if last else None
    art_ms = last.art_ms if last else None
    return SeedSummary(
        seed=seed,
        failed=failed,
        steps_to_optimal=optimal,
        steps_to_exact=steps_to(evaluation.EXACT),
        real_steps=last.real_steps if last else 0,
        model_steps=last.model_steps if last else 0,
        art_ms=measured.art_ms if measured else art_ms,
        oracle_art_ms=oracle.art_ms if oracle else None,
        accuracy=last.accuracy if last else None,
        feasible=last.feasible if last else None,
        decision=tuple(labels[choice] for choice in last.decision) if last else (),
        experience_s=sum(row.experience_s for row in rows),
        compute_s=sum(row.compute_s for row in rows),
        experience_to_optimal_s=None if optimal is None else sum(row.experience_s for row in before),
        compute_to_optimal_s=None if optimal is None else sum(row.compute_s for row in before),
        measured=measured,
    )


def summarize(
    settings: Settings, histories: Histories, oracle: Oracle | None, failures: Mapping[int, Failure]
) -> Summary:
    """A run's summary."""
    labels = settings.scenario.choice_labels()
    seeds = tuple(seed_summary(seed, histories[seed], oracle, labels, failures.get(seed)) for seed in settings.seeds)
    whole = [seed for seed in seeds if seed.failed is None]
    known = [seed.art_ms for seed in whole if seed.art_ms is not None]  # all, unless a fleet wasn't measured
    return Summary(
        experiment=settings.scenario.name,
        agent=settings.agent,
        users=settings.scenario.users,
        constraint=settings.constraint,
        env=settings.env,
        seeds=seeds,
        aggregate=Aggregate(
            steps_to_optimal=statistics.summarize([seed.steps_to_optimal for seed in whole]),
            steps_to_exact=statistics.summarize([seed.steps_to_exact for seed in whole]),
            failed=len(seeds) - len(whole),
            art_ms=plain_statistics.mean(known) if known and len(known) == len(whole) else None,
            oracle_art_ms=oracle.art_ms if oracle else None,
        ),
    )
