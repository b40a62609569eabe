"""A sweep's worker process, started by `executors.local`: trains unit after unit.

It stays alive over many units, so that JAX starts and programs compile once. Packed tasks come through standard input
and replies leave through standard output; when the input ends, so does the worker: a sweep that dies leaves none.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import pickle
import queue
import shutil
import sys
import threading
import time
import traceback
from typing import BinaryIO

from launch.host import resources
from launch.host.errors import InputError
from launch.host.runtime import use_compilation_cache
from launch.inputs import agents
from launch.runs import unit
from launch.runs.folder import RunFolder
from launch.sweep.executors.slots import Reply, Task


def work(task: Task) -> Reply:
    """Trains a unit in its folder, from its last checkpoints if there are any."""
    start, run = time.perf_counter(), RunFolder(pathlib.Path(task.folder))
    error = ""
    try:
        # Whoever worked on it for a sweep that was killed may not have noticed yet.
        with run.held(wait=True):
            every = task.checkpoint_epochs
            summary = unit.run(task.settings, run, threads=1, checkpoint_epochs=every, pictures=False)
            error = "; ".join(summary.failures)
            if not task.keep_checkpoints and not error:
                shutil.rmtree(run.checkpoints, ignore_errors=True)
    except InputError as problem:
        error = str(problem)
    except Exception as problem:  # noqa: BLE001 -- whatever it is, the other units must go on
        traceback.print_exc()
        error = f"{type(problem).__name__}: {problem}"
    wall_s = time.perf_counter() - start
    return Reply(error=error, worker=task.worker, wall_s=wall_s, peak_memory_gib=resources.peak_memory_gib())


def answer(packed: bytes, folder: str = "") -> Reply:
    """Does a packed task, in another folder if one is given; refuses it if its agent can't be imported here."""
    try:
        task: Task = pickle.loads(packed)
        agents.kind_of(task.settings.agent)
    except (ImportError, AttributeError, InputError) as error:
        return Reply(refused=str(error))
    print(f"{task.folder}", file=sys.stderr, flush=True)
    return work(dataclasses.replace(task, folder=folder or task.folder))


def _read(source: BinaryIO, tasks: queue.SimpleQueue[bytes]) -> None:
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
    tasks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, tasks), daemon=True).start()
    use_compilation_cache()
    while True:
        packed = tasks.get()
        try:
            reply = answer(packed)
        except KeyboardInterrupt:  # the unit is checkpointed
            os._exit(130)
        pickle.dump(reply, replies)
        replies.flush()
