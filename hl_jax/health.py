"""Whether a run can go on: everything it carries is finite, what the environment reported are times, counters count.

An agent whose numbers aren't finite goes on deciding, wrongly and for ever; so each epoch is looked at before it
counts. Infinities that a state held before (an empty table's padding) are meant.
"""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp

from hl_jax.agents.world import Run
from hl_jax.search.costs import NOTHING

# What is looked at besides the numbers, in this order.
_REPORTED = "response times (expected positive and finite ones from the environment)"
_ROOM = "requests (expected room to simulate all of a control period's: places to wait at a node limit them)"
_COUNTED = "the count of real steps (expected fewer than 2^31)"
_DECIDED = "the decision (expected a joint action that is possible)"


def _numbers(tree: Any) -> list[tuple[str, chex.Array]]:
    """Leaves that may hold something not finite, by their path."""
    named = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [
        (jax.tree_util.keystr(path, simple=True, separator="."), leaf)
        for path, leaf in named
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]


def names(agent: Any, learning: Any) -> list[str]:
    """What each entry of `check` is about."""
    return [name for name, _ in _numbers(agent)] + sorted(learning) + [_REPORTED, _ROOM, _COUNTED, _DECIDED]


def check(before: Run, after: Run, learning: dict[str, chex.Array], decision: chex.Array) -> chex.Array:
    """What is wrong after an epoch: an entry for each of `names`. [L] bool.

    Args:
      before: the run before the epoch.
      after: the run after it.
      learning: the agent's own figures.
      decision: greedy joint actions after the epoch, of any shape.
    """
    old, new = _numbers(before.agent), _numbers(after.agent)
    wrong = [
        jnp.any(jnp.isnan(is_) | (jnp.isinf(is_) & ~jnp.isinf(was)))
        for (_, was), (_, is_) in zip(old, new, strict=True)
    ]
    wrong += [~jnp.isfinite(learning[name]) for name in sorted(learning)]
    wrong.append(after.totals.invalid > 0)
    wrong.append(after.totals.untold > 0)
    wrong.append(after.agent.real_steps < before.agent.real_steps)
    wrong.append(jnp.any(decision <= NOTHING))
    return jnp.stack(wrong)


def described(wrong: list[str]) -> str:
    """One phrase for the names of what is wrong."""
    shown = ", ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
    kind = "isn't" if len(wrong) == 1 else "aren't"
    return f"{shown} {kind} finite or not valid"


def kept(fine: chex.Array, after: Run, before: Run) -> Run:
    """The run after an epoch if that was `fine` ([] bool), else as it was before, keys included."""

    def either(new: chex.Array, old: chex.Array) -> chex.Array:
        if not jnp.issubdtype(old.dtype, jax.dtypes.prng_key):
            return jnp.where(fine, new, old)
        # The epoch that is undone has consumed the old key: as words it may be used again.
        words = jnp.where(fine, jax.random.key_data(new), jax.random.key_data(old))
        return jax.random.wrap_key_data(words)

    return jax.tree.map(either, after, before)
