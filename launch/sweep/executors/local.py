"""Runs a sweep's units on processes of this machine."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading

from launch.host import resources
from launch.sweep.executors.slots import ONE_THREAD, Asked, Reply, WorkerLost
from launch.sweep.plan import Unit

PATIENCE_S = 60.0  # for a worker that was interrupted, to checkpoint
# A worker can import what the sweep can: its arguments are the sweep's sys.path.
WORKER = "import sys; sys.path[:] = sys.argv[1:]; from launch.sweep.executors.worker import main; main()"


class ProcessSlot:
    """A worker process of this machine; it starts with the first unit, and again after it died."""

    def __init__(self, asked: Asked, number: int) -> None:
        self._asked, self._name, self._log = asked, f"local-{number}", asked.out / f"worker-{number}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = self._interrupted = False
        self._lock = threading.Lock()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise WorkerLost("the sweep ends")
            if self._process is None or self._process.poll() is not None:
                with self._log.open("ab") as log:
                    self._process = subprocess.Popen(
                        [sys.executable, "-c", WORKER, *sys.path],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=log,
                        env={**os.environ, **ONE_THREAD},
                        # Ctrl-C on a terminal reaches the sweep alone, which passes it on once.
                        start_new_session=True,
                    )
            return self._process

    def ready(self) -> bool:
        return True

    def run(self, unit: Unit) -> Reply:
        folder = str(unit.run_folder(self._asked.out).path.absolute())
        content = self._asked.task(unit, folder, self._name).packed()
        process = self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            pickle.dump(content, process.stdin)
            process.stdin.flush()
            reply: Reply = pickle.load(process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError, ValueError) as error:
            process.kill()
            status = process.wait()
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    stream.close()
            cause = signal.Signals(-status).name if status < 0 else f"exit status {status}"
            raise WorkerLost(f"worker process ended ({cause}; its log: {self._log})") from error
        return reply.accepted()

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


def slots(asked: Asked) -> list[ProcessSlot]:
    """As many processes as this one may use cores, or as are asked for."""
    return [ProcessSlot(asked, number) for number in range(asked.workers or resources.cores())]
