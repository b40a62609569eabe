"""Runs a sweep's units on processes of this machine, and what every executor shares: who does what next.

A slot is a place where one unit at a time is done. Its worker may die: the slot gets another, and the unit is done
again, from its last checkpoint.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from launch.host.files import ROOT
from launch.sweep.executors.worker import Reply, Task
from launch.sweep.plan import Unit

# XLA sizes its pool of threads by this. With more than one they look for work all the time, and take it from the
# workers beside: units then take 1.6 times as long.
ONE_THREAD = {"NPROC": "1"}
MOST_LOSSES = 5  # workers that may die over one unit before it is given up
PATIENCE_S = 60.0  # for a worker that was interrupted, to checkpoint


class WorkerLost(Exception):
    """A worker died before it had answered."""


class Slot(Protocol):
    """Where a unit is done."""

    def ready(self) -> bool:
        """Whether it has a worker, or can have one now; may wait a little for it."""

    def run(self, unit: Unit) -> Reply:
        """Does a unit.

        Raises:
          WorkerLost: if the worker died; the next call gets another.
        """

    def interrupt(self) -> None:
        """Asks the worker to checkpoint and end."""

    def close(self) -> None:
        """Ends the worker."""


class Waiting:
    """Units that nobody has taken yet; safe to use from several threads."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self._lock = threading.Condition()
        self._open = len(units)  # not done: left, or under way
        self._stopped = False
        self._left: dict[str, list[Unit]] = {}
        self._touched: set[str] = set()
        for unit in units:
            self._left.setdefault(unit.program, []).append(unit)

    def take(self, last: str | None) -> Unit | None:
        """The next unit for a worker whose last one ran the program `last`; None when all are done.

        It stays with the program that it has compiled; then takes one that nobody has begun; and at the end helps where
        most is left, or waits, for a worker may die and leave its unit.
        """
        with self._lock:
            self._lock.wait_for(lambda: self._left or self.over())
            if self.over():
                return None
            fresh = [program for program in self._left if program not in self._touched]
            if last in self._left:
                program = last
            else:
                program = fresh[0] if fresh else max(self._left, key=lambda name: len(self._left[name]))
            self._touched.add(program)
            unit = self._left[program].pop(0)
            if not self._left[program]:
                del self._left[program]
            return unit

    def put_back(self, unit: Unit) -> None:
        """For a unit whose worker died."""
        with self._lock:
            self._left.setdefault(unit.program, []).insert(0, unit)
            self._lock.notify_all()

    def count_done(self) -> None:
        """One more is done."""
        with self._lock:
            self._open -= 1
            self._lock.notify_all()

    def stop(self) -> None:
        """Nobody gets any more."""
        with self._lock:
            self._stopped = True
            self._lock.notify_all()

    def over(self) -> bool:
        """Whether nothing is left to do."""
        return self._stopped or self._open == 0


def run_all(
    units: Sequence[Unit],
    slots: Sequence[Slot],
    done: Callable[[Unit, Reply], None],
    lost: Callable[[Unit, str], None],
) -> None:
    """Does every unit, each slot one at a time, and tells of each that is done (one call at a time).

    Workers stay alive for what may come next, unless this raises.

    Raises:
      KeyboardInterrupt: after the workers have checkpointed.
    """
    waiting, losses = Waiting(units), dict.fromkeys((unit.folder for unit in units), 0)
    telling = threading.Lock()

    def serve(slot: Slot) -> None:
        last = None
        while not waiting.over():
            if not slot.ready():
                continue
            unit = waiting.take(last)
            if unit is None:
                return
            try:
                reply = slot.run(unit)
            except WorkerLost as error:
                if waiting.over():
                    return
                losses[unit.folder] += 1
                with telling:
                    lost(unit, str(error))
                if losses[unit.folder] < MOST_LOSSES:
                    waiting.put_back(unit)
                    continue
                reply = Reply(error=f"{MOST_LOSSES} workers died over it; the last one: {error}")
            last = unit.program
            with telling:
                done(unit, reply)
            waiting.count_done()

    with concurrent.futures.ThreadPoolExecutor(max(len(slots), 1)) as pool:
        serving = [pool.submit(serve, slot) for slot in slots]
        try:
            for one in concurrent.futures.as_completed(serving):
                one.result()
        except BaseException:
            waiting.stop()
            for slot in slots:
                slot.interrupt()
            for slot in slots:
                slot.close()
            raise


class ProcessSlot:
    """A worker process of this machine; it starts with the first unit, and again after it died."""

    def __init__(
        self, units_folder: pathlib.Path, log: pathlib.Path, checkpoint_epochs: int, keep: bool, name: str
    ) -> None:
        self._folder, self._log, self._name = units_folder, log, name
        self._checkpoint_epochs, self._keep = checkpoint_epochs, keep
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = self._interrupted = False
        self._lock = threading.Lock()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise WorkerLost("the sweep ends")
            if self._process is None or self._process.poll() is not None:
                path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
                with self._log.open("ab") as log:
                    self._process = subprocess.Popen(
                        [sys.executable, "-m", "launch.sweep.executors.worker"],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=log,
                        env={**os.environ, **ONE_THREAD, "PYTHONPATH": path},
                        # Ctrl-C on a terminal reaches the sweep alone, which passes it on once.
                        start_new_session=True,
                    )
            return self._process

    def ready(self) -> bool:
        return True

    def run(self, unit: Unit) -> Reply:
        process = self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        folder = str((self._folder / unit.folder).absolute())
        try:
            pickle.dump(Task(unit.settings, folder, self._checkpoint_epochs, self._keep, self._name), process.stdin)
            process.stdin.flush()
            return pickle.load(process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError, ValueError) as error:
            process.kill()
            status = process.wait()
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    stream.close()
            cause = signal.Signals(-status).name if status < 0 else f"exit status {status}"
            raise WorkerLost(f"worker process ended ({cause}; its log: {self._log})") from error

    def interrupt(self) -> None:
        with self._lock:
            self._closed = self._interrupted = True
            if self._process is not None and self._process.poll() is None:
                self._process.send_signal(signal.SIGINT)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            process = self._process
        if process is None:
            return
        if self._interrupted:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE_S)
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
