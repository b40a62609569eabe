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
import sys

import jax
import numpy as np
from absl import flags

from hl_jax import evaluation, training
from hl_jax.agents.world import Agent, AgentState
from hl_jax.environments import Params, State
from hl_jax.objective import constraint_label, constraint_value
from launch.host import errors
from launch.host.errors import InputError
from launch.host.runtime import use_compilation_cache
from launch.host.text import fixed
from launch.inputs.agents import make_agent
from launch.inputs.flags import check_measured, scenario_file
from launch.inputs.settings import Settings
from launch.runs import learned
from launch.runs.folder import RunFolder
from launch.runs.history import judged
from launch.runs.learned import Learned
from launch.runs.on_simulator import solve

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
    if FLAGS.scenario is None:
        for name in ("traffic", "interval_ms", "period_ms", "deadline_ms", "objective"):
            if FLAGS[name].value is not None:
                raise InputError(f"--{name}: expected with --scenario, since a run's own stays as it is, found without")
    else:
        other = scenario_file()
        try:
            other = other.with_users(scenario.users)
        except ValueError as error:
            raise InputError(f"--scenario: {error} in {FLAGS.scenario}") from error
        if difference := scenario.unlike(other):
            raise InputError(f"--scenario: {difference} in {FLAGS.scenario} (the run's are expected)")
        scenario = check_measured(dataclasses.replace(other, constraint=scenario.constraint))
    label = trained.constraint
    if constraint:
        try:
            value = constraint_value(constraint, scenario.pool)
        except ValueError as error:
            raise InputError(f"--{error}") from error
        scenario, label = dataclasses.replace(scenario, constraint=value), str(constraint_label(constraint))
    return dataclasses.replace(trained, scenario=scenario, constraint=label)


@functools.partial(jax.jit, static_argnums=0)
def _evaluate(agent: Agent, state: AgentState, params: Params, starts: State) -> evaluation.Evaluation:
    """Evaluates what one seed has learned. One program serves every seed and constraint."""
    return evaluation.evaluate(lambda obs: agent.decide(state, obs), params, starts)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How one seed's policy does."""

    seed: int
    epoch: int
    art_ms: float
    oracle_art_ms: float
    regret_percent: float
    accuracy: float
    feasible: bool
    decision: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Result:
    """A run's policies where they were asked about, under one constraint."""

    experiment: str
    trained_on: str
    constraint: str
    agent: str
    states: int
    seeds: tuple[Verdict, ...]


def judge(folder: RunFolder) -> list[Result]:
    """Evaluates every seed of a run as the flags ask, an entry for each constraint."""
    trained = folder.settings()
    asked = [_asked(trained, constraint) for constraint in asked_constraints(FLAGS.constraint)]
    agent = make_agent(trained.agent, trained.config, trained.scenario)
    found = learned.read(trained, folder)
    _tell_what_is_missing(trained, agent, found)
    return [_judge(trained, one, found, agent) for one in asked]


def _tell_what_is_missing(trained: Settings, agent: Agent, found: dict[int, Learned]) -> None:
    def say(text: str) -> None:
        print(text, file=sys.stderr)

    if absent := [seed for seed in trained.seeds if seed not in found]:
        say(f"left out, because they have no checkpoint: seeds {', '.join(map(str, absent))}")
    if early := {seed: one.epoch for seed, one in found.items() if one.epoch < agent.epochs}:
        where = ", ".join(f"seed {seed} after {epoch}" for seed, epoch in early.items())
        say(f"not at their last epoch, {agent.epochs}: {where}")
    if trained.real is not None and not trained.real.twin:
        say("learned on real nodes without a twin: times below are the scenario's calibration, not that fleet's")


def _judge(trained: Settings, asked: Settings, found: dict[int, Learned], agent: Agent) -> Result:
    labels = asked.scenario.choice_labels()
    params = training.params_for(agent, asked.scenario)
    starts = evaluation.judged_states(params)
    oracle = solve(params, starts)
    seeds = []
    for seed, one in found.items():
        state = agent.under(one.state, asked.scenario.constraint)
        every = jax.tree.map(np.asarray, _evaluate(agent, state, params, starts))
        seen = judged(every, oracle)
        assert seen.art_ms is not None
        assert seen.regret_percent is not None
        seeds.append(
            Verdict(
                seed=seed,
                epoch=one.epoch,
                art_ms=seen.art_ms,
                oracle_art_ms=oracle.art_ms,
                regret_percent=seen.regret_percent,
                accuracy=seen.accuracy,
                feasible=seen.feasible,
                decision=tuple(labels[choice] for choice in seen.decision),
            )
        )
    return Result(
        experiment=asked.scenario.name,
        trained_on=trained.scenario.name,
        constraint=asked.constraint,
        agent=asked.agent,
        states=len(oracle.optima),
        seeds=tuple(seeds),
    )


def main() -> None:
    """Prints how the run's policies do."""
    if not FLAGS.run_dir:
        raise InputError("--run_dir: expected the folder of a run, found none")
    use_compilation_cache()
    results = judge(RunFolder(pathlib.Path(FLAGS.run_dir)))
    if FLAGS.format == "json":
        plain = [dataclasses.asdict(result) for result in results]
        print(json.dumps(plain[0] if len(plain) == 1 else plain, indent=2))
        return
    for index, result in enumerate(results):
        _print_table(result, head=index == 0)


def _print_table(result: Result, head: bool) -> None:
    if head:
        print(f"{result.agent} trained on {result.trained_on}: experiment {result.experiment}, {result.states} states")
        columns = f"{'seed':>5} {'ART (ms)':>9} {'optimum':>9} {'regret':>8} {'accuracy':>9} {'keeps it':>9}"
        print(f"{'constraint':>10} {columns}  decision")
    for seed in result.seeds:
        numbers = f"{seed.art_ms:>9.2f} {seed.oracle_art_ms:>9.2f} {fixed(seed.regret_percent, 1):>6} %"
        kept = "yes" if seed.feasible else "no"
        row = f"{seed.seed:>5} {numbers} {seed.accuracy:>9.2f} {kept:>9}"
        print(f"{result.constraint:>10} {row}  {' '.join(seed.decision)}")


if __name__ == "__main__":
    errors.run(main)
