"""A sweep report's pictures, from its numbers alone: settings with intervals, how many seeds got there, curves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps, ticker
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D

from launch.report.plotting import DARK, LIGHT, Picture, Theme, counts, legend, plain, png, styled_axes
from launch.sweep.report import Panel, Report, Setting

MOST_LINES = 8  # in a picture; an axis of more values has tables alone
MOST_SETTINGS = 60
LONGEST_LABEL = 40  # beside a picture, in characters


def numbered(rows: Sequence[Setting]) -> bool:
    """Whether settings' names are too long for a picture, so that it and the table number them."""
    return any(len(row.setting) > LONGEST_LABEL for row in rows)


def _colors(count: int, theme: Theme) -> list[str]:
    """One for each value, from dark to light; every one visible on the page."""
    places = np.linspace(0.25, 0.95, count) if theme is DARK else np.linspace(0.05, 0.8, count)
    return [to_hex(colormaps["viridis"](place)) for place in places]


def _settings(rows: Sequence[Setting], theme: Theme) -> bytes:
    """IQM of each setting as a dot with its interval; a triangle where it is beyond all that was seen."""
    figure, axes = styled_axes(theme, 6.4, 1.2 + 0.3 * len(rows))
    color = theme.agents["hybrid"]
    known = [value for row in rows for value in (row.iqm, *row.iqm_interval) if value is not None]
    edge = max(known, default=1.0) * 1.25
    for index, row in enumerate(rows):
        low, high = row.iqm_interval
        if low is not None:
            axes.plot([low, edge if high is None else high], [index, index], color=color, lw=2, alpha=0.55)
        if row.iqm is None:
            axes.plot(edge, index, ">", color=theme.agents["dqn"], ms=7)
        else:
            axes.plot(row.iqm, index, "o", color=color, ms=6)
    names = (
        [f"no. {place}" for place in range(1, len(rows) + 1)]
        if numbered(rows)
        else [plain(row.setting) for row in rows]
    )
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(left=0.0)
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(counts))
    axes.grid(visible=False, axis="y")
    unit = "real steps to optimal, of the task's median" if rows[0].relative else "real steps to optimal"
    axes.set_xlabel(f"{unit} (IQM over seeds)", fontsize=9)
    return png(figure)


def _lines(panel: Panel, theme: Theme, kind: str) -> bytes:
    figure, axes = styled_axes(theme, 4.9, 3.7)
    colors = _colors(len(panel.lines), theme)
    handles = []
    for line, color in zip(panel.lines, colors, strict=True):
        if kind == "reached":
            steps = np.array([0.0, *line.reached, max(line.budget, *line.reached, 0.0)])
            share = np.array([*range(len(line.reached) + 1), len(line.reached)]) * 100.0 / line.runs
            axes.plot(steps, share, color=color, lw=1.8, drawstyle="steps-post")
        else:
            curve = line.curve
            axes.plot(curve.steps, curve.median, color=color, lw=1.8)
            axes.fill_between(curve.steps, curve.low, curve.high, color=color, alpha=0.16, lw=0)
        handles.append(Line2D([], [], color=color, lw=3, label=plain(line.name)))
    axes.set_xlabel("real steps", fontsize=9)
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(counts))
    axes.set_xlim(left=0.0)
    if kind == "reached":
        axes.set_ylabel("seeds that are optimal for good (%)", fontsize=9)
        axes.set_ylim(-2.0, 104.0)
    else:
        axes.set_ylabel("regret of the greedy decision (%)", fontsize=9)
        axes.set_yscale("symlog", linthresh=1.0)
        axes.set_ylim(bottom=-0.1)
        axes.yaxis.set_major_formatter(ticker.FuncFormatter(counts))
    legend(axes, theme, handles, loc="lower right" if kind == "reached" else "upper right")
    return png(figure)


def draw(report: Report) -> dict[str, Picture]:
    """All pictures by name."""
    found = {}
    rows = report.settings[:MOST_SETTINGS]
    if rows:
        found["settings"] = Picture(
            _settings(rows, LIGHT),
            _settings(rows, DARK),
            "Steps to optimal of each setting",
            "Interquartile mean over seeds with its 95 % stratified bootstrap interval. A triangle: so many seeds "
            "never got there that the mean is never; an interval to the edge reaches into never.",
            760,
        )
    for panel in report.panels:
        if not 1 < len(panel.lines) <= MOST_LINES:
            continue
        for kind, caption in (
            ("reached", "Steps to optimal: how many of the runs with a value are optimal, and stay so, by then."),
            ("curves", "Median and middle half of the runs with a value, over all else that was varied."),
        ):
            found[f"{kind}-{panel.axis}"] = Picture(
                _lines(panel, LIGHT, kind), _lines(panel, DARK, kind), f"{caption} Axis: {panel.axis}", caption, 560
            )
    return found
