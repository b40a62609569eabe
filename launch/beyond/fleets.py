"""`launch.beyond`'s rows of a user's own fleet: how soon `factored` knows measured machines, and what it keeps."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hl_jax import environments, evaluation, health, objective, statistics, training
from hl_jax.agents.factored import placing
from hl_jax.agents.factored.config import FactoredConfig
from hl_jax.agents.factored.placing import Placing
from hl_jax.agents.world import compiled_world, real_step
from hl_jax.fleets import environment
from hl_jax.fleets.params import FleetParams
from hl_jax.fleets.scenario import FleetScenario
from hl_jax.optimum import placing as oracle
from launch.beyond.kept import Kept
from launch.beyond.lines import FleetLine
from launch.beyond.running import SCENARIOS
from launch.host.errors import RunError
from launch.inputs.scenario_files import load_any

STEPS, CHUNK = 500, 20  # real steps of a run, and in one call of its program
LIMITS = ("85", "87", "Max")
SETTLED = 20  # real steps after which lapses count, and late answers
FIRST_SEED = 1000  # no constant was chosen by it or a later one
DEADLINE_MS = 200.0
MEDIAN_STEPS, LAPSE, KEPT, MEDIAN_ENERGY_STEPS = 12, 5.0, 99.0, 15


def mixed(limit: str, **goal: Any) -> FleetScenario:
    """The scenario file `mixed`, under another constraint and goal."""
    fleet = load_any(SCENARIOS / "mixed.toml")
    assert isinstance(fleet, FleetScenario)
    if goal:
        fleet = dataclasses.replace(
            fleet,
            goal=dataclasses.replace(fleet.goal, objective=goal["objective"]),
            devices=tuple(dataclasses.replace(one, deadline_ms=goal["deadline_ms"]) for one in fleet.devices),
        )
    return dataclasses.replace(fleet, constraint=objective.constraint_value(limit, fleet.pool))


@functools.partial(jax.jit, static_argnums=0)
def go_on(agent: Placing, run: Any, params: FleetParams) -> tuple[Any, dict[str, Any]]:
    """`CHUNK` more real steps of one run, the decision judged after each. [CHUNK] each."""
    world = compiled_world(environments.environment(params), params)

    def step(run: Any, _: None) -> tuple[Any, dict[str, Any]]:
        before = run
        state, action = agent.suggest(run.agent)
        run, obs, info = real_step(world, run, action)
        run = run.replace(agent=agent.observe(state, action, info, obs))
        best = agent.decide(run.agent, run.agent.obs)
        worth = environment.worth(params, params.start, best)
        wrong = jnp.any(health.check(before, run, {}, best))
        told = {"cost": worth.cost, "feasible": worth.feasible, "late": jnp.mean(info["missed"]), "wrong": wrong}
        return run, told

    return jax.lax.scan(step, run, None, length=CHUNK)


def _course(agent: Placing, seed: int, params: FleetParams, constraint: float) -> dict[str, np.ndarray]:
    """One seed's run. [STEPS] each."""
    run = training.init(agent, jnp.int32(seed), params)
    run = dataclasses.replace(run, agent=agent.under(run.agent, constraint))
    parts = []
    for _ in range(STEPS // CHUNK):
        run, seen = go_on(agent, run, params)
        parts.append(jax.device_get(seen))
    found: dict[str, np.ndarray] = jax.tree.map(lambda *each: np.concatenate(each), *parts)
    if found["wrong"].any():
        raise RunError(f"fleet: expected finite numbers, found others after step {int(np.argmax(found['wrong']))}")
    return found


def _line(case: str, seeds: int, fleet: FleetScenario, prior: str) -> list[FleetLine]:
    params = environments.make_params(fleet, environments.sufficient_penalty(fleet))
    assert isinstance(params, FleetParams)
    agent = placing.make(FactoredConfig(prior=prior), fleet)
    truth = oracle.optimum(environment.problem(params, params.start))
    first, lasting, lapses, late = [], [], [], []
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        seen = _course(agent, seed, params, fleet.constraint)
        over = 100.0 * (seen["cost"].astype(np.float64) / truth.cost - 1.0)
        good = seen["feasible"] & (over <= 100.0 * evaluation.TOLERANCE)
        steps = list(range(1, STEPS + 1))
        first.append(int(np.argmax(good)) + 1 if good.any() else None)
        lasting.append(evaluation.first_lasting(steps, good.tolist()))
        lapses.append(float(np.max(np.where(seen["feasible"], over, np.inf)[SETTLED:])))
        late.append(100.0 * float(np.mean(seen["late"][SETTLED:])))
    return [
        FleetLine(
            case=case,
            steps_to_optimal=statistics.summarize(tuple(lasting)),
            first=statistics.summarize(tuple(first)),
            steps=tuple(lasting),
            worst_lapse_percent=max(lapses),
            late_percent=max(late),
            optimum=round(truth.cost, 4),
        )
    ]


def _measured(seeds: int, kept: Kept, fleets: dict[str, FleetScenario], prior: str = "none") -> list[FleetLine]:
    parts = {case: functools.partial(_line, case, seeds, fleet, prior) for case, fleet in fleets.items()}

    def told(line: FleetLine) -> str:
        return f"within 1 % after {line.first.median}, for good after {line.steps_to_optimal.median} steps"

    return kept.measure(FleetLine, parts, told)


def times(seeds: int, kept: Kept) -> list[FleetLine]:
    """Mean response time, under every constraint."""
    return _measured(seeds, kept, {f"mixed/{limit}": mixed(limit) for limit in LIMITS})


def energies(seeds: int, kept: Kept) -> list[FleetLine]:
    """Energy, under a deadline."""
    goal = {"objective": "energy", "deadline_ms": DEADLINE_MS}
    return _measured(seeds, kept, {f"mixed/{limit}, energy": mixed(limit, **goal) for limit in LIMITS[1:]})


def with_prior(seeds: int, kept: Kept) -> list[FleetLine]:
    """Mean response time, where it is told how models compare on other machines."""
    return _measured(seeds, kept, {f"mixed/{limit}, prior": mixed(limit) for limit in LIMITS}, prior="profiles")


def times_met(lines: Sequence[FleetLine]) -> bool:
    """Whether decisions are soon good, in every run, and stay so."""
    return all(line.soon(MEDIAN_STEPS) and line.worst_lapse_percent <= LAPSE for line in lines)


def energies_met(lines: Sequence[FleetLine]) -> bool:
    """The same of energies, and whether answers are in time."""
    return all(line.soon(MEDIAN_ENERGY_STEPS) and line.late_percent <= 100.0 - KEPT for line in lines)


def result(lines: Sequence[FleetLine]) -> str:
    """In words."""
    first, good = ([getattr(line, name).median for line in lines] for name in ("first", "steps_to_optimal"))
    there, seeds = (sum(getattr(line.first, name) for line in lines) for name in ("succeeded", "seeds"))
    shown = [[np.inf if one is None else one for one in each] for each in (first, good)]
    return (
        f"medians {min(shown[0]):g} to {max(shown[0]):g} steps to within 1 %, {there} of {seeds} runs; for good "
        f"{min(shown[1]):g} to {max(shown[1]):g}; worst lapse after {SETTLED} steps "
        f"{max(line.worst_lapse_percent for line in lines):.1f} %"
    )


def energy_result(lines: Sequence[FleetLine]) -> str:
    """In words."""
    return f"{result(lines)}; {max(line.late_percent for line in lines):.2f} % late in the worst run"
