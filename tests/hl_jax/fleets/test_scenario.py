"""Users' own fleets as plain data: the tree, which choices there are, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hl_jax.fleets.machines import Disturbances, Link, Machine, Member, Radio, Station
from hl_jax.fleets.scenario import FleetScenario
from hl_jax.objective import Goal
from tests.helpers import numpy_fleet
from tests.helpers.builders import DYNAMICS, small_scenario
from tests.helpers.numpy_fleet import fleet

A, B, C = fleet().devices
LEFT, RIGHT = fleet().edges
(UP,) = fleet().clouds


def held(scenario: FleetScenario, device: int) -> list[str]:
    """Labels of a device's choices."""
    return [label for label, there in zip(scenario.choice_labels(), scenario.mask[device], strict=True) if there]


def test_a_tree_says_where_everyone_hangs():
    scenario = fleet(devices=(A, B, C, Member("d", "phone", above="up"), Member("e", "phone")))
    *_, d, e = scenario.devices
    assert scenario.edge_of(A) == LEFT
    assert scenario.cloud_of(A) == UP
    assert scenario.places(d) == (d, None, UP)
    assert scenario.places(e) == (e, None, None)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"devices": (A, B, dataclasses.replace(C, above="rigt"))},
            "devices c: above: expected left, right, up, found 'rigt'",
        ),
        ({"devices": (A, B, dataclasses.replace(C, above="c"))}, "devices c: above: expected another node, found 'c'"),
        (
            {"devices": (A, B, dataclasses.replace(C, above="a"))},
            "devices c: above: expected left, right, up, found 'a'",
        ),
        (
            {"edges": (dataclasses.replace(LEFT, above="right"), RIGHT)},
            "edges left: above: expected up, found 'right'",
        ),
        (
            {"edges": (LEFT, dataclasses.replace(RIGHT, above="left")), "devices": (A, B, C)},
            "edges right: above: expected up, found 'left'",
        ),
        (
            {"edges": (dataclasses.replace(LEFT, above="left"), RIGHT)},
            "edges left: above: expected another node, found 'left'",
        ),
        ({"edges": (dataclasses.replace(LEFT, above="a"), RIGHT)}, "edges left: above: expected up, found 'a'"),
        ({"clouds": (dataclasses.replace(UP, above="left"),)}, "clouds up: above: expected nothing, found 'left'"),
        ({"devices": (A, B)}, "nodes right: expected something that hangs on it, found 'nothing'"),
        ({"clouds": (UP, Station("top", "server"))}, "nodes top: expected something that hangs on it, found 'nothing'"),
        ({"devices": (A, B, dataclasses.replace(C, name="a"))}, "nodes: expected distinct names, found ['a']"),
        ({"devices": (A, B, dataclasses.replace(C, name="left"))}, "nodes: expected distinct names, found ['left']"),
        ({"devices": ()}, "devices: expected at least one, found 0"),
        (
            {"profiles": numpy_fleet.PROFILES[1:]},
            "a: kind: expected one with a profile (sensor, box, server), found 'phone'",
        ),
        (
            {"profiles": (*numpy_fleet.PROFILES, numpy_fleet.PROFILES[0])},
            "profiles: expected distinct names, found ['phone']",
        ),
        (
            {"devices": (A, B, dataclasses.replace(C, targets=("npu",)))},
            "c: targets: expected some of cpu, gpu, found 'npu'",
        ),
        (
            {"devices": (A, B, dataclasses.replace(C, models=("huge",)))},
            "c: models: expected some of big, mid, small, found 'huge'",
        ),
        (
            {"devices": (A, dataclasses.replace(B, above="", link=Link(), memory_mb=5.0), C)},
            "devices b: expected a model of at least 0 % that it or a node above it holds, found 'none'",
        ),
        (
            {"devices": (A, B, dataclasses.replace(C, least_accuracy=90.5))},
            "devices c: expected a model of at least 90.5 % that it or a node above it holds, found 'none'",
        ),
        (
            {"constraint": 90.1},
            "constraint: expected a mean accuracy that some joint decision meets (at most 90 %), found 90.1",
        ),
        (
            {
                "edges": (),
                "clouds": (),
                "devices": (Member("a", "phone", models=("mid",)), Member("b", "sensor")),
                "constraint": 86.0,
            },
            "constraint: expected a mean accuracy that some joint decision meets (at most 85 %), found 86.0",
        ),
        ({"noise": 1.5}, "noise: expected a number in [0, 1], found 1.5"),
        ({"noise": float("nan")}, "noise: expected a number in [0, 1], found nan"),
        ({"input_kb": float("inf")}, "input_kb: expected a number in [0, 1e+06], found inf"),
        ({"monitor_period_ms": 0.0}, "monitor_period_ms: expected a number in [1, 1e+09], found 0.0"),
        ({"types": ("FP32",)}, "types: expected one per model (3), found 1"),
    ],
)
def test_what_cannot_be_is_one_clear_line(changes, expected):
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        fleet(**changes)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Member("a\u200bb", "phone"), "devices.name: expected a name, found 'a\\u200bb'"),
        (lambda: Member("a\n", "phone"), "devices.name: expected a name, found 'a\\n'"),
        (lambda: Member(" ", "phone"), "devices.name: expected a name, found ' '"),
        (lambda: Member("a", ""), "devices a: kind: expected a name, found ''"),
        (lambda: Member("a", "phone", above=None), "devices a: above: expected a node's name, found None"),
        (lambda: Member("a", "phone", speed=0.0), "devices a: speed: expected a number in [0.01, 100], found 0.0"),
        (
            lambda: Member("a", "phone", deadline_ms=0.0),
            "devices a: deadline_ms: expected a number in [0.001, 1e+09], found 0.0",
        ),
        (
            lambda: Member("a", "phone", memory_mb=-1.0),
            "devices a: memory_mb: expected a number in [0, 1e+09], found -1.0",
        ),
        (lambda: Member("a", "phone", models=("d0", "d0")), "devices a: models: expected distinct names, found ['d0']"),
        (lambda: Station("e", "box", slots=0), "nodes e: slots: expected an integer in [1, 10000], found 0"),
        (lambda: Station("e", "box", slots=True), "nodes e: slots: expected an integer in [1, 10000], found True"),
        (
            lambda: Station("e", "box", contention="x"),
            "nodes e: contention: expected linear, steps, quadratic, queue, found 'x'",
        ),
        (lambda: Link(-1.0), "link.rtt_ms: expected a number in [0, 1e+06], found -1.0"),
        (lambda: Link(1.0, 0.0), "link.up_mbps: expected a number in [0.001, 1e+06], found 0.0"),
        (lambda: Link(state="strong"), "link.state: expected regular or weak, found 'strong'"),
        (lambda: Radio(send_mw=float("nan")), "radio.send_mw: expected a number in [0, 1e+06], found nan"),
        (lambda: Disturbances(busy_cpu_factor=0.5), "busy_cpu_factor: expected a number in [1, 100], found 0.5"),
        (lambda: Goal("latency"), "objective: expected time, energy, both, found 'latency'"),
    ],
)
def test_parts_check_themselves(make, expected):
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        make()


def test_a_link_to_nowhere_is_refused():
    """Nothing would ever cross it: a weak link of a cloud's, say, would silently do nothing."""
    for make in (
        lambda: Station("up", "server", link=Link(state="weak")),
        lambda: Member("a", "phone", link=Link(5.0)),
    ):
        with pytest.raises(ValueError, match="link: expected none, since it hangs on nothing, found Link"):
            make()


def test_a_model_that_was_not_measured_there_cannot_be_held():
    profiles = (numpy_fleet.profile("phone", {"cpu": 1.0}), *numpy_fleet.PROFILES[1:])
    (target,) = profiles[0].targets
    target = dataclasses.replace(target, entries=target.entries[:2])
    profiles = (dataclasses.replace(profiles[0], targets=(target,)), *profiles[1:])
    assert held(fleet(profiles=profiles), 0)[:2] == ["big/L:cpu", "mid/L:cpu"]
    with pytest.raises(ValueError, match="a: models: expected models that were measured on its targets, found 'small'"):
        fleet(profiles=profiles, devices=(dataclasses.replace(A, models=("mid", "small")), B, C))


# -- Choices ----------------------------------------------------------------------------------------------------------


def test_choices_are_in_order_whoever_has_them():
    labels = fleet().choice_labels()
    assert labels == (
        *("big/L:cpu", "mid/L:cpu", "small/L:cpu"),
        *("big/L:gpu", "mid/L:gpu", "small/L:gpu"),
        *("big/E:cpu", "mid/E:cpu", "small/E:cpu"),
        *("big/C:cpu", "mid/C:cpu", "small/C:cpu"),
        *("big/C:gpu", "mid/C:gpu", "small/C:gpu"),
    )
    assert fleet(devices=(C, B, A)).choice_labels() == labels
    assert fleet().choices == 15
    assert fleet().choice_accuracy() == (90.0, 80.0, 70.0) * 5
    assert fleet().labels([0, 14, 7]) == ("big/L:cpu", "small/C:gpu", "mid/E:cpu")


def test_masks_say_what_exists():
    scenario = fleet(
        devices=(
            dataclasses.replace(A, models=("big", "small"), targets=("gpu",)),
            dataclasses.replace(B, memory_mb=50.0),
            dataclasses.replace(C, least_accuracy=75.0),
            Member("d", "sensor", above="up"),
            Member("e", "phone"),
        ),
        edges=(dataclasses.replace(LEFT, models=("big",)), dataclasses.replace(RIGHT, above="", link=Link())),
        clouds=(dataclasses.replace(UP, targets=("gpu",)),),
    )
    top = ["big/C:gpu", "mid/C:gpu", "small/C:gpu"]
    assert held(scenario, 0) == ["big/L:gpu", "small/L:gpu", "big/E:cpu", *top]
    # What fits is at most as large as the memory: the models take 100, 50 and 20 MB.
    assert held(scenario, 1) == ["mid/L:cpu", "small/L:cpu", "big/E:cpu", *top]
    # Its edge hangs on no cloud.
    assert held(scenario, 2) == ["big/L:cpu", "mid/L:cpu", "big/L:gpu", "mid/L:gpu", "big/E:cpu", "mid/E:cpu"]
    assert held(scenario, 3) == ["big/L:cpu", "mid/L:cpu", "small/L:cpu", *top]
    assert held(scenario, 4) == [label for label in scenario.choice_labels() if "/L:" in label]


def test_a_device_may_hold_nothing_itself():
    scenario = fleet(devices=(dataclasses.replace(A, memory_mb=0.0), B, C))
    assert held(scenario, 0)[0] == "big/E:cpu"


def test_devices_alike_but_for_their_place_are_told_apart():
    """Masks are kept by what they depend on: where a device hangs is part of it, and so is its own least accuracy."""
    one, two, three = (Member(name, "phone", above) for name, above in (("x", "left"), ("y", "right"), ("z", "up")))
    strict = dataclasses.replace(one, name="w", least_accuracy=85.0)
    scenario = fleet(devices=(one, two, three, strict), edges=(dataclasses.replace(LEFT, models=("mid",)), RIGHT))
    edges = [[label for label in held(scenario, device) if "/E:" in label] for device in range(4)]
    assert edges == [["mid/E:cpu"], ["big/E:cpu", "mid/E:cpu", "small/E:cpu"], [], []]


def test_the_first_devices_keep_the_nodes_above_them():
    first = fleet().with_users(2)
    assert [one.name for one in (*first.devices, *first.edges, *first.clouds)] == ["a", "b", "left", "up"]
    assert fleet().with_users(3) == fleet()
    # Choices that only others had are gone.
    assert fleet(devices=(B, A, C)).with_users(1).choice_labels()[:4] == (
        "big/L:cpu",
        "mid/L:cpu",
        "small/L:cpu",
        "big/E:cpu",
    )
    for users in (0, 4):
        with pytest.raises(ValueError, match=rf"users: expected 1 to 3 \(devices of scenario own\), found {users}"):
            fleet().with_users(users)


# -- The same and another ---------------------------------------------------------------------------------------------


def test_a_policy_belongs_to_the_choices_that_devices_have():
    assert fleet().unlike(fleet(noise=0.1, constraint=0.0)) == ""
    other = fleet(devices=(A, B, dataclasses.replace(C, above="left")), edges=(LEFT,))
    assert fleet().unlike(other) == ""  # the same choices, elsewhere
    without = fleet(devices=(A, B, dataclasses.replace(C, targets=("cpu",))))
    assert fleet().unlike(without).startswith("choices of c: expected big/L:cpu, ")
    renamed = fleet(devices=(A, B, dataclasses.replace(C, name="z")))
    assert fleet().unlike(renamed) == "devices: expected a, b, c, found a, b, z"
    assert fleet().unlike(small_scenario(3)).startswith("devices: expected a, b, c, found S1, S2, S3")


def test_what_nobody_measured_matters_where_energy_counts():
    bare = numpy_fleet.profile("sensor", {"cpu": 500.0}, energy_w=None)
    profiles = tuple(bare if one.kind == "sensor" else one for one in numpy_fleet.PROFILES)
    assert fleet(profiles=profiles).unmeasured() == ()
    assert fleet(profiles=profiles, goal=Goal("energy")).unmeasured() == ("sensor.cpu (big, mid, small)",)
    nodes = tuple(
        numpy_fleet.profile(one.kind, {"cpu": 1.0}, None) if one.kind == "box" else one for one in numpy_fleet.PROFILES
    )
    assert fleet(profiles=nodes, goal=Goal("energy")).unmeasured() == ()  # a node's energy is nobody's here


numbers = st.floats(0.01, 99.0)
links = st.builds(Link, numbers, st.none() | numbers, st.none() | numbers, st.sampled_from(["regular", "weak"]))


@given(
    entries=st.lists(
        st.fixed_dictionaries({"link": links, "speed": numbers, "deadline_ms": st.none() | numbers}), min_size=1
    ),
    goal=st.builds(Goal, st.sampled_from(["time", "energy", "both"]), st.floats(0.0, 1.0)),
    noise=st.none() | st.floats(0.0, 1.0),
    dynamics=st.sampled_from([None, DYNAMICS]),
    radio=st.builds(Radio, numbers, numbers, numbers),
    name=st.text(st.characters(categories=["L", "N", "P"]), min_size=1),
)
def test_plain_data_is_read_back_the_same(entries, goal, noise, dynamics, radio, name):
    devices = tuple(Member(f"{name}{index}", "phone", "left", **one) for index, one in enumerate(entries))
    scenario = fleet(
        devices=devices, edges=(LEFT,), goal=goal, noise=noise, dynamics=dynamics, radio=radio, types=("a", "b", "c")
    )
    again = FleetScenario.from_data(json.loads(json.dumps(scenario.as_data())))
    assert again == scenario
    assert hash(again) == hash(scenario)
    assert again.as_data() == scenario.as_data()


def test_what_was_computed_is_no_part_of_a_fleet():
    """Choices and masks are kept once computed, which changes neither equality, nor hash, nor data."""
    scenario, other = fleet(), fleet()
    assert scenario.options
    assert scenario.mask
    del other.__dict__["mask"]
    assert scenario == other
    assert hash(scenario) == hash(other)
    again = pickle.loads(pickle.dumps(scenario))
    assert again == scenario
    assert again.mask == scenario.mask
    fewer = dataclasses.replace(scenario, devices=(dataclasses.replace(A, models=("mid",)), B, C))
    assert held(fewer, 0) != held(scenario, 0)
    assert "options" not in scenario.as_data()


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda data: data.pop("name"), "scenario: expected values for name"),
        (lambda data: data.update(extra=1), "scenario: expected some of name, "),
        (lambda data: data.update(devices=3), "devices: expected a list of tables, found 3"),
        (lambda data: data.update(devices=["abc"]), "devices: expected a table, found 'abc'"),
        (lambda data: data["devices"][0].update(link=3), "link: expected a table, found 3"),
        (lambda data: data["devices"][0].pop("kind"), "devices: expected values for kind"),
        (lambda data: data["devices"][0].update(above=["left"]), "devices a: above: expected a node's name"),
        (lambda data: data["edges"][0].update(slots=1.5), "nodes left: slots: expected an integer"),
        (lambda data: data.update(pool=None), "pool: expected a table, found None"),
        (lambda data: data.update(profiles=[]), "a: kind: expected one with a profile (none), found 'phone'"),
        (lambda data: data.update(profiles=[{"kind": "phone"}]), "profile: expected values for|targets: expected"),
        (lambda data: data.update(goal=None), "goal: expected a table, found None"),
        (lambda data: data.update(dynamics={}), "dynamics: expected values for device_busy"),
    ],
)
def test_spoiled_data_is_refused(spoil, expected):
    data = json.loads(json.dumps(fleet().as_data()))
    spoil(data)
    with pytest.raises(ValueError, match="|".join(re.escape(one) for one in expected.split("|"))):
        FleetScenario.from_data(data)


def test_only_both_knobs_are_there():
    assert fleet().with_knobs("both") == fleet()
    with pytest.raises(ValueError, match="knobs: expected both, of a fleet of its own, found 'models'"):
        fleet().with_knobs("models")


def test_a_machine_without_a_memory_holds_everything():
    scenario = fleet()
    assert scenario.held(Machine("any", "phone")) == {"cpu": ("big", "mid", "small"), "gpu": ("big", "mid", "small")}
    assert scenario.held(Machine("any", "phone", memory_mb=20.0))["cpu"] == ("small",)
