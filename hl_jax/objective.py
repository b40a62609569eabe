"""What is wanted: the least average response time with an average accuracy that keeps a constraint; and a penalty.

The paper (section II-B c) says "we penalize" of a broken constraint, the form is ours. The penalty is as small as is
safe, because a network learns a gentle cost better than a cliff. Let g(x) be the least local time of an
accuracy of x % (the lower convex hull of the pool's models). An infeasible joint action misses m points of the
constraint T. Move its least accurate devices up along the hull until the constraint holds: since g is convex, that
costs at most g(T) - g(T - m) on average, and the last move overshoots by at most one segment, its time over N. So some
feasible joint action is slower by no more than

    g(T) - g(T - m) + longest segment / N,

and with that as the penalty (times a factor of at least 1) giving up accuracy never pays. Edge and cloud run the first
model. Where that is less accurate than T, an offloaded device may have to move up too, and there it took perhaps less
than g of its accuracy: at least e, a lone task's time at edge or cloud. Its move costs g(first) - e more, which is
added; where it leaves, others wait less. Where the first model keeps the constraint, nobody moves away from a node.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import TYPE_CHECKING

import numpy as np

from hl_jax import checks
from hl_jax.scenario import ModelPool, Scenario

if TYPE_CHECKING:
    import chex

OBJECTIVES = ("time", "energy", "both")  # of a user's own fleet
CONSTRAINTS = ("Min", "80", "85", "89", "Max")  # Table V, in its order
PENALTY_FACTOR = 2.0  # of the least penalty with which giving up accuracy never pays, unless an agent has its own
BUSIEST = 0.9  # load up to which waiting counts in the penalty
CLEAR = 0.1  # part of the least local time that a broken constraint costs at least
ROUNDING = 1e-3  # percentage points by which a mean accuracy may miss the constraint: float32 sums, printed numbers


def meets(accuracy: chex.Array, constraint: chex.Array | float) -> chex.Array:
    """Whether a mean accuracy (%) keeps a constraint (%), NumPy's or JAX's, of any shape."""
    return accuracy >= constraint - ROUNDING


def penalty_ms(
    accuracy: chex.Array, constraint: chex.Array, missing: chex.Array, penalties_ms: chex.Array
) -> chex.Array:
    """What a joint action's mean accuracy (%) costs beside its response time: 0 where it keeps the constraint. [] ms.

    `missing` and `penalties_ms` [P] are a `Penalty`'s points as arrays.
    """
    import jax.numpy as jnp  # here, since whoever only reads a constraint needs no JAX

    penalty = jnp.interp(jnp.maximum(constraint - accuracy, 0.0), missing, penalties_ms)
    return jnp.where(meets(accuracy, constraint), 0.0, penalty)


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


@dataclasses.dataclass(frozen=True)
class Goal:
    """What is to be least on average: `time` (ms), a device's `energy` (mJ), or `both`, a weight between."""

    objective: str = "time"
    energy_weight: float = 0.5  # with `both`: a mJ's part of the cost; a ms has the rest

    def __post_init__(self) -> None:
        checks.require(self.objective in OBJECTIVES, "objective", ", ".join(OBJECTIVES), self.objective)
        checks.number(self.energy_weight, "energy_weight", 0.0, 1.0)

    @property
    def weights(self) -> tuple[float, float]:
        """What a ms and what a mJ cost."""
        weight = {"time": 0.0, "energy": 1.0}.get(self.objective, self.energy_weight)
        return 1.0 - weight, weight


@dataclasses.dataclass(frozen=True)
class Penalty:
    """Added to the average response time where the constraint is broken: linear between the given points."""

    missing: tuple[float, ...] = (0.0,)  # percentage points, ascending from 0
    ms: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        ascending = all(low <= high for low, high in itertools.pairwise(self.missing))
        if len(self.missing) != len(self.ms) or not self.missing or self.missing[0] != 0.0 or not ascending:
            raise ValueError(f"penalty: expected points ascending from 0 and as many times, found {self}")

    def at(self, missing: float) -> float:
        """The penalty of `missing` percentage points, ms."""
        return float(np.interp(missing, self.missing, self.ms))


def straight_penalty(offset_ms: float, slope_ms: float) -> Penalty:
    """A penalty of `offset_ms` and `slope_ms` more for each missing percentage point."""
    return Penalty(missing=(0.0, 100.0), ms=(offset_ms, offset_ms + 100.0 * slope_ms))


def efficient_models(scenario: Scenario) -> list[tuple[float, float]]:
    """Corners (accuracy in %, local ms at speed 1) of the pool's lower convex hull, least accurate first."""
    hull: list[tuple[float, float]] = []
    for point in sorted(zip(scenario.pool.accuracy, scenario.timing.local_ms, strict=True)):
        while hull and (hull[-1][1] >= point[1] or (len(hull) > 1 and not _turns_up(hull[-2], hull[-1], point))):
            hull.pop()
        hull.append(point)
    return hull


def _turns_up(first: tuple[float, float], second: tuple[float, float], third: tuple[float, float]) -> bool:
    """Whether the way from `second` to `third` is steeper than from `first` to `second`."""
    return (second[1] - first[1]) * (third[0] - second[0]) < (third[1] - second[1]) * (second[0] - first[0])


def sufficient_penalty(scenario: Scenario, factor: float = 1.0) -> Penalty:
    """The penalty that the scenario's constraint needs, times `factor`, in as many points as the pool has models.

    The slowest device counts, under the heaviest load that the conditions may bring.
    """
    timing, slowest = scenario.timing, min(scenario.speeds)
    load = timing.busy_cpu_factor * timing.busy_memory_factor if scenario.dynamics else 1.0
    if scenario.traffic is not None:
        # Tasks wait for one another: what a slower model costs grows as in a queue of that load.
        busiest = max(one.per_ms for one in scenario.traffic.arrivals) * max(timing.local_ms) / slowest
        load /= 1.0 - min(busiest, BUSIEST)
    scale = factor * load / slowest
    accuracy, local_ms = np.array(efficient_models(scenario)).T
    constraint = max(scenario.constraint, accuracy[0])
    at_constraint = np.interp(constraint, accuracy, local_ms)
    below = accuracy < constraint
    # The segment that the constraint lies in counts whole: a device can't run half of a model.
    reach = min(int(below.sum()) + 1, len(accuracy))
    longest = max(np.diff(local_ms[:reach]), default=0.0)
    missing = np.concatenate([[0.0], (constraint - accuracy[below])[::-1]])
    # One device may count for more than others in the mean accuracy, and so miss the constraint by more.
    least = longest * max(scenario.accuracy_weights, default=1.0) / scenario.users
    if min(scenario.pool.accuracy) < scenario.constraint:
        # Where models of different accuracy take much the same time, noise mustn't hide what breaks the constraint.
        least = max(least, CLEAR * local_ms[0])
    ms = scale * (np.concatenate([[0.0], (at_constraint - local_ms[below])[::-1]]) + least)
    first = scenario.pool.accuracy[0]
    if scenario.offloading and first < scenario.constraint:
        alone = min(timing.edge_ms, timing.cloud_ms)
        ms += max(scale * np.interp(first, accuracy, local_ms) - factor * alone, 0.0)
    # Always the same number of points, so that a compiled program serves every constraint.
    padding = (0, len(scenario.pool.names) - len(missing) + 1)
    missing, ms = np.pad(missing, padding, "edge"), np.pad(ms, padding, "edge")
    return Penalty(missing=tuple(missing.tolist()), ms=tuple(ms.tolist()))
