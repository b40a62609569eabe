"""How often each device asks, and how regularly: what is learned of requests from their counts and gaps.

Two memories go along, a long one and a short one. Where the short one's rate is far from the long one's, the load has
changed: the long one is scaled to it, and forgets the most.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

SHORT, LONG = 0.5, 0.97  # by which a memory fades in a control period
CHANGED = 5.0  # standard deviations by which all requests of the short memory differ from what the long one expects
MOST_SHARED = 200.0  # requests of others' that a device's rate leans on at most
RECALLED = 0.2  # what an old memory counts after a change, its rates scaled to the new load
FEW = 20.0  # gaps by which a device's regularity leans on everybody's


@chex.dataclass(frozen=True)
class Memory:
    """Sums that fade, of each device. All [N]."""

    time_ms: chex.Array
    requests: chex.Array
    gaps: chex.Array
    gap_ms: chex.Array
    square_ms2: chex.Array


@chex.dataclass(frozen=True)
class Demand:
    """What is known of each device's requests."""

    long: Memory
    short: Memory
    since_ms: chex.Array  # [N] since the last request, at the period's end
    changes: chex.Array  # [] int32, how often the load was found changed


def nothing(users: int) -> Demand:
    """Before any report."""
    zero = jnp.zeros(users)
    memory = Memory(time_ms=zero, requests=zero, gaps=zero, gap_ms=zero, square_ms2=zero)
    return Demand(long=memory, short=memory, since_ms=zero, changes=jnp.int32(0))


def variation(demand: Demand) -> chex.Array:
    """Coefficient of variation of each device's gaps: its own, and everybody's as long as it has shown few. [N]."""
    memory = demand.long
    mean = memory.gap_ms / jnp.maximum(memory.gaps, 1e-6)
    relative = memory.square_ms2 / jnp.maximum(mean**2, 1e-6) - memory.gaps  # sum of squared relative deviations
    everybody = jnp.sum(relative) / jnp.maximum(jnp.sum(memory.gaps), 1e-6)
    square = (relative + FEW * everybody) / (memory.gaps + FEW)
    return jnp.sqrt(jnp.maximum(square, 0.0))


def per_ms(demand: Demand) -> chex.Array:
    """Mean requests of each device per ms: its own, leaning on everybody's as far as devices are alike. [N].

    Empirical Bayes: what devices' counts differ by beyond chance says how many requests of its own a device must have
    shown to be believed as much as all others together.
    """
    memory = demand.long
    all_requests, all_time = jnp.sum(memory.requests) + 1e-3, jnp.maximum(jnp.sum(memory.time_ms), 1.0)
    everybody = all_requests / all_time
    own = memory.requests / jnp.maximum(memory.time_ms, 1.0) / everybody
    by_chance = jnp.mean(variation(demand) ** 2) / jnp.maximum(jnp.mean(memory.requests), 1.0)
    apart = jnp.clip(jnp.var(own) - by_chance, 1.0 / MOST_SHARED, 1.0)
    return (memory.requests + 1.0 / apart) / (memory.time_ms + 1.0 / (apart * everybody))


def _after(memory: Memory, fades: float, now: Memory) -> Memory:
    faded: Memory = jax.tree.map(lambda kept, new: fades * kept + new, memory, now)
    return faded


def update(demand: Demand, period_ms: float | chex.Array, info: dict[str, chex.Array]) -> Demand:
    """With one control period's reports (`TrafficOrchestration.step`).

    A real device tells of another time than the period's (`heard_ms`): of none while nobody hears it, which doesn't say
    that it asks less, and of more when it is heard again.
    """
    gaps = info["gaps"].astype(jnp.float32)
    now = Memory(
        time_ms=info.get("heard_ms", jnp.full(gaps.shape, period_ms)),
        requests=info["made"].astype(jnp.float32),
        gaps=gaps,
        gap_ms=gaps * info["gap_ms"],
        square_ms2=gaps * info["gap_square_ms2"],
    )
    short = _after(demand.short, SHORT, now)
    expected = jnp.sum(per_ms(demand) * short.time_ms)
    spread = jnp.maximum(jnp.sqrt(jnp.mean(variation(demand) ** 2) * expected), 1.0)
    enough = jnp.sum(demand.long.time_ms) > 3.0 * jnp.sum(now.time_ms)
    changed = enough & (jnp.abs(jnp.sum(short.requests) - expected) > CHANGED * spread)
    long = _after(demand.long, LONG, now)
    scaled = jax.tree.map(lambda kept: RECALLED * kept, demand.long)
    factor = jnp.sum(short.requests) / jnp.maximum(expected, 1e-3)
    scaled = scaled.replace(
        requests=scaled.requests * factor, gap_ms=scaled.gap_ms / factor, square_ms2=scaled.square_ms2 / factor**2
    )
    recalled = _after(scaled, 1.0, now)
    long = jax.tree.map(lambda a, b: jnp.where(changed, a, b), recalled, long)
    short = jax.tree.map(lambda a, b: jnp.where(changed, a, b), now, short)
    return Demand(long=long, short=short, since_ms=info["since_ms"], changes=demand.changes + changed)
