"""Constants of an agent: fields with a default, the reason for it and limits; each becomes a flag of `launch.train`."""

from __future__ import annotations

import dataclasses
from typing import Any

from hl_jax.checks import LARGEST, shown


def option(default: Any, why: str, **limits: Any) -> Any:
    """A configuration field: `why` is its flag's help, `limits` may hold low, high, choices, power_of_two.

    A number without limits is within `LARGEST` of 0: nothing is learned with an infinite one.
    """
    return dataclasses.field(default=default, metadata={"help": why, **limits})


def retuned(config: type[Any], name: str, default: Any) -> Any:
    """The field of another configuration with another default."""
    field = next(field for field in dataclasses.fields(config) if field.name == name)
    return dataclasses.field(default=default, metadata=field.metadata)


def check_options(config: Any) -> None:
    """Checks every field made by `option` against its limits.

    Raises:
      ValueError: naming the field, what was expected and what was found.
    """
    for field in dataclasses.fields(config):
        value, limits = getattr(config, field.name), field.metadata
        if "choices" in limits and value not in limits["choices"]:
            raise ValueError(f"--{field.name}: expected one of {', '.join(limits['choices'])}, found {value!r}")
        low, high = limits.get("low", -LARGEST), limits.get("high", LARGEST)
        if isinstance(value, (int, float)) and not low <= value <= high:
            raise ValueError(f"--{field.name}: expected a value in [{low:g}, {high:g}], found {shown(value)}")
        if limits.get("power_of_two") and value & (value - 1):
            raise ValueError(f"--{field.name}: expected a power of two, found {value!r}")
