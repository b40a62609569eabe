"""`factored`: the hybrid beyond the paper. It learns response times, not one value per joint action.

Algorithm 1's shape stays. *Direct experience*: every real step is kept, with every device's own response time (step 5
of Figure 1). *System model*: `factored_model`, fitted again after each step. *Planning*: an exact search through the
model's structure for the K best joint actions, one of which is tried for real. The policy is the same search under the
model's means, so no Q-values are needed: costs don't depend on earlier actions, hence a policy that minimises the next
cost is optimal, and Algorithm 1's Q would only be a slower copy of the model. The constraint is known and enters the
search: it may change at any time, and no step breaks it.

What to try follows from uncertainty (Thompson sampling): each device draws its own model from the posterior, so that
devices try different things at once, and of the K best joint actions under these models the one is taken whose reports
tell most. There is no warm-up: the first step is drawn from the prior.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from hl_jax.agents import factored_levels, factored_model, factored_reports
from hl_jax.agents.config import check_options, option
from hl_jax.agents.factored_model import Posterior, ResponseModel, Situation
from hl_jax.agents.world import Run, Totals, World, real_step
from hl_jax.structured import search
from hl_jax.structured.costs import Costs, Found

MODELS_DRAWN = 16  # to see how unsure a time is


@dataclasses.dataclass(frozen=True)
class FactoredConfig:
    """Constants of `factored`."""

    epochs: int = option(60, "epochs of the run", low=1)
    epoch_steps: int = option(1, "real steps between evaluations", low=1)
    k_best: int = option(8, "K, best joint actions under a sampled model, of which the most telling is tried", low=1)
    curiosity: float = option(
        0.25,
        "part of the steps that look for what other constraints may need, while any such time is unsure",
        low=0.0,
        high=1.0,
    )
    unsure_above: float = option(
        0.03, "a time is unsure above this standard deviation of its logarithm (or half the noise)", low=0.0
    )
    memory: int = option(128, "last real steps that the system model is fitted to; older ones are forgotten", low=1)
    surprise: float = option(
        6.0, "standard deviations from the prediction at which older reports of that node are dropped", low=0.0
    )
    least_change: float = option(0.2, "log of the change below which nothing is dropped, however certain", low=0.0)

    def __post_init__(self) -> None:
        check_options(self)


@chex.dataclass(frozen=True)
class FactoredState:
    """Everything that a run changes."""

    key: chex.PRNGKey
    obs: chex.Array  # [F] int32, the environment's current state
    situation: Situation  # the same, less what the last joint action itself put on the nodes' monitors
    levels: factored_levels.Levels  # what is known of both parts
    reports: factored_reports.Reports
    surprised: chex.Array  # [N + 2] devices, edge, cloud: +1 or -1 if last slower or faster than thought
    posterior: Posterior
    scale_ms: chex.Array  # mean (geometric) response time of the first step
    constraint: chex.Array  # %
    changes: chex.Array  # [] how often reality was found changed
    real_steps: chex.Array
    model_steps: chex.Array


def situation_of(obs: chex.Array, users: int) -> Situation:
    """Reads Table II's state ([3N + 6])."""
    devices, nodes = obs[: 3 * users].reshape(3, users), obs[3 * users :].reshape(3, 2)
    return Situation(flags=devices.T, level=nodes[0].astype(jnp.float32), memory=nodes[1], weak=nodes[2])


@dataclasses.dataclass(frozen=True)
class Factored:
    """The agent. `accuracy` [C] (%) of all choices and the first `constraint` (%) are known."""

    config: FactoredConfig
    accuracy: tuple[float, ...]
    constraint: float
    model: ResponseModel

    @property
    def epochs(self) -> int:
        return self.config.epochs

    @property
    def users(self) -> int:
        return self.model.users

    def init(self, key: chex.PRNGKey, obs: chex.Array) -> FactoredState:
        """The state before the first step; `obs` [F] is the environment's first; the key is consumed."""
        situation = situation_of(obs, self.users)
        factors, amounts = self.model.features(situation, jnp.zeros(self.users, jnp.int32))
        return FactoredState(
            key=key,
            obs=obs.astype(jnp.int32),
            situation=situation,
            levels=factored_levels.init(self.users, situation.level.astype(jnp.int32)),
            reports=factored_reports.init(self.config.memory, factors, amounts),
            surprised=jnp.zeros(self.users + 2),
            posterior=self.model.start(),
            scale_ms=jnp.float32(1.0),
            constraint=jnp.float32(self.constraint),
            changes=jnp.int32(0),
            real_steps=jnp.int32(0),
            model_steps=jnp.int32(0),
        )

    def plan(self, epoch: int) -> Any:
        """Nothing follows a schedule."""
        return ()

    # -- Planning -------------------------------------------------------------------------------------------------

    def costs(self, state: FactoredState, weights: chex.Array, situation: Situation, constraint: chex.Array) -> Costs:
        """What the search reads: predicted times (ms) under each device's own weights ([N, D])."""
        local, edge, cloud = self.model.tables(weights, situation)
        return Costs(
            local=local * state.scale_ms,
            edge=edge * state.scale_ms,
            cloud=cloud * state.scale_ms,
            accuracy=jnp.asarray(self.accuracy, jnp.float32),
            constraint=constraint,
        )

    def _information(self, posterior: Posterior, situation: Situation, action: chex.Array) -> chex.Array:
        """How much the reports on one joint action ([N]) would tell: log of prior over posterior variance, summed."""
        factors, amounts = self.model.features(situation, action)
        slopes = factored_model.slopes(posterior.mean, factors, amounts)
        spread = factored_model.solve_lower(posterior.factor, slopes.T)
        return jnp.sum(jnp.log1p(jnp.sum(spread**2, axis=0) / posterior.noise**2))

    def _worth(self, key: chex.PRNGKey, posterior: Posterior, state: FactoredState) -> Costs:
        """What a report on each place would tell, as costs: 1 where it tells most, more elsewhere.

        Only places count whose time is unsure and may turn out useful under some constraint: shorter than that of
        every local model at least as accurate. The tasks on one node tell the same thing, so they share its worth.
        Each device is asked about a random half of its places, lest all answer one question. The key is consumed.
        """
        draw_key, ask_key = jax.random.split(key)

        def times_under(weights: chex.Array) -> chex.Array:
            everyone = jnp.broadcast_to(weights, (self.users, weights.shape[0]))
            return jnp.concatenate(self.model.tables(everyone, state.situation), axis=1)  # [N, P]

        times = times_under(posterior.mean)
        drawn = factored_model.sample(draw_key, posterior, MODELS_DRAWN)
        unsure = jnp.std(jnp.log(jax.vmap(times_under)(drawn)), axis=0)
        models, rows = self.model.models, self.users + 1
        kinds = np.concatenate([np.arange(models), np.full(rows, models), np.full(rows, models + 1)])
        accuracy = np.array(self.accuracy)
        rivals = (accuracy[None, :models] >= accuracy[kinds][:, None]) & (
            np.arange(models)[None, :] != kinds[:, None]
        )  # [P, models]
        rival = jnp.min(jnp.where(rivals[None], times[:, None, :models], jnp.inf), axis=2)
        useful = (times * jnp.exp(-2.0 * unsure) < rival) & (
            unsure > jnp.maximum(self.config.unsure_above, 0.5 * posterior.noise)
        )
        asked = jax.random.bernoulli(ask_key, 0.5, times.shape)
        tasks = np.maximum(np.concatenate([np.ones(models), np.arange(rows), np.arange(rows)]), 1.0)
        worth = jnp.where(useful & asked, jnp.log1p((unsure / posterior.noise) ** 2), 0.0) / tasks[None, :]
        cost = 1.0 + jnp.max(worth) - worth
        return Costs(
            local=cost[:, :models],
            edge=cost[:, models : models + rows],
            cloud=cost[:, models + rows :],
            accuracy=jnp.asarray(self.accuracy, jnp.float32),
            constraint=state.constraint,
        )

    def suggest(self, state: FactoredState) -> tuple[FactoredState, chex.Array]:
        """Lines 24 to 28 of Algorithm 1: of the K best joint actions under sampled models the most telling ([N])."""
        key, hypothesis_key, sample_key, curious_key, worth_key = jax.random.split(state.key, 5)
        which = jax.random.categorical(hypothesis_key, state.posterior.evidence)
        posterior = jax.tree.map(lambda x: x[which], state.posterior)
        weights = factored_model.sample(sample_key, posterior, self.users)
        promising = self.costs(state, weights, state.situation, state.constraint)
        worth = self._worth(worth_key, factored_model.likeliest(state.posterior), state)
        curious = jax.random.uniform(curious_key) < self.config.curiosity
        curious &= (state.real_steps > 0) & (jnp.max(worth.local) > jnp.min(worth.local))
        costs = jax.tree.map(lambda a, b: jnp.where(curious, a, b), worth, promising)
        choices, k = len(self.accuracy), self.config.k_best
        found = search.k_best(costs, k, search.default_effort(self.users, choices, k))
        tell = jax.vmap(self._information, in_axes=(None, None, 0))(posterior, state.situation, found.actions)
        tell = jnp.where(jnp.isfinite(found.mean_ms), tell, -1.0)
        action = found.actions[jnp.where(curious, 0, jnp.argmax(tell))]
        return state.replace(key=key, model_steps=state.model_steps + 1), action

    def search(self, state: FactoredState, obs: chex.Array, constraint: chex.Array | None = None) -> Found:
        """The best joint action under the model's means in an observed state ([F]), with its bounds.

        The last joint action's own traces are taken off where `obs` is what was observed right after it. Anywhere else
        the levels count as background: which tasks are at the nodes isn't observed, and nobody says what ran before.

        Args:
          state: the agent's.
          obs: [F] of the environment.
          constraint: least mean accuracy, %; the state's where None. It may change without any new step.
        """
        seen = situation_of(obs, self.users)
        last = jnp.all(obs == state.obs)
        situation = seen.replace(level=jnp.where(last, state.situation.level, seen.level))
        mean = factored_model.likeliest(state.posterior).mean
        weights = jnp.broadcast_to(mean, (self.users, mean.shape[0]))
        wanted = state.constraint if constraint is None else jnp.asarray(constraint, jnp.float32)
        effort = search.default_effort(self.users, len(self.accuracy), 1)
        return search.best(self.costs(state, weights, situation, wanted), effort)

    def decide(self, state: FactoredState, obs: chex.Array, constraint: chex.Array | None = None) -> chex.Array:
        """The greedy joint action ([N] int32) in the observed state [F]; see `search`."""
        return self.search(state, obs, constraint).actions[0]

    # -- Direct experience and system model -------------------------------------------------------------------------

    def observe(
        self, state: FactoredState, action: chex.Array, response_ms: chex.Array, obs: chex.Array
    ) -> FactoredState:
        """Lines 11 to 13: keeps a real step's reports ([N] ms) and what is observed after it ([F])."""
        chex.assert_shape([action, response_ms], (self.users,))
        scale = jnp.where(state.real_steps == 0, jnp.exp(jnp.mean(jnp.log(response_ms))), state.scale_ms)
        factors, amounts = self.model.features(state.situation, action)
        row = factored_reports.Reports(
            factors=factors,
            amounts=amounts,
            logs=jnp.log(response_ms / scale),
            kind=jnp.maximum(action - self.model.models + 1, 0),
            trust=jnp.ones(self.users),
            held=jnp.zeros(self.users, bool),
        )
        limits = (self.config.surprise, self.config.least_change)
        signs = factored_reports.surprises(state.posterior, row, *limits)
        signs = jnp.where(state.real_steps > 0, signs, 0.0)
        reports, row, surprised, changed = factored_reports.judge(state.reports, row, signs, state.surprised)
        slot = state.real_steps % self.config.memory
        reports = jax.tree.map(lambda old, new: old.at[slot].set(new), reports, row)
        state = state.replace(
            reports=reports,
            surprised=surprised,
            changes=state.changes + changed,
            scale_ms=scale,
            real_steps=state.real_steps + 1,
        )
        situation = situation_of(obs, self.users)
        tasks = jnp.stack([jnp.sum(action == self.model.models), jnp.sum(action == self.model.models + 1)])
        seen = situation.level.astype(jnp.int32)
        levels = factored_levels.update(state.levels, tasks, seen, signs[self.users :] != 0.0)
        situation = situation.replace(level=factored_levels.background(levels))
        return state.replace(obs=obs.astype(jnp.int32), situation=situation, levels=levels)

    def fit_model(self, state: FactoredState) -> FactoredState:
        """Lines 18 to 20: the system model, fitted to all reports that still count."""
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), state.reports)
        posterior = self.model.fit(state.posterior, flat.factors, flat.amounts, flat.logs, flat.trust)
        return state.replace(posterior=posterior)

    def epoch(self, world: World, run: Run, plan: Any) -> tuple[Run, dict[str, chex.Array]]:
        """Real steps, each suggested by planning. Reports the noise found, and how often reality has changed."""

        def step(run: Run) -> Run:
            agent, action = self.suggest(run.agent)
            run, obs, info = real_step(world, run, action)
            return run.replace(agent=self.fit_model(self.observe(agent, action, info["response_ms"], obs)))

        run = world.repeat(self.config.epoch_steps, step, run.replace(totals=Totals.zero()))
        likeliest = factored_model.likeliest(run.agent.posterior)
        return run, {"model_noise": likeliest.noise, "changes": run.agent.changes.astype(jnp.float32)}


def under(state: FactoredState, constraint: float) -> FactoredState:
    """The same state with another least mean accuracy (%) asked of it; what was learned holds as it is."""
    return state.replace(constraint=jnp.full_like(state.constraint, constraint))


def make(
    config: FactoredConfig,
    users: int,
    accuracy: tuple[float, ...],
    constraint: float,
    prior: factored_model.Prior | None = None,
) -> Factored:
    """The agent for `users` devices.

    Args:
      config: its constants.
      users: N.
      accuracy: % of each of the C choices, the local models first, then edge and cloud.
      constraint: least mean accuracy, %.
      prior: of the system model, instead of the default.

    Raises:
      ValueError: if there are no devices or fewer than three choices.
    """
    if users < 1:
        raise ValueError(f"--users: expected at least 1, found {users}")
    if len(accuracy) < 3:
        raise ValueError(f"choices: expected at least a local model, edge and cloud, found {len(accuracy)}")
    model = ResponseModel(users=users, accuracy=tuple(accuracy[:-2]), prior=prior or factored_model.Prior())
    return Factored(config=config, accuracy=tuple(accuracy), constraint=constraint, model=model)
