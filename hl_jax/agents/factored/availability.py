"""Who is there, and what works: what `factored` learns from requests that were lost.

A lost request says nothing about how long its choice takes, so no time is learned from it. A device that didn't answer
at all is *gone* until it does again: whatever it is told takes no time from the others and mustn't cost them accuracy
either, so it is given the local model that comes closest to the constraint from below. Where a device answered but its
request was lost, that choice is *shut* for it: for a step, and twice as long each time it is lost again.
"""

from __future__ import annotations

import chex
import jax.numpy as jnp

from hl_jax.objective import ROUNDING
from hl_jax.search.costs import Costs

LONGEST = 5  # doublings: a choice that always fails is tried again every 32 steps
DEARER = 1e3  # what can't be used costs so many times the scale more; not infinite, or nothing might be left


@chex.dataclass(frozen=True)
class Availability:
    """What is known of N devices and their C choices."""

    gone: chex.Array  # [N] bool, the device didn't answer last time
    shut: chex.Array  # [N, C] int32, steps for which a choice isn't to be taken
    losses: chex.Array  # [N, C] int32, requests lost there in a row
    answered: chex.Array  # [] int32, steps in which anybody answered


def init(users: int, choices: int) -> Availability:
    """Everybody is there, and everything works."""
    return Availability(
        gone=jnp.zeros(users, bool),
        shut=jnp.zeros((users, choices), jnp.int32),
        losses=jnp.zeros((users, choices), jnp.int32),
        answered=jnp.int32(0),
    )


def update(known: Availability, action: chex.Array, lost: chex.Array, gone: chex.Array) -> Availability:
    """After a step with a joint action ([N]): whose request was lost, and who didn't answer at all ([N] bool)."""
    choices = known.shut.shape[1]
    here = jnp.arange(choices)[None, :] == action[:, None]  # [N, C]
    failed = here & (lost & ~gone)[:, None]
    losses = jnp.where(here & ~gone[:, None], jnp.where(failed, known.losses + 1, 0), known.losses)
    shut = jnp.where(failed, 2 ** jnp.minimum(losses - 1, LONGEST), jnp.maximum(known.shut - 1, 0))
    return Availability(gone=gone, shut=shut, losses=losses, answered=known.answered + jnp.any(~lost))


def priced(known: Availability, costs: Costs, scale_ms: chex.Array) -> Costs:
    """The same costs, what can't be used far above all others; a device that is gone costs nothing where it is put."""
    models = costs.local.shape[1]
    accuracy = costs.accuracy[:models]
    below = accuracy <= costs.constraint + ROUNDING
    neutral = jnp.where(jnp.any(below), jnp.argmax(jnp.where(below, accuracy, -jnp.inf)), jnp.argmin(accuracy))
    elsewhere = jnp.arange(known.shut.shape[1]) != neutral
    # A device for which everything is shut has to try something.
    shut = (known.shut > 0) & ~jnp.all(known.shut > 0, axis=1, keepdims=True)
    dearer = DEARER * scale_ms * jnp.where(known.gone[:, None], elsewhere[None, :], shut)  # [N, C]
    free = known.gone[:, None]
    return costs.replace(
        local=jnp.where(free, 0.0, costs.local) + dearer[:, :models],
        edge=jnp.where(free, 0.0, costs.edge) + dearer[:, models : models + 1],
        cloud=jnp.where(free, 0.0, costs.cloud) + dearer[:, models + 1 :],
    )
