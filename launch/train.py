"""Learns to orchestrate: `python -m launch.train --flagfile=expC.flags` (all flags: --helpfull)."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import pathlib
import sys

# Before JAX starts: one thread a program, since seeds fill the cores, and results don't depend on how many there are.
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), "--xla_cpu_multi_thread_eigen=false"]).strip()

import jax
from absl import flags

from launch import errors, run_folder, stored
from launch.errors import InputError
from launch.flags import Settings, refuse_other_settings, settings
from launch.simulated import Simulation

FLAGS = flags.FLAGS
flags.DEFINE_enum("env", "simulator", ["simulator"], "What answers: the simulator.")


def _use_compilation_cache() -> None:
    """Keeps compiled programs between runs, unless the user's environment says where already."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = pathlib.Path(__file__).parent.parent / ".cache" / "jax"
        jax.config.update("jax_compilation_cache_dir", str(cache))


def _new_folder(chosen: Settings) -> pathlib.Path:
    if FLAGS.run_dir:
        return pathlib.Path(FLAGS.run_dir)
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return pathlib.Path("runs") / f"{chosen.scenario.name}-{chosen.agent}-{now}"


def _owner(chosen: Settings) -> str:
    """Names the settings that checkpoints belong to."""
    return hashlib.sha256(json.dumps(chosen.as_json(), sort_keys=True).encode()).hexdigest()


def main() -> int:
    """Trains every seed, or resumes, and writes the run folder."""
    if FLAGS.resume:
        if not FLAGS.run_dir:
            raise InputError("--resume: expected with --run_dir=FOLDER of the run, found without")
        folder = pathlib.Path(FLAGS.run_dir)
        run_folder.open_folder(folder, resume=True)
        chosen = stored.read_settings(folder / "config.json")
        refuse_other_settings(chosen)
    else:
        chosen = settings()
        folder = _new_folder(chosen)
    _use_compilation_cache()
    simulation = Simulation(chosen, folder, _owner(chosen), FLAGS.checkpoint_epochs)
    if not FLAGS.resume:
        run_folder.open_folder(folder, resume=False)
        run_folder.write_config(folder, chosen, FLAGS.env)
    print(f"run folder: {folder}", file=sys.stderr)
    try:
        histories = simulation.learn(FLAGS.resume, FLAGS.threads or len(os.sched_getaffinity(0)))
    except KeyboardInterrupt:
        print(f"interrupted; go on with: python -m launch.train --resume --run_dir={folder}", file=sys.stderr)
        return 130
    summary = run_folder.write_results(folder, chosen, FLAGS.env, histories, simulation.oracle)
    print((folder / "decisions.md").read_text(encoding="utf-8"))
    steps = summary["aggregate"]["steps_to_optimal"]
    middle = "never" if steps["median"] is None else f"{steps['median']:g}"
    print(f"{steps['succeeded']} of {steps['seeds']} seeds reached the optimum; median real steps: {middle}")
    print(f"results: {folder}/ (summary.json, metrics.csv, decisions.md, curves.png, events/)")
    return 0


if __name__ == "__main__":
    errors.run(main)
