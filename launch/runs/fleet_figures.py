"""Pictures of a real fleet: who computes what, and how runs that started differently learned."""

from __future__ import annotations

import itertools
import json
import pathlib

import numpy as np
from matplotlib import ticker

from hl_jax.choices import node_choices
from launch.host.errors import InputError
from launch.host.text import counted
from launch.inputs.scenario_files import papers
from launch.report.plotting import BAND, LINE, TRUTH, plain, plt, png
from launch.runs.folder import RunFolder
from launch.runs.summary import Summary

COLOURS = (LINE, TRUTH, "#3f8f4f", "#8a5fa8", "#c08a2e")
LINEAR_TO = 1.0  # %, of the regret axis; a logarithm from there on


def _measured(folder: RunFolder, decision: list[int], seed: int) -> np.ndarray:
    """Mean response time (ms) of each device over the steps that measured `decision`."""
    rows = []
    for line in folder.steps.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # cut off
        if (entry.get("seed"), entry.get("phase"), entry["action"]) == (seed, "measure", decision):
            rows.append([outcome["response_ms"] for outcome in entry["outcomes"]])
    if not rows:
        raise InputError(f"--topology: expected steps that measure the decision, found none in {folder.steps}")
    return np.mean(rows, axis=0)


def _summary(folder: RunFolder) -> Summary:
    summary = folder.summary()
    if summary is None or summary.env != "testbed":
        raise InputError(f"expected a finished run on real nodes, found none in {folder}")
    return summary


def topology(path: pathlib.Path) -> bytes:
    """Devices, edge and cloud, what runs where, and how long it took."""
    folder = RunFolder(path)
    summary, scenario = _summary(folder), papers(folder.settings().scenario)
    seed, models = summary.seeds[0], len(scenario.pool.names)
    labels = scenario.choice_labels()
    decision = [labels.index(choice) for choice in seed.decision]
    times = _measured(folder, decision, seed.seed)
    figure, axes = plt.subplots(figsize=(9, 5.6), layout="constrained")
    users = len(decision)
    places = {"edge": (0.5 * (users - 1), 1.0), "cloud": (0.5 * (users - 1), 2.0)}
    for index, (choice, ms) in enumerate(zip(decision, times, strict=True)):
        device = scenario.devices[index]
        x = float(index)
        lines = "--" if device.link == "weak" else "-"
        used = choice >= models
        axes.plot(
            [x, places["edge"][0]],
            [0.0, 1.0],
            color=LINE if used else "#bbbbbb",
            ls=lines,
            lw=2.4 if used else 1.0,
            zorder=1,
        )
        text = f"{device.name}\n{seed.decision[index]}\n{ms:.0f} ms"
        axes.text(x, -0.02, plain(text), ha="center", va="center", fontsize=11, zorder=3, bbox=_box(used))
    at_edge, up = (decision.count(node) for node in node_choices(models))
    axes.plot(
        [places["edge"][0]] * 2,
        [1.0, 2.0],
        color=TRUTH if up else "#bbbbbb",
        ls="--" if scenario.edge.link == "weak" else "-",
        lw=2.4 if up else 1.0,
        zorder=1,
    )
    for name, node, tasks in (("edge", scenario.edge, at_edge), ("cloud", scenario.cloud, up)):
        text = (
            f"{name}, {node.cores} cores\n{tasks} x {scenario.pool.names[0]}"
            if tasks
            else f"{name}, {node.cores} cores\nno task"
        )
        axes.text(*places[name], plain(text), ha="center", va="center", fontsize=11, zorder=3, bbox=_box(tasks > 0))
    axes.set_xlim(-0.7, users - 0.3)
    axes.set_ylim(-0.45, 2.35)
    axes.axis("off")
    where = f"experiment {summary.experiment}, constraint {summary.constraint}, {summary.agent}"
    title = f"{where}: ART {seed.art_ms:.0f} ms, accuracy {seed.accuracy:.1f} % (Table III's)"
    axes.set_title(plain(title) + "\nresponse times as measured; dashed: weak links; thick: inputs sent", fontsize=10)
    return png(figure)


def _box(used: bool) -> dict[str, str]:
    return {"boxstyle": "round,pad=0.45", "facecolor": BAND if used else "#f2f2f2", "edgecolor": "#666666"}


def regret(runs: dict[str, pathlib.Path]) -> bytes:
    """Regret of the greedy decision against real steps: every seed thin, their median thick."""
    figure, axes = plt.subplots(figsize=(8, 4.8), layout="constrained")
    for colour, (name, path) in zip(itertools.cycle(COLOURS), runs.items(), strict=False):
        folder = RunFolder(path)
        _summary(folder)
        curves = list(folder.regrets().values())
        for steps, values in curves:
            axes.plot(steps, values, color=colour, lw=0.7, alpha=0.35, drawstyle="steps-post")
        grid = np.unique(np.concatenate([steps for steps, _ in curves]))
        latest = [values[np.clip(np.searchsorted(steps, grid, "right") - 1, 0, None)] for steps, values in curves]
        label = plain(f"{name} ({counted(len(curves), 'seed')})")
        axes.plot(grid, np.median(latest, axis=0), color=colour, lw=2.2, drawstyle="steps-post", label=label)
    axes.axhline(5.0, color="#888888", lw=1.0, ls=":", label="5 %")
    axes.set_yscale("symlog", linthresh=LINEAR_TO)
    top = max(axes.get_ylim()[1], 5.0)
    ticks = [0.0, 0.5, *(digit * 10.0**power for power in range(5) for digit in (1, 2, 5))]
    axes.set_yticks([tick for tick in ticks if tick <= top], minor=False)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(ticker.NullLocator())
    axes.set_ylim(-0.05, top)
    axes.set_xlabel("real steps on the fleet")
    axes.set_ylabel("regret of the greedy decision (%, twin's times)")
    axes.legend(frameon=False, fontsize=9)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return png(figure)
