"""Inventories: the committed ones load, every wrong value is told in one line, and what is saved is read back."""

from __future__ import annotations

import dataclasses
import tomllib

import pytest

from edge_cloud import inventory as inventories
from edge_cloud.inventory import InventoryError
from tests.helpers.fleets import ROOT

FOLDER = ROOT / "data" / "inventories"
SMALL = """
name = "small"
models = ["d0", "d1"]
model_dir = "models"
certificates = "certificates"

[emulation]
pacing = "calibrated"
scale = 20.0
control = "127.0.0.1:4000"
cpu_ms = { d0 = 10.0 }

[[nodes]]
name = "S1"
kind = "device"
address = "127.0.0.1:4001"
uplink = "127.0.0.1:4011"
link = "weak"

[[nodes]]
name = "S2"
kind = "device"
address = "[::1]:4002"
speed = 2.0

[[nodes]]
name = "edge"
kind = "edge"
address = "127.0.0.1:4003"
uplink = "127.0.0.1:4013"
cores = 2

[[nodes]]
name = "cloud"
kind = "cloud"
address = "cloud.example:4004"
cores = 4
"""


@pytest.mark.parametrize("file", ["local.toml", "machines.toml"])
def test_committed_inventories_load(file):
    inventory = inventories.load(FOLDER / file)
    assert inventory.models == tuple(f"d{index}" for index in range(8))
    assert (inventory.edge.cores, inventory.cloud.cores) == (2, 4)
    assert (inventory.emulation is None) == (file == "machines.toml")


def test_the_local_one_is_the_papers_platform():
    inventory = inventories.load(FOLDER / "local.toml")
    assert [(node.kind, node.cores) for node in inventory.nodes] == [("device", 1)] * 5 + [("edge", 2), ("cloud", 4)]
    assert inventory.emulation.weak_link_ms == 20.0


def small(tmp_path, text=SMALL):
    path = tmp_path / "small.toml"
    path.write_text(text)
    return inventories.load(path)


def test_who_dials_whom(tmp_path):
    inventory = small(tmp_path)
    assert [inventory.dial_address(node) for node in inventory.nodes[:3]] == [
        "127.0.0.1:4011",  # through the relay
        "127.0.0.1:4003",  # no relay: the edge itself
        "127.0.0.1:4013",
    ]
    with pytest.raises(InventoryError, match="expected a node with an upper neighbour, found the cloud"):
        inventory.dial_address(inventory.cloud)
    real = dataclasses.replace(inventory, emulation=None)
    assert real.dial_address(real.nodes[0]) == "127.0.0.1:4003"


def test_what_nodes_load_and_how_they_are_paced(tmp_path):
    inventory = small(tmp_path)
    assert inventory.pool_of(inventory.nodes[0]) == ("d0", "d1")
    assert inventory.pool_of(inventory.edge) == inventory.pool_of(inventory.cloud) == ("d0",)
    assert inventory.pacing(inventory.nodes[0]).hold_ms("d0", 99.0, 0.0) == 200.0
    assert inventory.pacing(inventory.nodes[1]).hold_ms("d0", 99.0, 0.0) == 100.0  # twice as fast
    assert dataclasses.replace(inventory, emulation=None).pacing(inventory.edge).mode == "off"


def test_what_is_saved_is_read_back(tmp_path):
    inventory = small(tmp_path)
    inventories.save(inventory, tmp_path / "saved.json")
    assert inventories.load(tmp_path / "saved.json") == inventory


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "small"', 'nam = "small"', r"inventory: expected one of name, .*, found 'nam'"),
        ('name = "small"\n', "", r"inventory: expected the key 'name', found 'none'"),
        ('models = ["d0", "d1"]', "models = 3", r"models: expected a list of names, found 3"),
        ('models = ["d0", "d1"]', 'models = ["../d0", "d1"]', r"models\[0\]: expected letters, digits and '-'"),
        ('kind = "edge"', 'kind = "fog"', r"nodes.edge.kind: expected device, edge, cloud, found 'fog'"),
        ('kind = "edge"', 'kind = "cloud"', r"nodes of kind edge: expected one, found 0"),
        ('kind = "device"', 'kind = "edge"', r"nodes of kind device: expected at least one, found 0"),
        ('link = "weak"', 'link = "slow"', r"nodes.S1.link: expected regular or weak, found 'slow'"),
        ("cores = 2", "cores = 0", r"nodes.edge.cores: expected an integer in \[1, 256\], found 0"),
        ("cores = 2", "cores = true", r"nodes.edge.cores: expected an integer in \[1, 256\], found True"),
        ("speed = 2.0", "speed = nan", r"nodes.S2.speed: expected a number in \[0.01, 100\], found nan"),
        ('"127.0.0.1:4003"', '"127.0.0.1"', r"nodes.edge.address: address: expected host:port, found '127.0.0.1'"),
        ('"127.0.0.1:4003"', '"127.0.0.1:70000"', r"nodes.edge.address: address: expected host:port"),
        ('name = "S2"', 'name = "S1"', r"nodes: expected distinct names, found \['S1', 'S1', 'edge', 'cloud'\]"),
        ('name = "S2"', 'name = "operator"', r"nodes.operator.name: expected another name than links, operator"),
        ('name = "S2"', 'name = "../S2"', r"nodes.name: expected letters, digits and '-', found '../S2'"),
        ('pacing = "calibrated"', 'pacing = "slow"', r"emulation.pacing: expected off, measured, calibrated"),
        ("scale = 20.0", "scale = 0.5", r"emulation.scale: expected a number in \[1, 10000\], found 0.5"),
        ("d0 = 10.0 }", "d7 = 10.0 }", r"emulation.cpu_ms: expected models among d0, d1, found \['d7'\]"),
        ("d0 = 10.0 }", "d0 = -1.0 }", r"emulation.cpu_ms.d0: expected a number in .*, found -1.0"),
        ("[emulation]", "[emulation]\nspeed = 2", r"emulation: expected one of pacing, .*, found 'speed'"),
    ],
)
def test_wrong_values_are_told_in_one_line(tmp_path, old, new, message):
    text = SMALL.replace(old, new) if old == 'kind = "device"' else SMALL.replace(old, new, 1)
    with pytest.raises(InventoryError, match=message) as error:
        small(tmp_path, text)
    assert "\n" not in str(error.value)
    assert "small.toml" in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "expected a readable file, found No such file"), (b"= 3", "expected TOML"), (b"\xff\xfe", "expected TOML")],
)
def test_files_that_are_no_inventories(tmp_path, content, message):
    path = tmp_path / "odd.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InventoryError, match=message):
        inventories.load(path)


def test_no_password_or_key_is_in_an_inventory():
    for path in FOLDER.iterdir():
        assert "key" not in tomllib.loads(path.read_text())
