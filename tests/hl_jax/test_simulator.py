"""The simulator against a second one, against numbers worked out by hand, and against the interface's contract."""

from __future__ import annotations

import dataclasses
import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hl_jax import simulator
from hl_jax.objective import Penalty, straight_penalty, sufficient_penalty
from hl_jax.scenario import CONTENTION_FORMS, LINKS, Device, ModelPool, Node, Scenario, Timing
from launch.inputs.scenario_files import load_scenario
from tests.helpers import numpy_simulator
from tests.helpers.builders import CLOUD, D0, D1, D2, DYNAMICS, EDGE, SCENARIOS, TIMING, small_scenario
from tests.helpers.env_contract import check_environment, check_step
from tests.helpers.numpy_simulator import Background

ENV = simulator.Orchestration()
RESET = jax.jit(ENV.reset)
STEP = jax.jit(ENV.step)
RESPONSE = jax.jit(simulator.response_ms)
COST = jax.jit(simulator.cost_ms)


def idle(users: int, **changes: object) -> Background:
    """No background load, regular links."""
    none = (0,) * users
    background = Background(none, none, none, (0, 0), (0, 0), (0, 0))
    return dataclasses.replace(background, **changes)


def conditions_of(background: Background) -> simulator.Conditions:
    fields = dataclasses.asdict(background)
    return simulator.Conditions(**{name: jnp.array(values, jnp.int32) for name, values in fields.items()})


def state_of(background: Background) -> simulator.EnvState:
    users = len(background.device_cpu)
    return simulator.EnvState(
        conditions=conditions_of(background),
        device_load=jnp.zeros(users, jnp.float32),
        node_load=jnp.zeros(2, jnp.float32),
        time=jnp.int32(0),
    )


def respond(scenario: Scenario, background: Background, action: list[int]) -> np.ndarray:
    return np.asarray(RESPONSE(simulator.make_params(scenario), conditions_of(background), jnp.array(action)))


# --- The second simulator ---


def times(low: float = 1.0, high: float = 900.0) -> st.SearchStrategy[float]:
    return st.floats(low, high, width=32)


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    users, models = draw(st.sampled_from([(1, 2), (2, 3), (4, 3)]))  # few shapes: each compiles once
    edge, cloud = draw(times()), draw(times())
    nodes = st.builds(Node, st.sampled_from(LINKS), st.integers(1, 8), st.sampled_from(CONTENTION_FORMS))
    return Scenario(
        name="drawn",
        pool=ModelPool(
            names=tuple(f"d{index}" for index in range(models)),
            accuracy=tuple(draw(st.lists(st.floats(50.0, 100.0), min_size=models, max_size=models))),
            million_macs=(1.0,) * models,
        ),
        timing=Timing(
            local_ms=tuple(draw(st.lists(times(), min_size=models, max_size=models))),
            edge_ms=edge,
            cloud_ms=cloud,
            edge_share_ms=edge * draw(st.floats(0.0, 1.0)),
            cloud_share_ms=cloud * draw(st.floats(0.0, 1.0)),
            edge_reference_cores=draw(st.integers(1, 4)),
            cloud_reference_cores=draw(st.integers(1, 8)),
            weak_device_ms=draw(times()),
            weak_edge_ms=draw(times()),
            weak_edge_offload_ms=draw(times()),
            weak_cloud_offload_ms=draw(times()),
            busy_cpu_factor=draw(st.floats(1.0, 4.0)),
            busy_memory_factor=draw(st.floats(1.0, 4.0)),
            weak_device_offload_ms=draw(times()),
        ),
        devices=tuple(Device(f"S{i}", draw(st.sampled_from(LINKS)), draw(st.floats(0.25, 4.0))) for i in range(users)),
        edge=draw(nodes),
        cloud=draw(nodes),
        constraint=50.0,
        noise=0.0,
        monitor_period_ms=draw(times(300.0, 3000.0)),
    )


@st.composite
def steps(draw: st.DrawFn) -> tuple[Scenario, Background, list[int]]:
    scenario = draw(scenarios())
    flags = lambda count: draw(st.lists(st.integers(0, 1), min_size=count, max_size=count))  # noqa: E731
    users = scenario.users
    levels = draw(st.lists(st.integers(0, 8), min_size=2, max_size=2))
    background = Background(flags(users), flags(users), flags(users), levels, flags(2), flags(2))
    action = draw(st.lists(st.integers(0, scenario.choices - 1), min_size=users, max_size=users))
    reachable = max(scenario.pool.accuracy)
    return dataclasses.replace(scenario, constraint=draw(st.floats(50.0, reachable))), background, action


def close_to_a_threshold(scenario: Scenario, background: Background, action: list[int]) -> bool:
    """Whether float32 and float64 may round a monitor's reading differently."""
    used = [
        numpy_simulator.computing_ms(scenario, background, device, choice) / scenario.monitor_period_ms
        for device, choice in enumerate(action)
    ]
    params = simulator.make_params(scenario)
    loads = 9 * np.asarray(params.task_load, np.float64) * np.arange(scenario.users + 1)[:, None] + 1e-4
    return any(abs(value - 0.5) < 1e-5 for value in used) or bool((np.abs(loads - np.round(loads)) < 2e-5).any())


@settings(max_examples=150)
@given(steps(), st.floats(0.0, 800.0), st.floats(0.0, 400.0))
def test_agrees_with_the_second_simulator(drawn, offset, slope):
    scenario, background, action = drawn
    expected = numpy_simulator.response_ms(scenario, background, action)
    params = simulator.make_params(scenario, straight_penalty(offset, slope))
    obs, _, reward, _, _, info = STEP(jax.random.key(0), state_of(background), jnp.array(action), params)
    np.testing.assert_allclose(info["mean_ms"], expected, rtol=2e-5)
    np.testing.assert_allclose(info["response_ms"], expected, rtol=2e-5)  # noise is 0
    accuracy = numpy_simulator.mean_accuracy(scenario, action)
    np.testing.assert_allclose(info["accuracy"], accuracy, rtol=1e-5)
    if abs(accuracy - scenario.constraint + 1e-3) > 1e-4:
        cost = numpy_simulator.cost_ms(scenario, expected, action, offset, slope)
        np.testing.assert_allclose(-reward, cost, rtol=1e-4)
        assert bool(info["feasible"]) == (accuracy >= scenario.constraint - 1e-3)
    if not close_to_a_threshold(scenario, background, action):
        np.testing.assert_array_equal(obs, numpy_simulator.monitors(scenario, background, background, action))


# --- By hand ---


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ([D0, D1, D2], [400, 200, 100]),
        ([D0, EDGE, D2], [400, 300, 100]),
        ([D0, EDGE, EDGE], [400, 500, 500]),  # the second task adds the edge's share of 200 once more
        ([EDGE, EDGE, EDGE], [700, 700, 700]),
        ([CLOUD, CLOUD, CLOUD], [510, 510, 510]),  # 350 + 2 x 80
        ([EDGE, CLOUD, EDGE], [500, 350, 500]),
    ],
)
def test_response_times_by_hand(action, expected):
    np.testing.assert_allclose(respond(small_scenario(), idle(3), action), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"device_cpu": (0, 1, 0)}, [100, 400, 300, 350]),
        ({"device_memory": (0, 1, 0)}, [100, 300, 300, 350]),
        ({"device_cpu": (0, 1, 0), "device_memory": (0, 1, 0)}, [100, 600, 300, 350]),
        ({"device_cpu": (0, 0, 1, 1)}, [100, 200, 300, 350]),  # what it offloads doesn't wait for its own processor
        ({"device_weak": (1, 0, 1, 0)}, [170, 200, 382, 350]),  # the input takes 12 on top of the request's 70
        ({"node_weak": (1, 0)}, [103, 203, 333, 383]),  # a task for the cloud passes the edge
        ({"node_weak": (0, 1)}, [100, 200, 300, 400]),
        ({"node_weak": (1, 1)}, [103, 203, 333, 433]),
        ({"node_cpu": (3, 0)}, [100, 200, 400, 350]),  # 100 + 200 / (1 - 3/9)
        ({"node_cpu": (0, 8)}, [100, 200, 300, 990]),  # 270 + 80 x 9
        ({"node_memory": (1, 0)}, [100, 200, 400, 350]),
        ({"node_memory": (0, 1)}, [100, 200, 300, 390]),
    ],
)
def test_conditions_by_hand(changes, expected):
    changes = {
        name: values + (0,) * (4 - len(values)) if "device" in name else values for name, values in changes.items()
    }
    found = respond(small_scenario(4), idle(4, **changes), [D2, D1, EDGE, CLOUD])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("contention", "cores", "expected"),
    [  # one to four tasks on the edge: 100 + 200 x multiplier
        ("linear", 2, [300, 500, 700, 900]),
        ("linear", 4, [300, 400, 500, 600]),
        ("linear", 1, [300, 700, 1100, 1500]),
        ("steps", 2, [300, 300, 500, 500]),
        ("steps", 1, [300, 500, 700, 900]),
        ("steps", 3, [300, 300, 300, 500]),
        ("quadratic", 2, [300, 500, 1100, 2100]),
        ("quadratic", 4, [300, 350, 500, 750]),
    ],
)
def test_contention_by_hand(contention, cores, expected):
    scenario = small_scenario(4, edge=Node("regular", cores, contention))
    for tasks, time in enumerate(expected, start=1):
        found = respond(scenario, idle(4), [EDGE] * tasks + [D2] * (4 - tasks))
        np.testing.assert_allclose(found, [time] * tasks + [100] * (4 - tasks), rtol=1e-6)


def test_speed_divides_the_local_time_only():
    scenario = small_scenario(devices=(Device("S1", speed=2.0), Device("S2", speed=0.5), Device("S3", speed=2.0)))
    np.testing.assert_allclose(respond(scenario, idle(3), [D1, D1, EDGE]), [100, 400, 300], rtol=1e-6)


@pytest.mark.parametrize(
    ("action", "offset", "slope", "expected"),
    [  # the constraint is 80 %; all devices answer in 200 ms
        ([D1, D1, D1], 60.0, 300.0, 200.0),
        ([D0, D0, D0], 60.0, 300.0, 200.0),
        ([D0, D1, D2], 60.0, 300.0, 200.0),  # 80 % exactly
        ([D2, D1, D1], 60.0, 30.0, 360.0),  # 76.67 %: 3.33 points at 30 ms
        ([D2, D1, D1], 60.0, 0.0, 260.0),
        ([D2, D2, D2], 0.0, 30.0, 500.0),
    ],
)
def test_penalty_by_hand(action, offset, slope, expected):
    params = simulator.make_params(small_scenario(constraint=80.0), straight_penalty(offset, slope))
    assert float(COST(params, jnp.array(action), jnp.full(3, 200.0))) == pytest.approx(expected, rel=1e-5)


def cells() -> list[tuple[str, float]]:
    return list(itertools.product("ABCD", (0.0, 80.0, 85.0, 89.0, 89.9)))


@pytest.fixture(scope="module")
def all_costs():
    """Costs [A] and feasibility [A] of every joint action of five devices under a scenario and a penalty."""
    actions = jnp.array(list(itertools.product(range(10), repeat=5)), jnp.int32)

    @jax.jit
    def evaluate(params: simulator.EnvParams) -> tuple[jax.Array, jax.Array]:
        def one(action: jax.Array) -> tuple[jax.Array, jax.Array]:
            response = simulator.response_ms(params, params.start, action)
            return simulator.cost_ms(params, action, response), simulator.meets_constraint(params, action)

        return jax.lax.map(one, actions, batch_size=10_000)

    return lambda scenario, penalty: evaluate(simulator.make_params(scenario, penalty))


@pytest.mark.parametrize(("experiment", "constraint"), cells())
def test_breaking_the_constraint_never_pays(all_costs, experiment, constraint):
    scenario = load_scenario(SCENARIOS / f"exp{experiment}.toml")
    scenario = dataclasses.replace(scenario, constraint=constraint)
    cost, feasible = map(np.asarray, all_costs(scenario, sufficient_penalty(scenario)))
    assert feasible.any()
    assert feasible.all() == (constraint == 0.0)
    if constraint:
        assert cost[~feasible].min() >= cost[feasible].min() - 1e-3
        without, _ = map(np.asarray, all_costs(scenario, Penalty()))
        assert without[~feasible].min() < without[feasible].min()  # so that the penalty is what decides


# --- Monitors ---


def test_monitors_show_the_last_joint_action():
    scenario = small_scenario(monitor_period_ms=800.0)
    params = simulator.make_params(scenario)
    obs, state = RESET(jax.random.key(0), params)
    np.testing.assert_array_equal(obs, np.zeros(15))
    obs, state, *_ = STEP(jax.random.key(1), state, jnp.array([D0, D1, EDGE]), params)
    # 400 of 800 ms is Busy, 200 is not; one task keeps the edge's two cores busy for 200 of 800 ms: floor(9/4) = 2
    np.testing.assert_array_equal(obs, [1, 0, 0, *[0] * 6, 2, 0, *[0] * 4])
    obs, state, *_ = STEP(jax.random.key(2), state, jnp.array([CLOUD, EDGE, EDGE]), params)
    # twice 200 of 800 ms: floor(9/2) = 4; 80 of 800 ms at the cloud: floor(0.9) = 0
    np.testing.assert_array_equal(obs, [0, 0, 0, *[0] * 6, 4, 0, *[0] * 4])
    assert int(state.time) == 2


def test_monitors_add_the_background():
    params = simulator.make_params(small_scenario(monitor_period_ms=800.0))
    state = state_of(idle(3, node_cpu=(3, 7), device_cpu=(0, 1, 0), device_memory=(1, 0, 0), node_memory=(0, 1)))
    obs, *_ = STEP(jax.random.key(0), state, jnp.array([EDGE, EDGE, CLOUD]), params)
    np.testing.assert_array_equal(obs, [0, 1, 0, 1, 0, 0, 0, 0, 0, 3 + 4, 7, 0, 1, 0, 0])
    obs, *_ = STEP(jax.random.key(0), state, jnp.array([EDGE, EDGE, EDGE]), params)
    assert obs[9] == 8  # 3 + 6, and nine levels end at 8


def test_observation_levels_bound_what_is_observed():
    levels = simulator.observation_levels(2)
    np.testing.assert_array_equal(levels, [2, 2, 2, 2, 2, 2, 9, 9, 2, 2, 2, 2])


# --- The interface ---


@pytest.mark.parametrize(
    "scenario", [small_scenario(1), small_scenario(3, noise=0.1, constraint=80.0, dynamics=DYNAMICS)]
)
def test_keeps_the_environment_contract(scenario):
    check_environment(
        SimpleNamespace(reset=RESET, step=STEP), simulator.make_params(scenario, straight_penalty(50.0, 10.0))
    )


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda obs, state, reward, *rest: (obs + 9, state, reward, *rest), "at most"),
        (lambda obs, state, reward, *rest: (obs.astype(float), state, reward, *rest), "expected int32"),
        (lambda obs, state, reward, *rest: (obs, state, -reward, *rest), "reward"),
        (lambda obs, state, reward, *rest: (obs, state, jnp.full(2, reward), *rest), "expected a scalar"),
        (lambda obs, state, reward, end, cut, info: (obs, state, reward, end, cut, {**info, "art_ms": 1.0}), "art_ms"),
        (lambda obs, state, reward, end, cut, info: (obs, state, reward, end, cut, {}), "expected .*'accuracy'"),
        (lambda obs, state, reward, *rest: (obs, {"state": state}, reward, *rest), "same arrays"),
    ],
)
def test_the_contract_can_be_broken(broken, message):
    env = SimpleNamespace(reset=RESET, step=lambda *arguments: broken(*STEP(*arguments)))
    with pytest.raises(AssertionError, match=message):
        check_environment(env, simulator.make_params(small_scenario(2)))


def test_a_wrong_action_shape_is_refused():
    params = simulator.make_params(small_scenario(3))
    with pytest.raises(AssertionError, match=r"shape|rank"):
        ENV.step(jax.random.key(0), state_of(idle(3)), jnp.array([0, 0]), params)


def test_vmap_equals_a_loop():
    params = simulator.make_params(
        small_scenario(noise=0.1, dynamics=DYNAMICS, constraint=80.0), straight_penalty(100.0, 10.0)
    )
    actions = jax.random.randint(jax.random.key(2), (6, 3), 0, 5)
    keys = lambda seed: jax.random.split(jax.random.key(seed), 6)  # noqa: E731
    _, states = jax.jit(jax.vmap(ENV.reset, (0, None)))(keys(0), params)
    together = jax.jit(jax.vmap(ENV.step, (0, 0, 0, None)))(keys(1), states, actions, params)
    check_step(jax.tree.map(lambda leaf: leaf[0], together), 3, np.asarray(actions[0]), np.asarray(params.accuracy))
    for index in range(6):
        _, state = RESET(keys(0)[index], params)
        alone = STEP(keys(1)[index], state, actions[index], params)
        for left, right in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(left[index], right, rtol=1e-6)


def test_timing_is_the_builders():
    # The hand-worked numbers above hold for these alone.
    assert (TIMING.edge_share_ms, TIMING.cloud_share_ms, TIMING.local_ms) == (200.0, 80.0, (400.0, 200.0, 100.0))
