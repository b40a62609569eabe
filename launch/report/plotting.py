"""How pictures look: PNGs drawn with Matplotlib off screen, for light and for dark pages."""

from __future__ import annotations

import dataclasses
import io
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot
from matplotlib.artist import Artist
from matplotlib.figure import Figure

plt = pyplot  # for who draws: only after the above is nothing shown on a screen
LINE, BAND, TRUTH = "#1f5f8b", "#9cc3dc", "#c1432e"


def plain(text: str) -> str:
    """A user's text as Matplotlib shows it as it is: no formula between two $, no legend entry hidden by a first _."""
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG, the same for the same figure; the figure is closed."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A character that the font lacks is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    pyplot.close(figure)
    return buffer.getvalue()


@dataclasses.dataclass(frozen=True)
class Theme:
    """Colours of a page."""

    page: str
    ink: str
    grid: str
    agents: dict[str, str]
    constraints: dict[str, str]  # from loose to strict, as one ramp


LIGHT = Theme(
    page="#ffffff",
    ink="#24292f",
    grid="#d0d7de",
    agents={"hybrid": "#1f5f8b", "dqn": "#c2661c", "q_learning": "#6b7280"},
    constraints={"Min": "#7cc36c", "80": "#3fa37f", "85": "#2a7f8e", "89": "#38598c", "Max": "#46216a"},
)
DARK = Theme(
    page="#161b22",
    ink="#d5dbe1",
    grid="#333b45",
    agents={"hybrid": "#62b0e8", "dqn": "#f0a062", "q_learning": "#a3acb8"},
    constraints={"Min": "#f3e55c", "80": "#8fd744", "85": "#37b878", "89": "#3fa9c9", "Max": "#b48be8"},
)


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure as PNG for light and for dark pages."""

    light: bytes
    dark: bytes
    title: str
    caption: str
    width: int  # most pixels that it is shown in


def counts(value: float, _: object = None) -> str:
    """1,500 as 1.5k, 2,000,000 as 2M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def styled_axes(theme: Theme, width: float, height: float) -> tuple[Figure, Any]:
    """A figure with one plain set of axes in the page's colours."""
    figure, axes = pyplot.subplots(figsize=(width, height), layout="constrained")
    figure.set_facecolor(theme.page)
    axes.set_facecolor(theme.page)
    axes.tick_params(colors=theme.ink, which="both", labelsize=9, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(theme.grid)
    axes.grid(color=theme.grid, lw=0.6, alpha=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.label.set_color(theme.ink)
    axes.yaxis.label.set_color(theme.ink)
    return figure, axes


def legend(axes: Any, theme: Theme, handles: Sequence[Artist], **where: Any) -> None:
    """A legend in the page's colours."""
    axes.legend(handles=handles, frameon=False, fontsize=8, labelcolor=theme.ink, handlelength=1.9, **where)
