"""Statistics over seeds: interquartile mean and stratified bootstrap intervals (Agarwal et al. 2021).

A seed that never gets there counts as infinitely late: it is ranked last, and a statistic that it reaches is infinite.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

RESAMPLES = 2000


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the middle half along the last axis; the outermost of them count in part, so that n/2 do."""
    ordered = np.sort(values, axis=-1)
    count = values.shape[-1]
    ranks = np.arange(count)
    # How much of each rank's unit interval lies in [n/4, 3n/4].
    weights = np.clip(np.minimum(ranks + 1, 0.75 * count) - np.maximum(ranks, 0.25 * count), 0.0, 1.0)
    inside = weights > 0.0
    return ordered[..., inside] @ (weights[inside] / weights.sum())


def median(values: np.ndarray) -> np.ndarray:
    """Median along the last axis, infinities ranked last."""
    ordered = np.sort(values, axis=-1)
    count = values.shape[-1]
    low, high = ordered[..., (count - 1) // 2], ordered[..., count // 2]
    return np.where(low == high, low, 0.5 * (low + high))


def bootstrap_interval(
    strata: Sequence[np.ndarray], statistic: Callable[[np.ndarray], np.ndarray], seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of `statistic` over all values, resampling seeds within each stratum (task).

    Args:
      strata: one array of values per task.
      statistic: of the last axis.
      seed: of the resampling.
      level: coverage.
    """
    generator = np.random.default_rng(seed)
    drawn = [values[generator.integers(0, len(values), (RESAMPLES, len(values)))] for values in strata]
    results = np.sort(statistic(np.concatenate(drawn, axis=1)))
    tail = (1.0 - level) / 2.0
    # By rank, not interpolated: infinities have no midpoints.
    low, high = int(np.floor(tail * (RESAMPLES - 1))), int(np.ceil((1.0 - tail) * (RESAMPLES - 1)))
    return float(results[low]), float(results[high])


@dataclasses.dataclass(frozen=True)
class Spread:
    """A figure over one task's seeds; None where it is infinite (too many never got there) or nothing is known."""

    seeds: int
    succeeded: int  # of them
    median: float | None
    median_interval: tuple[float | None, float | None]  # 95 %
    iqm: float | None
    iqm_interval: tuple[float | None, float | None]


def summarize(values: Sequence[float | None]) -> Spread:
    """Median, IQM and their 95 % intervals of one task's seeds; None is a seed that never got there."""
    if not values:
        return Spread(0, 0, None, (None, None), None, (None, None))
    numbers = np.array([np.inf if value is None else float(value) for value in values])

    def plain(value: float) -> float | None:
        return None if not np.isfinite(value) else round(float(value), 3)

    def interval(statistic: Callable[[np.ndarray], np.ndarray]) -> tuple[float | None, float | None]:
        low, high = bootstrap_interval([numbers], statistic)
        return plain(low), plain(high)

    return Spread(
        seeds=len(numbers),
        succeeded=int(np.isfinite(numbers).sum()),
        median=plain(float(median(numbers))),
        median_interval=interval(median),
        iqm=plain(float(interquartile_mean(numbers))),
        iqm_interval=interval(interquartile_mean),
    )


@dataclasses.dataclass(frozen=True)
class Ratio:
    """A median over another; None where it isn't known, or is infinite."""

    value: float | None
    interval: tuple[float | None, float | None]  # 95 %, None at its upper end: it has none


def ratio_of_medians(above: Sequence[float | None], below: Sequence[float | None], seed: int = 0) -> Ratio:
    """Median of `above` over that of `below`, of seeds that have nothing to do with one another; None is infinite.

    Each is resampled by itself. Where both medians are infinite nothing is known: the more resamples are so, the less
    the interval says, and beyond its own 5 % it is told as unknown.
    """

    def numbers(values: Sequence[float | None]) -> np.ndarray:
        return np.array([np.inf if value is None else float(value) for value in values])

    def plain(value: float) -> float | None:
        return None if not np.isfinite(value) else round(float(value), 4)

    if not above or not below:
        return Ratio(None, (None, None))
    first, second = numbers(above), numbers(below)
    generator = np.random.default_rng(seed)
    drawn = [median(values[generator.integers(0, len(values), (RESAMPLES, len(values)))]) for values in (first, second)]
    with np.errstate(invalid="ignore"):
        found, middle = drawn[0] / drawn[1], median(first) / median(second)
    known = np.sort(found[~np.isnan(found)])
    if len(known) < 0.95 * RESAMPLES:
        return Ratio(plain(float(middle)), (None, None))
    low, high = known[int(0.025 * (len(known) - 1))], known[int(np.ceil(0.975 * (len(known) - 1)))]
    return Ratio(plain(float(middle)), (plain(float(low)), plain(float(high))))
