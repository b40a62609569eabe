"""Algorithm 1, once: `hybrid` is all of it, `dqn` its Direct-RL part alone.

The control flow is written over a `World`. With the simulator its two functions are JAX, and an epoch is one compiled
program; with a real environment they are a Python loop and a call on the host, around the same phases of `Learner`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import chex
import jax
import jax.numpy as jnp

from hl_jax.agents.hybrid.config import DqnConfig, HybridConfig, alpha_at
from hl_jax.agents.hybrid.learner import Learner
from hl_jax.agents.hybrid.state import UNSET, AgentState, EpochPlan, Goal
from hl_jax.agents.world import Run, Totals, World, observed_levels, real_step
from hl_jax.choices import MOST_JOINT_ACTIONS, joint_actions
from hl_jax.objective import Penalty, sufficient_penalty
from hl_jax.scenario import Scenario


def schedule(config: HybridConfig, epoch: int, goal: Goal) -> EpochPlan:
    """Line 5 and the loop bounds of lines 7, 18, 22, 35 for `epoch` (1..N), with epsilon, beta and step sizes."""
    alpha = alpha_at(config.alpha_schedule, epoch, config.epochs)
    direct, planning = 1.0 - alpha / 2.0, (alpha + 1.0) / 2.0
    progress = (epoch - 1) / max(config.epochs - 1, 1)
    fall = min(progress / config.epsilon_epochs, 1.0) if config.epsilon_epochs else 1.0
    cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
    rate = config.learning_rate_end + (1.0 - config.learning_rate_end) * cosine

    def sessions(part: float, most: int) -> chex.Array:
        return jnp.int32(math.floor(part * most + 0.5))

    return EpochPlan(
        direct_sessions=sessions(direct, config.direct_sessions),
        world_sessions=sessions(direct, config.world_sessions),
        suggest_sessions=sessions(planning, config.suggest_sessions),
        plan_sessions=sessions(planning, config.plan_sessions),
        epsilon=jnp.float32(config.epsilon_start + fall * (config.epsilon_end - config.epsilon_start)),
        beta=jnp.float32(config.beta_start + progress * (1.0 - config.beta_start)),
        q_learning_rate=jnp.float32(config.q_learning_rate * rate),
        model_learning_rate=jnp.float32(config.model_learning_rate * rate),
        goal=goal,
    )


def _told(info: dict[str, chex.Array]) -> dict[str, chex.Array]:
    """What a learner takes in of a real step; no time of a device that is gone."""
    response = info["response_ms"]
    if "gone" in info:
        response = jnp.where(info["gone"], 0.0, response)
    wanted = info.get("objective_ms", info["art_ms"])  # under traffic it need not be the mean
    return {"cost_ms": info["cost_ms"], "art_ms": wanted, "response_ms": response}


def direct_rl(learner: Learner, world: World, run: Run, plan: EpochPlan) -> Run:
    """Lines 7 to 16."""

    def step(run: Run) -> Run:
        agent, action = learner.act(run.agent, plan.epsilon)
        run, obs, info = real_step(world, run, learner.joint(action))
        return run.replace(agent=learner.observe(agent, action, _told(info), obs))

    def session(carry: tuple[Run, chex.Array]) -> tuple[Run, chex.Array]:
        run, number = carry
        run = world.repeat(learner.config.direct_steps, step, run)
        return run.replace(agent=learner.learn_direct(run.agent, plan, number)), number + 1

    run, _ = world.repeat(plan.direct_sessions, session, (run, jnp.int32(0)))
    return run.replace(agent=learner.copy_target(run.agent))


def planning(learner: Learner, world: World, run: Run, plan: EpochPlan) -> tuple[Run, chex.Array]:
    """Lines 22 to 38. The walk starts in the environment's current state and goes on in imagined ones."""

    def suggest(carry: tuple[Run, chex.Array]) -> tuple[Run, chex.Array]:
        run, state = carry
        agent, actions, following = learner.suggest(run.agent, state)
        agent, actions, new = learner.revisit(agent, actions, state)

        def try_one(carry: tuple[Run, chex.Array]) -> tuple[Run, chex.Array]:
            run, index = carry
            action = actions[index]
            if learner.config.planning_step == "real":
                run, obs, info = real_step(world, run, learner.joint(action))
                agent = learner.plan_real(run.agent, action, _told(info), obs)
            else:
                agent = learner.plan_imagined(run.agent, action, state)
            return run.replace(agent=agent), index + 1

        def look(carry: tuple[Run, chex.Array]) -> tuple[Run, chex.Array]:
            run, index = carry
            run, obs, info = real_step(world, run, learner.joint(actions[index]))
            agent = learner.observe(run.agent, actions[index], _told(info), obs)
            return run.replace(agent=agent), index + 1

        run = run.replace(agent=agent)
        if learner.config.planning_step == "mixed":
            run, _ = world.repeat(jnp.minimum(learner.config.k_real, new), look, (run, jnp.int32(0)))
        run, _ = world.repeat(new, try_one, (run, jnp.int32(0)))
        return run, following

    def session(carry: tuple[Run, chex.Array]) -> tuple[Run, chex.Array]:
        agent, state = learner.setting(carry[0].agent, carry[1])
        return world.repeat(learner.config.suggest_steps, suggest, (carry[0].replace(agent=agent), state))

    run, _ = world.repeat(plan.suggest_sessions, session, (run, run.agent.obs))
    agent, error = learner.learn_plan(run.agent, plan)
    return run.replace(agent=learner.copy_target(agent)), error


@dataclasses.dataclass(frozen=True)
class Hybrid:
    """Algorithm 1 as an `Agent`; without `plans` it is Direct RL alone, with alpha 0."""

    learner: Learner
    plans: bool = True
    # What is asked reaches the learner through its epochs' plans: one compiled program serves every constraint.
    constraint: float = dataclasses.field(default=0.0, compare=False, repr=False)
    penalty: Penalty = dataclasses.field(default=Penalty(), compare=False, repr=False)

    @property
    def epochs(self) -> int:
        return self.learner.config.epochs

    @property
    def penalty_factor(self) -> float:
        return self.learner.config.penalty_factor

    @property
    def users(self) -> int:
        return self.learner.users

    @property
    def choices(self) -> int:
        return self.learner.choices

    @property
    def accuracy(self) -> tuple[float, ...] | None:
        """% of each choice ([C]), where it is told."""
        return self.learner.accuracy or None

    @property
    def weights(self) -> tuple[float, ...] | None:
        """How much each device counts in the mean accuracy ([N]; none: all as much), where that is known."""
        return self.learner.weights if self.learner.accuracy else None

    @property
    def bound_to(self) -> float | None:
        """The constraint (%) whose penalty the system model knows and Q learns; None where another is followed."""
        config = self.learner.config
        bound = self.plans and config.knows_penalty and config.q_penalty == "learned"
        return self.constraint if bound else None

    def init(self, key: chex.PRNGKey, obs: chex.Array) -> AgentState:
        return self.learner.init(key, obs)

    def plan(self, epoch: int) -> EpochPlan:
        config = self.learner.config
        config = config if self.plans else dataclasses.replace(config, alpha_schedule="constant:0")
        return schedule(config, epoch, Goal.of(self.constraint, self.penalty))

    def epoch(self, world: World, run: Run, plan: EpochPlan) -> tuple[Run, dict[str, chex.Array]]:
        """Lines 6 to 38. Reports the mean |TD error| (units of the cost scale) and the model's loss."""
        run = run.replace(totals=Totals.zero(), agent=self.learner.asked(run.agent, plan.goal))
        run = direct_rl(self.learner, world, run, plan)
        if not self.plans:
            return run, {}
        agent, model_loss = self.learner.fit_model(run.agent, plan)
        run, td_error = planning(self.learner, world, run.replace(agent=agent), plan)
        return run, {"td_error": td_error, "model_loss": model_loss}

    def decide(self, state: Any, obs: chex.Array) -> chex.Array:
        return self.learner.joint(self.learner.greedy(state.q_params, obs, state.goal))

    def under(self, state: Any, constraint: float | chex.Array) -> Any:
        """Where Q is of response times alone, the state with another constraint (%) asked of it.

        Else its decisions stay as they are, and the next epoch plans for the constraint that this agent was made for.
        """
        if self.learner.config.q_penalty == "learned":
            constraint = UNSET
        goal = state.goal.replace(constraint=jnp.full_like(state.goal.constraint, constraint))
        return state.replace(goal=goal, minima=jax.tree.map(jnp.zeros_like, state.minima))  # none held


def sized(
    config: HybridConfig,
    users: int,
    choices: int,
    levels: tuple[int, ...],
    plans: bool = True,
    accuracy: tuple[float, ...] = (),
    constraint: float = 0.0,
    penalty: Penalty | None = None,
    weights: tuple[float, ...] = (),
) -> Hybrid:
    """The agent for `users` devices of `choices` each, observed in `levels` discrete values.

    Args:
      config: its constants; auto tables are shared ones.
      users: N.
      choices: C.
      levels: [F] how many values each observed component has.
      plans: whether it is all of Algorithm 1, or Direct RL alone.
      accuracy: % of each choice ([C]); this and what follows are read where the penalty is known.
      constraint: least mean accuracy, %.
      penalty: of a broken constraint; none if it isn't given.
      weights: how much each device counts in the mean accuracy ([N], mean 1); none: all as much.

    Raises:
      ValueError: if the joint actions are too many to search one by one, or what must be known isn't given.
    """
    if config.knows_penalty and len(accuracy) != choices:
        raise ValueError(f"accuracy: expected one of each of {choices} choices, found {len(accuracy)}")
    actions = joint_actions(users, choices)
    if actions > MOST_JOINT_ACTIONS:
        expected = f"at most {MOST_JOINT_ACTIONS} joint actions (choices ** users)"
        raise ValueError(f"--users: expected {expected} for this agent, found {choices} ** {users} = {actions}")
    if config.choice_tables == "auto":
        config = dataclasses.replace(config, choice_tables="shared")
    penalty = penalty or Penalty()
    learner = Learner(config, users, choices, levels, accuracy, len(penalty.missing), weights)
    return Hybrid(learner=learner, plans=plans, constraint=constraint, penalty=penalty)


def _for(config: HybridConfig, scenario: Scenario, plans: bool) -> Hybrid:
    traffic = scenario.traffic
    if traffic is not None and (traffic.objective != "mean" or scenario.accuracy_weights):
        # What is asked isn't the mean of the devices' times.
        config = dataclasses.replace(config, model_output="average")
    if config.choice_tables == "auto" and scenario.dynamics:
        config = dataclasses.replace(config, choice_tables="state")
    return sized(
        config,
        scenario.users,
        scenario.choices,
        observed_levels(scenario),
        plans,
        scenario.choice_accuracy() if config.knows_penalty else (),
        scenario.constraint,
        sufficient_penalty(scenario, config.penalty_factor),
        scenario.accuracy_weights if config.knows_penalty else (),
    )


def make(config: HybridConfig, scenario: Scenario) -> Hybrid:
    """Algorithm 1 for a scenario's devices and choices.

    Raises:
      ValueError: if the joint actions are too many to search one by one.
    """
    return _for(config, scenario, plans=True)


def make_direct(config: DqnConfig, scenario: Scenario) -> Hybrid:
    """Direct RL alone, the same way."""
    return _for(config, scenario, plans=False)
