"""Reads a user's TOML and JSON files as tables of keys. Each error is one line: what was expected, found, and where."""

from __future__ import annotations

import json
import pathlib
import tomllib
from collections.abc import Callable, Mapping
from typing import TypeVar

from hl_jax.checks import shown
from launch.host.errors import InputError

Record = TypeVar("Record")


def read(path: pathlib.Path, what: str) -> dict[str, object]:
    """A TOML or JSON file's table of keys."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{what}: expected UTF-8 text, found byte {error.start} that is not, in {path}") from error
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        found = getattr(error, "strerror", None) or error
        raise InputError(f"{what}: expected a readable file, found {found} at {str(path)!r}") from error
    try:
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # the parsers' own errors are ValueErrors
        form = "JSON" if path.suffix == ".json" else "TOML"
        raise InputError(f"{what}: expected {form}, found {error} in {path}") from error
    if not isinstance(data, dict):
        raise InputError(f"{what}: expected a table of keys, found {shown(data)} in {path}")
    return data


def keys(
    data: object, path: pathlib.Path, where: str, needed: set[str], optional: set[str] | None = None
) -> Mapping[str, object]:
    """Checks a table's keys; with `optional` None, further keys are allowed and ignored."""
    if not isinstance(data, Mapping):
        raise InputError(f"{where}: expected a table, found {shown(data)} in {path}")
    for key in sorted(needed - data.keys()):
        raise InputError(f"{where}: expected the key {key!r}, found none in {path}")
    unknown = data.keys() - needed - optional if optional is not None else set()
    for key in sorted(unknown):
        known = ", ".join(sorted(needed | (optional or set())))
        raise InputError(f"{where}: expected one of {known}, found the key {shown(key)} in {path}")
    return data


def typed(record: Callable[..., Record], values: Mapping[str, object], path: pathlib.Path, where: str = "") -> Record:
    """Builds a record of hl_jax; its own checks know nothing of files, so the place is added here."""
    try:
        return record(**values)
    except ValueError as error:
        raise InputError(f"{where}{error} in {path}") from error


def sequence(value: object, path: pathlib.Path, where: str) -> list[object]:
    """A list of at least one."""
    if not isinstance(value, list) or not value:
        raise InputError(f"{where}: expected a list of at least one, found {shown(value)} in {path}")
    return value


def beside(path: pathlib.Path, value: object, what: str) -> pathlib.Path:
    """A file that the scenario at `path` names, relative to itself."""
    if not isinstance(value, str) or not value:
        raise InputError(f"{what}: expected the path of a file, found {shown(value)} in {path}")
    return path.parent / value
