"""From one joint action to better ones: one device changes its choice, or two do.

What a task costs is `base + share * occupancy`, so that what a move changes for all others at a node follows from the
node's sum of shares: all N * C moves are priced at once, exactly. Two devices' moves are priced as a move after each of
the most promising first ones; a swap of places is one of these. How far an action is from allowed counts beside its
cost, so that a search may start anywhere.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from hl_jax.search.costs import BIG
from hl_jax.search.placing_tables import Tables, at_counts, taken, value

FORBIDDEN = 1e5  # what a task beside too many others costs while a search is under way, in the largest cost
LEAST = 1e-7  # of a gain that counts, in the largest cost and per device
PRICE_STEPS = 12
LOWEST_PRICE, HIGHEST_PRICE = 1e-4, 1e2  # in the largest cost, of the whole range of accuracy
ROUNDS = 4  # in which the price of missing accuracy rises
RISE = 8.0


@chex.dataclass(frozen=True)
class _Nodes:
    """What a task more or less changes at each node, [V] each."""

    counts: chex.Array  # tasks
    fewer: chex.Array  # occupancy with one task less
    now: chex.Array  # occupancy
    more: chex.Array  # occupancy with one task more
    left: chex.Array  # what all tasks there together cost more when the occupancy is `fewer`
    joined: chex.Array  # when it is `more`
    broken_left: chex.Array  # how many tasks more are beside too many others with one task less
    broken_joined: chex.Array  # with one task more


def _nodes(tables: Tables, action: chex.Array) -> tuple[_Nodes, chex.Array]:
    """The nodes under a joint action, and each device's node ([N])."""
    node, counts = at_counts(tables, action)
    share, most = taken(tables.share, action), taken(tables.most, action)
    each = jnp.arange(tables.occupancy.shape[0])
    there = node[:, None] == each[None, :]  # [N, V]
    shares = jnp.sum(jnp.where(there, share[:, None], 0.0), axis=0)
    fewer, now, more = (tables.occupancy[each, count] for count in (jnp.maximum(counts - 1, 0), counts, counts + 1))
    broken = [
        jnp.sum(there & (most[:, None] < count[None, :]), axis=0, dtype=jnp.float32)
        for count in (counts - 1, counts, counts + 1)
    ]
    return _Nodes(
        counts=counts,
        fewer=fewer,
        now=now,
        more=more,
        left=shares * (fewer - now),
        joined=shares * (more - now),
        broken_left=broken[0] - broken[1],
        broken_joined=broken[2] - broken[1],
    ), node


def deltas(tables: Tables, action: chex.Array) -> tuple[chex.Array, chex.Array]:
    """What each device's each choice would change of the total cost ([N, C]), and of the accuracy ([N, C] int32).

    Each task beside more others than it is allowed with counts `FORBIDDEN`.
    """
    at, node = _nodes(tables, action)
    base, share, most = (taken(table, action) for table in (tables.base, tables.share, tables.most))
    # The device's own task is no part of what those who stay gain when it leaves.
    leave = at.left[node] - share * at.fewer[node]
    broken_leave = at.broken_left[node] - (most < at.counts[node] - 1)

    def by_choice(per_node: chex.Array) -> chex.Array:
        return jnp.stack([per_node[tables.nodes[:, place]] for place in range(3)], axis=1)[:, tables.where]

    same = jnp.stack([node == tables.nodes[:, place] for place in range(3)], axis=1)[:, tables.where]
    count = by_choice(at.counts)
    other = leave[:, None] + by_choice(at.joined) + tables.share * by_choice(at.more)
    here = tables.share * by_choice(at.now) - (share * at.now[node])[:, None]
    broken_other = broken_leave[:, None] + by_choice(at.broken_joined) + (tables.most < count + 1)
    broken_here = (tables.most < count) - (most < at.counts[node]).astype(jnp.float32)[:, None]
    cost = tables.base - base[:, None] + jnp.where(same, here, other)
    cost += FORBIDDEN * jnp.where(same, broken_here, broken_other)
    return jnp.where(tables.base < BIG, cost, BIG), tables.units - taken(tables.units, action)[:, None]


def at_price(tables: Tables, action: chex.Array, price: chex.Array) -> chex.Array:
    """Single moves from an action until none lowers the cost less what its accuracy is worth. [N]."""
    users, choices = tables.base.shape

    def step(carry: tuple[chex.Array, chex.Array, chex.Array]) -> tuple[chex.Array, chex.Array, chex.Array]:
        action, count, _ = carry
        cost, units = deltas(tables, action)
        worth = (cost - price * units / tables.range).reshape(-1)
        best = jnp.argmin(worth)
        better = worth[best] < -LEAST * users
        moved = action.at[best // choices].set((best % choices).astype(jnp.int32))
        return jnp.where(better, moved, action), count + 1, better

    def more(carry: tuple[chex.Array, chex.Array, chex.Array]) -> chex.Array:
        return carry[2] & (carry[1] < 8 * users + 16)

    return jax.lax.while_loop(more, step, (action, jnp.int32(0), jnp.bool_(True)))[0]


def priced(tables: Tables) -> tuple[chex.Array, chex.Array]:
    """A price of accuracy with which the constraint is just kept, and a joint action for it. [] and [N]."""
    first = jnp.argmin(tables.base + tables.share - tables.gain * 1e-3, axis=1).astype(jnp.int32)
    free = at_price(tables, first, jnp.float32(0.0))
    kept = jnp.isfinite(value(tables, free))

    def step(_: int, carry: tuple[chex.Array, ...]) -> tuple[chex.Array, ...]:
        low, high, action, best, least = carry
        middle = 0.5 * (low + high)
        action = at_price(tables, action, jnp.exp(middle))
        enough = jnp.sum(taken(tables.units, action)) >= tables.need
        total = value(tables, action)
        better = enough & ((total < least) | ~jnp.isfinite(least))
        low, high = jnp.where(enough, low, middle), jnp.where(enough, middle, high)
        return low, high, action, jnp.where(better, action, best), jnp.where(better, total, least)

    low, high = jnp.log(jnp.float32(LOWEST_PRICE)), jnp.log(jnp.float32(HIGHEST_PRICE))
    dear = at_price(tables, free, jnp.float32(HIGHEST_PRICE))
    start = (low, high, free, jnp.where(kept, free, dear), value(tables, jnp.where(kept, free, dear)))
    _, high, _, best, _ = jax.lax.fori_loop(0, PRICE_STEPS, step, start)
    return jnp.where(kept, 0.0, jnp.exp(high)), best


@chex.dataclass(frozen=True)
class _Walk:
    """A search by moves under way."""

    action: chex.Array  # [N]
    missing: chex.Array  # [] int32 units
    penalty: chex.Array  # [] of the whole range of accuracy that is missing
    rounds: chex.Array  # [] int32
    steps: chex.Array  # [] int32


def improve(tables: Tables, action: chex.Array, price: chex.Array, first_moves: int) -> chex.Array:
    """Moves of one or two devices from a joint action until none helps; keeps the accuracy once it has it. [N]."""
    users, choices = tables.base.shape
    moves = min(first_moves, users * choices)

    def step(walk: _Walk) -> _Walk:
        cost, units = deltas(tables, walk.action)
        # The promising first moves, at the price that accuracy has.
        worth = (cost - price * units / tables.range).reshape(-1)
        _, first = jax.lax.top_k(-worth, moves)
        device, choice = first // choices, (first % choices).astype(jnp.int32)
        actions = jax.vmap(lambda i, c: walk.action.at[i].set(c))(device, choice)
        second, more_units = jax.vmap(deltas, in_axes=(None, 0))(tables, actions)  # [M, N, C]
        missing = walk.missing - (units.reshape(-1)[first][:, None, None] + more_units)
        short = (jnp.maximum(missing, 0) - jnp.maximum(walk.missing, 0)) / tables.range
        change = cost.reshape(-1)[first][:, None, None] + second + walk.penalty * short
        best = jnp.argmin(change)
        which, then = best // (users * choices), best % (users * choices)
        better = change.reshape(-1)[best] < -LEAST * users
        moved = actions[which].at[then // choices].set((then % choices).astype(jnp.int32))
        return _Walk(
            action=jnp.where(better, moved, walk.action),
            missing=jnp.where(better, missing.reshape(-1)[best], walk.missing),
            penalty=jnp.where(better, walk.penalty, walk.penalty * RISE),
            # Without anything missing a higher penalty changes nothing.
            rounds=jnp.where(better, walk.rounds, jnp.where(walk.missing > 0, walk.rounds + 1, ROUNDS)),
            steps=walk.steps + 1,
        )

    def more(walk: _Walk) -> chex.Array:
        return (walk.rounds < ROUNDS) & (walk.steps < 4 * users + 16)

    start = _Walk(
        action=action,
        missing=tables.need - jnp.sum(taken(tables.units, action)),
        penalty=4.0 * price + 1e-2,
        rounds=jnp.int32(0),
        steps=jnp.int32(0),
    )
    return jax.lax.while_loop(more, step, start).action
