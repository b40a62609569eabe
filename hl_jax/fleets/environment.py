"""A user's own fleet as an environment: the same interface as `simulator.Orchestration`, over a tree of nodes.

All devices ask at one instant, once a step. A choice is (where, target, model); on a node that n tasks share, each
computes `occupancy[n]` times as long as alone. What a joint action is worth follows from `placement.Placement`, the
record that searches and the oracle read; this module alone says how conditions make its numbers.
"""

from __future__ import annotations

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np

from hl_jax import objective, placement
from hl_jax.fleets.params import FleetParams
from hl_jax.objective import Penalty
from hl_jax.placement import CLOUD, DEVICE, EDGE, Placement, most_tasks
from hl_jax.scenario import LEVELS
from hl_jax.simulator import Conditions, EnvState, next_conditions, observe, stationary_conditions


def _chosen(table: chex.Array, action: chex.Array) -> chex.Array:
    """What each device's choice has in a table [N, C, ...]. [N, ...]."""
    return table[jnp.arange(action.shape[0]), action]


def _of_node(values: chex.Array, node: chex.Array, otherwise: float) -> chex.Array:
    """A node's value ([M]) for each device that hangs on it ([N] int32; M: on none)."""
    return jnp.concatenate([values, jnp.full(1, otherwise, values.dtype)])[node]


def _slower(params: FleetParams, conditions: Conditions) -> tuple[chex.Array, chex.Array, chex.Array]:
    """What background load multiplies computing by: on devices, at their edges, at their clouds. [N] each."""
    memory = params.busy_memory_factor
    device = jnp.where(conditions.device_cpu == 1, params.busy_cpu_factor, 1.0)
    device = device * jnp.where(conditions.device_memory == 1, memory, 1.0)
    busy = (conditions.node_cpu / LEVELS).astype(jnp.float32)
    node = jnp.where(conditions.node_memory == 1, memory, 1.0) / (1.0 - busy)
    edges = params.edges.shape[0]
    return device, _of_node(node[:edges], params.edge, 1.0), _of_node(node[edges:], params.cloud, 1.0)


def _by_place(params: FleetParams, device: chex.Array, edge: chex.Array, cloud: chex.Array) -> chex.Array:
    """Of three values of each device ([N]) the one of each choice's place. [N, C]."""
    return jnp.stack([device, edge, cloud], axis=1)[:, params.where]


def computing_ms(params: FleetParams, conditions: Conditions) -> chex.Array:
    """Median computing time of every choice, alone on its node; inf where there is no such choice. [N, C] ms."""
    return params.median_ms * _by_place(params, *_slower(params, conditions))


def ways_ms(params: FleetParams, conditions: Conditions) -> chex.Array:
    """What every choice's task takes beside computing: round trips, its input and its result. [N, C] ms."""
    edges = params.edges.shape[0]
    own = conditions.device_weak * params.weak_ms
    uplink = _of_node(conditions.node_weak[:edges], params.edge, 0) * params.edge_cloud * params.weak_ms
    return _by_place(
        params,
        params.way_ms[:, DEVICE],
        params.way_ms[:, EDGE] + own,
        params.way_ms[:, CLOUD] + own + uplink,
    )


def problem(params: FleetParams, conditions: Conditions) -> Placement:
    """What every choice is expected to cost, beside any number of tasks: what decides the optimum."""
    computing, way = computing_ms(params, conditions), ways_ms(params, conditions)
    alone = computing * params.mean
    local = (params.where == DEVICE)[None, :]
    time, energy = params.weights[0], params.weights[1]
    # 0 * inf would be no number: what isn't there costs inf whatever counts.
    there = jnp.isfinite(computing)
    base = time * (way + jnp.where(local & there, alone, 0.0))
    each = time
    if params.energy_mj is not None:
        slow = _slower(params, conditions)[0][:, None]
        away = params.radio_mj[:, None] + params.wait_w * _waiting(params, way)
        base = base + energy * jnp.where(local, params.energy_mj * slow, away)
        each = time + energy * params.wait_w
    share = jnp.where(local | ~there, 0.0, each * jnp.where(there, alone, 0.0))
    return Placement(
        base=jnp.where(there, base, jnp.inf),
        share=share,
        most=most_tasks(
            params.deadline_ms[:, None] - way,
            computing * params.late,
            params.where,
            (params.edge, params.cloud),
            (params.edges, params.clouds),
        ),
        where=params.where,
        edge=params.edge,
        cloud=params.cloud,
        edges=params.edges,
        clouds=params.clouds,
        accuracy=jnp.broadcast_to(params.accuracy, computing.shape),
        constraint=params.constraint,
    )


def _waiting(params: FleetParams, way: chex.Array) -> chex.Array:
    """Of ways ([N, C]) what a device neither sends nor receives itself. [N, C] ms."""
    return jnp.maximum(way - params.radio_ms[:, None], 0.0)


def mean_accuracy(params: FleetParams, action: chex.Array) -> chex.Array:
    """Mean accuracy of the chosen models, %. []."""
    return jnp.mean(params.accuracy[action])


def penalised(params: FleetParams, cost: chex.Array, accuracy: chex.Array, late: chex.Array) -> chex.Array:
    """A mean cost with what a broken constraint, or a deadline that isn't kept ([] bool), costs beside. []."""
    penalty = objective.penalty_ms(accuracy, params.constraint, params.penalty_missing, params.penalty_ms)
    return cost + jnp.maximum(penalty, jnp.where(late, params.penalty_ms[-1], 0.0))


@chex.dataclass(frozen=True)
class Worth:
    """What a joint action is expected to be worth."""

    response_ms: chex.Array  # [N]
    energy_mj: chex.Array | None  # [N] of the devices' own; None: not all were measured
    accuracy: chex.Array  # [] %
    cost: chex.Array  # [] penalties included
    feasible: chex.Array  # [] bool


def _responses(
    params: FleetParams, conditions: Conditions, action: chex.Array, factors: chex.Array
) -> tuple[chex.Array, dict[str, chex.Array]]:
    """Response times [N] where computing takes `factors` [N] times its median, and their parts."""
    found = problem(params, conditions)
    occupancy = placement.occupancies(found, action)
    computing = _chosen(computing_ms(params, conditions), action) * factors
    way = _chosen(ways_ms(params, conditions), action)
    # What isn't there takes for ever, and inf * 0 would be no number.
    waiting = jnp.where(jnp.isfinite(computing), computing, 0.0) * (occupancy - 1.0)
    parts = {"computing_ms": computing, "waiting_ms": waiting, "way_ms": way}
    return way + computing + waiting, parts


def _energy_mj(
    params: FleetParams, conditions: Conditions, action: chex.Array, response: chex.Array, relative: chex.Array
) -> chex.Array | None:
    """What the devices draw, whose computing takes `relative` [N] times its mean. [N] mJ; None: nobody knows."""
    if params.energy_mj is None:
        return None
    slow = _slower(params, conditions)[0]
    own = _chosen(params.energy_mj, action) * slow * relative
    there = jnp.isfinite(response)
    away = params.radio_mj + params.wait_w * jnp.maximum(jnp.where(there, response, 0.0) - params.radio_ms, 0.0)
    return jnp.where(there, jnp.where(params.where[action] == DEVICE, own, away), jnp.inf)


def _cost(params: FleetParams, response: chex.Array, energy: chex.Array | None) -> chex.Array:
    """What the goal counts of response times and energies ([N] each), on average; inf if a choice isn't there. []."""
    there = jnp.isfinite(response)
    cost = params.weights[0] * jnp.mean(jnp.where(there, response, 0.0))
    if energy is not None:  # else it doesn't count
        cost = cost + params.weights[1] * jnp.mean(jnp.where(there, energy, 0.0))
    return jnp.where(jnp.all(there), cost, jnp.inf)


def worth(params: FleetParams, conditions: Conditions, action: chex.Array) -> Worth:
    """What a joint action ([N]) is expected to be worth in some conditions."""
    chex.assert_rank(action, 1)
    mean = _chosen(params.mean, action)
    response, _ = _responses(params, conditions, action, mean)
    energy = _energy_mj(params, conditions, action, response, jnp.ones_like(response))
    late = ~jnp.all(jnp.isfinite(placement.costs(problem(params, conditions), action)))
    accuracy = mean_accuracy(params, action)
    cost = _cost(params, response, energy)
    return Worth(
        response_ms=response,
        energy_mj=energy,
        accuracy=accuracy,
        cost=penalised(params, cost, accuracy, late),
        feasible=objective.meets(accuracy, params.constraint) & ~late,
    )


def extremes(params: FleetParams) -> tuple[Conditions, Conditions]:
    """The best and the worst conditions that its chains may bring; its own where nothing changes."""
    start, chains = params.start, params.chains

    def reached(into: int) -> Conditions:
        def flags(now: chex.Array, leave: chex.Array) -> chex.Array:
            return jnp.where(leave[1 - into] > 0.0, into, now)

        return Conditions(
            device_cpu=flags(start.device_cpu, chains.device_cpu),
            device_memory=flags(start.device_memory, chains.device_memory),
            device_weak=flags(start.device_weak, chains.device_weak),
            node_cpu=jnp.full_like(start.node_cpu, into * chains.node_cpu_max),
            node_memory=flags(start.node_memory, chains.node_memory),
            node_weak=flags(start.node_weak, chains.node_weak),
        )

    return reached(0), reached(1)


def _dearest(problem: Placement, tasks: np.ndarray) -> np.ndarray:
    """What each choice costs beside so many tasks ([N, C], itself counted). [N, C]."""
    users = tasks.shape[0]
    shape = (1, users + 1)
    each = [np.concatenate([np.asarray(nodes), np.ones(shape)]) for nodes in (problem.edges, problem.clouds)]
    at_edge, at_cloud = (
        table[np.asarray(node)[:, None], tasks] for table, node in zip(each, (problem.edge, problem.cloud), strict=True)
    )
    where = np.asarray(problem.where)[None, :]
    occupancy = np.where(where == EDGE, at_edge, np.where(where == CLOUD, at_cloud, 1.0))
    return np.asarray(problem.base, np.float64) + np.asarray(problem.share, np.float64) * occupancy


def sufficient_penalty(params: FleetParams, factor: float = 1.0) -> Penalty:
    """What breaking the constraint, or a deadline, must cost so that it never pays, times `factor`.

    No joint action costs less than each device's best choice alone on its node, in the best of conditions. In the
    worst, some joint action that keeps the constraint costs no more than the most accurate choices, the dearest that
    occupancy makes them; where deadlines keep devices from these, no more than the dearest that are allowed.
    """
    best, worst = (problem(params, conditions) for conditions in extremes(params))
    there = np.isfinite(np.asarray(best.base))
    least = np.mean(np.min(np.asarray(best.base + best.share, np.float64), axis=1))
    users, allowed = there.shape[0], np.asarray(worst.most)
    accuracy = np.where(there, np.asarray(worst.accuracy), -np.inf)
    whenever = (accuracy >= accuracy.max(axis=1, keepdims=True)) & (allowed >= users)
    if whenever.any(axis=1).all():
        most = np.mean(np.min(np.where(whenever, _dearest(worst, np.full_like(allowed, users)), np.inf), axis=1))
    else:
        most = np.mean(np.max(np.where(there, _dearest(worst, np.maximum(allowed, 1)), 0.0), axis=1))
    return Penalty(missing=(0.0,), ms=(factor * float(most - least + objective.CLEAR * least),))


def _drawn(key: chex.PRNGKey, params: FleetParams, action: chex.Array) -> chex.Array:
    """Computing times of the chosen, in their medians, from the machines' own laws. [N]; the key is consumed."""
    uniform = jax.random.uniform(key, action.shape)
    return jax.vmap(jnp.interp, in_axes=(0, None, 0))(uniform, params.probabilities, _chosen(params.factors, action))


def standing_still(params: FleetParams, state: EnvState, action: chex.Array) -> EnvState:
    """The state after a joint action ([N]) if the conditions don't change: its load is on the nodes."""
    load = _chosen(params.task_load, action)
    local = params.where[action] == DEVICE
    edges, clouds = params.edges.shape[0], params.clouds.shape[0]

    def at(node: chex.Array, nodes: int, kind: int) -> chex.Array:
        there = (params.where[action] == kind)[:, None] & (node[:, None] == jnp.arange(nodes)[None, :])
        return jnp.sum(jnp.where(there, load[:, None], 0.0), axis=0)

    nodes = jnp.concatenate([at(params.edge, edges, EDGE), at(params.cloud, clouds, CLOUD)])
    return EnvState(
        conditions=state.conditions,
        device_load=jnp.minimum(jnp.where(local, load * _slower(params, state.conditions)[0], 0.0), 1.0),
        node_load=jnp.minimum(nodes, 1.0),
        time=state.time + 1,
    )


class FleetOrchestration:
    """The environment in gymnax 1.0's convention. Stateless: everything is in `FleetParams` and `EnvState`."""

    def reset(self, key: chex.PRNGKey, params: FleetParams) -> tuple[chex.Array, EnvState]:
        """Starts with idle nodes. Returns the observation [F] int32 and the state; the key is consumed."""
        state = EnvState(
            conditions=stationary_conditions(key, params),
            device_load=jnp.zeros_like(params.radio_ms),
            node_load=jnp.zeros(params.start.node_cpu.shape, jnp.float32),
            time=jnp.int32(0),
        )
        return observe(state), state

    def step(
        self, key: chex.PRNGKey, state: EnvState, action: chex.Array, params: FleetParams
    ) -> tuple[chex.Array, EnvState, chex.Array, chex.Array, chex.Array, dict[str, chex.Array]]:
        """Every device asks for one inference under the joint `action` ([N] int32); the key is consumed.

        A choice that isn't there takes for ever: `response_ms` is inf then, and nothing learns from it.

        Returns:
          obs [F] int32, state, reward = -cost, terminated, truncated (both False), and info: `response_ms` [N] as
          measured and its parts `way_ms`, `waiting_ms`, `computing_ms`, `mean_ms` [N] expected, `energy_mj` [N]
          (if all were measured),
          `art_ms`, `accuracy` (%), `feasible`, `missed` [N] bool (later than the deadline), `cost_ms` (of the goal's
          unit).
        """
        chex.assert_shape(action, params.edge.shape)
        noise_key, chain_key = jax.random.split(key)
        conditions = state.conditions
        factors = _drawn(noise_key, params, action)
        response, parts = _responses(params, conditions, action, factors)
        energy = _energy_mj(params, conditions, action, response, factors / _chosen(params.mean, action))
        expected = worth(params, conditions, action)
        late = ~jnp.all(jnp.isfinite(placement.costs(problem(params, conditions), action)))
        cost = penalised(params, _cost(params, response, energy), expected.accuracy, late)
        loaded = standing_still(params, state, action)
        following = dataclasses.replace(loaded, conditions=next_conditions(chain_key, params, conditions))
        info = {
            "response_ms": response,
            **parts,
            "mean_ms": expected.response_ms,
            **({} if energy is None else {"energy_mj": energy}),
            "art_ms": jnp.mean(response),
            "accuracy": expected.accuracy,
            "feasible": expected.feasible,
            "missed": response > params.deadline_ms,
            "cost_ms": cost,
        }
        return observe(following), following, -cost, jnp.bool_(False), jnp.bool_(False), info
