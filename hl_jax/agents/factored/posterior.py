"""What `factored` knows of its model's weights: the most probable ones under each hypothesis, and how sure they are."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from hl_jax.agents.factored import linear

TENABLE = 7.0  # log of the factor by which a hypothesis may be less probable than the best one


@chex.dataclass(frozen=True)
class Posterior:
    """Weights [X, D] under each of X hypotheses, most probable ones with the factor of their precision."""

    mean: chex.Array  # [X, D]
    root: chex.Array  # [X, D, D] upper triangle R whose R^T R is the precision
    evidence: chex.Array  # [X] log probability of all reports, up to a constant
    noise: chex.Array  # [X] standard deviation of a report's logarithm
    deviations: chex.Array  # [X, K, D] K draws less the mean, always from the same normal numbers


def likeliest(posterior: Posterior) -> Posterior:
    """The hypothesis of most evidence alone: every field without its first axis."""
    best = jnp.argmax(posterior.evidence)
    return jax.tree.map(lambda x: x[best], posterior)


def tenable(posterior: Posterior) -> chex.Array:
    """Which hypotheses aren't much less probable than the best one. [X] bool."""
    return posterior.evidence >= jnp.max(posterior.evidence) - TENABLE


def sample(key: chex.PRNGKey, posterior: Posterior, count: int) -> chex.Array:
    """Draws `count` weight vectors from one hypothesis' posterior. [count, D]; the key is consumed."""
    draws = jax.random.normal(key, (posterior.mean.shape[0], count))
    return (posterior.mean[:, None] + linear.solve(posterior.root, draws)).T
