"""When devices make their requests: the gaps between them, drawn; or time stamps, replayed.

Gaps are gamma distributed with a mean and a coefficient of variation: 0 is a clock, 1 is Poisson's, more comes in
bursts. Beside the gaps a request may be late by a uniform jitter, which doesn't add up. The request that falls behind
a period's end is drawn already, and waits for the next period; gaps behind it are drawn anew.
"""

from __future__ import annotations

import dataclasses

import chex
import jax
import jax.numpy as jnp

STATIC = {"static": True}  # of a field that a compiled program is made for
GRID = 1024.0  # parts of a ms. Sums of such times are exact in float32 below 16 s, whatever their order


def on_grid(times: chex.Array) -> chex.Array:
    """Times (ms) rounded to the grid."""
    return jnp.round(times * GRID) / GRID


@chex.dataclass(frozen=True)
class Stamps:
    """Recorded requests of each device, by control period; after the last period the first one follows again."""

    offset: chex.Array  # [N, L] ms from the start of its period
    first: chex.Array  # [N, T + 1] int32, where each of T periods begins in `offset`


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Law:
    """How each device's requests come. Arrays are [N]."""

    interval_ms: chex.Array  # mean gap
    variation: chex.Array  # coefficient of variation of the gaps
    jitter_ms: chex.Array  # a request is late by up to so much; no more than the gap, and 0 where gaps vary
    phase_ms: chex.Array  # the first request, where gaps don't vary
    stamps: Stamps | None  # of devices with any, in place of all this
    bursts: bool = dataclasses.field(metadata=STATIC)  # whether any variation is other than 0 and 1


@chex.dataclass(frozen=True)
class Clocks:
    """Where each device is in its requests."""

    key: chex.PRNGKey
    next_ms: chex.Array  # [N] nominal time of the next request, from the period's start
    late_ms: chex.Array  # [N] how much later it is made
    last_ms: chex.Array  # [N] when the last request was made, not above 0; minus infinity: none yet
    period: chex.Array  # [] int32, which control period comes


def gaps_ms(key: chex.PRNGKey, law: Law, count: int) -> chex.Array:
    """So many gaps of each device ([N, count] ms); the key is consumed."""
    shape = (law.interval_ms.shape[0], count)
    variation = law.variation[:, None]
    if law.bursts:
        concentration = 1.0 / jnp.maximum(variation, 0.01) ** 2
        drawn = jax.random.gamma(key, concentration, shape) / concentration
    else:
        drawn = jax.random.exponential(key, shape)
    return on_grid(jnp.where(variation > 0.0, drawn, 1.0) * law.interval_ms[:, None])


def _jitters_ms(key: chex.PRNGKey, law: Law, count: int) -> chex.Array:
    """How late so many requests of each device are ([N, count] ms); the key is consumed."""
    shape = (law.interval_ms.shape[0], count)
    return on_grid(jax.random.uniform(key, shape) * law.jitter_ms[:, None])


def start(key: chex.PRNGKey, law: Law) -> Clocks:
    """Before the first period; the key is consumed.

    A device whose gaps vary is found in the middle of one: its first request is a uniform part of a gap away.
    """
    draw_key, part_key, gap_key, late_key = jax.random.split(key, 4)
    gap = gaps_ms(gap_key, law, 1)[:, 0]
    drawn = on_grid(jax.random.uniform(part_key, gap.shape) * gap)
    return Clocks(
        key=draw_key,
        next_ms=jnp.where(law.variation > 0.0, drawn, on_grid(law.phase_ms)),
        late_ms=_jitters_ms(late_key, law, 1)[:, 0],
        last_ms=jnp.full(gap.shape, -jnp.inf),
        period=jnp.int32(0),
    )


def _replayed(stamps: Stamps, period: chex.Array, room: int) -> tuple[chex.Array, chex.Array]:
    """Recorded requests of a period: [N, R] times, infinite where there are fewer, and how many there are ([N])."""
    which = period % (stamps.first.shape[1] - 1)
    low, high = stamps.first[:, which], stamps.first[:, which + 1]
    index = low[:, None] + jnp.arange(room)[None, :]
    times = jnp.take_along_axis(stamps.offset, jnp.minimum(index, stamps.offset.shape[1] - 1), axis=1)
    return jnp.where(index < high[:, None], times, jnp.inf), high - low


def draw(law: Law, clocks: Clocks, until: chex.Array, room: int) -> tuple[Clocks, chex.Array, chex.Array]:
    """The requests of one control period.

    Args:
      law: how they come.
      clocks: where the devices are.
      until: [] ms, the period's end.
      room: R, most requests of a device in one period.

    Returns:
      clocks at the next period's start; when requests are made ([N, R] ms, ascending, infinite where there are fewer);
      and how many there were no room for ([N] int32).
    """
    key, gap_key, late_key = jax.random.split(clocks.key, 3)
    gaps = gaps_ms(gap_key, law, room)
    nominal = clocks.next_ms[:, None] + jnp.pad(jnp.cumsum(gaps, axis=1), ((0, 0), (1, 0)))  # [N, R + 1]
    late = jnp.concatenate([clocks.late_ms[:, None], _jitters_ms(late_key, law, room)], axis=1)
    times = nominal + late
    count = jnp.sum(times[:, :room] < until, axis=1, dtype=jnp.int32)
    next_ms, late_ms = (jnp.take_along_axis(x, count[:, None], axis=1)[:, 0] for x in (nominal, late))
    beyond = (next_ms + late_ms < until).astype(jnp.int32)  # at least one more
    times = jnp.where(times < until, times, jnp.inf)[:, :room]
    if law.stamps is not None:
        recorded, there = _replayed(law.stamps, clocks.period, room)
        has_any = law.stamps.first[:, -1] > 0
        times = jnp.where(has_any[:, None], recorded, times)
        beyond = jnp.where(has_any, jnp.maximum(there - room, 0), beyond)
    last = jnp.maximum(clocks.last_ms, jnp.max(jnp.where(jnp.isfinite(times), times, -jnp.inf), axis=1))
    moved = Clocks(key=key, next_ms=next_ms - until, late_ms=late_ms, last_ms=last - until, period=clocks.period + 1)
    return moved, times, beyond


def gaps_between(before: Clocks, after: Clocks, times: chex.Array) -> dict[str, chex.Array]:
    """What each device tells of the requests ([N, R] ms) that it made between two moments. All [N].

    How many it `made`; the `gaps` before them, their mean `gap_ms` and mean square `gap_square_ms2` (the first request
    of all has none); and the time `since_ms` the last one.
    """
    there = jnp.isfinite(times)
    made = jnp.where(there, times, 0.0)
    previous = jnp.concatenate([before.last_ms[:, None], made[:, :-1]], axis=1)
    counted = there & jnp.isfinite(previous)
    gaps = jnp.where(counted, made - jnp.where(jnp.isfinite(previous), previous, 0.0), 0.0)
    count = jnp.sum(counted, axis=1)
    some = jnp.maximum(count, 1)
    return {
        "made": jnp.sum(there, axis=1),
        "gaps": count,
        "gap_ms": jnp.sum(gaps, axis=1) / some,
        "gap_square_ms2": jnp.sum(gaps**2, axis=1) / some,
        "since_ms": jnp.where(jnp.isfinite(after.last_ms), -after.last_ms, 0.0),
    }
