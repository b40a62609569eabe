"""What every executor shares: what a sweep asks of it, and who does what next.

A slot is a place where one unit at a time is done. Its worker may die: the slot gets another, and the unit is done
again, from its last checkpoint if that is still there.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import pathlib
import pickle
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from launch.host.errors import InputError
from launch.inputs.settings import Settings
from launch.sweep.plan import Unit

# XLA sizes its pool of threads by this. With more than one they look for work all the time, and take it from the
# workers beside: units then take 1.6 times as long.
ONE_THREAD = {"NPROC": "1"}
MOST_LOSSES = 5  # workers that may die over one unit before it is given up


@dataclasses.dataclass(frozen=True)
class Task:
    """A unit of work for a worker."""

    settings: Settings
    folder: str
    checkpoint_epochs: int
    keep_checkpoints: bool
    worker: str  # name of who does it

    def packed(self) -> bytes:
        """The task for another process.

        Raises:
          InputError: if an agent's constants can't be sent.
        """
        try:
            return pickle.dumps(self)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            expected = "constants that another process can import"
            raise InputError(f"--agent={self.settings.agent}: expected {expected}, found {error}") from error


@dataclasses.dataclass(frozen=True)
class Reply:
    """What became of a unit."""

    error: str = ""  # why it can't be done; "" if it is done
    refused: str = ""  # why this worker can do no such unit at all; "" if it can
    worker: str = ""  # who did it
    wall_s: float = 0.0
    peak_memory_gib: float = 0.0  # of the worker's process so far

    def accepted(self) -> Reply:
        """The reply itself.

        Raises:
          InputError: if the worker refused.
        """
        if self.refused:
            raise InputError(f"--agent: expected an agent that workers can import, too, found: {self.refused}")
        return self


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
          InputError: if no worker can do it.
        """

    def interrupt(self) -> None:
        """Asks the worker to checkpoint and end."""

    def close(self) -> None:
        """Ends the worker."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a sweep asks of an executor."""

    out: pathlib.Path  # the sweep's folder
    workers: int  # units at the same time; 0: as many as there is room for
    checkpoint_epochs: int
    keep_checkpoints: bool

    def task(self, unit: Unit, folder: str, worker: str) -> Task:
        """A unit for the worker of that name, to be done in a folder of its choice."""
        return Task(unit.settings, folder, self.checkpoint_epochs, self.keep_checkpoints, worker)


@dataclasses.dataclass(frozen=True)
class Executor:
    """A kind of place: makes a sweep's slots, and has some flags of its own."""

    slots: Callable[[Asked], Sequence[Slot]]
    flags: tuple[str, ...] = ()


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
