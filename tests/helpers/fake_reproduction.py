"""Run folders as finished units leave them, with numbers made up by the tests: nothing is learned."""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from hl_jax import simulator, statistics
from hl_jax.optimum import oracle
from hl_jax.scenario import Scenario
from launch.reproduce import plan as report_plan
from launch.reproduce.plan import Unit

BUDGET = 10_000  # real steps of every seed


@functools.cache
def optimum(scenario: Scenario) -> oracle.Optimum:
    return oracle.brute_force(simulator.make_params(scenario))


def unit(experiment: str, users: int, constraint: str, agent: str, *tables: str, seeds: int = 3) -> Unit:
    """A unit of work with the plan's own settings."""
    settings = report_plan.settings(experiment, users, constraint, agent, seeds)
    return Unit(experiment, users, constraint, agent, tables, settings)


def seed_entry(made: Unit, seed: int, steps: int | None, **changes: Any) -> dict[str, Any]:
    """One seed of summary.json: it decides as the oracle, a step takes 0.6 s, and a millisecond of computing."""
    scenario = made.settings.scenario
    best, labels = optimum(scenario), scenario.choice_labels()
    entry = {
        "seed": seed,
        "steps_to_optimal": steps,
        "steps_to_exact": steps,
        "real_steps": BUDGET,
        "model_steps": 0,
        "art_ms": best.art_ms,
        "oracle_art_ms": best.art_ms,
        "accuracy": best.accuracy,
        "feasible": True,
        "decision": [labels[choice] for choice in best.decision],
        "experience_s": 0.6 * BUDGET,
        "compute_s": 0.001 * BUDGET,
        "experience_to_optimal_s": None if steps is None else 0.6 * steps,
        "compute_to_optimal_s": None if steps is None else 0.001 * steps,
    }
    return {**entry, **changes}


def write_unit(out: pathlib.Path, made: Unit, seeds: list[dict[str, Any]]) -> None:
    """A finished unit's folder. The regret falls from 300 % to 0 (to 20 % where a seed never gets there)."""
    folder = out / "units" / made.folder
    folder.mkdir(parents=True)
    summary = {
        "experiment": made.experiment,
        "agent": made.agent,
        "users": made.users,
        "constraint": made.constraint,
        "env": "simulator",
        "seeds": seeds,
        "aggregate": {
            "steps_to_optimal": statistics.summarize([seed["steps_to_optimal"] for seed in seeds]),
            "steps_to_exact": statistics.summarize([seed["steps_to_exact"] for seed in seeds]),
            "art_ms": seeds[0]["art_ms"],
            "oracle_art_ms": seeds[0]["oracle_art_ms"],
        },
    }
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    lines = ["seed,epoch,real_steps,regret_percent"]
    for seed in seeds:
        end, least = seed["steps_to_optimal"] or BUDGET, 0.0 if seed["steps_to_optimal"] else 20.0
        for epoch in range(1, 11):
            regret = least + 300.0 * (1.0 - epoch / 10.0)
            lines.append(f"{seed['seed']},{epoch},{end * epoch // 10},{regret}")
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_units(out: pathlib.Path, plan: Sequence[Unit], steps: Callable[[Unit, int], int | None]) -> None:
    """All units of a plan, each seed getting there after `steps(unit, seed)`."""
    for made in plan:
        write_unit(out, made, [seed_entry(made, seed, steps(made, seed)) for seed in made.settings.seeds])
