"""Resource Monitoring: what a node reads of itself, and Table II's discretization of it.

On real machines CPU and memory are the machine's (psutil). On emulated nodes, which share one machine, CPU is the part
of the time for which the node's core slots were held plus its background load, and memory its process's own.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable

import numpy as np
import psutil

CPU_LEVELS = 9  # of edge and cloud
BUSY_CPU = 0.5  # of an end device; the paper gives no thresholds: assumed, as in the simulator
BUSY_MEMORY = 0.8
WEAK_DELAY_MS = 10.0  # half of what the paper adds to a weak link's messages
SAMPLES_PER_WINDOW = 20
CLOCK_SLACK_MS = 2.0  # by which clocks that count as common may differ


def cpu_level(utilization: float) -> int:
    """Nine levels, 0 to 8: floor(9 x utilization), to a rounding of 1e-4."""
    return min(max(int(CPU_LEVELS * utilization + 1e-4), 0), CPU_LEVELS - 1)


def is_busy(utilization: float) -> int:
    """Available (0) or Busy (1): an end device's CPU."""
    return int(utilization >= BUSY_CPU)


def is_memory_busy(utilization: float) -> int:
    """Available (0) or Busy (1): any node's memory."""
    return int(utilization >= BUSY_MEMORY)


def is_weak(delay_ms: float) -> int:
    """Regular (0) or Weak (1): by the delay of a node's outgoing messages, ms."""
    return int(delay_ms >= WEAK_DELAY_MS)


def machine_busy_seconds() -> float:
    """Core-seconds for which this machine's CPUs were busy since it started."""
    times = psutil.cpu_times()
    # A guest's time is in `user` already, a niced guest's in `nice`.
    idle = times.idle + getattr(times, "iowait", 0.0)
    return float(sum(times) - idle - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0))


def machine_cores() -> int:
    """Number of this machine's logical CPUs."""
    return psutil.cpu_count() or 1


def machine_memory() -> float:
    """Part of this machine's memory that is in use, 0 to 1."""
    return float(psutil.virtual_memory().percent) / 100.0


def process_memory(capacity_mb: float) -> float:
    """Part of `capacity_mb` that this process holds, 0 to 1."""
    return min(float(psutil.Process().memory_info().rss) / 2**20 / capacity_mb, 1.0)


class Utilization:
    """CPU utilization over a sliding window, from a counter of busy core-seconds.

    Args:
      busy_seconds: the counter.
      cores: how many cores it counts.
      window_s: length of the window.
    """

    def __init__(self, busy_seconds: Callable[[], float], cores: int, window_s: float) -> None:
        self._busy, self._cores, self._window = busy_seconds, cores, window_s
        self._samples: collections.deque[tuple[float, float]] = collections.deque([(time.monotonic(), busy_seconds())])
        self._lock = threading.Lock()

    def sample(self) -> None:
        """Keeps a reading; to be called several times per window."""
        now, busy = time.monotonic(), self._busy()
        with self._lock:
            self._samples.append((now, busy))
            while len(self._samples) > 2 and self._samples[1][0] <= now - self._window:
                self._samples.popleft()

    def read(self) -> float:
        """Busy part of the last window, 0 to 1."""
        now, busy = time.monotonic(), self._busy()
        with self._lock:
            readings = [*self._samples, (now, busy)]
        edge = max(now - self._window, readings[0][0])
        # Between two readings the node is taken as busy as it is on average.
        start_busy = float(np.interp(edge, [when for when, _ in readings], [counted for _, counted in readings]))
        return min(max((busy - start_busy) / max(now - edge, 1e-6) / self._cores, 0.0), 1.0)


class Upper:
    """What a node sees of its upper neighbour, by the answers to what it tells it."""

    def __init__(self) -> None:
        self._delay = Delay()
        self.round_trip_ms = 0.0  # of the last message and its answer, 0: none yet

    def answered(self, sent_at_ms: float, waited_ms: float, held_ms: float) -> None:
        """Takes an answer in: when it was sent (Unix time), how long it was waited for, how long it was held there."""
        self.round_trip_ms = max(waited_ms - held_ms, 1e-3)
        self._delay.add(sent_at_ms, self.round_trip_ms)

    @property
    def delay_ms(self) -> float:
        """Delay of its messages."""
        return self._delay.value


class Delay:
    """Delay of a neighbour's messages, ms: the least of the last few, since computing can only add to it.

    Which of two directions is slow only a common clock can tell. That both together take no longer than the round trip
    needs none, and shows clocks that don't agree: each direction then counts as half of it.
    """

    def __init__(self, kept: int = 3) -> None:
        self._kept: collections.deque[float] = collections.deque(maxlen=kept)

    @staticmethod
    def of(told_ms: float, round_trip_ms: float) -> float:
        """The delay, when the clocks tell one and the round trip (0: unknown) bounds it."""
        if round_trip_ms > 0.0 and not -CLOCK_SLACK_MS <= told_ms <= round_trip_ms + CLOCK_SLACK_MS:
            return round_trip_ms / 2.0
        return max(told_ms, 0.0)

    def add(self, sent_at_ms: float, round_trip_ms: float = 0.0) -> float:
        """Takes in when a message was sent (Unix time, ms), and the last round trip (0: unknown); gives the delay."""
        self._kept.append(self.of(1000.0 * time.time() - sent_at_ms, round_trip_ms))
        return self.value

    @property
    def value(self) -> float:
        return min(self._kept, default=0.0)
