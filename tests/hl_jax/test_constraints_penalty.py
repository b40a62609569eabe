"""The penalty of a broken constraint: its parts by hand, and that breaking the constraint never pays."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hl_jax import simulator
from hl_jax.agents.registry import AGENTS
from hl_jax.objective import (
    CONSTRAINTS,
    PENALTY_FACTOR,
    Penalty,
    constraint_value,
    efficient_models,
    straight_penalty,
    sufficient_penalty,
)
from hl_jax.scenario import CONTENTION_FORMS, Device, ModelPool, Node, Scenario
from launch.inputs.scenario_files import load_scenario
from tests.helpers.builders import DYNAMICS, SCENARIOS, TIMING, small_scenario


def with_models(models: list[tuple[float, float]], **changes: object) -> Scenario:
    """A small scenario whose pool has these (accuracy, local ms)."""
    pool = ModelPool(
        names=tuple(f"d{index}" for index in range(len(models))),
        accuracy=tuple(accuracy for accuracy, _ in models),
        million_macs=(1.0,) * len(models),
    )
    timing = dataclasses.replace(TIMING, local_ms=tuple(time for _, time in models))
    return small_scenario(pool=pool, timing=timing, **changes)


HULLS = {
    "all are efficient": ([(90, 400), (80, 200), (70, 100)], [(70, 100), (80, 200), (90, 400)]),
    # (85, 390) lies above the line from (80, 200) to (90, 400), which passes (85, 300).
    "above the line": ([(90, 400), (85, 390), (80, 200), (70, 100)], [(70, 100), (80, 200), (90, 400)]),
    "just below the line": ([(90, 400), (85, 299), (80, 200)], [(80, 200), (85, 299), (90, 400)]),
    "on the line": ([(90, 400), (85, 300), (80, 200)], [(80, 200), (90, 400)]),
    # Slower than a more accurate one.
    "dominated": ([(90, 400), (80, 200), (75, 250), (60, 200)], [(80, 200), (90, 400)]),
    # The chord from (70, 100) to (90, 180) passes below both others, one after the other.
    "a corner that later points undo": ([(90, 180), (84, 170), (78, 150), (70, 100)], [(70, 100), (90, 180)]),
    "one model": ([(90, 400)], [(90, 400)]),
    "equal accuracy": ([(90, 400), (80, 250), (80, 200)], [(80, 200), (90, 400)]),
    "twins": ([(90, 400), (90, 400), (80, 200)], [(80, 200), (90, 400)]),
}


@pytest.mark.parametrize(("models", "corners"), HULLS.values(), ids=HULLS.keys())
def test_efficient_models_by_hand(models, corners):
    found = efficient_models(with_models(models))
    # Twins of the most accurate model may both stand there: nothing lies between them.
    assert list(dict.fromkeys(found)) == corners


DEVICES = (Device("fast", speed=2.0), Device("slow", speed=0.5))


@pytest.mark.parametrize(
    ("scenario", "factor", "expected"),
    [  # g is 100 ms at 70 %, 200 at 80, 400 at 90
        (small_scenario(constraint=0.0), 1.0, {0: 0, 5: 0}),
        (small_scenario(constraint=70.0), 1.0, {0: 0}),  # every model meets it
        (small_scenario(4, constraint=75.0), 1.0, {0: 25, 5: 75}),  # 100 ms over four devices; 150 - 100
        (small_scenario(4, constraint=80.0), 1.0, {0: 25, 5: 75, 10: 125}),
        (small_scenario(4, constraint=80.1), 1.0, {0: 50, 0.1: 52, 10.1: 152}),  # now the 200 ms count
        (small_scenario(1, constraint=90.0), 3.0, {0: 600, 10: 1200, 15: 1350, 20: 1500}),
        (small_scenario(devices=DEVICES, constraint=90.0), 1.0, {0: 200, 10: 600, 20: 800}),  # half as fast
        # A busy processor and a full memory: 2 times 1.5.
        (small_scenario(4, constraint=90.0, dynamics=DYNAMICS), 1.0, {0: 150, 10: 750}),
    ],
)
def test_the_penalty_by_hand(scenario, factor, expected):
    penalty = sufficient_penalty(scenario, factor)
    assert {missing: pytest.approx(penalty.at(missing), rel=1e-6) for missing in expected} == expected
    assert len(penalty.missing) == 4  # three models: one shape for every constraint


@pytest.mark.parametrize(("missing", "ms"), [((), ()), ((1.0,), (0.0,)), ((0.0, 2.0, 1.0), (0.0,) * 3), ((0.0,), ())])
def test_points_that_are_no_penalty(missing, ms):
    with pytest.raises(ValueError, match="penalty: expected points ascending from 0"):
        Penalty(missing, ms)


def test_the_cost_of_breaking_the_constraint_by_hand():
    """Two devices, constraint 86 %: models of 90 and 80 % average 85, one point short."""
    params = simulator.make_params(small_scenario(2, constraint=86.0), straight_penalty(7.0, 11.0))
    cost = functools.partial(simulator.cost_ms, params)
    assert cost(jnp.array([0, 1]), jnp.array([400.0, 200.0])) == pytest.approx(300.0 + 7.0 + 11.0, rel=1e-6)
    assert cost(jnp.array([1, 1]), jnp.array([200.0, 200.0])) == pytest.approx(200.0 + 7.0 + 66.0, rel=1e-6)
    assert cost(jnp.array([0, 0]), jnp.array([400.0, 400.0])) == 400.0


@jax.jit
def costs(
    params: simulator.EnvParams, conditions: simulator.Conditions, actions: chex.Array
) -> tuple[chex.Array, chex.Array]:
    """Noise-free cost and feasibility of joint actions [A, N]."""
    response = jax.vmap(simulator.response_ms, in_axes=(None, None, 0))(params, conditions, actions)
    cost = jax.vmap(simulator.cost_ms, in_axes=(None, 0, 0))(params, actions, response)
    return cost, jax.vmap(simulator.meets_constraint, in_axes=(None, 0))(params, actions)


@functools.cache
def every_action(users: int, choices: int) -> chex.Array:
    flat = np.arange(choices**users)
    return jnp.asarray(np.stack(np.unravel_index(flat, (choices,) * users), axis=1), jnp.int32)


def margin_ms(params: simulator.EnvParams, conditions: simulator.Conditions) -> float:
    """How much dearer the cheapest infeasible joint action is than the cheapest feasible one."""
    users, choices = params.local_ms.shape[0], params.accuracy.shape[0]
    cost, feasible = (np.asarray(part) for part in costs(params, conditions, every_action(users, choices)))
    return float(np.min(cost[~feasible], initial=np.inf) - np.min(cost[feasible]))


def priced(scenario: Scenario) -> simulator.EnvParams:
    """The scenario's arrays with the default penalty."""
    return simulator.make_params(scenario, sufficient_penalty(scenario, PENALTY_FACTOR))


@pytest.mark.parametrize("users", range(1, 6))
def test_no_infeasible_action_is_cheaper_with_the_default_penalty(users):
    """The paper's four experiments and five constraints, by brute force."""
    for experiment, constraint in itertools.product("ABCD", CONSTRAINTS):
        scenario = load_scenario(SCENARIOS / f"exp{experiment}.toml").with_users(users)
        scenario = dataclasses.replace(scenario, constraint=constraint_value(constraint, scenario.pool))
        params = priced(scenario)
        margin = margin_ms(params, params.start)
        assert margin > 0.0, f"{experiment}, {users} users, {constraint}: breaking the constraint saves {-margin} ms"


def test_nor_under_any_constraint_in_between():
    """Constraints of a user's own, each tenth of a point; three devices, where the gaps between decisions are wide."""
    scenario = load_scenario(SCENARIOS / "expB.toml").with_users(3)
    for constraint in np.arange(73.0, 89.9, 0.1):
        params = priced(dataclasses.replace(scenario, constraint=float(constraint)))
        assert margin_ms(params, params.start) > 0.0, f"constraint {constraint}"


@pytest.mark.parametrize("constraint", ["80", "89", "Max"])
def test_nor_under_any_load_of_the_dynamic_scenario(constraint):
    scenario = load_scenario(SCENARIOS / "dynamic.toml").with_users(3)
    scenario = dataclasses.replace(scenario, constraint=constraint_value(constraint, scenario.pool))
    params = priced(scenario)
    draw = jax.jit(simulator.stationary_conditions)
    worst = params.start.replace(device_cpu=jnp.ones(3, jnp.int32), device_memory=jnp.ones(3, jnp.int32))
    for conditions in [worst, *(draw(jax.random.key(seed), params) for seed in range(10))]:
        assert margin_ms(params, conditions) > 0.0


def test_every_agent_that_learns_from_penalties_has_a_sufficient_factor_by_default_and_refuses_less():
    scenario, penalised = small_scenario(2), set()
    for name, kind in AGENTS.items():
        config = kind.config()
        assert kind.make(config, scenario).penalty_factor > 1.0
        if not hasattr(config, "penalty_factor"):
            continue
        penalised.add(name)
        assert kind.make(config, scenario).penalty_factor == config.penalty_factor
        with pytest.raises(ValueError, match=r"--penalty_factor: expected a value in \[1, 1e\+09\], found 0.9"):
            dataclasses.replace(config, penalty_factor=0.9)
    assert penalised == set(AGENTS) - {"factored"}


# Edge and cloud run a model of 70 %, in 2 ms; 90 % takes 60 ms on a device.
SMALL_FIRST = small_scenario(
    1,
    pool=ModelPool(names=("small", "large"), accuracy=(70.0, 90.0), million_macs=(1.0, 9.0)),
    timing=dataclasses.replace(
        TIMING, local_ms=(30.0, 60.0), edge_ms=2.0, cloud_ms=40.0, edge_share_ms=1.0, cloud_share_ms=4.0
    ),
    constraint=90.0,
)
TIMES = st.sampled_from([50.0, 100.0, 150.0, 200.0, 400.0, 800.0])


ACCURACIES = st.sampled_from([60.0, 70.0, 75.0, 85.0, 89.0, 90.0, 90.001])
DRAW = jax.jit(simulator.stationary_conditions)
MOST_FLEETS = int(os.environ.get("HL_JAX_FLEETS", "120"))  # 2,000 in the longer mode


@st.composite
def fleets(draw: st.DrawFn) -> Scenario:
    """Fleets of every kind: one to four devices, one to four models in any order, all knobs."""
    models, users = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    accuracy = draw(st.lists(ACCURACIES, min_size=models, max_size=models))
    alone = {f"{node}_ms": draw(st.sampled_from([2.0, 20.0]) | TIMES) for node in ("edge", "cloud")}
    share = {
        f"{node}_share_ms": alone[f"{node}_ms"] * draw(st.sampled_from([0.0, 0.5, 1.0])) for node in ("edge", "cloud")
    }
    local = tuple(draw(st.lists(TIMES, min_size=models, max_size=models)))
    device = st.tuples(st.sampled_from(["regular", "weak"]), st.sampled_from([0.5, 1.0, 2.0]))
    devices = draw(st.lists(device, min_size=users, max_size=users))
    forms = [draw(st.sampled_from(CONTENTION_FORMS)) for _ in range(2)]
    names = tuple(f"m{index}" for index in range(models))
    scenario = small_scenario(
        pool=ModelPool(names=names, accuracy=tuple(accuracy), million_macs=(1.0,) * models),
        timing=dataclasses.replace(TIMING, local_ms=local, **alone, **share),
        devices=tuple(Device(f"S{index}", link, speed) for index, (link, speed) in enumerate(devices)),
        edge=Node("regular", draw(st.integers(1, 4)), forms[0]),
        cloud=Node("weak", 4, forms[1]),
        dynamics=draw(st.sampled_from([None, DYNAMICS])),
    ).with_knobs(draw(st.sampled_from(["both", "offloading", "models"])))
    most = max(scenario.pool.accuracy)
    asked = draw(st.sampled_from([62.0, 70.0, 76.3, 81.0, 84.9, 90.0]) | st.sampled_from(scenario.pool.accuracy))
    return dataclasses.replace(scenario, constraint=min(most, asked))


@settings(max_examples=MOST_FLEETS)
@given(fleets(), st.integers(0, 2**31 - 1))
@example(SMALL_FIRST, 0)
def test_a_factor_of_one_is_enough_for_any_fleet(scenario, seed):
    """What the module's docstring proves, by brute force: the least cost is a feasible joint action's."""
    params = simulator.make_params(scenario, sufficient_penalty(scenario))
    assert margin_ms(params, DRAW(jax.random.key(seed), params)) > 0.0


def test_a_fast_edge_of_a_poor_first_model_does_not_pay():
    """The agents' own factors, where g alone would ask for 30 ms and the edge saves 58."""
    expected = SMALL_FIRST.timing.local_ms[1] - SMALL_FIRST.timing.edge_ms
    assert sufficient_penalty(SMALL_FIRST).at(20.0) >= expected
    for kind in (AGENTS["hybrid"], AGENTS["dqn"], AGENTS["q_learning"]):
        params = simulator.make_params(SMALL_FIRST, sufficient_penalty(SMALL_FIRST, kind.config().penalty_factor))
        assert margin_ms(params, params.start) > 0.0
