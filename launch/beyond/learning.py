"""What `factored` must show while it learns: a function for each row of `launch.beyond`, plain data out.

All rows run the agent that `launch.train` runs, through `hl_jax.training`; seeds go one after the other inside one
compiled program, and rows of the same size share it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hl_jax import evaluation, simulator, statistics, training
from hl_jax.agents.factored import agent as factored
from hl_jax.agents.world import Agent, compiled_world
from hl_jax.objective import CONSTRAINTS, constraint_value
from hl_jax.optimum import oracle
from hl_jax.scenario import Device, Scenario
from launch.beyond.kept import Kept
from launch.host.errors import RunError
from launch.host.files import ROOT
from launch.inputs.agents import make_agent
from launch.inputs.scenario_files import load_scenario

SCENARIOS = ROOT / "data" / "scenarios"
CONFIG = factored.FactoredConfig()
CHUNK = 20  # real steps in one call of a compiled program; runs are whole numbers of them
STEPS = 15 * CHUNK  # of a run: a hundred times as long as most decisions take to be optimal
DRIFT_STEP = CHUNK  # real steps before the edge slows down
EARLY_STEPS = {"dynamic": 5 * CHUNK, "sweep": 2 * CHUNK}  # when these are judged for the first time
WATCHED = 3 * CHUNK  # real steps whose every decision is judged; later `SPARSE`
SPARSE = 4
FRESH_STATES = 1000
EXPERIMENTS = "ABCD"


@dataclasses.dataclass(frozen=True)
class Case:
    """One seed's run: its scenario, and the one that follows after a change, if any."""

    seed: int
    scenario: Scenario
    later: Scenario | None = None


def scenario(name: str, constraint: str = "", **changes: Any) -> Scenario:
    """A scenario file of this repository with another constraint and other fields."""
    found = dataclasses.replace(load_scenario(SCENARIOS / f"{name}.toml"), **changes)
    return dataclasses.replace(found, constraint=constraint_value(constraint, found.pool)) if constraint else found


@functools.cache
def agent_for(users: int) -> Agent:
    """One agent for all scenarios of a size, which share a pool: programs belong to it, constraints come with runs."""
    return make_agent("factored", CONFIG, scenario("hundred").with_users(users))


@functools.partial(jax.jit, static_argnums=0)
def begin(agent: Agent, seeds: Any, params: Any) -> Any:
    """Every seed's run (leading axis S) before its first step, each with its own scenario's arrays."""

    def one(seed: Any, params: simulator.EnvParams) -> Any:
        run = training.init(agent, seed, params)
        return dataclasses.replace(run, agent=run.agent.replace(constraint=params.constraint))

    return jax.vmap(one)(seeds, params)


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def go_on(agent: Agent, runs: Any, params: Any, every: int = 1, states: int = 1) -> Any:
    """`CHUNK` more epochs (a real step each) of every seed (leading axis S), judged after `every` of them.

    Returns the runs, and of each judged step the evaluation (from so many `states`), the changes seen and whether
    anything was wrong (`hl_jax.health`); of every step the cost that it was expected to have.
    """

    def one(case: tuple[Any, simulator.EnvParams]) -> Any:
        run, params = case
        starts = evaluation.start_states(jax.random.key(0), params, states)
        world = compiled_world(simulator.Orchestration(), params)

        def unseen(run: Any, _: None) -> Any:
            run, _learning = agent.epoch(world, run, ())
            return run, run.totals.cost_ms

        def judged(run: Any, _: None) -> Any:
            run, costs = jax.lax.scan(unseen, run, None, length=every - 1)
            run, report = training.epoch(agent, run, (), params, starts)
            costs = jnp.append(costs, report.totals.cost_ms)
            return run, (report.evaluation, run.agent.changes, jnp.any(report.wrong), costs)

        return jax.lax.scan(judged, run, None, length=CHUNK // every)

    # Not `vmap`: one seed's arrays stay in a core's cache.
    return jax.lax.map(one, (runs, params))


def stack(scenarios: Sequence[Scenario]) -> simulator.EnvParams:
    """Scenarios of a size as arrays with a leading axis."""
    return jax.tree.map(
        lambda *leaves: jnp.stack(leaves), *[training.params_for(agent_for(one.users), one) for one in scenarios]
    )


def courses(cases: Sequence[Case], steps: int, change: int | None = None) -> tuple[Any, dict[str, np.ndarray]]:
    """Runs cases of one size; after step `change` their later scenario holds.

    Returns the runs and the steps that were judged ([T]); of those, by case [S, T], ART (ms), feasibility and the
    changes that the agent has seen.

    Raises:
      RunError: if anything in a run isn't finite.
    """
    agent = agent_for(cases[0].scenario.users)
    before, after = stack([case.scenario for case in cases]), stack([case.later or case.scenario for case in cases])
    runs, parts = begin(agent, jnp.array([case.seed for case in cases]), before), []
    at: list[int] = []
    for done in range(0, steps, CHUNK):
        every = 1 if done < WATCHED else SPARSE
        runs, part = go_on(agent, runs, before if change is None or done < change else after, every)
        parts.append(part[:3])
        at += range(done + every, done + CHUNK + 1, every)
    seen, changes, wrong = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *parts)
    if wrong.any():
        raise RunError(f"launch.beyond: expected finite runs, found {int(wrong.any(axis=1).sum())} that aren't")
    # The worst of each evaluation's decisions counts, as in a run's summary.
    return runs, {
        "at": np.array(at),
        "art_ms": seen.art_ms.astype(np.float64).max(axis=(2, 3)),
        "feasible": seen.feasible.all(axis=(2, 3)),
        "changes": changes,
    }


@functools.cache
def optimum_ms(asked: Scenario) -> float:
    """The true optimum's response time."""
    return oracle.optimum(simulator.make_params(asked)).art_ms


def steps_to_optimal(at: np.ndarray, art_ms: np.ndarray, feasible: np.ndarray, least_ms: float) -> int | None:
    """Real steps until one seed's decisions ([T], judged after the steps `at`) are optimal and stay so."""
    near = 100.0 * (art_ms / least_ms - 1.0) <= 100.0 * evaluation.TOLERANCE
    good = [bool(fine) for fine in feasible & near]
    return evaluation.first_lasting([int(step) for step in at], good)


def _summary(name: str, cases: Sequence[Case], seen: dict[str, np.ndarray], start: int = 0) -> dict[str, Any]:
    """Steps to optimal of all cases, counted from step `start` (below `WATCHED`), as one line of a row."""
    steps = [
        steps_to_optimal(
            seen["at"][start:] - start, art[start:], feasible[start:], optimum_ms(case.later or case.scenario)
        )
        for case, art, feasible in zip(cases, seen["art_ms"], seen["feasible"], strict=True)
    ]
    reached = [step for step in steps if step is not None]
    return {
        "case": name,
        "steps_to_optimal": dataclasses.asdict(statistics.summarize(steps)),
        "worst": max(reached, default=None) if len(reached) == len(steps) else None,
        "steps": steps,
        "false_alarms": int(seen["changes"][:, start - 1 if start else -1].sum()),
    }


def _line(name: str, case_of: Callable[[int], Case], seeds: int, **more: Any) -> list[dict[str, Any]]:
    cases = [case_of(seed) for seed in range(seeds)]
    _, seen = courses(cases, STEPS)
    return [{**_summary(name, cases, seen), **more}]


def _told(line: dict[str, Any]) -> str:
    return f"worst seed {line['worst'] or 'never'}"


def _lines(named: Sequence[tuple[str, Callable[[int], Case]]], seeds: int, kept: Kept) -> list[dict[str, Any]]:
    """A line for each name, over seeds."""
    parts = {name: functools.partial(_line, name, case_of, seeds) for name, case_of in named}
    return kept.measure(parts, _told)


def cells(seeds: int, kept: Kept, noise: float = 0.03) -> list[dict[str, Any]]:
    """The 20 cells of Table V."""
    named = []
    for experiment in EXPERIMENTS:
        for constraint in CONSTRAINTS:
            asked = scenario(f"exp{experiment}", constraint, noise=noise)
            named.append((f"{experiment}/{constraint}", functools.partial(Case, scenario=asked)))
    return _lines(named, seeds, kept)


def noise10(seeds: int, kept: Kept) -> list[dict[str, Any]]:
    """The same at 10 % noise."""
    return cells(seeds, kept, noise=0.1)


def _unequal(constraint: str, seed: int) -> Case:
    speeds = 2.0 ** np.random.default_rng(seed).uniform(-1.0, 1.0, 5)
    devices = tuple(Device(f"S{index + 1}", speed=float(speed)) for index, speed in enumerate(speeds))
    return Case(seed, scenario("expA", constraint, devices=devices))


def unequal(seeds: int, kept: Kept) -> list[dict[str, Any]]:
    """Experiment A with speeds drawn per device and seed, 0.5 to 2 (uniform in the logarithm)."""
    return _lines([(f"A/{name}", functools.partial(_unequal, name)) for name in CONSTRAINTS], seeds, kept)


def _other_form(experiment: str, constraint: str, form: str, seed: int) -> Case:
    asked = scenario(f"exp{experiment}", constraint)
    factors = np.exp(np.random.default_rng(seed).uniform(-0.5, 0.5, len(asked.pool.names)))
    times = tuple(float(time * factor) for time, factor in zip(asked.timing.local_ms, factors, strict=True))
    changed = dataclasses.replace(
        asked,
        timing=dataclasses.replace(asked.timing, local_ms=times),
        edge=dataclasses.replace(asked.edge, contention=form),
        cloud=dataclasses.replace(asked.cloud, contention=form),
    )
    return Case(seed, changed)


def form(seeds: int, kept: Kept) -> list[dict[str, Any]]:
    """Contention in steps or quadratic, local times that don't follow MACs (a factor of e^-0.5 to e^0.5 each)."""
    named = [
        (f"{kind} {experiment}/{constraint}", functools.partial(_other_form, experiment, constraint, kind))
        for kind in ("steps", "quadratic")
        for experiment in "AB"
        for constraint in CONSTRAINTS
    ]
    return _lines(named, seeds, kept)


def fifty(seeds: int, kept: Kept) -> list[dict[str, Any]]:
    """50 devices on regular links, each constraint."""
    named = [(f"50/{name}", functools.partial(Case, scenario=scenario("fifty", name))) for name in CONSTRAINTS]
    return _lines(named, seeds, kept)


def users(seeds: int, kept: Kept) -> list[dict[str, Any]]:
    """Steps against the number of users, at 85 %: experiment A's devices up to five, larger scenarios beyond."""
    asked = [(count, scenario("expA", "85").with_users(count)) for count in (1, 2, 3, 4, 5)]
    asked += [(one.users, one) for one in (scenario(name, "85") for name in ("ten", "twenty", "fifty", "hundred"))]
    parts = {
        f"{count} users": functools.partial(
            _line, f"{count} users", functools.partial(Case, scenario=one), seeds, users=count
        )
        for count, one in asked
    }
    return kept.measure(parts, _told)


def _judged(
    row: str,
    asked: Scenario,
    seeds: int,
    kept: Kept,
    judge: Callable[[Any], tuple[Any, Any]],
    optima: np.ndarray,
    more: Callable[[np.ndarray, int], dict[str, Any]],
) -> list[dict[str, Any]]:
    """A line for each seed, early on and at the end, of what its policy decides in J cases.

    Args:
      row: whose `EARLY_STEPS` hold.
      asked: what is learned.
      seeds: how many.
      kept: lines that are there already.
      judge: of agents' states (leading axis S) the ART (ms) of what each decides, and whether it is allowed. [S, J]
      optima: the least ART (ms) of each case. [J]
      more: of one seed's regret (%, [J]) and the changes that it has seen, what else its line says.
    """

    def after(steps: int) -> list[dict[str, Any]]:
        runs, seen = courses([Case(seed, asked) for seed in range(seeds)], steps)
        art, met = judge(runs.agent)
        regret = 100.0 * (np.asarray(art, np.float64) / optima - 1.0)
        return [
            {
                "case": f"{steps} steps, seed {seed}",
                "after": steps,
                "worst_regret_percent": float(regret[seed].max()),
                "constraint_met": int(np.asarray(met)[seed].sum()),
                **more(regret[seed], int(seen["changes"][seed, -1])),
            }
            for seed in range(seeds)
        ]

    parts = {f"{steps} steps": functools.partial(after, steps) for steps in (EARLY_STEPS[row], STEPS)}
    return kept.measure(parts, lambda line: f"worst regret {line['worst_regret_percent']:.2f} %")


def dynamic(seeds: int, kept: Kept) -> list[dict[str, Any]]:
    """Conditions that change: regret of the greedy decision over fresh states, early on and at the end."""
    asked = scenario("dynamic")
    agent = agent_for(asked.users)
    params = simulator.make_params(asked)
    fresh = evaluation.start_states(jax.random.key(1), params, FRESH_STATES)
    each = [jax.tree.map(lambda leaf, index=index: leaf[index], fresh.conditions) for index in range(FRESH_STATES)]
    optima = np.array([oracle.brute_force(params, one).art_ms for one in each])

    @jax.jit
    def judge(states: Any) -> Any:
        def one(state: Any, start: simulator.EnvState) -> Any:
            action = agent.decide(state, simulator.observe(start))
            response = simulator.response_ms(params, start.conditions, action)
            return jnp.mean(response), simulator.meets_constraint(params, action)

        return jax.lax.map(lambda state: jax.lax.map(lambda start: one(state, start), fresh), states)

    def more(regret: np.ndarray, changes: int) -> dict[str, Any]:
        return {"mean_regret_percent": float(regret.mean()), "states": FRESH_STATES, "changes_seen": changes}

    return _judged("dynamic", asked, seeds, kept, judge, optima, more)


def sweep(seeds: int, kept: Kept) -> list[dict[str, Any]]:
    """Constraints from 72.8 to 89.9 in steps of 0.1, asked early on and at the end of runs at 85."""
    asked = scenario("expA", "85")
    agent: Any = agent_for(asked.users)
    params = simulator.make_params(asked)
    wanted = np.round(np.arange(72.8, 89.95, 0.1), 1)
    optimum = [optimum_ms(dataclasses.replace(asked, constraint=float(value))) for value in wanted]

    @jax.jit
    def judge(states: Any) -> Any:
        def one(state: Any, constraint: Any) -> Any:
            action = agent.decide(agent.under(state, constraint), state.obs)
            fine = simulator.meets_constraint(dataclasses.replace(params, constraint=constraint), action)
            return jnp.mean(simulator.response_ms(params, params.start, action)), fine

        constraints = jnp.asarray(wanted, jnp.float32)
        return jax.lax.map(lambda state: jax.lax.map(lambda value: one(state, value), constraints), states)

    def more(regret: np.ndarray, _: int) -> dict[str, Any]:
        over = int((regret > 100.0 * evaluation.TOLERANCE).sum())
        return {"constraints": len(wanted), "worst_at": float(wanted[regret.argmax()]), "over_one_percent": over}

    return _judged("sweep", asked, seeds, kept, judge, np.array(optimum), more)


def drift(seeds: int, kept: Kept) -> list[dict[str, Any]]:
    """The edge becomes twice as slow after `DRIFT_STEP` real steps."""

    def change(name: str, constraint: str) -> list[dict[str, Any]]:
        asked = scenario(name, constraint)
        timing = asked.timing
        slower = dataclasses.replace(timing, edge_ms=2.0 * timing.edge_ms, edge_share_ms=2.0 * timing.edge_share_ms)
        cases = [Case(seed, asked, dataclasses.replace(asked, timing=slower)) for seed in range(seeds)]
        _, seen = courses(cases, STEPS, change=DRIFT_STEP)
        line = _summary(f"{asked.name}/{constraint}", cases, seen, start=DRIFT_STEP)
        old = seen["art_ms"][:, DRIFT_STEP] / optimum_ms(cases[0].later or asked) - 1.0
        line["noticed"] = int((seen["changes"][:, -1] > seen["changes"][:, DRIFT_STEP - 1]).sum())
        line["regret_after_one_step_percent"] = float(100.0 * np.median(old))
        return [line]

    cases = (("expA", "89"), ("expA", "Max"), ("expD", "Max"), ("unequal", "89"))
    parts = {f"{name}/{limit}": functools.partial(change, name, limit) for name, limit in cases}
    return kept.measure(parts, _told)
