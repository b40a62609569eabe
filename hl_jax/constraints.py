"""The paper's accuracy constraints by name: *Min* (none), a percentage, *Max* (the best the pool can reach)."""

from __future__ import annotations

import itertools
import math

from hl_jax.scenario import ModelPool, Scenario

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


def steepest_trade(scenario: Scenario) -> float:
    """Most ms that a device saves for one percentage point of its model's accuracy, along the pool's efficient models.

    The efficient models are the corners of the lower convex hull of local time over accuracy; the slowest device
    counts. A penalty whose slope is above this can't be outweighed by giving up accuracy.
    """
    slowest = min(device.speed for device in scenario.devices)
    points = sorted(zip(scenario.pool.accuracy, scenario.timing.local_ms, strict=True))
    hull: list[tuple[float, float]] = []
    for point in points:
        # A corner that lies on or above the line from its predecessor to this point is no corner.
        while hull and (
            hull[-1][1] >= point[1] or (len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-2], point))
        ):
            hull.pop()
        hull.append(point)
    slopes = [_slope(low, high) for low, high in itertools.pairwise(hull)]
    return max(slopes, default=0.0) / slowest


def _slope(low: tuple[float, float], high: tuple[float, float]) -> float:
    return (high[1] - low[1]) / (high[0] - low[0])
