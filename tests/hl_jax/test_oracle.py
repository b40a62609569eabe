"""The oracle against a slow second brute force, its ties, its limits, and its command."""

from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hl_jax import simulator
from hl_jax.optimum import oracle
from hl_jax.scenario import CONTENTION_FORMS, Device, ModelPool, Node, Scenario
from hl_jax.simulator import Conditions, make_params
from tests.helpers import numpy_simulator
from tests.helpers.builders import CLOUD, D0, D1, D2, EDGE, POOL, ROOT, TIMING, small_scenario
from tests.helpers.imports import imported_modules

BITS = st.integers(0, 1)
# Round numbers, so that different joint actions often take equally long.
TIMES = st.sampled_from([100.0, 150.0, 200.0, 300.0, 400.0])


def to_arrays(background: numpy_simulator.Background) -> Conditions:
    fields = dataclasses.fields(background)
    return Conditions(**{field.name: jnp.array(getattr(background, field.name), jnp.int32) for field in fields})


def slow_brute_force(scenario: Scenario, background: numpy_simulator.Background) -> tuple[float, list[tuple[int, ...]]]:
    """Least ART and all optimal joint actions, one joint action after another in float64."""
    arts = {}
    for action in itertools.product(range(scenario.choices), repeat=scenario.users):
        if numpy_simulator.mean_accuracy(scenario, action) >= scenario.constraint - 1e-3:
            arts[action] = sum(numpy_simulator.response_ms(scenario, background, action)) / scenario.users
    best = min(arts.values())
    return best, [action for action, art in arts.items() if art <= best * (1 + 1e-6)]


@st.composite
def problems(draw: st.DrawFn) -> tuple[Scenario, numpy_simulator.Background]:
    users = draw(st.integers(2, 3))
    alone = {"edge_ms": draw(TIMES), "cloud_ms": draw(TIMES)}
    share = {
        f"{node}_share_ms": alone[f"{node}_ms"] * draw(st.sampled_from([0.0, 0.2, 0.5])) for node in ("edge", "cloud")
    }
    nodes = [
        Node(
            draw(st.sampled_from(["regular", "weak"])), draw(st.integers(1, 4)), draw(st.sampled_from(CONTENTION_FORMS))
        )
        for _ in range(2)
    ]
    scenario = small_scenario(
        timing=dataclasses.replace(TIMING, local_ms=(draw(TIMES), draw(TIMES), draw(TIMES)), **alone, **share),
        devices=tuple(Device(f"S{index}", speed=draw(st.sampled_from([0.5, 1.0, 2.0]))) for index in range(users)),
        edge=nodes[0],
        cloud=nodes[1],
        constraint=draw(st.sampled_from([0.0, 72.0, 80.0, 85.0, 90.0])),
    )
    levels = st.integers(0, 8)
    per_device = st.lists(BITS, min_size=users, max_size=users)
    background = numpy_simulator.Background(
        device_cpu=draw(per_device),
        device_memory=draw(per_device),
        device_weak=draw(per_device),
        node_cpu=[draw(levels), draw(levels)],
        node_memory=[draw(BITS), draw(BITS)],
        node_weak=[draw(BITS), draw(BITS)],
    )
    return scenario, background


@pytest.mark.parametrize(("knobs", "left"), [("offloading", [D0, EDGE, CLOUD]), ("models", [D0, D1, D2])])
@settings(max_examples=5)
@given(problem=problems())
def test_fewer_knobs_leave_the_same_choices_less_some(knobs, left, problem):
    """Table I: with computation offloading alone a device runs d0, with model selection alone it never offloads."""
    scenario, background = problem
    fewer = scenario.with_knobs(knobs)
    assert fewer.choice_labels() == tuple(scenario.choice_labels()[choice] for choice in left)
    actions = np.array(list(itertools.product(range(fewer.choices), repeat=scenario.users)))
    everything, conditions = make_params(scenario), to_arrays(background)
    for action in actions[:: max(1, len(actions) // 20)]:
        same = jnp.array([left[choice] for choice in action])
        for function in (simulator.response_ms, lambda params, _, chosen: simulator.mean_accuracy(params, chosen)):
            mine = function(make_params(fewer), conditions, jnp.array(action))
            np.testing.assert_array_equal(mine, function(everything, conditions, same))


@settings(max_examples=60)
@given(problems())
def test_equals_a_slow_brute_force_in_any_condition(problem):
    scenario, background = problem
    expected_art, expected_actions = slow_brute_force(scenario, background)
    optimum = oracle.brute_force(make_params(scenario), to_arrays(background))
    assert optimum.art_ms == pytest.approx(expected_art, rel=1e-6)
    assert [tuple(action) for action in optimum.optimal.tolist()] == expected_actions
    assert optimum.decision == expected_actions[0]
    assert optimum.accuracy == pytest.approx(numpy_simulator.mean_accuracy(scenario, optimum.decision), abs=1e-4)


def test_finds_all_ties():
    # Two equal devices may swap, and the one that offloads may take either node.
    timing = dataclasses.replace(TIMING, local_ms=(400.0, 350.0, 325.0), edge_ms=300.0, cloud_ms=300.0)
    optimum = oracle.brute_force(make_params(small_scenario(2, timing=timing)))
    assert optimum.art_ms == 300.0
    assert optimum.optimal.tolist() == [[EDGE, CLOUD], [CLOUD, EDGE]]
    constrained = small_scenario(2, timing=dataclasses.replace(timing, local_ms=(400.0, 350.0, 100.0)), constraint=80.0)
    optimum = oracle.brute_force(make_params(constrained))
    assert optimum.optimal.tolist() == [[D2, EDGE], [D2, CLOUD], [EDGE, D2], [CLOUD, D2]]
    assert (optimum.art_ms, optimum.accuracy) == (200.0, 80.0)


def test_ties_survive_float32_rounding():
    # 355.1 = 155.1 + 200 = 283.1 + 72 in exact arithmetic only.
    timing = dataclasses.replace(
        TIMING, local_ms=(900.0, 800.0, 700.0), edge_ms=355.1, cloud_ms=355.1, edge_share_ms=200.0, cloud_share_ms=72.0
    )
    optimum = oracle.brute_force(make_params(small_scenario(1, timing=timing)))
    assert optimum.optimal.tolist() == [[EDGE], [CLOUD]]


def test_a_near_tie_is_no_tie_unless_asked_for():
    timing = dataclasses.replace(TIMING, local_ms=(900.0, 800.0, 700.0), edge_ms=300.0, cloud_ms=300.1)
    params = make_params(small_scenario(1, timing=timing))
    assert oracle.brute_force(params).optimal.tolist() == [[EDGE]]
    assert oracle.brute_force(params, tie_tolerance=1e-3).optimal.tolist() == [[EDGE], [CLOUD]]


@pytest.mark.parametrize("chunk", [1, 5, 30, 10**6])
def test_chunks_change_nothing(chunk, monkeypatch):
    params = make_params(small_scenario(3, constraint=80.0))
    whole = oracle.brute_force(params)
    monkeypatch.setattr(oracle, "CHUNK", chunk)
    chunked = oracle.brute_force(params)
    assert (chunked.art_ms, chunked.decision) == (whole.art_ms, whole.decision)
    np.testing.assert_array_equal(chunked.optimal, whole.optimal)


def test_more_than_five_users_while_they_fit():
    pool = ModelPool(names=("d0",), accuracy=(90.0,), million_macs=(500.0,))
    scenario = small_scenario(9, pool=pool, timing=dataclasses.replace(TIMING, local_ms=(100.0,)))
    assert oracle.brute_force(make_params(scenario)).decision == (0,) * 9


def test_refuses_too_many_joint_actions():
    with pytest.raises(
        ValueError, match=r"users: expected at most 10,000,000 joint actions .* found 5\^11 \(11 devices"
    ):
        oracle.brute_force(make_params(small_scenario(11)))


def test_refuses_a_constraint_that_nothing_meets():
    params = make_params(small_scenario(2)).replace(constraint=jnp.float32(95.0))
    with pytest.raises(
        ValueError, match=r"constraint: expected a mean accuracy that some joint action meets, found 95 %"
    ):
        oracle.brute_force(params)


def test_decisions_agree_up_to_equal_devices():
    devices = (Device("S1"), Device("S2"), Device("S3", link="weak"), Device("S4", speed=2.0))
    scenario = small_scenario(devices=devices)
    first = (D0, EDGE, D1, D2)
    assert oracle.decisions_agree(first, (EDGE, D0, D1, D2), scenario)
    assert not oracle.decisions_agree(first, (D1, EDGE, D0, D2), scenario)  # S1 and S3 have different links
    assert not oracle.decisions_agree(first, (D2, EDGE, D1, D0), scenario)  # S1 and S4 have different speeds
    assert oracle.decisions_agree(["d0/L", "d0/E", "d1/L", "d2/L"], ["d0/E", "d0/L", "d1/L", "d2/L"], scenario)
    with pytest.raises(ValueError, match="decision: expected 4 choices, found 3"):
        oracle.decisions_agree(first, first[:3], scenario)


@pytest.mark.parametrize(
    ("file", "allowed"),
    [
        ("oracle.py", {"simulator", "scenario", "choices", "optimum"}),
        ("milp.py", {"simulator", "choices", "objective"}),
    ],
)
def test_shares_no_code_with_the_planner(file, allowed):
    modules = imported_modules((ROOT / "hl_jax" / "optimum" / file).read_text(encoding="utf-8"), "hl_jax.optimum")
    own = {module for module in modules if module.startswith("hl_jax.")}
    assert {module.split(".")[1] for module in own} == allowed


@pytest.mark.smoke
def test_command_prints_json_for_tools(command):
    done = command("oracle", "--scenario=data/scenarios/expA.toml", "--constraint=all", "--users=2,5", "--format=json")
    assert done.status == 0, done.err
    results = json.loads(done.out)
    assert [(entry["users"], entry["constraint"]) for entry in results] == [
        (users, constraint) for users in (2, 5) for constraint in ("Min", 80, 85, 89, "Max")
    ]
    for entry in results:
        assert entry["experiment"] == "A"
        assert len(entry["decision"]) == entry["users"]
        assert entry["ties"] == len(entry["optimal"]) > 0
        assert entry["decision"] == entry["optimal"][0]
    at_five = results[5:]
    assert [entry["accuracy"] for entry in at_five] == [72.8, 81.12, 85.06, 89.1, 89.9]
    assert at_five[0]["decision"] == ["d7/L"] * 5
    assert sorted(at_five[4]["decision"]) == ["d0/C", "d0/E", "d0/L", "d0/L", "d0/L"]


def test_more_than_five_users_are_a_program_with_one_optimum():
    params = make_params(small_scenario(6, constraint=84.0))
    truth, found = oracle.brute_force(params), oracle.optimum(params)
    assert found.art_ms == pytest.approx(truth.art_ms, rel=1e-6)
    assert not found.complete
    assert found.decision in set(map(tuple, truth.optimal.tolist()))
    assert oracle.optimum(make_params(small_scenario(5))).complete


@pytest.mark.smoke
def test_command_solves_larger_fleets_without_counting_ties(command):
    done = command("oracle", "--scenario=data/scenarios/ten.toml", "--constraint=85,Max", "--format=json")
    assert done.status == 0, done.err
    for entry in json.loads(done.out):
        assert entry["ties"] is None
        assert entry["optimal"] == [entry["decision"]]
        assert len(entry["decision"]) == 10


@pytest.mark.smoke
@pytest.mark.process
def test_command_prints_a_table():
    line = [sys.executable, "-m", "launch.oracle", "--scenario=data/scenarios/expC.toml", "--users=2"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    head, line = done.stdout.splitlines()
    assert head.split() == ["experiment", "users", "constraint", "ART", "(ms)", "accuracy", "(%)", "optima", "decision"]
    assert line.split()[:3] == ["C", "2", "85"]


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--constraint=95"], "constraint: expected Min, Max or a number in [0, 89.9] (%), found '95'"),
        (["--users=many"], "--users: expected a number, a comma list of them or all, found 'many'"),
        (["--users=9"], "users: expected 1 to 5 (devices of scenario A), found 9"),
    ],
)
def test_command_refuses_bad_input_in_one_line(refused, arguments, message):
    line = refused("--scenario=data/scenarios/expA.toml", *arguments, name="oracle", cwd=ROOT)
    assert line.startswith(f"error: {message}")


def test_pool_of_the_builders_has_three_models():
    assert (0, 1, 2, len(POOL.names), len(POOL.names) + 1) == (D0, D1, D2, EDGE, CLOUD)
