"""Profiles: what inferences take on a kind of machine, as measured, and the law that response times are drawn from.

A profile is a kind of machine × target (a CPU with a runtime, a GPU, a CPU at a frequency) × model: median, mean and
tail in ms, energy of an inference in mJ, memory in MB, accuracies in %. `launch/inputs/profile_files.py` reads and
writes them. A time is its median times a factor, whose inverse distribution is piecewise linear through the measured
quantiles, with the measured mean. `Q` points of such a curve.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hl_jax import checks

if TYPE_CHECKING:
    import chex

QUANTILES = {"p90_ms": 0.9, "p95_ms": 0.95, "p99_ms": 0.99, "p999_ms": 0.999}
PROBABILITIES = (0.0, 0.5, 0.75, *QUANTILES.values(), 1.0)  # of every curve; nobody publishes those at 0, 0.75 and 1
MEDIAN, MIDDLE, P90 = 1, 2, 3  # places in them
FASTEST = 0.5  # of the median: no curve's lower end lies below, an inference has to be computed
BEYOND = 10  # a quantile counts as measured if so many runs lie beyond it


@dataclasses.dataclass(frozen=True)
class Entry:
    """What one model does on one target; None: nobody measured it."""

    model: str
    p50_ms: float
    mean_ms: float | None = None
    p90_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    p999_ms: float | None = None
    energy_mj: float | None = None  # of one inference
    memory_mb: float | None = None
    top1: float | None = None  # % of ImageNet
    top5: float | None = None

    def __post_init__(self) -> None:
        checks.name(self.model, "model")
        least, before = self.p50_ms, "p50_ms"
        for field in dataclasses.fields(self)[1:]:
            value, what = getattr(self, field.name), f"{self.model}.{field.name}"
            if value is None and field.name != "p50_ms":
                continue
            checks.number(value, what, *((0.0, 100.0) if field.name.startswith("top") else (1e-6,)))
            if field.name in QUANTILES:
                checks.require(value >= least, what, f"at least {before}, {least:g}", value)
                least, before = value, field.name

    @property
    def has_tail(self) -> bool:
        """Whether any quantile above the median was measured."""
        return any(getattr(self, name) is not None for name in QUANTILES)


@dataclasses.dataclass(frozen=True)
class Target:
    """What runs models on a machine: a CPU with a runtime, a GPU, or a CPU at a frequency."""

    name: str
    entries: tuple[Entry, ...]
    runtime: str = ""
    source: str = ""
    busy_w: float | None = None  # what the machine draws while it computes here: for energies that nobody measured

    def __post_init__(self) -> None:
        checks.name(self.name, "target")
        if self.busy_w is not None:
            checks.number(self.busy_w, f"{self.name}.busy_w", 1e-6)
        _texts(self, self.name, "runtime", "source")
        checks.require(len(self.entries) >= 1, f"{self.name}.models", "at least one", len(self.entries))
        checks.distinct([entry.model for entry in self.entries], f"{self.name}.models")

    def entry(self, model: str) -> Entry:
        """One model's row.

        Raises:
          ValueError: if it isn't here.
        """
        found = {entry.model: entry for entry in self.entries}
        checks.require(model in found, "model", f"one of {', '.join(found)} on {self.name}", model)
        return found[model]


@dataclasses.dataclass(frozen=True)
class Profile:
    """A kind of machine."""

    kind: str
    targets: tuple[Target, ...]
    about: str = ""
    idle_w: float | None = None  # what the machine draws while it does nothing
    source: str = ""

    def __post_init__(self) -> None:
        checks.name(self.kind, "kind")
        _texts(self, self.kind, "about", "source")
        if self.idle_w is not None:
            checks.number(self.idle_w, "idle_w", 0.0)
        checks.require(len(self.targets) >= 1, "targets", "at least one", len(self.targets))
        checks.distinct([target.name for target in self.targets], "targets")

    @classmethod
    def from_data(cls, data: Any) -> Profile:
        """A profile from its plain data, lists where it has tuples.

        Raises:
          ValueError: naming what is missing, unknown or out of range.
        """
        checks.require(isinstance(data, Mapping), "profile", "a table", data)
        targets = []
        for one in data.get("targets", ()):
            checks.require(isinstance(one, Mapping), "targets", "a table", one)
            entries = tuple(checks.record(Entry, entry, "models") for entry in one.get("entries", ()))
            targets.append(checks.record(Target, {**one, "entries": entries}, "targets"))
        profile: Profile = checks.record(cls, {**data, "targets": tuple(targets)}, "profile")
        return profile

    def target(self, name: str) -> Target:
        """A target by its name.

        Raises:
          ValueError: if it isn't here.
        """
        found = {target.name: target for target in self.targets}
        checks.require(name in found, "target", f"one of {', '.join(found)} of {self.kind}", name)
        return found[name]

    def entry(self, target: str, model: str) -> Entry:
        """One row.

        Raises:
          ValueError: if there is no such target, or no such model on it.
        """
        return self.target(target).entry(model)

    def energy_mj(self, target: str, model: str) -> float | None:
        """What one inference draws, mJ: as measured, or the power of its target for its mean time; None: unknown.

        Raises:
          ValueError: if there is no such target, or no such model on it.
        """
        entry, busy_w = self.entry(target, model), self.target(target).busy_w
        if entry.energy_mj is not None or busy_w is None:
            return entry.energy_mj
        return busy_w * entry.p50_ms * mean_factor(self.curve(target, model))

    def curve(self, target: str, model: str) -> Curve:
        """The law of one row's times; without a tail of its own it has its target's (`typical`).

        Raises:
          ValueError: if there is no such target, or no such model on it.
        """
        return quantile_curve(self.entry(target, model), typical(self.target(target)))


def _texts(record: Target | Profile, where: str, *names: str) -> None:
    for name in names:
        text = getattr(record, name)
        # Half a surrogate pair is no character, and can't be written down.
        fine = isinstance(text, str) and not any("\ud800" <= one <= "\udfff" for one in text)
        checks.require(fine, f"{where}.{name}", "a text", text)


class Curve(NamedTuple):
    """An inverse distribution of time / median, linear in probability between its points."""

    probabilities: np.ndarray  # [Q], PROBABILITIES
    factors: np.ndarray  # [Q], never falling, 1 at 0.5


def quantile_curve(entry: Entry, fallback: Entry | None = None) -> Curve:
    """The law of a row's times, as factors of its median.

    It passes through each measured quantile. One that wasn't measured is interpolated, or equal to the highest that
    was. Beyond the highest of all, up to probability 1, it is flat: nothing is slower than what was measured.

    Its mean is the measured one: the lower end, at probability 0, is where that asks for, but from `FASTEST` to 1. If
    that isn't enough, the middle between median and p90, where nobody measured either, is moved between the two; if
    that isn't either, the mean is the nearest possible. Without a measured mean the law is as steep below the median
    as above it, up to p90.

    Args:
      entry: the row.
      fallback: another row; its shape is used if `entry` has only a median, or median and mean. Without one, such an
        entry is a point mass at its median (if its mean lies below that: as much of it as the mean needs).
    """
    shape = entry if entry.has_tail or fallback is None else fallback
    tail = {
        probability: getattr(shape, name) / shape.p50_ms
        for name, probability in QUANTILES.items()
        if getattr(shape, name) is not None
    }
    probabilities = np.array(PROBABILITIES)
    factors = np.interp(probabilities, [0.5, *tail], [1.0, *tail.values()])
    measured = entry if entry.mean_ms is not None else shape
    if measured.mean_ms is None:
        steep = (factors[P90] - 1.0) / (probabilities[P90] - probabilities[MEDIAN])
        factors[0] = np.clip(1.0 - steep * probabilities[MEDIAN], FASTEST, 1.0)
        return Curve(probabilities, factors)
    wanted = measured.mean_ms / measured.p50_ms
    # What a point adds to the mean for each 1 that it is moved: half of what lies between its neighbours.
    for place, low, high in ((0, FASTEST, 1.0), (MIDDLE, 1.0, factors[P90])):
        weight = 0.5 * (probabilities[place + 1] - probabilities[max(place - 1, 0)])
        missing = wanted - mean_factor(Curve(probabilities, factors))
        factors[place] = np.clip(factors[place] + missing / weight, low, high)
    return Curve(probabilities, factors)


def typical(target: Target) -> Entry | None:
    """The shape of a target's tails, as a row with a median of 1 ms: the median over its models of each factor.

    None if none of its models has a tail.
    """
    tailed = [entry for entry in target.entries if entry.has_tail]
    if not tailed:
        return None
    shape, least = {}, 1.0
    for name in ("mean_ms", *QUANTILES):
        factors = [getattr(entry, name) / entry.p50_ms for entry in tailed if getattr(entry, name) is not None]
        if factors:
            # Not the same models have each quantile, so that medians of them may fall.
            shape[name] = max(least if name in QUANTILES else 0.0, float(np.median(factors)))
            least = shape[name] if name in QUANTILES else least
    return Entry("typical", 1.0, **shape)


def mean_factor(curve: Curve) -> float:
    """The mean of a curve's law: exact, since it is linear between its points."""
    return float(np.trapezoid(curve.factors, curve.probabilities))


def draw(key: chex.PRNGKey, probabilities: chex.Array, factors: chex.Array, shape: Sequence[int] = ()) -> chex.Array:
    """Draws factors of the median from a curve ([Q] each), of the shape given. The key is consumed."""
    import jax  # here, since whoever only reads profiles needs no JAX
    import jax.numpy as jnp

    return jnp.interp(jax.random.uniform(key, tuple(shape)), jnp.asarray(probabilities), jnp.asarray(factors))


def measured_entry(model: str, times_ms: Sequence[float]) -> Entry:
    """A row from the times of single runs; only quantiles that at least `BEYOND` of them exceed.

    Raises:
      ValueError: if there is no time, or one that isn't above 0.
    """
    checks.require(len(times_ms) >= 1, model, "at least one time", len(times_ms))
    times = np.asarray(times_ms, float)
    measured = {
        name: _rounded(float(np.quantile(times, probability)))
        for name, probability in QUANTILES.items()
        if round(len(times) * (1.0 - probability), 6) >= BEYOND
    }
    return Entry(model, _rounded(float(np.median(times))), _rounded(float(times.mean())), **measured)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
