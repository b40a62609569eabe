"""The environment of users' own fleets: against a slow second one, against the oracle, and where nothing is there."""

from __future__ import annotations

import contextlib
import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hl_jax import placement
from hl_jax.agents.world import observed_levels
from hl_jax.fleets import environment
from hl_jax.fleets.environment import FleetOrchestration, Worth
from hl_jax.fleets.machines import Link, Member, Radio, Station
from hl_jax.fleets.params import FleetParams, make_params
from hl_jax.fleets.scenario import FleetScenario
from hl_jax.objective import Goal, Penalty
from hl_jax.optimum import placing
from hl_jax.scenario import Dynamics
from hl_jax.simulator import Conditions
from tests.helpers import env_contract, numpy_fleet
from tests.helpers.builders import DYNAMICS
from tests.helpers.numpy_fleet import fleet

problem = jax.jit(environment.problem)


@jax.jit
def _judged(params: FleetParams, conditions: Conditions, actions: jax.Array) -> tuple[Worth, jax.Array]:
    seen = jax.vmap(environment.worth, in_axes=(None, None, 0))(params, conditions, actions)
    found = environment.problem(params, conditions)
    return seen, jax.vmap(placement.mean_cost, in_axes=(None, 0))(found, actions)


def judged(params: FleetParams, conditions: Conditions, actions: jax.Array) -> tuple[Worth, np.ndarray]:
    """What joint actions are worth, and what searches count them as, in NumPy."""
    return jax.device_get(_judged(params, conditions, actions))


def worths(params: FleetParams, conditions: Conditions, actions: jax.Array) -> Worth:
    return judged(params, conditions, actions)[0]


step = jax.jit(FleetOrchestration().step)
reset = jax.jit(FleetOrchestration().reset)
worth = jax.jit(environment.worth)


@jax.jit
def late_ms(params: FleetParams) -> jax.Array:
    """Each choice's 95th percentile alone. [N, C]."""
    computing = environment.computing_ms(params, params.start) * params.late
    return environment.ways_ms(params, params.start) + computing


# Users, edges and clouds: devices straight on clouds and on nothing, nobody above, edges without a cloud.
SIZES = [(2, 2, 1), (3, 2, 2), (3, 1, 1), (2, 0, 2), (3, 2, 0), (2, 0, 0)]
GOALS = [Goal(), Goal("energy"), Goal("both", 0.3)]


def choice(scenario: FleetScenario, label: str) -> int:
    return scenario.choice_labels().index(label)


def joint(scenario: FleetScenario, *labels: str) -> jax.Array:
    return jnp.array([choice(scenario, label) for label in labels], jnp.int32)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_it_is_as_a_loop_over_devices_says(size):
    rng = np.random.default_rng(sum(size))
    found_late = found_feasible = 0
    for number in range(6):
        scenario = numpy_fleet.some_fleet(rng, *size, goal=GOALS[number % 3])
        params = make_params(scenario)
        conditions = numpy_fleet.some_conditions(rng, size[0], size[1] + size[2]) if number else params.start
        every = list(numpy_fleet.actions(scenario))
        asked = [every[index] for index in rng.integers(0, len(every), 64)]
        seen, costs = judged(params, conditions, jnp.array(asked, jnp.int32))
        for index, action in enumerate(asked):
            truth = numpy_fleet.expected(scenario, conditions, action)
            np.testing.assert_allclose(seen.response_ms[index], truth.response_ms, rtol=2e-5)
            np.testing.assert_allclose(seen.energy_mj[index], truth.energy_mj, rtol=2e-5, atol=1e-4)
            np.testing.assert_allclose(seen.cost[index], truth.cost, rtol=2e-5)  # no penalty was given
            np.testing.assert_allclose(seen.accuracy[index], truth.accuracy, rtol=1e-6)
            assert bool(seen.feasible[index]) == truth.feasible
            if truth.feasible:
                np.testing.assert_allclose(costs[index], truth.cost, rtol=2e-5)
            else:
                assert costs[index] == np.inf
            found_feasible += truth.feasible
            found_late += not truth.feasible and truth.accuracy >= scenario.constraint
    assert found_feasible > 20
    assert found_late > 0


@pytest.mark.parametrize("size", [(2, 2, 1), (2, 0, 2), (2, 0, 0)], ids=str)
def test_the_oracle_s_answer_is_the_best_of_all(size):
    rng = np.random.default_rng(7)
    for number in range(3):
        scenario = numpy_fleet.some_fleet(rng, *size, goal=GOALS[number])
        params = make_params(scenario)
        truths = [numpy_fleet.expected(scenario, params.start, action) for action in numpy_fleet.actions(scenario)]
        best = min(one.cost for one in truths if one.feasible)
        found = placing.optimum(problem(params, params.start))
        assert found.cost == pytest.approx(best, rel=2e-5)
        again = numpy_fleet.expected(scenario, params.start, found.action)
        assert again.feasible
        assert again.cost == pytest.approx(best, rel=2e-5)


def test_numbers_worked_out_by_hand():
    """150.528 KB at 100 Mbit/s are 12.04224 ms, 1 KB at 50 are 0.16; an idle box takes 42 ms of 40, 1.05 times."""
    scenario = fleet(radio=Radio(send_mw=2000.0, receive_mw=1000.0, wait_mw=500.0))
    found = worths(make_params(scenario), make_params(scenario).start, joint(scenario, *["big/E:cpu"] * 3)[None])
    own = 4.0 + 12.04224 + 0.16
    # Two tasks on the one slot of `left`, first come, first served: one waits for the other; `right` has one task.
    np.testing.assert_allclose(
        found.response_ms[0], [own + 1.5 * 42.0, 6.0 + 1.5 * 42.0, 2.0 + 60.2112 + 42.0], rtol=1e-6
    )
    sent = 2.0 * 12.04224 + 0.16
    np.testing.assert_allclose(found.energy_mj[0, :2], [sent + 0.5 * (4.0 + 63.0), 0.5 * (6.0 + 63.0)], rtol=1e-6)
    away = worths(make_params(scenario), make_params(scenario).start, joint(scenario, *["small/C:gpu"] * 3)[None])
    further = [10.0 + 6.02112 + 0.04] * 2 + [30.0]
    own_ways = [own, 6.0, 2.0 + 60.2112]
    np.testing.assert_allclose(
        away.response_ms[0], [a + b + 1.05 * 1.8 for a, b in zip(own_ways, further, strict=True)], rtol=1e-6
    )


def test_what_is_not_there_takes_for_ever_and_is_no_riddle():
    """A phone's model on a GPU that a sensor hasn't; an edge where nothing is above; with radios that draw nothing."""
    scenario = fleet(devices=(Member("a", "phone"), Member("b", "sensor", above="left"), *fleet().devices[2:]))
    params = make_params(scenario)
    state = reset(jax.random.key(0), params)[1]
    for labels in (
        ("big/E:cpu", "big/L:cpu", "big/L:cpu"),
        ("big/C:cpu", "big/L:cpu", "big/L:cpu"),
        ("big/L:cpu", "big/L:gpu", "big/L:cpu"),
    ):
        action = joint(scenario, *labels)
        lacking = [not row[one] for row, one in zip(scenario.mask, action.tolist(), strict=True)]
        assert sum(lacking) == 1
        _, following, reward, _, _, info = step(jax.random.key(1), state, action, params)
        seen = worth(params, params.start, action)
        for times in (info["response_ms"], info["mean_ms"], info["energy_mj"], seen.response_ms):
            np.testing.assert_array_equal(np.isinf(times), lacking)
            assert not np.isnan(times).any()
        assert reward == -np.inf
        assert seen.cost == np.inf
        assert not seen.feasible
        assert not info["feasible"]
        assert np.isfinite(following.device_load).all()
        assert np.isfinite(following.node_load).all()


def test_energy_is_told_where_only_time_counts():
    scenario = fleet()
    seen = worth(make_params(scenario), make_params(scenario).start, joint(scenario, *["big/L:cpu"] * 3))
    np.testing.assert_allclose(seen.energy_mj, [600.0, 500.0, 600.0], rtol=1e-6)


@pytest.mark.parametrize("sizes", [(3, 2, 2), (2, 0, 0)])
def test_the_contract_of_environments(sizes):
    scenario = dataclasses.replace(
        numpy_fleet.some_fleet(np.random.default_rng(3), *sizes), noise=None, dynamics=DYNAMICS
    )
    mask = np.array(scenario.mask)
    params = make_params(scenario, Penalty((0.0,), (1e4,)))

    class Jitted:
        reset, step = staticmethod(reset), staticmethod(step)

    env_contract.check_environment(Jitted(), params, steps=40, mask=mask)


def test_conditions_move_and_monitors_show_them():
    scenario = fleet(dynamics=DYNAMICS)
    params = make_params(scenario)
    largest = np.array(observed_levels(scenario)) - 1
    assert largest.tolist() == [1] * 9 + [8] * 3 + [1] * 6
    obs, state = reset(jax.random.key(0), params)
    action, seen = joint(scenario, "big/L:cpu", "small/E:cpu", "small/C:gpu"), [obs]
    for number in range(60):
        obs, state, *_ = step(jax.random.key(number), state, action, params)
        seen.append(obs)
    values = np.array(seen)
    assert values.shape == (61, 18)
    assert (values >= 0).all()
    assert (values <= largest).all()
    moved = np.any(values != values[0], axis=0)
    assert moved.all(), moved
    levels = values[:, 9:12]
    assert levels.max() == DYNAMICS.cpu_level_max
    # Levels move by one, in both directions.
    assert set(np.unique(np.diff(levels, axis=0))) == {-1, 0, 1}


def test_fixed_conditions_stay():
    scenario = fleet(edges=(fleet().edges[0], dataclasses.replace(fleet().edges[1], link=Link(30.0, state="weak"))))
    params = make_params(scenario)
    _, state = reset(jax.random.key(0), params)
    action = joint(scenario, *["small/E:cpu"] * 3)
    for number in range(5):
        obs, state, *_ = step(jax.random.key(number), state, action, params)
        assert obs.tolist() == [0] * 9 + [0, 0, 0] + [0, 0, 0] + [0, 1, 0]


def test_monitors_show_what_tasks_put_there():
    """A big task keeps a box busy for 42 ms of a window of 100, on one of one slot, or of two; a phone for 126."""
    scenario = fleet(monitor_period_ms=100.0)
    params = make_params(scenario)
    _, state = reset(jax.random.key(0), params)
    _, after, *_ = step(jax.random.key(0), state, joint(scenario, *["big/E:cpu"] * 3), params)
    np.testing.assert_allclose(after.node_load, [0.84, 0.21, 0.0], rtol=1e-6)
    np.testing.assert_array_equal(after.device_load, [0.0, 0.0, 0.0])
    _, after, *_ = step(jax.random.key(0), state, joint(scenario, "small/L:gpu", "small/L:cpu", "big/C:gpu"), params)
    np.testing.assert_allclose(after.device_load, [0.126, 1.0, 0.0], rtol=1e-6)
    np.testing.assert_allclose(after.node_load, [0.0, 0.0, 9.45 / 400.0], rtol=1e-6)


def test_a_deadline_nobody_can_keep_is_told():
    """The phone's fastest model takes 12 ms, its 95th percentile 16.8; away it takes longer."""

    def asked(deadline_ms: float, **changes) -> FleetScenario:
        first = dataclasses.replace(fleet().devices[0], deadline_ms=deadline_ms, **changes)
        return fleet(devices=(first, *fleet().devices[1:]))

    expected = "expected at least 16.8 ms, the 95th percentile of its fastest choice alone, found 16.7"
    with pytest.raises(ValueError, match=f"^devices a: deadline_ms: {re.escape(expected)}$"):
        make_params(asked(16.7))
    assert np.asarray(make_params(asked(16.81)).deadline_ms)[0] == np.float32(16.81)
    with pytest.raises(ValueError, match=r"devices a: deadline_ms: expected at least 28\.67 ms"):
        make_params(asked(18.0, least_accuracy=85.0, link=Link()))  # the server's gpu: 12.6, over 10, 6.02 and 0.04


@pytest.mark.parametrize(("leaves", "fine"), [(0.2, True), (0.0, False)])
def test_a_weak_link_that_may_become_regular_is_no_reason_to_refuse(leaves, fine):
    changing = Dynamics((0.1, 0.1), (0.1, 0.1), (0.1, leaves), (0.1, 0.1), (0.1, 0.1), 0.1, 2)
    device = Member("b", "sensor", above="left", link=Link(6.0, state="weak"), deadline_ms=30.0)
    scenario = fleet(devices=(device, fleet().devices[2]), dynamics=changing)
    if fine:
        make_params(scenario)
    else:
        with pytest.raises(ValueError, match="devices b: deadline_ms: expected at least 9"):
            make_params(scenario)


def test_a_deadline_that_is_just_kept_can_be_met():
    """What `make_params` lets through, the oracle finds: both count in float32."""
    rng, kept = np.random.default_rng(0), 0
    for _ in range(8):
        device = Member("a", "sensor", above="left", link=Link(float(rng.uniform(0.0, 9.0)), float(rng.uniform(1, 99))))
        scenario = fleet(devices=(device,), edges=fleet().edges[:1], constraint=0.0)
        least = float(jnp.min(late_ms(make_params(scenario))))
        for deadline in (least, float(np.nextafter(np.float32(least), np.float32(np.inf)))):
            asked = dataclasses.replace(scenario, devices=(dataclasses.replace(device, deadline_ms=deadline),))
            with contextlib.suppress(ValueError):
                params = make_params(asked)
                kept += 1
                assert np.asarray(problem(params, params.start).most).max() == 1
    assert kept >= 8


def test_an_energy_nobody_measured_is_told_only_where_it_counts():
    bare = numpy_fleet.profile("sensor", {"cpu": 500.0}, energy_w=None)
    profiles = tuple(bare if one.kind == "sensor" else one for one in numpy_fleet.PROFILES)
    params = make_params(fleet(profiles=profiles))
    _, state = FleetOrchestration().reset(jax.random.key(0), params)
    action = jnp.array([int(np.argmax(row)) for row in fleet(profiles=profiles).mask], jnp.int32)
    *_, info = FleetOrchestration().step(jax.random.key(1), state, action, params)
    assert "energy_mj" not in info  # not 0, which it isn't
    assert np.isfinite(info["cost_ms"])
    assert worth(params, params.start, action).energy_mj is None
    assert np.isfinite(make_params(fleet()).energy_mj).all()
    with pytest.raises(ValueError, match=r"found none for sensor.cpu \(big, mid, small\)"):
        make_params(fleet(profiles=profiles, goal=Goal("both", 0.1)))
    make_params(fleet(profiles=profiles, goal=Goal("both", 0.0)))


def _never_pays(scenario: FleetScenario) -> None:
    """In the best, the worst and mixed conditions some feasible joint action costs less than all that aren't."""
    params = make_params(scenario)
    params = make_params(scenario, environment.sufficient_penalty(params))
    every = jnp.array(list(numpy_fleet.actions(scenario)), jnp.int32)
    best, worst = environment.extremes(params)
    mixed = dataclasses.replace(worst, device_cpu=best.device_cpu, device_memory=best.device_memory)
    compared = 0
    for conditions in (best, worst, mixed):
        seen = worths(params, conditions, every)
        if seen.feasible.any():
            compared += 1
            assert seen.cost[seen.feasible].min() < seen.cost[~seen.feasible].min()
    assert compared >= 1


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: goal.objective)
@pytest.mark.parametrize("changing", [False, True])
def test_breaking_a_constraint_never_pays(goal, changing):
    dynamics = dataclasses.replace(DYNAMICS, cpu_level_max=8) if changing else None
    _never_pays(fleet(goal=goal, dynamics=dynamics, constraint=83.0, radio=Radio(wait_mw=2000.0)))


def test_it_does_not_where_only_loaded_nodes_are_accurate():
    """Beside a load of 8 of 9 a node takes 9 times as long; the device runs its small model as ever."""
    bare = dataclasses.replace(fleet().devices[0], memory_mb=50.0)
    dynamics = dataclasses.replace(DYNAMICS, cpu_level_max=8)
    _never_pays(fleet(devices=(bare,), edges=fleet().edges[:1], constraint=90.0, dynamics=dynamics))


def test_breaking_a_deadline_never_pays():
    """Sending costs this device nothing but time, of which a deadline leaves too little."""
    device = Member("a", "sensor", above="left", link=Link(300.0), deadline_ms=150.0)
    _never_pays(fleet(devices=(device,), edges=fleet().edges[:1], constraint=0.0, goal=Goal("energy")))


def test_the_extremes_are_what_chains_reach():
    still = make_params(
        fleet(
            devices=(
                dataclasses.replace(fleet().devices[0], above="right", link=Link(state="weak")),
                *fleet().devices[1:],
            )
        )
    )
    for found in environment.extremes(still):
        jax.tree.map(np.testing.assert_array_equal, found, still.start)
    dynamics = Dynamics((0.1, 0.0), (0.0, 0.2), (0.1, 0.1), (0.0, 0.0), (0.1, 0.1), 0.1, 5)
    best, worst = environment.extremes(make_params(fleet(dynamics=dynamics)))
    assert [int(one[0]) for one in (worst.device_cpu, worst.device_memory, worst.device_weak)] == [1, 0, 1]
    assert [int(one[0]) for one in (worst.node_cpu, worst.node_memory, worst.node_weak)] == [5, 0, 1]
    assert max(int(leaf.max()) for leaf in jax.tree.leaves(best)) == 0


def test_a_dark_device_needs_no_nodes():
    """Nobody above: all run on themselves, observed alone."""
    scenario = fleet(devices=(Member("a", "phone"), Member("b", "sensor")), edges=(), clouds=(), constraint=75.0)
    params = make_params(scenario)
    assert scenario.choices == 6
    obs, state = reset(jax.random.key(0), params)
    assert obs.shape == (6,)
    obs, *_, info = step(jax.random.key(0), state, joint(scenario, "mid/L:gpu", "small/L:cpu"), params)
    assert obs.shape == (6,)
    np.testing.assert_allclose(info["mean_ms"], [31.5, 105.0], rtol=1e-6)


def test_the_most_tasks_are_counted_as_one_by_one():
    rng = np.random.default_rng(5)
    users, choices = 6, 9
    where = jnp.asarray(np.repeat([0, 1, 2], 3), jnp.int32)
    occupancy = [np.maximum.accumulate(rng.uniform(1.0, 4.0, (m, users + 1)), axis=1) for m in (2, 1)]
    for one in occupancy:
        one[:, :2] = 1.0
    node = [rng.integers(0, 3, users), rng.integers(0, 2, users)]
    room, late = rng.uniform(-5.0, 60.0, (users, choices)), rng.uniform(1.0, 30.0, (users, choices))
    late[0, 0], room[1] = np.inf, np.inf
    found = placement.most_tasks(
        *(jnp.asarray(one, jnp.float32) for one in (room, late)),
        where,
        tuple(jnp.asarray(one, jnp.int32) for one in node),
        tuple(jnp.asarray(one, jnp.float32) for one in occupancy),
    )
    for device in range(users):
        for one in range(choices):
            kind = int(where[one])
            table = np.ones(users + 1)
            if kind and node[kind - 1][device] < len(occupancy[kind - 1]):
                table = occupancy[kind - 1][node[kind - 1][device]]
            expected = sum(late[device, one] * table[n] <= room[device, one] for n in range(1, users + 1))
            assert int(found[device, one]) == expected


def test_stations_of_many_forms_share_as_they_say():
    for form, factor in (("linear", 2.0), ("steps", 2.0), ("quadratic", 2.0), ("queue", 1.5)):
        scenario = fleet(edges=(Station("left", "box", contention=form), fleet().edges[1]))
        seen = worths(make_params(scenario), make_params(scenario).start, joint(scenario, *["big/E:cpu"] * 3)[None])
        assert float(seen.response_ms[0, 1]) == pytest.approx(6.0 + 42.0 * factor, rel=1e-6)
