"""The true optimum of a scenario: `python -m launch.oracle --flagfile=expA.flags --constraint=all`.

Up to five devices by brute force, with every tie. For more devices by a mixed-integer program (HiGHS), which finds one
optimal decision and doesn't look for ties: `ties` is null then, and `optimal` holds that one. Under traffic
(`--traffic=poisson`) by a race of rollouts: `optimal` holds the winner, and whoever isn't certainly worse; `--picture`
draws what it is worth beside the lock-step optimum.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from hl_jax import objective, simulator
from hl_jax.choices import node_choices
from hl_jax.fleets import environment as fleet_environment
from hl_jax.fleets import params as fleet_params
from hl_jax.fleets.scenario import AnyScenario, FleetScenario
from hl_jax.optimum import oracle, placing, racing
from hl_jax.scenario import Scenario
from hl_jax.traffic import params as traffic_params
from hl_jax.traffic import standing
from hl_jax.traffic.environment import TrafficParams
from launch.host import errors, files
from launch.host.errors import InputError
from launch.inputs.flags import scenario_file
from launch.report.queues import Course, response_times

FLAGS = flags.FLAGS
stays = jax.jit(standing.stays)

_FORMAT = flags.DEFINE_enum("format", "table", ["table", "json"], "A table to read, or JSON for tools.")

_PICTURE = flags.DEFINE_string(
    "picture", "", "Under traffic: PNG of response times and queues under the best decision and the lock-step optimum."
)
SECONDS = 30.0  # of queues in the picture
PICTURED = 16  # rollouts whose response times are drawn


def _user_counts(text: str, scenario: AnyScenario) -> list[int]:
    if text in ("", "all"):
        return [scenario.users] if text == "" else list(range(1, scenario.users + 1))
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"--users: expected a number, a comma list of them or all, found {text!r}") from error


def _constraint_names(text: str, scenario: AnyScenario) -> list[str]:
    if text == "":
        return [str(scenario.constraint)]
    return list(objective.CONSTRAINTS) if text == "all" else text.split(",")


@dataclasses.dataclass(frozen=True)
class Solved:
    """One entry of the JSON output."""

    experiment: str
    users: int
    constraint: str | float
    art_ms: float
    accuracy: float
    decision: list[str]  # the first of `optimal`
    ties: int | None  # None: nobody counted them
    optimal: list[list[str]]
    # Under traffic: the standard error of `art_ms` (there the objective's cost), and by how much one of the decisions
    # after the first of `optimal` may be better, at most.
    error_ms: float | None = None
    behind_ms: float | None = None
    # Of a fleet of its own: what its goal counts, and what devices draw on average, where that counts.
    cost: float | None = None
    energy_mj: float | None = None


def solve(scenario: AnyScenario, constraint: str) -> Solved:
    """The optimum of a scenario in its own conditions, as one entry of the JSON output.

    Raises:
      ValueError: if the constraint isn't one, or can't be met, or no optimum is proven in time.
    """
    asked = dataclasses.replace(scenario, constraint=objective.constraint_value(constraint, scenario.pool))
    labels = scenario.choice_labels()
    if isinstance(asked, FleetScenario):
        return _placed(asked, constraint)
    if asked.traffic is not None:
        raced = racing.optimum(traffic_params.make_params(asked))
        return Solved(
            experiment=scenario.name,
            users=scenario.users,
            constraint=objective.constraint_label(constraint),
            art_ms=round(raced.cost_ms, 4),
            accuracy=round(raced.accuracy, 4),
            decision=[labels[choice] for choice in raced.decision],
            ties=None,
            optimal=[[labels[choice] for choice in decision] for decision in (raced.decision, *raced.rivals)],
            error_ms=round(raced.error_ms, 4),
            behind_ms=round(raced.behind_ms, 4),
        )
    optimum = oracle.optimum(simulator.make_params(asked))
    return Solved(
        experiment=scenario.name,
        users=scenario.users,
        constraint=objective.constraint_label(constraint),
        art_ms=round(optimum.art_ms, 4),
        accuracy=round(optimum.accuracy, 4),
        decision=[labels[choice] for choice in optimum.decision],
        ties=len(optimum.optimal) if optimum.complete else None,
        optimal=[[labels[choice] for choice in decision] for decision in optimum.optimal.tolist()],
    )


def _placed(fleet: FleetScenario, constraint: str) -> Solved:
    """The same of a fleet of its own."""
    params = fleet_params.make_params(fleet)
    found = placing.optimum(fleet_environment.problem(params, params.start))
    worth = fleet_environment.worth(params, params.start, jnp.array(found.action, jnp.int32))
    decision = list(fleet.labels(found.action))
    return Solved(
        experiment=fleet.name,
        users=fleet.users,
        constraint=objective.constraint_label(constraint),
        art_ms=round(float(jnp.mean(worth.response_ms)), 4),
        accuracy=round(found.accuracy, 4),
        decision=decision,
        ties=None,
        optimal=[decision],
        cost=round(found.cost, 4),
        energy_mj=round(float(jnp.mean(worth.energy_mj)), 4)
        if fleet.goal.weights[1] and worth.energy_mj is not None
        else None,
    )


def _course(params: TrafficParams, decision: Sequence[int], label: str) -> Course:
    """What some rollouts show of a standing decision; the queues are the first one's."""
    action = jnp.array(decision, jnp.int32)
    keys = [jax.random.key(number) for number in range(PICTURED)]
    each = [jax.device_get(stays(params, action, key)) for key in keys]
    edge, cloud = node_choices(params.fleet.local_ms.shape[1])
    one = each[0]
    there = {
        "devices": one.over & (one.choice < edge),
        "edge": one.over & (one.choice == edge),
        "cloud": one.over & (one.choice == cloud),
    }
    return Course(
        label=label,
        response_ms=np.concatenate([one.response[one.over] for one in each]),
        stays={place: (one.arrival[mine] / 1000.0, one.end[mine] / 1000.0) for place, mine in there.items()},
    )


def picture(scenario: Scenario) -> bytes:
    """The best standing decision of a scenario with traffic beside its lock-step optimum, as a PNG.

    Raises:
      ValueError: if either can't be told.
    """
    params = traffic_params.make_params(scenario)
    still = standing.still(params, params.fleet.start)
    together = oracle.optimum(simulator.make_params(dataclasses.replace(scenario, traffic=None)))
    best = racing.optimum(params)
    courses = [
        _course(still, one.decision, f"{name}, {' '.join(scenario.labels(one.decision))}")
        for name, one in (("lock-step", together), ("best", best))
    ]
    title = f"{scenario.name}, {scenario.users} devices, at least {scenario.constraint:g} %"
    return response_times(title, courses, SECONDS)


def _print_table(results: list[Solved]) -> None:
    traffic = results[0].error_ms is not None
    cost, optima = ("cost (ms)", "rivals") if traffic else ("ART (ms)", "optima")
    drawn = ("energy (mJ)",) if any(entry.energy_mj is not None for entry in results) else ()
    head = ("experiment", "users", "constraint", cost, "accuracy (%)", *drawn, optima, "decision")
    lines = [head]
    for entry in results:
        ties = "not counted" if entry.ties is None else str(entry.ties)
        art = f"{entry.art_ms:.2f}"
        if entry.error_ms is not None:
            ties = f"{len(entry.optimal) - 1}, {entry.behind_ms:.2f} ms better at most" if entry.optimal[1:] else "none"
            art = f"{art} +- {entry.error_ms:.2f}"
        energy = () if entry.energy_mj is None else (f"{entry.energy_mj:.2f}",)
        numbers = (art, f"{entry.accuracy:.2f}", *energy, ties)
        lines.append((entry.experiment, str(entry.users), str(entry.constraint), *numbers, " ".join(entry.decision)))
    widths = [max(len(line[column]) for line in lines) for column in range(len(head) - 1)]
    for line in lines:
        cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=False)]
        print("  ".join([*cells, line[-1]]))


def _pictured(scenario: AnyScenario, results: Sequence[Solved]) -> Scenario:
    """The one scenario that was solved.

    Raises:
      InputError: if there were several, or one without traffic.
    """
    if isinstance(scenario, FleetScenario) or scenario.traffic is None:
        raise InputError("--picture: expected a scenario with traffic (--traffic=poisson, say), found none")
    if len(results) != 1:
        raise InputError(f"--picture: expected one number of users and one constraint, found {len(results)} of them")
    one = results[0]
    constraint = objective.constraint_value(str(one.constraint), scenario.pool)
    return dataclasses.replace(scenario.with_users(one.users), constraint=constraint)


def main() -> None:
    """Solves the scenario for every asked number of users and constraint, and prints the results."""
    scenario = scenario_file()
    results = []
    try:
        for users in _user_counts(FLAGS.users, scenario):
            reduced = scenario.with_users(users)
            results += [solve(reduced, name) for name in _constraint_names(FLAGS.constraint, scenario)]
        drawn = picture(_pictured(scenario, results)) if _PICTURE.value else b""
    except ValueError as error:
        raise InputError(f"{error} (scenario {FLAGS.scenario})") from error
    if _PICTURE.value:
        files.write_atomically(pathlib.Path(_PICTURE.value), drawn)
    if _FORMAT.value == "json":
        of_some = ("error_ms", "behind_ms", "cost", "energy_mj")
        entries = [dataclasses.asdict(one) for one in results]
        plain = [{k: v for k, v in one.items() if k not in of_some or v is not None} for one in entries]
        print(json.dumps(plain, indent=2))
    else:
        _print_table(results)


if __name__ == "__main__":
    errors.run(main)
