"""The report's pictures, from its numbers alone: steps to optimal at a glance, and training curves as Figure 3's.

Each is drawn twice, for light and for dark pages.
"""

from __future__ import annotations

from typing import Any

from matplotlib import ticker
from matplotlib.lines import Line2D

from launch.report.plotting import DARK, LIGHT, Picture, Theme, counts, legend, png, styled_axes
from launch.report.steps import steps_by_users, steps_of
from launch.reproduce.plan import constraint_text

AGENTS = ("hybrid", "dqn", "q_learning")


def _steps(report: dict[str, Any], theme: Theme) -> bytes:
    """Each row of Table VI: ours as a dot with its interval, the paper's as a diamond."""
    rows = report["table6"]["rows"]
    figure, axes = styled_axes(theme, 5.4, 1.5 + 0.42 * len(rows))
    edge = 1.0
    for index, row in enumerate(rows):
        for offset, agent in enumerate(AGENTS):
            color, y = theme.agents[agent], index + 0.22 * (offset - 1)
            axes.plot(row["paper"][agent], y, "D", mfc="none", mec=color, ms=5, mew=1.1)
            edge = max(edge, row["paper"][agent])
            cell = row["agents"].get(agent)
            if cell is None:
                continue
            if cell["median"] is None:
                # Nothing but that it is more than the budget is known.
                axes.plot(cell["budget_steps"], y, ">", color=color, ms=6)
                edge = max(edge, cell["budget_steps"])
                continue
            low, high = cell["median_interval"]
            end = cell["budget_steps"] if high is None else high
            axes.plot([low, end], [y, y], color=color, lw=2, alpha=0.55, solid_capstyle="butt")
            axes.plot(cell["median"], y, "o", color=color, ms=6)
            edge = max(edge, end)
    axes.set_xscale("log")
    axes.set_xlim(right=edge * 1.6)
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(counts))
    axes.set_yticks(range(len(rows)), [f"{row['users']} users, {constraint_text(row['constraint'])}" for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    for index in range(1, len(rows)):
        same = rows[index]["users"] == rows[index - 1]["users"]
        axes.axhline(index - 0.5, color=theme.grid, lw=0.4 if same else 1.4)
    axes.set_xlabel("real steps until the decision is and stays optimal (log)", fontsize=9)
    names = {"hybrid": "hybrid (paper: ours)", "dqn": "dqn (AdaDeep)", "q_learning": "q_learning (AutoScale)"}
    handles = [Line2D([], [], color=theme.agents[agent], marker="o", lw=2, label=names[agent]) for agent in AGENTS]
    handles.append(Line2D([], [], mfc="none", mec=theme.ink, marker="D", ms=5, lw=0, label="printed"))
    legend(axes, theme, handles, loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2, columnspacing=1.5)
    return png(figure)


def _panel(panel: dict[str, Any], theme: Theme) -> bytes:
    """Training curves of one number of users."""
    figure, axes = styled_axes(theme, 4.8, 3.7)
    styles = {"hybrid": "-", "dqn": (0, (2.5, 1.5))}
    for curve in panel["curves"]:
        color = theme.constraints[curve["constraint"]]
        axes.plot(
            curve["steps"], curve["median"], color=color, ls=styles[curve["agent"]], lw=1.7, drawstyle="steps-post"
        )
        if curve["agent"] == "hybrid":
            axes.fill_between(curve["steps"], curve["low"], curve["high"], color=color, alpha=0.16, lw=0, step="post")
        reached = curve["steps_to_optimal"]
        if reached is not None:
            mark = {"mfc": color if curve["agent"] == "hybrid" else theme.page, "mec": color}
            axes.plot(reached, curve["optimum_ms"], "o", ms=6, zorder=5, **mark)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(counts))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(counts))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(ticker.FuncFormatter(lambda value, _: counts(value) if _marked(value) else ""))
    axes.set_ylim(top=axes.get_ylim()[1] * 2.2)  # room for the legend
    axes.set_xlabel("real steps (log)", fontsize=9)
    axes.set_ylabel("cost of the greedy decision (ms, log)", fontsize=9)
    title = f"{panel['users']} user{'s' if panel['users'] > 1 else ''}"
    axes.set_title(title, fontsize=10, color=theme.ink, loc="left", fontweight="bold")
    used = [limit for limit in theme.constraints if any(curve["constraint"] == limit for curve in panel["curves"])]
    handles = [Line2D([], [], color=theme.constraints[limit], lw=3, label=constraint_text(limit)) for limit in used]
    for agent in ("hybrid", "dqn"):
        if any(curve["agent"] == agent for curve in panel["curves"]):
            handles.append(Line2D([], [], color=theme.ink, ls=styles[agent], lw=1.6, label=agent))
    legend(axes, theme, handles, loc="upper right", ncols=2, columnspacing=1.0)
    return png(figure)


def _marked(value: float) -> bool:
    """Whether a logarithmic axis names this minor tick: 2 and 5 of each decade."""
    digit = float(f"{value:e}".split("e")[0])
    return round(digit) in (2, 5)


def draw(report: dict[str, Any]) -> dict[str, Picture]:
    """All pictures by name."""
    found = {}
    if report["table6"]["rows"]:
        found["steps"] = Picture(
            _steps(report, LIGHT),
            _steps(report, DARK),
            "Steps to optimal, ours and printed",
            "Dots are our medians over seeds with their 95 % intervals, diamonds the paper's Table VI. "
            "A triangle is an agent of which most seeds never got there: more than its budget.",
            640,
        )
    for panel in report["figure3"]["panels"]:
        found[f"figure3-{panel['users']}-users"] = Picture(
            _panel(panel, LIGHT),
            _panel(panel, DARK),
            f"Training curves, {panel['users']} users",
            "Noise-free cost of the greedy decision, penalty included: median of the seeds (for hybrid with the middle "
            "half); a dot is where the median seed has reached the optimum for good (filled hybrid, hollow dqn).",
            520,
        )
    if report["beyond"]["users"]:
        picture = steps_by_users(report["beyond"]["users"], steps_of(report["table6"]["rows"]))
        found["users"] = Picture(
            picture,
            picture,
            "Steps to optimal against the number of devices, all agents",
            "At 85 %. Dotted lines are the paper's. The band, first seed to last, ends where one never got there.",
            640,
        )
    return found
