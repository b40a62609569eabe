"""The phases of Algorithm 1 as pure functions: act, observe, learn, fit the model, suggest, plan.

`Learner` holds what never changes (configuration and sizes); `AgentState` is all that does. Costs are minimised, as
in the paper; inside they are in units of `cost_scale_ms`. Line numbers are Algorithm 1's.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from hl_jax.agents.hybrid import descent, minima
from hl_jax.agents.hybrid.config import HybridConfig
from hl_jax.agents.hybrid.networks import VALUES, SystemModel, Value, features_of, obs_of
from hl_jax.agents.hybrid.state import UNSET, AgentState, EpochPlan, Goal
from hl_jax.choices import decode, encode, joint_actions
from hl_jax.objective import meets, penalty_ms
from hl_jax.replay import buffers, situated
from hl_jax.search import joint

LARGEST_VALUE = 1e30  # above all that is learned, below infinity
TIMES = {"known": "art_ms", "learned": "cost_ms"}  # what a network learns that knows the penalty, or learns it
LEAST_OBSERVED = 0.01  # in cost scales; what is imagined may be nearer to 0, or below it


@dataclasses.dataclass(frozen=True)
class Learner:
    """Algorithm 1's phases for `users` devices of `choices` each, observed in `levels` discrete values."""

    config: HybridConfig
    users: int
    choices: int
    levels: tuple[int, ...]
    accuracy: tuple[float, ...] = ()  # % of each choice; needed where the penalty is known
    points: int = 1  # P of the penalty's points
    weights: tuple[float, ...] = ()  # how much each device counts in the mean accuracy, mean 1; none: all as much

    @functools.cached_property
    def q_network(self) -> Value:
        config = self.config
        return VALUES[config.hidden_counts](self.users, self.choices, config.width, config.choice_tables, config.head)

    @functools.cached_property
    def model(self) -> SystemModel:
        config = self.config
        return SystemModel(
            users=self.users,
            choices=self.choices,
            width=config.width,
            components=len(self.levels),
            kind=config.choice_tables,
            head=config.head,
            counts=config.hidden_counts,
            each=config.models_devices,
        )

    def init(self, key: chex.PRNGKey, obs: chex.Array) -> AgentState:
        """Lines 1 to 3. `obs` [F] is the environment's first state; the key is consumed."""
        q_key, model_key, run_key = jax.random.split(key, 3)
        config, components = self.config, len(self.levels)
        features, action = jnp.zeros(components), jnp.zeros(self.users, jnp.int32)
        q_params = self.q_network.init(q_key, features, action)
        model_params = self.model.init(model_key, features, action)
        plan: buffers.Keyed | situated.Situated
        if config.plan_key == "state":
            plan = situated.init(config.plan_capacity, components)
        else:
            plan = buffers.init_keyed(config.plan_capacity, components, joint_actions(self.users, self.choices))
        points = jnp.zeros(self.points)
        return AgentState(
            key=run_key,
            obs=obs.astype(jnp.int8),
            q_params=q_params,
            target_params=jax.tree.map(jnp.copy, q_params),
            q_optimizer=descent.ADAM.init(q_params),
            model_params=model_params,
            model_optimizer=descent.ADAM.init(model_params),
            direct=buffers.init_prioritized(config.direct_capacity, components),
            world=buffers.init_ring(config.world_capacity, components, (self.users,) if config.models_devices else ()),
            plan=plan,
            goal=Goal(constraint=jnp.float32(UNSET), missing=points, penalty_ms=points),
            minima=minima.init(components),
            real_steps=jnp.int32(0),
            model_steps=jnp.int32(0),
        )

    def joint(self, action: chex.Array) -> chex.Array:
        """The joint action [N] of an index."""
        return decode(action, self.users, self.choices)

    # -- What is wanted -------------------------------------------------------------------------------------------

    def asked(self, agent: AgentState, goal: Goal) -> AgentState:
        """The state with this goal, unless it has one already."""
        unset = agent.goal.constraint < 0.0
        return agent.replace(goal=jax.tree.map(lambda new, old: jnp.where(unset, new, old), goal, agent.goal))

    def _priced(self, values: chex.Array, goal: Goal) -> chex.Array:
        """Average response times of all joint actions ([A], in cost scales) with the penalty, which is known."""
        if self.config.q_penalty == "known":
            return jnp.where(meets(self._accuracies(), goal.constraint), values, jnp.inf)
        return values + self._penalty(self._accuracies(), goal)

    def _accuracies(self) -> chex.Array:
        """Mean accuracy of every joint action, %. [A]."""
        return joint.sums(self._device_accuracies) / self.users

    @property
    def _device_accuracies(self) -> chex.Array:
        """Accuracy of each device's choices, as much as it counts. [N, C]."""
        each = jnp.tile(jnp.asarray(self.accuracy, jnp.float32), (self.users, 1))
        return each * jnp.asarray(self.weights, jnp.float32)[:, None] if self.weights else each

    def _penalty(self, accuracy: chex.Array, goal: Goal) -> chex.Array:
        """What breaking the constraint costs at a mean accuracy (%), in cost scales. Same shape."""
        return penalty_ms(accuracy, goal.constraint, goal.missing, goal.penalty_ms) / self.config.cost_scale_ms

    # -- Direct RL ------------------------------------------------------------------------------------------------

    def q_values(self, params: Any, obs: chex.Array, goal: Goal) -> chex.Array:
        """Q of every joint action in one state ([F]), infinite where it is known to be out of the question. [A]."""
        separable = self.q_network.apply(params, features_of(obs, self.levels), method="separable")
        values = joint.joint_values(separable)
        return self._priced(values, goal) if self.config.q_penalty == "known" else values

    def greedy(self, params: Any, obs: chex.Array, goal: Goal) -> chex.Array:
        """Line 10: the joint action (index) of least Q."""
        return joint.best(self.q_values(params, obs, goal))[0]

    def _by_choice(self, agent: AgentState, key: chex.PRNGKey, epsilon: chex.Array) -> chex.Array:
        """Lines 9 and 10, with each device's choice drawn at random by itself. The key is consumed."""
        which_key, choice_key = jax.random.split(key)
        which = jax.random.bernoulli(which_key, epsilon, (self.users,))
        drawn = jax.random.randint(choice_key, (self.users,), 0, self.choices)
        best = jax.lax.cond(
            jnp.all(which), lambda: jnp.int32(0), lambda: self.greedy(agent.q_params, agent.obs, agent.goal)
        )
        return encode(jnp.where(which, drawn, self.joint(best)), self.choices)

    def _feasible(self, agent: AgentState, key: chex.PRNGKey, epsilon: chex.Array) -> chex.Array:
        """The same of joint actions that keep the constraint. The key is consumed."""
        best = self.joint(self.greedy(agent.q_params, agent.obs, agent.goal))
        weights = (1.0 - epsilon) * jax.nn.one_hot(best, self.choices) + epsilon / self.choices
        return joint.draw(key, weights, meets(self._accuracies(), agent.goal.constraint))

    def act(self, agent: AgentState, epsilon: chex.Array) -> tuple[AgentState, chex.Array]:
        """Lines 9 and 10: epsilon-greedy joint action (index)."""
        key, explore_key, action_key = jax.random.split(agent.key, 3)
        if self.config.explore != "joint":
            keeps = self.config.explore == "feasible" and self.config.q_penalty == "known"
            drawn_by = self._feasible if keeps else self._by_choice
            return agent.replace(key=key), drawn_by(agent, action_key, epsilon)
        explore = jax.random.uniform(explore_key) < epsilon
        # Drawn outside the branch: `vmap` turns the branches into a select, whose key would count as used twice.
        drawn = jax.random.randint(action_key, (), 0, joint_actions(self.users, self.choices))
        action = jax.lax.cond(explore, lambda: drawn, lambda: self.greedy(agent.q_params, agent.obs, agent.goal))
        return agent.replace(key=key), action

    def transition(
        self, obs: chex.Array, action: chex.Array, cost_ms: chex.Array, next_obs: chex.Array
    ) -> buffers.Transition:
        """One step as the buffers hold it; `cost_ms` [], or [N] of each device."""
        return buffers.Transition(
            obs=obs.astype(jnp.int8),
            action=action,
            cost=jnp.asarray(cost_ms / self.config.cost_scale_ms, jnp.float32),
            next_obs=next_obs.astype(jnp.int8),
        )

    def observe(
        self, agent: AgentState, action: chex.Array, told: dict[str, chex.Array], next_obs: chex.Array
    ) -> AgentState:
        """Lines 12 and 13: stores a real step in D_direct and D_world, each with what its network learns.

        `told`: `cost_ms`, `art_ms`, and `response_ms` [N], 0 of a device that didn't answer.
        """
        config = self.config
        direct = self.transition(agent.obs, action, told[TIMES[config.q_penalty]], next_obs)
        of_model = "response_ms" if config.models_devices else TIMES[config.model_penalty]
        world = self.transition(agent.obs, action, told[of_model], next_obs)
        return agent.replace(
            obs=direct.next_obs,
            direct=buffers.add(agent.direct, direct),
            world=buffers.add_to_ring(agent.world, world),
            real_steps=agent.real_steps + 1,
        )

    def _error(self, predicted: chex.Array, observed: chex.Array) -> chex.Array:
        """What both networks make small: the error, or the part that it is of what was observed."""
        error = predicted - observed
        if self.config.loss == "squared":
            return error
        return error / jnp.maximum(jnp.abs(observed), LEAST_OBSERVED)

    def _target_minimum(self, params: Any, goal: Goal, obs: chex.Array) -> chex.Array:
        return joint.best(self.q_values(params, obs, goal))[1]

    def _learn(
        self,
        agent: AgentState,
        buffer: buffers.Prioritized,
        plan: EpochPlan,
        rate: chex.Array,
        renewed: bool = False,
    ) -> tuple[AgentState, buffers.Prioritized, chex.Array]:
        """Lines 14, 15 and 36, 37: one Adam step of Q on a prioritized minibatch. Returns also the mean |TD error|.

        `renewed`: the costs are what the system model says now, not those in the buffer.
        """
        key, sample_key = jax.random.split(agent.key)
        batch = buffers.sample(buffer, sample_key, self.config.batch, plan.beta)
        target, cache = batch.data.cost, agent.minima
        if renewed:
            target = jax.vmap(lambda obs, action: self._imagined(agent, obs, action)[0])(
                batch.data.obs, batch.data.action
            )
        if self.config.gamma > 0.0:
            following, cache = minima.look_up(
                cache, batch.data.next_obs, functools.partial(self._target_minimum, agent.target_params, agent.goal)
            )
            target = target + self.config.gamma * following
        features = jax.vmap(lambda obs: features_of(obs, self.levels))(batch.data.obs)
        actions = self.joint(batch.data.action)

        def loss(params: Any) -> tuple[chex.Array, chex.Array]:
            values = jax.vmap(lambda x, a: self.q_network.apply(params, x, a))(features, actions)
            errors = self._error(values, target)
            return jnp.mean(batch.weights * optax.l2_loss(errors)), errors

        gradient, errors = jax.grad(loss, has_aux=True)(agent.q_params)
        params, optimizer = descent.step(self.config, agent.q_params, agent.q_optimizer, gradient, rate)
        buffer = buffers.update(buffer, batch.slots, errors, self.config.priority_exponent)
        agent = agent.replace(key=key, q_params=params, q_optimizer=optimizer, minima=cache)
        return agent, buffer, jnp.mean(jnp.abs(errors))

    def learn_direct(self, agent: AgentState, plan: EpochPlan, session: chex.Array) -> AgentState:
        """Lines 14 and 15 of a direct `session` (0, …)."""
        updates = self.config.direct_updates

        def update(number: chex.Array, carry: AgentState) -> AgentState:
            rate = plan.q_learning_rate * descent.left(
                self.config, session * updates + number, plan.direct_sessions * updates
            )
            carry, buffer, _error = self._learn(carry, carry.direct, plan, rate)
            return carry.replace(direct=buffer)

        return jax.lax.fori_loop(0, updates, update, agent)

    def copy_target(self, agent: AgentState) -> AgentState:
        """Lines 16 and 38."""
        return agent.replace(target_params=agent.q_params, minima=minima.init(len(self.levels)))

    # -- System model ---------------------------------------------------------------------------------------------

    def fit_model(self, agent: AgentState, plan: EpochPlan) -> tuple[AgentState, chex.Array]:
        """Lines 18 to 20. Returns also the last minibatch's loss."""

        def loss(params: Any, batch: buffers.Transition) -> chex.Array:
            actions = self.joint(batch.action)

            def one(obs: chex.Array, action: chex.Array, cost: chex.Array, following: chex.Array) -> chex.Array:
                predicted, next_features = self.model.apply(params, features_of(obs, self.levels), action)
                errors = next_features - features_of(following, self.levels)
                missed = optax.l2_loss(self._error(predicted, cost))
                if self.config.models_devices:  # a device that didn't answer tells nothing of its time
                    missed = jnp.mean(jnp.where(cost > 0.0, missed, 0.0))
                return missed + jnp.mean(optax.l2_loss(errors))

            return jnp.mean(jax.vmap(one)(batch.obs, actions, batch.cost, batch.next_obs))

        sessions = jnp.where(buffers.ring_size(agent.world) > 0, plan.world_sessions, 0)

        def update(session: chex.Array, carry: tuple[AgentState, chex.Array]) -> tuple[AgentState, chex.Array]:
            agent, _loss = carry
            rate = plan.model_learning_rate * descent.left(self.config, session, sessions)
            key, sample_key = jax.random.split(agent.key)
            batch = buffers.sample_ring(agent.world, sample_key, self.config.batch)
            value, gradient = jax.value_and_grad(loss)(agent.model_params, batch)
            params, optimizer = descent.step(self.config, agent.model_params, agent.model_optimizer, gradient, rate)
            return agent.replace(key=key, model_params=params, model_optimizer=optimizer), value

        return jax.lax.fori_loop(0, sessions, update, (agent, jnp.float32(0.0)))

    def model_values(self, agent: AgentState, obs: chex.Array) -> chex.Array:
        """Predicted cost of every joint action in one state. [F] -> [A]."""
        separable = self.model.apply(agent.model_params, features_of(obs, self.levels), method="separable")
        values = joint.joint_values(separable)
        return self._priced(values, agent.goal) if self.config.model_penalty == "known" else values

    def _imagined(self, agent: AgentState, obs: chex.Array, action: chex.Array) -> tuple[chex.Array, chex.Array]:
        """Line 25, in cost scales, as Q learns it: the cost, or the average response time where Q knows the penalty."""
        chosen = self.joint(action)
        predicted, following = self.model.apply(agent.model_params, features_of(obs, self.levels), chosen)
        cost = jnp.mean(predicted)
        if self.config.model_penalty == "known" and self.config.q_penalty == "learned":
            accuracy = jnp.mean(self._device_accuracies[jnp.arange(self.users), chosen])
            cost = cost + self._penalty(accuracy, agent.goal)
        return cost, obs_of(following, self.levels)

    def imagine(self, agent: AgentState, obs: chex.Array, action: chex.Array) -> tuple[chex.Array, chex.Array]:
        """Line 25: predicted cost (ms) and next state ([F] int8) of one joint action (index)."""
        cost, following = self._imagined(agent, obs, action)
        return cost * self.config.cost_scale_ms, following

    # -- Planning -------------------------------------------------------------------------------------------------

    def setting(self, agent: AgentState, obs: chex.Array) -> tuple[AgentState, chex.Array]:
        """The state [F] that a session of suggestion starts in, where the last one ended in `obs` [F]."""
        if self.config.plan_start == "current":
            return agent, obs
        key, draw_key = jax.random.split(agent.key)
        drawn = buffers.sample_ring(agent.world, draw_key, 1).obs[0]
        # Without a real step so far none was seen but the current one.
        return agent.replace(key=key), jnp.where(buffers.ring_size(agent.world) > 0, drawn, obs)

    def _suggested(self, agent: AgentState, obs: chex.Array, values: chex.Array) -> chex.Array:
        """Line 26: the K best by the model's `values` [A], or half of them by Q, each once. [K]."""
        k = min(self.config.k_best, values.shape[0])
        if self.config.suggested == "model":
            return joint.k_best(values, k)[0]
        models, _ = joint.k_best(values, k - k // 2)
        # What is out of the question for Q comes after all else, but before what the model has suggested.
        own = jnp.minimum(self.q_values(agent.q_params, obs, agent.goal), LARGEST_VALUE)
        return jnp.concatenate([models, joint.k_best(own.at[models].set(jnp.inf), k // 2)[0]])

    def suggest(self, agent: AgentState, obs: chex.Array) -> tuple[AgentState, chex.Array, chex.Array]:
        """Lines 24 to 27: the K best joint actions ([K]; all if fewer), the imagined next state after the best."""
        values = self.model_values(agent, obs)
        actions = self._suggested(agent, obs, values)
        _, following = self.imagine(agent, obs, actions[0])
        return agent.replace(model_steps=agent.model_steps + 1), actions, following

    def revisit(
        self, agent: AgentState, actions: chex.Array, state: chex.Array
    ) -> tuple[AgentState, chex.Array, chex.Array]:
        """Lines 29, 32 and 33 for all suggestions at once. Returns also [K] with the new ones first, and their number.

        Otherwise they keep their order. What is new is told before any is stored: taken one by one, a known action that
        a new one pushes out of a full D_plan would be new again.
        """
        if isinstance(agent.plan, situated.Situated):  # what is held is of this state as it is
            known = situated.contains(agent.plan, state, actions)
        else:
            known = buffers.contains(agent.plan, actions)
            agent = agent.replace(plan=buffers.move(agent.plan, actions, state))
        if self.config.q_penalty == "known":  # what is out of the question isn't tried, where fewer than K are left
            known = known | ~meets(self._accuracies()[actions], agent.goal.constraint)
        return agent, actions[jnp.argsort(known, stable=True)], jnp.sum(~known, dtype=jnp.int32)

    def _put(self, plan: buffers.Keyed | situated.Situated, item: buffers.Transition) -> Any:
        """Line 31."""
        return situated.put(plan, item) if isinstance(plan, situated.Situated) else buffers.put(plan, item)

    def plan_real(
        self, agent: AgentState, action: chex.Array, told: dict[str, chex.Array], next_obs: chex.Array
    ) -> AgentState:
        """Lines 30 and 31 when the step was taken in the environment.

        It is stored with the state it was really taken in: the environment can't be put into an imagined one.
        """
        item = self.transition(agent.obs, action, told[TIMES[self.config.q_penalty]], next_obs)
        return agent.replace(plan=self._put(agent.plan, item), obs=item.next_obs, real_steps=agent.real_steps + 1)

    def plan_imagined(self, agent: AgentState, action: chex.Array, state: chex.Array) -> AgentState:
        """Lines 30 and 31 when line 30 is read as a step in the system model."""
        cost_ms, following = self.imagine(agent, state, action)
        item = self.transition(state, action, cost_ms, following)
        return agent.replace(plan=self._put(agent.plan, item), model_steps=agent.model_steps + 1)

    def learn_plan(self, agent: AgentState, plan: EpochPlan) -> tuple[AgentState, chex.Array]:
        """Lines 35 to 37. Returns also the last minibatch's mean |TD error|."""
        # Without a suggestion so far D_plan is empty: nothing is there to learn from.
        sessions = jnp.where(buffers.ring_size(agent.plan.prioritized.ring) > 0, plan.plan_sessions, 0)

        def update(session: chex.Array, carry: tuple[AgentState, chex.Array]) -> tuple[AgentState, chex.Array]:
            agent, _error = carry
            rate = plan.q_learning_rate * descent.left(self.config, session, sessions)
            renewed = self.config.imagined == "renewed" and self.config.planning_step != "real"
            agent, buffer, error = self._learn(agent, agent.plan.prioritized, plan, rate, renewed)
            return agent.replace(plan=dataclasses.replace(agent.plan, prioritized=buffer)), error

        return jax.lax.fori_loop(0, sessions, update, (agent, jnp.float32(0.0)))
