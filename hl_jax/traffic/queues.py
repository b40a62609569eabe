"""First come, first served, with as many servers as a node has slots: when each task starts.

The recursion of Kiefer and Wolfowitz (1955): a task starts when it has come and the first slot is free; with one slot
Lindley's (1952). All times are ms from a common moment, the control period's start, so that float32 tells microseconds.
Shapes: `M` tasks in the order in which they come, `P` slots, `W` places to wait.
"""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp

ABSENT = -jnp.inf  # arrival of a task that isn't there: it leaves a queue as it was


@chex.dataclass(frozen=True)
class Server:
    """When a node's slots are free, and when the last W tasks that were let in began."""

    free: chex.Array  # [P] ascending
    begun: chex.Array  # [W] ascending; no places: whoever comes may wait


@chex.dataclass(frozen=True)
class Served:
    """What became of M tasks at a node."""

    start: chex.Array  # [M] when its turn came; of a refused one, when it came
    end: chex.Array  # [M] when its result is there; of one that isn't done, as `start`
    done: chex.Array  # [M] bool; False: refused, given up, or absent


def idle(slots: int, room: int) -> Server:
    """A node where nothing runs, with `room` places to wait (0: as many as wish)."""
    return Server(free=jnp.full(slots, ABSENT, jnp.float32), begun=jnp.full(room, ABSENT, jnp.float32))


def rebased(server: Server, by: chex.Array) -> Server:
    """The same, its times counted from a moment that is `by` later."""
    return jax.tree.map(lambda times: times - by, server)


def _taken(free: tuple[chex.Array, ...], end: chex.Array) -> tuple[chex.Array, ...]:
    """Slots in the order in which they are free ([P]), once the first of them works until `end`."""
    slots = []
    for later in free[1:]:  # passed on through minima and maxima: no index, and so one kernel over a whole batch
        slots.append(jnp.minimum(end, later))
        end = jnp.maximum(end, later)
    return (*slots, end)


def serve(
    server: Server, arrival: chex.Array, service: chex.Array, latest: chex.Array | None = None
) -> tuple[Server, Served]:
    """Lets M tasks through a node.

    Args:
      server: as the tasks before have left it.
      arrival: [M] ascending, but for `ABSENT` ones anywhere.
      service: [M] ms.
      latest: [M] after when a task isn't begun: it is given up when its turn comes. None: each is done.

    Returns:
      the server after them, and what became of each. A task that finds W others waiting is refused.
    """
    chex.assert_rank([server.free, arrival, service], 1)
    room = server.begun.shape[0]

    def one(carry: Any, task: tuple[chex.Array, ...]) -> tuple[Any, tuple[chex.Array, ...]]:
        free, begun = carry
        came, takes, *limit = task
        start = jnp.maximum(came, free[0])
        end = start + takes
        there = came > ABSENT
        done, let_in = there, there
        if room:
            let_in = there & (begun[0] <= came)
            done = let_in
        if limit:
            done = done & (start <= limit[0])
        # Where nothing is done the first slot is free when it was, which leaves the others as they were.
        free = _taken(free, jnp.where(done, end, free[0]))
        if room:
            begun = jnp.where(let_in, jnp.concatenate([begun[1:], start[None]]), begun)
            start = jnp.where(let_in, start, came)
        return (free, begun), (start, jnp.where(done, end, start), done)

    tasks = (arrival, service) if latest is None else (arrival, service, latest)
    (slots, begun), (start, end, done) = jax.lax.scan(one, (tuple(server.free), server.begun), tasks)
    return Server(free=jnp.stack(slots), begun=begun), Served(start=start, end=end, done=done)
