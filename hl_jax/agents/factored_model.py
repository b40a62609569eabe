"""The system model of `factored`: each device's own response time, learned from what every device reports.

Devices share one model. The time of a task at a *place* (a local model, or a node together with the number of tasks
there) is `scale * (exp(factor) + amount)`: whatever is observed may stretch a response time or add to it, and the data
say which. Both parts are linear in weights with Gaussian priors, and the logarithm of a reported time is the model's
plus Gaussian noise of unknown width. Gauss-Newton steps find the most probable weights and their covariance (Laplace).

Nothing here says how tasks slow one another or what a link costs: a node has a free level for each number of tasks
(beside a trend in its logarithm), every observed flag has free effects, every device a free speed. How much devices
differ at all is one of a few hypotheses, weighed by their evidence, so that equal devices learn from one another at
once.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np

LEVEL_TOP = 8.0  # Table II: a node's CPU level is 0..8
LOCAL, REMOTE = 0, 1
GAUSS_NEWTON_STEPS = 3
LEAST_PART = 0.05  # of its factor that a predicted time keeps, however negative the amounts
LOG_REACH = 5.0  # a factor stays within e^-5..e^5 of the scale
MOST_REPORTS = 1000.0  # more of them count as so many: below a model's own error there is nothing to learn
FLOAT_SHARE = 1e-6  # of the largest precision that float32 can't tell from 0 in the smallest
KNOTS = 16  # at most, of a node's levels over the number of tasks


@dataclasses.dataclass(frozen=True)
class Prior:
    """Standard deviations of the weights before any data. Logarithms, or parts of the scale for amounts.

    Round numbers that suit any fleet, because times are in units of the first step's own mean: where a task runs may
    matter by a factor of e (2.7), which model runs or what is observed by e^0.5 (1.6) either way, devices by e^0.6
    (1.8) or hardly. Means are 0 (nothing matters), but for the one thing that every computer does: more tasks take
    longer. What the data say overrides all of this within a few reports; no number comes from a calibration.
    """

    place: float = 1.0  # how long tasks take on devices, at the edge, at the cloud
    model: float = 0.5  # one local model against another, beyond what accuracy tells
    accuracy: float = 0.5  # per standard deviation of the pool's accuracies
    trend: float = 0.5  # of a node per unit of log(tasks); its mean is the same: tasks slow one another
    bend: float = 0.2  # from one number of tasks to the next, beyond the trend
    state: float = 0.5  # an observed flag or a full level, as a factor
    amount: float = 0.5  # the same as an amount
    device: tuple[float, ...] = (0.02, 0.6)  # hypotheses: devices are alike, devices differ
    noise: float = 0.05  # of a reported time; worth `noise_reports` reports
    noise_reports: float = 4.0
    least_noise: float = 0.01


@chex.dataclass(frozen=True)
class Situation:
    """What is observed before a step, background load only."""

    flags: chex.Array  # [N, 3] CPU, memory, link of each device, 0/1
    level: chex.Array  # [2] CPU level of edge and cloud, 0..8
    memory: chex.Array  # [2] 0/1
    weak: chex.Array  # [2] 0/1


@chex.dataclass(frozen=True)
class Posterior:
    """Weights [X, D] under each of X hypotheses, most probable ones with the factor of their precision."""

    mean: chex.Array  # [X, D]
    factor: chex.Array  # [X, D, D] lower Cholesky factor of the precision
    evidence: chex.Array  # [X] log probability of all reports, up to a constant
    noise: chex.Array  # [X] standard deviation of a report's logarithm


@dataclasses.dataclass(frozen=True)
class ResponseModel:
    """Sizes and priors. `accuracy` [l] (%) of the local models."""

    users: int
    accuracy: tuple[float, ...]
    prior: Prior = dataclasses.field(default_factory=Prior)

    @property
    def models(self) -> int:
        return len(self.accuracy)

    @functools.cached_property
    def tasks(self) -> np.ndarray:
        """Logarithm of n, and how many of each step between knots n has taken. [N+1, 1 + Q]; row 0 is never read."""
        counts = np.arange(self.users + 1)
        knots = np.unique(np.round(np.geomspace(1, self.users, KNOTS)).astype(int))
        logs = np.log(np.maximum(counts, 1))
        passed = [np.clip((logs - np.log(a)) / np.log(b / a), 0.0, 1.0) for a, b in itertools.pairwise(knots)]
        return np.stack([logs, *passed], axis=1).astype(np.float32)

    @functools.cached_property
    def standardised(self) -> np.ndarray:
        """Accuracies in standard deviations from the pool's mean. [l]."""
        accuracy = np.array(self.accuracy)
        return ((accuracy - accuracy.mean()) / max(accuracy.std(), 1e-6)).astype(np.float32)

    @functools.cached_property
    def prior_weights(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean [D] and standard deviation [X, D] of the weights, in the order of `features`."""
        prior, steps = self.prior, self.tasks.shape[1] - 1
        node_mean = [0.0, prior.trend, *[0.0] * (steps + 5)]
        node = [prior.place, prior.trend, *[prior.bend] * steps, *[prior.state] * 5]
        mean = [0.0, 0.0, *[0.0] * self.models, *node_mean, *node_mean]
        wide = [prior.place, prior.accuracy, *[prior.model] * self.models, *node, *node]
        states, amounts = 4 + 4, 4 + 2 + 4
        mean += [0.0] * (states + 2 * self.users + amounts)
        std = [
            [*wide, *[prior.state] * states, *[device] * (2 * self.users), *[prior.amount] * amounts]
            for device in prior.device
        ]
        return np.array(mean, np.float32), np.array(std, np.float32)

    @functools.cached_property
    def split(self) -> tuple[int, ...]:
        """Where the parts of a weight vector end: place, device flags, offsets (factors); place, device (amounts)."""
        node = 1 + self.tasks.shape[1] + 5
        sizes = (2 + self.models + 2 * node + 4, 4, 2 * self.users, 6, 4)
        ends = np.cumsum(sizes)
        return tuple(int(end) for end in ends)

    # -- Features -------------------------------------------------------------------------------------------------

    def places(self, situation: Situation) -> tuple[chex.Array, chex.Array]:
        """Features of all P = l + 2 (N + 1) places: local models, edge with 0..N tasks, cloud with 0..N tasks.

        Returns factors [P, .] and amounts [P, 6].
        """
        models, rows = self.models, self.users + 1
        node = 1 + self.tasks.shape[1] + 5
        blocks = [
            jnp.concatenate(
                [jnp.ones((models, 1)), self.standardised[:, None], jnp.eye(models), jnp.zeros((models, 2 * node))],
                axis=1,
            )
        ]
        level = situation.level.astype(jnp.float32) / LEVEL_TOP
        weak = situation.weak.astype(jnp.float32)
        for index in (0, 1):
            state = jnp.stack([level[index], level[index] ** 2, situation.memory[index].astype(jnp.float32)])
            # What a busy node does to a task may depend on how many are there.
            beside = self.tasks[:, :1] * jnp.stack([state[0], state[2]])[None, :]
            own = jnp.concatenate([jnp.ones((rows, 1)), self.tasks, jnp.broadcast_to(state, (rows, 3)), beside], axis=1)
            before, after = 2 + models + index * node, (1 - index) * node
            blocks.append(jnp.concatenate([jnp.zeros((rows, before)), own, jnp.zeros((rows, after))], axis=1))
        # The edge's link may matter to every task, the cloud's to those sent there.
        kind = np.concatenate([np.zeros(models, int), np.ones(rows, int), np.full(rows, 2)])
        links = jnp.concatenate([np.eye(3)[kind] * weak[0], (kind == 2)[:, None] * weak[1]], axis=1)
        levels = jnp.stack([(kind == 1) * level[0], (kind == 2) * level[1]], axis=1)
        return jnp.concatenate([jnp.concatenate(blocks), links], axis=1), jnp.concatenate([links, levels], axis=1)

    @staticmethod
    def device(flags: chex.Array) -> chex.Array:
        """Features of devices ([N, 3] flags) for local and remote tasks. [2, N, 4]."""
        flags = flags.astype(jnp.float32)
        cpu, memory, link = flags[:, 0], flags[:, 1], flags[:, 2]
        none = jnp.zeros_like(cpu)
        return jnp.stack([jnp.stack([cpu, memory, link, none], 1), jnp.stack([none, none, link, link], 1)])

    def place_of(self, action: chex.Array) -> chex.Array:
        """Where each task of a joint action runs, as an index of `places`. [N] -> [N]."""
        edge, cloud = jnp.sum(action == self.models), jnp.sum(action == self.models + 1)
        remote = jnp.where(action == self.models, self.models + edge, self.models + self.users + 1 + cloud)
        return jnp.where(action < self.models, action, remote)

    def features(self, situation: Situation, action: chex.Array) -> tuple[chex.Array, chex.Array]:
        """Features of every device's task under a joint action: factors [N, Df], amounts [N, Da]; D = Df + Da."""
        place = self.place_of(action)
        remote = (action >= self.models).astype(jnp.int32)
        factors, amounts = self.places(situation)
        device = self.device(situation.flags)[remote, jnp.arange(self.users)]
        offset = jax.nn.one_hot(2 * jnp.arange(self.users) + remote, 2 * self.users)
        return (
            jnp.concatenate([factors[place], device, offset], axis=1),
            jnp.concatenate([amounts[place], device], axis=1),
        )

    def tables(self, weights: chex.Array, situation: Situation) -> tuple[chex.Array, chex.Array, chex.Array]:
        """Predicted times of every device ([N, D] weights, each device its own) at every place, in units of the scale.

        Returns local [N, l], edge [N, N+1], cloud [N, N+1].
        """
        parts = jnp.split(weights, self.split[:-1], axis=1)
        factors, amounts = self.places(situation)
        device = self.device(situation.flags)
        remote = np.arange(factors.shape[0]) >= self.models
        each = jnp.arange(self.users)
        offset = parts[2].reshape(self.users, self.users, 2)[each, each]  # each row's weights hold all devices' offsets
        of_device = jnp.einsum("cnf,nf->nc", device, parts[1]) + offset
        add = jnp.einsum("cnf,nf->nc", device, parts[4])
        factor = parts[0] @ factors.T + of_device[:, remote.astype(int)]
        amount = parts[3] @ amounts.T + add[:, remote.astype(int)]
        time = predicted(factor, amount)
        ends = (self.models, self.models + self.users + 1)
        return time[:, : ends[0]], time[:, ends[0] : ends[1]], time[:, ends[1] :]

    # -- Learning -------------------------------------------------------------------------------------------------

    def start(self) -> Posterior:
        """The prior."""
        mean, std = self.prior_weights
        return Posterior(
            mean=jnp.broadcast_to(mean, std.shape),
            factor=jax.vmap(jnp.diag)(1.0 / std),
            evidence=jnp.zeros(std.shape[0]),
            noise=jnp.full(std.shape[0], self.prior.noise),
        )

    def fit(
        self, posterior: Posterior, factors: chex.Array, amounts: chex.Array, logs: chex.Array, trust: chex.Array
    ) -> Posterior:
        """The posterior given all reports: features [B, Df] and [B, Da], log times [B] (less the scale), weights [B].

        Starts from an earlier posterior's weights, whose noise it takes and improves once.
        """
        mean, std = (jnp.asarray(values) for values in self.prior_weights)
        trust = trust * jnp.minimum(1.0, MOST_REPORTS / jnp.maximum(jnp.sum(trust), 1.0))
        count = jnp.sum(trust)

        def one(weights: chex.Array, std: chex.Array, noise: chex.Array) -> tuple[chex.Array, ...]:
            # In units of the prior's standard deviations: there the precision is at least 1, whatever the data.
            def step(_: int, carry: tuple[chex.Array, chex.Array]) -> tuple[chex.Array, chex.Array]:
                weights, _root = carry
                tangent = slopes(weights, factors, amounts) * std[None, :]
                error = logs - log_time(weights, factors, amounts) + tangent @ ((weights - mean) / std)
                weighted = tangent * (trust / noise**2)[:, None]
                precision = weighted.T @ tangent
                least = 1.0 + FLOAT_SHARE * jnp.max(jnp.diagonal(precision))
                root = cholesky(precision + least * jnp.eye(std.shape[0]))
                move = solve_upper(root, solve_lower(root, (weighted.T @ error)[:, None]))[:, 0]
                return mean + std * move, root

            weights, root = jax.lax.fori_loop(0, GAUSS_NEWTON_STEPS, step, (weights, jnp.eye(std.shape[0])))
            squares = jnp.sum(trust * (logs - log_time(weights, factors, amounts)) ** 2)
            misfit = squares / noise**2 + jnp.sum(((weights - mean) / std) ** 2)
            evidence = -0.5 * misfit - jnp.sum(jnp.log(jnp.diagonal(root))) - count * jnp.log(noise)
            # Weights that the data determine take their share of the residuals away.
            inverse = solve_lower(root, jnp.eye(std.shape[0]))
            determined = std.shape[0] - jnp.sum(inverse**2)
            known = self.prior.noise_reports
            freedom = known + jnp.maximum(count - determined, 0.0)
            noise = jnp.sqrt((known * self.prior.noise**2 + squares) / freedom)
            return weights, root / std[:, None], evidence, jnp.maximum(noise, self.prior.least_noise)

        # Not `vmap`: a batch of small matrix products is slower on a CPU than one after the other.
        each = (posterior.mean, std, posterior.noise)
        weights, root, evidence, noise = jax.lax.map(lambda hypothesis: one(*hypothesis), each)
        return Posterior(mean=weights, factor=root, evidence=evidence, noise=noise)


# Not LAPACK's: on a CPU its BLAS has threads of its own, which wait busily for the cores that run the program, and two
# batches at once can wait for each other for ever. Matrices are small, so a loop over columns does.


def cholesky(matrix: chex.Array) -> chex.Array:
    """Lower factor of a positive definite [D, D]."""
    rows = jnp.arange(matrix.shape[0])

    def column(index: int, carry: tuple[chex.Array, chex.Array]) -> tuple[chex.Array, chex.Array]:
        rest, root = carry
        new = jnp.where(rows >= index, rest[:, index] / jnp.sqrt(rest[index, index]), 0.0)
        return rest - new[:, None] * new[None, :], root.at[:, index].set(new)

    return jax.lax.fori_loop(0, matrix.shape[0], column, (matrix, jnp.zeros_like(matrix)))[1]


def solve_lower(root: chex.Array, right: chex.Array) -> chex.Array:
    """root^-1 right for a lower factor [D, D] and [D, K]."""
    later = jnp.arange(root.shape[0])[:, None]

    def row(index: int, right: chex.Array) -> chex.Array:
        solved = right[index] / root[index, index]
        rest = right - jnp.where(later > index, root[:, index][:, None], 0.0) * solved[None, :]
        return rest.at[index].set(solved)

    return jax.lax.fori_loop(0, root.shape[0], row, right)


def solve_upper(root: chex.Array, right: chex.Array) -> chex.Array:
    """root^-T right for a lower factor [D, D] and [D, K]."""
    size = root.shape[0]
    earlier = jnp.arange(size)[:, None]

    def row(step: int, right: chex.Array) -> chex.Array:
        index = size - 1 - step
        solved = right[index] / root[index, index]
        rest = right - jnp.where(earlier < index, root[index][:, None], 0.0) * solved[None, :]
        return rest.at[index].set(solved)

    return jax.lax.fori_loop(0, size, row, right)


def predicted(factor: chex.Array, amount: chex.Array) -> chex.Array:
    """A task's time in units of the scale."""
    grown = jnp.exp(jnp.clip(factor, -LOG_REACH, LOG_REACH))
    return jnp.maximum(grown + amount, LEAST_PART * grown)


def log_time(weights: chex.Array, factors: chex.Array, amounts: chex.Array) -> chex.Array:
    """Logarithm of the predicted times of tasks with features [B, Df] and [B, Da]. [B]."""
    size = factors.shape[1]
    return jnp.log(predicted(factors @ weights[:size], amounts @ weights[size:]))


def slopes(weights: chex.Array, factors: chex.Array, amounts: chex.Array) -> chex.Array:
    """Derivatives of `log_time` with respect to the weights. [B, D]."""
    size = factors.shape[1]
    grown = jnp.exp(jnp.clip(factors @ weights[:size], -LOG_REACH, LOG_REACH))
    time = jnp.maximum(grown + amounts @ weights[size:], LEAST_PART * grown)
    return jnp.concatenate([factors * (grown / time)[:, None], amounts / time[:, None]], axis=1)


def likeliest(posterior: Posterior) -> Posterior:
    """The hypothesis of most evidence alone: every field without its first axis."""
    best = jnp.argmax(posterior.evidence)
    return jax.tree.map(lambda x: x[best], posterior)


def sample(key: chex.PRNGKey, posterior: Posterior, count: int) -> chex.Array:
    """Draws `count` weight vectors from one hypothesis' posterior. [count, D]; the key is consumed."""
    draws = jax.random.normal(key, (posterior.mean.shape[0], count))
    return (posterior.mean[:, None] + solve_upper(posterior.factor, draws)).T
