"""What the structured search must show: brute force's K best, HiGHS's optimum, and decision times on one core."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator

import chex
import jax
import jax.numpy as jnp
import numpy as np

from hl_jax import simulator, training
from hl_jax.agents.factored import agent as factored
from hl_jax.agents.factored.config import FactoredConfig
from hl_jax.agents.world import compiled_world
from hl_jax.optimum import milp, oracle
from hl_jax.scenario import CONTENTION_FORMS, LINKS, Device, Node, Scenario
from hl_jax.search import structured
from hl_jax.search.costs import Costs, Found
from launch.beyond.lines import BruteLine, MilpLine, TimeLine
from launch.beyond.running import scenario
from launch.host.errors import InputError

BRUTE_INSTANCES = 1000
BRUTE_USERS = 5
K = 10
MILP_INSTANCES = 200
FLEETS = (2, 3, 5, 7, 10, 20, 30, 50, 70, 100)
STRICT = 0.8  # every second instance against HiGHS: below, the optimum of a large fleet often offloads nothing
HIGHS_GAP = {True: 1e-7, False: 1e-5}  # asked of HiGHS where the search is exact, and above
RUNS = 20  # of a timed program
EXPERIENCE = 4  # real steps before decisions are timed


def random_scenario(random: np.random.Generator, users: int, strictness: float = 0.0) -> Scenario:
    """Unequal devices behind random links, nodes of random size and contention, a random constraint.

    The constraint takes at least the part `strictness` of the way from the least accurate model to the most accurate.
    """

    def node() -> Node:
        form = CONTENTION_FORMS[random.integers(len(CONTENTION_FORMS))]
        return Node(LINKS[random.integers(2)], int(random.integers(max(1, users // 10), max(2, users // 3) + 1)), form)

    base = scenario("expA")
    speeds = 2.0 ** random.uniform(-1.0, 1.0, users)
    devices = tuple(Device(f"S{index}", LINKS[random.integers(2)], float(speed)) for index, speed in enumerate(speeds))
    low, high = min(base.pool.accuracy), max(base.pool.accuracy)
    constraint = float(random.uniform(low + strictness * (high - low), high))
    return dataclasses.replace(base, devices=devices, edge=node(), cloud=node(), constraint=constraint)


def costs_of(program: milp.Program) -> Costs:
    """The true model's tables, as the search reads them."""
    edge, cloud = (program.part[:, index, None] + program.node[index][None, :] for index in (0, 1))
    tables = [jnp.asarray(table, jnp.float32) for table in (program.local, edge, cloud, program.accuracy)]
    local, edge_ms, cloud_ms, accuracy = tables
    return Costs(
        local=local, edge=edge_ms, cloud=cloud_ms, accuracy=accuracy, constraint=jnp.float32(program.constraint)
    )


@jax.jit
def _all_times(params: simulator.EnvParams, actions: chex.Array) -> tuple[chex.Array, chex.Array]:
    response = jax.vmap(simulator.response_ms, in_axes=(None, None, 0))(params, params.start, actions)
    return response, jax.vmap(simulator.meets_constraint, in_axes=(None, 0))(params, actions)


@functools.cache
def _joint_actions(users: int, choices: int) -> np.ndarray:
    return np.stack(np.unravel_index(np.arange(choices**users), (choices,) * users), axis=1).astype(np.int32)


def brute_force(params: simulator.EnvParams, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The simulator's k best feasible joint actions [k, N] and their means [k], inf where there are fewer."""
    actions = _joint_actions(params.local_ms.shape[0], params.accuracy.shape[0])
    response, met = _all_times(params, actions)
    mean = np.where(np.asarray(met), np.asarray(response, np.float64).mean(axis=1), np.inf)
    order = np.argpartition(mean, k)[:k]
    order = order[np.argsort(mean[order], kind="stable")]
    return actions[order], mean[order]


def same_best(found: Found, actions: np.ndarray, means: np.ndarray) -> bool:
    """Whether these are the same K best joint actions, up to those that are equally good."""
    finite = np.isfinite(means)
    if not np.allclose(np.asarray(found.mean_ms), means, rtol=oracle.TIE_TOLERANCE, atol=0.0):
        return False
    # Below the worst listed mean nothing may be missing; at it, equals stand for one another.
    clear = finite & (means < means[finite].max(initial=0.0) * (1.0 - oracle.TIE_TOLERANCE))
    listed = set(map(tuple, np.asarray(found.actions)[finite].tolist()))
    return len(listed) == int(finite.sum()) and set(map(tuple, actions[clear].tolist())) <= listed


def brute(instances: int = BRUTE_INSTANCES) -> list[BruteLine]:
    """K best joint actions of five devices: the search's and brute force's."""
    find = jax.jit(lambda costs: structured.k_best(costs, K))
    random = np.random.default_rng(1)
    same = certain = 0
    for _ in range(instances):
        params = simulator.make_params(random_scenario(random, BRUTE_USERS))
        found = find(costs_of(milp.probe(params)))
        same += same_best(found, *brute_force(params, K))
        certain += bool(found.exact)
    return [BruteLine(f"{BRUTE_USERS} devices, K = {K}", instances=instances, same=same, proven=certain)]


def _seconds(call: Callable[[], Found]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


@dataclasses.dataclass(frozen=True)
class _Contest:
    """One instance, solved by both."""

    excess: float  # of the search's answer over HiGHS's, relative
    gap: float  # of the search's answer over its own lower bound
    violated: bool  # whether that bound is above the optimum
    offloading: bool  # whether the optimum offloads anything
    ours_s: float
    highs_s: float


def _contest(find: Callable[[Costs], Found], program: milp.Program, exact: bool) -> _Contest:
    costs = costs_of(program)
    start = time.perf_counter()
    truth = milp.solve(program, HIGHS_GAP[exact], time_limit_s=60.0)
    highs_s = time.perf_counter() - start
    ours_s = _seconds(functools.partial(find, costs))
    found = jax.tree.map(np.asarray, find(costs))
    return _Contest(
        excess=float(found.mean_ms[0]) / truth.art_ms - 1.0,
        gap=1.0 - float(found.lower_bound_ms) / float(found.mean_ms[0]),
        violated=bool(found.lower_bound_ms > truth.art_ms * (1.0 + oracle.TIE_TOLERANCE)),
        offloading=max(truth.decision) >= program.local.shape[1],
        ours_s=ours_s,
        highs_s=highs_s,
    )


def against_milp(instances: int = MILP_INSTANCES) -> list[MilpLine]:
    """The search and HiGHS on the same instances, taking turns; a line for each number of devices."""
    lines = []
    for users in FLEETS:
        random = np.random.default_rng(users)
        find = jax.jit(structured.best)
        each = []
        for index in range(instances // len(FLEETS)):
            asked = random_scenario(random, users, STRICT * (index % 2))
            program = milp.probe(simulator.make_params(asked))
            if index == 0:
                jax.block_until_ready(find(costs_of(program)))  # compiles
            each.append(_contest(find, program, users <= structured.EXACT_USERS))
        lines.append(
            MilpLine(
                case=f"{users} devices",
                users=users,
                instances=len(each),
                offloading=sum(one.offloading for one in each),
                worst_excess=max(one.excess for one in each),
                worst_gap_to_own_bound=max(one.gap for one in each),
                bound_violated=sum(one.violated for one in each),
                search_ms=1e3 * statistics.median(one.ours_s for one in each),
                highs_ms=1e3 * statistics.median(one.highs_s for one in each),
                speed_up=statistics.median(one.highs_s / one.ours_s for one in each),
            )
        )
    return lines


@contextlib.contextmanager
def _one_core() -> Iterator[None]:
    """Keeps this process to one core, XLA's threads included: an affinity is a thread's, not its process's."""
    cores = os.sched_getaffinity(0)

    def allow(some: set[int]) -> None:
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                os.sched_setaffinity(int(thread), some)

    allow({min(cores)})
    try:
        yield
    finally:
        allow(cores)


def decision_time(fleets: tuple[int, ...] = (1, 2, 5, 10, 20, 30, 50, 70, 100)) -> list[TimeLine]:
    """Milliseconds of one decision of a trained `factored`, compiled, on one core.

    Raises:
      InputError: if this system can't keep a process to one.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise InputError(f"--rows: expected a system that keeps a process to one core, found {platform.system()}")
    lines = []
    for users in fleets:
        asked = scenario("hundred").with_users(users)
        agent = factored.make(FactoredConfig(), asked)
        params = training.params_for(agent, asked)
        world = compiled_world(simulator.Orchestration(), params)
        run = training.init(agent, jnp.int32(0), params)
        epoch = jax.jit(lambda run, agent=agent, world=world: agent.epoch(world, run, ())[0])
        for _ in range(EXPERIENCE):
            run = epoch(run)
        start = time.perf_counter()
        decide = jax.jit(agent.search).lower(run.agent, run.agent.obs).compile()
        compile_s = time.perf_counter() - start
        state, wall, cpu = run.agent, [], []
        with _one_core():
            for _ in range(RUNS + 2):
                began = time.process_time()
                wall.append(1e3 * _seconds(functools.partial(decide, state, state.obs)))
                cpu.append(1e3 * (time.process_time() - began))
        found = decide(state, state.obs)
        lines.append(
            TimeLine(
                case=f"{users} devices",
                users=users,
                least_ms=min(wall[2:]),
                median_ms=statistics.median(wall[2:]),
                cpu_ms=statistics.median(cpu[2:]),
                compile_s=compile_s,
                gap_to_own_bound=float(1.0 - found.lower_bound_ms / found.mean_ms[0]),
            )
        )
    return lines
