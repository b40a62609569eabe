"""Core slots: as many inferences at once as a node has cores, first come, first served, from a bounded queue.

Slower hardware is emulated by holding the slot: the model always runs for real, then the slot stays taken until
`start + scale x CPU time` has passed. Where that is known beforehand, it begins a little later than its hold, so that
messages between the emulated nodes go first. A background load slows what it shares the (emulated) core with.
"""

from __future__ import annotations

import dataclasses
import math
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping

import numpy as np

from edge_cloud.runtime import Inference, Model

PACINGS = ("off", "measured", "calibrated")
NICENESS = 10  # of paced inferences
LONGEST_WAIT_MS = 8.0  # of an inference within its hold


class QueueFull(Exception):
    """As many requests wait as may."""


class Expired(Exception):
    """The request's deadline passed before its turn came."""


@dataclasses.dataclass(frozen=True)
class Pacing:
    """How long a slot is held.

    `off`: as long as the inference runs. `measured`: `scale` times the CPU time of this very inference.
    `calibrated`: `scale` times the model's entry in `cpu_ms`, which varies much less.
    """

    mode: str = "off"
    scale: float = 1.0
    cpu_ms: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def hold_ms(self, model: str, cpu_ms: float, background: float) -> float:
        """Milliseconds for which the slot is held, when a background load takes the part `background` of a core."""
        if self.mode == "off":
            return 0.0
        base = self.cpu_ms[model] if self.mode == "calibrated" else cpu_ms
        return self.scale * base / (1.0 - background)

    def wait_ms(self, model: str) -> float:
        """Milliseconds that an inference waits within its hold, where that is known beforehand.

        Emulated nodes share one machine: what one of them computes must not delay the messages of others, who ask at
        the same time. At most half of what the inference leaves of its hold.
        """
        if self.mode != "calibrated":
            return 0.0
        spare = self.hold_ms(model, 0.0, 0.0) - self.cpu_ms[model]
        return min(LONGEST_WAIT_MS, max(spare / 2.0, 0.0))


class _Job:
    def __init__(self, model: str, image: np.ndarray, give_up_at: float) -> None:
        self.model, self.image, self.give_up_at = model, image, give_up_at
        self.queued_at = time.monotonic()
        self.done = threading.Event()
        self.result: Timed | None = None
        self.error: Exception | None = None


@dataclasses.dataclass(frozen=True)
class Timed:
    """An inference with what it took, ms: waiting for a slot, and holding it."""

    inference: Inference
    queue_ms: float
    compute_ms: float


class Slots:
    """The cores of a node.

    Args:
      load: loads the node's models; called once per slot, since an interpreter serves one thread.
      cores: number of slots.
      pacing: how long a slot is held.
      most_waiting: requests that may wait; one more is refused.
      background: part of each core that the background load takes, 0 to below 1.
    """

    def __init__(
        self,
        load: Callable[[], Mapping[str, Model]],
        cores: int,
        pacing: Pacing,
        most_waiting: int,
        background: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.cores, self.pacing, self._background = cores, pacing, background
        self._jobs: queue.Queue[_Job | None] = queue.Queue(most_waiting)
        self._lock = threading.Lock()
        self._busy_s = 0.0
        self._since: dict[int, float] = {}
        self._stop = threading.Event()
        pools = [load() for _ in range(cores)]
        self.models = tuple(pools[0])
        self._threads = [
            threading.Thread(target=self._work, args=(slot, pool), name=f"slot-{slot}", daemon=True)
            for slot, pool in enumerate(pools)
        ]
        for thread in self._threads:
            thread.start()

    def run(self, model: str, image: np.ndarray, deadline_s: float, patience_s: float = math.inf) -> Timed:
        """Waits for a slot, runs the model on an image [224, 224, 3] uint8, and holds the slot as paced.

        Raises:
          QueueFull: if too many wait already.
          Expired: if it isn't done within `deadline_s`, or its turn doesn't come within `patience_s`; a request that
            still waits then is never run.
        """
        job = _Job(model, image, time.monotonic() + min(deadline_s, patience_s))
        try:
            self._jobs.put_nowait(job)
        except queue.Full as error:
            raise QueueFull(f"queue: expected at most {self._jobs.maxsize} waiting requests") from error
        if not job.done.wait(deadline_s):
            raise Expired(f"deadline: expected a result within {1000 * deadline_s:.0f} ms")
        if job.error is not None:
            raise job.error
        assert job.result is not None
        return job.result

    def busy_seconds(self) -> float:
        """Core-seconds for which slots were held so far, those being held included."""
        now = time.monotonic()
        with self._lock:
            return self._busy_s + sum(now - since for since in self._since.values())

    def close(self) -> None:
        """Stops the slots; what waits is given up."""
        self._stop.set()
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is not None:
                job.error = Expired("node: expected it to run, found it shutting down")
                job.done.set()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(5.0)

    def _work(self, slot: int, pool: Mapping[str, Model]) -> None:
        if self.pacing.mode != "off" and sys.platform == "linux":  # where a thread has a priority of its own
            # For the same reason as `Pacing.wait_ms`: an inference has its whole hold to run in.
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread)))
        while (job := self._jobs.get()) is not None:
            started = time.monotonic()
            if started >= job.give_up_at:
                job.error = Expired("deadline: expected a free core before it")
                job.done.set()
                continue
            with self._lock:
                self._since[slot] = started
            try:
                self._stop.wait(self.pacing.wait_ms(job.model) / 1000.0)
                inference = pool[job.model].classify(job.image)
                hold = self.pacing.hold_ms(job.model, inference.cpu_ms, self._background()) / 1000.0
                self._stop.wait(max(started + hold - time.monotonic(), 0.0))
                ended = time.monotonic()
                queue_ms, compute_ms = 1000 * (started - job.queued_at), 1000 * (ended - started)
                job.result = Timed(inference, queue_ms, compute_ms)
            except Exception as error:  # noqa: BLE001 (handed to who waits for the job)
                job.error, ended = error, time.monotonic()
            with self._lock:
                del self._since[slot]
                self._busy_s += ended - started
            job.done.set()
