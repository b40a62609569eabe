"""`factored` on a user's own fleet: it learns what machines take, keeps what is asked, and goes on."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hl_jax
from hl_jax import environments, training
from hl_jax.agents.factored import computing, linear, sharing, ways
from hl_jax.agents.factored import tree as trees
from hl_jax.agents.factored.config import FactoredConfig
from hl_jax.agents.factored.placing import Placing, make
from hl_jax.agents.world import compiled_world, real_step
from hl_jax.fleets import environment
from hl_jax.fleets.machines import Link, Member, Station
from hl_jax.fleets.params import ways as ways_of
from hl_jax.fleets.scenario import FleetScenario
from hl_jax.optimum import placing
from hl_jax.profiles import Entry, Profile, Target
from hl_jax.scenario import ModelPool
from hl_jax.simulator import occupancy

POOL = ModelPool(("big", "small", "int8"), (90.0, 75.0, 88.0), (569.0, 41.0, 569.0))
SLOW, FAST = (80.0, 14.0, 30.0), (9.0, 2.0, 5.0)
STEPS = 60


def _target(name, medians, tail=1.3):
    entries = [
        Entry(model, ms, mean_ms=1.03 * ms, p90_ms=1.05 * ms, p99_ms=tail * ms, energy_mj=3.0 * ms)
        for model, ms in zip(POOL.names, medians, strict=True)
    ]
    return Target(name, tuple(entries))


def fleet(**more):
    """Six devices of two kinds under two edges and a cloud."""
    profiles = (
        Profile("slow", (_target("cpu", SLOW), _target("gpu", (50.0, 12.0, 60.0)))),
        Profile("fast", (_target("cpu", FAST),)),
        Profile("server", (_target("cpu", (4.0, 1.0, 2.5)),)),
    )
    link = Link(rtt_ms=8.0, up_mbps=100.0)
    devices = tuple(
        Member(f"d{number}", kind, above=edge, link=link, speed=speed)
        for number, (kind, edge, speed) in enumerate(
            zip(("slow",) * 4 + ("fast",) * 2, ("left", "right") * 3, (1.0, 0.9, 1.1, 1.0, 1.0, 1.2), strict=True)
        )
    )
    edges = (
        Station("left", "fast", above="sky", link=Link(rtt_ms=15.0)),
        Station("right", "server", above="sky", link=Link(rtt_ms=15.0)),
    )
    asked = {"constraint": 88.0, "types": ("FP32", "FP32", "Int8")} | more
    return FleetScenario("six", POOL, profiles, devices, edges, (Station("sky", "server", slots=4),), **asked)


@functools.cache
def _programs(users_constraint: float) -> tuple[Placing, object, object]:
    one = fleet(constraint=users_constraint)
    agent, params = make(FactoredConfig(), one), environments.make_params(one, environments.sufficient_penalty(one))
    world = compiled_world(environments.environment(params), params)

    def follow(seed):
        run = training.init(agent, seed, params)

        def step(run, _):
            state, action = agent.suggest(run.agent)
            run, obs, info = real_step(world, run, action)
            state = agent.observe(state, action, info, obs)
            best = agent.decide(state, state.obs)
            worth = environment.worth(params, params.start, best)
            return run.replace(agent=state), {
                "cost": worth.cost,
                "feasible": worth.feasible,
                "done": action,
                "best": best,
            }

        return jax.lax.scan(step, run, None, length=STEPS)

    return agent, params, jax.jit(follow)


def test_it_is_near_the_optimum_soon_stays_there_and_seeds_differ():
    agent, params, follow = _programs(88.0)
    truth = placing.optimum(environment.problem(params, params.start))
    runs = [jax.device_get(follow(jnp.int32(seed))) for seed in (0, 1, 0)]
    for _, seen in runs:
        regret = 100.0 * (seen["cost"] / truth.cost - 1.0)
        assert seen["feasible"].all()
        assert regret[25:].max() < 5.0
        assert regret[-1] < 1.0
    assert not np.array_equal(runs[0][1]["done"], runs[1][1]["done"])
    assert np.array_equal(runs[0][1]["done"], runs[2][1]["done"])
    for leaf in jax.tree.leaves(runs[0][0].agent):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            assert np.isfinite(leaf).all()
    # What isn't there is never done.
    mask = np.array(agent.tree.mask)
    assert all(mask[np.arange(6), action].all() for _, seen in runs for action in seen["done"])


def test_another_constraint_is_kept_at_once():
    agent, _, follow = _programs(88.0)
    run, _ = follow(jnp.int32(3))
    for constraint in (0.0, 80.0, 90.0):
        state = agent.under(run.agent, constraint)
        action = np.asarray(jax.jit(agent.decide)(state, state.obs))
        assert np.mean([agent.accuracy[choice] for choice in action]) >= constraint - 1e-3


def test_the_structure_says_nothing_of_times():
    """Other machines' figures give the same agent."""
    mine = fleet()
    other = dataclasses.replace(
        mine,
        profiles=tuple(
            dataclasses.replace(
                profile,
                targets=tuple(
                    dataclasses.replace(
                        target, entries=tuple(Entry(one.model, 7.0 * one.p50_ms) for one in target.entries)
                    )
                    for target in profile.targets
                ),
            )
            for profile in mine.profiles
        ),
    )
    assert make(FactoredConfig(), mine) == make(FactoredConfig(), other)


def test_machines_of_a_kind_share_what_is_known_and_devices_keep_their_own_part():
    tree = trees.structure(fleet(), ways_of(fleet()))
    entry = np.array(tree.entry)
    same, other = entry[0], entry[4]
    here = np.array(tree.where) == 0
    mask = np.array(tree.mask)
    assert np.array_equal(same[here & mask[0]], entry[1][here & mask[1]])
    assert not set(same[here & mask[0]]) & set(other[here & mask[4]])
    # The left edge is of the kind of the fast devices: what is learned at one is known of the other.
    edge = np.array(tree.where) == 1
    assert set(entry[0][edge & mask[0]]) == set(other[here & mask[4]])


@functools.partial(jax.jit, static_argnums=0)
def _told(agent, model, device, choice, log):
    """The model with one report."""
    features, entry = agent.features, jnp.array(agent.tree.entry)[device, choice]
    reports = computing.Reports(
        entry=entry[None],
        machine=jnp.asarray(features.machine)[device, choice][None],
        group=jnp.array(agent.tree.group)[entry][None],
        busy=jnp.zeros((1, 2)),
        time_ms=jnp.exp(log)[None],
        there=jnp.array([True]),
    )
    return computing.told(features, model, reports, 1.0)


def test_reports_are_least_squares_in_float64():
    """Against normal equations in NumPy, with the weights that the model gave its reports."""
    agent = make(FactoredConfig(), fleet())
    tree, features = agent.tree, agent.features
    model = computing.init(features, tree.entries, tree.groups)
    rng = np.random.default_rng(0)
    mask, size = np.array(tree.mask), features.mean.size
    precision, right = np.diag(1.0 / features.deviation.astype(float) ** 2), np.zeros(size)
    for _ in range(60):
        device = int(rng.integers(6))
        choice = int(rng.choice(np.flatnonzero(mask[device])))
        log = float(rng.normal(2.0, 0.3))
        row = features.entries[tree.entry[device][choice]].astype(float)
        row[features.machine[device, choice]] += 1.0
        noise = float(model.noise[tree.group[tree.entry[device][choice]]])
        noise += (computing.FIRST / (1.0 + float(model.counted[tree.entry[device][choice]]))) ** 2
        error = log - row @ np.asarray(computing.weights(features, model), float)
        unsure = float(row @ np.asarray(model.covariance, float) @ row)
        trust = (computing.DEGREES + 1.0) / (computing.DEGREES + error**2 / (noise + unsure))
        precision += np.outer(row, row) * trust / noise
        right += row * (log - row @ features.mean) * trust / noise
        model = _told(agent, model, device, choice, jnp.float32(log))
    expected = features.mean + np.linalg.solve(precision, right)
    np.testing.assert_allclose(np.asarray(computing.weights(features, model)), expected, atol=2e-3)
    np.testing.assert_allclose(np.asarray(model.covariance), np.linalg.inv(precision), atol=5e-3)


@pytest.mark.parametrize(("form", "slots"), [("queue", 2), ("linear", 1), ("steps", 3)])
def test_how_a_node_is_shared_is_found_out(form, slots):
    tree = trees.structure(fleet(), ways_of(fleet()))
    known, truth = sharing.init(tree), occupancy(form, slots, 1, 6)
    edge = int(np.flatnonzero(np.array(tree.where) == 1)[0])
    local = int(np.flatnonzero(np.array(tree.mask)[4])[0])
    for together in ((0, 2), (0,), (0, 2, 4), (0, 2)):
        action = np.full(6, local)
        action[list(together)] = edge
        waiting = np.where(np.isin(np.arange(6), together), 10.0 * (truth[len(together)] - 1.0), 0.0)
        known = sharing.told(
            tree, known, jnp.array(action), jnp.full(6, 10.0), jnp.asarray(waiting, jnp.float32), jnp.ones(6, bool), 1.0
        )
    found = np.exp(np.asarray(sharing.expected(known))[0])
    # Only devices 0, 2 and 4 hang there: of more tasks nothing could be seen, and the form says it.
    np.testing.assert_allclose(found[1:4], truth[1:4], rtol=0.1)
    assert np.all(np.diff(np.asarray(sharing.expected(known)), axis=1) >= -1e-6)


def test_ways_to_the_cloud_tell_the_sum_of_both_links():
    tree = trees.structure(fleet(), ways_of(fleet()))
    model, none = ways.init(tree), jnp.zeros(6, jnp.int32)
    places = np.array(tree.where)
    edge, cloud = (int(np.flatnonzero(places == place)[0]) for place in (1, 2))
    truth = np.array([[0.0, 10.0 + index, 40.0 + index] for index in range(6)])
    for choice in (edge, cloud):
        # One device tells the uplink of its edge; the others' ways to the cloud follow.
        action = jnp.array([choice] * 6 if choice == edge else [cloud, cloud, edge, edge, edge, edge])
        way = truth[np.arange(6), places[np.asarray(action)]]
        for _ in range(3):
            model = ways.told(tree, model, action, jnp.asarray(way, jnp.float32), jnp.ones(6, bool), none, none, 1.0)
    found = np.asarray(ways.predicted(tree, ways.mean(model), none, none))
    np.testing.assert_allclose(found, truth, atol=1.5)


def test_a_device_that_does_not_answer_teaches_nothing():
    agent, params, _ = _programs(88.0)
    run = training.init(agent, jnp.int32(0), params)
    action = jnp.array([int(np.flatnonzero(row)[0]) for row in np.array(agent.tree.mask)])
    info = {name: np.full(6, np.nan, np.float32) for name in ("computing_ms", "waiting_ms", "way_ms")}
    after = agent.observe(run.agent, action, info | {"answered": jnp.zeros(6, bool)}, run.agent.obs)
    for name in ("covariance", "noise", "counted", "ratios"):
        before, now = (np.asarray(getattr(state.computing, name)) for state in (run.agent, after))
        np.testing.assert_allclose(now, before, atol=1e-4)
    assert np.isfinite(np.asarray(after.ways.triangle)).all()
    assert np.isfinite(np.asarray(after.sharing.evidence)).all()


def test_others_refuse_such_a_fleet():
    for name in ("hybrid", "dqn", "q_learning"):
        with pytest.raises(ValueError, match=f"expected factored, for a fleet of its own .six., found {name}"):
            hl_jax.agent(name, fleet())


def test_triangles_stay_regular_for_ever():
    """Fading gives way to the prior: what nobody reports any more is as unsure as before, and no more."""
    tree = trees.structure(fleet(), ways_of(fleet()))
    features = trees.features(tree)
    model = computing.init(features, tree.entries, tree.groups)
    reports = computing.Reports(
        entry=jnp.array([0]),
        machine=jnp.array([features.machine[0, 0]]),
        group=jnp.array([0]),
        busy=jnp.zeros((1, 2)),
        time_ms=jnp.array([20.0]),
        there=jnp.array([True]),
    )
    step = jax.jit(lambda model: computing.told(features, model, reports, 0.98))
    for _ in range(2000):
        model = step(model)
    diagonal = np.diag(np.asarray(model.triangle))[:-1]
    assert np.isfinite(diagonal).all()
    prior = linear.triangle(jnp.asarray(np.diag(np.append(1.0 / features.deviation, 0.0)).astype(np.float32)))
    assert np.all(np.abs(diagonal) >= 0.9 * np.abs(np.diag(np.asarray(prior))[:-1]))
