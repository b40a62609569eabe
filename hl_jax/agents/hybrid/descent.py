"""How both networks take a step: Adam with decoupled weight decay, and a rate that falls within an epoch."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from hl_jax.agents.hybrid.config import HybridConfig
from hl_jax.agents.hybrid.networks import OWN

# All parameters as one vector: XLA then computes a step at once, and not leaf by leaf.
ADAM = optax.flatten(optax.scale_by_adam())


def left(config: HybridConfig, step: chex.Array, steps: chex.Array) -> chex.Array:
    """The part of a learning rate that is left at a `step` (0, …) of one epoch's `steps`."""
    end = config.epoch_rate_end
    if end == 1.0:
        return jnp.float32(1.0)
    return end + (1.0 - end) * 0.5 * (1.0 + jnp.cos(jnp.pi * step / jnp.maximum(steps - 1, 1)))


def decayed(config: HybridConfig, direction: Any, params: Any) -> Any:
    """An optimizer's direction with the pull of the weights towards 0 (AdamW)."""
    if config.weight_decay == config.own_decay == 0.0:
        return direction

    def one(path: Any, part: chex.Array, weights: chex.Array) -> chex.Array:
        return part + (config.own_decay if path[-1].key == OWN else config.weight_decay) * weights

    return jax.tree_util.tree_map_with_path(one, direction, params)


def step(config: HybridConfig, params: Any, optimizer: Any, gradient: Any, rate: chex.Array) -> tuple[Any, Any]:
    """A network's parameters and its optimizer's state after one step along a `gradient`."""
    direction, optimizer = ADAM.update(gradient, optimizer)
    direction = decayed(config, direction, params)
    return jax.tree.map(lambda p, d: p - rate * d, params, direction), optimizer
