"""Pictures of what `factored` shows beside the other agents."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence

from launch.beyond.bars import DECISION_MS
from launch.beyond.lines import TimeLine
from launch.host.errors import InputError
from launch.report.plotting import LINE, TRUTH, plt, png
from launch.report.steps import steps_of


def read_reproduction(path: str) -> dict[str, list[tuple[int, float]]]:
    """The same from a report.json.

    Raises:
      InputError: if it isn't one.
    """
    try:
        return steps_of(json.loads(pathlib.Path(path).read_text(encoding="utf-8"))["table6"]["rows"])
    except OSError as error:
        raise InputError(f"--reproduction: expected a report.json, found {error.strerror} at {path}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"--reproduction: expected launch.reproduce's report.json, found {error!r} in {path}"
        ) from error


def decision_times(lines: Sequence[TimeLine]) -> bytes:
    """Milliseconds of one decision on one core against the number of devices, with the bars, as a PNG."""
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    users = [line.users for line in lines]
    axes.plot(users, [line.cpu_ms for line in lines], color=LINE, marker="o", lw=2, label="one decision, one core")
    axes.plot(list(DECISION_MS), list(DECISION_MS.values()), color=TRUTH, marker="_", ms=16, mew=2, ls="", label="bar")
    axes.set_yscale("log")
    axes.set_xlabel("devices")
    axes.set_ylabel("computing time of one decision (ms)")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    return png(figure)
