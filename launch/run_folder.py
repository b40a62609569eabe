"""What a run leaves: config.json, summary.json, metrics.csv, TensorBoard events, decisions.md and curves.png.

Everything here is made from the runs' histories, which the checkpoints hold, so that a resumed run leaves the same.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import pathlib
import platform
import statistics as plain_statistics
from importlib import metadata
from typing import Any

import numpy as np
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter

from hl_jax import evaluation, health, statistics
from hl_jax.oracle import Optimum
from launch import plots
from launch.checkpoints import replacing, write_atomically
from launch.errors import InputError
from launch.flags import Settings

VERSIONS = ("jax", "flax", "optax", "chex", "numpy", "absl-py")
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


def check_new(path: pathlib.Path) -> None:
    """Refuses a folder that holds something already.

    Raises:
      InputError: if it does.
    """
    # What starts with a dot is a write that was cut off.
    if path.exists() and (not path.is_dir() or any(not entry.name.startswith(".") for entry in path.iterdir())):
        raise InputError(f"--run_dir: expected a new or empty folder (or --resume), found content at {path}")


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
    write_atomically(path / "config.json", (json.dumps(content, indent=2) + "\n").encode())


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
        _write_events(path, settings, histories)
        curves = plots.learning_curves(summary, histories, oracle.art_ms if oracle else None)
        write_atomically(path / "curves.png", curves)
    # Last: a folder with a summary is complete.
    write_atomically(path / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
    return summary


def _write_events(path: pathlib.Path, settings: Settings, histories: dict[int, list[dict[str, Any]]]) -> None:
    """TensorBoard events, one run a seed, against real steps; their clock is the experience time, from 0.

    Record by record: tensorboardX's own writer has a thread that a full disk ends, and then waits for it for ever.
    """
    for seed in settings.seeds:
        file = path / "events" / f"seed-{seed}" / "events.out.tfevents.0"
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary:
            writer = RecordWriter(str(temporary))
            try:
                writer.write(Event(file_version="brain.Event:2").SerializeToString())
                clock_s = 0.0
                for row in histories[seed]:
                    clock_s += row["elapsed_s"]
                    scalars = {f"run/{name}": float(row[name]) for name in METRICS[4:] if row[name] is not None}
                    scalars |= {f"learning/{name}": value for name, value in row["learning"].items()}
                    values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
                    event = Event(wall_time=clock_s, step=row["real_steps"], summary=Summary(value=values))
                    writer.write(event.SerializeToString())
            finally:
                writer.close()


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
