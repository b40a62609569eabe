"""A sweep's worker process, started by `executors.local` as a module of its own: trains unit after unit.

It stays alive over many units, so that JAX starts and programs compile once. Pickled tasks come through standard input
and replies leave through standard output; when the input ends, so does the worker: a sweep that dies leaves none.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import pathlib
import pickle
import queue
import resource
import shutil
import sys
import threading
import time
import traceback
from typing import Any, BinaryIO

from launch.host.errors import InputError
from launch.host.runtime import use_compilation_cache
from launch.inputs.settings import Settings
from launch.runs import unit
from launch.runs.folder import RunFolder


@dataclasses.dataclass(frozen=True)
class Task:
    """A unit of work for a worker."""

    settings: Settings
    folder: str
    checkpoint_epochs: int
    keep_checkpoints: bool
    worker: str  # name of who does it


@dataclasses.dataclass(frozen=True)
class Reply:
    """What became of a unit."""

    error: str = ""  # why it can't be done; "" if it is done
    worker: str = ""  # who did it
    wall_s: float = 0.0
    peak_memory_gib: float = 0.0  # of this process so far


def peak_memory_gib() -> float:
    """Most memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def work(task: Task) -> Reply:
    """Trains a unit in its folder, from its last checkpoints if there are any."""
    start, folder = time.perf_counter(), pathlib.Path(task.folder)
    error = ""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Whoever worked on it for a sweep that was killed may not have noticed yet.
        with (folder.parent / f".{folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            every = task.checkpoint_epochs
            run = RunFolder(folder)
            summary = unit.run(task.settings, run, threads=1, checkpoint_epochs=every, pictures=False)
            error = "; ".join(summary.failures)
            if not task.keep_checkpoints and not error:
                shutil.rmtree(run.checkpoints, ignore_errors=True)
    except InputError as problem:
        error = str(problem)
    except Exception as problem:  # noqa: BLE001 -- whatever it is, the other units must go on
        traceback.print_exc()
        error = f"{type(problem).__name__}: {problem}"
    return Reply(error=error, worker=task.worker, wall_s=time.perf_counter() - start, peak_memory_gib=peak_memory_gib())


def _read(source: BinaryIO, tasks: queue.SimpleQueue[Task]) -> None:
    """Takes tasks in; ends the process when the sweep has ended, even in the middle of a unit."""
    try:
        while True:
            tasks.put(pickle.load(source))
    finally:
        os._exit(0)


def main() -> None:
    """Serves until the input ends."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints belongs in the log, not among the replies
    tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, tasks), daemon=True).start()
    use_compilation_cache()
    while True:
        task: Any = tasks.get()
        print(f"{task.folder}", file=sys.stderr, flush=True)
        try:
            reply = work(task)
        except KeyboardInterrupt:  # the unit is checkpointed
            os._exit(130)
        pickle.dump(reply, replies)
        replies.flush()


if __name__ == "__main__":
    from launch.sweep.executors import (
        worker as sweep_worker,  # what is pickled must have the name that the sweep knows it by
    )

    sweep_worker.main()
