"""One training as a unit of work: settings and a folder in, a finished run folder out, whatever happened before.

`launch.train` runs one, `launch.reproduce` and `launch.sweep` many. A folder with a summary is finished and isn't run
again; one with a config but no summary goes on from its last checkpoints.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Protocol

from launch.host import resources, runtime
from launch.host.errors import InputError
from launch.inputs import public
from launch.inputs.settings import Settings
from launch.runs.folder import RunFolder
from launch.runs.history import Histories, Oracle, Show
from launch.runs.on_simulator import Simulation
from launch.runs.summary import Failure, Summary

SHOWN_EVERY_S = 15.0  # metrics.csv and events of a run that still learns


class Runner(Protocol):
    """What learns all seeds of a run, on whatever environment."""

    settings: Settings
    folder: RunFolder

    @property
    def oracle(self) -> Oracle | None:
        """The true optimum; None where nobody knows it."""

    @property
    def failures(self) -> dict[int, Failure]:
        """The seeds that ended before their time; known once `learn` is done."""

    def learn(self, threads: int, show: Show) -> Histories:
        """Runs every seed to its end and returns their histories; on an interrupt, checkpoints first.

        After each epoch `show` is told how to get the histories so far.
        """


def _runner(chosen: Settings, folder: RunFolder, checkpoint_epochs: int) -> Runner:
    if chosen.agent == public.NAME:
        from launch.runs.on_sb3 import PublicRun  # only there are the packages of requirements-peer.txt needed

        return PublicRun(chosen, folder)
    if chosen.real is None:
        return Simulation(chosen, folder, checkpoint_epochs)
    try:
        from launch.runs.on_fleet import RealRun  # only there are the packages of requirements-testbed.txt needed
    except ImportError as error:
        raise InputError(f"--env=testbed: expected the packages of requirements-testbed.txt, found {error}") from error
    return RealRun(chosen, folder)


def open_unit(chosen: Settings, folder: RunFolder, checkpoint_epochs: int = 10) -> Runner:
    """What learns in `folder`, which is made if it isn't there.

    Raises:
      InputError: if the folder can't be used or belongs to other settings, or the agent can't be made.
    """
    resume = folder.begun
    if resume and folder.settings().digest != chosen.digest:
        raise InputError(f"run folder: expected a run of the same settings, found another's in {folder}")
    if not resume:
        folder.check_new()
    runtime.make_room()
    runner = _runner(chosen, folder, checkpoint_epochs)
    if not resume:
        folder.begin(chosen)
    folder.checkpoints.mkdir(exist_ok=True)
    return runner


def _now_and_then(runner: Runner) -> Show:
    """Writes what a person may want to watch, metrics.csv and events, but not all the time."""
    last = time.monotonic()

    def show(histories: Callable[[], Histories]) -> None:
        nonlocal last
        if time.monotonic() - last > SHOWN_EVERY_S:
            runner.folder.write_progress(runner.settings, histories())
            last = time.monotonic()

    return show


def finish(runner: Runner, threads: int = 0, pictures: bool = True) -> Summary:
    """Learns to the end, from the last checkpoints if there are any, and writes the results. Returns the summary.

    Raises:
      KeyboardInterrupt: after checkpointing.
    """
    folder, chosen = runner.folder, runner.settings
    done = folder.summary()
    if done is not None:
        return done
    histories = runner.learn(threads or resources.cores(), _now_and_then(runner) if pictures else lambda _: None)
    for seed, failure in runner.failures.items():
        where = f"its last finite state is in {folder.checkpoints}"
        print(f"failed: {failure.line(chosen.agent, seed)}; {where}", file=sys.stderr)
    return folder.write_results(chosen, histories, runner.oracle, runner.failures, pictures)


def run(
    chosen: Settings, folder: RunFolder, *, threads: int = 0, checkpoint_epochs: int = 10, pictures: bool = True
) -> Summary:
    """Runs, or goes on with, the training that belongs in `folder`. Returns its summary.

    Args:
      chosen: what is trained.
      folder: new, empty, or of a run with the same settings.
      threads: seeds learned at the same time; 0: as many as there are cores.
      checkpoint_epochs: epochs between checkpoints.
      pictures: whether to leave curves.png and TensorBoard events too.

    Raises:
      InputError: if the folder can't be used, or belongs to other settings.
      KeyboardInterrupt: after checkpointing.
    """
    return finish(open_unit(chosen, folder, checkpoint_epochs), threads, pictures)
