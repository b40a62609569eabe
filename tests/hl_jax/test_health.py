"""A run that can't go on: what isn't finite is found, undone, told and counted, for every agent."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hl_jax import evaluation, health, simulator, training
from hl_jax.agents.factored import agent as factored
from hl_jax.agents.q_learning import agent as q_learning
from hl_jax.agents.world import Totals
from hl_jax.objective import sufficient_penalty
from hl_jax.statistics import Spread
from launch import train
from launch.host.errors import RunError
from launch.inputs.agents import make_agent
from launch.inputs.settings import Settings
from launch.runs import on_simulator as simulated
from launch.runs import unit
from launch.runs.folder import RunFolder
from tests.helpers.builders import literal, small_scenario
from tests.helpers.trees import assert_identical, plain

USERS = 2
SCENARIO = small_scenario(USERS, constraint=80.0, noise=0.03)
SMALL = literal(
    epochs=4,
    direct_sessions=2,
    direct_steps=2,
    direct_updates=2,
    world_sessions=4,
    suggest_sessions=1,
    suggest_steps=1,
    plan_sessions=2,
    k_best=3,
    width=8,
    batch=8,
    direct_capacity=16,
    world_capacity=16,
    plan_capacity=16,
)
CONFIGS: dict[str, Any] = {
    "hybrid": SMALL,
    "dqn": SMALL,
    "q_learning": q_learning.QLearningConfig(epochs=4, epoch_steps=20),
    "factored": factored.FactoredConfig(epochs=4, recent=8),
}
SICK_EPOCH = 3
SEEDS = (0, 1, 2, 3)


@chex.dataclass(frozen=True)
class _State:
    """An agent's state, and whether it will be spoilt."""

    inner: Any
    sick: chex.Array

    @property
    def obs(self) -> chex.Array:
        return self.inner.obs

    @property
    def real_steps(self) -> chex.Array:
        return self.inner.real_steps

    @property
    def model_steps(self) -> chex.Array:
        return self.inner.model_steps


@dataclasses.dataclass(frozen=True)
class _Spoilt:
    """An agent of which some seeds' states (or every one's) become NaN in epoch `SICK_EPOCH`, in one leaf."""

    agent: Any
    leaf: int
    every: bool = False

    @property
    def epochs(self) -> int:
        return self.agent.epochs

    def init(self, key: chex.PRNGKey, obs: chex.Array) -> _State:
        agent_key, sick_key = jax.random.split(key)
        sick = jax.random.bernoulli(sick_key) | self.every
        return _State(inner=self.agent.init(agent_key, obs), sick=sick)

    def plan(self, epoch: int) -> Any:
        return self.agent.plan(epoch), jnp.bool_(epoch == SICK_EPOCH)

    def epoch(self, world: Any, run: Any, plan: Any) -> Any:
        state = run.agent
        after, learning = self.agent.epoch(world, run.replace(agent=state.inner), plan[0])
        leaves, structure = jax.tree.flatten(after.agent)
        numbers = [index for index, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
        where = numbers[self.leaf % len(numbers)]
        leaves[where] = jnp.where(plan[1] & state.sick, jnp.nan, leaves[where])
        return after.replace(agent=_State(inner=jax.tree.unflatten(structure, leaves), sick=state.sick)), learning

    @property
    def penalty_factor(self) -> float:
        return self.agent.penalty_factor

    def decide(self, state: _State, obs: chex.Array) -> chex.Array:
        return self.agent.decide(state.inner, obs)


def _settings(name: str, lanes: int = 1) -> Settings:
    return Settings(SCENARIO, "80", name, CONFIGS[name], SEEDS, lanes)


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("name", "leaf", "lanes"), [("hybrid", 0, 1), ("dqn", 5, 2), ("q_learning", 0, 1), ("factored", 3, 4)]
)
def test_a_spoilt_seed_ends_alone_and_is_told(name, leaf, lanes, tmp_path, monkeypatch, capsys):
    spoilt = _Spoilt(make_agent(name, CONFIGS[name], SCENARIO), leaf)
    monkeypatch.setattr(simulated, "make_agent", lambda *_: spoilt)
    with jax.debug_nans(False):
        summary = unit.run(_settings(name, lanes), RunFolder(tmp_path / "run"), threads=1)
    params = training.params_for(spoilt, SCENARIO)
    sick = {seed for seed in SEEDS if bool(training.init(spoilt, jnp.int32(seed), params).agent.sick)}
    assert 0 < len(sick) < len(SEEDS)
    for seed in summary.seeds:
        failed = seed.failed
        assert (failed is not None) == (seed.seed in sick)
        if failed:
            assert failed.epoch == SICK_EPOCH
            assert "inner." in failed.what
            assert seed.steps_to_optimal is None
            assert np.isfinite(seed.art_ms)
    assert summary.aggregate.failed == len(sick)
    # It isn't slow: it counts nowhere.
    assert summary.aggregate.steps_to_optimal.seeds == len(SEEDS) - len(sick)
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[1:]
    assert "nan" not in " ".join(rows)
    for seed in SEEDS:
        epochs = [int(row.split(",")[1]) for row in rows if row.startswith(f"{seed},")]
        assert epochs == list(range(1, SICK_EPOCH if seed in sick else CONFIGS[name].epochs + 1))
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
    assert len(told) == len(sick)
    assert all(f"{name}, seed " in line and f"epoch {SICK_EPOCH}" in line for line in told)
    assert f"failed in epoch {SICK_EPOCH}" in (tmp_path / "run" / "decisions.md").read_text()
    with pytest.raises(RunError, match=f"{len(sick)} of {len(SEEDS)} seeds failed; first {name}, seed {min(sick)}"):
        train.check_seeds(summary)
    # What is on disk is the last finite state, and a run that goes on from there ends the same.
    (tmp_path / "run" / "summary.json").unlink()
    simulation = simulated.Simulation(_settings(name, lanes), RunFolder(tmp_path / "run"), 1)
    for group in simulation.groups():
        fields = jax.tree.leaves(jax.tree.map(lambda leaf: not np.isnan(leaf).any(), plain(group.run.agent)))
        assert all(fields)
    with jax.debug_nans(False):
        assert unit.run(_settings(name, lanes), RunFolder(tmp_path / "run"), threads=1).seeds == summary.seeds


def test_healthy_seeds_are_what_they_are_without_a_spoilt_one(tmp_path, monkeypatch):
    """A vmapped neighbour that fails changes nothing."""
    fine = _Spoilt(_small("q_learning"), 0)
    results = {}
    for sick_epoch in (SICK_EPOCH, 100):
        monkeypatch.setattr(f"{__name__}.SICK_EPOCH", sick_epoch)
        monkeypatch.setattr(simulated, "make_agent", lambda *_: fine)
        with jax.debug_nans(False):
            summary = unit.run(_settings("q_learning", 4), RunFolder(tmp_path / str(sick_epoch)), threads=1)
        results[sick_epoch] = {
            seed.seed: {name: value for name, value in vars(seed).items() if not name.endswith("_s")}
            for seed in summary.seeds
        }
    healthy = [seed for seed, one in results[SICK_EPOCH].items() if one["failed"] is None]
    assert healthy
    assert all(results[SICK_EPOCH][seed] == results[100][seed] for seed in healthy)


def _small(name: str) -> Any:
    return make_agent(name, CONFIGS[name], SCENARIO)


@pytest.mark.parametrize("name", sorted(CONFIGS))
@pytest.mark.parametrize("reported", [np.nan, 0.0, -5.0, np.inf])
def test_a_response_time_that_is_none_ends_the_run_before_anything_is_learned_from_it(name, reported):
    agent: Any = _small(name)
    params = simulator.make_params(SCENARIO, sufficient_penalty(SCENARIO))
    starts = evaluation.start_states(jax.random.key(0), params, 1)
    epoch = _epoch_of(name)
    with jax.debug_nans(False):
        run = training.init(agent, jnp.int32(0), params)
        run, report = epoch(run, agent.plan(1), params, starts)
        assert not np.asarray(report.wrong).any()
        before = plain(run)
        # Whatever a joint action is, one device at least reports this.
        bad = params.replace(
            local_ms=jnp.full_like(params.local_ms, reported),
            node_ms=jnp.full_like(params.node_ms, reported),
            share_ms=jnp.zeros_like(params.share_ms),
        )
        after, report = epoch(run, agent.plan(2), bad, starts)
    names = health.names(after.agent, report.learning)
    wrong = [what for what, flag in zip(names, np.asarray(report.wrong), strict=True) if flag]
    assert any(what.startswith("response times") for what in wrong)
    assert_identical(after, _as_arrays(before))


_EPOCHS: dict[str, Any] = {}


def _epoch_of(name: str) -> Any:
    """An agent's epoch, compiled once for all tests here."""
    agent = _small(name)
    if name not in _EPOCHS:
        _EPOCHS[name] = jax.jit(lambda run, plan, params, starts: training.epoch(agent, run, plan, params, starts))
    return _EPOCHS[name]


def _as_arrays(tree: Any) -> Any:
    return jax.tree.map(jnp.asarray, tree)


def test_a_counter_that_is_full_ends_the_run_instead_of_going_negative():
    agent: Any = _small("q_learning")
    params = simulator.make_params(SCENARIO)
    run = training.init(agent, jnp.int32(0), params)
    run = run.replace(agent=run.agent.replace(real_steps=jnp.int32(2**31 - 5)))
    after, report = _epoch_of("q_learning")(
        run, agent.plan(1), params, evaluation.start_states(jax.random.key(0), params, 1)
    )
    names = health.names(after.agent, report.learning)
    wrong = [what for what, flag in zip(names, np.asarray(report.wrong), strict=True) if flag]
    assert wrong == ["the count of real steps (expected fewer than 2^31)"]
    assert int(after.agent.real_steps) == 2**31 - 5


def test_totals_go_on_counting_where_float32_stops():
    totals = Totals.zero().replace(steps=jnp.int32(2**24), cost_ms=jnp.float32(100.0))
    info = {name: jnp.float32(300.0) for name in ("cost_ms", "art_ms")}
    info |= {"feasible": jnp.bool_(True), "response_ms": jnp.array([250.0, 350.0])}
    for _ in range(3):
        totals = totals.add(info)
    assert int(totals.steps) == 2**24 + 3
    assert float(totals.cost_ms) == pytest.approx(100.0 + 3 * 200.0 / 2**24)


def test_infinities_that_a_state_always_had_are_meant():
    """An empty table's padding is infinite; what becomes infinite isn't meant."""
    agent = _small("q_learning")
    params = simulator.make_params(SCENARIO)
    run = training.init(agent, jnp.int32(0), params)
    run = run.replace(agent=run.agent.replace(table=run.agent.table.at[0, 0, 1].set(jnp.inf)))
    decision = jnp.zeros((1, 1, USERS), jnp.int32)
    assert not np.asarray(health.check(run, run, {}, decision)).any()
    grown = run.replace(agent=run.agent.replace(table=run.agent.table.at[0, 0, 0].set(jnp.inf)))
    assert np.asarray(health.check(run, grown, {}, decision)).sum() == 1
    assert np.asarray(health.check(run, run, {"noise": jnp.float32(jnp.inf)}, decision)).sum() == 1
    assert np.asarray(health.check(run, run, {}, decision - 1)).sum() == 1


def test_a_run_whose_every_seed_fails_at_once_still_leaves_a_summary(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.SICK_EPOCH", 1)
    spoilt = _Spoilt(_small("q_learning"), 0, every=True)
    monkeypatch.setattr(simulated, "make_agent", lambda *_: spoilt)
    with jax.debug_nans(False):
        summary = unit.run(_settings("q_learning"), RunFolder(tmp_path / "run"), threads=1)
    assert summary.aggregate.failed == len(SEEDS)
    assert summary.aggregate.art_ms is None
    assert summary.aggregate.steps_to_optimal == Spread(0, 0, None, (None, None), None, (None, None))
    assert RunFolder(tmp_path / "run").summary() == summary
    nothing = {"seeds": 0, "succeeded": 0, "median": None, "iqm": None}
    nothing |= {"median_interval": [None, None], "iqm_interval": [None, None]}
    left = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert left["aggregate"]["steps_to_optimal"] == nothing
    assert len(list((tmp_path / "run" / "checkpoints").glob("*.ckpt"))) == len(SEEDS)
