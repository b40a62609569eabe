"""A run's picture: how its seeds learned."""

from __future__ import annotations

import numpy as np

from launch.report.plotting import BAND, LINE, TRUTH, plain, plt, png
from launch.runs.history import Histories, History
from launch.runs.summary import Summary


def on_grid(rows: History, name: str, grid: np.ndarray) -> np.ndarray:
    """A seed's figure at each number of real steps of `grid`: the latest one by then."""
    steps = np.array([row.real_steps for row in rows])
    values = np.array([getattr(row, name) for row in rows], float)
    latest = np.clip(np.searchsorted(steps, grid, side="right") - 1, 0, len(steps) - 1)
    return np.where(grid < steps[0], np.nan, values[latest])


def draw(summary: Summary, histories: Histories, oracle_art_ms: float | None) -> bytes:
    """Cost while learning, and regret of the greedy decision, against real steps: every seed, median, middle half.

    Where nobody knows the optimum (`oracle_art_ms` None), the response time of the greedy decision stands for regret.
    """
    histories = {seed: rows for seed, rows in histories.items() if rows}
    end = min(rows[-1].real_steps for rows in histories.values())
    start = max(rows[0].real_steps for rows in histories.values())
    grid = np.linspace(start, end, 300)
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(8, 7), sharex=True, layout="constrained")
    known = oracle_art_ms is not None
    for axes, name in ((top, "train_cost_ms"), (bottom, "regret_percent" if known else "art_ms")):
        curves = np.stack([on_grid(rows, name, grid) for rows in histories.values()])
        for rows in histories.values():
            values = [getattr(row, name) for row in rows]
            axes.plot([row.real_steps for row in rows], values, color=BAND, lw=0.8, alpha=0.8)
        low, middle, high = np.percentile(curves, [25, 50, 75], axis=0)
        axes.fill_between(grid, low, high, color=BAND, alpha=0.5, lw=0, label="middle half of the seeds")
        axes.plot(
            grid, middle, color=LINE, lw=2, label="the seed" if len(curves) == 1 else f"median of {len(curves)} seeds"
        )
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    top.set_ylabel("mean cost of a real step (ms)")
    top.set_ylim(bottom=0)
    if oracle_art_ms is not None:
        of = "the twin's" if summary.env == "testbed" else "true"
        top.axhline(oracle_art_ms, color=TRUTH, lw=1.5, ls="--", label=f"{of} optimum {oracle_art_ms:.1f} ms")
        bottom.axhline(1.0, color=TRUTH, lw=1.5, ls=":", label="1 % (counts as optimal)")
        bottom.set_ylabel("regret of the greedy decision (%)")
        bottom.set_yscale("symlog", linthresh=1.0)
        bottom.set_ylim(bottom=-0.1)
    else:
        bottom.set_ylabel("the greedy decision's ART, as measured (ms)")
    bottom.set_xlabel("real steps")
    for axes in (top, bottom):
        axes.legend(frameon=False, loc="upper right", fontsize=9)
    where = f"experiment {summary.experiment}, {summary.users} users, constraint {summary.constraint}"
    name = f"{summary.agent}, {where}"
    figure.suptitle(plain(name), fontsize=11)
    return png(figure)
