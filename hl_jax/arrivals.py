"""When devices make requests, and what is asked of the answers: a scenario's traffic as plain data.

Without traffic all devices ask at one instant, once a step (the paper). With it a step is a control period under one
standing joint decision; each device asks at its own times, and tasks queue at the nodes. Times are ms.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any

from hl_jax import checks

KINDS = ("periodic", "poisson", "gamma", "trace")
LATE = ("counts", "dropped")
OBJECTIVES = ("mean", "p50", "p90", "p95", "p99", "misses")
MOST_STAMPS = 10**7
GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0  # multiples of it spread evenly over [0, 1), however many there are
LONGEST = 60_000.0  # a control period, ms
LARGEST_LOST = 1e7  # ms that a request without a result may count
LEAST_REQUESTS = 0.01  # of all devices in a control period, on average: a step lasts until one is over
MOST_REQUESTS = 10_000  # of a device in one control period
MOST_PERIODS = 100_000  # control periods that traces last for


@dataclasses.dataclass(frozen=True)
class Arrivals:
    """How one device's requests come: `periodic`, `poisson`, `gamma` (in bursts), or `trace` (time stamps)."""

    kind: str = "poisson"
    interval_ms: float = 1000.0  # mean time between requests; of a trace its own
    jitter_ms: float = 0.0  # a periodic request is late by up to so much
    phase_ms: float | None = None  # of a periodic device's first request; None: its own, spread over the interval
    burstiness: float = 1.0  # coefficient of variation of gamma's gaps: 1 is Poisson's, more comes in bursts
    stamps_ms: tuple[float, ...] = ()  # of a trace, from its start, ascending
    length_ms: float = 0.0  # after which a trace starts again

    def __post_init__(self) -> None:
        checks.require(self.kind in KINDS, "kind", ", ".join(KINDS), self.kind)
        checks.number(self.interval_ms, "interval_ms", 1.0)
        checks.number(self.jitter_ms, "jitter_ms", 0.0, self.interval_ms)
        checks.number(self.burstiness, "burstiness", 0.01, 20.0)
        if self.phase_ms is not None:
            checks.number(self.phase_ms, "phase_ms", 0.0, self.interval_ms)
        for field, kind in (("jitter_ms", "periodic"), ("phase_ms", "periodic"), ("burstiness", "gamma")):
            mine = getattr(self, field) == type(self).__dataclass_fields__[field].default
            checks.require(self.kind == kind or mine, field, f"none of {kind} requests' for {self.kind} ones", field)
        if self.kind == "trace":
            self._check_stamps()
        else:
            checks.require(not self.stamps_ms, "stamps_ms", f"none for {self.kind} requests", len(self.stamps_ms))

    def _check_stamps(self) -> None:
        checks.require(0 < len(self.stamps_ms) <= MOST_STAMPS, "stamps_ms", f"1 to {MOST_STAMPS}", len(self.stamps_ms))
        checks.number(self.length_ms, "length_ms", 1.0, 1e12)
        for index, stamp in enumerate(self.stamps_ms):
            checks.number(stamp, f"stamps_ms[{index}]", 0.0, self.length_ms)
        for index, (one, following) in enumerate(itertools.pairwise(self.stamps_ms)):
            checks.require(one <= following, f"stamps_ms[{index + 1}]", f"at least {one:g}", following)

    @property
    def variation(self) -> float:
        """Coefficient of variation of the gaps."""
        return {"periodic": 0.0, "poisson": 1.0}.get(self.kind, self.burstiness)

    def phase(self, device: int) -> float:
        """When the first request of a periodic device is made, ms, if it is the device with this number."""
        return self.interval_ms * (device * GOLDEN % 1.0) if self.phase_ms is None else self.phase_ms

    @property
    def per_ms(self) -> float:
        """Mean requests per ms."""
        return len(self.stamps_ms) / self.length_ms if self.kind == "trace" else 1.0 / self.interval_ms


@dataclasses.dataclass(frozen=True)
class Bandwidth:
    """What a link carries, Mbit/s: from each moment on; after `length_ms` from the start again."""

    mbps: tuple[float, ...]
    since_ms: tuple[float, ...] = (0.0,)
    length_ms: float | None = None  # None: the last rate stays

    def __post_init__(self) -> None:
        count = len(self.mbps)
        checks.require(1 <= count <= MOST_STAMPS, "mbps", "at least one rate", count)
        checks.require(len(self.since_ms) == count, "since_ms", f"one per rate ({count})", len(self.since_ms))
        for rate in self.mbps:
            checks.number(rate, "mbps", 0.0, 1e6)
        checks.require(max(self.mbps) > 0.0, "mbps", "a rate above 0", 0.0)
        for moment in self.since_ms:
            checks.number(moment, "since_ms", 0.0, 1e12)
        ascending = all(one < following for one, following in itertools.pairwise(self.since_ms))
        checks.require(self.since_ms[0] == 0.0 and ascending, "since_ms", "moments ascending from 0", self.since_ms)
        if self.length_ms is not None:
            low = math.nextafter(self.since_ms[-1], math.inf)
            checks.number(self.length_ms, "length_ms", max(low, 1.0), 1e12)


@dataclasses.dataclass(frozen=True)
class Traffic:
    """A fleet's requests, and how they are judged."""

    arrivals: tuple[Arrivals, ...]  # of each device
    period_ms: float = 5000.0  # control period: how long a joint decision stands
    deadline_ms: float | None = None  # by when an answer is due
    late: str = "counts"  # a late answer counts as missed; or its task is dropped, if it hasn't begun by then
    waiting: int = 16  # places to wait at a node; a request that finds none is refused. 0: no limit
    objective: str = "mean"  # response time's mean or a quantile; or the part of requests that miss their deadline
    lost_ms: float | None = None  # what a refused or dropped request counts; None: the deadline, or the period
    input_kb: float = 150.528  # what an offloaded request sends: 224 x 224 pixels of three bytes
    links: tuple[Bandwidth | None, ...] = ()  # each device's to the edge; None: its delay is all. (): of all
    uplink: Bandwidth | None = None  # the edge's to the cloud, which all share

    def __post_init__(self) -> None:
        checks.require(len(self.arrivals) >= 1, "arrivals", "one of each device", len(self.arrivals))
        checks.number(self.period_ms, "period_ms", 10.0, LONGEST)
        if self.deadline_ms is not None:
            checks.number(self.deadline_ms, "deadline_ms", 1.0, LONGEST)
        checks.require(self.late in LATE, "late", ", ".join(LATE), self.late)
        checks.integer(self.waiting, "waiting", 0, 1000)
        checks.require(self.objective in OBJECTIVES, "objective", ", ".join(OBJECTIVES), self.objective)
        if self.lost_ms is not None:
            checks.number(self.lost_ms, "lost_ms", 1.0, LARGEST_LOST)
        due = self.deadline_ms is not None
        checks.require(due or self.objective != "misses", "objective", "a deadline_ms to miss", self.objective)
        checks.require(due or self.late == "counts", "late", "a deadline_ms to be late for", self.late)
        checks.number(self.input_kb, "input_kb", 0.0, 1e6)
        count = len(self.arrivals)
        checks.require(len(self.links) in (0, count), "links", f"none or one per device ({count})", len(self.links))
        expected = f"at most {MOST_REQUESTS} of a device in a control period"
        most = max(one.per_ms for one in self.arrivals) * self.period_ms
        checks.require(most <= MOST_REQUESTS, "requests", expected, f"{most:g}")
        mean = sum(one.per_ms for one in self.arrivals) * self.period_ms
        checks.require(
            mean >= LEAST_REQUESTS, "requests", f"at least {LEAST_REQUESTS} in a control period", f"{mean:g}"
        )

        self.link_periods  # noqa: B018 (checks them)
        lengths = {self._periods(one.length_ms, "arrivals") for one in self.arrivals if one.kind == "trace"}
        checks.require(len(lengths) < 2, "length_ms", "traces of equal length, in control periods", sorted(lengths))

    def _periods(self, length_ms: float, field: str) -> int:
        """How many control periods a trace lasts."""
        exact = length_ms / self.period_ms
        whole = f"a whole number of control periods of {self.period_ms:g} ms, at most {MOST_PERIODS:,}"
        fine = abs(exact - round(exact)) <= 1e-6 and 1 <= round(exact) <= MOST_PERIODS
        checks.require(fine, f"{field}.length_ms", whole, f"{length_ms:g} ms")
        return round(exact)

    @property
    def link_periods(self) -> int:
        """Control periods after which all links are as at the start."""
        counts = []
        for one in (*self.links, self.uplink):
            if one is not None and one.length_ms is not None:
                counts.append(self._periods(one.length_ms, "links"))
            elif one is not None:
                checks.require(len(one.mbps) == 1, "length_ms", "one where a link's rate changes", "none")
        found = math.lcm(*counts)
        expected = f"links' traces that are all over after at most {MOST_PERIODS:,} control periods"
        checks.require(found <= MOST_PERIODS, "length_ms", expected, found)
        return found

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Traffic:
        """Traffic from its plain data.

        Raises:
          ValueError: naming what is missing, unknown or out of range.
        """
        values = dict(data)
        for name, kind in (("arrivals", Arrivals), ("links", Bandwidth)):
            entries = data.get(name, ())
            checks.require(isinstance(entries, (list, tuple)), name, "a list of tables", entries)
            values[name] = tuple(None if one is None else checks.record(kind, one, name) for one in entries)
        if data.get("uplink") is not None:
            values["uplink"] = checks.record(Bandwidth, data["uplink"], "uplink")
        traffic: Traffic = checks.record(cls, values, "traffic")
        return traffic

    @property
    def weights(self) -> tuple[float, ...]:
        """[N] each device's part of all requests."""
        each = [one.per_ms for one in self.arrivals]
        return tuple(one / sum(each) for one in each)

    @property
    def objective_code(self) -> str:
        """`mean`, `misses`, or a quantile as its number (`0.95`)."""
        return f"0.{self.objective[1:]}" if self.objective.startswith("p") else self.objective

    @property
    def counted_ms(self) -> float:
        """What a request without a result counts, ms."""
        if self.lost_ms is not None:
            return self.lost_ms
        return self.period_ms if self.deadline_ms is None else self.deadline_ms

    def with_users(self, users: int) -> Traffic:
        """The same of the first `users` devices."""
        return dataclasses.replace(self, arrivals=self.arrivals[:users], links=self.links[:users])
