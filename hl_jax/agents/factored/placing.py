"""`factored` on a user's own fleet: it learns what machines take, ways and sharing, and searches the tree through that.

Algorithm 1's shape stays. *Direct experience*: each real step's reports, which tell computing, waiting and the way
apart. *System model*: Gaussian weights of logarithms of computing times (`tree`), of ways in ms (`ways`), and how nodes
share (`sharing`). *Planning*: a search (`search.placing`) for the best joint decision under times that each device
draws from the posterior (Thompson sampling), taken where an account can pay what that may cost beyond the best. The
policy is the same search under the expected times, with caution where they are unsure. Whatever the goal counts,
and whatever it demands, is known and enters the search; it may change at any time.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from hl_jax.agents.factored import computing, exploring, sharing, ways
from hl_jax.agents.factored import tree as trees
from hl_jax.agents.factored.computing import Computing, Reports
from hl_jax.agents.factored.config import FactoredConfig
from hl_jax.agents.factored.sharing import Sharing
from hl_jax.agents.factored.tree import Tree
from hl_jax.agents.factored.ways import Ways
from hl_jax.agents.world import Run, Totals, World, real_step
from hl_jax.fleets import params as fleet_params
from hl_jax.fleets.scenario import FleetScenario
from hl_jax.objective import PENALTY_FACTOR
from hl_jax.placement import DEVICE, Placement, costs, most_tasks
from hl_jax.search import placing

HOPE, HOPEFUL = 2.5, 0.4  # standard deviations by which a time may well be shorter; part of the devices that hope
DOUBT = 0.4  # standard deviation by which a first report may be wrong, from a tail; half as much the second, and so on
UNKNOWN = 0.1  # standard deviation of a time's logarithm from which on it is as good as unknown


@chex.dataclass(frozen=True)
class PlacingState:
    """Everything that a run changes."""

    key: chex.PRNGKey
    obs: chex.Array  # [F] int32
    computing: Computing
    energy: Computing | None  # of the devices' own computing; None where the goal counts none
    ways: Ways
    sharing: Sharing
    account: exploring.Account
    constraint: chex.Array  # %
    real_steps: chex.Array
    model_steps: chex.Array


@chex.dataclass(frozen=True)
class Times:
    """What every choice of every device takes by the model. [N, C] each, but for the nodes'."""

    computing_ms: chex.Array  # alone
    late_ms: chex.Array  # the quantile of that which deadlines ask of
    way_ms: chex.Array
    energy_mj: chex.Array  # of computing on the device
    edges: chex.Array  # [E, N+1] what multiplies computing
    clouds: chex.Array  # [K, N+1]


@dataclasses.dataclass(frozen=True)
class Placing:
    """The agent. What it knows is in `tree`."""

    config: FactoredConfig
    tree: Tree
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
        return self.tree.users

    @property
    def choices(self) -> int:
        return self.tree.choices

    @property
    def accuracy(self) -> tuple[float, ...]:
        return self.tree.accuracy

    @functools.cached_property
    def features(self) -> trees.Features:
        """The model's weights."""
        return trees.features(self.tree)

    def init(self, key: chex.PRNGKey, obs: chex.Array) -> PlacingState:
        """The state before the first step; `obs` [F] is the environment's first; the key is consumed."""
        counted = self.tree.weights[1] > 0.0
        return PlacingState(
            key=key,
            obs=obs.astype(jnp.int32),
            computing=computing.init(self.features, self.tree.entries, self.tree.groups),
            energy=computing.init(self.features, self.tree.entries, self.tree.groups) if counted else None,
            ways=ways.init(self.tree),
            sharing=sharing.init(self.tree),
            account=exploring.open_account(),
            constraint=jnp.float32(self.constraint),
            real_steps=jnp.int32(0),
            model_steps=jnp.int32(0),
        )

    def plan(self, epoch: int) -> Any:
        """Nothing follows a schedule."""
        return ()

    def under(self, state: PlacingState, constraint: chex.Array | float) -> PlacingState:
        """The same state with another least mean accuracy (%) asked of it; what was learned holds as it is."""
        return state.replace(constraint=jnp.full_like(state.constraint, constraint))

    # -- System model ---------------------------------------------------------------------------------------------

    def _busy(self, obs: chex.Array) -> chex.Array:
        """What monitors say of background load at each choice's place: CPU and memory. [N, C, 2], 0 or 1."""
        users, nodes = self.users, self.tree.edges + self.tree.clouds
        own, there = obs[: 3 * users].reshape(3, users), obs[3 * users :].reshape(3, nodes)
        memory = jnp.concatenate([there[1], jnp.zeros(1, there.dtype)])
        edge = memory[jnp.minimum(np.array(self.tree.edge), self.tree.edges)]
        cloud = memory[self.tree.edges + np.array(self.tree.cloud)]
        none = jnp.zeros(users, own.dtype)
        # A device's own computing shows at its monitor, too; only what was there before is background. Nodes' levels
        # are what tasks put there.
        flags = jnp.stack([jnp.stack([none, none, none]), jnp.stack([own[1], edge, cloud])])  # [2, 3, N]
        return flags.transpose(2, 1, 0)[:, np.array(self.tree.where)]

    def _weak(self, obs: chex.Array) -> tuple[chex.Array, chex.Array]:
        """Whether each device's link is weak, and that of its edge. [N] each."""
        users, nodes = self.users, self.tree.edges + self.tree.clouds
        there = jnp.concatenate([obs[3 * users + 2 * nodes :], jnp.zeros(1, obs.dtype)])
        return obs[2 * users : 3 * users], there[np.minimum(np.array(self.tree.edge), nodes)]

    def _problem(self, times: Times, constraint: chex.Array) -> Placement:
        """What the search reads."""
        tree = self.tree
        mask, where = jnp.array(tree.mask), np.array(tree.where)
        local = jnp.asarray(where == DEVICE)[None, :]
        time, energy = tree.weights
        radio_ms, radio_mj = jnp.array(tree.radio_ms)[:, None], jnp.array(tree.radio_mj)[:, None]
        waiting = tree.wait_w * jnp.maximum(times.way_ms - radio_ms, 0.0)
        drawn = jnp.where(local, times.energy_mj, radio_mj + waiting)
        base = time * (times.way_ms + jnp.where(local, times.computing_ms, 0.0)) + energy * drawn
        share = jnp.where(local, 0.0, (time + energy * tree.wait_w) * times.computing_ms)
        most = most_tasks(
            jnp.array(tree.deadline_ms)[:, None] - times.way_ms,
            times.late_ms,
            jnp.asarray(where, jnp.int32),
            (jnp.array(tree.edge), jnp.array(tree.cloud)),
            (times.edges, times.clouds),
        )
        return Placement(
            base=jnp.where(mask, base, jnp.inf),
            share=jnp.where(mask, share, 0.0),
            most=most,
            where=jnp.asarray(where, jnp.int32),
            edge=jnp.array(tree.edge, jnp.int32),
            cloud=jnp.array(tree.cloud, jnp.int32),
            edges=times.edges,
            clouds=times.clouds,
            accuracy=jnp.broadcast_to(jnp.array(tree.accuracy, jnp.float32), mask.shape),
            constraint=constraint,
        )

    def _times(
        self,
        state: PlacingState,
        obs: chex.Array,
        logs: tuple[chex.Array, chex.Array | None],
        way_weights: chex.Array,
        occupancy: chex.Array,
    ) -> Times:
        """Times from logarithms ([N, C] of computing, and of energy), weights of ways and nodes' log occupancies."""
        entry = np.array(self.tree.entry)
        alone = jnp.exp(logs[0]) * computing.mean_factors(state.computing, np.array(self.tree.group))[entry]
        multiplied = jnp.exp(occupancy)
        return Times(
            computing_ms=alone,
            late_ms=jnp.exp(logs[0]) * computing.late_factors(state.computing)[entry],
            way_ms=ways.predicted(self.tree, way_weights, *self._weak(obs))[:, np.array(self.tree.where)],
            energy_mj=jnp.zeros_like(alone) if logs[1] is None else jnp.exp(logs[1]),
            edges=multiplied[: self.tree.edges],
            clouds=multiplied[self.tree.edges :],
        )

    def _expected(self, state: PlacingState, obs: chex.Array, caution: chex.Array | float) -> Times:
        """The most probable times, longer by so many standard deviations of their logarithms the less sure they are."""
        busy, entry = self._busy(obs), np.array(self.tree.entry)
        models = [state.computing] if state.energy is None else [state.computing, state.energy]
        logs = []
        for model in models:
            mean, spread = computing.predicted(self.features, entry, model, busy)
            logs.append(mean + caution * jnp.minimum(spread, UNKNOWN))
        pair = (logs[0], logs[1] if state.energy is not None else None)
        return self._times(state, obs, pair, ways.mean(state.ways), sharing.expected(state.sharing))

    def _hoping(self, key: chex.PRNGKey, account: exploring.Account) -> chex.Array:
        """Which devices hope for the best of which choices: at first some, later one now and then. [N, C] bool.

        The key is consumed.
        """
        often_key, one_key, half_key = jax.random.split(key, 3)
        often, now = jnp.split(jax.random.uniform(often_key, (self.users + 1,)), [self.users])
        one = jnp.arange(self.users) == jax.random.randint(one_key, (), 0, self.users)
        who = jnp.where(exploring.learning(account), often < HOPEFUL, one & (now < self.config.curiosity))
        # Of a random half of the choices, lest all devices of a kind ask the same.
        return who[:, None] & jax.random.bernoulli(half_key, 0.5, (self.users, self.choices))

    def _sampled(self, key: chex.PRNGKey, state: PlacingState) -> Times:
        """Times that each device draws from the posterior, or as short as some may well be; the key is consumed.

        Who hopes finds what is likely not the best but may be by far.
        """
        hope_key, way_key, share_key, *keys = jax.random.split(key, 5)
        busy, entry = self._busy(state.obs), np.array(self.tree.entry)
        hopes = self._hoping(hope_key, state.account)
        logs = []
        models = [state.computing] if state.energy is None else [state.computing, state.energy]
        for model_key, model in zip(keys, models, strict=False):
            mean, spread = computing.predicted(self.features, entry, model, busy)
            drawn = computing.sampled(model_key, self.features, entry, model, busy)
            doubt = DOUBT / (1.0 + model.counted[entry])
            logs.append(jnp.where(hopes, mean - HOPE * jnp.sqrt(spread**2 + doubt**2), drawn))
        pair = (logs[0], logs[1] if state.energy is not None else None)
        way = ways.sampled(way_key, state.ways)
        return self._times(state, state.obs, pair, way, sharing.sampled(share_key, state.sharing))

    # -- Planning -------------------------------------------------------------------------------------------------

    def suggest(self, state: PlacingState) -> tuple[PlacingState, chex.Array]:
        """Lines 24 to 28 of Algorithm 1: the best joint action under sampled times, if it can be paid ([N])."""
        key, sample_key = jax.random.split(state.key)
        expected = self._problem(self._expected(state, state.obs, 0.0), state.constraint)
        greedy = placing.best(expected)
        drawn = placing.best(self._problem(self._sampled(sample_key, state), state.constraint))
        usable = jnp.isfinite(drawn.mean_cost)
        dear = jnp.mean(jnp.where(jnp.isfinite(costs(expected, drawn.action)), costs(expected, drawn.action), 1e9))
        excess = jnp.maximum(dear / greedy.mean_cost - 1.0, 0.0)
        tried = usable & exploring.affordable(state.account, excess, jnp.bool_(False))
        account = exploring.settle(state.account, jnp.where(tried, excess, 0.0), self.config.looking_again)
        state = state.replace(key=key, model_steps=state.model_steps + 1, account=account)
        return state, jnp.where(tried, drawn.action, greedy.action)

    def search(self, state: PlacingState, obs: chex.Array) -> placing.Placed:
        """The best joint action under the model, cautiously, in an observed state ([F]), with its bound."""
        caution = self.config.caution * jnp.clip(1.0 - state.account.loan, 0.0, 1.0)
        return placing.best(self._problem(self._expected(state, obs, caution), state.constraint))

    def decide(self, state: PlacingState, obs: chex.Array) -> chex.Array:
        """The greedy joint action ([N] int32) in the observed state [F]; see `search`."""
        return self.search(state, obs).action

    # -- Direct experience ----------------------------------------------------------------------------------------

    def observe(
        self, state: PlacingState, action: chex.Array, info: dict[str, chex.Array], obs: chex.Array
    ) -> PlacingState:
        """Lines 11 to 13 and 18 to 20: takes in a real step's reports and what is observed after it ([F])."""
        chex.assert_shape(action, (self.users,))
        busy = self._busy(state.obs)[np.arange(self.users), action]
        entry = jnp.array(self.tree.entry)[np.arange(self.users), action]
        machine = jnp.array(self.features.machine)[np.arange(self.users), action]
        group = jnp.array(self.tree.group)[entry]
        there = info.get("answered", jnp.ones(self.users, bool))
        fade = 1.0 - 1.0 / self.config.memory
        # Whatever stands in place of what nobody reported isn't looked at.
        names = ("computing_ms", "waiting_ms", "way_ms", "energy_mj")
        computed, waited, way, drawn = (jnp.where(there, info.get(name, 1.0), 1.0) for name in names)
        reports = Reports(entry=entry, machine=machine, group=group, busy=busy, time_ms=computed, there=there)
        energy = None
        if state.energy is not None:
            own = there & (jnp.array(self.tree.where)[action] == DEVICE)
            energy = computing.told(self.features, state.energy, reports.replace(time_ms=drawn, there=own), fade)
        return state.replace(
            obs=obs.astype(jnp.int32),
            computing=computing.told(self.features, state.computing, reports, fade),
            energy=energy,
            ways=ways.told(self.tree, state.ways, action, way, there, *self._weak(state.obs), fade),
            sharing=sharing.told(self.tree, state.sharing, action, computed, waited, there, fade),
            real_steps=state.real_steps + 1,
        )

    def epoch(self, world: World, run: Run, plan: Any) -> tuple[Run, dict[str, chex.Array]]:
        """Real steps, each suggested by planning. Reports what exploring may cost still."""

        def step(run: Run) -> Run:
            agent, action = self.suggest(run.agent)
            run, obs, info = real_step(world, run, action)
            return run.replace(agent=self.observe(agent, action, info, obs))

        run = world.repeat(self.config.epoch_steps, step, run.replace(totals=Totals.zero()))
        return run, {"credit": run.agent.account.credit, "model_noise": jnp.sqrt(jnp.mean(run.agent.computing.noise))}


def make(config: FactoredConfig, fleet: FleetScenario) -> Placing:
    """The agent for a fleet, of which it is told the structure and what is asked.

    Raises:
      ValueError: if the prior needs profiles that aren't there, or processors' loads change, which monitors don't tell
        from what tasks put there.
    """
    moves = fleet.dynamics
    if moves is not None and (moves.device_busy[0] or (moves.cpu_level_move and moves.cpu_level_max)):
        raise ValueError(f"dynamics: expected none of processors for factored, found some in scenario {fleet.name}")
    tree = trees.structure(fleet, fleet_params.ways(fleet), config.prior)
    return Placing(config=config, tree=tree, constraint=fleet.constraint)
