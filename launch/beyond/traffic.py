"""`launch.beyond`'s rows of traffic: what lock-step planning costs, and how soon `factored` plans for queues.

Decisions are judged by the rollouts in which the oracle's candidates race: the mean over the same requests.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from hl_jax import environments, statistics, training
from hl_jax.agents.factored import standing as factored
from hl_jax.agents.factored.config import FactoredConfig
from hl_jax.agents.factored.standing import Standing
from hl_jax.agents.world import compiled_world, real_step
from hl_jax.arrivals import Arrivals, Bandwidth, Traffic
from hl_jax.objective import constraint_value
from hl_jax.optimum import oracle, racing
from hl_jax.scenario import Device, Scenario
from hl_jax.simulator import make_params
from hl_jax.traffic import standing
from hl_jax.traffic.environment import TrafficParams
from launch.beyond.kept import Kept
from launch.beyond.lines import LockstepLine, MissesLine, StandingLine
from launch.beyond.running import scenario
from launch.host.errors import RunError

EXPERIMENTS, LIMITS = ("A", "B", "C", "D"), ("Max", "89", "85")
KINDS, INTERVALS_MS = ("periodic", "poisson"), (600.0, 1000.0, 2000.0)
PERIODS, WITHIN, SETTLED = 40, 2.0, 5  # control periods of a run; % of the oracle; periods in which it may err
BEFORE, AFTER, AGAIN = 20, 20, 5.0  # control periods around a change; % of the oracle that counts as learned again
ROLLOUTS = 32  # that a decision is judged by
FASTER, DEADLINE_ACCURACY = 0.33, 85.0  # edge's and cloud's times beside the paper's; %
DEADLINE_MS, BUSY_MS = 150.0, 400.0  # when a request is late; how far apart they come
RATE_MBPS, TENTH = 20.0, 0.1


def asked(experiment: str, limit: str, kind: str, interval_ms: float, **more: Any) -> Scenario:
    """An experiment of the paper, its devices asking at their own times."""
    paper = scenario(f"exp{experiment}")
    arrivals = (Arrivals(kind=kind, interval_ms=interval_ms),) * paper.users
    constraint = constraint_value(limit, paper.pool)
    return dataclasses.replace(paper, constraint=constraint, traffic=Traffic(arrivals=arrivals, **more))


def _params(one: Scenario) -> TrafficParams:
    params = environments.make_params(one)
    assert isinstance(params, TrafficParams)
    return standing.still(params, params.fleet.start)


def judged(params: TrafficParams, decisions: np.ndarray, rollouts: int = ROLLOUTS) -> standing.Worth:
    """Decisions ([A, N]) in the first rollouts of the race. Leading axes [A, rollouts]."""
    count = len(decisions)
    pairs = np.array(list(itertools.product(range(count), range(rollouts))))
    blocks = []
    for low in range(0, len(pairs), racing.LANES):
        block = pairs[low : low + racing.LANES]
        padded = np.concatenate([block, np.repeat(block[-1:], racing.LANES - len(block), axis=0)])
        seen = jax.device_get(racing.each_cost(params, decisions[padded[:, 0]], jnp.int32(0), padded[:, 1]))
        blocks.append(seen)
    found = jax.tree.map(lambda *parts: np.concatenate(parts)[: len(pairs)], *blocks)
    return jax.tree.map(lambda leaf: leaf.reshape(count, rollouts, *leaf.shape[1:]), found)


def _lockstep(experiment: str, limit: str, kind: str, interval_ms: float) -> list[LockstepLine]:
    one = asked(experiment, limit, kind, interval_ms)
    params = _params(one)
    together = oracle.optimum(make_params(dataclasses.replace(one, traffic=None))).decision
    best = racing.optimum(params)
    worth = judged(params, np.array([together, best.decision], np.int32), 2 * ROLLOUTS)
    cost = np.asarray(worth.cost_ms, np.float64)
    more = 100.0 * (cost[0] / cost[1] - 1.0)
    low, high = statistics.bootstrap_interval([more], lambda values: np.mean(values, axis=-1))
    return [
        LockstepLine(
            case=f"{experiment}/{limit}, {kind}, {interval_ms / 1000.0:g} s",
            lockstep_ms=float(cost[0].mean()),
            best_ms=float(cost[1].mean()),
            more_percent=float(more.mean()),
            low_percent=low,
            high_percent=high,
            lockstep_p99_ms=float(worth.quantiles_ms[0, :, 2].mean()),
            best_p99_ms=float(worth.quantiles_ms[1, :, 2].mean()),
            lockstep=" ".join(one.labels(together)),
            best=" ".join(one.labels(best.decision)),
            rivals=len(best.rivals),
            behind_ms=best.behind_ms,
        )
    ]


Case = tuple[str, str, str, float]
CASES: list[Case] = list(itertools.product(EXPERIMENTS, LIMITS, KINDS, INTERVALS_MS))


def _parts(
    measure: Callable[[str, str, str, float], Any], cases: Sequence[Case] = tuple(CASES)
) -> dict[str, Callable[[], Any]]:
    return {f"{one[0]}/{one[1]}, {one[2]}, {one[3]:g} ms": functools.partial(measure, *one) for one in cases}


def lockstep(seeds: int, kept: Kept) -> list[LockstepLine]:
    """What the lock-step optimum costs beyond the best standing decision, in every case."""
    del seeds  # rollouts, not runs

    def told(line: LockstepLine) -> str:
        return f"{line.lockstep_ms:.1f} instead of {line.best_ms:.1f} ms"

    return kept.measure(LockstepLine, _parts(_lockstep), told)


@functools.partial(jax.jit, static_argnums=(0, 3))
def follow(agent: Standing, runs: Any, params: TrafficParams, periods: int) -> tuple[Any, dict[str, chex.Array]]:
    """So many more control periods of some runs: what was done in each, and thought best after it. [S, T, N] each."""
    world = compiled_world(environments.environment(params), params)

    def period(run: Any, _: None) -> tuple[Any, dict[str, chex.Array]]:
        state, action = agent.suggest(run.agent)
        run, obs, info = real_step(world, run, action)
        state = agent.observe(state, action, info, obs, info["elapsed_ms"])
        told = {"done": action, "best": state.best, "untold": info["untold"]}
        return run.replace(agent=state), told

    def one(run: Any) -> tuple[Any, dict[str, chex.Array]]:
        # What is best by so many periods' reports is planned at the start of the next one.
        run, told = jax.lax.scan(period, run, length=periods)
        last, _ = agent.suggest(run.agent)
        best = jnp.concatenate([told["best"][1:], last.best[None]])
        return run, told | {"best": best}

    found: tuple[Any, dict[str, chex.Array]] = jax.lax.map(one, runs)
    return found


def begin(agent: Standing, seeds: int, params: TrafficParams) -> Any:
    """Runs before their first control period. Leading axis S."""
    return jax.vmap(lambda seed: training.init(agent, seed, params))(jnp.arange(seeds, dtype=jnp.int32))


def _excess(params: TrafficParams, told: dict[str, Any], best: tuple[int, ...]) -> dict[str, np.ndarray]:
    """How much what was `done` and what was thought `best` cost beyond the oracle's decision, %. [S, T] each."""
    if int(np.sum(told["untold"])):
        raise RunError("traffic: expected room for all requests, found too little")
    decisions = {name: np.asarray(told[name]) for name in ("done", "best")}
    users = len(best)
    every = np.unique(np.concatenate([*(x.reshape(-1, users) for x in decisions.values()), [best]]), axis=0)
    cost = judged(params, every).cost_ms.astype(np.float64).mean(axis=1)
    value = dict(zip(map(tuple, every.tolist()), cost, strict=True))
    return {
        name: np.array([[100.0 * (value[tuple(one)] / value[best] - 1.0) for one in row] for row in found.tolist()])
        for name, found in decisions.items()
    }


def _first_lasting(excess: np.ndarray, within: float) -> tuple[int | None, ...]:
    """Control periods ([S]) from which on a decision is within so many % of the oracle's ([S, T])."""
    last = [np.flatnonzero(row > within) for row in excess]
    over = [int(one[-1]) + 2 if one.size else 1 for one in last]
    return tuple(first if first <= excess.shape[1] else None for first in over)


def _learned(seeds: int, experiment: str, limit: str, kind: str, interval_ms: float) -> list[StandingLine]:
    one = asked(experiment, limit, kind, interval_ms)
    params, agent = _params(one), factored.make(FactoredConfig(), one)
    best = racing.optimum(params)
    _, told = follow(agent, begin(agent, seeds, params), params, PERIODS)
    excess = _excess(params, jax.device_get(told), best.decision)
    periods = _first_lasting(excess["best"], WITHIN)
    return [
        StandingLine(
            case=f"{experiment}/{limit}, {kind}, {interval_ms / 1000.0:g} s",
            periods_to_within=statistics.summarize(periods),
            periods=periods,
            worst_done_percent=float(excess["done"][:, SETTLED:].max()),
            mean_done_percent=float(excess["done"][:, SETTLED:].mean()),
            oracle_ms=best.cost_ms,
        )
    ]


def learned(seeds: int, kept: Kept) -> list[StandingLine]:
    """How many control periods `factored` needs to within 2 % of the oracle, in every case."""

    def told(line: StandingLine) -> str:
        return f"within {WITHIN:g} % after {line.periods_to_within.median} periods"

    return kept.measure(StandingLine, _parts(functools.partial(_learned, seeds)), told)


def _changed(seeds: int, before: Scenario, after: Scenario, case: str) -> list[StandingLine]:
    """Runs in one scenario that becomes another."""
    old, new, agent = _params(before), _params(after), factored.make(FactoredConfig(), before)
    # Arrays of one shape, and so one program and one state for both.
    room, carried = max(old.room, new.room), max(old.carried, new.carried)
    old, new = (dataclasses.replace(one, room=room, carried=carried) for one in (old, new))
    best = racing.optimum(new)
    runs, _ = follow(agent, begin(agent, seeds, old), old, BEFORE)
    _, told = follow(agent, runs, new, AFTER)
    excess = _excess(new, jax.device_get(told), best.decision)
    periods = _first_lasting(excess["best"], AGAIN)
    return [
        StandingLine(
            case=case,
            periods_to_within=statistics.summarize(periods),
            periods=periods,
            worst_done_percent=float(excess["done"][:, SETTLED:].max()),
            mean_done_percent=float(excess["done"][:, SETTLED:].mean()),
            oracle_ms=best.cost_ms,
        )
    ]


def _links(one: Scenario, mbps: float) -> Scenario:
    assert one.traffic is not None
    links = (Bandwidth(mbps=(mbps,)),) * one.users
    return dataclasses.replace(one, traffic=dataclasses.replace(one.traffic, links=links))


def changes(seeds: int, kept: Kept) -> list[StandingLine]:
    """The load doubles, or all links fall to a tenth, in mid-run."""
    parts = {}
    for experiment, limit, kind in itertools.product(EXPERIMENTS, LIMITS, KINDS):
        calm, busy = (asked(experiment, limit, kind, interval) for interval in (2000.0, 1000.0))
        case = f"{experiment}/{limit}, {kind}: load doubles"
        parts[case] = functools.partial(_changed, seeds, calm, busy, case)
        fast, slow = (_links(asked(experiment, limit, kind, 1000.0), RATE_MBPS * part) for part in (1.0, TENTH))
        case = f"{experiment}/{limit}, {kind}: links at a tenth"
        parts[case] = functools.partial(_changed, seeds, fast, slow, case)

    def told(line: StandingLine) -> str:
        return f"within {AGAIN:g} % after {line.periods_to_within.median} periods"

    return kept.measure(StandingLine, parts, told)


def with_deadline(users: int = 20, deadline_ms: float = DEADLINE_MS, interval_ms: float = BUSY_MS) -> Scenario:
    """Devices of unequal speed with Poisson requests that are due soon, by an edge and a cloud that can keep up."""
    paper = scenario("expA")
    speeds = np.geomspace(0.5, 4.0, users)
    names = ("edge_ms", "edge_share_ms", "cloud_ms", "cloud_share_ms")
    timing = dataclasses.replace(paper.timing, **{name: FASTER * getattr(paper.timing, name) for name in names})
    return dataclasses.replace(
        paper,
        name="deadline",
        constraint=DEADLINE_ACCURACY,
        timing=timing,
        devices=tuple(Device(f"D{index + 1}", speed=round(float(speed), 3)) for index, speed in enumerate(speeds)),
        edge=dataclasses.replace(paper.edge, cores=2),
        cloud=dataclasses.replace(paper.cloud, cores=1),
        traffic=Traffic(
            arrivals=(Arrivals(interval_ms=interval_ms),) * users, deadline_ms=deadline_ms, objective="misses"
        ),
    )


def _missed(seeds: int) -> list[MissesLine]:
    one = with_deadline()
    params, agent = _params(one), factored.make(FactoredConfig(), one)
    _, told = follow(agent, begin(agent, seeds, params), params, PERIODS)
    found = np.unique(np.asarray(told["best"])[:, -1], axis=0)
    best = racing.optimum(params, among=found.tolist())
    missed = judged(params, found).missed.mean(axis=1)
    each = dict(zip(map(tuple, found.tolist()), missed, strict=True))
    ours = np.array([each[tuple(row)] for row in np.asarray(told["best"])[:, -1].tolist()])
    theirs = float(judged(params, np.array([best.decision], np.int32)).missed.mean())
    return [
        MissesLine(
            case=f"{one.users} devices of unequal speed, {DEADLINE_MS:g} ms, Poisson requests {BUSY_MS:g} ms apart",
            oracle_missed=theirs,
            median_missed=float(np.median(ours)),
            worst_missed=float(np.max(ours)),
            seeds=seeds,
        )
    ]


def deadline(seeds: int, kept: Kept) -> list[MissesLine]:
    """Missed deadlines beside the oracle's."""
    parts = {"20 devices": functools.partial(_missed, seeds)}
    return kept.measure(MissesLine, parts, lambda line: f"{100.0 * line.median_missed:.2f} % missed")


# -- Bars -----------------------------------------------------------------------------------------------------------

MEDIAN_PERIODS, MOST_DONE, MISSES_RATIO, AFTER_CHANGE = 15, 50.0, 1.2, 6


def lockstep_result(lines: Sequence[LockstepLine]) -> str:
    """In words."""
    more = [line.more_percent for line in lines]
    return f"{min(more):.1f} to {max(more):.0f} % more, median {np.median(more):.0f} %"


def learned_met(lines: Sequence[StandingLine]) -> bool:
    """Whether every case's runs are within 2 % soon enough, and never far off after the first periods."""
    return all(
        line.all_succeed and line.median <= MEDIAN_PERIODS and line.worst_done_percent <= MOST_DONE for line in lines
    )


def changes_met(lines: Sequence[StandingLine]) -> bool:
    """Whether every run is within 5 % again soon enough."""
    return all(line.all_succeed and max(map(float, filter(None, line.periods))) <= AFTER_CHANGE for line in lines)


def standing_result(lines: Sequence[StandingLine]) -> str:
    """In words."""
    succeeded, seeds = (sum(getattr(line.periods_to_within, name) for line in lines) for name in ("succeeded", "seeds"))
    medians = [line.median for line in lines]
    worst = max(line.worst_done_percent for line in lines)
    return (
        f"medians {min(medians):g} to {max(medians):g} periods, {succeeded} of {seeds} runs; worst decision after "
        f"{SETTLED} periods {worst:.0f} % over the oracle"
    )


def deadline_met(lines: Sequence[MissesLine]) -> bool:
    """Whether few more requests are late than under the oracle's decision."""
    return all(line.median_missed <= MISSES_RATIO * line.oracle_missed for line in lines)


def deadline_result(lines: Sequence[MissesLine]) -> str:
    """In words."""
    line = lines[0]
    shown = (100.0 * line.median_missed, 100.0 * line.worst_missed, 100.0 * line.oracle_missed)
    return "{:.2f} % late (worst seed {:.2f} %), the oracle {:.2f} %".format(*shown)
