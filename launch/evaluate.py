"""A trained policy on other conditions or another constraint: `python -m launch.evaluate --run_dir=runs/…`.

Without more flags it is judged where it was trained. `--scenario=FILE` puts the same devices into other conditions
(links, speeds, load that changes), `--constraint=…` asks more or less accuracy of it. Nothing is learned: no real step.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import jax
import numpy as np
from absl import flags

from hl_jax import evaluation
from hl_jax.constraints import constraint_label, constraint_value
from launch import errors, run_folder, stored, units
from launch.errors import InputError
from launch.flags import Settings, scenario_file
from launch.runtime import use_compilation_cache
from launch.simulated import Simulation

FLAGS = flags.FLAGS
flags.DEFINE_enum("format", "table", ["table", "json"], "A table to read, or JSON for tools.")


def _asked(trained: Settings) -> Settings:
    """The run's settings in the conditions and under the constraint that the flags ask for.

    Raises:
      InputError: if the other scenario has other devices or models, or the constraint can't be met.
    """
    scenario = trained.scenario
    if FLAGS.scenario is not None:
        other = scenario_file()
        try:
            other = other.with_users(scenario.users)
        except ValueError as error:
            raise InputError(f"--scenario: {error} in {FLAGS.scenario}") from error
        if other.choices != scenario.choices:
            expected = f"{scenario.choices} choices a device, as in the run"
            raise InputError(f"--scenario: expected {expected}, found {other.choices} in {FLAGS.scenario}")
        scenario = dataclasses.replace(other, constraint=scenario.constraint)
    label = trained.constraint
    if FLAGS.constraint:
        try:
            value = constraint_value(FLAGS.constraint, scenario.pool)
        except ValueError as error:
            raise InputError(f"--{error}") from error
        scenario, label = dataclasses.replace(scenario, constraint=value), str(constraint_label(FLAGS.constraint))
    return dataclasses.replace(trained, scenario=scenario, constraint=label)


def judge(folder: pathlib.Path) -> dict[str, Any]:
    """Evaluates every seed of a run as the flags ask."""
    trained = stored.read_settings(folder / "config.json")
    asked = _asked(trained)
    groups = Simulation(trained, folder, units.owner(trained), 1).groups()
    there = Simulation(asked, folder, units.owner(trained), 1)
    labels = asked.scenario.choice_labels()

    def evaluate(state: Any) -> evaluation.Evaluation:
        decide = lambda obs: there.agent.decide(state, obs)  # noqa: E731
        return evaluation.evaluate(decide, there.params, there.starts)

    evaluate_all = jax.jit(jax.vmap(evaluate))
    seeds = []
    for group in groups:
        seen = jax.tree.map(np.asarray, evaluate_all(group.run.agent))
        for lane, seed in enumerate(group.seeds):
            if seed in group.history:
                one = jax.tree.map(lambda leaf, lane=lane: leaf[lane], seen)
                seeds.append(
                    {
                        "seed": seed,
                        "epoch": group.epoch,
                        "art_ms": float(np.mean(one.art_ms[:, -1])),
                        "oracle_art_ms": there.oracle.art_ms,
                        "regret_percent": run_folder.regret_percent(one, there.oracle),
                        "accuracy": float(np.mean(one.accuracy[:, -1])),
                        "feasible": bool(np.all(one.feasible)),
                        "decision": [labels[choice] for choice in one.decisions[0, -1]],
                    }
                )
    return {
        "experiment": asked.scenario.name,
        "trained_on": trained.scenario.name,
        "constraint": asked.constraint,
        "agent": asked.agent,
        "states": len(there.oracle.optima),
        "seeds": seeds,
    }


def main() -> None:
    """Prints how the run's policies do."""
    if not FLAGS.run_dir:
        raise InputError("--run_dir: expected the folder of a run, found none")
    use_compilation_cache()
    result = judge(pathlib.Path(FLAGS.run_dir))
    if FLAGS.format == "json":
        print(json.dumps(result, indent=2))
        return
    where = f"experiment {result['experiment']}, constraint {result['constraint']}, {result['states']} states"
    print(f"{result['agent']} trained on {result['trained_on']}: {where}")
    print(f"{'seed':>5} {'ART (ms)':>9} {'optimum':>9} {'regret':>8} {'accuracy':>9} {'keeps it':>9}  decision")
    for seed in result["seeds"]:
        numbers = f"{seed['art_ms']:>9.2f} {seed['oracle_art_ms']:>9.2f} {seed['regret_percent']:>6.1f} %"
        kept = "yes" if seed["feasible"] else "no"
        print(f"{seed['seed']:>5} {numbers} {seed['accuracy']:>9.2f} {kept:>9}  {' '.join(seed['decision'])}")


if __name__ == "__main__":
    errors.run(main)
