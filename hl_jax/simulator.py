"""The simulated fleet: response times, monitors and conditions as pure functions (Tables II to V).

`Orchestration` follows gymnax 1.0's convention: `reset(key, params)` and `step(key, state, action, params)`
return `obs, state` and `obs, state, reward, terminated, truncated, info`. Equations take one item; callers `vmap`.
A step is one joint decision; episodes never end.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import chex
import jax
import jax.numpy as jnp
import numpy as np

from hl_jax import objective
from hl_jax.choices import node_choices, node_tasks
from hl_jax.objective import Penalty
from hl_jax.scenario import LEVELS, Dynamics, Scenario

NO_PENALTY = Penalty()
BUSY_THRESHOLD = 0.5  # CPU utilization from which a device's monitor says Busy


@chex.dataclass(frozen=True)
class Conditions:
    """What the environment does on its own: background load and links. Flags are 0/1 int32."""

    device_cpu: chex.Array  # [N], 1 = Busy
    device_memory: chex.Array  # [N], 1 = Busy
    device_weak: chex.Array  # [N], 1 = Weak
    node_cpu: chex.Array  # [2] (edge, cloud), or [M] of other fleets' nodes: background level 0..8
    node_memory: chex.Array  # [2] or [M], 1 = Busy
    node_weak: chex.Array  # [2] or [M], 1 = Weak


@chex.dataclass(frozen=True)
class Chains:
    """Per-step move probabilities of the Markov chains; all zero in fixed scenarios."""

    device_cpu: chex.Array  # [2] (leave 0, leave 1)
    device_memory: chex.Array
    device_weak: chex.Array
    node_memory: chex.Array
    node_weak: chex.Array
    node_cpu_move: chex.Array  # []
    node_cpu_max: chex.Array  # [] int32


class Changing(Protocol):
    """What has conditions, which may change: any fleet's arrays."""

    @property
    def start(self) -> Conditions: ...

    @property
    def chains(self) -> Chains: ...

    @property
    def dynamic(self) -> chex.Array: ...


@chex.dataclass(frozen=True)
class EnvParams:
    """A scenario as arrays. Times in ms, accuracies in %."""

    local_ms: chex.Array  # [N, l]
    accuracy: chex.Array  # [C]
    node_ms: chex.Array  # [2] one task alone, less its share
    share_ms: chex.Array  # [2] what occupancy multiplies
    occupancy: chex.Array  # [2, N+1] multiplier of share_ms by number of tasks
    task_load: chex.Array  # [2] utilization that one task adds over a monitor's window
    weak_device_ms: chex.Array
    weak_device_offload_ms: chex.Array
    weak_edge_ms: chex.Array
    weak_offload_ms: chex.Array  # [2] per task through a weak edge, to a weak cloud
    busy_cpu_factor: chex.Array
    busy_memory_factor: chex.Array
    monitor_period_ms: chex.Array
    noise: chex.Array
    constraint: chex.Array  # %
    penalty_missing: chex.Array  # [P] missing percentage points, ascending from 0
    penalty_ms: chex.Array  # [P] penalty there; linear between, constant beyond
    start: Conditions
    chains: Chains
    dynamic: chex.Array  # [] bool: start from random conditions


@chex.dataclass(frozen=True)
class EnvState:
    """Conditions of the coming step, and what the last joint action still shows at the monitors."""

    conditions: Conditions
    device_load: chex.Array  # [N] utilization put there by the last joint action
    node_load: chex.Array  # [2] or [M]
    time: chex.Array  # [] int32


def queue_occupancy(tasks: np.ndarray, cores: int) -> np.ndarray:
    """Mean time of n tasks that `cores` cores serve first come, first served, in one's; `tasks` is 0, 1, …, n."""
    return np.maximum(np.cumsum(np.ceil(tasks / cores)) / np.maximum(tasks, 1), 1.0)


def occupancy(contention: str, cores: int, reference_cores: int, users: int) -> np.ndarray:
    """Multiplier of one task's share when n tasks are there, n = 0..N. Shape [N+1]."""
    tasks = np.arange(users + 1)
    further = np.maximum(tasks - 1, 0) * reference_cores / cores
    form = {
        "linear": 1.0 + further,
        "steps": np.maximum(np.ceil(tasks / cores), 1.0),
        "quadratic": 1.0 + further**2,
        "queue": queue_occupancy(tasks, cores),
    }
    return form[contention]


def chains_of(dynamics: Dynamics | None) -> Chains:
    """The chains' arrays; none moves where conditions are fixed."""

    def pair(values: tuple[float, float] | None) -> chex.Array:
        return jnp.zeros(2, jnp.float32) if values is None else jnp.array(values, jnp.float32)

    return Chains(
        device_cpu=pair(dynamics.device_busy if dynamics else None),
        device_memory=pair(dynamics.device_memory if dynamics else None),
        device_weak=pair(dynamics.device_link if dynamics else None),
        node_memory=pair(dynamics.node_memory if dynamics else None),
        node_weak=pair(dynamics.node_link if dynamics else None),
        node_cpu_move=jnp.float32(dynamics.cpu_level_move if dynamics else 0.0),
        node_cpu_max=jnp.int32(dynamics.cpu_level_max if dynamics else 0),
    )


def make_params(scenario: Scenario, penalty: Penalty = NO_PENALTY) -> EnvParams:
    """Turns a validated scenario, and what breaking its constraint costs, into the arrays of `Orchestration`.

    Raises:
      ValueError: if a time matters that nobody has measured.
    """
    if missing := scenario.unmeasured():
        expected, found = f"measured times for scenario {scenario.name}", f"none for {', '.join(missing)}"
        raise ValueError(f"calibration: expected {expected}, found {found}")
    timing, dynamics, users = scenario.timing, scenario.dynamics, scenario.users
    links = jnp.array([device.link == "weak" for device in scenario.devices], jnp.int32)
    nodes = (scenario.edge, scenario.cloud)
    alone = np.array([timing.edge_ms, timing.cloud_ms])
    share = np.array([timing.edge_share_ms, timing.cloud_share_ms])
    cores = (timing.edge_reference_cores, timing.cloud_reference_cores)
    speeds = np.array(scenario.speeds)

    return EnvParams(
        local_ms=jnp.asarray(np.array(timing.local_ms) / speeds[:, None], jnp.float32),
        accuracy=jnp.array(scenario.choice_accuracy(), jnp.float32),
        node_ms=jnp.asarray(alone - share, jnp.float32),
        share_ms=jnp.asarray(share, jnp.float32),
        occupancy=jnp.asarray(
            np.stack([occupancy(one.contention, one.cores, n, users) for one, n in zip(nodes, cores, strict=True)]),
            jnp.float32,
        ),
        task_load=jnp.asarray(
            share * np.array(cores) / [node.cores for node in nodes] / scenario.monitor_period_ms, jnp.float32
        ),
        weak_device_ms=jnp.float32(timing.weak_device_ms),
        weak_device_offload_ms=jnp.float32(timing.weak_device_offload_ms),
        weak_edge_ms=jnp.float32(timing.weak_edge_ms),
        weak_offload_ms=jnp.array([timing.weak_edge_offload_ms, timing.weak_cloud_offload_ms], jnp.float32),
        busy_cpu_factor=jnp.float32(timing.busy_cpu_factor),
        busy_memory_factor=jnp.float32(timing.busy_memory_factor),
        monitor_period_ms=jnp.float32(scenario.monitor_period_ms),
        noise=jnp.float32(scenario.noise),
        constraint=jnp.float32(scenario.constraint),
        penalty_missing=jnp.array(penalty.missing, jnp.float32),
        penalty_ms=jnp.array(penalty.ms, jnp.float32),
        start=Conditions(
            device_cpu=jnp.zeros(users, jnp.int32),
            device_memory=jnp.zeros(users, jnp.int32),
            device_weak=links,
            node_cpu=jnp.zeros(2, jnp.int32),
            node_memory=jnp.zeros(2, jnp.int32),
            node_weak=jnp.array([node.link == "weak" for node in nodes], jnp.int32),
        ),
        chains=chains_of(dynamics),
        dynamic=jnp.bool_(dynamics is not None),
    )


def _local_compute_ms(params: EnvParams, conditions: Conditions, action: chex.Array) -> chex.Array:
    """Computing time of each device's own model, 0 where it offloads. Shape [N], ms."""
    models = params.local_ms.shape[1]
    chosen = jnp.take_along_axis(params.local_ms, jnp.minimum(action, models - 1)[:, None], axis=1)[:, 0]
    slow = jnp.where(conditions.device_cpu == 1, params.busy_cpu_factor, 1.0) * jnp.where(
        conditions.device_memory == 1, params.busy_memory_factor, 1.0
    )
    return jnp.where(action < models, chosen * slow, 0.0)


def _tasks(params: EnvParams, action: chex.Array) -> chex.Array:
    """Number of tasks at edge and cloud. Shape [2], int32."""
    models = params.local_ms.shape[1]
    return jnp.stack(node_tasks(action, models))


def response_ms(params: EnvParams, conditions: Conditions, action: chex.Array) -> chex.Array:
    """Noise-free response time of each device under a joint action (the model fitted to Table V).

    Args:
      params: the scenario.
      conditions: background load and links of this step.
      action: [N] int32 in 0..C-1: run d_k here (k < l), send to the edge (l) or to the cloud (l + 1).

    Returns:
      [N] response times, ms.
    """
    chex.assert_rank(action, 1)
    models = params.local_ms.shape[1]
    edge, cloud = node_choices(models)
    local = _local_compute_ms(params, conditions, action)
    busy = (conditions.node_cpu / LEVELS).astype(jnp.float32)
    slow = jnp.where(conditions.node_memory == 1, params.busy_memory_factor, 1.0) / (1.0 - busy)
    sharing = jnp.take_along_axis(params.occupancy, _tasks(params, action)[:, None], axis=1)[:, 0]
    # A task for the cloud passes the edge (Fig. 1, steps 2 and 3), so a weak edge link costs it too.
    weak_links = jnp.cumsum(conditions.node_weak * params.weak_offload_ms)
    remote = params.node_ms + params.share_ms * sharing * slow + weak_links
    where_run = jnp.where(action == edge, remote[0], jnp.where(action == cloud, remote[1], local))
    own_link = params.weak_device_ms + jnp.where(action >= models, params.weak_device_offload_ms, 0.0)
    link = conditions.device_weak * own_link + conditions.node_weak[0] * params.weak_edge_ms
    return where_run + link


def mean_accuracy(params: EnvParams, action: chex.Array) -> chex.Array:
    """Mean accuracy of the chosen models, %. Scalar."""
    return jnp.mean(params.accuracy[action])


def meets_constraint(params: EnvParams, action: chex.Array) -> chex.Array:
    """Whether the mean accuracy keeps the constraint (`objective.meets`)."""
    return objective.meets(mean_accuracy(params, action), params.constraint)


def cost_ms(params: EnvParams, action: chex.Array, response: chex.Array) -> chex.Array:
    """Cost of a joint action: average response time, plus the penalty where the constraint is broken."""
    penalty = objective.penalty_ms(
        mean_accuracy(params, action), params.constraint, params.penalty_missing, params.penalty_ms
    )
    return jnp.mean(response) + penalty


def observation_levels(users: int, nodes: int = 2) -> np.ndarray:
    """Number of discrete values of each of the F = 3N + 3M observed components, in `observe`'s order."""
    return np.array([2] * (3 * users) + [LEVELS] * nodes + [2] * (2 * nodes), np.int32)


def observe(state: EnvState) -> chex.Array:
    """Table II: P, M and B of every device, then P, M and B of (edge, cloud). Shape [3N + 6] (3N + 3M), int32.

    A monitor shows background load plus what the last joint action put there: a device is Busy from
    `BUSY_THRESHOLD` on, a node's level is floor(9 * utilization) (to a rounding of 1e-4) above its background's.
    """
    conditions = state.conditions
    device_cpu = jnp.where(conditions.device_cpu == 1, 1, (state.device_load >= BUSY_THRESHOLD).astype(jnp.int32))
    level = jnp.floor(LEVELS * state.node_load + 1e-4).astype(jnp.int32)
    node_cpu = jnp.minimum(conditions.node_cpu + level, LEVELS - 1)
    return jnp.concatenate(
        [
            device_cpu,
            conditions.device_memory,
            conditions.device_weak,
            node_cpu,
            conditions.node_memory,
            conditions.node_weak,
        ]
    )


def _flip(key: chex.PRNGKey, flags: chex.Array, leave: chex.Array) -> chex.Array:
    """One step of independent two-state chains."""
    moves = jax.random.uniform(key, flags.shape) < jnp.where(flags == 1, leave[1], leave[0])
    return jnp.where(moves, 1 - flags, flags)


def next_conditions(key: chex.PRNGKey, params: Changing, conditions: Conditions) -> Conditions:
    """One step of the Markov chains (the dynamic scenario); the key is consumed."""
    cpu_key, memory_key, link_key, level_key, node_memory_key, node_link_key = jax.random.split(key, 6)
    chains = params.chains
    level, draw = conditions.node_cpu, jax.random.uniform(level_key, conditions.node_cpu.shape)
    move = (draw < chains.node_cpu_move).astype(jnp.int32) - (draw > 1.0 - chains.node_cpu_move).astype(jnp.int32)
    return Conditions(
        device_cpu=_flip(cpu_key, conditions.device_cpu, chains.device_cpu),
        device_memory=_flip(memory_key, conditions.device_memory, chains.device_memory),
        device_weak=_flip(link_key, conditions.device_weak, chains.device_weak),
        # Not clipped where it stays: a fixed scenario keeps whatever level it was given.
        node_cpu=jnp.where(move == 0, level, jnp.clip(level + move, 0, chains.node_cpu_max)),
        node_memory=_flip(node_memory_key, conditions.node_memory, chains.node_memory),
        node_weak=_flip(node_link_key, conditions.node_weak, chains.node_weak),
    )


def stationary_conditions(key: chex.PRNGKey, params: Changing) -> Conditions:
    """Conditions drawn from the chains' stationary law; the scenario's own where nothing changes.

    The key is consumed. Levels move up and down with equal probability, so theirs is the uniform law.
    """
    cpu_key, memory_key, link_key, level_key, node_memory_key, node_link_key = jax.random.split(key, 6)
    chains, start = params.chains, params.start

    def draw(draw_key: chex.PRNGKey, flags: chex.Array, leave: chex.Array) -> chex.Array:
        moving = leave[0] + leave[1]
        busy = jax.random.uniform(draw_key, flags.shape) < leave[0] / jnp.maximum(moving, 1e-9)
        return jnp.where(moving > 0.0, busy.astype(jnp.int32), flags)

    level = jax.random.randint(level_key, start.node_cpu.shape, 0, chains.node_cpu_max + 1)
    drawn = Conditions(
        device_cpu=draw(cpu_key, start.device_cpu, chains.device_cpu),
        device_memory=draw(memory_key, start.device_memory, chains.device_memory),
        device_weak=draw(link_key, start.device_weak, chains.device_weak),
        node_cpu=jnp.where(chains.node_cpu_move > 0.0, level, start.node_cpu),
        node_memory=draw(node_memory_key, start.node_memory, chains.node_memory),
        node_weak=draw(node_link_key, start.node_weak, chains.node_weak),
    )
    return jax.tree.map(lambda new, old: jnp.where(params.dynamic, new, old), drawn, start)


def standing_still(params: EnvParams, state: EnvState, action: chex.Array) -> EnvState:
    """The state after a joint action ([N]) if the conditions don't change: its load is on the nodes."""
    compute = _local_compute_ms(params, state.conditions, action)
    return EnvState(
        conditions=state.conditions,
        device_load=jnp.minimum(compute / params.monitor_period_ms, 1.0),
        node_load=jnp.minimum(_tasks(params, action) * params.task_load, 1.0),
        time=state.time + 1,
    )


class Orchestration:
    """The environment in gymnax 1.0's convention. Stateless: everything is in `EnvParams` and `EnvState`."""

    def reset(self, key: chex.PRNGKey, params: EnvParams) -> tuple[chex.Array, EnvState]:
        """Starts with idle nodes. Returns the observation [F] int32 and the state; the key is consumed."""
        state = EnvState(
            conditions=stationary_conditions(key, params),
            device_load=jnp.zeros(params.local_ms.shape[0], jnp.float32),
            node_load=jnp.zeros(2, jnp.float32),
            time=jnp.int32(0),
        )
        return observe(state), state

    def step(
        self, key: chex.PRNGKey, state: EnvState, action: chex.Array, params: EnvParams
    ) -> tuple[chex.Array, EnvState, chex.Array, chex.Array, chex.Array, dict[str, chex.Array]]:
        """Every device asks for one inference under the joint `action` ([N] int32); the key is consumed.

        Returns:
          obs [F] int32, state, reward = -cost (ms), terminated, truncated (both False), and info: `response_ms`
          [N] as measured, `mean_ms` [N] noise-free, `art_ms`, `accuracy` (%), `feasible`, `cost_ms`.
        """
        chex.assert_shape(action, (params.local_ms.shape[0],))
        noise_key, chain_key = jax.random.split(key)
        mean = response_ms(params, state.conditions, action)
        draw = jax.random.normal(noise_key, mean.shape)
        # The mean of the log-normal factor is 1, so that the noise-free time is the expected one.
        response = mean * jnp.exp(params.noise * draw - 0.5 * params.noise**2)
        cost = cost_ms(params, action, response)
        loaded = standing_still(params, state, action)
        following = dataclasses.replace(loaded, conditions=next_conditions(chain_key, params, state.conditions))
        info = {
            "response_ms": response,
            "mean_ms": mean,
            "art_ms": jnp.mean(response),
            "accuracy": mean_accuracy(params, action),
            "feasible": meets_constraint(params, action),
            "cost_ms": cost,
        }
        return observe(following), following, -cost, jnp.bool_(False), jnp.bool_(False), info
