"""What plain records check of their values: each says what was expected, what was found, and where."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

LARGEST = 1e9  # of any number in a scenario; beyond it float32 times and their sums lose their meaning


def shown(value: object) -> str:
    """A found value as an error message quotes it: one short line."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print integers of more than 4,300 digits
        text = "an integer too long to print"
    return text if len(text) <= 80 else text[:77] + "..."


def require(ok: bool, what: str, expected: str, found: object) -> None:
    """Raises ValueError unless `ok`."""
    if not ok:
        raise ValueError(f"{what}: expected {expected}, found {shown(found)}")


def number(value: object, what: str, low: float, high: float = LARGEST) -> None:
    """Raises ValueError unless `value` is a number within these limits."""
    fine = isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
    require(fine, what, f"a number in [{low:g}, {high:g}]", value)


def integer(value: object, what: str, low: int, high: int = int(LARGEST)) -> None:
    """Raises ValueError unless `value` is an integer within these limits."""
    fine = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    require(fine, what, f"an integer in [{low}, {high}]", value)


def name(value: object, what: str) -> None:
    """Raises ValueError unless `value` is a name: printable, and not only blanks."""
    require(isinstance(value, str) and value.isprintable() and value.strip() != "", what, "a name", value)


def distinct(names: Sequence[str], what: str) -> None:
    """Raises ValueError if a name is there twice."""
    repeated = [one for one, times in collections.Counter(names).items() if times > 1]
    require(not repeated, what, "distinct names", repeated)


def tuples(value: Any) -> Any:
    """JSON's lists as the tuples that the records hold."""
    return tuple(tuples(item) for item in value) if isinstance(value, list) else value


def record(kind: type[Any], data: Any, what: str) -> Any:
    """One record from plain data that names its fields."""
    require(isinstance(data, Mapping), what, "a table", data)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    unknown = [name for name in data if name not in fields]
    require(not unknown, what, f"some of {', '.join(fields)}", unknown)
    needed = [name for name, field in fields.items() if field.default is dataclasses.MISSING and name not in data]
    require(not needed, what, f"values for {', '.join(needed)}", list(data))
    return kind(**{name: tuples(value) for name, value in data.items()})
