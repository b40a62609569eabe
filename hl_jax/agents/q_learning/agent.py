"""Tabular Q-learning over joint actions (the paper's AutoScale row), as a compiled loop.

The table has a row for every state that has occurred, made when it first does, so that it stays small: the states of
Table II are many, those that a fleet shows are few. A row's minimum is kept in blocks: one step reads and mends
about sqrt(A) numbers instead of A.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from hl_jax.agents.q_learning.config import QLearningConfig
from hl_jax.agents.world import Penalised, Run, Totals, World, real_step
from hl_jax.choices import decode, encode, joint_actions
from hl_jax.objective import meets
from hl_jax.scenario import Scenario

MOST_BYTES = 4 * 2**30  # of a table


@chex.dataclass(frozen=True)
class TableState:
    """Everything that a run changes. R rows; the A actions of a row lie in `blocks` of equal length."""

    key: chex.PRNGKey
    obs: chex.Array  # [F] int8
    seen: chex.Array  # [R, F] int8, the state of each row
    rows: chex.Array  # [] int32, rows in use
    table: chex.Array  # [R, blocks, length], units of the cost scale; padding is infinite
    least: chex.Array  # [R, blocks], minimum of each block
    real_steps: chex.Array
    model_steps: chex.Array


@chex.dataclass(frozen=True)
class TablePlan:
    """What the schedule says of one epoch."""

    steps: chex.Array
    epsilon: chex.Array


@dataclasses.dataclass(frozen=True)
class QLearning(Penalised):
    """Tabular Q-learning as an `Agent`."""

    config: QLearningConfig
    users: int
    choices: int
    told: tuple[float, ...] = ()  # % of each choice, where what breaks the constraint is known
    constraint: float = 0.0  # least mean accuracy, %; read with `told`
    counted: tuple[float, ...] = ()  # how much each device counts in that, mean 1; none: all as much

    @property
    def accuracy(self) -> tuple[float, ...] | None:
        """% of each choice ([C]), where it is told."""
        return self.told or None

    @property
    def weights(self) -> tuple[float, ...] | None:
        """How much each device counts in the mean accuracy ([N]; none: all as much), where that is told."""
        return self.counted if self.told else None

    @property
    def bound_to(self) -> float | None:
        """The constraint (%) that the table is of, where it is told."""
        return self.constraint if self.told else None

    @property
    def epochs(self) -> int:
        return self.config.epochs

    @property
    def penalty_factor(self) -> float:
        return self.config.penalty_factor

    @property
    def actions(self) -> int:
        return joint_actions(self.users, self.choices)

    @property
    def length(self) -> int:
        """Actions in a block."""
        return math.isqrt(self.actions - 1) + 1

    @functools.cached_property
    def allowed(self) -> np.ndarray:
        """The joint actions (indices) that may be tried: all, or those that are known to keep the constraint."""
        if not self.told:
            return np.arange(self.actions, dtype=np.int32)
        each = [weight * np.array(self.told) for weight in self.counted or (1.0,) * self.users]
        total = functools.reduce(lambda total, one: np.add.outer(total, one).ravel(), each)
        mean: Any = total / self.users
        return np.flatnonzero(meets(mean, self.constraint)).astype(np.int32)

    def init(self, key: chex.PRNGKey, obs: chex.Array) -> TableState:
        """An empty table; the key is kept."""
        config, length = self.config, self.length
        blocks = -(-self.actions // length)
        start = config.start_value_ms / config.cost_scale_ms
        row = jnp.full(blocks * length, jnp.inf, jnp.float32).at[self.allowed].set(start).reshape(blocks, length)
        return TableState(
            key=key,
            obs=obs.astype(jnp.int8),
            seen=jnp.zeros((config.states, obs.shape[0]), jnp.int8).at[0].set(obs.astype(jnp.int8)),
            rows=jnp.int32(1),
            table=jnp.tile(row, (config.states, 1, 1)),
            least=jnp.tile(jnp.min(row, axis=1), (config.states, 1)),
            real_steps=jnp.int32(0),
            model_steps=jnp.int32(0),
        )

    def plan(self, epoch: int) -> TablePlan:
        config = self.config
        progress = (epoch - 1) / max(config.epochs - 1, 1)
        fall = min(progress / config.epsilon_epochs, 1.0) if config.epsilon_epochs else 1.0
        epsilon = config.epsilon_start + fall * (config.epsilon_end - config.epsilon_start)
        return TablePlan(steps=jnp.int32(config.epoch_steps), epsilon=jnp.float32(epsilon))

    def _row(self, state: TableState, obs: chex.Array) -> chex.Array:
        """The row of a state: its own, a free one, or the last."""
        known = jnp.all(state.seen == obs[None], axis=1) & (jnp.arange(state.seen.shape[0]) < state.rows)
        free = jnp.minimum(state.rows, state.seen.shape[0] - 1)
        return jnp.where(jnp.any(known), jnp.argmax(known), free)

    def _greedy(self, state: TableState, row: chex.Array) -> tuple[chex.Array, chex.Array]:
        """Least-valued joint action (index) of a row, and its value."""
        block = jnp.argmin(state.least[row])
        return (block * self.length + jnp.argmin(state.table[row, block])).astype(jnp.int32), state.least[row, block]

    def decide(self, state: TableState, obs: chex.Array) -> chex.Array:
        action, _ = self._greedy(state, self._row(state, obs.astype(jnp.int8)))
        return decode(action, self.users, self.choices)

    def act(self, state: TableState, epsilon: chex.Array) -> tuple[TableState, chex.Array]:
        """Epsilon-greedy joint action (index)."""
        key, explore_key, action_key = jax.random.split(state.key, 3)
        greedy, _ = self._greedy(state, self._row(state, state.obs))
        state = state.replace(key=key)
        if self.config.explore == "joint":
            drawn = jnp.asarray(self.allowed)[jax.random.randint(action_key, (), 0, len(self.allowed))]
            return state, jnp.where(jax.random.uniform(explore_key) < epsilon, drawn, greedy)
        which = jax.random.bernoulli(explore_key, epsilon, (self.users,))
        choices = jax.random.randint(action_key, (self.users,), 0, self.choices)
        drawn = encode(jnp.where(which, choices, decode(greedy, self.users, self.choices)), self.choices)
        known = jnp.isfinite(state.table[0, drawn // self.length, drawn % self.length])  # else it breaks the constraint
        return state, jnp.where(known, drawn, greedy)

    def learn(self, state: TableState, action: chex.Array, cost_ms: chex.Array, next_obs: chex.Array) -> TableState:
        """One step of Q-learning: Q(s, a) moves towards cost + gamma min_a' Q(s', a')."""
        config = self.config
        row, following = self._row(state, state.obs), next_obs.astype(jnp.int8)
        new_row = self._row(state, following)
        unseen = ~jnp.all(state.seen[new_row] == following) | (new_row >= state.rows)
        grown = jnp.minimum(state.rows + jnp.int32(unseen), state.seen.shape[0])
        _, value = self._greedy(state, new_row)
        block, place = action // self.length, action % self.length
        old = state.table[row, block, place]
        new = old + config.step_size * (cost_ms / config.cost_scale_ms + config.gamma * value - old)
        # The block is read after it is written: reading it before makes the compiler copy the table at every step.
        table = state.table.at[row, block, place].set(new)
        return state.replace(
            obs=following,
            seen=state.seen.at[new_row].set(following),
            rows=grown,
            table=table,
            least=state.least.at[row, block].set(jnp.min(table[row, block])),
            real_steps=state.real_steps + 1,
        )

    def epoch(self, world: World, run: Run, plan: TablePlan) -> tuple[Run, dict[str, chex.Array]]:
        """`epoch_steps` real steps, each learned from at once. Reports the rows in use."""

        def step(run: Run) -> Run:
            state, action = self.act(run.agent, plan.epsilon)
            joint = decode(action, self.users, self.choices)
            run, obs, info = real_step(world, run, joint)
            return run.replace(agent=self.learn(state, action, info["cost_ms"], obs))

        run = world.repeat(plan.steps, step, run.replace(totals=Totals.zero()))
        return run, {"states": run.agent.rows.astype(jnp.float32)}


def sized(
    config: QLearningConfig,
    users: int,
    choices: int,
    accuracy: tuple[float, ...] = (),
    constraint: float = 0.0,
    weights: tuple[float, ...] = (),
) -> QLearning:
    """The agent for `users` devices of `choices` each.

    Args:
      config: its constants.
      users: N.
      choices: C.
      accuracy: % of each choice ([C]); read, as the constraint is, where the penalty is known.
      constraint: least mean accuracy, %.
      weights: how much each device counts in that ([N], mean 1); none: all as much.

    Raises:
      ValueError: if the table would be larger than `MOST_BYTES`, or what must be known isn't given.
    """
    actions = joint_actions(users, choices)
    if 4 * actions * config.states > MOST_BYTES:
        expected = f"a table of at most {MOST_BYTES // 2**30} GiB (states x choices ** users)"
        raise ValueError(f"--states: expected {expected}, found {config.states} x {choices} ** {users}")
    if config.q_penalty == "learned":
        return QLearning(config=config, users=users, choices=choices)
    if len(accuracy) != choices:
        raise ValueError(f"accuracy: expected one of each of {choices} choices, found {len(accuracy)}")
    return QLearning(config, users, choices, told=accuracy, constraint=constraint, counted=weights)


def make(config: QLearningConfig, scenario: Scenario) -> QLearning:
    """The agent for a scenario's devices and choices.

    Raises:
      ValueError: if the table would be larger than `MOST_BYTES`.
    """
    accuracy, weights = scenario.choice_accuracy(), scenario.accuracy_weights
    return sized(config, scenario.users, scenario.choices, accuracy, scenario.constraint, weights)
