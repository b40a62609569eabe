"""The two learned functions of Algorithm 1, in Flax: Q(s, a) and System(s, a).

Both read Table II's state and one-hot choices. The cost they predict has one hidden ReLU layer and a linear
path beside it: enough for response times that add over devices, for contention and for the penalty (each a few
hinges), and just what `search.Separable` evaluates over all joint actions exactly.

What each device's choice adds to both are tables [N, C, …]. Fixed ones (`JointValue`) suffice where conditions don't
change: the state then moves all joint actions together. Where they do, the tables have to follow from the state
(`SituatedValue`): how much longer this choice of this device takes over a weak link, beside a busy edge.
"""

from __future__ import annotations

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from hl_jax.search.joint import Separable

# A small start lets the hidden units turn to the few hinges that the cost has (contention, the penalty). From the
# usual start they stay near random directions and 1,000 steps are learned by heart, with errors of 100 ms beside them.
START = nn.initializers.normal(0.02)


# Tables that all devices share can start larger: each hidden unit then counts who chose what, which is the form that
# contention has, and not a direction of its own in each device's choices.
SHARED_START = nn.initializers.normal(0.1)
OWN = "own"  # the parameter that tells one device from the others, where the rest is shared


class JointValue(nn.Module):
    """A scalar of (state, joint action): the Q-network, and the system model's cost."""

    users: int
    choices: int
    width: int
    shared: bool = False  # whether devices have one table, and each a difference from it

    def setup(self) -> None:
        self.from_state = nn.Dense(self.width, kernel_init=START)
        if self.shared:
            self.of_all = self.param("shared", SHARED_START, (self.choices, self.width + 1))
            self.own = self.param(OWN, nn.initializers.zeros, (self.users, self.choices, self.width + 1))
        else:
            self.from_action = self.param("from_action", START, (self.users, self.choices, self.width))
        self.output = self.param("output", START, (self.width,))
        self.skip_state = nn.Dense(1, kernel_init=START)
        if not self.shared:
            self.skip_action = self.param("skip_action", nn.initializers.zeros, (self.users, self.choices))

    def _tables(self) -> tuple[chex.Array, chex.Array]:
        """What each choice adds to the hidden units ([N, C, H]) and to the value ([N, C])."""
        if not self.shared:
            return self.from_action, self.skip_action
        tables = self.of_all[None] + self.own
        return tables[:, :, 1:], tables[:, :, 0]

    def __call__(self, features: chex.Array, action: chex.Array) -> chex.Array:
        """Value of one joint action. `features` [F] float32, `action` [N] int32; returns a scalar."""
        chosen = jax.nn.one_hot(action, self.choices).reshape(-1)
        adds, skip = self._tables()
        hidden = self.from_state(features) + chosen @ adds.reshape(-1, self.width)
        linear = self.skip_state(features)[0] + chosen @ skip.reshape(-1)
        return nn.relu(hidden) @ self.output + linear

    def separable(self, features: chex.Array) -> Separable:
        """The same function of the action alone, for one state, as the exact search reads it."""
        adds, skip = self._tables()
        return Separable(
            base=self.from_state(features),
            hidden=adds,
            output=self.output,
            skip=skip,
            constant=self.skip_state(features)[0],
        )


class SituatedValue(nn.Module):
    """A scalar of (state, joint action) whose tables one layer, shared by all devices, makes from state and choice.

    It sees a device's own P, M and B, those of edge and cloud, and what the device chose. What it learns of one device
    holds for each that is in the same state; where devices aren't alike, a table of their own corrects it.
    """

    users: int
    choices: int
    width: int
    head: int  # hidden units of the shared layer

    def setup(self) -> None:
        self.situation = nn.Dense(self.head)
        self.choice = self.param("choice", nn.initializers.lecun_normal(), (self.choices, self.head))
        self.tables = nn.Dense(self.width + 1, use_bias=False)
        self.of_all = self.param("shared", SHARED_START, (self.choices, self.width + 1))
        self.own = self.param(OWN, nn.initializers.zeros, (self.users, self.choices, self.width + 1))
        self.from_state = nn.Dense(self.width, kernel_init=START)
        self.output = self.param("output", START, (self.width,))
        self.skip_state = nn.Dense(1, kernel_init=START)

    def _seen(self, features: chex.Array) -> chex.Array:
        """What each device's situation adds to the layer's units. [N, head]."""
        devices, nodes = jnp.split(features, [3 * self.users])
        nodes = jnp.tile(nodes, (self.users, 1))
        return self.situation(jnp.concatenate([devices.reshape(3, self.users).T, nodes], axis=1))

    def __call__(self, features: chex.Array, action: chex.Array) -> chex.Array:
        """Value of one joint action. `features` [F] float32, `action` [N] int32; returns a scalar."""
        chosen = jax.nn.one_hot(action, self.choices)
        units = nn.relu(self._seen(features) + chosen @ self.choice)
        rows = self.tables(units) + chosen @ self.of_all + jnp.einsum("nc,ncw->nw", chosen, self.own)
        total = jnp.sum(rows, axis=0)
        return nn.relu(self.from_state(features) + total[1:]) @ self.output + total[0] + self.skip_state(features)[0]

    def separable(self, features: chex.Array) -> Separable:
        """The same function of the action alone, for one state."""
        units = nn.relu(self._seen(features)[:, None] + self.choice[None])
        tables = self.tables(units) + self.of_all[None] + self.own
        return Separable(
            base=self.from_state(features),
            hidden=tables[:, :, 1:],
            output=self.output,
            skip=tables[:, :, 0],
            constant=self.skip_state(features)[0],
        )


def value_network(users: int, choices: int, width: int, tables: str, head: int) -> JointValue | SituatedValue:
    """The network of a value: its `tables` own, shared, or of the state by a layer of `head` units."""
    if tables == "state":
        return SituatedValue(users, choices, width, head)
    return JointValue(users, choices, width, shared=tables == "shared")


class SystemModel(nn.Module):
    """System(s, a): predicted cost, and the next state's components as `features_of` scales them."""

    users: int
    choices: int
    width: int
    components: int  # F
    tables: str = "own"  # as `value_network` reads it
    head: int = 64

    def setup(self) -> None:
        self.cost = value_network(self.users, self.choices, self.width, self.tables, self.head)
        # Layers of its own: what a monitor will show must not disturb the cost.
        self.hidden = nn.Dense(self.width)
        self.following = nn.Dense(self.components)

    def __call__(self, features: chex.Array, action: chex.Array) -> tuple[chex.Array, chex.Array]:
        """Cost (scalar) and the next state's features ([F]) after one joint action."""
        chosen = jax.nn.one_hot(action, self.choices).reshape(-1)
        hidden = nn.relu(self.hidden(jnp.concatenate([features, chosen])))
        return self.cost(features, action), self.following(hidden)

    def separable(self, features: chex.Array) -> Separable:
        """The cost as a function of the action alone."""
        return self.cost.separable(features)


def features_of(obs: chex.Array, levels: tuple[int, ...]) -> chex.Array:
    """Table II's discrete values scaled to [0, 1]. Shape [F] float32."""
    top = jnp.asarray([level - 1 for level in levels], jnp.float32)
    return obs.astype(jnp.float32) / top


def obs_of(features: chex.Array, levels: tuple[int, ...]) -> chex.Array:
    """The discrete state nearest to predicted features. Shape [F] int8."""
    top = jnp.asarray([level - 1 for level in levels], jnp.float32)
    return jnp.round(jnp.clip(features, 0.0, 1.0) * top).astype(jnp.int8)
