"""What a fleet's tree is made of: links, devices, edges and clouds, each a machine of some kind. Validated plain data.

Times are ms, accuracies % (ImageNet top-5), powers mW.
"""

from __future__ import annotations

import dataclasses

from hl_jax import checks
from hl_jax.scenario import CONTENTION_FORMS, LINKS


@dataclasses.dataclass(frozen=True)
class Link:
    """From a node to the one above it: what a task's input, its result and its way take."""

    rtt_ms: float = 0.0
    up_mbps: float | None = None  # None: what is sent takes no time beside the round trip
    down_mbps: float | None = None
    state: str = "regular"  # at the start: regular or weak, as in Table IV

    def __post_init__(self) -> None:
        checks.number(self.rtt_ms, "link.rtt_ms", 0.0, 1e6)
        for name in ("up_mbps", "down_mbps"):
            if getattr(self, name) is not None:
                checks.number(getattr(self, name), f"link.{name}", 1e-3, 1e6)
        checks.require(self.state in LINKS, "link.state", " or ".join(LINKS), self.state)

    def up_ms(self, kilobytes: float) -> float:
        """What sending so much takes, without the round trip."""
        return 0.0 if self.up_mbps is None else 8.0 * kilobytes / self.up_mbps

    def down_ms(self, kilobytes: float) -> float:
        """The same the other way."""
        return 0.0 if self.down_mbps is None else 8.0 * kilobytes / self.down_mbps


NO_LINK = Link()


@dataclasses.dataclass(frozen=True)
class Machine:
    """What every node of the tree is."""

    name: str
    kind: str  # of machine: names a profile
    above: str = ""  # the node that this one hangs on; of a cloud none
    link: Link = NO_LINK  # to it
    targets: tuple[str, ...] = ()  # that may be used; (): all of the profile's
    models: tuple[str, ...] = ()  # that it holds; (): all
    memory_mb: float | None = None  # that models may take, where the profile says what they do; None: enough

    def _check(self, where: str) -> None:
        checks.name(self.name, f"{where}.name")
        checks.name(self.kind, f"{where} {self.name}: kind")
        checks.require(isinstance(self.above, str), f"{where} {self.name}: above", "a node's name", self.above)
        if not self.above:
            expected = "none, since it hangs on nothing"
            checks.require(self.link == NO_LINK, f"{where} {self.name}: link", expected, self.link)
        for field in ("targets", "models"):
            checks.distinct(getattr(self, field), f"{where} {self.name}: {field}")
        if self.memory_mb is not None:
            checks.number(self.memory_mb, f"{where} {self.name}: memory_mb", 0.0)


@dataclasses.dataclass(frozen=True)
class Member(Machine):
    """An end device."""

    speed: float = 1.0  # beside its kind's profile: 2.0 computes twice as fast
    least_accuracy: float = 0.0  # % that each of its own answers must have
    deadline_ms: float | None = None  # that the predicted 95th percentile of its response time must keep

    def __post_init__(self) -> None:
        self._check("devices")
        checks.number(self.speed, f"devices {self.name}: speed", 0.01, 100.0)
        checks.number(self.least_accuracy, f"devices {self.name}: least_accuracy", 0.0, 100.0)
        if self.deadline_ms is not None:
            checks.number(self.deadline_ms, f"devices {self.name}: deadline_ms", 1e-3)


@dataclasses.dataclass(frozen=True)
class Station(Machine):
    """An edge or a cloud: how many tasks it serves at once, and how those that share it slow one another.

    `contention` is what multiplies a task's computing when n tasks are there, as in `hl_jax.scenario.Node`; the
    profile's times are those of one task alone.
    """

    slots: int = 1
    contention: str = "queue"

    def __post_init__(self) -> None:
        self._check("nodes")
        checks.integer(self.slots, f"nodes {self.name}: slots", 1, 10_000)
        checks.require(
            self.contention in CONTENTION_FORMS,
            f"nodes {self.name}: contention",
            ", ".join(CONTENTION_FORMS),
            self.contention,
        )


@dataclasses.dataclass(frozen=True)
class Radio:
    """What a device draws while it sends, receives and waits for an offloaded task's result, mW."""

    send_mw: float = 0.0
    receive_mw: float = 0.0
    wait_mw: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            checks.number(getattr(self, field.name), f"radio.{field.name}", 0.0, 1e6)


@dataclasses.dataclass(frozen=True)
class Disturbances:
    """What weak links and busy nodes add; the defaults are those of the calibration to the paper's Table V."""

    weak_ms: float = 76.5  # a task that crosses a weak link
    busy_cpu_factor: float = 2.0  # local computing beside a Busy device's background load
    busy_memory_factor: float = 1.25  # computing on a node whose memory is Busy

    def __post_init__(self) -> None:
        checks.number(self.weak_ms, "weak_ms", 0.0)
        checks.number(self.busy_cpu_factor, "busy_cpu_factor", 1.0, 100.0)
        checks.number(self.busy_memory_factor, "busy_memory_factor", 1.0, 100.0)
