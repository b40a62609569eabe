"""Scenario, pool and calibration files: the paper's are read right, and everything malformed is one clear line."""

from __future__ import annotations

import copy
import json
import re
import shutil
import tomllib
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hl_jax import simulator
from hl_jax.scenario import Scenario
from launch.host.errors import InputError
from launch.inputs.scenario_files import load_scenario
from tests.helpers.builders import ROOT, SCENARIOS

pytestmark = pytest.mark.smoke

# Tables III and IV of the paper, typed off it.
TABLE_III = [
    ("d0", 569, 89.9),
    ("d1", 317, 88.2),
    ("d2", 150, 84.9),
    ("d3", 41, 74.2),
    ("d4", 569, 88.9),
    ("d5", 317, 87.0),
    ("d6", 150, 83.2),
    ("d7", 41, 72.8),
]
TABLE_IV = {"A": "RRRRRR", "B": "RWRWRW", "C": "WWWRRR", "D": "WWWWWW"}  # S1 to S5, E


@pytest.mark.parametrize("experiment", "ABCD")
def test_the_paper_s_experiments(experiment):
    scenario = load_scenario(SCENARIOS / f"exp{experiment}.toml")
    links = [device.link for device in scenario.devices] + [scenario.edge.link]
    assert "".join(link[0].upper() for link in links) == TABLE_IV[experiment]
    assert list(zip(scenario.pool.names, scenario.pool.million_macs, scenario.pool.accuracy, strict=True)) == TABLE_III
    assert scenario.name == experiment
    assert (scenario.users, scenario.choices) == (5, 10)
    assert (scenario.edge.cores, scenario.cloud.cores) == (2, 4)  # a1.large, a1.xlarge
    assert scenario.cloud.link == "regular"
    assert {device.speed for device in scenario.devices} == {1.0}
    assert scenario.dynamics is None
    assert scenario.choice_labels()[-3:] == ("d7/L", "d0/E", "d0/C")


def test_the_dynamic_scenario_has_chains():
    dynamics = load_scenario(SCENARIOS / "dynamic.toml").dynamics
    assert dynamics is not None
    assert all(0 < probability < 1 for probability in dynamics.device_link)


@pytest.fixture
def folder(tmp_path):
    """A copy of data/ whose files a test may spoil."""
    shutil.copytree(ROOT / "data", tmp_path / "data")
    return tmp_path / "data"


SCENARIO, POOL, CALIBRATION = "scenarios/dynamic.toml", "pools/mobilenet.toml", "calibration/paper.json"


def spoil(folder, file: str, old: str, new: str) -> None:
    text = (folder / file).read_text()
    assert re.search(old, text), f"nothing to spoil: {old} is not in {file}"
    (folder / file).write_text(re.sub(old, lambda _: new, text, count=1))


def message(folder, file: str = SCENARIO) -> str:
    """The error of loading the spoiled scenario, with the place of `file` as PLACE."""
    with pytest.raises(InputError) as caught:
        load_scenario(folder / SCENARIO)
    text = str(caught.value)
    assert "\n" not in text
    return text.replace(str(folder / "scenarios" / ".." / file), "PLACE").replace(str(folder / file), "PLACE")


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        # Missing and unknown keys.
        (SCENARIO, r'name = "dynamic"', "", "scenario: expected the key 'name', found none in PLACE"),
        (SCENARIO, r'pool = ".*"', "", "scenario: expected the key 'pool', found none in PLACE"),
        (SCENARIO, r"cores = 2", "", "edge: expected the key 'cores', found none in PLACE"),
        (SCENARIO, r'name = "S1"', 'link = "weak"', "devices[0]: expected the key 'name', found none in PLACE"),
        (
            SCENARIO,
            r'name = "S2"',
            'name = "S2"\nsped = 2',
            "devices[1]: expected one of link, name, speed, found the key 'sped' in PLACE",
        ),
        (SCENARIO, r"device_link = .*", "", "dynamics: expected the key 'device_link', found none in PLACE"),
        (POOL, r"accuracy = 89.9", "", "models[0]: expected the key 'accuracy', found none in PLACE"),
        (POOL, r"million_macs = 317", "macs = 317", "models[1]: expected the key 'million_macs', found none in PLACE"),
        (CALIBRATION, r'"edge_ms": [0-9.]+,', "", "calibration: expected the key 'edge_ms', found none in PLACE"),
        (CALIBRATION, r'"d3": [0-9.]+,', "", "local_ms: expected the key 'd3', found none in PLACE"),
        # Wrong types.
        (SCENARIO, r'name = "dynamic"', "name = 5", "name: expected a name, found 5 in PLACE"),
        (SCENARIO, r'name = "S3"', 'name = ["S3"]', "devices.name: expected a name, found ['S3'] in PLACE"),
        (SCENARIO, r'name = "S3"', 'name = " "', "devices.name: expected a name, found ' ' in PLACE"),
        (SCENARIO, r'pool = ".*"', "pool = 3", "pool: expected the path of a file, found 3 in PLACE"),
        (
            SCENARIO,
            r"constraint = 85.0",
            'constraint = "85"',
            "constraint: expected a number in [0, 100], found '85' in PLACE",
        ),
        (SCENARIO, r"noise = 0.03", "noise = true", "noise: expected a number in [0, 1], found True in PLACE"),
        (
            SCENARIO,
            r"cores = 2",
            "cores = 2.5",
            "edge.cores: expected an integer in [1, 1000000000], found 2.5 in PLACE",
        ),
        (
            SCENARIO,
            r"device_busy = .*",
            "device_busy = 0.05",
            "dynamics.device_busy: expected two probabilities, found 0.05 in PLACE",
        ),
        (
            SCENARIO,
            r"device_busy = .*",
            "device_busy = [0.1, 0.1, 0.1]",
            "dynamics.device_busy: expected two probabilities, found (0.1, 0.1, 0.1) in PLACE",
        ),
        (
            SCENARIO,
            r"cpu_level_max = 4",
            "cpu_level_max = 4.5",
            "dynamics.cpu_level_max: expected an integer in [0, 8], found 4.5 in PLACE",
        ),
        (SCENARIO, r"(?s)\[dynamics\].*", "[[dynamics]]\n", "dynamics: expected a table, found [{}] in PLACE"),
        (POOL, r'name = "d0"', "name = 0", "models[0].name: expected a name, found 0 in PLACE"),
        (CALIBRATION, r'"local_ms": \{[^}]*\}', '"local_ms": 5', "local_ms: expected a table, found 5 in PLACE"),
        (
            CALIBRATION,
            r'"local_ms": \{[^}]*\}',
            '"local_ms": [[1]]',
            "local_ms: expected a table, found [[1]] in PLACE",
        ),
        # Values out of range.
        (SCENARIO, r'link = "regular"', 'link = "wek"', "edge.link: expected regular or weak, found 'wek' in PLACE"),
        (
            SCENARIO,
            r'name = "S1"',
            'name = "S1"\nlink = "strong"',
            "devices.S1.link: expected regular or weak, found 'strong' in PLACE",
        ),
        (
            SCENARIO,
            r'name = "S1"',
            'name = "S1"\nspeed = 0',
            "devices.S1.speed: expected a number in [0.01, 100], found 0 in PLACE",
        ),
        (
            SCENARIO,
            r'contention = "linear"',
            'contention = "cubic"',
            "edge.contention: expected linear, steps, quadratic, queue, found 'cubic' in PLACE",
        ),
        (
            SCENARIO,
            r"constraint = 85.0",
            "constraint = 95",
            "constraint: expected a mean accuracy that some joint action meets (at most 89.9 %), found 95 in PLACE",
        ),
        (SCENARIO, r'name = "S2"', 'name = "S1"', "devices: expected distinct names, found ['S1'] in PLACE"),
        (
            SCENARIO,
            r"noise = 0.03",
            "noise = inf",
            "noise: expected a number in [0, 1], found inf in PLACE",
        ),
        (
            SCENARIO,
            r"cores = 2",
            "cores = 0x" + "f" * 5000,
            "edge.cores: expected an integer in [1, 1000000000], found an integer too long to print in PLACE",
        ),
        (
            SCENARIO,
            r"cpu_level_move = 0.10",
            "cpu_level_move = 0.6",
            "dynamics.cpu_level_move: expected a number in [0, 0.5], found 0.6 in PLACE",
        ),
        (
            POOL,
            r"accuracy = 72.8",
            "accuracy = 172.8",
            "models.d7.accuracy: expected a number in [0, 100], found 172.8 in PLACE",
        ),
        (POOL, r'name = "d7"', 'name = "d0"', "models: expected distinct names, found ['d0'] in PLACE"),
        (POOL, r"(?s).*", "models = []", "models: expected a list of at least one, found [] in PLACE"),
        (
            CALIBRATION,
            r'"d1": [0-9.]+',
            '"d1": -3',
            "local_ms[1]: expected a number in [1e-06, 1e+09], found -3 in PLACE",
        ),
        (
            CALIBRATION,
            r'"d1": [0-9.]+',
            '"d1": NaN',
            "local_ms[1]: expected a number in [1e-06, 1e+09], found nan in PLACE",
        ),
        (
            CALIBRATION,
            r'"busy_cpu_factor": [0-9.]+',
            '"busy_cpu_factor": 0.5',
            "busy_cpu_factor: expected a number in [1, 1e+09], found 0.5 in PLACE",
        ),
        # Not the format.
        (SCENARIO, r'name = "dynamic"', 'name = "dynamic', "scenario: expected TOML, found "),
        (CALIBRATION, r"(?s).*", '{"edge_ms": 1', "calibration: expected JSON, found "),
        (CALIBRATION, r"(?s).*", "[" * 100_000, "calibration: expected JSON, found maximum recursion depth exceeded"),
        (CALIBRATION, r"(?s).*", "1" * 5000, "calibration: expected JSON, found Exceeds the limit"),
        (CALIBRATION, r"(?s).*", "[1, 2]", "calibration: expected a table of keys, found [1, 2] in PLACE"),
    ],
)
def test_malformed_files_are_one_line(folder, file, old, new, expected):
    spoil(folder, file, old, new)
    found = message(folder, file)
    if expected.endswith("PLACE"):
        assert found == expected
    else:  # the parser's own words follow
        assert found.startswith(expected)
        assert found.endswith(" in PLACE")


def test_an_edge_share_above_its_time(folder):
    data = json.loads((folder / CALIBRATION).read_text())
    (folder / CALIBRATION).write_text(json.dumps(data | {"edge_ms": 100, "edge_share_ms": 150}))
    assert message(folder, CALIBRATION) == "edge_share_ms: expected at most edge_ms = 100, found 150 in PLACE"


def test_missing_files(folder):
    (folder / CALIBRATION).unlink()
    assert message(folder, CALIBRATION) == (
        "calibration: expected a readable file, found No such file or directory at 'PLACE'"
    )
    (folder / POOL).unlink()
    (folder / POOL).mkdir()
    assert message(folder, POOL) == "pool: expected a readable file, found Is a directory at 'PLACE'"
    (folder / SCENARIO).unlink()
    assert message(folder) == "scenario: expected a readable file, found No such file or directory at 'PLACE'"


def test_a_path_with_a_zero_byte(folder):
    spoil(folder, SCENARIO, r'pool = ".*"', 'pool = "a\\u0000b"')
    assert message(folder).startswith("pool: expected a readable file, found embedded null byte at ")


@pytest.mark.parametrize(("file", "what"), [(SCENARIO, "scenario"), (POOL, "pool"), (CALIBRATION, "calibration")])
def test_bytes_that_are_not_utf8(folder, file, what):
    (folder / file).write_bytes(b"# caf\xe9\n")
    assert message(folder, file) == f"{what}: expected UTF-8 text, found byte 5 that is not, in PLACE"


def test_a_calibration_may_time_more_models(folder):
    (folder / POOL).write_text('[[models]]\nname = "d4"\nmillion_macs = 569\naccuracy = 88.9\n')
    assert load_scenario(folder / SCENARIO).choice_labels() == ("d4/L", "d4/E", "d4/C")


@pytest.mark.parametrize("users", [0, 6])
def test_more_users_than_devices(users):
    expected = rf"users: expected 1 to 5 \(devices of scenario A\), found {users}"
    with pytest.raises(ValueError, match=expected):
        load_scenario(SCENARIOS / "expA.toml").with_users(users)


def test_fewer_users_are_the_first_devices():
    scenario = load_scenario(SCENARIOS / "expB.toml").with_users(2)
    assert [(device.name, device.link) for device in scenario.devices] == [("S1", "regular"), ("S2", "weak")]


# --- Fuzzing ---

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -(10**400), 0, 1, 2**31, 2**63]),
    st.floats(),  # NaN and infinities too: Python's JSON reads them
    st.text(max_size=5),
    st.lists(st.one_of(st.floats(), st.text(max_size=3), st.none()), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of every key and index in nested tables and lists, the root's own () first."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path] + [place for key, value in items for place in places(value, (*path, key))]


@pytest.fixture(scope="module")
def valid() -> dict[str, Any]:
    data = {
        "scenario": tomllib.loads((ROOT / "data" / SCENARIO).read_text()),
        "pool": tomllib.loads((ROOT / "data" / POOL).read_text()),
        "calibration": json.loads((ROOT / "data" / CALIBRATION).read_text()),
    }
    data["calibration"] = {key: value for key, value in data["calibration"].items() if key not in ("about", "fit")}
    data["scenario"] |= {"pool": "pool.json", "calibration": "calibration.json"}
    return data


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def load_or_complain(place, data: dict[str, Any]) -> Scenario | str:
    """The scenario, or the message of its `InputError`; anything else that is raised fails the test."""
    for name, content in data.items():
        (place / f"{name}.json").write_text(json.dumps(content))
    try:
        return load_scenario(place / "scenario.json")
    except InputError as error:
        return str(error)


@settings(max_examples=300)
@given(st.data())
def test_mutated_files_raise_nothing_but_input_errors(valid, place, draw):
    data = copy.deepcopy(valid)
    for _ in range(draw.draw(st.integers(1, 3), "mutations")):
        path = draw.draw(st.sampled_from(places(data)[1:]), "place")
        parent = data
        for key in path[:-1]:
            parent = parent[key]
        if draw.draw(st.booleans(), "delete") and len(path) > 1:
            del parent[path[-1]]
        else:
            parent[path[-1]] = draw.draw(JUNK, "new value")
    found = load_or_complain(place, data)
    if isinstance(found, str):
        assert re.fullmatch(r".*expected .*found .*", found)
    elif not found.unmeasured():  # what is accepted can be simulated, or says what it lacks
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(simulator.make_params(found)))


def test_the_unmutated_files_load(valid, place):
    assert isinstance(load_or_complain(place, valid), Scenario)


@settings(max_examples=100)
@given(st.binary(max_size=40))
def test_any_bytes_raise_nothing_but_input_errors(place, content):
    (place / "any.toml").write_bytes(content)
    with pytest.raises(InputError, match=r"expected .*found "):
        load_scenario(place / "any.toml")
