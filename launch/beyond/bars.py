"""The bars of `launch.beyond`: what each row measures, what it must show, and how its result reads."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

from launch.host import files

Lines = list[dict[str, Any]]
DECISION_MS = {5: 3.0, 50: 10.0, 100: 40.0}  # most that a decision may take on one core, by devices


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table: what is measured, by what, and what it must show."""

    title: str
    bar: str
    module: str  # of `launch`; imported when it is measured
    function: str
    met: Callable[[Lines], bool]
    result: Callable[[Lines], str]


def _never(value: float | None) -> float:
    return float("inf") if value is None else float(value)


def _medians(lines: Lines) -> list[float]:
    return [_never(line["steps_to_optimal"]["median"]) for line in lines]


def _all_succeed(lines: Lines) -> bool:
    return all(line["steps_to_optimal"]["succeeded"] == line["steps_to_optimal"]["seeds"] for line in lines)


def _steps_result(lines: Lines) -> str:
    succeeded, seeds = (sum(line["steps_to_optimal"][name] for line in lines) for name in ("succeeded", "seeds"))
    worst = max(_never(line["worst"]) for line in lines)
    last = "never" if worst == float("inf") else f"{worst:g}"
    medians = _medians(lines)
    return f"medians {min(medians):g} to {max(medians):g}, worst seed {last}, {succeeded} of {seeds} succeed"


def _within(limit: float) -> Callable[[Lines], bool]:
    return lambda lines: max(_medians(lines)) <= limit


def _ms(lines: Lines, users: int) -> float:
    return next((line["cpu_ms"] for line in lines if line["users"] == users), float("inf"))


def _times(lines: Lines) -> list[int]:
    """After how many steps the lines were judged."""
    return sorted({line.get("after", 0) for line in lines})


def _means(lines: Lines) -> str:
    parts = [
        [line["mean_regret_percent"] for line in lines if line.get("after", 0) == after] for after in _times(lines)
    ]
    return " and ".join(f"{sum(part) / len(part):.2f}" for part in parts)


def _endured(lines: Lines) -> bool:
    return all(
        line["not_finite"] == 0
        and line["over_share_percent"] <= 0.1
        and line["worst_regret_percent"] <= 5.0
        and line["step_time_ratio"] <= 1.1
        and (line["worst_window_percent"] is None or line["worst_window_percent"] <= 1.5)
        and (line["steps_after_change"] is None or line["steps_after_change"] <= 6)
        for line in lines
    )


def _endurance(lines: Lines) -> str:
    windows = [line["worst_window_percent"] for line in lines if line["worst_window_percent"] is not None]
    changes = [line["steps_after_change"] for line in lines if line["steps_after_change"] is not None]
    return (
        f"{sum(line['steps'] * line['seeds'] for line in lines):,} steps, {sum(line['not_finite'] for line in lines)} "
        f"runs not finite; above 1 % in at most {max(line['over_share_percent'] for line in lines):.3f} % of a line's "
        f"decisions, worst {max(line['worst_regret_percent'] for line in lines):.2f} %; "
        f"window at most {max(windows, default=0.0):.2f} %, {max(changes, default=0):g} steps after the change, "
        f"a step at most {max(line['step_time_ratio'] for line in lines):.2f} times as long at the end"
    )


ROWS = {
    "cells": Row(
        "5 equal devices, the 20 cells of Table V",
        "median ≤ 6 in each, worst seed ≤ 20, all succeed (the paper: 6,000)",
        "learning",
        "cells",
        lambda lines: _within(6)(lines) and max(_never(line["worst"]) for line in lines) <= 20 and _all_succeed(lines),
        _steps_result,
    ),
    "noise10": Row("the same at 10 % noise", "median ≤ 15 in each", "learning", "noise10", _within(15), _steps_result),
    "unequal": Row(
        "5 unequal devices (speed 0.5 to 2 drawn per device)",
        "median ≤ 20",
        "learning",
        "unequal",
        _within(20),
        _steps_result,
    ),
    "form": Row(
        "a simulator of another form (contention in steps or quadratic, times not proportional to MACs)",
        "median ≤ 12",
        "learning",
        "form",
        _within(12),
        _steps_result,
    ),
    "fifty": Row(
        "50 devices, regular links, each constraint", "median ≤ 8", "learning", "fifty", _within(8), _steps_result
    ),
    "users": Row(
        "1 to 100 devices at 85 %",
        "more devices make learning no dearer: no median above those of up to five devices, all succeed",
        "learning",
        "users",
        lambda lines: (
            _all_succeed(lines) and max(_medians(lines)) <= max(_medians([x for x in lines if x["users"] <= 5]))
        ),
        _steps_result,
    ),
    "dynamic": Row(
        "dynamic scenario, after 100 and 300 real steps, 1,000 fresh states",
        "mean regret ≤ 1 %, constraint met in all",
        "learning",
        "dynamic",
        lambda lines: all(
            line["mean_regret_percent"] <= 1.0 and line["constraint_met"] == line["states"] for line in lines
        ),
        lambda lines: (
            f"mean regret {_means(lines)} % over all seeds, "
            f"{max(line['mean_regret_percent'] for line in lines):.2f} % for the worst; constraint met in "
            f"{min(line['constraint_met'] for line in lines)} of {lines[0]['states']} or more"
        ),
    ),
    "sweep": Row(
        "constraint swept from 72.8 to 89.9 after 40 and after 300 steps at 85",
        "within 1 % at every one, no new step",
        "learning",
        "sweep",
        lambda lines: all(
            line["over_one_percent"] == 0 and line["constraint_met"] == line["constraints"] for line in lines
        ),
        lambda lines: (
            f"worst regret {max(line['worst_regret_percent'] for line in lines):.2f} % "
            f"({lines[0]['constraints']} constraints, {len(lines) // len(_times(lines))} seeds)"
        ),
    ),
    "drift": Row(
        "the edge becomes twice as slow in mid-run",
        "within 1 % again after ≤ 15 real steps, every seed",
        "learning",
        "drift",
        lambda lines: max(_never(line["worst"]) for line in lines) <= 15,
        _steps_result,
    ),
    "endurance": Row(
        "20 cells, 10 seeds, 1,000 steps; B/Min, D/80, D/Max, 5 seeds, 20,000; dynamic, 5 seeds, 10,000; what "
        "exploring costs",
        "all finite; decisions above 1 % in ≤ 0.1 % after step 50, none above 5 %; mean cost of any 80 steps after "
        "step 60 ≤ 1.5 % over the optimum; a slower edge at step 1,500 costs ≤ 6 steps; a step's time flat (≤ 1.1)",
        "endurance",
        "endurance",
        _endured,
        _endurance,
    ),
    "time": Row(
        "decision time, one core",
        ", ".join(f"≤ {most:g} ms at {users} devices" for users, most in DECISION_MS.items()),
        "searching",
        "decision_time",
        lambda lines: all(_ms(lines, users) <= most for users, most in DECISION_MS.items()),
        lambda lines: ", ".join(f"{users}: {_ms(lines, users):.1f} ms" for users in DECISION_MS),
    ),
    "milp": Row(
        "search against MILP, 200 random instances of 2 to 100 devices",
        "same optimum to 1e-6 up to 10 devices, within 0.1 % above, bound never violated",
        "searching",
        "against_milp",
        lambda lines: all(
            line["worst_excess"] <= (1e-6 if line["users"] <= 10 else 1e-3) and line["bound_violated"] == 0
            for line in lines
        ),
        lambda lines: (
            f"worst excess {max(line['worst_excess'] for line in lines if line['users'] <= 10):.0e} up to 10 devices, "
            f"{max(line['worst_excess'] for line in lines):.0e} above; "
            f"bound violated {sum(line['bound_violated'] for line in lines)} times; "
            f"{min(line['speed_up'] for line in lines):.1f} to {max(line['speed_up'] for line in lines):.0f} times "
            "as fast as HiGHS"
        ),
    ),
    "brute": Row(
        "search against brute force at 5 devices, 1,000 random instances",
        "same 10 best",
        "searching",
        "brute",
        lambda lines: all(line["same"] == line["instances"] for line in lines),
        lambda lines: ", ".join(f"{line['same']} of {line['instances']} the same" for line in lines),
    ),
}


def told(measured: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """report.json's content: what each row shows, in words and whether it met its bar, for other reports."""
    rows = [
        {
            "row": name,
            "title": ROWS[name].title,
            "bar": ROWS[name].bar,
            "result": ROWS[name].result(found["lines"]),
            "met": ROWS[name].met(found["lines"]),
            "commit": found["commit"],
        }
        for name, found in measured.items()
    ]
    return {"rows": rows, "users": measured["users"]["lines"] if "users" in measured else []}


def read(folder: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Every row that the folder holds, as `launch.beyond` measured it."""
    found = {name: files.read_json(folder / f"{name}.json") for name in ROWS}
    return {name: row for name, row in found.items() if row is not None}
