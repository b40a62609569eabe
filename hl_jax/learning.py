"""Training and judging as functions: an agent, a scenario and seeds in, one record of what came of it out.

`launch.train` does the same with a folder that keeps everything; both run `training.programs`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from hl_jax import evaluation, health, training
from hl_jax.agents.world import Agent, misfit
from hl_jax.environments import Params, State, make_params
from hl_jax.evaluation import Judged
from hl_jax.fleets.scenario import AnyScenario
from hl_jax.optimum import oracle as optima
from hl_jax.optimum.oracle import Optimum
from hl_jax.simulator import EnvParams

Progress = Callable[[int, Judged], None]


@functools.partial(jax.jit, static_argnums=0)
def _decide(agent: Agent, state: Any, obs: chex.Array) -> chex.Array:
    return agent.decide(state, obs)


@functools.partial(jax.jit, static_argnums=0)
def _evaluate(agent: Agent, states: Any, params: Params, starts: State) -> evaluation.Evaluation:
    return jax.vmap(lambda state: evaluation.evaluate(lambda obs: agent.decide(state, obs), params, starts))(states)


@dataclasses.dataclass(frozen=True)
class Trained(Judged):
    """What S seeds have learned in T epochs: the greedy decisions after each ([S, T]), and the agents' states.

    A seed that couldn't go on (`failed`) has NaN from there on, breaks its constraint, and keeps its last good state.
    """

    agent: Agent
    scenario: AnyScenario
    seeds: tuple[int, ...]
    real_steps: np.ndarray  # [S, T] so far
    model_steps: np.ndarray  # [S, T] so far, in the learned model alone
    train_art_ms: np.ndarray  # [S, T] mean over the epoch's real steps, as measured
    learning: dict[str, np.ndarray]  # [S, T] the agent's own figures
    failed: tuple[str | None, ...]  # [S] what wasn't finite
    states: Any  # the agent's, leading axis S

    @property
    def labels(self) -> tuple[tuple[str, ...], ...]:
        """[S][N] the last decisions as Table V writes them: `d4/L`, …, `d0/E`, `d0/C`."""
        return tuple(self.scenario.labels(decision) for decision in self.decision[:, -1])

    def steps_to_optimal(self, tolerance: float = evaluation.TOLERANCE) -> tuple[int | None, ...]:
        """[S] real steps until every later decision keeps the constraint within `tolerance` of the optimum, or None."""
        good = self.feasible & (self.regret_percent <= 100.0 * tolerance)
        rows = zip(self.real_steps.tolist(), good.tolist(), strict=True)
        return tuple(evaluation.first_lasting(steps, fine) for steps, fine in rows)

    def state(self, seed: int) -> Any:
        """What one seed has learned.

        Raises:
          ValueError: if it wasn't trained.
        """
        if seed not in self.seeds:
            raise ValueError(f"seed: expected one of {', '.join(map(str, self.seeds))}, found {seed!r}")
        lane = self.seeds.index(seed)
        return jax.tree.map(lambda leaf: leaf[lane], self.states)

    def decide(self, seed: int, obs: chex.Array) -> np.ndarray:
        """One seed's greedy joint action ([N]) in an observed state ([F], as `Orchestration` gives it)."""
        return np.asarray(_decide(self.agent, self.state(seed), jnp.asarray(obs)))


def train(
    agent: Agent, scenario: AnyScenario, seeds: int | Sequence[int] = 5, *, progress: Progress | None = None
) -> Trained:
    """Trains seeds side by side in one compiled program (`vmap`), to the agent's last epoch.

    Args:
      agent: made for this scenario (`hl_jax.agent`).
      scenario: what it learns in, on the simulator.
      seeds: so many of them from 0 on, or which.
      progress: called after each epoch with its number (from 1) and what the decisions are worth now ([S]).

    Raises:
      ValueError: if there are no seeds, or one twice, the agent was made for other devices or models, or nobody can
        tell the optimum.
    """
    chosen = tuple(range(seeds)) if isinstance(seeds, int) else tuple(int(seed) for seed in seeds)
    if not chosen or len(set(chosen)) < len(chosen) or min(chosen) < 0:
        raise ValueError(f"seeds: expected at least one, distinct and from 0 on, found {seeds!r}")
    if wrong := misfit(agent, scenario):
        raise ValueError(wrong)
    init, epoch = training.programs(agent)
    params = training.params_for(agent, scenario)
    starts = evaluation.judged_states(params)
    truth = evaluation.optima(params, starts)
    run = init(jnp.array(chosen, jnp.int32), params)
    run = run.replace(agent=agent.under(run.agent, scenario.constraint))  # which may be another than it was made with
    reports: list[training.Report] = []
    worth: list[Judged] = []
    failed: list[str | None] = [None] * len(chosen)
    for number in range(1, agent.epochs + 1):
        run, report = epoch(run, agent.plan(number), params, starts)
        report = jax.device_get(report)
        for lane in np.flatnonzero(report.wrong.any(axis=1)):
            names = health.names(run.agent, report.learning)
            failed[lane] = failed[lane] or health.described(
                [name for name, wrong in zip(names, report.wrong[lane], strict=True) if wrong]
            )
        fine = np.array([reason is None for reason in failed])
        now = evaluation.judged(report.evaluation, truth)
        worth.append(
            dataclasses.replace(
                now,
                art_ms=np.where(fine, now.art_ms, np.nan),
                feasible=now.feasible & fine,
                regret_percent=np.where(fine, now.regret_percent, np.nan),
            )
        )
        reports.append(report)
        if progress is not None:
            progress(number, worth[-1])
        if not fine.any():
            break

    def along(values: Sequence[Any]) -> np.ndarray:
        return np.stack([np.asarray(value) for value in values], axis=1)

    columns = [field.name for field in dataclasses.fields(Judged) if field.name != "optimum_ms"]
    return Trained(
        optimum_ms=worth[0].optimum_ms,
        **{name: along([getattr(one, name) for one in worth]) for name in columns},
        agent=agent,
        scenario=scenario,
        seeds=chosen,
        real_steps=along([report.real_steps for report in reports]),
        model_steps=along([report.model_steps for report in reports]),
        train_art_ms=along([report.totals.art_ms for report in reports]),
        learning={name: along([report.learning[name] for report in reports]) for name in reports[0].learning},
        failed=tuple(failed),
        states=run.agent,
    )


def evaluate(trained: Trained, scenario: AnyScenario | None = None) -> Judged:
    """What each seed's policy is worth elsewhere ([S]): other links, load or constraint. Nothing is learned.

    Args:
      trained: the policies.
      scenario: where; with the devices and models of the training. None: where they were trained.

    Raises:
      ValueError: if the scenario is of other devices or models, or nobody can tell its optimum.
    """
    scenario = trained.scenario if scenario is None else scenario
    if other := trained.scenario.unlike(scenario):
        raise ValueError(f"scenario {scenario.name}: {other}")
    params = training.params_for(trained.agent, scenario)
    starts = evaluation.judged_states(params)
    states = trained.agent.under(trained.states, scenario.constraint)
    return evaluation.judged(_evaluate(trained.agent, states, params, starts), evaluation.optima(params, starts))


def oracle(scenario: AnyScenario) -> Optimum:
    """The true optimum of a scenario in its own conditions: the best joint action that keeps the constraint.

    Up to five devices by brute force, with every tie, else by a mixed-integer program, which finds one. Under traffic
    by a race of rollouts (`optimum.racing`), whose rivals aren't certainly worse.

    Raises:
      ValueError: if no joint action keeps the constraint, or none is proven optimal.
    """
    params = make_params(scenario)
    if isinstance(params, EnvParams):
        return optima.optimum(params)
    return evaluation.optima(params, evaluation.judged_states(params))[0]
