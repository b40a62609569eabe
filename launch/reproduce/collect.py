"""The report's numbers, from the run folders and the paper's tables: one plain document that everything shown is from.

Ours come from each unit's summary.json and metrics.csv, the paper's from data/paper, `factored`'s from data/results.
Keys that hold a wall-clock time or what follows from one are named in `CLOCK`; all else is the same whenever made.
"""

from __future__ import annotations

import dataclasses
import pathlib
import statistics as plain_statistics
import tomllib
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from hl_jax import evaluation, simulator, statistics
from hl_jax.fitting import calibration
from hl_jax.objective import CONSTRAINTS
from hl_jax.optimum import oracle
from launch.host.errors import InputError
from launch.host.files import ROOT, read_json
from launch.reproduce import plan as report_plan
from launch.reproduce import sb3 as peer
from launch.reproduce.plan import COMPARED, EXPERIMENTS, Unit
from launch.runs.folder import RunFolder
from launch.runs.summary import SeedSummary, Summary

FACTORED = ROOT / "data" / "results" / "factored"  # recorded
CLOCK = ("wall_s", "peak_memory_gib", "compute_min", "total_min", "steps_per_s", "speed_ratio")
PAPER_NAMES = {"hybrid": "ours", "dqn": "adadeep", "q_learning": "autoscale"}
ART_TOLERANCE = 0.03  # relative difference from a printed ART that still counts as reproduced
CURVE_POINTS = 80

Results = dict[tuple[str, int, str, str], Summary]


def paper_table(number: int) -> dict[str, Any]:
    """A table of the paper as data/paper has it.

    Raises:
      InputError: if the file can't be read.
    """
    path = ROOT / "data" / "paper" / f"table{number}.toml"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"table: expected a readable TOML file, found {error} at {path}") from error


def _ratio(value: float | None, other: float | None) -> float | None:
    return None if value is None or not other else value / other


def read_results(plan: Sequence[Unit], folder: pathlib.Path) -> Results:
    """Summaries of the finished units, of their whole seeds: one that failed says nothing of how many steps it takes.

    A unit whose seeds all failed is none; `summary.failures` tells of them.
    """
    found = {}
    for unit in plan:
        summary = RunFolder(folder / unit.folder).summary()
        if summary is None:
            continue
        if summary.whole:
            found[unit.experiment, unit.users, unit.constraint, unit.agent] = summary
    return found


# As in the calibration: the printed table demands ties that no simulator has to the last digit.
TIES = calibration.TIE_TOLERANCE + calibration.MARGIN


def agrees(seed: SeedSummary, best: Sequence[str], scenario: Any, ties: float = TIES) -> bool:
    """Whether a seed decides as the oracle does, equal devices aside and what is slower by no more than `ties`."""
    art_ms, least_ms = seed.times
    tied = art_ms <= least_ms * (1.0 + ties)
    return bool(seed.feasible) and (tied or oracle.decisions_agree(seed.decision, best, scenario))


def _shown_seed(seeds: Sequence[SeedSummary]) -> SeedSummary:
    """The seed that stands for all in a table: the first of the largest group that decides equally well."""
    kinds = [(seed.feasible, round(seed.times[0], 2)) for seed in seeds]
    return seeds[max(range(len(seeds)), key=lambda index: (kinds.count(kinds[index]), -index))]


def table5(results: Results, asked: set[tuple[str, str]]) -> dict[str, Any]:
    """Decisions, ART and accuracy of experiments A to D beside the oracle's and the printed ones."""
    rows = []
    for printed in paper_table(5)["rows"]:
        experiment, limit = printed["experiment"], str(printed["constraint"])
        if (experiment, limit) not in asked:
            continue
        scenario = report_plan.scenario_of(experiment, 5, limit)
        params, labels = simulator.make_params(scenario), scenario.choice_labels()
        optimum = oracle.brute_force(params)
        best = [labels[choice] for choice in optimum.decision]
        printed_action = jnp.array([labels.index(choice) for choice in printed["decision"]], jnp.int32)
        printed_ms = float(jnp.mean(simulator.response_ms(params, params.start, printed_action)))
        row: dict[str, Any] = {
            "experiment": experiment,
            "constraint": limit,
            "paper": {name: printed[name] for name in ("decision", "art_ms", "accuracy")},
            "contradiction": printed.get("contradiction"),
            "oracle": {"decision": best, "art_ms": optimum.art_ms, "accuracy": optimum.accuracy},
            "optimal_decisions": len(optimum.optimal),
            "printed_excess_percent": 100.0 * (printed_ms / optimum.art_ms - 1.0),
            "ours": None,
        }
        summary = results.get((experiment, 5, limit, "hybrid"))
        if summary:
            seeds = summary.whole
            shown = _shown_seed(seeds)
            row["ours"] = {
                "seeds": len(seeds),
                "agreeing": [seed.seed for seed in seeds if agrees(seed, best, scenario)],
                "differing": [seed.seed for seed in seeds if not agrees(seed, best, scenario)],
                "agrees": agrees(shown, best, scenario),
                "exact": agrees(shown, best, scenario, evaluation.EXACT),
                "as_printed": oracle.decisions_agree(shown.decision, printed["decision"], scenario),
                **{name: getattr(shown, name) for name in ("seed", "decision", "art_ms", "accuracy", "feasible")},
                "art_ratio": shown.art_ms / printed["art_ms"],
            }
        rows.append(row)
    done = [row for row in rows if row["ours"]]
    near = [row for row in done if abs(row["ours"]["art_ratio"] - 1.0) <= ART_TOLERANCE]
    return {
        "rows": rows,
        "of": len(EXPERIMENTS) * len(CONSTRAINTS),
        "run": len(done),
        "agreeing": sum(row["ours"]["agrees"] for row in done),
        "exact": sum(row["ours"]["exact"] for row in done),
        "agreeing_every_seed": sum(not row["ours"]["differing"] for row in done),
        "art_near": len(near),
    }


def _steps(summary: Summary, paper_steps: int) -> dict[str, Any]:
    """One agent's cell of Table VI."""
    ours = summary.aggregate.steps_to_optimal
    return {
        **dataclasses.asdict(ours),
        "exact_median": summary.aggregate.steps_to_exact.median,
        "exact_succeeded": summary.aggregate.steps_to_exact.succeeded,
        "budget_steps": min(seed.real_steps for seed in summary.whole),
        "never": [seed.seed for seed in summary.whole if seed.steps_to_optimal is None],
        "paper": paper_steps,
        "ratio": _ratio(ours.median, paper_steps),
    }


def _speed_up(cells: dict[str, dict[str, Any]], agent: str) -> dict[str, Any] | None:
    """Baseline over hybrid in one row of Table VI, ours and the paper's."""
    if not {agent, "hybrid"} <= cells.keys():
        return None
    base, hybrid = cells[agent], cells["hybrid"]
    return {
        "ours": _ratio(base["median"], hybrid["median"]),
        # Where most of the baseline's seeds never got there: at least its budget.
        "at_least": _ratio(base["budget_steps"], hybrid["median"]) if base["median"] is None else None,
        "paper": base["paper"] / hybrid["paper"],
    }


def table6(results: Results, asked: set[tuple[int, str]]) -> dict[str, Any]:
    """Steps to optimal of the three agents beside the printed ones, and baseline over hybrid."""
    printed = paper_table(6)
    rows = []
    for entry in printed["rows"]:
        users, limit = entry["users"], str(entry["constraint"])
        if (users, limit) not in asked:
            continue
        found = {agent: results.get(("A", users, limit, agent)) for agent in PAPER_NAMES}
        cells = {
            agent: _steps(summary, entry[f"{PAPER_NAMES[agent]}_steps"]) for agent, summary in found.items() if summary
        }
        rows.append(
            {
                "users": users,
                "constraint": limit,
                "paper": {agent: entry[f"{name}_steps"] for agent, name in PAPER_NAMES.items()},
                "agents": cells,
                "over_hybrid": {agent: _speed_up(cells, agent) for agent in ("dqn", "q_learning")},
            }
        )
    hybrid = [row["agents"]["hybrid"] for row in rows if "hybrid" in row["agents"]]
    return {
        "rows": rows,
        "of": len(printed["rows"]),
        "run": len(hybrid),
        "within_paper": sum(cell["ratio"] is not None and cell["ratio"] <= 1.0 for cell in hybrid),
        "headline": {
            agent: _headline(rows, agent, printed["claims"][f"over_{PAPER_NAMES[agent]}"])
            for agent in ("dqn", "q_learning")
        },
    }


def _headline(rows: list[dict[str, Any]], agent: str, claim: float) -> dict[str, Any]:
    """The largest baseline/hybrid at five users, as the paper's "up to", and the smallest beside it."""
    five = [row["over_hybrid"][agent] for row in rows if row["users"] == 5 and row["over_hybrid"][agent]]
    known = [entry["ours"] for entry in five if entry["ours"] is not None]
    bounds = [entry["at_least"] for entry in five if entry["at_least"] is not None]
    return {
        "paper": claim,
        "most": max(known, default=None),
        "least": min(known, default=None),
        "most_at_least": max(bounds, default=None),
        "cells": len(five),
    }


def table7(results: Results, asked: set[tuple[int, str]]) -> dict[str, Any]:
    """Times up to the optimum, over all seeds of Table VI's constraints: of computing, and of the steps themselves."""
    printed = paper_table(7)
    rows = []
    for entry in printed["rows"]:
        users = entry["users"]
        cells = {}
        for agent, name in PAPER_NAMES.items():
            summaries = [
                results[key]
                for limit in COMPARED
                if (key := ("A", users, limit, agent)) in results
                if (users, limit) in asked
            ]
            if summaries:
                paper = {kind: entry[kind].get(name) for kind in ("computation", "experience", "total")}
                cells[agent] = _times([seed for summary in summaries for seed in summary.whole], paper)
        if any(row_users == users for row_users, _ in asked):
            rows.append({"users": users, "agents": cells})
    return {"rows": rows, "claims": printed["claims"]}


def _times(seeds: Sequence[SeedSummary], paper: dict[str, float | None]) -> dict[str, Any]:
    compute = [seed.compute_to_optimal_s for seed in seeds]
    experience = [seed.experience_to_optimal_s for seed in seeds]
    total = [None if one is None or two is None else one + two for one, two in zip(compute, experience, strict=True)]

    def minutes(values: list[float | None], printed: float | None) -> dict[str, Any]:
        found = statistics.summarize([None if value is None else value / 60.0 for value in values])
        return {
            "median": found.median,
            "interval": found.median_interval,
            "paper": printed,
            "ratio": _ratio(found.median, printed),
        }

    return {
        "seeds": len(seeds),
        "succeeded": sum(value is not None for value in compute),
        "experience_min": minutes(experience, paper["experience"]),
        "compute_min": minutes(compute, paper["computation"]),
        "total_min": minutes(total, paper["total"]),
        "steps_per_s": plain_statistics.median(seed.real_steps / max(seed.compute_s, 1e-9) for seed in seeds),
    }


def _curve(folder: pathlib.Path, optimum_ms: float) -> dict[str, list[float]]:
    """Cost of the greedy decision (ms, penalty included) against real steps: median and middle half of the seeds."""
    curves = [(steps, optimum_ms * (1.0 + regret / 100.0)) for steps, regret in RunFolder(folder).regrets().values()]
    start = max(steps[0] for steps, _ in curves)
    end = min(steps[-1] for steps, _ in curves)
    grid = np.unique(np.round(np.geomspace(start, end, CURVE_POINTS)))
    columns = [costs[np.searchsorted(steps, grid, side="right") - 1] for steps, costs in curves]
    low, middle, high = np.percentile(np.stack(columns), [25, 50, 75], axis=0)
    return {
        "steps": grid.tolist(),
        "median": np.round(middle, 3).tolist(),
        "low": np.round(low, 3).tolist(),
        "high": np.round(high, 3).tolist(),
    }


def figure3(results: Results, plan: Sequence[Unit], folder: pathlib.Path) -> dict[str, Any]:
    """Training curves by number of users."""
    panels: dict[int, list[dict[str, Any]]] = {}
    for unit in plan:
        summary = results.get((unit.experiment, unit.users, unit.constraint, unit.agent))
        if "fig3" in unit.tables and summary:
            optimum = summary.whole[0].times[1]
            curve = {"constraint": unit.constraint, "agent": unit.agent, "optimum_ms": optimum}
            curve |= {"steps_to_optimal": summary.aggregate.steps_to_optimal.median}
            panels.setdefault(unit.users, []).append(curve | _curve(folder / unit.folder, optimum))
    for curves in panels.values():
        curves.sort(key=lambda curve: (CONSTRAINTS.index(curve["constraint"]), curve["agent"]))
    return {"panels": [{"users": users, "curves": panels[users]} for users in sorted(panels)]}


def peers(results: Results, plan: Sequence[Unit]) -> dict[str, Any]:
    """Stable-Baselines3's DQN beside our `dqn` with the same constants: steps to optimal and speed."""
    rows = []
    for unit in plan:
        theirs = results.get((unit.experiment, unit.users, unit.constraint, unit.agent))
        if unit.agent != peer.AGENT or not theirs:
            continue
        judged = "speed only" not in unit.budget.why
        row: dict[str, Any] = {"users": unit.users, "constraint": unit.constraint, "judged": judged}
        for name, summary in (("theirs", theirs), ("ours", results.get(("A", unit.users, unit.constraint, "dqn")))):
            row[name] = summary and {
                **dataclasses.asdict(summary.aggregate.steps_to_optimal),
                "budget_steps": min(seed.real_steps for seed in summary.whole),
                "steps_per_s": plain_statistics.median(
                    seed.real_steps / max(seed.compute_s, 1e-9) for seed in summary.whole
                ),
            }
        row["speed_ratio"] = row["ours"] and row["ours"]["steps_per_s"] / row["theirs"]["steps_per_s"]
        rows.append(row)
    return {"installed": peer.installed(), "rows": rows}


def beyond() -> dict[str, Any]:
    """What `launch.beyond` recorded of `factored`: its rows, and steps by users for the picture."""
    recorded = read_json(FACTORED / "report.json") or {"rows": [], "users": []}
    return {**recorded, "commits": sorted({row["commit"] for row in recorded["rows"]})}
