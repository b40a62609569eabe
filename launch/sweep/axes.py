"""What a sweep varies: axes of flag values, from --grid or from a sweep file, and how assignments are made of them.

An axis is a list (`1,5,10`), a range that includes its end (`0:0.9:0.1`), one in equal ratios (`log:1e-4:1e-1:4`), or,
for random and Optuna's search, an interval (`0:0.9`, `log:1e-4:1e-1`). Values stay the texts that the flags' own
parsers read.
"""

from __future__ import annotations

import dataclasses
import decimal
import itertools
import math
import pathlib
import re
import tomllib
from collections.abc import Iterator, Sequence
from decimal import Decimal

import numpy as np

from launch.host.errors import InputError
from launch.inputs import agents

MOST_VALUES = 10_000  # of an axis, and assignments of a sweep
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER}):({_NUMBER})(?::({_NUMBER}))?")
_LOG = re.compile(rf"log:({_NUMBER}):({_NUMBER})(?::({_NUMBER}))?")

Assignment = dict[str, str]  # a value's text for each axis


@dataclasses.dataclass(frozen=True)
class Axis:
    """Values of one flag: some, or an interval to draw from (then `values` is empty)."""

    name: str
    values: tuple[str, ...]
    low: float = 0.0
    high: float = 0.0
    log: bool = False

    @property
    def is_interval(self) -> bool:
        return not self.values


def fitted(assignment: Assignment, axes: Sequence[Axis]) -> Assignment:
    """An assignment of these axes less the constants that its agent doesn't have, and another one of theirs does.

    Raises:
      InputError: if an axis names an agent that there isn't.
    """
    named = [value for axis in axes if axis.name == "agent" for value in axis.values]
    if len(named) < 2:
        return assignment
    constants = {name: {field.name for field in dataclasses.fields(agents.kind_of(name).config)} for name in named}
    others = set().union(*constants.values()) - constants[assignment["agent"]]
    return {name: text for name, text in assignment.items() if name not in others}


@dataclasses.dataclass(frozen=True)
class Grid:
    """Axes whose values are combined each with each; an agent's constants only with agents that have them."""

    axes: tuple[Axis, ...]

    @property
    def points(self) -> int:
        return math.prod(len(axis.values) for axis in self.axes)

    def assignments(self) -> Iterator[Assignment]:
        """Every combination once, the last axis changing fastest.

        Raises:
          InputError: if an axis names an agent that there isn't.
        """
        names, seen = [axis.name for axis in self.axes], set()
        for values in itertools.product(*(axis.values for axis in self.axes)):
            one = fitted(dict(zip(names, values, strict=True)), self.axes)
            if tuple(one.items()) not in seen:
                seen.add(tuple(one.items()))
                yield one


def _plain(number: Decimal) -> str:
    """A number's text without needless zeros, never in powers of ten where a short text does."""
    text = format(number.normalize(), "f")
    return text if len(text) <= 12 else f"{float(number):.6g}"


def _steps(name: str, text: str, low: Decimal, high: Decimal, step: Decimal) -> tuple[str, ...]:
    if step <= 0 or high < low:
        raise InputError(f"--{name}: expected LOW:HIGH:STEP with HIGH at least LOW and STEP over 0, found {text!r}")
    count = int((high - low) / step) + 1
    if count > MOST_VALUES:
        raise InputError(f"--{name}: expected at most {MOST_VALUES} values, found {count} in {text!r}")
    return tuple(_plain(low + index * step) for index in range(count))


def _ratios(name: str, text: str, low: float, high: float, count: str) -> tuple[str, ...]:
    if not count.isdecimal() or not 2 <= int(count) <= MOST_VALUES:
        raise InputError(f"--{name}: expected log:LOW:HIGH:COUNT with 2 to {MOST_VALUES} values, found {text!r}")
    return tuple(f"{value:.6g}" for value in np.geomspace(low, high, int(count)))


def axis(name: str, value: object) -> Axis:
    """An axis from a text (see above) or from a list of values (of a sweep file).

    Raises:
      InputError: if it is none, or a value is named twice.
    """
    if isinstance(value, list):
        values = tuple(_text(name, item) for item in value)
    else:
        text = _text(name, value).strip()
        try:
            if found := _LOG.fullmatch(text):
                low, high = float(found[1]), float(found[2])
                if not 0.0 < low < high < math.inf:
                    raise InputError(f"--{name}: expected log:LOW:HIGH with 0 < LOW < HIGH, found {text!r}")
                if found[3] is None:
                    return Axis(name, (), low, high, log=True)
                values = _ratios(name, text, low, high, found[3])
            elif found := _RANGE.fullmatch(text):
                first, last = Decimal(found[1]), Decimal(found[2])
                if found[3] is None:
                    if not first < last:
                        raise InputError(f"--{name}: expected LOW:HIGH with LOW < HIGH, found {text!r}")
                    return Axis(name, (), float(first), float(last))
                values = _steps(name, text, first, last, Decimal(found[3]))
            else:
                values = tuple(item.strip() for item in text.split(","))
        except (decimal.DecimalException, OverflowError) as error:
            raise InputError(f"--{name}: expected numbers that can be computed with, found {text!r}") from error
    if not values or "" in values:
        raise InputError(f"--{name}: expected values (a,b,c or LOW:HIGH:STEP), found {value!r}")
    for item in values:
        if values.count(item) > 1:
            raise InputError(f"--{name}: expected each value once, found {item!r} more than once in {value!r}")
    return Axis(name, values)


def _text(name: str, value: object) -> str:
    """A value of a sweep file as a flag's text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)):
        return repr(value)
    raise InputError(f"--{name}: expected a text or a number, found {value!r} in the sweep file")


def from_flags(given: Sequence[str]) -> tuple[Axis, ...]:
    """Axes of --grid=NAME=VALUES.

    Raises:
      InputError: if one isn't of that form, or an axis is given twice.
    """
    axes: dict[str, Axis] = {}
    for text in given:
        name, found, values = text.partition("=")
        name = name.strip().removeprefix("--")
        if not found or not name:
            raise InputError(f"--grid: expected FLAG=VALUES (k_best=1,5,10), found {text!r}")
        if name in axes:
            raise InputError(f"--grid: expected each flag once, found {name} more than once")
        axes[name] = axis(name, values)
    return tuple(axes.values())


def from_file(path: pathlib.Path) -> tuple[dict[str, str], tuple[Grid, ...]]:
    """A sweep file: the flags that all its runs share, and its grids (`[flags]`, and `[grid]` or several `[[grid]]`).

    Raises:
      InputError: if it can't be read or isn't one.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"--sweep_file: expected a readable file, found {error.strerror} at {path}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"--sweep_file: expected TOML, found {error} in {path}") from error
    for key in data:
        if key not in ("flags", "grid"):
            raise InputError(f"--sweep_file: expected [flags] and [grid], found the key {key!r} in {path}")
    shared, tables = data.get("flags", {}), data.get("grid", [])
    tables = [tables] if isinstance(tables, dict) else tables
    if not isinstance(shared, dict) or not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
        raise InputError(f"--sweep_file: expected tables [flags] and [grid] or [[grid]], found others in {path}")
    grids = tuple(Grid(tuple(axis(name, value) for name, value in table.items())) for table in tables)
    return {name: _text(name, value) for name, value in shared.items()}, grids


def combined(grids: Sequence[Grid], axes: Sequence[Axis]) -> tuple[Grid, ...]:
    """Each grid with further axes.

    Raises:
      InputError: if an axis is there already, or there is none at all.
    """
    if not grids:
        grids = (Grid(()),)
    for grid in grids:
        for extra in axes:
            if extra.name in {one.name for one in grid.axes}:
                raise InputError(f"--grid: expected a flag that the sweep file doesn't vary, found {extra.name}")
    found = tuple(Grid((*grid.axes, *axes)) for grid in grids)
    if not any(grid.axes for grid in found):
        raise InputError("--grid: expected at least one axis (--grid=k_best=1,5,10, or --sweep_file), found none")
    return found


def grid_assignments(grids: Sequence[Grid]) -> list[Assignment]:
    """Every combination of every grid.

    Raises:
      InputError: if an axis is an interval, or they are too many.
    """
    for grid in grids:
        for one in grid.axes:
            if one.is_interval:
                raise InputError(
                    f"--{one.name}: expected values with --search=grid (LOW:HIGH:STEP, log:LOW:HIGH:COUNT), found an "
                    f"interval from {one.low:g} to {one.high:g}"
                )
    if (total := sum(grid.points for grid in grids)) > MOST_VALUES:
        raise InputError(f"--grid: expected at most {MOST_VALUES} combinations, found {total}")
    return [assignment for grid in grids for assignment in grid.assignments()]
