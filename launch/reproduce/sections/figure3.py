"""Figure 3: training curves by number of users, drawn as what the greedy decision costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import numpy as np
from matplotlib import ticker
from matplotlib.lines import Line2D

from hl_jax.objective import CONSTRAINTS
from launch.report.blocks import Block, Figures, Heading, Paragraph
from launch.report.plotting import DARK, LIGHT, Picture, Theme, counts, legend, png, styled_axes
from launch.reproduce.sections.section import Section, Work
from launch.reproduce.units import Case, constraint_text

AGENTS = ("hybrid", "dqn")
STYLES = {"hybrid": "-", "dqn": (0, (2.5, 1.5))}
POINTS = 80  # of a curve


@dataclasses.dataclass(frozen=True)
class Curve:
    """Noise-free cost of the greedy decision (ms, penalty included) at some real steps: median and middle half."""

    constraint: str
    agent: str
    optimum_ms: float
    steps_to_optimal: float | None  # median of the seeds; None: never
    steps: tuple[float, ...]
    median: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Panel:
    """The curves of one number of users."""

    users: int
    curves: tuple[Curve, ...]

    @property
    def name(self) -> str:
        """Of its picture."""
        return f"figure3-{self.users}-users"


def _curve(case: Case, reached: float | None, regrets: Mapping[int, Sequence[np.ndarray]], optimum_ms: float) -> Curve:
    curves = [(steps, optimum_ms * (1.0 + regret / 100.0)) for steps, regret in regrets.values()]
    start = max(steps[0] for steps, _ in curves)
    end = min(steps[-1] for steps, _ in curves)
    grid = np.unique(np.round(np.geomspace(start, end, POINTS)))
    columns = [costs[np.searchsorted(steps, grid, side="right") - 1] for steps, costs in curves]
    low, middle, high = np.round(np.percentile(np.stack(columns), [25, 50, 75], axis=0), 3).tolist()
    return Curve(
        constraint=case.constraint,
        agent=case.agent,
        optimum_ms=optimum_ms,
        steps_to_optimal=reached,
        steps=tuple(grid.tolist()),
        median=tuple(middle),
        low=tuple(low),
        high=tuple(high),
    )


@dataclasses.dataclass(frozen=True)
class Figure3(Section):
    """Training curves by number of users."""

    name: ClassVar[str] = "fig3"
    about: ClassVar[str] = "Figure 3"
    key: ClassVar[str] = "figure3"

    panels: tuple[Panel, ...]

    @classmethod
    def cases(cls, quick: bool) -> list[Case]:
        """Hybrid and its Direct-RL part, under every constraint; three users under one."""
        if quick:
            return [Case("A", 3, "85", agent) for agent in AGENTS]
        return [
            Case("A", users, limit, agent) for users in (1, 2, 3, 4, 5) for agent in AGENTS for limit in CONSTRAINTS
        ]

    @classmethod
    def compute(cls, work: Work) -> Self:
        """The curves, from loose to strict in each panel."""
        panels: dict[int, list[Curve]] = {}
        for unit in work.needed_by(cls.name):
            summary = work.summary(unit.case)
            if summary is None:
                continue
            _, optimum_ms = summary.whole[0].times
            reached, regrets = summary.aggregate.steps_to_optimal.median, work.run_folder(unit).regrets()
            panels.setdefault(unit.case.users, []).append(_curve(unit.case, reached, regrets, optimum_ms))
        for curves in panels.values():
            curves.sort(key=lambda curve: (CONSTRAINTS.index(curve.constraint), curve.agent))
        return cls(tuple(Panel(users, tuple(panels[users])) for users in sorted(panels)))

    def pictures(self) -> dict[str, Picture]:
        """One of each panel."""
        caption = (
            "Noise-free cost of the greedy decision, penalty included: median of the seeds (for hybrid with the middle "
            "half); a dot is where the median seed has reached the optimum for good (filled hybrid, hollow dqn)."
        )
        return {
            panel.name: Picture(
                _draw(panel, LIGHT), _draw(panel, DARK), f"Training curves, {panel.users} users", caption, 520
            )
            for panel in self.panels
        }

    def blocks(self) -> list[Block]:
        """The pictures."""
        if not self.panels:
            return []
        text = (
            "Experiment A. The paper's figure shows the reward while training; ours shows the noise-free cost of the "
            "greedy decision at that time, so that exploration doesn't blur it. The paper gives no numbers for it "
            "beyond Table VI."
        )
        names = tuple(panel.name for panel in self.panels)
        return [Heading("Figure 3: training curves"), Paragraph(text), Figures(names)]


def _draw(panel: Panel, theme: Theme) -> bytes:
    """A panel as a PNG."""
    figure, axes = styled_axes(theme, 4.8, 3.7)
    for curve in panel.curves:
        color, filled = theme.constraints[curve.constraint], curve.agent == "hybrid"
        axes.plot(curve.steps, curve.median, color=color, ls=STYLES[curve.agent], lw=1.7, drawstyle="steps-post")
        if filled:
            axes.fill_between(curve.steps, curve.low, curve.high, color=color, alpha=0.16, lw=0, step="post")
        if curve.steps_to_optimal is not None:
            mark = {"mfc": color if filled else theme.page, "mec": color}
            axes.plot(curve.steps_to_optimal, curve.optimum_ms, "o", ms=6, zorder=5, **mark)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(counts))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(counts))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(ticker.FuncFormatter(lambda value, _: counts(value) if _marked(value) else ""))
    axes.set_ylim(top=axes.get_ylim()[1] * 2.2)  # room for the legend
    axes.set_xlabel("real steps (log)", fontsize=9)
    axes.set_ylabel("cost of the greedy decision (ms, log)", fontsize=9)
    title = f"{panel.users} user{'s' if panel.users > 1 else ''}"
    axes.set_title(title, fontsize=10, color=theme.ink, loc="left", fontweight="bold")
    there = {curve.constraint for curve in panel.curves} | {curve.agent for curve in panel.curves}
    handles = [
        Line2D([], [], color=theme.constraints[limit], lw=3, label=constraint_text(limit))
        for limit in theme.constraints
        if limit in there
    ]
    handles += [
        Line2D([], [], color=theme.ink, ls=STYLES[agent], lw=1.6, label=agent) for agent in AGENTS if agent in there
    ]
    legend(axes, theme, handles, loc="upper right", ncols=2, columnspacing=1.0)
    return png(figure)


def _marked(value: float) -> bool:
    """Whether a logarithmic axis names this minor tick: 2 and 5 of each decade."""
    digit = float(f"{value:e}".split("e")[0])
    return round(digit) in (2, 5)
