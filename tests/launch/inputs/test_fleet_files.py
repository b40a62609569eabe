"""Scenario files of users' own fleets: every key, and what is drawn."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib

import numpy as np
import pytest

from hl_jax.fleets.machines import Disturbances, Link, Member, Radio, Station
from hl_jax.fleets.params import make_params
from hl_jax.fleets.scenario import FleetScenario
from hl_jax.objective import Goal
from launch.inputs import fleet_files as files
from launch.inputs.scenario_files import load_any
from tests.helpers import documents, fleet_files, numpy_fleet
from tests.helpers.builders import DYNAMICS, ROOT, SCENARIOS
from tests.helpers.fleet_files import load, with_


@pytest.fixture
def folder(tmp_path):
    """Where a scenario's file may be written."""
    fleet_files.write_beside(tmp_path)
    return tmp_path


def test_a_file_is_a_fleet(folder):
    found = load(folder)
    assert [(one.name, one.kind, one.above) for one in found.devices] == [
        ("phone-1", "phone", "left"),
        ("phone-2", "phone", "right"),
        ("phone-3", "phone", "left"),
        ("sensor", "sensor", "left"),
    ]
    assert found.devices[3] == Member("sensor", "sensor", "left", models=("mid", "small"))
    assert found.edges == (
        Station("left", "box", "up", slots=2),
        Station("right", "box", "up", Link(20.0)),
    )
    assert found.clouds == (Station("up", "server"),)
    assert found.pool == numpy_fleet.POOL
    assert found.types == ("FP32",) * 3
    assert found.kinds == {one.kind: one for one in numpy_fleet.PROFILES}
    assert (found.constraint, found.noise, found.goal, found.traffic) == (75.0, None, Goal(), None)
    assert (found.input_kb, found.output_kb, found.monitor_period_ms) == (150.528, 1.0, 1000.0)
    assert found == load(folder)


EVERYTHING = """
name = "all"
description = "every key"
pool = "pool.toml"
profiles = ["profiles/phone.toml", "profiles/box.toml", "profiles/server.toml"]
constraint = "max"
noise = 0.05
seed = 9
monitor_period_ms = 500.0
input_kb = 12.0
output_kb = 3.0
objective = "both"
energy_weight = 0.25
deadline_ms = 900.0
least_accuracy = 75.0
radio = { send_mw = 1.0, receive_mw = 2.0, wait_mw = 3.0 }
disturbances = { weak_ms = 4.0, busy_cpu_factor = 5.0, busy_memory_factor = 6.0 }
dynamics = { device_busy = [0.1, 0.3], device_memory = [0.05, 0.2], device_link = [0.2, 0.2], \
node_memory = [0.3, 0.1], node_link = [0.1, 0.1], cpu_level_move = 0.25, cpu_level_max = 4 }
edges = [{ name = "e", kind = "box", above = "c", slots = 3, contention = "linear", memory_mb = 60, targets = ["cpu"] }]
clouds = [{ name = "c", kind = "server", models = ["mid", "small"] }]

[[devices]]
name = "d"
kind = "phone"
above = "e"
link = { rtt_ms = 1.5, up_mbps = 20.0, down_mbps = 40.0, state = "weak" }
targets = ["gpu"]
models = ["big"]
memory_mb = 100.0
speed = 2
least_accuracy = 80
deadline_ms = 300

[[devices]]
name = "plain"
kind = "phone"
above = "c"
link = "weak"
"""


def test_every_key(folder):
    found = load(folder, EVERYTHING)
    assert found.goal == Goal("both", 0.25)
    assert found.constraint == 90.0
    assert (found.noise, found.monitor_period_ms, found.input_kb, found.output_kb) == (0.05, 500.0, 12.0, 3.0)
    assert found.radio == Radio(1.0, 2.0, 3.0)
    assert found.disturbances == Disturbances(4.0, 5.0, 6.0)
    assert found.dynamics == DYNAMICS
    link = Link(1.5, 20.0, 40.0, "weak")
    assert found.devices[0] == Member("d", "phone", "e", link, ("gpu",), ("big",), 100.0, 2, 80, 300)
    weak = Link(state="weak")
    assert found.devices[1] == Member("plain", "phone", "c", weak, least_accuracy=75.0, deadline_ms=900.0)
    assert found.edges == (Station("e", "box", "c", targets=("cpu",), memory_mb=60, slots=3, contention="linear"),)
    assert found.clouds == (Station("c", "server", models=("mid", "small")),)
    assert load(folder, json.dumps(tomllib.loads(EVERYTHING)), "all.json") == found


def test_what_is_drawn_is_a_node_s_own(folder):
    """Nothing of it depends on who else is there, in what order, and how many of its kind."""
    found = {one.name: one for one in load(folder).devices}
    speeds = [found[f"phone-{number}"].speed for number in (1, 2, 3)]
    assert len(set(speeds)) == 3
    first = 'name = "first"\nkind = "phone"\nspeed = { around = 3.0, spread = 0.5 }'
    more = with_(
        ("count = 3", "count = 7"),
        ("[[devices]]", f"[[devices]]\n{first}\n\n[[devices]]"),
    )
    others = {one.name: one for one in load(folder, more).devices}
    assert all(others[name] == found[name] for name in found)
    assert others["first"].speed != 3.0
    alone = {
        one.name: one for one in load(folder, with_(("count = 3\n", ""), ('["left", "right"]', '"right"'))).devices
    }
    assert alone["phone"].speed not in speeds
    other = [one.speed for one in load(folder, with_(("seed = 4", "seed = 5"))).devices[:3]]
    assert not set(other) & set(speeds)
    # Another field of the same node is another draw.
    assert np.log(speeds[0]) / 0.2 != pytest.approx(np.log(found["phone-1"].link.up_mbps / 80.0) / 0.4)


def test_draws_follow_their_law(folder):
    found = load(folder, with_(("count = 3", "count = 2000")))
    logs = np.log([one.speed for one in found.devices[:2000]])
    assert abs(logs.mean()) < 4 * 0.2 / np.sqrt(2000)
    assert logs.std() == pytest.approx(0.2, rel=0.07)
    rates = np.log([one.link.up_mbps / 80.0 for one in found.devices[:2000]])
    assert rates.std() == pytest.approx(0.4, rel=0.07)
    assert abs(np.corrcoef(logs, rates)[0, 1]) < 0.09


def test_a_spread_of_nothing_draws_nothing(folder):
    found = load(folder, with_(("spread = 0.2", "spread = 0")))
    assert [one.speed for one in found.devices[:3]] == [1.0] * 3


def test_a_hundred_devices_in_forty_lines():
    path = SCENARIOS / "campus.toml"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 40
    found = load_any(path)
    assert isinstance(found, FleetScenario)
    assert (found.users, len(found.edges), len(found.clouds)) == (100, 5, 1)
    assert len({one.kind for one in found.devices}) == 4
    assert len({one.speed for one in found.devices if one.kind == "hikey960"}) == 40
    hung = [sum(one.above == edge.name for one in found.devices) for edge in found.edges]
    assert sum(hung) == 100
    assert min(hung) >= 10
    assert found.unmeasured() == ()
    assert FleetScenario.from_data(json.loads(json.dumps(found.as_data()))) == found


def test_the_guide_s_example_is_one(tmp_path):
    """It says all that a file may hold, and stands where a copy of `mixed.toml` would."""
    (block,) = re.findall(r"^```toml\n(.*?)^```$", documents.text("docs/fleets.md"), re.MULTILINE | re.DOTALL)
    for name in ("pools", "profiles"):
        (tmp_path / name).symlink_to(ROOT / "data" / name)
    (tmp_path / "scenarios").mkdir()
    found = load(tmp_path / "scenarios", block)
    assert [one.name for one in found.devices] == [*[f"camera-{number}" for number in range(1, 7)], "robot"]
    assert np.isfinite(make_params(found).median_ms).any(axis=1).all()
    defaults = ("input_kb", "output_kb", "monitor_period_ms", "noise")
    plain = dataclasses.asdict(load(tmp_path / "scenarios", re.sub(rf"(?m)^({'|'.join(defaults)}) =.*$", "", block)))
    assert plain == found.as_data()
    assert found.disturbances == Disturbances()
    keys = (files.NEEDED | files.OPTIONAL - {"dynamics"}) | {"count"}
    for kind in (Member, Station, Link, Radio, Disturbances):
        keys |= {field.name for field in dataclasses.fields(kind)}
    missing = [key for key in sorted(keys) if not re.search(rf"\b{key}( =|\])", block)]
    assert missing == []
