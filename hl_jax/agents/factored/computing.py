"""Computing times (or energies) by machine, target and model: Gaussian weights of their logarithms, learned robustly.

The weights' posterior is a triangle (`linear`): rows of the prior and of reports, old ones fading. Times have heavy
tails, so that a report counts the less the further it is from what was expected (Student's t); what tails add to the
mean, and where the quantile lies that deadlines ask of, is kept beside, entry by entry.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np

from hl_jax.agents.factored import linear
from hl_jax.agents.factored.tree import Features

NOISE, LEAST_NOISE = 0.05, 0.005  # scale of a report's logarithm: at first, at least
FIRST = 0.12  # what is added to the scale of an entry's first report; half as much to the second's, and so on
DEGREES = 3.0  # of freedom of reports' law
NOISE_REPORTS = 5.0  # that the first scale counts
MEAN_FACTOR, MEAN_REPORTS = 1.04, 25.0  # of a mean time beside exp of the mean logarithm, a priori, and how sure
LARGEST = 5.0  # that a single ratio counts: one report from far out in a tail would hide the others for long
LATE_FACTOR, LATE_REPORTS = 1.25, 10.0  # the same of the late quantile
LATE_Z = 1.645  # standard deviations above the mean of a normal law's 95th percentile


@chex.dataclass(frozen=True)
class Computing:
    """What reports say so far."""

    triangle: chex.Array  # [D + 1, D + 1] information about weights less their prior mean
    covariance: chex.Array  # [D, D] of the weights
    noise: chex.Array  # [G] square of the scale of a report's logarithm around what is expected, by target
    heard: chex.Array  # [G] reports, fading
    counted: chex.Array  # [L] reports, fading
    ratios: chex.Array  # [L] mean of time over exp(expected logarithm)
    squares: chex.Array  # [L] mean square of that less its mean


@chex.dataclass(frozen=True)
class Reports:
    """One step's, of N devices."""

    entry: chex.Array  # [N] which of L each is of
    machine: chex.Array  # [N] which weight is its machine's
    group: chex.Array  # [N] which target it is of
    busy: chex.Array  # [N, 2] what its monitor said before
    time_ms: chex.Array  # [N]
    there: chex.Array  # [N] bool, whether there is one


def init(features: Features, entries: int, groups: int) -> Computing:
    """Before any report."""
    return Computing(
        triangle=jnp.asarray(_prior(features)),
        covariance=jnp.asarray(np.diag(features.deviation**2)),
        noise=jnp.full(groups, NOISE**2),
        heard=jnp.zeros(groups),
        counted=jnp.zeros(entries),
        ratios=jnp.zeros(entries),
        squares=jnp.zeros(entries),
    )


def weights(features: Features, model: Computing) -> chex.Array:
    """The most probable weights. [D]."""
    upper = model.triangle[:-1, :-1]
    return jnp.asarray(features.mean) + linear.solve(upper, model.triangle[:-1, -1:])[:, 0]


def _logs(features: Features, entry: np.ndarray, drawn: chex.Array, busy: chex.Array) -> chex.Array:
    """Logarithms of all times under weights ([N, D], or [1, D] for all devices). [N, C]."""
    by_entry = drawn @ features.entries.T  # [N or 1, L]
    rows = np.arange(entry.shape[0])[:, None] if drawn.shape[0] > 1 else np.zeros((entry.shape[0], 1), int)
    found = by_entry[rows, entry] + drawn[rows, features.machine]
    return found + jnp.sum(busy * drawn[:, None, np.array(features.busy)], axis=-1)


def predicted(
    features: Features, entry: np.ndarray, model: Computing, busy: chex.Array
) -> tuple[chex.Array, chex.Array]:
    """Mean and standard deviation of every time's logarithm. [N, C] each."""
    mean = _logs(features, entry, weights(features, model)[None, :], busy)
    covariance = model.covariance
    shared = features.entries @ covariance  # [L, D]
    own = jnp.sum(shared * features.entries, axis=1)  # [L]
    machine = features.machine
    variance = own[entry] + 2.0 * shared[entry, machine] + jnp.diagonal(covariance)[machine]
    return mean, jnp.sqrt(jnp.maximum(variance, 0.0))


def sampled(key: chex.PRNGKey, features: Features, entry: np.ndarray, model: Computing, busy: chex.Array) -> chex.Array:
    """Logarithms of all times, each device's from weights of its own draw. [N, C]; the key is consumed."""
    upper = model.triangle[:-1, :-1]
    noise = jax.random.normal(key, (upper.shape[0], entry.shape[0]))
    drawn = weights(features, model)[:, None] + linear.solve(upper, noise)
    return _logs(features, entry, drawn.T, busy)


def mean_factors(model: Computing, group: np.ndarray) -> chex.Array:
    """A mean time, beside exp of the mean logarithm; a target's models ([L] says whose) are alike. [L]."""
    here = group[None, :] == np.arange(model.noise.shape[0])[:, None]  # [G, L]
    told, counted = here @ (model.counted * model.ratios), here @ model.counted
    alike = (MEAN_REPORTS * MEAN_FACTOR + told) / (MEAN_REPORTS + counted)
    return (MEAN_REPORTS * alike[group] + model.counted * model.ratios) / (MEAN_REPORTS + model.counted)


def late_factors(model: Computing) -> chex.Array:
    """The 95th percentile of a time, beside exp of the mean logarithm. [L]."""
    seen = model.ratios + LATE_Z * jnp.sqrt(model.squares)
    return (LATE_REPORTS * LATE_FACTOR + model.counted * seen) / (LATE_REPORTS + model.counted)


def _rows(features: Features, reports: Reports) -> chex.Array:
    """What each report's logarithm is of the weights. [N, D]."""
    rows = jnp.asarray(features.entries)[reports.entry] + jax.nn.one_hot(reports.machine, features.mean.shape[0])
    return rows.at[:, np.array(features.busy)].add(reports.busy)


def _prior(features: Features) -> np.ndarray:
    """The triangle before any report. [D + 1, D + 1]."""
    return np.diag(np.append(1.0 / features.deviation, 0.0)).astype(np.float32)


def told(features: Features, model: Computing, reports: Reports, fade: float) -> Computing:
    """With one step's reports, of which older ones count `fade`."""
    rows, there = _rows(features, reports), reports.there
    log = jnp.log(jnp.where(there, jnp.maximum(reports.time_ms, 1e-9), 1.0))
    error = jnp.where(there, log - rows @ weights(features, model), 0.0)
    unsure = jnp.sum((rows @ model.covariance) * rows, axis=1)
    # A first report may be from the tail, and nothing tells yet: the fewer there are of an entry, the less each counts.
    noise = model.noise[reports.group] + (FIRST / (1.0 + model.counted[reports.entry])) ** 2
    trust = (DEGREES + 1.0) / (DEGREES + error**2 / (noise + jnp.maximum(unsure, 0.0)))
    scale = jnp.where(there, jnp.sqrt(trust / noise), 0.0)[:, None]
    new = jnp.concatenate([rows, (log - rows @ jnp.asarray(features.mean))[:, None]], axis=1) * scale
    # What fades gives way to the prior, so that the posterior never gets vaguer than that.
    old = [jnp.sqrt(fade) * model.triangle, jnp.sqrt(1.0 - fade) * _prior(features)[:-1]]
    triangle = linear.triangle(jnp.concatenate([*old, new]))
    triangle = triangle.at[-1, -1].set(0.0)
    inverse = linear.solve(triangle[:-1, :-1], jnp.eye(rows.shape[1]))
    fitted = model.replace(triangle=triangle, covariance=inverse @ inverse.T)
    after = jnp.where(there, log - rows @ weights(features, fitted), 0.0)
    return _tails(_scaled(fitted, reports.group, after, there, fade), reports.entry, after, there, fade)


def _scaled(model: Computing, group: chex.Array, error: chex.Array, there: chex.Array, fade: float) -> Computing:
    """Scales from reports' errors ([N], logarithms), of which those far off count less (as in Student's law)."""
    here = (group[:, None] == jnp.arange(model.noise.shape[0])[None, :]) & there[:, None]  # [N, G]
    trust = (DEGREES + 1.0) / (DEGREES + error**2 / model.noise[group])
    before = NOISE_REPORTS + fade * model.heard
    heard = fade * model.heard + jnp.sum(here, axis=0)
    squares = before * model.noise + jnp.sum(jnp.where(here, (trust * error**2)[:, None], 0.0), axis=0)
    noise = jnp.maximum(squares / (NOISE_REPORTS + heard), LEAST_NOISE**2)
    return model.replace(noise=noise, heard=heard)


def _tails(model: Computing, entry: chex.Array, error: chex.Array, there: chex.Array, fade: float) -> Computing:
    """Means and spreads from reports' errors ([N], logarithms)."""
    here = (entry[:, None] == jnp.arange(model.counted.shape[0])[None, :]) & there[:, None]  # [N, L]
    ratio = jnp.minimum(jnp.exp(error), LARGEST)
    new = jnp.sum(here, axis=0)
    before = fade * model.counted
    counted = before + new
    safe = jnp.maximum(counted, 1.0)
    ratios = (before * model.ratios + jnp.sum(jnp.where(here, ratio[:, None], 0.0), axis=0)) / safe
    around = jnp.sum(jnp.where(here, (ratio[:, None] - ratios[None, :]) ** 2, 0.0), axis=0)
    squares = (before * model.squares + around) / safe
    seen = counted > 0
    return model.replace(
        counted=counted,
        ratios=jnp.where(seen, ratios, model.ratios),
        squares=jnp.where(seen, squares, model.squares),
    )
