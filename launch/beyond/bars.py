"""The rows of `launch.beyond`: what each measures, by what, what it must show, and how its result reads."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from launch.beyond import changing, endurance, fleets, learning, searching, traffic
from launch.beyond.kept import Kept
from launch.beyond.lines import (
    BruteLine,
    ChangingLine,
    DriftLine,
    DynamicLine,
    EnduranceLine,
    FleetLine,
    JudgedLine,
    Line,
    LockstepLine,
    MilpLine,
    MissesLine,
    StandingLine,
    StepsLine,
    SweepLine,
    TimeLine,
    UsersLine,
    never,
)
from launch.host import files
from launch.host.provenance import Machine
from launch.host.records import as_data, from_data
from launch.host.text import fixed

DECISION_MS = {5: 3.0, 50: 10.0, 100: 40.0}  # most that a decision may take on one core, by devices

Some = TypeVar("Some", bound=Line)


@dataclasses.dataclass(frozen=True)
class Row(Generic[Some]):
    """A row of the table."""

    title: str
    bar: str
    kind: type[Some]
    measure: Callable[[int, Kept], Sequence[Some]]  # of so many seeds
    met: Callable[[Sequence[Some]], bool]
    result: Callable[[Sequence[Some]], str]


@dataclasses.dataclass(frozen=True)
class Elsewhere:
    """Parts of a row that another machine or other versions measured."""

    parts: tuple[str, ...]
    machine: Machine
    versions: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Measured(Generic[Some]):
    """A row as it was measured: its file."""

    row: str
    command: str
    commit: str
    versions: dict[str, str]
    machine: Machine
    wall_s: float
    cpu_s: float
    lines: Sequence[Some]
    elsewhere: tuple[Elsewhere, ...] = ()


def _steps_result(lines: Sequence[StepsLine]) -> str:
    succeeded, seeds = (sum(getattr(line.steps_to_optimal, name) for line in lines) for name in ("succeeded", "seeds"))
    worst = max(never(line.worst) for line in lines)
    last = "never" if worst == float("inf") else f"{worst:g}"
    medians = [line.median for line in lines]
    return f"medians {min(medians):g} to {max(medians):g}, worst seed {last}, {succeeded} of {seeds} succeed"


def _within(limit: float) -> Callable[[Sequence[StepsLine]], bool]:
    return lambda lines: max(line.median for line in lines) <= limit


def _cells(lines: Sequence[StepsLine]) -> bool:
    soon = max(never(line.worst) for line in lines) <= 20
    return _within(6)(lines) and soon and all(line.all_succeed for line in lines)


def _no_dearer(lines: Sequence[UsersLine]) -> bool:
    few = max(line.median for line in lines if line.users <= 5)
    return all(line.all_succeed for line in lines) and max(line.median for line in lines) <= few


def _dynamic(lines: Sequence[DynamicLine]) -> str:
    after = JudgedLine.times(lines)
    parts = [[line.mean_regret_percent for line in lines if line.after == steps] for steps in after]
    means = " and ".join(f"{sum(part) / len(part):.2f}" for part in parts)
    return (
        f"mean regret {means} % over all seeds, {max(line.mean_regret_percent for line in lines):.2f} % for the worst; "
        f"constraint met in {min(line.constraint_met for line in lines)} of {lines[0].states} or more"
    )


def _sweep(lines: Sequence[SweepLine]) -> str:
    return (
        f"worst regret {fixed(max(line.worst_regret_percent for line in lines), 2)} % "
        f"({lines[0].constraints} constraints, {len(lines) // len(JudgedLine.times(lines))} seeds)"
    )


LONG = 10_000  # steps from which on a line is asked whether its steps have become longer


def _noticed(line: EnduranceLine) -> bool:
    """Whether a line that was asked what exploring costs has a good answer; None there means that it never noticed."""
    window, after = line.worst_window_percent, line.steps_after_change
    return window is not None and window <= 1.5 and after is not None and after <= 6


def _endured(lines: Sequence[EnduranceLine]) -> bool:
    return all(
        line.not_finite == 0
        and line.over_share_percent <= 0.1
        and line.worst_regret_percent is not None
        and line.worst_regret_percent <= 5.0
        and (line.steps < LONG or line.step_time_ratio <= 1.1)
        and (line.worst_window_percent is None or _noticed(line))
        for line in lines
    )


def _endurance(lines: Sequence[EnduranceLine]) -> str:
    windows = [line.worst_window_percent for line in lines if line.worst_window_percent is not None]
    changes = [line.steps_after_change for line in lines if line.worst_window_percent is not None]
    after = "never" if None in changes else f"{max((one for one in changes if one is not None), default=0):g} steps"
    regrets = [line.worst_regret_percent for line in lines]
    ratios = [line.step_time_ratio for line in lines if line.steps >= LONG]
    worst = max(math.inf if one is None else one for one in regrets)
    return (
        f"{sum(line.steps * line.seeds for line in lines):,} steps, {sum(line.not_finite for line in lines)} runs not "
        f"finite; above 1 % in at most {max(line.over_share_percent for line in lines):.4f} % of a line's decisions "
        f"(of its evaluations {max(line.bad_evaluations_percent for line in lines):.3f} %), worst "
        f"{fixed(worst, 2)} %; window at most {max(windows, default=0.0):.2f} %, after the change {after}, a step at "
        f"most {max(ratios, default=1.0):.2f} times as long at the end of {LONG:,} or more"
    )


def _ms(lines: Sequence[TimeLine], users: int) -> float:
    return next((line.cpu_ms for line in lines if line.users == users), float("inf"))


def _milp(lines: Sequence[MilpLine]) -> str:
    return (
        f"worst excess {max(line.worst_excess for line in lines if line.users <= 10):.0e} up to 10 devices, "
        f"{max(line.worst_excess for line in lines):.0e} above; bound violated "
        f"{sum(line.bound_violated for line in lines)} times; {min(line.speed_up for line in lines):.1f} to "
        f"{max(line.speed_up for line in lines):.0f} times as fast as HiGHS"
    )


ROWS: dict[str, Row[Line]] = {}


def _add(name: str, row: Row[Some]) -> None:
    ROWS[name] = row  # type: ignore[assignment]  # a row's own functions alone see its lines


def _steps(name: str, title: str, bar: str, measure: Callable[[int, Kept], list[StepsLine]], limit: float) -> None:
    _add(name, Row(title, bar, StepsLine, measure, _within(limit), _steps_result))


_add(
    "cells",
    Row(
        "5 equal devices, the 20 cells of Table V",
        "median ≤ 6 in each, worst seed ≤ 20, all succeed (the paper: 6,000)",
        StepsLine,
        learning.cells,
        _cells,
        _steps_result,
    ),
)
_steps("noise10", "the same at 10 % noise", "median ≤ 15 in each", learning.noise10, 15)
_steps("unequal", "5 unequal devices (speed 0.5 to 2 drawn per device)", "median ≤ 20", learning.unequal, 20)
_steps(
    "form",
    "a simulator of another form (contention in steps or quadratic, times not proportional to MACs)",
    "median ≤ 12",
    learning.form,
    12,
)
_steps("fifty", "50 devices, regular links, each constraint", "median ≤ 8", learning.fifty, 8)
_add(
    "users",
    Row(
        "1 to 100 devices at 85 %",
        "more devices make learning no dearer: no median above those of up to five devices, all succeed",
        UsersLine,
        learning.users,
        _no_dearer,
        _steps_result,
    ),
)
_add(
    "dynamic",
    Row(
        "dynamic scenario, after 100 and 300 real steps, 1,000 fresh states",
        "mean regret ≤ 1 %, constraint met in all",
        DynamicLine,
        learning.dynamic,
        lambda lines: all(line.mean_regret_percent <= 1.0 and line.constraint_met == line.states for line in lines),
        _dynamic,
    ),
)
_add(
    "sweep",
    Row(
        "constraint swept from 72.8 to 89.9 after 40 and after 300 steps at 85",
        "within 1 % at every one, no new step",
        SweepLine,
        learning.sweep,
        lambda lines: all(line.over_one_percent == 0 and line.constraint_met == line.constraints for line in lines),
        _sweep,
    ),
)
_add(
    "drift",
    Row(
        "the edge becomes twice as slow in mid-run",
        "within 1 % again after ≤ 15 real steps, every seed",
        DriftLine,
        learning.drift,
        lambda lines: max(never(line.worst) for line in lines) <= 15,
        _steps_result,
    ),
)
_add(
    "endurance",
    Row(
        "20 cells, 10 seeds, 1,000 steps; B/Min, D/80, D/Max, 5 seeds, 20,000; dynamic, 5 seeds, 10,000; what "
        "exploring costs",
        "all finite; decisions above 1 % in ≤ 0.1 % after step 50, none above 5 %; mean cost of any 80 steps after "
        "step 60 ≤ 1.5 % over the optimum; a slower edge at step 1,500 costs ≤ 6 steps; a step's time flat (≤ 1.1)",
        EnduranceLine,
        endurance.endurance,
        _endured,
        _endurance,
    ),
)
_add(
    "changing",
    Row(
        "hybrid beside dqn (same networks, same knowledge) and q_learning in the dynamic scenario; steps to 2 % mean "
        "regret for good",
        "hybrid's mean regret in 1,000 fresh states ≤ 2 % after 1,500 (3 users) and 3,000 steps (5), and after 10,000; "
        "constraint kept in ≥ 99.9 %; dqn takes ≥ 5 times as many steps",
        ChangingLine,
        changing.changing,
        changing.met,
        changing.result,
    ),
)
_add(
    "lockstep",
    Row(
        "what the lock-step optimum costs as a standing decision where devices ask at their own times, A to D",
        "reported",
        LockstepLine,
        traffic.lockstep,
        lambda lines: bool(lines),
        traffic.lockstep_result,
    ),
)
_add(
    "standing",
    Row(
        "control periods to within 2 % of the racing oracle for good, A to D at Max, 89 and 85 %, periodic and Poisson",
        "median ≤ 15 in every case, every seed within 40; none more than 50 % over after the fifth",
        StandingLine,
        traffic.learned,
        traffic.learned_met,
        traffic.standing_result,
    ),
)
_add(
    "busier",
    Row(
        "the load doubles, or all links fall to a tenth: control periods to within 5 % again",
        "≤ 6 in every run",
        StandingLine,
        traffic.changes,
        traffic.changes_met,
        traffic.standing_result,
    ),
)
_add(
    "deadline",
    Row(
        "20 devices of unequal speed, deadline of 150 ms, Poisson: requests that are late",
        "≤ 1.2 times the oracle's",
        MissesLine,
        traffic.deadline,
        traffic.deadline_met,
        traffic.deadline_result,
    ),
)
for _name, _title, _bar, _measure, _met, _result in (
    ("fleet", "", "median ≤ 12, every run; no lapse over 5 %", fleets.times, fleets.times_met, fleets.result),
    (
        "fleet_energy",
        ", energy under 200 ms",
        "median ≤ 15, every run; ≥ 99 % in time",
        fleets.energies,
        fleets.energies_met,
        fleets.energy_result,
    ),
    ("fleet_prior", ", --prior=profiles", "reported", fleets.with_prior, lambda _lines: True, fleets.result),
):
    _add(_name, Row(f"scenario mixed{_title}: real steps to within 1 %", _bar, FleetLine, _measure, _met, _result))
_add(
    "time",
    Row(
        "decision time, one core",
        ", ".join(f"≤ {most:g} ms at {users} devices" for users, most in DECISION_MS.items()),
        TimeLine,
        lambda _seeds, _kept: searching.decision_time(),
        lambda lines: all(_ms(lines, users) <= most for users, most in DECISION_MS.items()),
        lambda lines: ", ".join(f"{users}: {_ms(lines, users):.1f} ms" for users in DECISION_MS),
    ),
)
_add(
    "milp",
    Row(
        "search against MILP, 200 random instances of 2 to 100 devices",
        "same optimum to 1e-6 up to 10 devices, within 0.1 % above, bound never violated",
        MilpLine,
        lambda _seeds, _kept: searching.against_milp(),
        lambda lines: all(
            line.worst_excess <= (1e-6 if line.users <= 10 else 1e-3) and line.bound_violated == 0 for line in lines
        ),
        _milp,
    ),
)
_add(
    "brute",
    Row(
        "search against brute force at 5 devices, 1,000 random instances",
        "same 10 best",
        BruteLine,
        lambda _seeds, _kept: searching.brute(),
        lambda lines: all(line.same == line.instances for line in lines),
        lambda lines: ", ".join(f"{line.same} of {line.instances} the same" for line in lines),
    ),
)


def told(measured: dict[str, Measured[Line]]) -> dict[str, object]:
    """report.json's content: what each row shows, in words and whether it met its bar, for other reports."""
    rows = [
        {
            "row": name,
            "title": ROWS[name].title,
            "bar": ROWS[name].bar,
            "result": ROWS[name].result(found.lines),
            "met": ROWS[name].met(found.lines),
            "commit": found.commit,
        }
        for name, found in measured.items()
    ]
    lines = measured["users"].lines if "users" in measured else []
    users = [{"users": line.users, "steps": as_data(line.steps)} for line in lines if isinstance(line, UsersLine)]
    return {"rows": rows, "users": users}


def read(folder: pathlib.Path) -> dict[str, Measured[Line]]:
    """Every row that the folder holds, as `launch.beyond` measured it.

    Raises:
      InputError: if a file isn't a row's.
    """
    found = {}
    for name, row in ROWS.items():
        path = folder / f"{name}.json"
        data = files.read_json(path)
        if data is not None:
            found[name] = from_data(Measured[row.kind], data, str(path))  # type: ignore[name-defined]
    return found
