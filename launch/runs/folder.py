"""What a run leaves: config.json, summary.json, metrics.csv, TensorBoard events, decisions.md and curves.png.

Everything here is made from the runs' histories, which the checkpoints hold, so that a resumed run leaves the same.
"""

from __future__ import annotations

import csv
import io
import pathlib
import platform
from importlib import metadata
from typing import Any

import numpy as np

from hl_jax import evaluation
from launch.host import files
from launch.host.errors import InputError
from launch.host.files import write_atomically
from launch.inputs.settings import Settings
from launch.runs.summary import METRICS, Failure, Oracle, summarize

VERSIONS = ("jax", "flax", "optax", "chex", "numpy", "absl-py")


def check_new(path: pathlib.Path) -> None:
    """Refuses a folder that holds something already.

    Raises:
      InputError: if it does.
    """
    # What starts with a dot is a write that was cut off.
    if path.exists() and (not path.is_dir() or any(not entry.name.startswith(".") for entry in path.iterdir())):
        raise InputError(f"--run_dir: expected a new or empty folder, or a run and --resume, found content at {path}")


def make_folder(path: pathlib.Path) -> None:
    """Makes the folder of a new run.

    Raises:
      InputError: if it can't be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--run_dir: expected a folder that can be made, found {error.strerror} at {path}") from error


def write_config(path: pathlib.Path, settings: Settings, env: str) -> None:
    """config.json: every setting, and the versions that ran it."""
    content = {
        **settings.as_json(),
        "env": env,
        "versions": {name: metadata.version(name) for name in VERSIONS} | {"python": platform.python_version()},
    }
    files.write_json(path / "config.json", content, indent=2)


def regret_percent(seen: evaluation.Evaluation, oracle: Oracle) -> float:
    """How far the worst of all decisions is over the optimum, penalty included: one bad state is a bad policy."""
    optimum = np.array([one.art_ms for one in oracle.optima])
    return 100.0 * (float(np.max(np.asarray(seen.cost_ms, np.float64) / optimum[:, None])) - 1.0)


def entry(seed: int, epoch: int, report: Any, oracle: Oracle, compute_s: float) -> dict[str, Any]:
    """One epoch of one seed as plain data (a row of metrics.csv and more)."""
    totals, seen = report.totals, report.evaluation
    return {
        "seed": seed,
        "epoch": epoch,
        "real_steps": int(report.real_steps),
        "model_steps": int(report.model_steps),
        "train_art_ms": float(totals.art_ms),
        "train_cost_ms": float(totals.cost_ms),
        "infeasible_share": float(totals.infeasible),
        "elapsed_s": int(totals.steps) * float(totals.elapsed_ms) / 1000.0,
        "art_ms": float(np.mean(np.asarray(seen.art_ms)[:, -1])),
        "accuracy": float(np.mean(np.asarray(seen.accuracy)[:, -1])),
        "feasible": bool(np.all(np.asarray(seen.feasible))),
        "regret_percent": regret_percent(seen, oracle),
        "decision": np.asarray(seen.decisions)[0, -1].tolist(),
        "learning": {name: float(value) for name, value in report.learning.items()},
        "compute_s": compute_s,
    }


def write_results(
    path: pathlib.Path,
    settings: Settings,
    env: str,
    histories: dict[int, list[dict[str, Any]]],
    oracle: Oracle | None,
    failures: dict[int, Failure] | None = None,
    pictures: bool = True,
) -> dict[str, Any]:
    """Writes everything but checkpoints (without `pictures`, no curves and no events); returns the summary."""
    summary = summarize(settings, env, histories, oracle, failures or {})
    rows = [row for seed in settings.seeds for row in histories[seed]]
    extra = sorted({name for row in rows for name in row["learning"]})
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow([*METRICS, *extra])
    for row in rows:
        writer.writerow([row[name] for name in METRICS] + [row["learning"].get(name, "") for name in extra])
    write_atomically(path / "metrics.csv", table.getvalue().encode())
    write_atomically(path / "decisions.md", decisions_table(summary, settings, oracle).encode())
    if pictures and any(histories.values()):
        # Here: Matplotlib and TensorBoard's packages take seconds to load, and a run's first step needs neither.
        from launch.runs import curves, events

        events.write(path, histories)
        write_atomically(path / "curves.png", curves.draw(summary, histories, oracle.art_ms if oracle else None))
    # Last: a folder with a summary is complete.
    files.write_json(path / "summary.json", summary, indent=2)
    return summary


def decisions_table(summary: dict[str, Any], settings: Settings, oracle: Oracle | None) -> str:
    """decisions.md: the decision of every seed as a row of Table V, beside the oracle's (a real fleet's twin's)."""
    scenario = settings.scenario
    labels, names = scenario.choice_labels(), [device.name for device in scenario.devices]
    head = ["", "Cnst", *names, "ART (ms)", "AA (%)", "steps to optimal"]
    rows, note = [], "On real nodes nobody knows the true optimum: ART is measured, steps to optimal are not known."
    if oracle is not None:
        optimum = oracle.optima[0]
        best = [labels[choice] for choice in optimum.decision]
        of = "oracle" if settings.real is None else "the twin's oracle"
        rows = [[of, summary["constraint"], *best, f"{optimum.art_ms:.2f}", f"{optimum.accuracy:.2f}", ""]]
        listed = f"{len(optimum.optimal)} joint actions are optimal; the oracle's row shows the first."
        note = listed if optimum.complete else "The oracle's row shows one optimal joint action; there may be others."
    for seed in summary["seeds"]:
        steps = "never" if seed["steps_to_optimal"] is None else str(seed["steps_to_optimal"])
        steps = steps if oracle is not None else "not known"
        steps = f"failed in epoch {seed['failed']['epoch']}" if seed["failed"] else steps
        decision = seed["decision"] or [""] * len(names)
        numbers = ["" if seed[name] is None else f"{seed[name]:.2f}" for name in ("art_ms", "accuracy")]
        rows.append([f"seed {seed['seed']}", summary["constraint"], *decision, *numbers, steps])
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    title = f"# Experiment {summary['experiment']}, {summary['users']} users, {summary['agent']}"
    return "\n".join([title, "", *lines, "", note, ""])
