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
from launch.host.files import write_json
from launch.inputs import public
from launch.reproduce import plan, report, units
from launch.reproduce.report import Report
from launch.reproduce.units import TOLD, UNTOLD, Case, Unit
from launch.runs.summary import Aggregate, SeedSummary, Summary

BUDGET = 10_000  # real steps of every seed


@functools.cache
def optimum(scenario: Scenario) -> oracle.Optimum:
    return oracle.brute_force(simulator.make_params(scenario))


def unit(
    experiment: str, users: int, constraint: str, agent: str, *tables: str, seeds: int = 3, knowledge: str = TOLD
) -> Unit:
    """A unit of work with the plan's own settings."""
    case = Case(experiment, users, constraint, agent, knowledge)
    return Unit(case, tables, units.settings(case, seeds))


def seed_entry(made: Unit, seed: int, steps: int | None, **changes: Any) -> SeedSummary:
    """One seed of summary.json: it decides as the oracle, a step takes 0.6 s, and a millisecond of computing."""
    scenario = made.settings.scenario
    best, labels = optimum(scenario), scenario.choice_labels()
    entry = {
        "seed": seed,
        "failed": None,
        "steps_to_optimal": steps,
        "steps_to_exact": steps,
        "real_steps": BUDGET,
        "model_steps": 0,
        "art_ms": best.art_ms,
        "oracle_art_ms": best.art_ms,
        "accuracy": best.accuracy,
        "feasible": True,
        "decision": tuple(labels[choice] for choice in best.decision),
        "experience_s": 0.6 * BUDGET,
        "compute_s": 0.001 * BUDGET,
        "experience_to_optimal_s": None if steps is None else 0.6 * steps,
        "compute_to_optimal_s": None if steps is None else 0.001 * steps,
    }
    return SeedSummary(**{**entry, **changes})


def write_unit(out: pathlib.Path, made: Unit, seeds: Sequence[SeedSummary]) -> None:
    """A finished unit's folder. The regret falls from 300 % to 0 (to 20 % where a seed never gets there)."""
    folder, whole = made.run_folder(out), [seed for seed in seeds if seed.failed is None]
    folder.path.mkdir(parents=True)
    experiment, users, constraint, agent, *_ = made.case
    summary = Summary(
        experiment=experiment,
        agent=agent,
        users=users,
        constraint=constraint,
        env="simulator",
        seeds=tuple(seeds),
        aggregate=Aggregate(
            steps_to_optimal=statistics.summarize([seed.steps_to_optimal for seed in whole]),
            steps_to_exact=statistics.summarize([seed.steps_to_exact for seed in whole]),
            failed=len(seeds) - len(whole),
            art_ms=whole[0].art_ms if whole else None,
            oracle_art_ms=seeds[0].oracle_art_ms,
        ),
    )
    lines = ["seed,epoch,real_steps,regret_percent"]
    for seed in seeds:
        end, least = seed.steps_to_optimal or BUDGET, 0.0 if seed.steps_to_optimal else 20.0
        for epoch in range(1, 11):
            regret = least + 300.0 * (1.0 - epoch / 10.0)
            lines.append(f"{seed.seed},{epoch},{end * epoch // 10},{regret}")
    folder.metrics.write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_json(folder.summary_file, summary.as_json())


def write_units(out: pathlib.Path, made: Sequence[Unit], steps: Callable[[Unit, int], int | None]) -> None:
    """All units of a plan, each seed getting there after `steps(unit, seed)`."""
    for one in made:
        write_unit(out, one, [seed_entry(one, seed, steps(one, seed)) for seed in one.settings.seeds])


MIN = unit("A", 5, "Min", "hybrid", "5")
MAX = unit("A", 5, "Max", "hybrid", "5", "6", "7")
THREE = {agent: unit("A", 3, "85", agent, "6", "7", "fig3") for agent in ("hybrid", "dqn")}
THREE["q_learning"] = unit("A", 3, "85", "q_learning", "6", "7")
PEER = unit("A", 3, "85", public.NAME, "peer")
BESIDE = unit("A", 3, "85", "dqn", "peer", knowledge=UNTOLD)


def build(made: Sequence[Unit], out: pathlib.Path, **changes: Any) -> Report:
    """The report of some units, all sections asked for."""
    options = {"command": "python -m launch.reproduce", "quick": False, "tables": plan.tables(), **changes}
    return report.build(made, out, **options)


def numbers(made: Sequence[Unit], out: pathlib.Path) -> dict[str, Any]:
    """What report.json would hold of them."""
    return json.loads(json.dumps(build(made, out).as_json()))
