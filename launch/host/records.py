"""Typed records as plain data and back, checked field by field."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from launch.host.errors import InputError

Record = TypeVar("Record")


def as_data(record: Any) -> Any:
    """A record (a dataclass of dataclasses, tuples, texts and numbers) as what JSON can hold."""
    return msgspec.to_builtins(record, str_keys=True)


def from_data(kind: type[Record], data: object, where: str) -> Record:
    """A record from plain data.

    Args:
      kind: a dataclass.
      data: as `as_data` gives it, or as JSON's reader does.
      where: what a person calls the data, its file first.

    Raises:
      InputError: naming the field that is missing, unknown, or holds something else.
    """
    try:
        record = msgspec.convert(data, type=kind, strict=True, str_keys=True)
    except msgspec.ValidationError as error:
        text = str(error).replace(" - at `$", " at `").replace(", got ", ", found ")
        raise InputError(f"{where}: {text[:1].lower()}{text[1:]}") from error
    if unknown := _lost(data, as_data(record), ""):
        raise InputError(f"{where}: expected fields of this version, found an unknown one at `{unknown}`")
    return record


def _lost(data: object, kept: object, path: str) -> str:
    """Where data holds a name that its record doesn't; "" if nowhere."""
    if isinstance(data, dict) and isinstance(kept, dict):
        pairs = [(value, kept.get(name), f"{path}.{name}", name in kept) for name, value in data.items()]
    elif isinstance(data, (list, tuple)) and isinstance(kept, (list, tuple)):
        pairs = [(value, kept[place], f"{path}[{place}]", True) for place, value in enumerate(data)]
    else:
        return ""
    return next(
        (
            place if not known else found
            for value, other, place, known in pairs
            if not known or (found := _lost(value, other, place))
        ),
        "",
    )
