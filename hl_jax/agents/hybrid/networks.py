"""The two learned functions of Algorithm 1, in Flax: Q(s, a) and System(s, a).

Both read Table II's state and one-hot choices. What they predict has one hidden ReLU layer of sums over devices and a
path beside it: enough for response times that add over devices, for contention and for the penalty (each a few hinges),
and just what `search.Separable` evaluates over all joint actions exactly.

What each device's choice adds to both are tables [N, C, X]. Fixed ones (`OwnTables`, `SharedTables`) suffice where
conditions don't change: the state then moves all joint actions together. Where they do, the tables have to follow from
the state (`SituatedTables`): how much longer this choice of this device takes over a weak link, beside a busy edge.
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
# Of the logarithm of a time alone: beyond all that a scenario may hold, and its square still a float32.
REACH = 30.0
OWN = "own"  # the parameter that tells one device from the others, where the rest is shared


def _rows(table: chex.Array, action: chex.Array) -> chex.Array:
    """Of a table ([N, C, X]) what each device chose: [N, X]. A product, whose gradient is quicker than a gather's."""
    return jnp.einsum("nc,ncx->nx", jax.nn.one_hot(action, table.shape[1]), table)


class OwnTables(nn.Module):
    """Tables of each device's own: X numbers of each choice."""

    users: int
    choices: int
    columns: int  # X

    def setup(self) -> None:
        self.plain = self.param("plain", nn.initializers.zeros, (self.users, self.choices, 1))
        self.rest = self.param("rest", START, (self.users, self.choices, self.columns - 1))

    def __call__(self, features: chex.Array) -> chex.Array:
        """In one state ([F]; these don't depend on it). [N, C, X]."""
        del features
        return jnp.concatenate([self.plain, self.rest], axis=2)

    def rows(self, features: chex.Array, action: chex.Array) -> chex.Array:
        """The rows that a joint action ([N]) chooses. [N, X]."""
        return _rows(self(features), action)


class SharedTables(OwnTables):
    """One table that all devices share, and each one's difference from it."""

    def setup(self) -> None:
        self.of_all = self.param("shared", SHARED_START, (self.choices, self.columns))
        self.own = self.param(OWN, nn.initializers.zeros, (self.users, self.choices, self.columns))

    def __call__(self, features: chex.Array) -> chex.Array:
        """In one state ([F]; these don't depend on it). [N, C, X]."""
        del features
        return self.of_all[None] + self.own


class SituatedTables(SharedTables):
    """Shared tables, and what one layer, shared by all devices, makes of state and choice.

    It sees a device's own P, M and B, those of edge and cloud, and what the device chose. What it learns of one device
    holds for each that is in the same state; where devices aren't alike, a table of their own corrects it.
    """

    head: int = 64  # hidden units of the shared layer

    def setup(self) -> None:
        super().setup()
        self.situation = nn.Dense(self.head)
        self.choice = self.param("choice", nn.initializers.lecun_normal(), (self.choices, self.head))
        self.tables = nn.Dense(self.columns, use_bias=False)

    def _seen(self, features: chex.Array) -> chex.Array:
        """What each device's situation adds to the layer's units. [N, head]."""
        devices, nodes = jnp.split(features, [3 * self.users])
        nodes = jnp.tile(nodes, (self.users, 1))
        return self.situation(jnp.concatenate([devices.reshape(3, self.users).T, nodes], axis=1))

    def __call__(self, features: chex.Array) -> chex.Array:
        """In one state ([F]). [N, C, X]."""
        units = nn.relu(self._seen(features)[:, None] + self.choice[None])
        return self.tables(units) + self.of_all[None] + self.own

    def rows(self, features: chex.Array, action: chex.Array) -> chex.Array:
        """The rows that a joint action ([N]) chooses, without the others. [N, X]."""
        chosen = jax.nn.one_hot(action, self.choices)
        units = nn.relu(self._seen(features) + chosen @ self.choice)
        return self.tables(units) + chosen @ self.of_all + _rows(self.own, action)


def tables_of(kind: str, users: int, choices: int, columns: int, head: int) -> OwnTables:
    """Tables that are own, shared, or of the state by a layer of `head` units."""
    if kind == "state":
        return SituatedTables(users, choices, columns, head)
    return (SharedTables if kind == "shared" else OwnTables)(users, choices, columns)


class _Sized(nn.Module):
    users: int
    choices: int
    width: int  # H
    kind: str = "own"  # of its tables, as `tables_of` reads it
    head: int = 64


class JointValue(_Sized):
    """A scalar of (state, joint action), whose hidden units count for the same whatever is chosen."""

    def setup(self) -> None:
        self.tables = tables_of(self.kind, self.users, self.choices, self.width + 1, self.head)
        self.from_state = nn.Dense(self.width, kernel_init=START)
        self.output = self.param("output", START, (self.width,))
        self.skip_state = nn.Dense(1, kernel_init=START)

    def __call__(self, features: chex.Array, action: chex.Array) -> chex.Array:
        """Value of one joint action. `features` [F] float32, `action` [N] int32; returns a scalar."""
        total = jnp.sum(self.tables.rows(features, action), axis=0)
        return nn.relu(self.from_state(features) + total[1:]) @ self.output + total[0] + self.skip_state(features)[0]

    def separable(self, features: chex.Array) -> Separable:
        """The same function of the action alone, for one state, as the exact search reads it."""
        tables = self.tables(features)
        return Separable(
            base=self.from_state(features),
            hidden=tables[:, :, 1:],
            output=self.output,
            skip=tables[:, :, 0],
            constant=self.skip_state(features)[0],
        )


class ResponseTimes(_Sized):
    """Each device's response time, of (state, joint action): exp(alone) * (1 + slowed^2 . relu(load)).

    What busy processors and weak links do to a time is a factor, much the same for each model: learned as a logarithm,
    it needn't be learned of each again. The hidden layer is of what all devices chose, as a node's load is; for how
    much it counts depends on what the device itself chose, as a node's load slows only those that run there. What
    others do never makes a task quicker, or joint actions that were never tried look better than their parts.
    """

    def setup(self) -> None:
        self.tables = tables_of(self.kind, self.users, self.choices, 2 * self.width + 1, self.head)
        self.from_state = nn.Dense(self.width, kernel_init=START)
        self.skip_state = nn.Dense(1, kernel_init=START)

    def _parts(self, features: chex.Array, rows: chex.Array) -> tuple[chex.Array, chex.Array, chex.Array]:
        """Of rows of the tables ([..., 2 H + 1]): times alone [...], loads [..., H], how much these slow [..., H]."""
        alone, adds, slowed = jnp.split(rows, [1, self.width + 1], axis=-1)
        # Only from above: a lower limit, too, makes planning half as slow again.
        alone = jnp.exp(jnp.minimum(alone[..., 0] + self.skip_state(features)[0], REACH))
        return alone, adds, slowed**2

    def __call__(self, features: chex.Array, action: chex.Array) -> chex.Array:
        """`features` [F] float32, `action` [N] int32; returns [N]."""
        alone, adds, slowed = self._parts(features, self.tables.rows(features, action))
        hidden = nn.relu(self.from_state(features) + jnp.sum(adds, axis=0))
        return alone * (1.0 + slowed @ hidden)

    def separable(self, features: chex.Array) -> Separable:
        """Their mean as a function of the action alone, for one state."""
        alone, adds, slowed = self._parts(features, self.tables(features))
        return Separable(
            base=self.from_state(features),
            hidden=adds,
            output=jnp.zeros(self.width),
            outputs=alone[:, :, None] * slowed / self.users,
            skip=alone / self.users,
            constant=jnp.float32(0.0),
        )


class MeanTime(ResponseTimes):
    """A scalar of (state, joint action) of the same form: the mean of response times that are never seen one by one."""

    def __call__(self, features: chex.Array, action: chex.Array) -> chex.Array:
        """Value of one joint action. `features` [F] float32, `action` [N] int32; returns a scalar."""
        return jnp.mean(super().__call__(features, action))


Value = JointValue | MeanTime
# By what its hidden units count for.
VALUES: dict[str, type[JointValue] | type[MeanTime]] = {"alike": JointValue, "chosen": MeanTime}


class SystemModel(nn.Module):
    """System(s, a): predicted cost or response times, and the next state's components as `features_of` scales them."""

    users: int
    choices: int
    width: int
    components: int  # F
    kind: str = "own"  # of its tables, as `tables_of` reads it
    head: int = 64
    counts: str = "alike"  # a key of `VALUES`
    each: bool = False  # whether it predicts each device's response time, or the one cost of all

    def setup(self) -> None:
        network = ResponseTimes if self.each else VALUES[self.counts]
        self.cost = network(self.users, self.choices, self.width, self.kind, self.head)
        # Layers of its own: what a monitor will show must not disturb the cost.
        self.hidden = nn.Dense(self.width)
        self.following = nn.Dense(self.components)

    def __call__(self, features: chex.Array, action: chex.Array) -> tuple[chex.Array, chex.Array]:
        """Cost (scalar, or [N] of each) and the next state's features ([F]) after one joint action."""
        chosen = jax.nn.one_hot(action, self.choices).reshape(-1)
        hidden = nn.relu(self.hidden(jnp.concatenate([features, chosen])))
        return self.cost(features, action), self.following(hidden)

    def separable(self, features: chex.Array) -> Separable:
        """The cost, or the mean of the devices' times, as a function of the action alone."""
        return self.cost.separable(features)


def features_of(obs: chex.Array, levels: tuple[int, ...]) -> chex.Array:
    """Table II's discrete values scaled to [0, 1]. Shape [F] float32."""
    top = jnp.asarray([level - 1 for level in levels], jnp.float32)
    return obs.astype(jnp.float32) / top


def obs_of(features: chex.Array, levels: tuple[int, ...]) -> chex.Array:
    """The discrete state nearest to predicted features. Shape [F] int8."""
    top = jnp.asarray([level - 1 for level in levels], jnp.float32)
    return jnp.round(jnp.clip(features, 0.0, 1.0) * top).astype(jnp.int8)
