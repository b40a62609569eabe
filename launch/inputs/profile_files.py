"""Reads and writes profile files (`data/profiles/*.toml`): one kind of machine each, every field checked.

Whatever text a profile has, what is written is read back the same. Each error is one line: which key, what was
expected, what was found, in which file.
"""

from __future__ import annotations

import dataclasses
import pathlib
import tomllib
from collections.abc import Mapping
from typing import Any, TypeVar

from hl_jax.checks import shown
from hl_jax.profiles import Entry, Profile, Target
from launch.host.errors import InputError
from launch.host.files import located, write_atomically

Record = TypeVar("Record")
SHIPPED = pathlib.Path("data/profiles")
LONGEST_FILE = 2**24  # bytes; the longest profile that comes along has 6,000


def read_text(path: pathlib.Path, what: str) -> str:
    """A text file's content.

    Raises:
      InputError: if it can't be read, is too long, or isn't UTF-8.
    """
    try:
        size = path.stat().st_size
        if size > LONGEST_FILE:
            raise InputError(f"{what}: expected at most {LONGEST_FILE} bytes, found {size} in {path}")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{what}: expected UTF-8 text, found byte {error.start} that is not, in {path}") from error
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        found = getattr(error, "strerror", None) or error
        raise InputError(f"{what}: expected a readable file, found {found} at {str(path)!r}") from error


IN_FILE = {"entries": "models"}  # what a file calls a field otherwise


def _record(kind: type[Record], values: Mapping[str, Any], where: str) -> Record:
    """A record of `hl_jax.profiles`, whose own checks don't know where in the file it stands."""
    fields = {IN_FILE.get(field.name, field.name): field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise ValueError(f"{where}: expected some of {', '.join(fields)}, found the key {shown(key)}")
    for key, field in fields.items():
        if key not in values and field.default is dataclasses.MISSING:
            raise ValueError(f"{where}: expected the key {key!r}, found none")
    try:
        return kind(**{fields[key].name: value for key, value in values.items()})
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _tables(values: object, key: str, where: str) -> list[Mapping[str, Any]]:
    """A table's list of at least one table."""
    value = values.get(key) if isinstance(values, Mapping) else None
    if not isinstance(value, list) or not value or not all(isinstance(one, Mapping) for one in value):
        raise ValueError(f"{where}{key}: expected a list of at least one table, found {shown(value)}")
    return value


def _profile(data: Mapping[str, Any]) -> Profile:
    targets = []
    for number, target in enumerate(_tables(data, "targets", "")):
        where = f"targets[{number}]"
        entries = tuple(
            _record(Entry, row, f"{where}.models[{index}]")
            for index, row in enumerate(_tables(target, "models", f"{where}."))
        )
        targets.append(_record(Target, {**target, "models": entries}, where))
    return _record(Profile, {**data, "targets": tuple(targets)}, "profile")


def load_profile(path: pathlib.Path) -> Profile:
    """Reads a profile; `data/profiles/…` is found from any folder.

    Raises:
      InputError: where the file or a value in it can't be used.
    """
    path = located(path)
    text = read_text(path, "profile")
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # the parser's own errors are ValueErrors
        raise InputError(f"profile: expected TOML, found {error} in {path}") from error
    try:
        return _profile(data)
    except ValueError as error:
        raise InputError(f"{error} in {path}") from error


def shipped_profiles() -> list[pathlib.Path]:
    """The profiles that come with hl_jax, by name."""
    return sorted(located(SHIPPED).glob("*.toml"))


_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _quoted(text: str) -> str:
    """A text as TOML's basic string, on one line; what can't be seen is escaped."""
    written = (_ESCAPES.get(one) or (one if one.isprintable() else f"\\U{ord(one):08X}") for one in text)
    return f'"{"".join(written)}"'


def _value(value: str | float) -> str:
    # Not `repr` of the number itself: NumPy's are floats, too.
    return _quoted(value) if isinstance(value, str) else repr(value if isinstance(value, int) else float(value))


def _pairs(record: Any, *left_out: str) -> list[str]:
    """`key = value` of what a record has beside its defaults."""
    return [
        f"{field.name} = {_value(getattr(record, field.name))}"
        for field in dataclasses.fields(record)
        if field.name not in left_out and getattr(record, field.name) not in (None, "")
    ]


def as_toml(profile: Profile) -> str:
    """A profile as the text of its file: a line for each model."""
    lines = _pairs(profile, "targets")
    for target in profile.targets:
        lines += ["", "[[targets]]", *_pairs(target, "entries"), "models = ["]
        lines += [f"  {{ {', '.join(_pairs(entry))} }}," for entry in target.entries]
        lines.append("]")
    return "\n".join(lines) + "\n"


def save_profile(path: pathlib.Path, profile: Profile) -> None:
    """Writes a profile's file, or leaves what is there as it was.

    Raises:
      InputError: if it can't be written.
    """
    write_atomically(path, as_toml(profile).encode())
