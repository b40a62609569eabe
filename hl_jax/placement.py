"""The problem of placing tasks in a tree of nodes: what every choice costs beside so many other tasks, what is asked.

A choice is relative: on the device itself, at *its* edge, or at *its* cloud; so all devices have the same C choices
however many edges there are. Under fixed numbers of tasks at the nodes, costs are a sum over devices, and the accuracy
constraint is a knapsack: the structure that searches and the oracle live on. Where the numbers come from (a learned
model or a true one) is the caller's affair, and so is what a cost is: ms, mJ, or a weight between.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from hl_jax import objective

DEVICE, EDGE, CLOUD = 0, 1, 2  # where a choice's task runs


@chex.dataclass(frozen=True)
class Placement:
    """Costs of N devices' C choices below E edges and K clouds.

    A task costs `base + share * occupancy` of its node beside so many tasks there, itself counted; on the device itself
    the occupancy is that of one task, and 1.
    """

    base: chex.Array  # [N, C] inf: there is no such choice
    share: chex.Array  # [N, C] at least 0
    most: chex.Array  # [N, C] int32, the most tasks at the node with which the choice is allowed (N: any number)
    where: chex.Array  # [C] int32: DEVICE, EDGE or CLOUD
    edge: chex.Array  # [N] int32, the edge that a device hangs on; E: none
    cloud: chex.Array  # [N] int32, its cloud; K: none
    edges: chex.Array  # [E, N+1] occupancy by number of tasks, never falling, 1 of one task; that of 0 is never read
    clouds: chex.Array  # [K, N+1] the same
    accuracy: chex.Array  # [N, C] %
    constraint: chex.Array  # [] %, least mean accuracy over devices


def check(problem: Placement) -> tuple[int, int, int, int]:
    """Checks shapes; returns N, C, E and K."""
    chex.assert_rank([problem.base, problem.edges, problem.clouds], [2, 2, 2])
    users, choices = problem.base.shape
    chex.assert_shape([problem.share, problem.most, problem.accuracy], (users, choices))
    chex.assert_shape(problem.where, (choices,))
    chex.assert_shape([problem.edge, problem.cloud], (users,))
    edges, clouds = problem.edges.shape[0], problem.clouds.shape[0]
    chex.assert_shape(problem.edges, (edges, users + 1))
    chex.assert_shape(problem.clouds, (clouds, users + 1))
    chex.assert_shape(problem.constraint, ())
    return users, choices, edges, clouds


def tasks(problem: Placement, action: chex.Array) -> tuple[chex.Array, chex.Array]:
    """Numbers of tasks that a joint action ([N]) puts at the edges ([E]) and at the clouds ([K]), int32."""
    _, _, edges, clouds = check(problem)
    where = problem.where[action]

    def count(node: chex.Array, nodes: int, kind: int) -> chex.Array:
        there = (where == kind)[:, None] & (node[:, None] == jnp.arange(nodes)[None, :])
        return jnp.sum(there, axis=0, dtype=jnp.int32)

    return count(problem.edge, edges, EDGE), count(problem.cloud, clouds, CLOUD)


def _beside(problem: Placement, action: chex.Array) -> tuple[chex.Array, chex.Array]:
    """Each task's number of tasks at its node, itself counted, and the occupancy of that. [N] each."""
    at_edges, at_clouds = tasks(problem, action)
    where = problem.where[action]

    def read(node: chex.Array, occupancy: chex.Array, counts: chex.Array) -> tuple[chex.Array, chex.Array]:
        # One row more, so that a device without such a node has something to read.
        occupancy = jnp.concatenate([occupancy, jnp.ones_like(occupancy[:1]) if occupancy.shape[0] else _ones(problem)])
        counts = jnp.concatenate([counts, jnp.ones(1, jnp.int32)])
        return counts[node], occupancy[node, counts[node]]

    edge, cloud = read(problem.edge, problem.edges, at_edges), read(problem.cloud, problem.clouds, at_clouds)
    count = jnp.where(where == EDGE, edge[0], jnp.where(where == CLOUD, cloud[0], 1))
    occupancy = jnp.where(where == EDGE, edge[1], jnp.where(where == CLOUD, cloud[1], 1.0))
    return count, occupancy


def _ones(problem: Placement) -> chex.Array:
    return jnp.ones((1, problem.base.shape[0] + 1), problem.base.dtype)


def occupancies(problem: Placement, action: chex.Array) -> chex.Array:
    """What multiplies each device's share under a joint action ([N] int32). [N]."""
    return _beside(problem, action)[1]


def costs(problem: Placement, action: chex.Array) -> chex.Array:
    """What each device's task costs under a joint action ([N] int32); inf where a choice isn't allowed. [N]."""
    chex.assert_shape(action, (problem.base.shape[0],))
    count, occupancy = _beside(problem, action)
    base, share, most = (
        jnp.take_along_axis(table, action[:, None], axis=1)[:, 0]
        for table in (problem.base, problem.share, problem.most)
    )
    return jnp.where(count <= most, base + share * occupancy, jnp.inf)


def mean_accuracy(problem: Placement, action: chex.Array) -> chex.Array:
    """Mean accuracy of a joint action ([N]), %. []."""
    return jnp.mean(jnp.take_along_axis(problem.accuracy, action[:, None], axis=1)[:, 0])


def mean_cost(problem: Placement, action: chex.Array) -> chex.Array:
    """Mean cost of a joint action ([N]); inf where a choice isn't allowed or the constraint is broken. []."""
    met = objective.meets(mean_accuracy(problem, action), problem.constraint)
    return jnp.where(met, jnp.mean(costs(problem, action)), jnp.inf)


def most_tasks(
    room_ms: chex.Array,
    late_ms: chex.Array,
    where: chex.Array,
    nodes: tuple[chex.Array, chex.Array],
    occupancy: tuple[chex.Array, chex.Array],
) -> chex.Array:
    """The most tasks at its node with which each choice keeps its device's deadline: `Placement.most`. [N, C] int32.

    Args:
      room_ms: [N, C] what deadlines leave for computing.
      late_ms: [N, C] what computing alone takes at that quantile.
      where: [C] as in `Placement`.
      nodes: [N] each, the edges and clouds that devices hang on.
      occupancy: [E, N+1] and [K, N+1].
    """
    users = room_ms.shape[0]

    def at(node: chex.Array, table: chex.Array) -> chex.Array:
        each = jnp.concatenate([table, jnp.ones((1, users + 1), table.dtype)])

        # Occupancies never fall, so what keeps it is a beginning, whose end is between two numbers.
        def halved(_: int, ends: tuple[chex.Array, chex.Array]) -> tuple[chex.Array, chex.Array]:
            low, high = ends
            middle = (low + high + 1) // 2
            kept = late_ms * each[node[:, None], middle] <= room_ms
            return jnp.where(kept, middle, low), jnp.where(kept, high, middle - 1)

        ends = jnp.zeros(room_ms.shape, jnp.int32), jnp.full(room_ms.shape, users, jnp.int32)
        found: chex.Array = jax.lax.fori_loop(0, users.bit_length(), halved, ends)[0]
        return found

    edge, cloud = (at(node, table) for node, table in zip(nodes, occupancy, strict=True))
    alone = jnp.where(late_ms <= room_ms, users, 0)
    found = jnp.where(where[None, :] == EDGE, edge, jnp.where(where[None, :] == CLOUD, cloud, alone))
    return found.astype(jnp.int32)
