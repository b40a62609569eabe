"""What ways take in a tree: a device's own link, its edge's link to the cloud, and what weak links add. ms.

Linear, with Gaussian weights: one for each device's link, one for each edge's, the mean of either kind, and what a weak
link adds to either. Reports on ways to the cloud tell the sum of both links.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np

from hl_jax.agents.factored import linear
from hl_jax.agents.factored.tree import Tree
from hl_jax.placement import CLOUD, DEVICE

TYPICAL_MS, APART_MS, WEAK_MS = 50.0, 25.0, 50.0  # deviations a priori: of a kind's mean, of one link, of weakness
EXACT, LEAST_MS = 0.02, 0.2  # how exact a report is: part of what it says, and at least
DEGREES = 3.0  # of freedom of reports' law


@chex.dataclass(frozen=True)
class Ways:
    """What reports say so far of W = N + E + 4 weights."""

    triangle: chex.Array  # [W + 1, W + 1]


def _prior(tree: Tree) -> np.ndarray:
    deviations = [APART_MS] * (tree.users + tree.edges) + [TYPICAL_MS] * 2 + [WEAK_MS] * 2
    return np.diag([*(1.0 / one for one in deviations), 0.0]).astype(np.float32)


def init(tree: Tree) -> Ways:
    """Before any report."""
    return Ways(triangle=jnp.asarray(_prior(tree)))


def mean(ways: Ways) -> chex.Array:
    """The most probable weights. [1, W]."""
    return linear.solve(ways.triangle[:-1, :-1], ways.triangle[:-1, -1:]).T


def sampled(key: chex.PRNGKey, ways: Ways) -> chex.Array:
    """Weights drawn from the posterior. [1, W]; the key is consumed."""
    upper = ways.triangle[:-1, :-1]
    noise = jax.random.normal(key, (upper.shape[0], 1))
    return mean(ways) + linear.solve(upper, noise).T


def _rows(tree: Tree, weak: chex.Array, weak_edge: chex.Array) -> chex.Array:
    """What each device's way to each place is of the weights. [N, 3, W]."""
    users, edges = tree.users, tree.edges
    link = np.zeros((users, users + edges + 4), np.float32)
    link[np.arange(users), np.arange(users)] = 1.0
    link[:, users + edges] = 1.0
    further = np.zeros_like(link)
    there = np.flatnonzero(np.array(tree.edge) < edges)
    further[there, users + np.array(tree.edge)[there]] = 1.0
    further[there, users + edges + 1] = 1.0
    own = jnp.asarray(link).at[:, users + edges + 2].set(weak.astype(jnp.float32))
    hung = jnp.asarray(np.isin(np.arange(users), there))
    beyond = jnp.asarray(further).at[:, users + edges + 3].set(jnp.where(hung, weak_edge, 0).astype(jnp.float32))
    return jnp.stack([jnp.zeros_like(own), own, own + beyond], axis=1)


def predicted(tree: Tree, weights: chex.Array, weak: chex.Array, weak_edge: chex.Array) -> chex.Array:
    """Ways by place under weights ([1, W]). [N, 3] ms."""
    return jnp.maximum(_rows(tree, weak, weak_edge) @ weights[0], 0.0)


def told(
    tree: Tree,
    ways: Ways,
    action: chex.Array,
    way_ms: chex.Array,
    there: chex.Array,
    weak: chex.Array,
    weak_edge: chex.Array,
    fade: float,
) -> Ways:
    """With one step's reports ([N] ms) of a joint action ([N]); `there`: whether there is one ([N] bool)."""
    where = jnp.array(tree.where)[action]
    rows = _rows(tree, weak, weak_edge)[jnp.arange(tree.users), where]
    exact = EXACT * jnp.abs(way_ms) + LEAST_MS
    error = way_ms - rows @ mean(ways)[0]
    inverse = linear.solve_transposed(ways.triangle[:-1, :-1], rows.T)
    unsure = jnp.sum(inverse**2, axis=0)
    trust = (DEGREES + 1.0) / (DEGREES + error**2 / (exact**2 + unsure))
    counts = there & (where > DEVICE) & (where <= CLOUD)
    scale = jnp.where(counts, jnp.sqrt(trust) / exact, 0.0)
    new = jnp.concatenate([rows * scale[:, None], jnp.where(counts, way_ms * scale, 0.0)[:, None]], axis=1)
    prior = jnp.asarray(_prior(tree))[:-1]
    triangle = linear.triangle(jnp.concatenate([jnp.sqrt(fade) * ways.triangle, jnp.sqrt(1.0 - fade) * prior, new]))
    return Ways(triangle=triangle.at[-1, -1].set(0.0))
