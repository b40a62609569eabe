"""`factored` under traffic: it learns what tasks take and when they come, and plans by rollouts of its own simulation.

Algorithm 1's shape stays. *Direct experience*: a control period's reports tell computing, waiting and the way apart.
*System model*: the event simulation (`hl_jax.traffic`) with learned numbers, `tables` for times and `demand` for
requests. *Planning*: a formula's K best joint decisions, rolled out. What to try follows from uncertainty (Thompson
sampling): the best joint decision under times drawn from the posterior is taken where an account can pay what it is
expected to cost beyond the best one, waiting in overloaded queues included.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp

from hl_jax.agents.factored import availability as factored_availability
from hl_jax.agents.factored import demand as factored_demand
from hl_jax.agents.factored import rollouts, tables
from hl_jax.agents.factored.config import FactoredConfig
from hl_jax.agents.factored.rollouts import Asked, Learned
from hl_jax.agents.world import Run, Totals, World, real_step
from hl_jax.objective import PENALTY_FACTOR, meets
from hl_jax.scenario import Scenario
from hl_jax.search.costs import Costs, mean_response_ms

NOISE = 0.03  # standard deviation of the logarithm of a computing time, in rollouts
TYPICAL_MS = 100.0  # of a time before any is known
LEAST_MS = 1.0  # added to ways before their logarithm is taken: a device's own results may have none
PLACES = 3  # whose ways differ: the device itself, edge, cloud
OWN_MODEL, OWN_NODE = 0.1, 0.02  # standard deviations of what belongs to one device's time with a model, at a node
REQUESTS = 2400  # of all devices in a rollout; within limits, as many of each
FEWEST, MOST = 24, 160
DRAWN_FIRST = 4  # control periods in which all devices try something
AT_FIRST, AT_ONCE = 1.0, 0.35  # beyond the best, that one of these periods may cost, and one later on
HOPE = 1.5  # standard deviations by which a time is hoped to be shorter than thought


def _computing_prior(models: int) -> tables.Prior:
    return tables.Prior(
        column=1.2,
        row=0.7,
        own=(OWN_MODEL,) * models + (OWN_NODE,) * 2,
        by_device=(True,) * models + (False,) * 2,
        report=0.05,
        least=0.005,
    )


WAYS = tables.Prior(column=1.5, row=0.5, own=(2.0, 0.2, 0.2), by_device=(True,) * PLACES, report=0.05, least=0.01)


@chex.dataclass(frozen=True)
class StandingState:
    """Everything that a run changes."""

    key: chex.PRNGKey
    obs: chex.Array  # [F] int32
    best: chex.Array  # [N] what planning found best last
    computing: tables.Table  # [N, C]
    ways: tables.Table  # [N, 3]
    demand: factored_demand.Demand
    available: factored_availability.Availability
    credit: chex.Array  # [] what may be spent on trying, in costs of the best joint decision
    constraint: chex.Array  # %
    changes: chex.Array  # [] how often reality was found changed
    real_steps: chex.Array
    model_steps: chex.Array


@dataclasses.dataclass(frozen=True)
class Standing:
    """The agent."""

    config: FactoredConfig
    asked: Asked
    constraint: float = dataclasses.field(compare=False, repr=False, default=0.0)

    @property
    def epochs(self) -> int:
        return self.config.epochs

    @property
    def penalty_factor(self) -> float:
        """Of an evaluation's cost; the agent itself keeps every constraint."""
        return PENALTY_FACTOR

    @property
    def users(self) -> int:
        return self.asked.users

    @property
    def choices(self) -> int:
        return len(self.asked.accuracy)

    @property
    def accuracy(self) -> tuple[float, ...]:
        return self.asked.accuracy

    @property
    def weights(self) -> tuple[float, ...]:
        """How much each device counts in the mean accuracy ([N]; none: all as much)."""
        return self.asked.weights

    def init(self, key: chex.PRNGKey, obs: chex.Array) -> StandingState:
        """The state before the first control period; the key is consumed."""
        typical = jnp.log(TYPICAL_MS)
        return StandingState(
            key=key,
            obs=obs.astype(jnp.int32),
            best=jnp.full(self.users, -1, jnp.int32),
            computing=tables.empty(jnp.full(self.choices, typical), self.users),
            ways=tables.empty(jnp.array([jnp.log(LEAST_MS), typical, typical]), self.users),
            demand=factored_demand.nothing(self.users),
            available=factored_availability.init(self.users, self.choices),
            credit=jnp.float32(self.config.exploring_budget),
            constraint=jnp.float32(self.constraint),
            changes=jnp.int32(0),
            real_steps=jnp.int32(0),
            model_steps=jnp.int32(0),
        )

    def plan(self, epoch: int) -> Any:
        """Nothing follows a schedule."""
        return ()

    def under(self, state: StandingState, constraint: chex.Array | float) -> StandingState:
        """The same state with another least mean accuracy (%) asked of it; what was learned holds as it is."""
        return state.replace(constraint=jnp.full_like(state.constraint, constraint))

    # -- System model ---------------------------------------------------------------------------------------------

    @property
    def _priors(self) -> tuple[tables.Prior, tables.Prior]:
        return _computing_prior(self.asked.models), WAYS

    def _learned(self, state: StandingState, computing: chex.Array, ways: chex.Array) -> Learned:
        """The simulation's numbers from logarithms of computing times ([N, C]) and ways ([N, 3])."""
        way = jnp.maximum(jnp.exp(ways) - LEAST_MS, 0.0)
        own = jnp.repeat(way[:, :1], self.asked.models, axis=1)
        return Learned(
            computing_ms=jnp.exp(computing),
            way_ms=jnp.concatenate([own, way[:, 1:]], axis=1),
            per_ms=factored_demand.per_ms(state.demand),
            variation=factored_demand.variation(state.demand),
            since_ms=state.demand.since_ms,
        )

    def model(self, state: StandingState) -> Learned:
        """The simulation with the most probable numbers."""
        each = zip((state.computing, state.ways), self._priors, strict=True)
        return self._learned(state, *(tables.means(table, prior, tables.belief(table, prior)) for table, prior in each))

    def _drawn(self, key: chex.PRNGKey, state: StandingState) -> Learned:
        """The simulation with numbers drawn from the posterior; the key is consumed."""
        keys = jax.random.split(key)
        each = zip(keys, (state.computing, state.ways), self._priors, strict=True)
        drawn = [tables.sample(one, table, prior, tables.belief(table, prior)) for one, table, prior in each]
        return self._learned(state, *drawn)

    def _hoped(self, state: StandingState) -> Learned:
        """The simulation with numbers as good as they may well be."""
        each = zip((state.computing, state.ways), self._priors, strict=True)
        beliefs = [(table, prior, tables.belief(table, prior)) for table, prior in each]
        return self._learned(state, *(tables.means(*one) - HOPE * jnp.sqrt(tables.variances(*one)) for one in beliefs))

    def _priced(self, state: StandingState, learned: Learned) -> Costs:
        costs = rollouts.formula(self.asked, learned, NOISE, state.constraint)
        return factored_availability.priced(state.available, costs, jnp.mean(learned.computing_ms))

    # -- Planning -------------------------------------------------------------------------------------------------

    def _best(self, key: chex.PRNGKey, state: StandingState, learned: Learned, costs: Costs) -> chex.Array:
        """Of the formula's K best joint decisions and the standing one the best in rollouts ([N]).

        The key is consumed.
        """
        actions, there = rollouts.candidates(costs, self.config.rolled_out, self.users)
        count = min(max(REQUESTS // self.users, FEWEST), MOST)
        stands = jnp.all(state.best >= 0)
        standing = jnp.where(stands, state.best, actions[0])
        usable = mean_response_ms(costs, standing) < factored_availability.DEARER * jnp.mean(learned.computing_ms)
        stands &= usable & meets(self.asked.mean_accuracy(standing), state.constraint)
        every = jnp.concatenate([actions, standing[None]])
        worth = rollouts.rolled_out(key, self.asked, learned, every, NOISE, self.config.rollouts, count)
        return every[rollouts.preferred(worth, jnp.append(there, stands))]

    def suggest(self, state: StandingState) -> tuple[StandingState, chex.Array]:
        """Lines 24 to 28 of Algorithm 1: what to do in the next control period ([N])."""
        key, plan_key, draw_key, which_key = jax.random.split(state.key, 4)
        learned = self.model(state)
        costs = self._priced(state, learned)
        best = self._best(plan_key, state, learned, costs)
        tried, excess = self._tried(draw_key, which_key, state, learned, costs, mean_response_ms(costs, best))
        affordable = jnp.isfinite(excess)
        credit = state.credit - jnp.where(affordable, excess, 0.0) + self.config.looking_again
        state = state.replace(
            key=key,
            best=best,
            model_steps=state.model_steps + 1,
            credit=jnp.minimum(credit, self.config.exploring_budget),
        )
        return state, jnp.where(affordable, tried, best)

    def _tried(
        self,
        draw_key: chex.PRNGKey,
        which_key: chex.PRNGKey,
        state: StandingState,
        learned: Learned,
        costs: Costs,
        least_ms: chex.Array,
    ) -> tuple[chex.Array, chex.Array]:
        """A joint decision ([N]) to learn from, and what it is expected to cost beyond the best; infinite: too much.

        Of the best ones under other numbers the first that can be paid. At first these are drawn from the posterior;
        later one device hopes for the best of what it doesn't know, which can't go far wrong. The keys are consumed.
        """
        early = state.real_steps < DRAWN_FIRST
        drawn = self._drawn(draw_key, state)
        one = jnp.arange(self.users) == jax.random.randint(which_key, (), 0, self.users)
        hopes = self._hoped(state)

        mixed = jax.tree.map(
            lambda known, sampled, hoped: jnp.where(early, sampled, jnp.where(one[:, None], hoped, known)),
            (learned.computing_ms, learned.way_ms),
            (drawn.computing_ms, drawn.way_ms),
            (hopes.computing_ms, hopes.way_ms),
        )
        mixed = learned.replace(computing_ms=mixed[0], way_ms=mixed[1])
        actions, there = rollouts.candidates(self._priced(state, mixed), self.config.k_best, self.users)
        # Of missed deadlines a period's worth is that all are missed: the best decision may miss none.
        unit = jnp.float32(self.asked.deadline_ms) if self.asked.objective == "misses" else least_ms
        excess = (jax.vmap(lambda action: mean_response_ms(costs, action))(actions) - least_ms) / unit
        excess = jnp.where(state.real_steps == 0, 0.0, jnp.maximum(excess, 0.0))
        most = jnp.minimum(jnp.where(early, AT_FIRST, AT_ONCE), state.credit)
        payable = there & (excess <= jnp.maximum(most, 1e-6))
        first = jnp.argmax(payable)
        return actions[first], jnp.where(payable[first], excess[first], jnp.inf)

    def decide(self, state: StandingState, obs: chex.Array) -> chex.Array:
        """The best joint decision ([N] int32) as far as is known; nothing of it is observed beforehand."""
        del obs
        learned = self.model(state)
        key = jax.random.fold_in(jax.random.key(0), state.real_steps)
        return self._best(key, state, learned, self._priced(state, learned))

    # -- Direct experience ------------------------------------------------------------------------------------------

    def _surprised(
        self, table: tables.Table, prior: tables.Prior, column: chex.Array, log_time: chex.Array, count: chex.Array
    ) -> tuple[tables.Table, chex.Array]:
        """The table without what this period's reports belie, and whether anything was."""
        known = tables.belief(table, prior)
        rows = jnp.arange(self.users)
        expected = tables.means(table, prior, known)[rows, column]
        spread = tables.variances(table, prior, known)[rows, column] + tables.report_variance(prior, count)
        error = log_time - expected
        far = jnp.abs(error) > jnp.maximum(self.config.surprise * jnp.sqrt(spread), self.config.least_change)
        seen = (count > 0) & (table.precision[rows, column] > 0.0)
        far &= seen
        # What most of a column's reports say is the column's: the node has changed. Else it is the device's.
        columns = table.level.shape[0]
        here = column[:, None] == jnp.arange(columns)[None, :]
        told, belied = jnp.sum(here & seen[:, None], axis=0), jnp.sum(here & far[:, None], axis=0)
        common = (belied > 0) & (2 * belied >= told) & (told > 1)
        forgotten = far[:, None] | common[None, :]
        kept = jnp.where(forgotten, 0.0, 1.0)
        return tables.faded(table, kept), jnp.any(far)

    def observe(
        self,
        state: StandingState,
        action: chex.Array,
        info: dict[str, chex.Array],
        obs: chex.Array,
        period_ms: float | chex.Array,
    ) -> StandingState:
        """Lines 11 to 13: takes in a control period's reports and what is observed after it ([F])."""
        chex.assert_shape(action, (self.users,))
        done = info["done"].astype(jnp.float32)
        place = jnp.maximum(action - self.asked.models + 1, 0)
        logs = (
            jnp.log(jnp.maximum(info["computing_ms"], 1e-6)),
            jnp.log(jnp.maximum(info["way_ms"], 0.0) + LEAST_MS),
        )
        fresh = state.real_steps == 0
        found, changes = [], jnp.bool_(False)
        for table, prior, column, log_time in zip(
            (state.computing, state.ways), self._priors, (action, place), logs, strict=True
        ):
            typical = jnp.sum(jnp.where(done > 0, log_time, 0.0)) / jnp.maximum(jnp.sum(done > 0), 1)
            level = jnp.where(fresh & jnp.any(done > 0) & (prior is not WAYS), typical, table.level)
            table = table.replace(level=level)
            table, changed = self._surprised(table, prior, column, log_time, done)
            fades = 1.0 - 1.0 / self.config.memory_periods
            found.append(tables.add(tables.faded(table, fades), prior, column, log_time, done))
            changes |= changed
        nobody = jnp.zeros(self.users, bool)
        budget = jnp.where(changes, jnp.maximum(state.credit, 0.5 * self.config.exploring_budget), state.credit)
        return state.replace(
            obs=obs.astype(jnp.int32),
            computing=found[0],
            ways=found[1],
            demand=factored_demand.update(state.demand, period_ms, info),
            available=factored_availability.update(state.available, action, info["lost"] & ~info["gone"], nobody),
            credit=budget,
            changes=state.changes + changes,
            real_steps=state.real_steps + 1,
        )

    def epoch(self, world: World, run: Run, plan: Any) -> tuple[Run, dict[str, chex.Array]]:
        """Control periods, each under a suggested joint decision. Reports how often reality has changed."""

        def step(run: Run) -> Run:
            agent, action = self.suggest(run.agent)
            run, obs, info = real_step(world, run, action)
            return run.replace(agent=self.observe(agent, action, info, obs, info["elapsed_ms"]))

        run = world.repeat(self.config.epoch_steps, step, run.replace(totals=Totals.zero()))
        return run, {
            "changes": (run.agent.changes + run.agent.demand.changes).astype(jnp.float32),
            "credit": run.agent.credit,
        }


def make(config: FactoredConfig, scenario: Scenario) -> Standing:
    """The agent for a scenario with traffic.

    It is told the structure: devices, slots, what is asked, accuracies and how much each device counts in their mean.

    Raises:
      ValueError: if conditions change in a way that reports don't tell it, or nothing can be offloaded.
    """
    traffic = scenario.traffic
    if traffic is None:
        raise ValueError(f"traffic: expected a scenario with some, found none in {scenario.name}")
    if not scenario.offloading:
        raise ValueError("--knobs: expected both or offloading for this agent, found models")
    if scenario.dynamics is not None:
        raise ValueError("dynamics: expected none for factored under traffic, found some")
    asked = Asked(
        users=scenario.users,
        accuracy=scenario.choice_accuracy(),
        weights=scenario.accuracy_weights,
        slots=(1, scenario.edge.cores, scenario.cloud.cores),
        period_ms=traffic.period_ms,
        deadline_ms=1e9 if traffic.deadline_ms is None else traffic.deadline_ms,
        lost_ms=traffic.counted_ms,
        gives_up=traffic.late == "dropped",
        objective=traffic.objective_code,
    )
    return Standing(config=config, asked=asked, constraint=scenario.constraint)
