"""The paper's accuracy constraints by name: *Min* (none), a percentage, *Max* (the best the pool can reach)."""

from __future__ import annotations

import math

from hl_jax.scenario import ModelPool

CONSTRAINTS = ("Min", "80", "85", "89", "Max")  # Table V, in its order


def constraint_value(constraint: str | float, pool: ModelPool) -> float:
    """Least mean accuracy that a constraint demands, %.

    Args:
      constraint: `Min`, `Max` (in any case), or a percentage as a number or its text.
      pool: the models, whose best accuracy is *Max*.

    Raises:
      ValueError: if it is none of these, or more than the pool can reach.
    """
    best = max(pool.accuracy)
    text = str(constraint).strip()
    named = {"min": 0.0, "max": best}
    if text.lower() in named:
        return named[text.lower()]
    try:
        value = math.nan if isinstance(constraint, bool) else float(text)
    except ValueError:
        value = math.nan
    # The margin lets through a best accuracy that was printed and read back.
    if not 0.0 <= value <= best + 1e-6:
        raise ValueError(f"constraint: expected Min, Max or a number in [0, {best:g}] (%), found {constraint!r}")
    return min(value, best)


def constraint_label(constraint: str | float) -> str | float:
    """How a valid constraint is written in tables and files: `Min`, `Max`, or the number (85 rather than 85.0)."""
    text = str(constraint).strip()
    if text.lower() in ("min", "max"):
        return text.capitalize()
    return int(float(text)) if float(text).is_integer() else float(text)
