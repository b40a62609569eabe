"""A picture of ratios with their intervals, a row for each case and a colour for each series, on a logarithmic axis."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.lines import Line2D

from launch.report.plotting import Theme, legend, png, styled_axes

LEAST = 0.02  # where the axis begins at the latest
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20)

Point = tuple[float, float, float | None]  # value, and both ends of its interval; None: no upper end


def draw(
    rows: Sequence[tuple[str, Sequence[Point | None]]],
    series: Sequence[tuple[str, str]],
    claim: tuple[str, float],
    axis: str,
    theme: Theme,
) -> bytes:
    """A PNG.

    Args:
      rows: a name, and a point for each series (None: nothing to show).
      series: name and colour of each.
      claim: name and value of what is marked beside 1.
      axis: what the ratios are.
      theme: colours of the page.
    """
    figure, axes = styled_axes(theme, 5.4, 1.3 + 0.27 * len(rows))
    axes.set_xscale("log")
    shift = 0.32 / max(len(series), 1)
    for place, (_, points) in enumerate(rows):
        for number, ((_, color), point) in enumerate(zip(series, points, strict=True)):
            if point is None:
                continue
            value, low, high = point
            y = place + shift * (number - (len(series) - 1) / 2.0)
            end = 1.5 * max(claim[1], value) if high is None else high
            axes.plot([max(low, LEAST), max(end, LEAST)], [y, y], color=color, lw=2, alpha=0.5, solid_capstyle="butt")
            axes.plot(value, y, "o", color=color, ms=5)
    axes.axvline(1.0, color=theme.ink, lw=0.9)
    axes.axvline(claim[1], color=theme.ink, lw=0.9, ls="--")
    axes.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    axes.minorticks_off()
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(axis, fontsize=9)
    handles = [Line2D([], [], color=color, marker="o", lw=2, label=name) for name, color in series]
    handles.append(Line2D([], [], color=theme.ink, ls="--", lw=0.9, label=claim[0]))
    legend(axes, theme, handles, loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2, columnspacing=1.5)
    return png(figure)
