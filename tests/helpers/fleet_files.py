"""A scenario file of a fleet of one's own, with the pool and the profiles that it names, to be spoiled."""

from __future__ import annotations

import pathlib

from hl_jax.fleets.scenario import FleetScenario
from launch.inputs import profile_files
from launch.inputs.scenario_files import load_any
from tests.helpers import numpy_fleet

POOL = "\n".join(
    f'[[models]]\nname = "{name}"\ntype = "FP32"\naccuracy = {accuracy}\nmillion_macs = {macs}'
    for name, accuracy, macs in zip(*vars(numpy_fleet.POOL).values(), strict=True)
)
FILE = """
name = "own"
pool = "pool.toml"
profiles = "profiles"
constraint = 75.0
seed = 4

[[devices]]
name = "phone"
kind = "phone"
count = 3
above = ["left", "right"]
speed = { around = 1.0, spread = 0.2 }
link = { rtt_ms = 4.0, up_mbps = { around = 80.0, spread = 0.4 } }

[[devices]]
name = "sensor"
kind = "sensor"
above = "left"
models = ["mid", "small"]

[[edges]]
name = "left"
kind = "box"
above = "up"
slots = 2

[[edges]]
name = "right"
kind = "box"
above = "up"
link = { rtt_ms = 20.0 }

[[clouds]]
name = "up"
kind = "server"
"""


def write_beside(folder: pathlib.Path) -> None:
    """Writes a pool and profiles, beside which scenarios are written."""
    (folder / "pool.toml").write_text(POOL)
    (folder / "profiles").mkdir()
    (folder / "none").mkdir()
    for profile in numpy_fleet.PROFILES:
        profile_files.save_profile(folder / "profiles" / f"{profile.kind}.toml", profile)


def load(folder: pathlib.Path, text: str = FILE, file: str = "own.toml") -> FleetScenario:
    """The fleet of a file with this text."""
    (folder / file).write_text(text, encoding="utf-8")
    found = load_any(folder / file)
    assert isinstance(found, FleetScenario)
    return found


def with_(*pairs: tuple[str, str]) -> str:
    """The file with some of its text otherwise."""
    text = FILE
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text
