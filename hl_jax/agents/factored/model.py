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
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from hl_jax.agents.factored import linear
from hl_jax.agents.factored.posterior import Posterior
from hl_jax.choices import edge_choice, node_tasks

LEVEL_TOP = 8.0  # Table II: a node's CPU level is 0..8
LOCAL, REMOTE = 0, 1
GAUSS_NEWTON_STEPS = 6  # at most
SETTLED = 1e-2  # a Gauss-Newton step that moves no weight by more prior standard deviations is the last
PARTS = np.array([1.0, 0.5, 0.25, 0.0625, 0.0], np.float32)  # of a Gauss-Newton step, of which the best is taken
LEAST_PART = 0.05  # of its factor that a predicted time keeps, however negative the amounts
LOG_REACH = 20.0  # a factor stays within e^-20..e^20 of the scale
KNOTS = 16  # at most, of a node's levels over the number of tasks
DRAWS = 16  # that tell how unsure a time is


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
    # Hypotheses of how devices differ where they compute, and in what is sent from them: they are alike; they differ;
    # some compute a hundred times as fast as others, while what is sent takes as long.
    device: tuple[tuple[float, float], ...] = ((0.02, 0.02), (0.6, 0.6), (3.0, 0.02))
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
class Reports:
    """What devices reported: B reports, or [M, N] of M steps."""

    factors: chex.Array  # [B, Df]
    amounts: chex.Array  # [B, Da]
    logs: chex.Array  # [B] log of the response time over the scale
    trust: chex.Array  # [B] 1 counts, 0 doesn't (not yet written, or reality has changed since)
    kind: chex.Array  # [B] where the task ran: 0 local, 1 edge, 2 cloud
    held: chex.Array  # [B] bool: surprising; counts as soon as that node's next report has told what to make of it


@chex.dataclass(frozen=True)
class Summary:
    """What reports say that are no longer kept one by one, under each of X hypotheses."""

    rows: chex.Array  # [X, D+1, D+1] of A and b: A u = b to within the noise, as in `ResponseModel._equations`
    count: chex.Array  # [] how many reports that is worth


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
            [*wide, *[prior.state] * states, *device * self.users, *[prior.amount] * amounts] for device in prior.device
        ]
        return np.array(mean, np.float32), np.array(std, np.float32)

    @functools.cached_property
    def normals(self) -> np.ndarray:
        """Standard normal numbers for `Posterior.deviations`. [D, K]."""
        size = self.prior_weights[0].shape[0]
        return np.random.default_rng(0).standard_normal((size, DRAWS)).astype(np.float32)

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
        constants = np.concatenate([np.ones((models, 1)), self.standardised[:, None], np.eye(models)], axis=1)
        blocks: list[Any] = [np.pad(constants.astype(np.float32), ((0, 0), (0, 2 * node)))]
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

    def weights_of(self, sources: chex.Array) -> chex.Array:
        """Which weights are a source's own: [N + 2] bool (devices, edge, cloud) -> [D] bool."""
        node = 1 + self.tasks.shape[1] + 5
        edge, cloud = sources[self.users], sources[self.users + 1]
        devices = jnp.stack([sources[: self.users], jnp.zeros(self.users, bool)], axis=1).reshape(-1)  # local, remote
        parts = [
            jnp.zeros(2 + self.models, bool),
            jnp.full(node, edge),
            jnp.full(node, cloud),
            jnp.zeros(4 + 4, bool),
            devices,
            jnp.zeros(4, bool),
            jnp.stack([edge, cloud]),
            jnp.zeros(4, bool),
        ]
        return jnp.concatenate(parts)

    @staticmethod
    def device(flags: chex.Array) -> chex.Array:
        """Features of devices ([N, 3] flags) for local and remote tasks. [2, N, 4]."""
        flags = flags.astype(jnp.float32)
        cpu, memory, link = flags[:, 0], flags[:, 1], flags[:, 2]
        none = jnp.zeros_like(cpu)
        return jnp.stack([jnp.stack([cpu, memory, link, none], 1), jnp.stack([none, none, link, link], 1)])

    def place_of(self, action: chex.Array) -> chex.Array:
        """Where each task of a joint action runs, as an index of `places`. [N] -> [N]."""
        edge, cloud = node_tasks(action, self.models)
        remote = jnp.where(action == edge_choice(self.models), self.models + edge, self.models + self.users + 1 + cloud)
        return jnp.where(action < self.models, action, remote)

    def features(self, situation: Situation, action: chex.Array) -> tuple[chex.Array, chex.Array]:
        """Features of every device's task under a joint action: factors [N, Df], amounts [N, Da]; D = Df + Da."""
        place = self.place_of(action)
        remote = (action >= self.models).astype(jnp.int32)
        factors, amounts = self.places(situation)
        device = self.device(situation.flags)[remote, jnp.arange(self.users)]
        offset = jax.nn.one_hot(2 * jnp.arange(self.users) + remote, 2 * self.users)
        amount = jnp.concatenate([amounts[place], device], axis=1)
        return jnp.concatenate([factors[place], device, offset], axis=1), amount

    def _terms(self, weights: chex.Array, situation: Situation) -> tuple[chex.Array, chex.Array]:
        """Factors and amounts of every device ([N, D] weights, or [1, D] for all) at every place. [N, P], linear."""
        parts = jnp.split(weights, self.split[:-1], axis=1)
        factors, amounts = self.places(situation)
        device = jnp.swapaxes(self.device(situation.flags), 0, 1)
        remote = np.arange(factors.shape[0])[None, :] >= self.models
        each = jnp.arange(self.users)
        # Each row's weights hold all devices' offsets.
        offset = jnp.broadcast_to(parts[2].reshape(-1, self.users, 2), (self.users, self.users, 2))[each, each]
        of_device = jnp.sum(device * parts[1][:, None, :], axis=2) + offset
        add = jnp.sum(device * parts[4][:, None, :], axis=2)
        of_device, add = (jnp.where(remote, both[:, 1:], both[:, :1]) for both in (of_device, add))
        return parts[0] @ factors.T + of_device, parts[3] @ amounts.T + add

    def times(self, weights: chex.Array, situation: Situation) -> chex.Array:
        """Predicted times in units of the scale, weights as in `_terms`. [N, P]."""
        return predicted(*self._terms(weights, situation))[0]

    def unsure(self, best: Posterior, situation: Situation) -> chex.Array:
        """Standard deviations of these times' logarithms under one hypothesis, as far as they are linear. [N, P]."""
        time, grown = predicted(*self._terms(best.mean[None, :], situation))

        def add(squares: chex.Array, away: chex.Array) -> tuple[chex.Array, None]:
            moved, added = self._terms(away[None, :], situation)
            return squares + ((moved * grown + added) / time) ** 2, None

        # One by one: what one draw needs stays in a core's cache.
        squares, _ = jax.lax.scan(add, jnp.zeros_like(time), best.deviations)
        return jnp.sqrt(squares / DRAWS)

    def tables(self, times: chex.Array) -> tuple[chex.Array, ...]:
        """Of all places ([N, P]) the local models [N, l], the edge [N, N+1] and the cloud [N, N+1]."""
        ends = (self.models, self.models + self.users + 1)
        return times[:, : ends[0]], times[:, ends[0] : ends[1]], times[:, ends[1] :]

    # -- Learning -------------------------------------------------------------------------------------------------

    def start(self) -> Posterior:
        """The prior."""
        mean, std = self.prior_weights
        return Posterior(
            mean=jnp.broadcast_to(mean, std.shape),
            root=jax.vmap(jnp.diag)(1.0 / std),
            evidence=jnp.zeros(std.shape[0]),
            noise=jnp.full(std.shape[0], self.prior.noise, jnp.float32),
            deviations=jnp.asarray(std[:, None, :] * self.normals.T),
        )

    def no_summary(self) -> Summary:
        """What nothing says."""
        hypotheses, size = self.prior_weights[1].shape
        return Summary(rows=jnp.zeros((hypotheses, size + 1, size + 1)), count=jnp.float32(0.0))

    def _equations(self, weights: chex.Array, std: chex.Array, reports: Reports) -> chex.Array:
        """What reports ([B, ...]) say, linearised at `weights` [D]: rows [B, D+1] of A and b, A u = b.

        u are weights in units of the prior's standard deviations, from its mean; b is right to within the noise.
        """
        units = (weights - self.prior_weights[0]) / std
        tangent = slopes(weights, reports.factors, reports.amounts) * std[None, :]
        right = reports.logs - log_time(weights, reports.factors, reports.amounts) + tangent @ units
        return jnp.concatenate([tangent, right[:, None]], axis=1) * jnp.sqrt(reports.trust)[:, None]

    def fold(
        self, summary: Summary, posterior: Posterior, leaving: Reports, fade: float, forgotten: chex.Array
    ) -> Summary:
        """Earlier reports, faded, and one step's ([N, ...]) that leaves the recent ones, linearised where they are now.

        `forgotten` [D] bool are weights about which nothing that was said counts any more. What is left is what the
        reports say of the others, whatever these weights were within their prior (the marginal).
        """
        # With the forgotten weights' columns first, only the first rows speak of them; with rows of their prior, these
        # rows hold nothing else.
        order = jnp.argsort(~forgotten, stable=True)
        order = jnp.concatenate([order, jnp.array([forgotten.shape[0]])])
        kept = jnp.arange(order.shape[0]) >= jnp.sum(forgotten)
        prior = jnp.eye(forgotten.shape[0], order.shape[0]) * forgotten[:, None]

        def one(rows: chex.Array, weights: chex.Array, noise: chex.Array, std: chex.Array) -> chex.Array:
            new = self._equations(weights, std, leaving)
            every = jnp.concatenate([rows * np.sqrt(fade), new, noise * prior])[:, order]
            upper = jnp.where(kept[:, None], linear.triangle(every), 0.0)
            return jnp.zeros_like(upper).at[:, order].set(upper)

        rows = jax.vmap(one)(summary.rows, posterior.mean, posterior.noise, jnp.asarray(self.prior_weights[1]))
        return Summary(rows=rows, count=fade * summary.count + jnp.sum(leaving.trust))

    def fit(self, posterior: Posterior, summary: Summary, recent: Reports) -> Posterior:
        """The posterior given what earlier reports say and the recent ones ([B, ...]).

        Starts from an earlier posterior's weights, whose noise it takes and improves once.
        """
        mean, std = (jnp.asarray(values) for values in self.prior_weights)
        count = summary.count + jnp.sum(recent.trust)

        def one(weights: chex.Array, std: chex.Array, noise: chex.Array, rows: chex.Array) -> tuple[chex.Array, ...]:
            size = std.shape[0]
            # In units of the prior's standard deviations its rows are the unit matrix.
            known = linear.triangle(jnp.concatenate([jnp.eye(size, size + 1), rows / noise]))

            def miss(weights: chex.Array) -> chex.Array:
                units = (weights - mean) / std
                error = recent.logs - log_time(weights, recent.factors, recent.amounts)
                left = known[:, :size] @ units - known[:, size]
                return jnp.sum(recent.trust * error**2) / noise**2 + jnp.sum(left**2)

            def step(carry: Any) -> Any:
                weights, _root, taken, _moved = carry
                new = self._equations(weights, std, recent) / noise
                upper = linear.triangle(jnp.concatenate([known, new]))[:size]
                whole = mean + std * linear.solve(upper[:, :size], upper[:, size:])[:, 0] - weights
                # A whole step may lead uphill where times are far from linear in the weights.
                misses = jax.vmap(lambda part: miss(weights + part * whole))(jnp.asarray(PARTS))
                part = jnp.asarray(PARTS)[jnp.argmin(misses)]
                return weights + part * whole, upper[:, :size], taken + 1, jnp.max(jnp.abs(part * whole) / std)

            def unsettled(carry: Any) -> chex.Array:
                return (carry[2] < GAUSS_NEWTON_STEPS) & (carry[3] > SETTLED)

            begin = (weights, jnp.eye(size), jnp.int32(0), jnp.float32(jnp.inf))
            weights, root, _, _ = jax.lax.while_loop(unsettled, step, begin)
            units = (weights - mean) / std
            error = recent.logs - log_time(weights, recent.factors, recent.amounts)
            squares = jnp.sum(recent.trust * error**2) + jnp.sum((rows[:, :size] @ units - rows[:, size]) ** 2)
            evidence = -0.5 * miss(weights) - jnp.sum(jnp.log(jnp.abs(jnp.diagonal(root)))) - count * jnp.log(noise)
            # Weights that the data determine take their share of the residuals away.
            inverse = linear.solve(root, jnp.eye(size))
            determined = size - jnp.sum(inverse**2)
            known_reports = self.prior.noise_reports
            freedom = known_reports + jnp.maximum(count - determined, 0.0)
            noise = jnp.sqrt((known_reports * self.prior.noise**2 + squares) / freedom)
            deviations = ((inverse @ self.normals) * std[:, None]).T
            return weights, root / std[None, :], evidence, jnp.maximum(noise, self.prior.least_noise), deviations

        weights, root, evidence, noise, deviations = jax.vmap(one)(posterior.mean, std, posterior.noise, summary.rows)
        return Posterior(mean=weights, root=root, evidence=evidence, noise=noise, deviations=deviations)


def predicted(factor: chex.Array, amount: chex.Array) -> tuple[chex.Array, chex.Array]:
    """A task's time in units of the scale, and the part of it that is a factor."""
    grown = jnp.exp(jnp.clip(factor, -LOG_REACH, LOG_REACH))
    return jnp.maximum(grown + amount, LEAST_PART * grown), grown


def log_time(weights: chex.Array, factors: chex.Array, amounts: chex.Array) -> chex.Array:
    """Logarithm of the predicted times of tasks with features [B, Df] and [B, Da]. [B]."""
    size = factors.shape[1]
    return jnp.log(predicted(factors @ weights[:size], amounts @ weights[size:])[0])


def slopes(weights: chex.Array, factors: chex.Array, amounts: chex.Array) -> chex.Array:
    """Derivatives of `log_time` with respect to the weights. [B, D]."""
    size = factors.shape[1]
    time, grown = predicted(factors @ weights[:size], amounts @ weights[size:])
    return jnp.concatenate([factors * (grown / time)[:, None], amounts / time[:, None]], axis=1)
