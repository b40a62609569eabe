"""The penalty of a broken accuracy constraint: the paper (section II-B c) says "we penalize", the form is ours.

`offset + slope * missing percentage points`, as small as is safe: a network learns a gentle cost better than a cliff.

Why it is enough: let an infeasible joint action miss m points of the constraint T. Some device's accuracy is below T;
move it up along the pool's efficient models (the lower convex hull of local time over accuracy) and go on until the
constraint holds. Every point gained costs at most the slope of the hull's segment that contains T, and the last move
overshoots by at most one segment, that is by its time over N. So no feasible optimum is slower than the infeasible
action by more than slope * m + step / N, and with a factor of 1 on both none is dearer than it.
"""

from __future__ import annotations

import dataclasses
import itertools

from hl_jax.scenario import Scenario


@dataclasses.dataclass(frozen=True)
class Penalty:
    """Added to the average response time where the constraint is broken."""

    offset_ms: float = 0.0
    slope_ms: float = 0.0  # per missing percentage point of mean accuracy

    def __post_init__(self) -> None:
        if not (self.offset_ms >= 0.0 and self.slope_ms >= 0.0):
            raise ValueError(f"penalty: expected an offset and a slope of at least 0, found {self}")


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
    """The penalty that the scenario's constraint needs, times `factor`.

    The slowest device counts, under the heaviest load that the conditions may bring.
    """
    timing, slowest = scenario.timing, min(device.speed for device in scenario.devices)
    load = timing.busy_cpu_factor * timing.busy_memory_factor if scenario.dynamics else 1.0
    segments = [
        (high[1] - low[1], (high[1] - low[1]) / (high[0] - low[0]))
        for low, high in itertools.pairwise(efficient_models(scenario))
        if low[0] < scenario.constraint
    ]
    scale = factor * load / slowest
    step = max((rise for rise, _ in segments), default=0.0)
    slope = max((slope for _, slope in segments), default=0.0)
    return Penalty(offset_ms=scale * step / scenario.users, slope_ms=scale * slope)
