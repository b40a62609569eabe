"""How tasks that share a node slow one another: what multiplies computing when n tasks are there, learned node by node.

A node is one of a few forms with so many slots (`simulator.occupancy`), nobody says which. What was seen at some number
of tasks decides between them; and where it was seen often, it counts itself.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np

from hl_jax.agents.factored.tree import Tree
from hl_jax.placement import CLOUD, EDGE
from hl_jax.scenario import CONTENTION_FORMS
from hl_jax.simulator import occupancy

SLOTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
EXACT = 0.05  # standard deviation of a report's logarithm around its node's form
DOUBT = 4.0  # most by which one step's reports may speak against a form, so that a form may come back
REPORTS = 2.0  # steps in which a number of tasks was seen, from which on it counts itself more than the form


@chex.dataclass(frozen=True)
class Sharing:
    """What is known of M nodes."""

    forms: chex.Array  # [H, N+1] log of what multiplies computing, by hypothesis
    evidence: chex.Array  # [M, H] log, relative
    counted: chex.Array  # [M, N+1] steps, fading
    seen: chex.Array  # [M, N+1] mean log


def init(tree: Tree) -> Sharing:
    """Before any report."""
    nodes, users = tree.edges + tree.clouds, tree.users
    forms = np.log([occupancy(form, slots, 1, users) for form in CONTENTION_FORMS for slots in SLOTS])
    zero = jnp.zeros((nodes, users + 1))
    return Sharing(
        forms=jnp.asarray(forms, jnp.float32), evidence=jnp.zeros((nodes, forms.shape[0])), counted=zero, seen=zero
    )


def _filled(known: Sharing, form: chex.Array) -> chex.Array:
    """A form ([M, N+1]) where nothing was seen, what was seen elsewhere; never falling. [M, N+1]."""
    sure = known.counted / (known.counted + REPORTS)
    mixed = sure * known.seen + (1.0 - sure) * form
    return jnp.maximum(jax.lax.cummax(mixed, axis=1), 0.0)


def expected(known: Sharing) -> chex.Array:
    """Log of what multiplies computing, by number of tasks. [M, N+1]."""
    weights = jax.nn.softmax(known.evidence, axis=1)
    return _filled(known, weights @ known.forms)


def sampled(key: chex.PRNGKey, known: Sharing) -> chex.Array:
    """The same under a form drawn for each node. [M, N+1]; the key is consumed."""
    which = jax.random.categorical(key, known.evidence, axis=1)
    return _filled(known, known.forms[which])


def told(
    tree: Tree,
    known: Sharing,
    action: chex.Array,
    computing_ms: chex.Array,
    waiting_ms: chex.Array,
    there: chex.Array,
    fade: float,
) -> Sharing:
    """With one step's reports ([N] each, ms) of a joint action ([N]); `there`: whether there is one ([N] bool)."""
    users, nodes = tree.users, tree.edges + tree.clouds
    where = jnp.array(tree.where)[action]
    node = jnp.where(
        where == EDGE, jnp.array(tree.edge), jnp.where(where == CLOUD, tree.edges + jnp.array(tree.cloud), nodes)
    )
    here = node[:, None] == jnp.arange(nodes)[None, :]  # [N, M]
    tasks = jnp.sum(here, axis=0)  # [M]
    told = here & there[:, None]
    reports = jnp.sum(told, axis=0)
    # The mean over those who share: in a queue one waits longer than another.
    log = jnp.log1p(jnp.maximum(waiting_ms, 0.0) / jnp.where(there, jnp.maximum(computing_ms, 1e-6), 1.0))
    mean = jnp.log(jnp.sum(jnp.where(told, jnp.exp(log)[:, None], 0.0), axis=0) / jnp.maximum(reports, 1))
    mean = jnp.where(reports > 0, mean, 0.0)
    error = mean[:, None] - known.forms[:, tasks].T  # [M, H]
    said = jnp.minimum(0.5 * (error / EXACT) ** 2, DOUBT) * (reports > 0)[:, None]
    evidence = fade * known.evidence - said
    evidence = evidence - jnp.max(evidence, axis=1, keepdims=True)
    at = (jnp.arange(users + 1)[None, :] == tasks[:, None]) & (reports > 0)[:, None]
    counted = fade * known.counted + at
    seen = jnp.where(at, known.seen + (mean[:, None] - known.seen) / jnp.maximum(counted, 1.0), known.seen)
    return known.replace(evidence=evidence, counted=counted, seen=seen)
