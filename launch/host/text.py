"""Numbers as people read them."""

from __future__ import annotations


def counted(number: int, what: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def fixed(value: float, digits: int) -> str:
    """A number with so many decimals; one that rounds to zero has no sign."""
    return f"{round(value, digits) + 0.0:.{digits}f}"
