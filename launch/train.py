"""Learns to orchestrate: `python -m launch.train --flagfile=expC.flags`."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import pathlib
import shlex
import sys
from typing import TYPE_CHECKING

from absl import flags

from launch.host import errors, files
from launch.host.errors import InputError, RunError
from launch.host.runtime import use_compilation_cache
from launch.host.text import counted
from launch.inputs.flags import define_given_agent, refuse_other_settings, settings
from launch.inputs.settings import RealSettings, Settings

if TYPE_CHECKING:  # they load JAX, which --help and a flag that is wrong don't wait for
    from launch.runs.folder import RunFolder
    from launch.runs.summary import Summary

FLAGS = flags.FLAGS
flags.DEFINE_enum(
    "env", "simulator", ["simulator", "testbed"], "What answers: the simulator, or real nodes (edge_cloud/README.md)."
)
flags.DEFINE_string(
    "inventory",
    "data/inventories/local.toml",
    "With --env=testbed, the fleet (TOML). One with ports 0 is started here and taken down; else it runs already.",
)
flags.DEFINE_string(
    "init_from",
    "",
    "With --env=testbed, folder of a finished run of the same agent and size, whose seeds go on here: one on the "
    "fleet's digital twin, say.",
)
flags.DEFINE_integer(
    "measurements",
    20,
    "With --env=testbed, steps after the last epoch that measure what a seed learned; they are not learned from.",
    lower_bound=1,
)
FLAG_GROUPS = {"On real nodes": ("env", "inventory", "init_from", "measurements")}
REAL_FLAGS = ("inventory", "init_from", "measurements")


def _settings() -> Settings:
    """The flags as settings."""
    chosen = settings()
    if FLAGS.env == "simulator":
        for name in REAL_FLAGS:
            if FLAGS[name].present:
                raise InputError(f"--{name}: expected with --env=testbed, found with --env=simulator")
        return chosen
    from launch.runs.folder import RunFolder

    if FLAGS.init_from and not RunFolder(pathlib.Path(FLAGS.init_from)).begun:
        raise InputError(f"--init_from: expected the folder of a run, found no config.json in {FLAGS.init_from}")
    try:
        # Their packages aren't among those that the simulator needs.
        from edge_cloud.inventory import as_data
        from launch.fleet.inventory import read_inventory
    except ImportError as error:
        raise InputError(f"--env=testbed: expected the packages of requirements-testbed.txt, found {error}") from error
    fleet = as_data(read_inventory(FLAGS.inventory))
    twin = FLAGS.calibration is not None
    real = RealSettings(inventory=fleet, twin=twin, init_from=FLAGS.init_from, measurements=FLAGS.measurements)
    return dataclasses.replace(chosen, real=real)


def _refuse_others(stored_settings: Settings) -> None:
    refuse_other_settings(stored_settings, _settings)
    if FLAGS.scenario is None:  # else all settings were compared
        for name in REAL_FLAGS:
            if FLAGS[name].present:
                raise InputError(f"--resume: expected no --{name} (the run has its own), found {FLAGS[name].value!r}")
    if FLAGS["env"].present and FLAGS.env != stored_settings.env:
        raise InputError(f"--resume: expected this run's own env {stored_settings.env!r}, found {FLAGS.env!r}")


def _new_folder(chosen: Settings, closing: contextlib.ExitStack) -> RunFolder:
    """A folder for a new run, held until `closing` closes."""
    from launch.runs.folder import RunFolder, new_folder

    if not FLAGS.run_dir:
        now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        return new_folder(f"{files.name_of(chosen.scenario.name)}-{files.name_of(chosen.agent)}-{now}", closing)
    folder = RunFolder(pathlib.Path(FLAGS.run_dir))
    folder.check_new()  # even a finished run is only touched by --resume
    closing.enter_context(folder.held())
    folder.check_new()
    return folder


def check_seeds(summary: Summary) -> None:
    """Ends the command with exit status 1 if a seed failed.

    Raises:
      RunError: naming the first that did.
    """
    if summary.failures:
        count = f"{len(summary.failures)} of {counted(len(summary.seeds), 'seed')} failed"
        raise RunError(f"{count}; first {summary.failures[0]}")


def main() -> int:
    """Trains every seed, or resumes, and writes the run folder."""
    if FLAGS.resume and not FLAGS.run_dir:
        raise InputError("--resume: expected with --run_dir=FOLDER of the run, found without")
    with contextlib.ExitStack() as closing:
        return _train(closing)


def _train(closing: contextlib.ExitStack) -> int:
    from launch.runs import unit
    from launch.runs.folder import RunFolder

    folder = RunFolder(pathlib.Path(FLAGS.run_dir))
    # With settings --resume starts a run that isn't there yet: a script that may be ended at any time types one line.
    if FLAGS.resume and (FLAGS.scenario is None or folder.begun):
        closing.enter_context(folder.held())
        chosen = folder.settings()
        _refuse_others(chosen)
    else:
        chosen = _settings()
        folder = _new_folder(chosen, closing)
    use_compilation_cache()
    runner = unit.open_unit(chosen, folder, FLAGS.checkpoint_epochs)
    print(f"run folder: {folder}", file=sys.stderr)
    try:
        summary = unit.finish(runner, FLAGS.threads)
    except KeyboardInterrupt as reason:
        by = f" by {reason}" if str(reason) else ""
        print(
            f"interrupted{by}; go on with: python -m launch.train --resume --run_dir={shlex.quote(str(folder))}",
            file=sys.stderr,
        )
        return 130
    print(folder.decisions.read_text(encoding="utf-8"))
    if runner.oracle is None:
        print("Nobody knows a real fleet's optimum; --calibration=FILE (python -m launch.calibrate) gives a twin's.")
        print(f"results: {folder}/ (summary.json, metrics.csv, decisions.md, curves.png, events/, steps.jsonl)")
        check_seeds(summary)
        return 0
    steps = summary.aggregate.steps_to_optimal
    middle = "never" if steps.median is None else f"{steps.median:g}"
    of = f"{steps.succeeded} of {counted(steps.seeds, 'seed')}"
    print(f"{of} reached the optimum; {'' if steps.seeds == 1 else 'median '}real steps: {middle}")
    print(f"results: {folder}/ (summary.json, metrics.csv, decisions.md, curves.png, events/)")
    check_seeds(summary)
    return 0


if __name__ == "__main__":
    errors.run(main, define_given_agent)
