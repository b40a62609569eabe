"""The true optimum of a scenario: `python -m launch.oracle --flagfile=expA.flags --constraint=all`.

Up to five devices by brute force, with every tie. For more devices by a mixed-integer program (HiGHS), which finds one
optimal decision and doesn't look for ties: `ties` is null then, and `optimal` holds that one.
"""

from __future__ import annotations

import dataclasses
import json

from absl import flags

from hl_jax import objective, simulator
from hl_jax.optimum import oracle
from hl_jax.scenario import Scenario
from launch.host import errors
from launch.host.errors import InputError
from launch.inputs.flags import scenario_file

FLAGS = flags.FLAGS

_FORMAT = flags.DEFINE_enum("format", "table", ["table", "json"], "A table to read, or JSON for tools.")


def _user_counts(text: str, scenario: Scenario) -> list[int]:
    if text in ("", "all"):
        return [scenario.users] if text == "" else list(range(1, scenario.users + 1))
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"--users: expected a number, a comma list of them or all, found {text!r}") from error


def _constraint_names(text: str, scenario: Scenario) -> list[str]:
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


def solve(scenario: Scenario, constraint: str) -> Solved:
    """The optimum of a scenario in its own conditions, as one entry of the JSON output.

    Raises:
      ValueError: if the constraint isn't one, or can't be met, or no optimum is proven in time.
    """
    value = objective.constraint_value(constraint, scenario.pool)
    optimum = oracle.optimum(simulator.make_params(dataclasses.replace(scenario, constraint=value)))
    labels = scenario.choice_labels()
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


def _print_table(results: list[Solved]) -> None:
    head = ("experiment", "users", "constraint", "ART (ms)", "accuracy (%)", "optima", "decision")
    lines = [head]
    for entry in results:
        numbers = (
            f"{entry.art_ms:.2f}",
            f"{entry.accuracy:.2f}",
            "not counted" if entry.ties is None else str(entry.ties),
        )
        lines.append((entry.experiment, str(entry.users), str(entry.constraint), *numbers, " ".join(entry.decision)))
    widths = [max(len(line[column]) for line in lines) for column in range(len(head) - 1)]
    for line in lines:
        cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=False)]
        print("  ".join([*cells, line[-1]]))


def main() -> None:
    """Solves the scenario for every asked number of users and constraint, and prints the results."""
    scenario = scenario_file()
    results = []
    try:
        for users in _user_counts(FLAGS.users, scenario):
            reduced = scenario.with_users(users)
            results += [solve(reduced, name) for name in _constraint_names(FLAGS.constraint, scenario)]
    except ValueError as error:
        raise InputError(f"{error} (scenario {FLAGS.scenario})") from error
    if _FORMAT.value == "json":
        print(json.dumps([dataclasses.asdict(one) for one in results], indent=2))
    else:
        _print_table(results)


if __name__ == "__main__":
    errors.run(main)
