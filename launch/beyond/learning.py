"""What `factored` must show while it learns: a function for each row of `launch.beyond`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from hl_jax import evaluation, simulator, statistics
from hl_jax.agents.factored.agent import FactoredState
from hl_jax.objective import CONSTRAINTS
from hl_jax.optimum import oracle
from hl_jax.scenario import Device, Scenario
from launch.beyond.kept import Kept
from launch.beyond.lines import DriftLine, DynamicLine, JudgedLine, StepsLine, SweepLine, UsersLine
from launch.beyond.running import CHUNK, STEPS, Case, Seen, agent_for, courses, optimum_ms, scenario
from launch.host.text import fixed

DRIFT_STEP = CHUNK  # real steps before the edge slows down
EARLY_STEPS = {"dynamic": 5 * CHUNK, "sweep": 2 * CHUNK}  # when these are judged for the first time
FRESH_STATES = 1000
EXPERIMENTS = "ABCD"


def steps_to_optimal(at: np.ndarray, art_ms: np.ndarray, feasible: np.ndarray, least_ms: float) -> int | None:
    """Real steps until one seed's decisions ([T], judged after the steps `at`) are optimal and stay so."""
    near = 100.0 * (art_ms / least_ms - 1.0) <= 100.0 * evaluation.TOLERANCE
    good = [bool(fine) for fine in feasible & near]
    return evaluation.first_lasting([int(step) for step in at], good)


def _summary(name: str, cases: Sequence[Case], seen: Seen, start: int = 0) -> StepsLine:
    """Steps to optimal of all cases, counted from step `start` (below `WATCHED`), as one line of a row."""
    steps = [
        steps_to_optimal(
            seen.at[start:] - start, art[start:], feasible[start:], optimum_ms(case.later or case.scenario)
        )
        for case, art, feasible in zip(cases, seen.art_ms, seen.feasible, strict=True)
    ]
    reached = [step for step in steps if step is not None]
    return StepsLine(
        case=name,
        steps_to_optimal=statistics.summarize(steps),
        worst=max(reached, default=None) if len(reached) == len(steps) else None,
        steps=tuple(steps),
        false_alarms=int(seen.changes[:, start - 1 if start else -1].sum()),
    )


def _line(name: str, case_of: Callable[[int], Case], seeds: int) -> StepsLine:
    cases = [case_of(seed) for seed in range(seeds)]
    _, seen = courses(cases, STEPS)
    return _summary(name, cases, seen)


def _told(line: StepsLine) -> str:
    return f"worst seed {line.worst or 'never'}"


def _lines(named: Sequence[tuple[str, Callable[[int], Case]]], seeds: int, kept: Kept) -> list[StepsLine]:
    """A line for each name, over seeds."""

    def part(name: str, case_of: Callable[[int], Case]) -> list[StepsLine]:
        return [_line(name, case_of, seeds)]

    return kept.measure(StepsLine, {name: functools.partial(part, name, case_of) for name, case_of in named}, _told)


def cells(seeds: int, kept: Kept, noise: float = 0.03) -> list[StepsLine]:
    """The 20 cells of Table V."""
    named = []
    for experiment in EXPERIMENTS:
        for constraint in CONSTRAINTS:
            asked = scenario(f"exp{experiment}", constraint, noise=noise)
            named.append((f"{experiment}/{constraint}", functools.partial(Case, scenario=asked)))
    return _lines(named, seeds, kept)


def noise10(seeds: int, kept: Kept) -> list[StepsLine]:
    """The same at 10 % noise."""
    return cells(seeds, kept, noise=0.1)


def _unequal(constraint: str, seed: int) -> Case:
    speeds = 2.0 ** np.random.default_rng(seed).uniform(-1.0, 1.0, 5)
    devices = tuple(Device(f"S{index + 1}", speed=float(speed)) for index, speed in enumerate(speeds))
    return Case(seed, scenario("expA", constraint, devices=devices))


def unequal(seeds: int, kept: Kept) -> list[StepsLine]:
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


def form(seeds: int, kept: Kept) -> list[StepsLine]:
    """Contention in steps or quadratic, local times that don't follow MACs (a factor of e^-0.5 to e^0.5 each)."""
    named = [
        (f"{kind} {experiment}/{constraint}", functools.partial(_other_form, experiment, constraint, kind))
        for kind in ("steps", "quadratic")
        for experiment in "AB"
        for constraint in CONSTRAINTS
    ]
    return _lines(named, seeds, kept)


def fifty(seeds: int, kept: Kept) -> list[StepsLine]:
    """50 devices on regular links, each constraint."""
    named = [(f"50/{name}", functools.partial(Case, scenario=scenario("fifty", name))) for name in CONSTRAINTS]
    return _lines(named, seeds, kept)


def users(seeds: int, kept: Kept) -> list[UsersLine]:
    """Steps against the number of users, at 85 %: experiment A's devices up to five, larger scenarios beyond."""
    asked = [(count, scenario("expA", "85").with_users(count)) for count in (1, 2, 3, 4, 5)]
    asked += [(one.users, one) for one in (scenario(name, "85") for name in ("ten", "twenty", "fifty", "hundred"))]

    def part(name: str, one: Scenario) -> list[UsersLine]:
        line = _line(name, functools.partial(Case, scenario=one), seeds)
        return [UsersLine(**vars(line), users=one.users)]

    parts = {f"{count} users": functools.partial(part, f"{count} users", one) for count, one in asked}
    return kept.measure(UsersLine, parts, _told)


@dataclasses.dataclass(frozen=True)
class _Verdict:
    """What one seed's policy decided in J cases."""

    regret: np.ndarray  # [J] %
    met: int  # cases in which its constraint is kept
    changes: int  # that it has seen


def _judged(
    row: str,
    asked: Scenario,
    seeds: int,
    judge: Callable[[FactoredState], tuple[chex.Array, chex.Array]],
    optima: np.ndarray,
) -> dict[int, Callable[[], list[_Verdict]]]:
    """Of each number of real steps after which policies are judged, what gives every seed's verdict then.

    Args:
      row: whose `EARLY_STEPS` hold.
      asked: what is learned.
      seeds: how many.
      judge: of agents' states (leading axis S) the ART (ms) of what each decides, and whether it is allowed. [S, J]
      optima: the least ART (ms) of each case. [J]
    """

    def after(steps: int) -> list[_Verdict]:
        runs, seen = courses([Case(seed, asked) for seed in range(seeds)], steps)
        art, met = judge(runs.agent)
        regret = 100.0 * (np.asarray(art, np.float64) / optima - 1.0)
        allowed = np.asarray(met).sum(axis=1)
        return [_Verdict(regret[seed], int(allowed[seed]), int(seen.changes[seed, -1])) for seed in range(seeds)]

    return {steps: functools.partial(after, steps) for steps in (EARLY_STEPS[row], STEPS)}


def _worst(line: JudgedLine) -> str:
    return f"worst regret {fixed(line.worst_regret_percent, 2)} %"


def dynamic(seeds: int, kept: Kept) -> list[DynamicLine]:
    """Conditions that change: regret of the greedy decision over fresh states, early on and at the end."""
    asked = scenario("dynamic")
    agent = agent_for(asked.users)
    params = simulator.make_params(asked)
    fresh = evaluation.start_states(jax.random.key(1), params, FRESH_STATES)
    each = [jax.tree.map(lambda leaf, index=index: leaf[index], fresh.conditions) for index in range(FRESH_STATES)]
    optima = np.array([oracle.brute_force(params, one).art_ms for one in each])

    @jax.jit
    def judge(states: FactoredState) -> tuple[chex.Array, chex.Array]:
        def one(state: FactoredState, start: simulator.EnvState) -> tuple[chex.Array, chex.Array]:
            action = agent.decide(state, simulator.observe(start))
            response = simulator.response_ms(params, start.conditions, action)
            return jnp.mean(response), simulator.meets_constraint(params, action)

        return jax.lax.map(lambda state: jax.lax.map(lambda start: one(state, start), fresh), states)

    def lines(steps: int, verdicts: Callable[[], list[_Verdict]]) -> list[DynamicLine]:
        return [
            DynamicLine(
                case=f"{steps} steps, seed {seed}",
                after=steps,
                worst_regret_percent=float(one.regret.max()),
                constraint_met=one.met,
                mean_regret_percent=float(one.regret.mean()),
                states=FRESH_STATES,
                changes_seen=one.changes,
            )
            for seed, one in enumerate(verdicts())
        ]

    found = _judged("dynamic", asked, seeds, judge, optima)
    parts = {f"{steps} steps": functools.partial(lines, steps, verdicts) for steps, verdicts in found.items()}
    return kept.measure(DynamicLine, parts, _worst)


def sweep(seeds: int, kept: Kept) -> list[SweepLine]:
    """Constraints from 72.8 to 89.9 in steps of 0.1, asked early on and at the end of runs at 85."""
    asked = scenario("expA", "85")
    agent = agent_for(asked.users)
    params = simulator.make_params(asked)
    wanted = np.round(np.arange(72.8, 89.95, 0.1), 1)
    optimum = [optimum_ms(dataclasses.replace(asked, constraint=float(value))) for value in wanted]

    @jax.jit
    def judge(states: FactoredState) -> tuple[chex.Array, chex.Array]:
        def one(state: FactoredState, constraint: chex.Array) -> tuple[chex.Array, chex.Array]:
            action = agent.decide(agent.under(state, constraint), state.obs)
            fine = simulator.meets_constraint(dataclasses.replace(params, constraint=constraint), action)
            return jnp.mean(simulator.response_ms(params, params.start, action)), fine

        constraints = jnp.asarray(wanted, jnp.float32)
        return jax.lax.map(lambda state: jax.lax.map(lambda value: one(state, value), constraints), states)

    def lines(steps: int, verdicts: Callable[[], list[_Verdict]]) -> list[SweepLine]:
        return [
            SweepLine(
                case=f"{steps} steps, seed {seed}",
                after=steps,
                worst_regret_percent=float(one.regret.max()),
                constraint_met=one.met,
                constraints=len(wanted),
                worst_at=float(wanted[one.regret.argmax()]),
                over_one_percent=int((one.regret > 100.0 * evaluation.TOLERANCE).sum()),
            )
            for seed, one in enumerate(verdicts())
        ]

    found = _judged("sweep", asked, seeds, judge, np.array(optimum))
    parts = {f"{steps} steps": functools.partial(lines, steps, verdicts) for steps, verdicts in found.items()}
    return kept.measure(SweepLine, parts, _worst)


def drift(seeds: int, kept: Kept) -> list[DriftLine]:
    """The edge becomes twice as slow after `DRIFT_STEP` real steps."""

    def change(name: str, constraint: str) -> list[DriftLine]:
        asked = scenario(name, constraint)
        timing = asked.timing
        slower = dataclasses.replace(timing, edge_ms=2.0 * timing.edge_ms, edge_share_ms=2.0 * timing.edge_share_ms)
        cases = [Case(seed, asked, dataclasses.replace(asked, timing=slower)) for seed in range(seeds)]
        _, seen = courses(cases, STEPS, change=DRIFT_STEP)
        line = _summary(f"{asked.name}/{constraint}", cases, seen, start=DRIFT_STEP)
        old = seen.art_ms[:, DRIFT_STEP] / optimum_ms(cases[0].later or asked) - 1.0
        noticed = seen.changes[:, -1] > seen.changes[:, DRIFT_STEP - 1]
        after = float(100.0 * np.median(old))
        return [DriftLine(**vars(line), noticed=int(noticed.sum()), regret_after_one_step_percent=after)]

    cases = (("expA", "89"), ("expA", "Max"), ("expD", "Max"), ("unequal", "89"))
    parts = {f"{name}/{limit}": functools.partial(change, name, limit) for name, limit in cases}
    return kept.measure(DriftLine, parts, _told)
