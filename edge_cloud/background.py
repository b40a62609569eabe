"""A background load that makes a node really Busy: another application that computes, and memory that is taken.

With pacing off it burns real CPU: each core computes for the part `cpu` of the time. On paced (emulated) cores it
computes as much less as they are slower, and takes the part `cpu` of the emulated core; `Slots` slows down by it.
"""

from __future__ import annotations

import threading
import time

import numpy as np

PERIOD_S = 0.05
MOST_CPU = 0.95  # a foreground task must still get somewhere


class Background:
    """Background load of one node.

    Args:
      cores: threads that compute.
      slowdown: how much slower the emulated cores are than this machine's; 1 where nothing is emulated.
    """

    def __init__(self, cores: int, slowdown: float = 1.0) -> None:
        self._slowdown = max(slowdown, 1.0)
        self._cpu = 0.0
        self._ballast = np.zeros(0, np.uint8)
        self._wake = threading.Event()
        self._stopped = False
        self._threads = [threading.Thread(target=self._burn, daemon=True, name="background") for _ in range(cores)]
        for thread in self._threads:
            thread.start()

    @property
    def cpu(self) -> float:
        """Part of each core that it takes, 0 to 0.95."""
        return self._cpu

    def set(self, cpu: float, memory_mb: float) -> None:
        """Changes the load.

        Raises:
          ValueError: if `cpu` is not in [0, 0.95], or `memory_mb` not in [0, 65536].
        """
        if not 0.0 <= cpu <= MOST_CPU:
            raise ValueError(f"background.cpu: expected a number in [0, {MOST_CPU:g}], found {cpu:g}")
        if not 0.0 <= memory_mb <= 65536.0:
            raise ValueError(f"background.memory_mb: expected a number in [0, 65536], found {memory_mb:g}")
        if int(memory_mb * 2**20) != self._ballast.size:
            # Ones, not zeros: the system gives zeroed memory only once it is written to.
            self._ballast = np.ones(int(memory_mb * 2**20), np.uint8)
        self._cpu = cpu
        if cpu > 0.0:
            self._wake.set()
        else:
            self._wake.clear()

    def close(self) -> None:
        """Stops computing and gives the memory back."""
        self._stopped = True
        self._wake.set()
        for thread in self._threads:
            thread.join(1.0)
        self._ballast = np.zeros(0, np.uint8)

    def _burn(self) -> None:
        values = np.random.default_rng(0).standard_normal(1 << 14)
        while True:
            self._wake.wait()
            if self._stopped:
                return
            started = time.monotonic()
            while time.monotonic() - started < PERIOD_S * self._cpu / self._slowdown:
                np.sort(values)  # about 0.5 ms, and other threads run meanwhile
            time.sleep(max(PERIOD_S - (time.monotonic() - started), 0.001))
