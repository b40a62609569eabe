"""Links that carry so many bits a second: when an input is through, first come, first served, at a changing rate.

Within a control period times are exact to float32; what isn't through at its end is known by the work that is left
(kbit), because what the link will carry in the next period belongs to that.
"""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp

from hl_jax.traffic.queues import ABSENT


@chex.dataclass(frozen=True)
class Rate:
    """What a link carries in a control period: constant from each of K moments on, the last one for ever."""

    since: chex.Array  # [K] ms from the period's start, ascending from 0
    kbit_per_ms: chex.Array  # [K] (Mbit/s); 0: nothing gets through


@chex.dataclass(frozen=True)
class Backlog:
    """What a link has still to carry at a period's start, kbit."""

    all: chex.Array  # []
    before: chex.Array  # [W] of the last W inputs, ascending: what goes before it; negative: it has begun


@chex.dataclass(frozen=True)
class Carried:
    """What became of M inputs at a link."""

    let_in: chex.Array  # [M] bool; False: refused or absent
    out: chex.Array  # [M] ms, when it is through; infinite: not in this period
    left: chex.Array  # [M] kbit that the link has to carry from the period's end on until it is; 0 where it is through


def empty(room: int) -> Backlog:
    """A link with nothing to carry, and `room` places to wait (0: as many as wish)."""
    return Backlog(all=jnp.float32(0.0), before=jnp.full(room, -1.0))


def through(rate: Rate, start: chex.Array, kbit: chex.Array, until: chex.Array) -> tuple[chex.Array, chex.Array]:
    """When an input is through that begins at `start` ([] ms): [] ms, infinite after `until`; and what is left then."""
    ends = jnp.minimum(jnp.append(rate.since[1:], jnp.inf), until)
    begins = jnp.maximum(rate.since, start)
    flows = rate.kbit_per_ms > 0.0
    can = jnp.where(flows, jnp.maximum(ends - begins, 0.0) * rate.kbit_per_ms, 0.0)
    done = jnp.cumsum(jnp.where(jnp.isfinite(can), can, kbit))  # by the end of each piece
    before = jnp.append(jnp.float32(0.0), done[:-1])
    times = begins + (kbit - before) / jnp.where(flows, rate.kbit_per_ms, 1.0)
    out = jnp.min(jnp.where((before < kbit) & (done >= kbit), times, jnp.inf))
    out = jnp.where(kbit > 0.0, out, start)
    return out, jnp.where(jnp.isfinite(out), 0.0, jnp.maximum(kbit - done[-1], 0.0))


def carry(
    rate: Rate, backlog: Backlog, arrival: chex.Array, kbit: chex.Array, until: chex.Array
) -> tuple[Backlog, Carried]:
    """Lets M inputs into a link.

    Args:
      rate: in this period.
      backlog: at its start.
      arrival: [M] ms, ascending up to `until`, but for `ABSENT` ones anywhere.
      kbit: [] what each of them is.
      until: [] ms, the period's end.

    Returns:
      the backlog at the period's end, and what became of each. An input that finds W others waiting is refused.
    """
    chex.assert_rank([rate.since, arrival, kbit, until], [1, 1, 0, 0])
    room = backlog.before.shape[0]
    zero = jnp.float32(0.0)
    free, left = through(rate, zero, backlog.all, until)
    begins, before = jax.vmap(lambda work: through(rate, zero, jnp.maximum(work, 0.0), until))(backlog.before)
    begins = jnp.where(backlog.before < 0.0, ABSENT, begins)
    before = jnp.where(jnp.isfinite(begins), -1.0, before)

    def one(carry: Any, came: chex.Array) -> tuple[Any, tuple[chex.Array, ...]]:
        free, left, begins, before = carry
        let_in = came > ABSENT
        if room:
            let_in = let_in & (begins[0] <= came)
        start = jnp.maximum(came, free)  # infinite: after the period's end
        out, rest = through(rate, jnp.where(let_in & jnp.isfinite(start), start, until), kbit, until)
        after = jnp.where(jnp.isfinite(start), rest, left + kbit)
        out = jnp.where(jnp.isfinite(start), out, jnp.inf)
        if room:
            waits = jnp.where(jnp.isfinite(start), -1.0, left)
            begins = jnp.where(let_in, jnp.append(begins[1:], start), begins)
            before = jnp.where(let_in, jnp.append(before[1:], waits), before)
        free, left = jnp.where(let_in, out, free), jnp.where(let_in, after, left)
        return (free, left, begins, before), (let_in, jnp.where(let_in, out, jnp.inf), jnp.where(let_in, after, 0.0))

    (_, left, _, before), (let_in, out, lefts) = jax.lax.scan(one, (free, left, begins, before), arrival)
    return Backlog(all=left, before=before), Carried(let_in=let_in, out=out, left=lefts)
