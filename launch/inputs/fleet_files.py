"""Reads the scenario file of a user's own fleet: a tree of measured machines, written compactly.

`count` writes many alike nodes as one, `above` names the node they hang on (several: in turn), and a number may be
`{around = 1.0, spread = 0.2}`: drawn for each node, log-normally, from the file's `seed` and the node's own name. Each
error is one line that says where. docs/fleets.md has the format.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from hl_jax import checks
from hl_jax.checks import shown
from hl_jax.fleets.machines import Disturbances, Link, Machine, Member, Radio, Station
from hl_jax.fleets.scenario import FleetScenario
from hl_jax.objective import Goal, constraint_value
from hl_jax.profiles import Profile
from hl_jax.scenario import Dynamics, ModelPool
from launch.host.errors import InputError
from launch.inputs import profile_files, tables

MARK = "profiles"  # the key by which such a file is known
MEASURED = "measured"  # noise as profiles have it
MOST_NODES = 100_000
NEEDED = {"name", "pool", MARK, "devices"}
OF_GOAL = {field.name for field in dataclasses.fields(Goal)}
OF_ALL = {"deadline_ms", "least_accuracy"}  # of every device that says nothing else
OPTIONAL = {
    "description",
    "constraint",
    "noise",
    "seed",
    "edges",
    "clouds",
    "radio",
    "disturbances",
    "dynamics",
    "monitor_period_ms",
    "input_kb",
    "output_kb",
    *OF_GOAL,
    *OF_ALL,
}
OF_LINK = {field.name for field in dataclasses.fields(Link)}
LISTS = {"targets", "models"}


def _profiles(value: object, path: pathlib.Path) -> tuple[Profile, ...]:
    """The profiles in the files, or the folders, that a scenario names."""
    entries = value if isinstance(value, list) else [value]
    found: list[pathlib.Path] = []
    for entry in entries:
        one = tables.beside(path, entry, MARK)
        if one.is_dir():
            inside = sorted(one.glob("*.toml"))
            if not inside:
                raise InputError(f"{MARK}: expected a folder with *.toml, found none in {one} (in {path})")
            found += inside
        else:
            found.append(one)
    if not found:
        raise InputError(f"{MARK}: expected at least one, found none in {path}")
    return tuple(profile_files.load_profile(one) for one in found)


def _drawn(value: object, seed: int, name: str, field: str, where: str) -> object:
    """A number as it is, or drawn from the law that a table says."""
    if not isinstance(value, Mapping):
        return value
    law = {"around", "spread"}
    if set(value) != law:
        raise ValueError(f"{where}.{field}: expected a table of around and spread, found {shown(dict(value))}")
    for key in sorted(law):
        number = value[key]
        checks.number(number, f"{where}.{field}.{key}", 0.0, 2.0 if key == "spread" else checks.LARGEST)
    # By name: another node in the file changes nothing of this one.
    digest = hashlib.sha256("\0".join((str(seed), name, field)).encode()).digest()
    normal = np.random.Generator(np.random.Philox(int.from_bytes(digest[:16], "little"))).standard_normal()
    return float(f"{float(value['around']) * math.exp(float(value['spread']) * normal):.6g}")


def _link(value: object, seed: int, name: str, where: str, path: pathlib.Path) -> Link:
    if isinstance(value, str):
        return tables.typed(Link, {"state": value}, path, f"{where}.")
    table = tables.keys(value, path, f"{where}.link", set(), OF_LINK)
    values = {key: _drawn(one, seed, name, key, f"{where}.link") for key, one in table.items()}
    return tables.typed(Link, values, path, f"{where}.")


def _names(entry: Mapping[str, object], where: str) -> list[str]:
    """One node's name, or `NAME-1`, `NAME-2`, … of so many."""
    name, count = entry["name"], entry.get("count")
    if not isinstance(name, str):
        raise ValueError(f"{where}.name: expected a name, found {shown(name)}")
    if count is None:
        return [name]
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_NODES:
        raise ValueError(f"{where}.count: expected a whole number from 1 to {MOST_NODES:,}, found {shown(count)}")
    return [f"{name}-{number + 1}" for number in range(count)]


def _machines(
    entries: object, kind: type[Any], tier: str, seed: int, defaults: Mapping[str, object], path: pathlib.Path
) -> tuple[Any, ...]:
    """All nodes of a tier."""
    fields = {field.name for field in dataclasses.fields(kind)}
    found: list[Machine] = []
    for index, entry in enumerate(tables.sequence(entries, path, tier)):
        where = f"{tier}[{index}]"
        table = tables.keys(entry, path, where, {"name", "kind"}, (fields | {"count"}) - {"name", "kind"})
        for number, name in enumerate(_names(table, where)):
            values: dict[str, object] = dict(defaults) | {key: table[key] for key in table if key != "count"}
            above = values.get("above", "")
            if isinstance(above, list):
                if not above:
                    raise ValueError(f"{where}.above: expected at least one node, found none")
                values["above"] = above[number % len(above)]
            if not isinstance(values.get("above", ""), str):
                raise ValueError(f"{where}.above: expected a node's name, found {shown(values['above'])}")
            values["link"] = _link(values.get("link", {}), seed, name, where, path)
            for key in LISTS & values.keys():
                held = values[key]
                if not isinstance(held, list) or not all(isinstance(one, str) for one in held) or not held:
                    raise ValueError(f"{where}.{key}: expected a list of names, found {shown(held)}")
                values[key] = tuple(held)
            numbers = {key: _drawn(one, seed, name, key, where) for key, one in values.items() if key != "link"}
            found.append(tables.typed(kind, {**values, **numbers, "name": name}, path, f"{where}."))
            if len(found) > MOST_NODES:
                raise ValueError(f"{tier}: expected at most {MOST_NODES:,} nodes, found more")
    return tuple(found)


def _constraint(value: object, pool: ModelPool) -> float:
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        raise ValueError(f"constraint: expected Min, Max or a number (%), found {shown(value)}")
    return constraint_value(value, pool)


def _noise(value: object) -> float | None:
    """A number, or None where machines' own quantiles say it."""
    if value == MEASURED:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0.0 <= value <= 1.0:
        return value
    raise ValueError(f'noise: expected "{MEASURED}" or a number in [0, 1], found {shown(value)}')


def read_fleet(
    data: Mapping[str, object], pool: ModelPool, types: tuple[str, ...], path: pathlib.Path
) -> FleetScenario:
    """A fleet from its file's table of keys.

    Raises:
      InputError: where a value in it, or a file that it names, can't be used.
    """
    tables.keys(data, path, "scenario", NEEDED, OPTIONAL)
    values: dict[str, Any] = {
        "name": data["name"],
        "pool": pool,
        "types": types,
        "profiles": _profiles(data[MARK], path),
    }
    seed = data.get("seed", 0)
    of_all = {key: data[key] for key in OF_ALL & data.keys()}
    try:
        checks.integer(seed, "seed", 0)
        assert isinstance(seed, int)
        values["noise"] = _noise(data.get("noise", MEASURED))
        values["devices"] = _machines(data["devices"], Member, "devices", seed, of_all, path)
        for tier in ("edges", "clouds"):
            if tier in data:
                values[tier] = _machines(data[tier], Station, tier, seed, {}, path)
        if "constraint" in data:
            values["constraint"] = _constraint(data["constraint"], pool)
    except ValueError as error:
        raise InputError(f"{error} in {path}") from error
    if "energy_weight" in data and data.get("objective") != "both":
        found = shown(data.get("objective", "none"))
        raise InputError(f'energy_weight: expected with objective = "both", found objective {found} in {path}')
    values["goal"] = tables.typed(Goal, {key: data[key] for key in OF_GOAL & data.keys()}, path)
    parts: tuple[tuple[str, type[Any]], ...] = (
        ("radio", Radio),
        ("disturbances", Disturbances),
        ("dynamics", Dynamics),
    )
    for name, kind in parts:
        if name in data:
            fields = {field.name for field in dataclasses.fields(kind)}
            needed = {one.name for one in dataclasses.fields(kind) if one.default is dataclasses.MISSING}
            table = tables.keys(data[name], path, name, needed, fields - needed)
            plain = {key: tuple(one) if isinstance(one, list) else one for key, one in table.items()}
            values[name] = tables.typed(kind, plain, path, f"{name}.")
    values |= {key: data[key] for key in ("monitor_period_ms", "input_kb", "output_kb") if key in data}
    fleet = tables.typed(FleetScenario, values, path)
    held = {option.model for option in fleet.options}
    if lacking := [name for index, name in enumerate(pool.names) if index not in held]:
        expected = "models that some node of the scenario holds and has measured"
        raise InputError(f"pool: expected {expected}, found {', '.join(lacking)} on none in {path}")
    return fleet
