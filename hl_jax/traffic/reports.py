"""What a control period's requests tell: counts, means, quantiles, misses; waiting and computing apart.

A request is reported in the period in which it is over. Quantiles are the smallest time that at least such a part of
the requests stays within (no interpolation), as service levels are stated.
"""

from __future__ import annotations

import chex
import jax.numpy as jnp

from hl_jax.traffic.flow import OVER, Requests

QUANTILES = (0.5, 0.95, 0.99)


@chex.dataclass(frozen=True)
class Finished:
    """The requests that were over in a period. All [N, M]; times in ms, 0 where `over` is False."""

    over: chex.Array  # bool
    response: chex.Array  # what a request counts: its response time; `lost_ms` where it got no result
    waiting: chex.Array  # for a slot, at its node
    computing: chex.Array  # 0 where it got no result
    missed: chex.Array  # bool, late or without a result
    lost: chex.Array  # bool, without a result
    choice: chex.Array  # int32, how it was decided
    fresh: chex.Array  # bool, made and over in this very period


def finished(requests: Requests, until: chex.Array, deadline_ms: chex.Array, lost_ms: chex.Array) -> Finished:
    """Those that are over by `until`."""
    over = (requests.stage == OVER) & (requests.at <= until)
    lost = over & requests.lost
    time = jnp.where(over, requests.at - requests.made, 0.0)
    return Finished(
        over=over,
        response=jnp.where(lost, lost_ms, time),
        waiting=jnp.where(over, requests.waited, 0.0),
        computing=jnp.where(over & ~lost, requests.service, 0.0),
        missed=lost | (over & (time > deadline_ms)),
        lost=lost,
        choice=requests.choice,
        fresh=over & (requests.made >= 0.0),
    )


def mean(values: chex.Array, counted: chex.Array, axis: int | None = None) -> chex.Array:
    """Mean of the counted ones; 0 where there are none."""
    return jnp.sum(jnp.where(counted, values, 0.0), axis=axis) / jnp.maximum(jnp.sum(counted, axis=axis), 1)


def quantiles(times: chex.Array, over: chex.Array, wanted: tuple[float, ...] = QUANTILES) -> chex.Array:
    """Of the counted times ([M]); 0 where there are none. [Q]."""
    ordered = jnp.sort(jnp.where(over, times, jnp.inf))
    count = jnp.sum(over)
    index = jnp.ceil(jnp.array(wanted) * count - 1e-4).astype(jnp.int32) - 1
    return jnp.where(count > 0, ordered[jnp.clip(index, 0, times.shape[0] - 1)], 0.0)
