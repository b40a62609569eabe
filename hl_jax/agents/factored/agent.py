"""`factored`: the hybrid beyond the paper. It learns response times, not one value per joint action.

Algorithm 1's shape stays. *Direct experience*: every real step is kept, with every device's own response time (step 5
of Figure 1). *System model*: `factored_model`, fitted again after each step. *Planning*: an exact search through the
model's structure for the K best joint actions, one of which is tried for real. The policy is the same search under the
model's most probable times, with caution where they are unsure. No Q-values are needed: costs don't depend on earlier
actions, hence a policy that minimises the next cost is optimal, and Algorithm 1's Q would only be a slower copy of the
model. The constraint is known and enters the search: it may change at any time, and no step breaks it.

What to try follows from uncertainty (Thompson sampling): each device draws its own model from the posterior, so that
devices try different things at once, and of the K best joint actions under these models the one is taken whose reports
are worth most beside what it costs. There is no warm-up: the first step is drawn from the prior. Nor is there an end:
reports fade, so that what was learned long ago is asked for again. What all that may cost is an account
(`factored_exploring`).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import chex
import jax
import jax.numpy as jnp

from hl_jax.agents.factored import availability as factored_availability
from hl_jax.agents.factored import exploring as factored_exploring
from hl_jax.agents.factored import levels as factored_levels
from hl_jax.agents.factored import linear as factored_linear
from hl_jax.agents.factored import model as factored_model
from hl_jax.agents.factored import posterior as posteriors
from hl_jax.agents.factored import reports as factored_reports
from hl_jax.agents.factored.config import FactoredConfig
from hl_jax.agents.factored.model import ResponseModel, Situation
from hl_jax.agents.factored.posterior import Posterior
from hl_jax.agents.world import Run, Totals, World, real_step
from hl_jax.choices import local_models, node_tasks
from hl_jax.objective import PENALTY_FACTOR
from hl_jax.scenario import Scenario
from hl_jax.search import structured
from hl_jax.search.costs import Costs, Found, mean_response_ms

UNKNOWN = 0.1  # standard deviation of a time's logarithm from which on it is as good as unknown


@chex.dataclass(frozen=True)
class FactoredState:
    """Everything that a run changes."""

    key: chex.PRNGKey
    obs: chex.Array  # [F] int32, the environment's current state
    situation: Situation  # the same, less what the last joint action itself put on the nodes' monitors
    levels: factored_levels.Levels  # what is known of both parts
    highest: chex.Array  # [2] background level of edge and cloud so far: more than that is what tasks put there
    reports: factored_model.Reports  # the recent ones
    summary: factored_model.Summary  # what earlier ones say
    surprised: chex.Array  # [N + 2] devices, edge, cloud: +1 or -1 if last slower or faster than thought
    posterior: Posterior
    scale_ms: chex.Array  # mean (geometric) response time of the first step
    account: factored_exploring.Account
    available: factored_availability.Availability
    constraint: chex.Array  # %
    changes: chex.Array  # [] how often reality was found changed
    real_steps: chex.Array
    model_steps: chex.Array


def situation_of(obs: chex.Array, users: int) -> Situation:
    """Reads Table II's state ([3N + 6])."""
    devices, nodes = obs[: 3 * users].reshape(3, users), obs[3 * users :].reshape(3, 2)
    return Situation(flags=devices.T, level=nodes[0].astype(jnp.float32), memory=nodes[1], weak=nodes[2])


def _geometric_mean(times: chex.Array, without: chex.Array) -> chex.Array:
    """Of some times [N], those `without` [N] bool left out. []."""
    logs = jnp.log(times)
    some = jnp.sum(jnp.where(without, 0.0, logs)) / jnp.maximum(jnp.sum(~without), 1)
    return jnp.exp(jnp.where(jnp.any(without), some, jnp.mean(logs)))


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
    def penalty_factor(self) -> float:
        """Of an evaluation's cost; the agent itself keeps every constraint."""
        return PENALTY_FACTOR

    @property
    def users(self) -> int:
        return self.model.users

    @property
    def choices(self) -> int:
        return len(self.accuracy)

    @property
    def recent_steps(self) -> int:
        """Real steps whose reports are kept one by one."""
        return -(-self.config.recent // self.users)

    def init(self, key: chex.PRNGKey, obs: chex.Array) -> FactoredState:
        """The state before the first step; `obs` [F] is the environment's first; the key is consumed."""
        situation = situation_of(obs, self.users)
        factors, amounts = self.model.features(situation, jnp.zeros(self.users, jnp.int32))
        return FactoredState(
            key=key,
            obs=obs.astype(jnp.int32),
            situation=situation,
            levels=factored_levels.init(self.users, situation.level.astype(jnp.int32)),
            highest=situation.level,
            reports=factored_reports.init(self.recent_steps, factors, amounts),
            summary=self.model.no_summary(),
            surprised=jnp.zeros(self.users + 2),
            posterior=self.model.start(),
            scale_ms=jnp.float32(1.0),
            account=factored_exploring.open_account(),
            available=factored_availability.init(self.users, len(self.accuracy)),
            constraint=jnp.float32(self.constraint),
            changes=jnp.int32(0),
            real_steps=jnp.int32(0),
            model_steps=jnp.int32(0),
        )

    def plan(self, epoch: int) -> Any:
        """Nothing follows a schedule."""
        return ()

    def under(self, state: FactoredState, constraint: chex.Array | float) -> FactoredState:
        """The same state with another least mean accuracy (%) asked of it; what was learned holds as it is."""
        return state.replace(constraint=jnp.full_like(state.constraint, constraint))

    # -- Planning -------------------------------------------------------------------------------------------------

    def costs(self, state: FactoredState, weights: chex.Array, situation: Situation, constraint: chex.Array) -> Costs:
        """What the search reads: times (ms) predicted under weights ([N, D], or [1, D] for all devices)."""
        return self._priced(state, state.scale_ms * self.model.times(weights, situation), constraint)

    def _priced(self, state: FactoredState, times_ms: chex.Array, constraint: chex.Array) -> Costs:
        """Times of every device at every place ([N, P]), where it is there and the place works."""
        local, edge, cloud = self.model.tables(times_ms)
        known = jnp.asarray(self.accuracy, jnp.float32)
        costs = Costs(local=local, edge=edge, cloud=cloud, accuracy=known, constraint=constraint)
        return factored_availability.priced(state.available, costs, state.scale_ms)

    def _information(self, posterior: Posterior, situation: Situation, action: chex.Array) -> chex.Array:
        """How much the reports on one joint action ([N]) would tell: log of prior over posterior variance, summed."""
        factors, amounts = self.model.features(situation, action)
        slopes = factored_model.slopes(posterior.mean, factors, amounts)
        spread = factored_linear.solve_transposed(posterior.root, slopes.T)
        return jnp.sum(jnp.log1p(jnp.sum(spread**2, axis=0) / posterior.noise**2))

    def _looks(self, key: chex.PRNGKey, state: FactoredState, expected: Costs, least_ms: chex.Array) -> Costs:
        """What each choice is expected to cost less what a report on it is worth, in costs of the best joint action.

        Shifted so that nothing is negative; where nothing is worth a look, the expected costs. The key is consumed.
        """
        worth = factored_exploring.worth(
            key,
            self.model,
            state.posterior,
            state.situation,
            self.accuracy,
            self.config.unsure_above,
            factored_exploring.learning(state.account),
        )
        # Costs are means over devices, information is a sum.
        earns = factored_exploring.price(state.account, self.users) * self.users * worth
        local, edge, cloud = self.model.tables(jnp.max(earns) - earns)
        return expected.replace(
            local=expected.local / least_ms + local,
            edge=expected.edge / least_ms + edge,
            cloud=expected.cloud / least_ms + cloud,
        )

    def _find(self, costs: Costs, k: int = 1) -> Found:
        return structured.k_best(costs, k, structured.default_effort(self.users, len(self.accuracy), k))

    def _sampled(
        self, hypothesis_key: chex.PRNGKey, sample_key: chex.PRNGKey, state: FactoredState
    ) -> tuple[Posterior, Costs]:
        """A hypothesis, and costs under a model that each device draws from its posterior. The keys are consumed."""
        which = jax.random.categorical(hypothesis_key, state.posterior.evidence)
        drawn = jax.tree.map(lambda x: x[which], state.posterior)
        weights = posteriors.sample(sample_key, drawn, self.users)
        return drawn, self.costs(state, weights, state.situation, state.constraint)

    def _most_telling(self, state: FactoredState, drawn: Posterior, found: Found) -> chex.Array:
        """Which of the K best joint actions tells most beside what it costs. [] index."""
        tell = jax.vmap(self._information, in_axes=(None, None, 0))(drawn, state.situation, found.actions)
        dearer = jnp.where(jnp.isfinite(found.mean_ms), found.mean_ms / found.mean_ms[0], jnp.inf)
        return jnp.argmax(jnp.maximum(state.account.credit, 0.0) * tell - dearer)

    def suggest(self, state: FactoredState) -> tuple[FactoredState, chex.Array]:
        """Lines 24 to 28 of Algorithm 1: of the K best joint actions under sampled models the most telling ([N])."""
        key, hypothesis_key, sample_key, curious_key, look_key = jax.random.split(state.key, 5)
        drawn, sampled = self._sampled(hypothesis_key, sample_key, state)
        likeliest = posteriors.likeliest(state.posterior).mean
        expected = self.costs(state, likeliest[None, :], state.situation, state.constraint)
        greedy = self._find(expected)
        least = greedy.mean_ms[0]
        look = (jax.random.uniform(curious_key) < self.config.curiosity) & (state.real_steps > 0)
        looks = self._looks(look_key, state, expected, least)
        found = self._find(jax.tree.map(lambda a, b: jnp.where(look, a, b), looks, sampled), self.config.k_best)
        action = found.actions[jnp.where(look, 0, self._most_telling(state, drawn, found))]
        excess = jnp.maximum(mean_response_ms(expected, action) / least - 1.0, 0.0)
        tried = factored_exploring.affordable(state.account, excess, look)
        spent = jnp.where(tried, excess, 0.0)
        account = factored_exploring.settle(state.account, spent, self.config.looking_again)
        state = state.replace(key=key, model_steps=state.model_steps + 1, account=account)
        return state, jnp.where(tried, action, greedy.actions[0])

    def _cautious(self, state: FactoredState, situation: Situation, constraint: chex.Array) -> Costs:
        """The most probable times (ms), longer the less sure they are, once what was lent to learning is paid back.

        Of many joint actions the one that looks best is often one whose times are underrated. What a node's level is
        above its highest background so far was put there by tasks, and makes nothing less sure.
        """
        caution = self.config.caution * jnp.clip(1.0 - state.account.loan, 0.0, 1.0)
        best = posteriors.likeliest(state.posterior)
        level = jnp.minimum(situation.level, state.highest)
        spread = self.model.unsure(best, situation.replace(level=level))
        longer = jnp.exp(caution * jnp.minimum(spread, UNKNOWN))
        times = state.scale_ms * self.model.times(best.mean[None, :], situation) * longer
        return self._priced(state, times, constraint)

    def search(self, state: FactoredState, obs: chex.Array, constraint: chex.Array | None = None) -> Found:
        """The best joint action under the model, cautiously, in an observed state ([F]), with its bounds.

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
        wanted = state.constraint if constraint is None else jnp.asarray(constraint, jnp.float32)
        return self._find(self._cautious(state, situation, wanted))

    def decide(self, state: FactoredState, obs: chex.Array, constraint: chex.Array | None = None) -> chex.Array:
        """The greedy joint action ([N] int32) in the observed state [F]; see `search`."""
        return self.search(state, obs, constraint).actions[0]

    # -- Direct experience and system model -------------------------------------------------------------------------

    def observe(
        self,
        state: FactoredState,
        action: chex.Array,
        response_ms: chex.Array,
        obs: chex.Array,
        lost: chex.Array | None = None,
        gone: chex.Array | None = None,
    ) -> FactoredState:
        """Lines 11 to 13: keeps a real step's reports ([N] ms) and what is observed after it ([F]).

        A request that was `lost` ([N] bool) reports no time, whatever stands in `response_ms`; a device that is `gone`
        ([N] bool, all lost too) didn't put its task anywhere. None: nobody's.
        """
        lost, gone = (jnp.zeros(self.users, bool) if each is None else each for each in (lost, gone))
        chex.assert_shape([action, response_ms, lost, gone], (self.users,))
        first = state.available.answered == 0
        scale = jnp.where(first & jnp.any(~lost), _geometric_mean(response_ms, lost), state.scale_ms)
        available = factored_availability.update(state.available, action, lost, gone)
        action = jnp.where(gone, 0, action)
        row = self._row(state, action, response_ms / scale, lost)
        limits = (self.config.surprise, self.config.least_change)
        signs = factored_reports.surprises(state.posterior, row, *limits)
        signs = jnp.where(first, 0.0, signs)
        reports, row, surprised, changed = factored_reports.judge(state.reports, row, signs, state.surprised, lost)
        slot = state.real_steps % self.recent_steps
        leaving = jax.tree.map(lambda kept: kept[slot], reports)
        forgotten = self.model.weights_of(changed)
        fade = math.exp(-1.0 / self.config.memory)
        summary = self.model.fold(state.summary, state.posterior, leaving, fade, forgotten)
        reports = jax.tree.map(lambda old, new: old.at[slot].set(new), reports, row)
        state = state.replace(
            reports=reports,
            summary=summary,
            surprised=surprised,
            account=factored_exploring.afresh(state.account, jnp.any(changed)),
            available=available,
            changes=state.changes + jnp.any(changed),
            scale_ms=scale,
            real_steps=state.real_steps + 1,
        )
        return self._seen(state, action, obs, signs[self.users :] != 0.0)

    def _seen(self, state: FactoredState, action: chex.Array, obs: chex.Array, surprising: chex.Array) -> FactoredState:
        """Takes in what is observed ([F]) after a joint action ([N]); `surprising`: reports of which nodes ([2])."""
        situation = situation_of(obs, self.users)
        tasks = jnp.stack(node_tasks(action, self.model.models))
        levels = factored_levels.update(state.levels, tasks, situation.level.astype(jnp.int32), surprising)
        situation = situation.replace(level=factored_levels.background(levels))
        highest = jnp.maximum(state.highest, situation.level)
        return state.replace(obs=obs.astype(jnp.int32), situation=situation, levels=levels, highest=highest)

    def _row(
        self, state: FactoredState, action: chex.Array, response: chex.Array, lost: chex.Array
    ) -> factored_model.Reports:
        """One step's reports ([N] over the scale); what is expected stands for a lost one, lest it surprise."""
        factors, amounts = self.model.features(state.situation, action)
        expected = factored_model.log_time(posteriors.likeliest(state.posterior).mean, factors, amounts)
        return factored_model.Reports(
            factors=factors,
            amounts=amounts,
            logs=jnp.where(lost, expected, jnp.log(response)),
            kind=jnp.maximum(action - self.model.models + 1, 0),
            trust=jnp.ones(self.users),
            held=jnp.zeros(self.users, bool),
        )

    def fit_model(self, state: FactoredState) -> FactoredState:
        """Lines 18 to 20: the system model, fitted to all reports that still count."""
        recent = jax.tree.map(lambda kept: kept.reshape(-1, *kept.shape[2:]), state.reports)
        posterior = self.model.fit(state.posterior, state.summary, recent)
        return state.replace(posterior=posterior)

    def epoch(self, world: World, run: Run, plan: Any) -> tuple[Run, dict[str, chex.Array]]:
        """Real steps, each suggested by planning. Reports the noise found, and how often reality has changed."""

        def step(run: Run) -> Run:
            agent, action = self.suggest(run.agent)
            run, obs, info = real_step(world, run, action)
            lost, gone = info.get("lost"), info.get("gone")  # in the simulator nothing ever is
            return run.replace(agent=self.fit_model(self.observe(agent, action, info["response_ms"], obs, lost, gone)))

        run = world.repeat(self.config.epoch_steps, step, run.replace(totals=Totals.zero()))
        likeliest = posteriors.likeliest(run.agent.posterior)
        return run, {"model_noise": likeliest.noise, "changes": run.agent.changes.astype(jnp.float32)}


def sized(
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
    model = ResponseModel(
        users=users, accuracy=tuple(accuracy[: local_models(len(accuracy))]), prior=prior or factored_model.Prior()
    )
    return Factored(config=config, accuracy=tuple(accuracy), constraint=constraint, model=model)


def make(config: FactoredConfig, scenario: Scenario) -> Factored:
    """The agent for a scenario, which tells it how many devices there are, how accurate choices are, what is asked.

    Raises:
      ValueError: if devices can't offload.
    """
    if not scenario.offloading:
        raise ValueError("--knobs: expected both or offloading for this agent, found models")
    if scenario.traffic is not None:
        raise ValueError(f"traffic: expected none for lock-step planning, found some in {scenario.name}")
    return sized(config, scenario.users, scenario.choice_accuracy(), scenario.constraint)
