"""Malformed scenario files of users' own fleets, and flags that they can't keep: one clear line each."""

from __future__ import annotations

import re

import pytest

import launch.inputs.fleet_files
from launch.host.errors import InputError
from launch.inputs import profile_files
from launch.inputs.scenario_files import load_any
from tests.helpers import fleet_files, numpy_fleet
from tests.helpers.fleet_files import FILE, load, with_
from tests.helpers.needs import needs_peer


@pytest.fixture
def folder(tmp_path):
    """Where a scenario's file may be written."""
    fleet_files.write_beside(tmp_path)
    return tmp_path


TOO_LONG = "0x" + "f" * 5000
MALFORMED = [
    # Keys.
    ('name = "own"', "", "scenario: expected the key 'name', found none in PLACE"),
    ('pool = "pool.toml"', "", "scenario: expected the key 'pool', found none in PLACE"),
    ("seed = 4", "sed = 4", "found the key 'sed' in PLACE"),
    ('kind = "phone"\n', "", "devices[0]: expected the key 'kind', found none in PLACE"),
    ("count = 3", "counts = 3", "found the key 'counts' in PLACE"),
    ("count = 3", '"a\\u0007\\nb" = 3', "found the key 'a\\x07\\nb' in PLACE"),
    ("slots = 2", "cores = 2", "edges[0]: expected one of above, contention, count, kind, link, memory_mb, models"),
    ("slots = 2", "deadline_ms = 2", "found the key 'deadline_ms' in PLACE"),
    (
        "link = { rtt_ms = 20.0 }",
        "link = { rtt = 20.0 }",
        "edges[1].link: expected one of down_mbps, rtt_ms, state, up_mbps",
    ),
    (
        "seed = 4",
        "radio = { send = 1 }",
        "radio: expected one of receive_mw, send_mw, wait_mw, found the key 'send' in PLACE",
    ),
    ("seed = 4", "dynamics = {}", "dynamics: expected the key 'cpu_level_max', found none in PLACE"),
    # Types.
    ('name = "own"', "name = 5", "name: expected a name, found 5 in PLACE"),
    ("constraint = 75.0", "constraint = true", "constraint: expected Min, Max or a number (%), found True in PLACE"),
    ("constraint = 75.0", "constraint = []", "constraint: expected Min, Max or a number (%), found [] in PLACE"),
    ("seed = 4", "seed = -1", "seed: expected an integer in [0, 1000000000], found -1 in PLACE"),
    ("seed = 4", "seed = 1.5", "seed: expected an integer in [0, 1000000000], found 1.5 in PLACE"),
    (
        "seed = 4",
        f"seed = {TOO_LONG}",
        "seed: expected an integer in [0, 1000000000], found an integer too long to print",
    ),
    ('name = "sensor"', 'name = ["sensor"]', "devices[1].name: expected a name, found ['sensor'] in PLACE"),
    ('kind = "sensor"', "kind = 1", "devices[1].devices sensor: kind: expected a name, found 1 in PLACE"),
    ("count = 3", "count = 0", "devices[0].count: expected a whole number from 1 to 100,000, found 0 in PLACE"),
    ("count = 3", "count = 3.0", "devices[0].count: expected a whole number from 1 to 100,000, found 3.0 in PLACE"),
    ("count = 3", "count = true", "devices[0].count: expected a whole number from 1 to 100,000, found True in PLACE"),
    ("count = 3", "count = 100_001", "from 1 to 100,000, found 100001 in PLACE"),
    ("count = 3", f"count = {TOO_LONG}", "found an integer too long to print in PLACE"),
    ('above = ["left", "right"]', "above = []", "devices[0].above: expected at least one node, found none in PLACE"),
    ('above = ["left", "right"]', "above = [1]", "devices[0].above: expected a node's name, found 1 in PLACE"),
    (
        'above = ["left", "right"]',
        'above = [["left"]]',
        "devices[0].above: expected a node's name, found ['left'] in PLACE",
    ),
    (
        'above = ["left", "right"]',
        "above = { left = 1 }",
        "devices[0].above: expected a node's name, found {'left': 1} in PLACE",
    ),
    ('models = ["mid", "small"]', "models = []", "devices[1].models: expected a list of names, found [] in PLACE"),
    (
        'models = ["mid", "small"]',
        'models = "mid"',
        "devices[1].models: expected a list of names, found 'mid' in PLACE",
    ),
    ('models = ["mid", "small"]', "targets = [1]", "devices[1].targets: expected a list of names, found [1] in PLACE"),
    ('models = ["mid", "small"]', 'models = ["mid", "mid"]', "models: expected distinct names, found ['mid'] in PLACE"),
    ("link = { rtt_ms = 20.0 }", "link = 20.0", "edges[1].link: expected a table, found 20.0 in PLACE"),
    ("link = { rtt_ms = 20.0 }", 'link = "wek"', "edges[1].link.state: expected regular or weak, found 'wek' in PLACE"),
    (
        "slots = 2",
        "slots = { around = 2, spread = 0 }",
        "nodes left: slots: expected an integer in [1, 10000], found 2.0",
    ),
    ("seed = 4", "radio = 3", "radio: expected a table, found 3 in PLACE"),
    ("seed = 4", "noise = true", 'noise: expected "measured" or a number in [0, 1], found True in PLACE'),
    ("seed = 4", 'noise = "little"', "noise: expected \"measured\" or a number in [0, 1], found 'little' in PLACE"),
    # Numbers.
    (
        "constraint = 75.0",
        "constraint = nan",
        "constraint: expected Min, Max or a number in [0, 90] (%), found nan in PLACE",
    ),
    (
        "constraint = 75.0",
        "constraint = 95",
        "constraint: expected Min, Max or a number in [0, 90] (%), found 95 in PLACE",
    ),
    ("seed = 4", "noise = inf", 'noise: expected "measured" or a number in [0, 1], found inf in PLACE'),
    ("seed = 4", "input_kb = -1", "input_kb: expected a number in [0, 1e+06], found -1 in PLACE"),
    ("seed = 4", "deadline_ms = nan", "deadline_ms: expected a number in [0.001, 1e+09], found nan in PLACE"),
    ("rtt_ms = 20.0", "rtt_ms = inf", "edges[1].link.rtt_ms: expected a number in [0, 1e+06], found inf in PLACE"),
    ("spread = 0.2", "spread = -0.1", "devices[0].speed.spread: expected a number in [0, 2], found -0.1 in PLACE"),
    ("spread = 0.2", "spread = 2.1", "devices[0].speed.spread: expected a number in [0, 2], found 2.1 in PLACE"),
    ("spread = 0.2", "spread = nan", "devices[0].speed.spread: expected a number in [0, 2], found nan in PLACE"),
    ("around = 1.0", "around = inf", "devices[0].speed.around: expected a number in [0, 1e+09], found inf in PLACE"),
    ("around = 1.0", f"around = {10**400}", "devices[0].speed.around: expected a number in [0, 1e+09], found 1000"),
    ("around = 1.0", 'around = "1"', "devices[0].speed.around: expected a number in [0, 1e+09], found '1' in PLACE"),
    ("around = 1.0", "around = 0", "devices phone-1: speed: expected a number in [0.01, 100], found 0.0 in PLACE"),
    (", spread = 0.2", "", "devices[0].speed: expected a table of around and spread, found {'around': 1.0} in PLACE"),
    ("spread = 0.4", "sprea = 0.4", "devices[0].link.up_mbps: expected a table of around and spread, found {'around'"),
    ("spread = 0.2 }", 'spread = 0.2, "\\n" = 1 }', "found {'around': 1.0, 'spread': 0.2, '\\n': 1} in PLACE"),
    # Names.
    ('name = "sensor"', 'name = " "', "devices.name: expected a name, found ' ' in PLACE"),
    ('name = "sensor"', 'name = "a\\u0000"', "devices.name: expected a name, found 'a\\x00' in PLACE"),
    ('name = "sensor"', 'name = "a\\u202eb"', "devices.name: expected a name, found 'a\\u202eb' in PLACE"),
    ('name = "sensor"', 'name = "phone-2"', "nodes: expected distinct names, found ['phone-2'] in PLACE"),
    ('name = "sensor"', 'name = "up"', "nodes: expected distinct names, found ['up'] in PLACE"),
    # The tree.
    (
        'above = ["left", "right"]',
        'above = "lft"',
        "devices phone-1: above: expected left, right, up, found 'lft' in PLACE",
    ),
    ('above = "up"\nslots', 'above = "left"\nslots', "edges left: above: expected another node, found 'left' in PLACE"),
    ('above = "up"\nslots', 'above = "right"\nslots', "edges left: above: expected up, found 'right' in PLACE"),
    ('kind = "server"', 'kind = "server"\nabove = "left"', "clouds up: above: expected nothing, found 'left' in PLACE"),
    (
        'kind = "server"',
        'kind = "server"\nlink = "weak"',
        "nodes up: link: expected none, since it hangs on nothing, found Link",
    ),
    (
        'above = ["left", "right"]',
        'above = "left"',
        "nodes right: expected something that hangs on it, found 'nothing' in PLACE",
    ),
    # Machines and models.
    (
        'kind = "sensor"',
        'kind = "toaster"',
        "sensor: kind: expected one with a profile (box, phone, sensor, server), found",
    ),
    ('models = ["mid", "small"]', 'targets = ["gpu"]', "sensor: targets: expected some of cpu, found 'gpu' in PLACE"),
    (
        'models = ["mid", "small"]',
        'models = ["huge"]',
        "sensor: models: expected some of big, mid, small, found 'huge' in PLACE",
    ),
    (
        'models = ["mid", "small"]',
        "least_accuracy = 91",
        "devices sensor: expected a model of at least 91 % that it or a node above",
    ),
    ("seed = 4", "least_accuracy = 101", "least_accuracy: expected a number in [0, 100], found 101 in PLACE"),
    # Files.
    ('profiles = "profiles"', "profiles = []", "profiles: expected at least one, found none in PLACE"),
    ('profiles = "profiles"', "profiles = 3", "profiles: expected the path of a file, found 3 in PLACE"),
    ('profiles = "profiles"', 'profiles = "none"', "profiles: expected a folder with *.toml, found none in"),
    (
        'profiles = "profiles"',
        'profiles = "away.toml"',
        "profile: expected a readable file, found No such file or directory",
    ),
    (
        'profiles = "profiles"',
        'profiles = "pool.toml"',
        "targets: expected a list of at least one table, found None in",
    ),
    (
        'profiles = "profiles"',
        'profiles = ["profiles", "profiles/box.toml"]',
        "profiles: expected distinct names, found ['box']",
    ),
    ('pool = "pool.toml"', 'pool = "away.toml"', "pool: expected a readable file, found No such file or directory"),
    # Goals.
    ("seed = 4", 'objective = "speed"', "objective: expected time, energy, both, found 'speed' in PLACE"),
    ("seed = 4", "energy_weight = 0.2", 'energy_weight: expected with objective = "both", found objective'),
    (
        "seed = 4",
        'objective = "both"\nenergy_weight = 2',
        "energy_weight: expected a number in [0, 1], found 2 in PLACE",
    ),
]


@pytest.mark.parametrize(("old", "new", "expected"), MALFORMED, ids=[str(number) for number in range(len(MALFORMED))])
def test_malformed_files_are_one_clear_line(folder, old, new, expected):
    (folder / "own.toml").write_text(with_((old, new)), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_any(folder / "own.toml")
    message = str(caught.value)
    assert message.isprintable(), message
    assert "expected" in message
    assert "found" in message
    assert len(message) < 500
    assert str(folder) in message
    assert message.count(" in ") <= 3
    assert expected in message.replace(str(folder / "own.toml"), "PLACE")


def test_a_model_that_nobody_holds_is_one_clear_line(folder):
    """Of the file; the first devices of a fleet may well hold fewer."""
    text = with_(("seed = 4", "")).replace('kind = "box"', 'kind = "box"\nmodels = ["mid"]')
    text = text.replace('kind = "server"', 'kind = "server"\nmodels = ["mid"]').replace(
        "count = 3", 'count = 3\nmodels = ["big"]'
    )
    text = text.replace('models = ["mid", "small"]', 'models = ["mid"]')
    with pytest.raises(InputError) as caught:
        load(folder, text)
    expected = "expected models that some node of the scenario holds and has measured, found small on none"
    assert str(caught.value) == f"pool: {expected} in {folder / 'own.toml'}"


def test_lists_of_devices_may_be_empty_no_more_than_missing(folder):
    text = re.sub(r"(?s)\[\[devices\]\].*?(?=\[\[edges)", "", FILE)
    with pytest.raises(InputError, match="scenario: expected the key 'devices', found none"):
        load(folder, text)
    with pytest.raises(InputError, match=r"devices: expected a list of at least one, found \[\]"):
        load(folder, "devices = []\n" + text)
    with pytest.raises(InputError, match=r"edges: expected a list of at least one, found \[\]"):
        load(folder, "edges = []\n" + FILE[: FILE.index("[[edges]]")])


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        ('above = "left"\nlink = "wek"', "devices[1].link.state: expected regular or weak, found 'wek' in "),
        ('above = "lft"', "sensor: above: expected left, right, up, found 'lft' in "),
        (
            'above = "left"\ndeadline_ms = 2',
            "sensor: deadline_ms: expected at least 2.52 ms, the 95th percentile of its fastest choice alone, found 2",
        ),
    ],
)
def test_the_command_s_answer_is_one_line(folder, refused, new, expected):
    (folder / "own.toml").write_text(with_(('above = "left"\nmodels', f"{new}\nmodels")))
    line = refused(f"--scenario={folder / 'own.toml'}", name="oracle")
    assert line.startswith("error: ")
    assert expected in line
    assert str(folder / "own.toml") in line


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--deadline_ms=nan", "--deadline_ms: expected a number in [0.001, 1e+09], found nan"),
        ("--deadline_ms=1", "deadline_ms: expected at least"),
        ("--objective=p99", "--objective: expected time, energy, both, found 'p99'"),
        ("--noise=2", "--noise: expected a number in [0, 1], found 2.0"),
        ("--traffic=poisson", "--traffic: expected none with a fleet of its own, found one"),
        ("--constraint=95", "constraint: expected Min, Max or a number in [0, 90] (%), found '95'"),
        ("--users=5", "users: expected 1 to 4 (devices of scenario own), found 5"),
    ],
)
def test_flags_that_a_fleet_cannot_keep(folder, refused, flag, expected):
    (folder / "own.toml").write_text(FILE)
    line = refused(f"--scenario={folder / 'own.toml'}", flag, name="oracle")
    assert expected in line


def test_an_unmeasured_energy_is_told_as_such(folder, refused):
    bare = numpy_fleet.profile("sensor", {"cpu": 500.0}, energy_w=None)
    profile_files.save_profile(folder / "profiles" / "sensor.toml", bare)
    (folder / "own.toml").write_text(with_(("seed = 4", 'objective = "energy"')))
    for command in (("oracle",), ("train", "--agent=factored")):
        line = refused(f"--scenario={folder / 'own.toml'}", *command[1:], name=command[0])
        assert "expected" in line
        assert "found" in line
        assert "sensor.cpu (mid, small)" in line
        assert "calibration" not in line


def test_a_tier_has_so_many_nodes_at_most(folder, monkeypatch):
    monkeypatch.setattr(launch.inputs.fleet_files, "MOST_NODES", 3)
    with pytest.raises(InputError, match="devices: expected at most 3 nodes, found more in "):
        load(folder)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--agent=hybrid"], "agent: expected factored, for a fleet of its own (own), found hybrid"),
        (["--agent=q_learning"], "agent: expected factored, for a fleet of its own (own), found q_learning"),
        pytest.param(["--agent=sb3_dqn"], "agent: expected factored, for a fleet of its own (own)", marks=needs_peer),
        (["--agent=factored", "--traffic=poisson"], "--traffic: expected none with a fleet of its own, found one"),
    ],
)
def test_what_does_not_run_on_such_a_fleet_says_so(folder, refused, flags, expected):
    (folder / "own.toml").write_text(FILE)
    assert expected in refused(f"--scenario={folder / 'own.toml'}", *flags)
