"""Which part of a node's CPU level is background load, and which the last joint action put there.

A monitor shows the sum of both (Table II, 0..8). The background moves seldom and whatever we do; what n tasks put
there stays the same until reality changes. A Bayes filter over integer levels tells them apart: a belief about the
background, and one about every number of tasks. They are kept as if independent (assumed-density filtering): one level
seen updates both through their joint distribution, of which the marginals stay. Where no task ran the background is
seen as it is, and that decides between explanations that one number of tasks alone leaves open.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np

from hl_jax.scenario import LEVELS

# Probabilities per step. Only their order matters: the background moves more often than tasks change what they need,
# unless response times have just said so.
MOVES = 0.1  # the background goes to another level
NEARER = 0.2  # a level further away is so many times as probable, for moves and misreadings
MISREAD = 0.02  # a monitor shows another level than the sum
CHANGES = 0.01  # what tasks put there becomes anything
CHANGES_IF_SURPRISED = 0.5  # the same where response times of that node's tasks have just surprised


def _mostly_stays(elsewhere: float) -> np.ndarray:
    """Stochastic matrix that leaves each level with this probability, seldom far. [LEVELS, LEVELS]."""
    level = np.arange(LEVELS)
    away = NEARER ** np.abs(level[:, None] - level[None, :]) * (1.0 - np.eye(LEVELS))
    away *= elsewhere / away.sum(axis=1, keepdims=True)
    return (away + (1.0 - elsewhere) * np.eye(LEVELS)).astype(np.float32)


_SUM = np.minimum(np.arange(LEVELS)[:, None] + np.arange(LEVELS)[None, :], LEVELS - 1)
_MOVED = _mostly_stays(MOVES)  # [before, after]
_SEEN = _mostly_stays(MISREAD)[_SUM]  # [background, own, seen]


@chex.dataclass(frozen=True)
class Levels:
    """Probabilities of each level, for edge and cloud."""

    background: chex.Array  # [2, LEVELS]
    own: chex.Array  # [2, N+1, LEVELS] what 0..N tasks put there


def init(users: int, seen: chex.Array) -> Levels:
    """Before the first step of `users` devices: nodes are idle, so what is seen ([2] int) is background."""
    own = np.full((2, users + 1, LEVELS), 1.0 / LEVELS, np.float32)
    own[:, 0] = np.eye(LEVELS)[0]  # no task, no load
    return Levels(background=jnp.asarray(np.eye(LEVELS, dtype=np.float32))[seen], own=jnp.asarray(own))


def update(levels: Levels, tasks: chex.Array, seen: chex.Array, surprised: chex.Array) -> Levels:
    """After a step.

    Args:
      levels: the beliefs before.
      tasks: [2] int, how many tasks the step sent to edge and cloud.
      seen: [2] int, the levels observed after it.
      surprised: [2] bool, whether these tasks' response times belied the model: then the node itself may have changed.
    """
    chex.assert_shape([tasks, seen, surprised], (2,))

    def node(
        background: chex.Array, own: chex.Array, tasks: chex.Array, seen: chex.Array, surprised: chex.Array
    ) -> tuple[chex.Array, chex.Array]:
        forgotten = jnp.where(surprised, CHANGES_IF_SURPRISED, CHANGES)
        own = own.at[1:].set((1.0 - forgotten) * own[1:] + forgotten / LEVELS)
        joint = (background @ _MOVED)[:, None] * own[tasks][None, :] * jnp.asarray(_SEEN)[:, :, seen]
        joint = joint / jnp.sum(joint)
        return jnp.sum(joint, axis=1), own.at[tasks].set(jnp.sum(joint, axis=0))

    background, own = jax.vmap(node)(levels.background, levels.own, tasks, seen, surprised)
    return Levels(background=background, own=own)


def background(levels: Levels) -> chex.Array:
    """The most probable background levels of edge and cloud. [2] float32."""
    return jnp.argmax(levels.background, axis=1).astype(jnp.float32)
