"""How close to the best a real fleet's learned decisions are: `python -m launch.candidates --calibration=twin.json …`.

Nobody knows a real fleet's optimum. So the best joint actions by its digital twin are measured for real, and beside
them what runs have decided, in turns, so that all see the same machine. Joint actions that differ only in which of
equal devices does what count as one.
"""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
from absl import flags

from hl_jax import simulator
from hl_jax.optimum.candidates import best_candidates, canonical
from hl_jax.scenario import Scenario
from launch.fleet.adapter import TestbedEnv
from launch.fleet.inventory import read_inventory
from launch.host import errors, files
from launch.host.errors import InputError, RunError
from launch.host.records import as_data
from launch.inputs.flags import chosen_scenario, scenario_file
from launch.inputs.scenario_files import papers
from launch.runs.folder import RunFolder

FLAGS = flags.FLAGS
_INVENTORY = flags.DEFINE_string("inventory", "data/inventories/local.toml", "The fleet (TOML); ports 0: started here.")
_RUNS = flags.DEFINE_list("run_dirs", [], "Finished runs whose seeds' decisions are measured too.")
_COUNT = flags.DEFINE_integer("candidates", 20, "The twin's best joint actions to measure.", lower_bound=1)
_TIMES = flags.DEFINE_integer("measurements", 20, "Steps of each.", lower_bound=1)
_OUT = flags.DEFINE_string("out", "", "File to write all of it to, as JSON; default none.")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One decision, as it was measured."""

    what: str
    decision: list[str]
    art_ms: float
    standard_error_ms: float
    twin_art_ms: float | None  # None: not among the twin's best
    over_best_percent: float
    measurements: int  # steps that this rests on
    steps_with_lost_requests: int  # which it doesn't


def _decisions(scenario: Scenario) -> list[tuple[str, tuple[int, ...]]]:
    """What the seeds of the given runs decided."""
    labels, found = scenario.choice_labels(), []
    for folder in _RUNS.value:
        run = RunFolder(pathlib.Path(folder))
        summary = run.summary()
        if summary is None:
            raise InputError(f"--run_dirs: expected finished runs, found no summary.json in {folder}")
        if other := scenario.unlike(run.settings().scenario):
            raise InputError(f"--run_dirs: {other} in {folder} (those of --scenario are expected)")
        for seed in summary.seeds:
            action = tuple(labels.index(choice) for choice in seed.decision)
            found.append((f"{pathlib.Path(folder).name}, seed {seed.seed}", canonical(scenario, action)))
    return found


def main() -> None:
    """Measures, and prints every run's decision beside the best candidate."""
    if FLAGS.calibration is None:
        raise InputError("--calibration: expected the fleet's digital twin (python -m launch.calibrate), found none")
    scenario = papers(chosen_scenario(scenario_file(), FLAGS.users, FLAGS.constraint))
    try:
        candidates = best_candidates(scenario, _COUNT.value)
    except ValueError as error:
        raise InputError(str(error)) from error
    decided = _decisions(scenario)
    times: dict[tuple[int, ...], list[float]] = {action: [] for action, _ in candidates}
    times |= {action: [] for _, action in decided}
    lost = dict.fromkeys(times, 0)
    inventory = read_inventory(_INVENTORY.value)
    with TestbedEnv(scenario, inventory, simulator.make_params(scenario)) as env:
        env.profile(candidates[0][0], 2)
        for _ in range(_TIMES.value):
            for action in times:
                (response,) = env.profile(action, 1)
                if np.isfinite(response).all():
                    times[action].append(float(response.mean()))
                else:  # the mean of those who answered would be another fleet's
                    lost[action] += 1
    labels = scenario.choice_labels()
    if silent := [action for action, values in times.items() if not values]:
        decision = " ".join(labels[choice] for choice in silent[0])
        raise RunError(f"measurements: expected a step without a lost request, found none of {decision}")
    mean = {action: float(np.mean(values)) for action, values in times.items()}
    best = min((action for action, _ in candidates), key=lambda action: mean[action])
    predicted = dict(candidates)

    def entry(name: str, action: tuple[int, ...]) -> Entry:
        return Entry(
            what=name,
            decision=[labels[choice] for choice in action],
            art_ms=round(mean[action], 2),
            standard_error_ms=round(float(np.std(times[action]) / np.sqrt(len(times[action]))), 2),
            twin_art_ms=round(predicted[action], 2) if action in predicted else None,
            over_best_percent=round(100.0 * (mean[action] / mean[best] - 1.0), 2),
            measurements=len(times[action]),
            steps_with_lost_requests=lost[action],
        )

    rows = [entry(f"candidate {place + 1}", action) for place, (action, _) in enumerate(candidates)]
    rows += [entry(name, action) for name, action in decided]
    for row in rows:
        numbers = f"{row.art_ms:>8.2f} ± {row.standard_error_ms:<5.2f} {row.over_best_percent:>+7.2f} %"
        note = f"  ({row.steps_with_lost_requests} steps lost)" if row.steps_with_lost_requests else ""
        print(f"{row.what:<28} {numbers}  {' '.join(row.decision)}{note}")
    near = sum(row.over_best_percent <= 5.0 for row in rows[len(candidates) :])
    if decided:
        print(f"{near} of {len(decided)} decisions within 5 % of the best measured candidate")
    if _OUT.value:
        document = {
            "constraint": FLAGS.constraint or scenario.constraint,
            "measurements": _TIMES.value,
            "rows": as_data(rows),
        }
        files.write_json(pathlib.Path(_OUT.value), document, indent=2)


if __name__ == "__main__":
    errors.run(main)
