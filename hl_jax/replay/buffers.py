"""Transitions in ring buffers: uniform (D_world), prioritized (D_direct), prioritized and keyed by action (D_plan).

`init / add / sample / update` are pure; each record is what they carry. Prioritization follows Schaul et al. 2016:
P(i) proportional to p_i, p_i = (|TD error| + small)^exponent, importance weights (n P(i))^-beta over their largest.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from hl_jax.replay import sum_tree

NOWHERE = -1  # an action that D_plan doesn't hold
LEAST_PRIORITY = 1e-3  # keeps every stored transition drawable


@chex.dataclass(frozen=True)
class Transition:
    """One step, or a batch of them under a leading axis."""

    obs: chex.Array  # [F] int8
    action: chex.Array  # [] int32, index of the joint action
    cost: chex.Array  # [] float32, in units of the cost scale; [N] where D_world holds each device's response time
    next_obs: chex.Array  # [F] int8


@chex.dataclass(frozen=True)
class Ring:
    """D_world: the last M transitions."""

    data: Transition
    count: chex.Array  # how many were ever added, less whole turns of the ring once it is full: it never overflows


@chex.dataclass(frozen=True)
class Prioritized:
    """D_direct: a ring whose transitions carry priorities."""

    ring: Ring
    tree: chex.Array  # [2M]
    top: chex.Array  # [] largest priority given so far: what a new transition starts with


@chex.dataclass(frozen=True)
class Keyed:
    """D_plan: at most one transition per joint action, found by the action (Algorithm 1, lines 29 to 33)."""

    prioritized: Prioritized
    slot_of: chex.Array  # [A] int32, where an action's transition lies, or NOWHERE


@chex.dataclass(frozen=True)
class Batch:
    """What a prioritized buffer hands out."""

    data: Transition  # leading axis B
    slots: chex.Array  # [B] int32
    weights: chex.Array  # [B] importance weights, the largest is 1


def init_ring(capacity: int, components: int, costs: tuple[int, ...] = ()) -> Ring:
    """An empty ring for `capacity` transitions of `components` observed values, and `costs` the shape of their cost."""
    data = Transition(
        obs=jnp.zeros((capacity, components), jnp.int8),
        action=jnp.zeros(capacity, jnp.int32),
        cost=jnp.zeros((capacity, *costs), jnp.float32),
        next_obs=jnp.zeros((capacity, components), jnp.int8),
    )
    return Ring(data=data, count=jnp.int32(0))


def init_prioritized(capacity: int, components: int) -> Prioritized:
    """An empty prioritized ring; `capacity` is a power of two."""
    return Prioritized(ring=init_ring(capacity, components), tree=sum_tree.init(capacity), top=jnp.float32(1.0))


def init_keyed(capacity: int, components: int, joint_actions: int) -> Keyed:
    """An empty D_plan over `joint_actions` possible keys."""
    slot_of = jnp.full(joint_actions, NOWHERE, jnp.int32)
    return Keyed(prioritized=init_prioritized(capacity, components), slot_of=slot_of)


def ring_capacity(ring: Ring) -> int:
    """M."""
    return ring.data.cost.shape[0]


def ring_size(ring: Ring) -> chex.Array:
    """Number of transitions held."""
    return jnp.minimum(ring.count, ring_capacity(ring))


def add_to_ring(ring: Ring, item: Transition) -> Ring:
    """Adds one transition over the oldest."""
    slot = ring.count % ring_capacity(ring)
    data = jax.tree.map(lambda store, value: store.at[slot].set(value), ring.data, item)
    size = ring_capacity(ring)
    return Ring(data=data, count=jnp.where(ring.count + 1 < 2 * size, ring.count + 1, size))


def sample_ring(ring: Ring, key: chex.PRNGKey, batch: int) -> Transition:
    """Draws `batch` transitions uniformly, with replacement; the key is consumed."""
    slots = jax.random.randint(key, (batch,), 0, jnp.maximum(ring_size(ring), 1))
    return jax.tree.map(lambda store: store[slots], ring.data)


def add(buffer: Prioritized, item: Transition) -> Prioritized:
    """Adds one transition over the oldest, with the largest priority given so far."""
    slot = buffer.ring.count % ring_capacity(buffer.ring)
    tree = sum_tree.update(buffer.tree, slot[None], buffer.top[None])
    return buffer.replace(ring=add_to_ring(buffer.ring, item), tree=tree)


def sample(buffer: Prioritized, key: chex.PRNGKey, batch: int, beta: chex.Array) -> Batch:
    """Draws `batch` transitions in proportion to priority; the key is consumed.

    Args:
      buffer: not empty.
      key: consumed.
      batch: B.
      beta: how far the importance weights correct the bias, 0 (not) to 1 (fully).
    """
    slots = sum_tree.sample(buffer.tree, key, batch)
    # n * P(i) with n transitions held.
    scaled = sum_tree.get(buffer.tree, slots) * ring_size(buffer.ring) / sum_tree.total(buffer.tree)
    weights = scaled**-beta
    data = jax.tree.map(lambda store: store[slots], buffer.ring.data)
    return Batch(data=data, slots=slots, weights=weights / jnp.max(weights))


def update(buffer: Prioritized, slots: chex.Array, errors: chex.Array, exponent: float) -> Prioritized:
    """Gives the transitions at `slots` ([B]) new priorities from their TD `errors` ([B])."""
    priorities = (jnp.abs(errors) + LEAST_PRIORITY) ** exponent
    tree = sum_tree.update(buffer.tree, slots, priorities)
    return buffer.replace(tree=tree, top=jnp.maximum(buffer.top, jnp.max(priorities)))


def contains(buffer: Keyed, actions: chex.Array) -> chex.Array:
    """Whether D_plan holds a transition of each of some joint actions (line 29). Same shape, bool."""
    return buffer.slot_of[actions] != NOWHERE


def put(buffer: Keyed, item: Transition) -> Keyed:
    """Stores a transition whose action isn't held yet (line 31); the oldest one's action is forgotten when full."""
    ring, actions = buffer.prioritized.ring, buffer.slot_of.shape[0]
    size = ring_capacity(ring)
    slot = ring.count % size
    dropped = jnp.where(ring.count >= size, ring.data.action[slot], actions)
    slot_of = buffer.slot_of.at[dropped].set(NOWHERE, mode="drop").at[item.action].set(slot)
    return Keyed(prioritized=add(buffer.prioritized, item), slot_of=slot_of)


def move(buffer: Keyed, actions: chex.Array, obs: chex.Array) -> Keyed:
    """Lets the transitions of those of `actions` ([K]) that are held start in `obs` [F] (line 33: s'' <- s)."""
    ring = buffer.prioritized.ring
    slots = buffer.slot_of[actions]
    slots = jnp.where(slots == NOWHERE, ring_capacity(ring), slots)
    moved = ring.replace(data=ring.data.replace(obs=ring.data.obs.at[slots].set(obs, mode="drop")))
    return buffer.replace(prioritized=buffer.prioritized.replace(ring=moved))
