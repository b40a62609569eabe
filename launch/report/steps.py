"""Steps to optimal against the number of devices: `factored`, the paper's agents as measured here, and as printed."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from launch.host.files import ROOT
from launch.report.plotting import BAND, LINE, TRUTH, plt, png

TABLE_VI = ROOT / "data" / "paper" / "table6.toml"
CONSTRAINT = 85
# Agent, its column in Table VI, what the paper calls it, colour.
PRINTED = (
    ("q_learning", "autoscale_steps", "AutoScale", "#8a8a8a"),
    ("dqn", "adadeep_steps", "AdaDeep", "#c98b2b"),
    ("hybrid", "ours_steps", "hybrid", TRUTH),
)
FLEETS = (1, 2, 5, 10, 20, 50, 100)


def steps_of(rows: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Median steps to optimal of the paper's agents at `CONSTRAINT`, by users, from a report's rows of Table VI."""
    found: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        if str(row["constraint"]) == str(CONSTRAINT):
            for agent, cell in row["agents"].items():
                if cell["median"] is not None:
                    found.setdefault(agent, []).append((row["users"], cell["median"]))
    return found


def steps_by_users(
    factored: Sequence[tuple[int, Sequence[int | None]]], others: Mapping[str, Sequence[tuple[int, float]]]
) -> bytes:
    """Real steps to optimal against the number of users, all agents on one logarithmic scale, as a PNG.

    Args:
      factored: numbers of devices, each with every seed's steps (None: never).
      others: numbers of devices, each with the median steps of an agent's seeds, by agent.
    """
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    printed = [
        row for row in tomllib.loads(TABLE_VI.read_text(encoding="utf-8"))["rows"] if row["constraint"] == CONSTRAINT
    ]
    for agent, column, name, colour in PRINTED:
        axes.plot(
            *zip(*[(row["users"], row[column]) for row in printed], strict=True),
            color=colour,
            ls=":",
            marker="o",
            mfc="white",
            lw=1.2,
            label=f"{name}, as printed",
        )
        if others.get(agent):
            ours = sorted(others[agent])
            axes.plot(*zip(*ours, strict=True), color=colour, marker="o", lw=1.8, label=f"{agent}, measured here")
    users = np.array([count for count, _ in factored])
    steps = [[np.inf if step is None else step for step in seeds] for _, seeds in factored]
    axes.fill_between(users, [min(one) for one in steps], [max(one) for one in steps], color=BAND, alpha=0.6, lw=0)
    medians = [float(np.median(seeds)) for seeds in steps]
    axes.plot(
        users, medians, color=LINE, marker="o", lw=2, label=f"factored, median and range of {len(steps[0])} seeds"
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(FLEETS, [str(count) for count in FLEETS])
    axes.minorticks_off()
    axes.set_xlabel("devices")
    axes.set_ylabel("real steps to optimal")
    axes.set_title(f"Steps until decisions stay within 1 % of the optimum (accuracy ≥ {CONSTRAINT} %)", fontsize=11)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="upper right")
    return png(figure)
