"""Whether two settings differ, from the steps that their seeds needed: Mann and Whitney's test, tasks as strata.

Steps are only ranked, so that a seed that never got there is simply later than all that did. The test is exact: under
the null hypothesis every way of dealing a task's steps to the two settings is as likely. Holm's correction keeps the
probability of any wrong "they differ" among all comparisons of a sweep below `LEVEL`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np

from hl_jax.statistics import RESAMPLES

# Below the customary 5 %: it bounds how many sweeps without any difference report one, and a difference of two times
# between ten seeds each is still found nearly always (tests/hl_jax/test_comparison.py).
LEVEL = 0.025
MOST_EXACT = 400  # values over all strata; beyond, the normal approximation is as good

Stratum = tuple[np.ndarray, np.ndarray]  # steps of the two settings' seeds in one task; infinite: never


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How a second setting compares with a first."""

    improvement: float  # probability that the second needs fewer steps, a tie counting half; mean over the strata
    interval: tuple[float, float]  # 95 % stratified bootstrap interval of it
    p_value: float
    adjusted: float  # the p-value after Holm's correction for all that could be decided; 1 where this one can't
    least_adjusted: float  # the smallest that these steps could have given, as the smallest of all
    decidable: bool  # whether any way of dealing these steps could count, were it the only comparison

    @property
    def decided(self) -> bool:
        return self.adjusted <= LEVEL


def improvement(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Probability that a value of `second` is less than one of `first`, a tie counting half; over the last axes."""
    one, other = first[..., :, None], second[..., None, :]
    return np.mean((other < one) + 0.5 * (other == one), axis=(-2, -1))


def doubled_ranks(values: np.ndarray) -> np.ndarray:
    """Twice the midranks (1..n, ties sharing their mean), which are integers."""
    ordered = np.sort(values)
    return np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") + 1


@functools.lru_cache(maxsize=512)
def _rank_sums(ranks: tuple[int, ...], drawn: int) -> np.ndarray:
    """Probability of each sum of `drawn` of these ranks, if all choices are as likely."""
    ways = np.zeros((drawn + 1, sum(ranks) + 1))
    ways[0, 0] = 1.0
    for rank in ranks:
        ways[1:, rank:] += ways[:-1, : ways.shape[1] - rank].copy()
    return ways[drawn] / math.comb(len(ranks), drawn)


@dataclasses.dataclass(frozen=True)
class _Statistic:
    """The sum over strata of Mann and Whitney's U, in doubled ranks: what was observed, and what might have been."""

    observed: int
    mean: int
    sums: np.ndarray | None  # probability of each sum; None: so many values that the normal distribution serves
    deviation: float  # standard deviation

    def p_value(self, distance: float) -> float:
        """Two-sided p-value of a sum so far from the mean."""
        if self.sums is None:
            return (
                1.0 if self.deviation == 0.0 else math.erfc(max(distance - 1.0, 0.0) / math.sqrt(2.0) / self.deviation)
            )
        return float(min(self.sums[np.abs(np.arange(len(self.sums)) - self.mean) >= distance].sum(), 1.0))

    @property
    def farthest(self) -> float:
        """The largest distance from the mean that these values allow, however they are dealt."""
        if self.sums is None:
            return math.inf
        return float(np.abs(np.flatnonzero(self.sums > 0.0) - self.mean).max())


def _statistic(strata: Sequence[Stratum]) -> _Statistic:
    ranks = [doubled_ranks(np.concatenate(stratum)) for stratum in strata]
    sizes = [(len(first), len(second)) for first, second in strata]
    observed = sum(int(rank[:n].sum()) for rank, (n, _) in zip(ranks, sizes, strict=True))
    mean = sum(n * (n + m + 1) for n, m in sizes)  # of doubled ranks
    variance = sum(
        n * m * float(np.var(rank, ddof=1)) / (n + m)
        for rank, (n, m) in zip(ranks, sizes, strict=True)
        if len(rank) > 1
    )
    sums = None
    if sum(len(rank) for rank in ranks) <= MOST_EXACT:
        sums = np.ones(1)
        for rank, (n, _) in zip(ranks, sizes, strict=True):
            sums = np.convolve(sums, _rank_sums(tuple(sorted(rank.tolist())), n))
    return _Statistic(observed, mean, sums, math.sqrt(variance))


def rank_test(strata: Sequence[Stratum]) -> float:
    """Two-sided p-value of the null hypothesis that both settings' steps come from one distribution in each stratum.

    The statistic is the sum over strata of Mann and Whitney's U.
    """
    found = _statistic(strata)
    return found.p_value(abs(found.observed - found.mean))


def least_p_value(strata: Sequence[Stratum]) -> float:
    """The smallest p-value that these very steps could give, however they were dealt to the two settings.

    Two or three seeds, or seeds most of which never got there, can't show any difference.
    """
    found = _statistic(strata)
    return found.p_value(found.farthest)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """P-values corrected for how many they are (Holm 1979): one at most `LEVEL` is wrong with at most that chance."""
    values = np.asarray(p_values, float)
    order = np.argsort(values, kind="stable")
    steps = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(steps, 1.0)
    return corrected


def improvement_interval(strata: Sequence[Stratum], seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean probability of improvement, resampling seeds within each stratum."""
    generator = np.random.default_rng(seed)
    total = np.zeros(RESAMPLES)
    for first, second in strata:
        drawn = [values[generator.integers(0, len(values), (RESAMPLES, len(values)))] for values in (first, second)]
        total += improvement(*drawn)
    low, high = np.percentile(total / len(strata), [2.5, 97.5])
    return float(low), float(high)


def compare(pairs: Sequence[Sequence[Stratum]]) -> list[Comparison]:
    """Compares pairs of settings, each given by the tasks that both were run in.

    The correction is for all of them that can be decided at all (Tarone 1990): which ones these are follows from their
    steps without saying whose they are, and what can't be called different can't be called so wrongly.
    """
    statistics = [_statistic(strata) for strata in pairs]
    p_values = [one.p_value(abs(one.observed - one.mean)) for one in statistics]
    least = [one.p_value(one.farthest) for one in statistics]
    testable = [index for index, smallest in enumerate(least) if smallest <= LEVEL]
    adjusted = np.ones(len(pairs))
    adjusted[testable] = holm([p_values[index] for index in testable])
    return [
        Comparison(
            improvement=float(np.mean([improvement(*stratum) for stratum in strata])),
            interval=improvement_interval(strata),
            p_value=p_values[index],
            adjusted=float(adjusted[index]),
            least_adjusted=min(least[index] * max(len(testable), 1), 1.0),
            decidable=least[index] <= LEVEL,
        )
        for index, strata in enumerate(pairs)
    ]
