"""What traffic does to a fleet under some decisions: response times' distributions, and queues over time."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from launch.report.plotting import LINE, TRUTH, plain, plt, png

PLACES = ("devices", "edge", "cloud")
COLOURS = {"devices": "#8fb8d0", "edge": "#e0a458", "cloud": "#7d6b9e"}
QUANTILES = ((0.5, "o"), (0.95, "s"), (0.99, "D"))
STEP_S = 0.02


@dataclasses.dataclass(frozen=True)
class Course:
    """Requests under one decision."""

    label: str  # what it is, for people
    response_ms: np.ndarray  # of every request
    stays: Mapping[str, tuple[np.ndarray, np.ndarray]]  # by place: when tasks came there and left it, s


def _quantile(values: np.ndarray, part: float) -> float:
    """The smallest value that such a part stays within."""
    ordered = np.sort(values)
    return float(ordered[max(int(np.ceil(part * len(ordered) - 1e-9)) - 1, 0)])


def response_times(title: str, courses: Sequence[Course], seconds: float) -> bytes:
    """Distributions with their 50, 95 and 99 % quantiles, and below them who was where in the first seconds; a PNG."""
    figure, axes = plt.subplots(1 + len(courses), 1, figsize=(9, 3.6 + 2.2 * len(courses)), layout="constrained")
    top, *below = axes
    for course, colour in zip(courses, (TRUTH, LINE), strict=True):
        ordered = np.sort(course.response_ms)
        parts = np.arange(1, len(ordered) + 1) / len(ordered)
        marks = [(_quantile(ordered, part), part, marker) for part, marker in QUANTILES]
        shown = " / ".join(f"{value:,.0f}" for value, _, _ in marks)
        label = f"{course.label}: mean {ordered.mean():,.0f} ms, 50 / 95 / 99 % within {shown} ms"
        top.plot(ordered, 100.0 * parts, color=colour, lw=2, drawstyle="steps-post", label=plain(label))
        for value, part, marker in marks:
            top.plot(value, 100.0 * part, marker=marker, color=colour, ms=6)
    top.set_xscale("log")
    top.xaxis.set_major_formatter("{x:,g}")
    top.xaxis.set_minor_formatter("{x:,g}")
    top.tick_params(axis="x", which="minor", labelsize=8)
    top.set_xlabel("response time (ms)")
    top.set_ylabel("take no longer (%)")
    top.set_title(plain(title), fontsize=11)
    top.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0.0, -0.24))
    top.grid(alpha=0.25, which="both")
    moments = np.arange(0.0, seconds, STEP_S)
    highest = 1
    for course, under in zip(courses, below, strict=True):
        counts = [_there(*course.stays[place], moments) for place in PLACES]
        highest = max(highest, int(np.sum(counts, axis=0).max()))
        under.stackplot(moments, counts, labels=PLACES, colors=[COLOURS[place] for place in PLACES], step="post")
        under.set_ylabel("tasks there")
        under.set_title(plain(f"{course.label}: tasks that wait or compute"), fontsize=9, loc="left")
        under.set_xlim(0.0, seconds)
    for under in below:
        under.set_ylim(0, highest + 1)
        under.grid(alpha=0.25)
    below[0].legend(frameon=False, fontsize=8, ncols=3, loc="upper right")
    below[-1].set_xlabel("time (s)")
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
    return png(figure)


def _there(came: np.ndarray, left: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """How many are there at each moment."""
    return np.searchsorted(np.sort(came), moments, "right") - np.searchsorted(np.sort(left), moments, "right")
