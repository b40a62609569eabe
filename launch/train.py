"""Learns to orchestrate: `python -m launch.train --flagfile=expC.flags` (all flags: --helpfull)."""

from __future__ import annotations

import datetime
import pathlib
import sys

from absl import flags

from launch import errors, run_folder, stored, units
from launch.errors import InputError
from launch.flags import Settings, refuse_other_settings, settings
from launch.runtime import use_compilation_cache

FLAGS = flags.FLAGS
flags.DEFINE_enum("env", "simulator", ["simulator"], "What answers: the simulator.")


def _new_folder(chosen: Settings) -> pathlib.Path:
    if FLAGS.run_dir:
        return pathlib.Path(FLAGS.run_dir)
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return pathlib.Path("runs") / f"{chosen.scenario.name}-{chosen.agent}-{now}"


def main() -> int:
    """Trains every seed, or resumes, and writes the run folder."""
    if FLAGS.resume:
        if not FLAGS.run_dir:
            raise InputError("--resume: expected with --run_dir=FOLDER of the run, found without")
        folder = pathlib.Path(FLAGS.run_dir)
        chosen = stored.read_settings(folder / "config.json")
        refuse_other_settings(chosen)
    else:
        chosen = settings()
        folder = _new_folder(chosen)
        run_folder.check_new(folder)  # even a finished run is only touched by --resume
    use_compilation_cache()
    simulation = units.open_unit(chosen, folder, FLAGS.checkpoint_epochs)
    print(f"run folder: {folder}", file=sys.stderr)
    try:
        summary = units.finish(simulation, FLAGS.threads)
    except KeyboardInterrupt:
        print(f"interrupted; go on with: python -m launch.train --resume --run_dir={folder}", file=sys.stderr)
        return 130
    print((folder / "decisions.md").read_text(encoding="utf-8"))
    steps = summary["aggregate"]["steps_to_optimal"]
    middle = "never" if steps["median"] is None else f"{steps['median']:g}"
    print(f"{steps['succeeded']} of {steps['seeds']} seeds reached the optimum; median real steps: {middle}")
    print(f"results: {folder}/ (summary.json, metrics.csv, decisions.md, curves.png, events/)")
    return 0


if __name__ == "__main__":
    errors.run(main)
