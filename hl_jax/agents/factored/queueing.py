"""What waiting costs, roughly: formulas for queues that are never exactly what they are made for.

They rank joint decisions before rollouts do. Sakasegawa's (1977) mean wait of G/G/c with Allen and Cunneen's (1990)
factor for how regular arrivals are; exact for M/M/1 and M/D/1. Where a node can't keep up, waiting grows with time.
"""

from __future__ import annotations

import chex
import jax.numpy as jnp
from jax.scipy.stats import norm

MOST_LOAD = 0.97  # up to which the formula holds


def wait_ms(
    per_ms: chex.Array, service_ms: chex.Array, slots: float, variation2: chex.Array, horizon_ms: float
) -> chex.Array:
    """Mean wait of a task, ms. Arrays of one shape.

    Args:
      per_ms: tasks.
      service_ms: what each takes; it varies little.
      slots: c.
      variation2: squared coefficient of variation of the gaps between tasks.
      horizon_ms: for how long an overload lasts.
    """
    load = per_ms * service_ms / slots
    calm = jnp.minimum(load, MOST_LOAD)
    busy = calm ** (jnp.sqrt(2.0 * (slots + 1.0)) - 1.0) / (slots * (1.0 - calm))
    return 0.5 * variation2 * busy * service_ms + jnp.maximum(load - MOST_LOAD, 0.0) * horizon_ms


def missed(
    alone_ms: chex.Array, wait: chex.Array, load: chex.Array, deadline_ms: chex.Array, spread: float
) -> chex.Array:
    """Part of the tasks that are late. Arrays of one shape.

    Who waits at all (`load` of the tasks) waits an exponential time.

    Args:
      alone_ms: a task's time without waiting.
      wait: its mean wait, ms.
      load: of the slots, 0 to 1.
      deadline_ms: when it is late.
      spread: standard deviation of the logarithm of its time alone.
    """
    slack = deadline_ms - alone_ms
    in_time = norm.cdf(slack / (jnp.maximum(spread, 1e-3) * alone_ms))
    busy = jnp.clip(load, 1e-3, 1.0)
    late = busy * jnp.exp(-jnp.maximum(slack, 0.0) * busy / jnp.maximum(wait, 1e-6))
    return 1.0 - in_time * (1.0 - jnp.where(wait > 1e-6, late, 0.0))
