"""Typed records as plain data and back, checked field by field."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from launch.host.errors import InputError

Record = TypeVar("Record")


def as_data(record: Any) -> Any:
    """A record (a dataclass of dataclasses, sequences, mappings, texts and numbers) as what JSON can hold."""
    # By its fields: msgspec, which also makes records, leaves out those that have their defaults.
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {field.name: as_data(getattr(record, field.name)) for field in dataclasses.fields(record)}
    if isinstance(record, Mapping):
        return {str(name): as_data(value) for name, value in record.items()}
    if isinstance(record, (list, tuple)):
        return [as_data(value) for value in record]
    return record


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
        unknown = next((f"{path}.{name}" for name in data if str(name) not in kept), "")
        pairs = [(value, kept.get(str(name)), f"{path}.{name}") for name, value in data.items()]
    elif isinstance(data, (list, tuple)) and isinstance(kept, (list, tuple)):
        unknown, pairs = "", [(value, kept[place], f"{path}[{place}]") for place, value in enumerate(data)]
    else:
        return ""
    return unknown or next((found for value, other, place in pairs if (found := _lost(value, other, place))), "")
