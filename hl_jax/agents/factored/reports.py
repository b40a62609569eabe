"""What `factored` remembers of real steps, and how it notices that reality has changed.

A report that the model can't explain is held back at first: it may come from an odd situation. A second one in a row
of the same sign, from the same node or device, says that reality has changed: that source's older reports count no
more, and what it was known by is learned again.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from hl_jax.agents.factored import linear as factored_linear
from hl_jax.agents.factored import model as factored_model
from hl_jax.agents.factored import posterior as posteriors
from hl_jax.agents.factored.model import Reports
from hl_jax.agents.factored.posterior import Posterior

LOCAL, EDGE, CLOUD = 0, 1, 2  # kinds of task


def init(memory: int, factors: chex.Array, amounts: chex.Array) -> Reports:
    """Reports [M, N] of M = `memory` steps, none written yet; features of a step ([N, Df], [N, Da]) give the sizes."""
    rows = (memory, factors.shape[0])
    return Reports(
        factors=jnp.zeros((*rows, factors.shape[1])),
        amounts=jnp.zeros((*rows, amounts.shape[1])),
        logs=jnp.zeros(rows),
        kind=jnp.zeros(rows, jnp.int32),
        trust=jnp.zeros(rows),
        held=jnp.zeros(rows, bool),
    )


def _source(kind: chex.Array) -> chex.Array:
    """Who is responsible for a report's time: the device itself (0..N-1), the edge (N) or the cloud (N + 1)."""
    users = kind.shape[-1]
    return jnp.where(kind == LOCAL, jnp.arange(users).reshape((1,) * (kind.ndim - 1) + (users,)), users - 1 + kind)


def surprises(posterior: Posterior, row: Reports, deviations: float, least: float) -> chex.Array:
    """Which sources one step's reports ([N, .]) belie: +1 slower, -1 faster, 0 neither. [N + 2], as in `_source`.

    A node is judged by the mean of its tasks, a device by its own local task. What isn't known yet can't surprise, and
    neither can what one tenable hypothesis expects.

    Args:
      posterior: before these reports, all hypotheses.
      row: the reports.
      deviations: standard deviations of the prediction beyond which a report surprises.
      least: log of the change below which none does.
    """
    local = jnp.diag((row.kind == LOCAL).astype(jnp.float32))
    nodes = jnp.stack([row.kind == EDGE, row.kind == CLOUD]).astype(jnp.float32)
    sources = jnp.concatenate([local, nodes])  # [N + 2, N]
    count = jnp.maximum(jnp.sum(sources, axis=1), 1.0)

    def under(posterior: Posterior) -> chex.Array:
        slopes = factored_model.slopes(posterior.mean, row.factors, row.amounts)
        error = row.logs - factored_model.log_time(posterior.mean, row.factors, row.amounts)
        mean_error, mean_slope = sources @ error / count, sources @ slopes / count[:, None]
        spread = jnp.sum(factored_linear.solve_transposed(posterior.root, mean_slope.T) ** 2, axis=0)
        deviation = jnp.sqrt(spread + posterior.noise**2 / count)
        gone = jnp.abs(mean_error) > jnp.maximum(deviations * deviation, least)
        return jnp.where(gone, jnp.sign(mean_error), 0.0)

    signs = jax.vmap(under)(posterior)  # [X, N + 2]
    untenable = ~posteriors.tenable(posterior)
    slower = jnp.all((signs > 0.0) | untenable[:, None], axis=0)
    faster = jnp.all((signs < 0.0) | untenable[:, None], axis=0)
    return jnp.where(slower, 1.0, jnp.where(faster, -1.0, 0.0))


def judge(
    reports: Reports, row: Reports, signs: chex.Array, surprised: chex.Array, lost: chex.Array
) -> tuple[Reports, Reports, chex.Array, chex.Array]:
    """Weighs one step's reports and the earlier ones against each other.

    Args:
      reports: the earlier ones, [M, N, .].
      row: the step's, [N, .].
      signs: [N + 2] how they surprise.
      surprised: [N + 2] how each source's previous report did.
      lost: [N] bool, whose report is none.

    Returns:
      both with their new weights, the new `surprised`, and which sources have changed ([N + 2] bool).
    """
    mine, theirs = _source(row.kind), _source(reports.kind)
    reported = jnp.zeros(signs.shape, bool).at[mine].max(~lost)
    changed = (signs != 0.0) & (signs == surprised)
    first = (signs != 0.0) & ~changed
    # Whatever the second report says, it tells what the held one meant; from then on that one counts.
    decided = reports.held & (reported & ~first)[theirs]
    trust = jnp.where(changed[theirs] & ~reports.held, 0.0, reports.trust)
    reports = reports.replace(trust=jnp.where(decided, 1.0, trust), held=reports.held & ~decided)
    row = row.replace(trust=jnp.where(first[mine] | lost, 0.0, 1.0), held=first[mine] & ~lost)
    return reports, row, jnp.where(reported & ~changed, signs, jnp.where(changed, 0.0, surprised)), changed
