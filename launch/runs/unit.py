"""One training as a unit of work: settings and a folder in, a finished run folder out, whatever happened before.

`launch.train` runs one, `launch.reproduce` and `launch.sweep` many. A folder with a summary is finished and isn't run
again; one with a config but no summary goes on from its last checkpoints.
"""

from __future__ import annotations

import os
import pathlib
import sys
from typing import Any, Protocol

from launch.host.errors import InputError
from launch.inputs.settings import Settings, read_settings
from launch.runs import folder as run_folder
from launch.runs.on_simulator import Simulation
from launch.runs.summary import Failure, Oracle, finished


class Runner(Protocol):
    """What learns all seeds of a run, on whatever environment."""

    settings: Settings
    folder: pathlib.Path

    @property
    def oracle(self) -> Oracle | None:
        """The true optimum; None where nobody knows it."""

    @property
    def failures(self) -> dict[int, Failure]:
        """The seeds that ended before their time; known once `learn` is done."""

    def learn(self, threads: int) -> dict[int, list[dict[str, Any]]]:
        """Runs every seed to its end and returns their histories; on an interrupt, checkpoints first."""


def _runner(chosen: Settings, folder: pathlib.Path, checkpoint_epochs: int) -> Runner:
    if chosen.real is None:
        return Simulation(chosen, folder, chosen.digest, checkpoint_epochs)
    try:
        from launch.runs.on_fleet import RealRun  # only there are the packages of requirements-testbed.txt needed
    except ImportError as error:
        raise InputError(f"--env=testbed: expected the packages of requirements-testbed.txt, found {error}") from error
    return RealRun(chosen, folder, chosen.digest)


def open_unit(chosen: Settings, folder: pathlib.Path, checkpoint_epochs: int = 10) -> Runner:
    """What learns in `folder`, which is made if it isn't there.

    Raises:
      InputError: if the folder can't be used or belongs to other settings, or the agent can't be made.
    """
    resume = (folder / "config.json").is_file()
    if resume and read_settings(folder / "config.json").digest != chosen.digest:
        raise InputError(f"run folder: expected a run of the same settings, found another's in {folder}")
    if not resume:
        run_folder.check_new(folder)
    runner = _runner(chosen, folder, checkpoint_epochs)
    if not resume:
        run_folder.make_folder(folder)
        run_folder.write_config(folder, chosen, chosen.env)
    (folder / "checkpoints").mkdir(exist_ok=True)
    return runner


def finish(runner: Runner, threads: int = 0, pictures: bool = True) -> dict[str, Any]:
    """Learns to the end, from the last checkpoints if there are any, and writes the results. Returns the summary.

    Raises:
      KeyboardInterrupt: after checkpointing.
    """
    done = finished(runner.folder)
    if done is not None:
        return done
    histories = runner.learn(threads or len(os.sched_getaffinity(0)))
    chosen = runner.settings
    for seed, failure in runner.failures.items():
        where = runner.folder / "checkpoints"
        print(f"failed: {failure.line(chosen.agent, seed)}; its last finite state is in {where}", file=sys.stderr)
    return run_folder.write_results(
        runner.folder, chosen, chosen.env, histories, runner.oracle, runner.failures, pictures
    )


def run(
    chosen: Settings, folder: pathlib.Path, *, threads: int = 0, checkpoint_epochs: int = 10, pictures: bool = True
) -> dict[str, Any]:
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
