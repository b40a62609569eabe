"""Times by device and choice, learned from means of reports: every one belongs to its device, its choice, and itself.

The logarithm of device i's time with choice c is `column[c] + row[i] + own[i, c]`, each Gaussian a priori. A report on
one cell says something of its column (the same model elsewhere) and of its row (the device's speed, its link), and most
of itself. Posterior means, variances and samples are exact. Reports fade, so that what was learned long ago is unsure
again. `N` devices, `C` columns.
"""

from __future__ import annotations

import dataclasses

import chex
import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Prior:
    """Standard deviations of logarithms, and how exact a report is."""

    column: float  # around the level
    row: float
    own: tuple[float, ...]  # [C]
    by_device: tuple[bool, ...]  # [C] whether a device's row counts there
    report: float  # of a report that is one request's time
    least: float  # of a report, however many requests it is the mean of


@chex.dataclass(frozen=True)
class Table:
    """What reports say of the cells so far."""

    level: chex.Array  # [C] columns' mean a priori
    precision: chex.Array  # [N, C] sum of the reports' precisions
    weighted: chex.Array  # [N, C] sum of their logarithms, each times its precision


@chex.dataclass(frozen=True)
class Belief:
    """What is thought of columns and rows: Gaussian, jointly."""

    mean: chex.Array  # [C + N]
    root: chex.Array  # [C + N, C + N] lower Cholesky factor of the precision


def empty(level: chex.Array, users: int) -> Table:
    """Before any report; `level` [C] is the logarithm that is expected."""
    zero = jnp.zeros((users, level.shape[0]))
    return Table(level=level, precision=zero, weighted=zero)


def report_variance(prior: Prior, count: chex.Array) -> chex.Array:
    """Of a report's logarithm, where it is the mean of so many requests."""
    return prior.report**2 / jnp.maximum(count, 1.0) + prior.least**2


def faded(table: Table, by: float | chex.Array) -> Table:
    """The same with reports that count `by` as much."""
    return table.replace(precision=table.precision * by, weighted=table.weighted * by)


def add(table: Table, prior: Prior, column: chex.Array, log_time: chex.Array, count: chex.Array) -> Table:
    """With a report from each device: of which column ([N]), its logarithm, and of how many requests (0: none)."""
    rows = jnp.arange(column.shape[0])
    precision = jnp.where(count > 0, 1.0 / report_variance(prior, count), 0.0)
    weighted = precision * jnp.where(count > 0, log_time, 0.0)
    return table.replace(
        precision=table.precision.at[rows, column].add(precision),
        weighted=table.weighted.at[rows, column].add(weighted),
    )


def belief(table: Table, prior: Prior) -> Belief:
    """Columns and rows, given the reports."""
    own = jnp.array(prior.own)[None, :] ** 2
    there = table.precision > 0.0
    safe = jnp.where(there, table.precision, 1.0)
    weight = jnp.where(there, 1.0 / (1.0 / safe + own), 0.0)
    seen = weight * (table.weighted / safe - table.level[None, :])
    users, columns = weight.shape
    by_device = jnp.array(prior.by_device, jnp.float32)[None, :]
    across = weight * by_device
    matrix = jnp.zeros((columns + users, columns + users))
    matrix = matrix.at[:columns, :columns].set(jnp.diag(jnp.sum(weight, axis=0) + prior.column**-2))
    matrix = matrix.at[columns:, columns:].set(jnp.diag(jnp.sum(across, axis=1) + prior.row**-2))
    matrix = matrix.at[:columns, columns:].set(across.T).at[columns:, :columns].set(across)
    right = jnp.concatenate([jnp.sum(seen, axis=0), jnp.sum(seen * by_device, axis=1)])
    root = jnp.linalg.cholesky(matrix)
    return Belief(mean=jax.scipy.linalg.cho_solve((root, True), right), root=root)


def _cells(table: Table, prior: Prior, both: chex.Array) -> tuple[chex.Array, chex.Array]:
    """Cells' means ([N, C]) where columns and rows are `both` ([C + N]), and what of them is columns' and rows'."""
    columns = table.level.shape[0]
    by_device = jnp.array(prior.by_device, jnp.float32)[None, :]
    expected = (table.level + both[:columns])[None, :] + both[columns:, None] * by_device
    own = jnp.broadcast_to(jnp.array(prior.own)[None, :] ** -2, expected.shape)
    total = table.precision + own
    return (table.weighted + expected * own) / total, own / total


def means(table: Table, prior: Prior, known: Belief) -> chex.Array:
    """Posterior means of the cells' logarithms. [N, C]."""
    return _cells(table, prior, known.mean)[0]


def variances(table: Table, prior: Prior, known: Belief) -> chex.Array:
    """Posterior variances of the cells' logarithms. [N, C]."""
    columns = table.level.shape[0]
    inverse = jax.scipy.linalg.cho_solve((known.root, True), jnp.eye(known.mean.shape[0]))
    by_device = jnp.array(prior.by_device, jnp.float32)[None, :]
    column, row, both = jnp.diag(inverse)[:columns], jnp.diag(inverse)[columns:], inverse[columns:, :columns]
    outer = column[None, :] + by_device * (row[:, None] + 2.0 * both)
    own = jnp.array(prior.own)[None, :] ** -2
    total = table.precision + own
    return 1.0 / total + (own / total) ** 2 * outer


def sample(key: chex.PRNGKey, table: Table, prior: Prior, known: Belief) -> chex.Array:
    """Cells' logarithms drawn from the posterior. [N, C]; the key is consumed."""
    both_key, own_key = jax.random.split(key)
    drawn = jax.random.normal(both_key, known.mean.shape)
    both = known.mean + jax.scipy.linalg.solve_triangular(known.root.T, drawn, lower=False)
    cells, _ = _cells(table, prior, both)
    deviation = (table.precision + jnp.array(prior.own)[None, :] ** -2) ** -0.5
    return cells + deviation * jax.random.normal(own_key, cells.shape)
