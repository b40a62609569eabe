"""How `launch.beyond` runs `factored`: the agent that `launch.train` runs, through `hl_jax.training`.

Seeds go one after the other inside one compiled program, and rows of the same size share it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from hl_jax import evaluation, simulator, training
from hl_jax.agents.factored.config import FactoredConfig
from hl_jax.agents.world import Agent, Run, compiled_world
from hl_jax.objective import constraint_value
from hl_jax.optimum import oracle
from hl_jax.scenario import Device, Scenario
from hl_jax.simulator import EnvParams
from launch.host.errors import RunError
from launch.host.files import ROOT
from launch.inputs.agents import make_agent
from launch.inputs.scenario_files import load_scenario

SCENARIOS = ROOT / "data" / "scenarios"
CONFIG = FactoredConfig()
CHUNK = 20  # real steps in one call of a compiled program; runs are whole numbers of them
STEPS = 15 * CHUNK  # of a run: a hundred times as long as most decisions take to be optimal
WATCHED = 3 * CHUNK  # real steps whose every decision is judged; later `SPARSE`
SPARSE = 4


@dataclasses.dataclass(frozen=True)
class Case:
    """One seed's run: its scenario, and the one that follows after a change, if any."""

    seed: int
    scenario: Scenario
    later: Scenario | None = None


def scenario(
    name: str, constraint: str = "", noise: float | None = None, devices: Sequence[Device] | None = None
) -> Scenario:
    """A scenario file of this repository with another constraint, noise and devices."""
    found = load_scenario(SCENARIOS / f"{name}.toml")
    found = found if noise is None else dataclasses.replace(found, noise=noise)
    found = found if devices is None else dataclasses.replace(found, devices=tuple(devices))
    return dataclasses.replace(found, constraint=constraint_value(constraint, found.pool)) if constraint else found


@functools.cache
def agent_for(users: int) -> Agent:
    """One agent for all scenarios of a size, which share a pool: programs belong to it, constraints come with runs."""
    return make_agent("factored", CONFIG, scenario("hundred").with_users(users))


@functools.partial(jax.jit, static_argnums=0)
def begin(agent: Agent, seeds: chex.Array, params: EnvParams) -> Run:
    """Every seed's run (leading axis S) before its first step, each with its own scenario's arrays."""

    def one(seed: chex.Array, params: EnvParams) -> Run:
        run = training.init(agent, seed, params)
        return dataclasses.replace(run, agent=run.agent.replace(constraint=params.constraint))

    return jax.vmap(one)(seeds, params)


# Of each judged step the evaluation, the changes seen, and whether anything was wrong; of every step its cost (ms).
Judged = tuple[evaluation.Evaluation, chex.Array, chex.Array, chex.Array]


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def go_on(agent: Agent, runs: Run, params: EnvParams, every: int = 1, states: int = 1) -> tuple[Run, Judged]:
    """`CHUNK` more epochs (a real step each) of every seed (leading axis S), judged after `every` of them.

    Returns the runs and what was judged, each evaluation from so many `states`.
    """

    def one(case: tuple[Run, EnvParams]) -> tuple[Run, Judged]:
        run, params = case
        starts = evaluation.start_states(jax.random.key(0), params, states)
        world = compiled_world(simulator.Orchestration(), params)

        def unseen(run: Run, _: None) -> tuple[Run, chex.Array]:
            run, _learning = agent.epoch(world, run, ())
            return run, run.totals.cost_ms

        def judged(run: Run, _: None) -> tuple[Run, Judged]:
            run, costs = jax.lax.scan(unseen, run, None, length=every - 1)
            run, report = training.epoch(agent, run, (), params, starts)
            costs = jnp.append(costs, report.totals.cost_ms)
            return run, (report.evaluation, run.agent.changes, jnp.any(report.wrong), costs)

        return jax.lax.scan(judged, run, None, length=CHUNK // every)

    # Not `vmap`: one seed's arrays stay in a core's cache.
    return jax.lax.map(one, (runs, params))


def stack(scenarios: Sequence[Scenario]) -> EnvParams:
    """Scenarios of a size as arrays with a leading axis."""
    return jax.tree.map(
        lambda *leaves: jnp.stack(leaves), *[training.params_for(agent_for(one.users), one) for one in scenarios]
    )


@dataclasses.dataclass(frozen=True)
class Seen:
    """What was judged of S cases' runs."""

    at: np.ndarray  # [T] real steps
    art_ms: np.ndarray  # [S, T] the worst of each evaluation's decisions, as in a run's summary
    feasible: np.ndarray  # [S, T]
    changes: np.ndarray  # [S, T] that the agent has seen


def courses(cases: Sequence[Case], steps: int, change: int | None = None) -> tuple[Run, Seen]:
    """Runs cases of one size; after step `change` their later scenario holds. Returns the runs (leading axis S).

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
    return runs, Seen(
        at=np.array(at),
        art_ms=seen.art_ms.astype(np.float64).max(axis=(2, 3)),
        feasible=seen.feasible.all(axis=(2, 3)),
        changes=changes,
    )


@functools.cache
def optimum_ms(asked: Scenario) -> float:
    """The true optimum's response time."""
    return oracle.optimum(simulator.make_params(asked)).art_ms
