"""A trained policy on other conditions or another constraint: `python -m launch.evaluate --run_dir=runs/…`.

Without more flags it is judged where it was trained. `--scenario=FILE` puts the same devices into other conditions
(links, speeds, load that changes), `--constraint=…` asks more or less accuracy of it: one, a comma list, or a range as
LOW:HIGH:STEP. `factored` takes the constraint as an input; the other agents learned theirs. Nothing is learned here: no
real step.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import pathlib
from typing import Any

import jax
import numpy as np
from absl import flags

from hl_jax import evaluation
from hl_jax.agents.world import Agent
from hl_jax.constraints import constraint_label, constraint_value
from hl_jax.simulator import EnvParams, EnvState
from launch.host import errors
from launch.host.errors import InputError
from launch.host.runtime import use_compilation_cache
from launch.inputs.agents import AGENTS
from launch.inputs.flags import scenario_file
from launch.inputs.settings import Settings, read_settings
from launch.runs import folder as run_folder
from launch.runs.on_simulator import Group, Simulation

FLAGS = flags.FLAGS
flags.DEFINE_enum("format", "table", ["table", "json"], "A table to read, or JSON for tools.")


MOST_CONSTRAINTS = 1000  # in a range


def asked_constraints(text: str) -> list[str]:
    """The constraints that --constraint names: one (or none, ""), a comma list, ranges LOW:HIGH:STEP.

    Raises:
      InputError: if a range isn't one.
    """
    found: list[str] = []
    for part in text.split(","):
        if ":" not in part:
            found.append(part)
            continue
        try:
            low, high, step = (float(number) for number in part.split(":"))
            if not (math.isfinite(low) and low <= high and step > 0.0 and (high - low) / step < MOST_CONSTRAINTS):
                raise ValueError
        except ValueError as error:
            expected = f"a range LOW:HIGH:STEP of at most {MOST_CONSTRAINTS} values"
            raise InputError(f"--constraint: expected {expected}, found {part!r}") from error
        # Steps are counted, not added up, and printed numbers are meant: 72.8, 72.9, …
        found += [f"{low + index * step:.6g}" for index in range(math.floor((high - low) / step + 1e-6) + 1)]
    return found


def _asked(trained: Settings, constraint: str) -> Settings:
    """The run's settings in the conditions that the flags ask for, under one constraint ("": the run's own).

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
    if constraint:
        try:
            value = constraint_value(constraint, scenario.pool)
        except ValueError as error:
            raise InputError(f"--{error}") from error
        scenario, label = dataclasses.replace(scenario, constraint=value), str(constraint_label(constraint))
    return dataclasses.replace(trained, scenario=scenario, constraint=label)


@functools.partial(jax.jit, static_argnums=0)
def _evaluate_all(agent: Agent, states: Any, params: EnvParams, starts: EnvState) -> evaluation.Evaluation:
    """Evaluates a group's states (leading axis S). One program serves every constraint."""
    return jax.vmap(lambda state: evaluation.evaluate(lambda obs: agent.decide(state, obs), params, starts))(states)


def judge(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Evaluates every seed of a run as the flags ask, an entry for each constraint."""
    trained = read_settings(folder / "config.json")
    asked = [_asked(trained, constraint) for constraint in asked_constraints(FLAGS.constraint)]
    groups = Simulation(trained, folder, trained.digest, 1).groups()
    agent: Agent | None = None
    found = []
    for one in asked:
        there = Simulation(one, folder, trained.digest, 1)
        # The same object for all of them, because compiled programs belong to it.
        agent = agent or there.agent
        found.append(_judge(trained, one, groups, there, agent))
    return found


def _judge(trained: Settings, asked: Settings, groups: list[Group], there: Simulation, agent: Agent) -> dict[str, Any]:
    labels = asked.scenario.choice_labels()
    seeds = []
    for group in groups:
        states = AGENTS[asked.agent].under(group.run.agent, asked.scenario.constraint)
        seen = jax.tree.map(np.asarray, _evaluate_all(agent, states, there.params, there.starts))
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
    results = judge(pathlib.Path(FLAGS.run_dir))
    if FLAGS.format == "json":
        print(json.dumps(results[0] if len(results) == 1 else results, indent=2))
        return
    for index, result in enumerate(results):
        _print_table(result, head=index == 0)


def _print_table(result: dict[str, Any], head: bool) -> None:
    if head:
        where = f"experiment {result['experiment']}, {result['states']} states"
        print(f"{result['agent']} trained on {result['trained_on']}: {where}")
        columns = f"{'seed':>5} {'ART (ms)':>9} {'optimum':>9} {'regret':>8} {'accuracy':>9} {'keeps it':>9}"
        print(f"{'constraint':>10} {columns}  decision")
    for seed in result["seeds"]:
        numbers = f"{seed['art_ms']:>9.2f} {seed['oracle_art_ms']:>9.2f} {seed['regret_percent']:>6.1f} %"
        kept = "yes" if seed["feasible"] else "no"
        row = f"{seed['seed']:>5} {numbers} {seed['accuracy']:>9.2f} {kept:>9}"
        print(f"{result['constraint']:>10} {row}  {' '.join(seed['decision'])}")


if __name__ == "__main__":
    errors.run(main)
