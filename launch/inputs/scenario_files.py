"""Reads scenario, pool and calibration files into `hl_jax.scenario` records, checking every field.

Each error is one line: which key, what was expected, what was found, in which file.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import tomllib
from collections.abc import Callable, Mapping
from typing import TypeVar

from hl_jax.checks import shown
from hl_jax.scenario import CONTENTION_FORMS, Device, Dynamics, ModelPool, Node, Scenario, Timing
from launch.host.errors import InputError
from launch.host.files import located
from launch.inputs import traffic_files

Record = TypeVar("Record")


def _read(path: pathlib.Path, what: str) -> dict[str, object]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{what}: expected UTF-8 text, found byte {error.start} that is not, in {path}") from error
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        found = getattr(error, "strerror", None) or error
        raise InputError(f"{what}: expected a readable file, found {found} at {str(path)!r}") from error
    try:
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # the parsers' own errors are ValueErrors
        form = "JSON" if path.suffix == ".json" else "TOML"
        raise InputError(f"{what}: expected {form}, found {error} in {path}") from error
    if not isinstance(data, dict):
        raise InputError(f"{what}: expected a table of keys, found {shown(data)} in {path}")
    return data


def _keys(
    data: object, path: pathlib.Path, where: str, needed: set[str], optional: set[str] | None = None
) -> Mapping[str, object]:
    """Checks a table's keys; with `optional` None, further keys are allowed and ignored."""
    if not isinstance(data, Mapping):
        raise InputError(f"{where}: expected a table, found {shown(data)} in {path}")
    for key in sorted(needed - data.keys()):
        raise InputError(f"{where}: expected the key {key!r}, found none in {path}")
    unknown = data.keys() - needed - optional if optional is not None else set()
    for key in sorted(unknown):
        known = ", ".join(sorted(needed | (optional or set())))
        raise InputError(f"{where}: expected one of {known}, found the key {shown(key)} in {path}")
    return data


def _typed(record: Callable[..., Record], values: Mapping[str, object], path: pathlib.Path, where: str = "") -> Record:
    """Builds a record of `hl_jax.scenario`; its own checks know nothing of files, so the place is added here."""
    try:
        return record(**values)
    except ValueError as error:
        raise InputError(f"{where}{error} in {path}") from error


def _sequence(value: object, path: pathlib.Path, where: str) -> list[object]:
    if not isinstance(value, list) or not value:
        raise InputError(f"{where}: expected a list of at least one, found {shown(value)} in {path}")
    return value


def _beside(path: pathlib.Path, value: object, what: str) -> pathlib.Path:
    """A file that the scenario at `path` names, relative to itself."""
    if not isinstance(value, str) or not value:
        raise InputError(f"{what}: expected the path of a file, found {shown(value)} in {path}")
    return path.parent / value


def load_pool(path: pathlib.Path) -> ModelPool:
    """Reads a model pool (Table III's shape).

    Raises:
      InputError: where the file or a value in it can't be used.
    """
    path = located(path)
    data = _keys(_read(path, "pool"), path, "pool", {"models"}, {"source"})
    models = []
    for index, entry in enumerate(_sequence(data["models"], path, "models")):
        optional = {"description", "type"}
        models.append(_keys(entry, path, f"models[{index}]", {"name", "accuracy", "million_macs"}, optional))
    columns = {
        "names": tuple(model["name"] for model in models),
        "accuracy": tuple(model["accuracy"] for model in models),
        "million_macs": tuple(model["million_macs"] for model in models),
    }
    return _typed(ModelPool, columns, path)


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A calibration file: times, and for a real fleet's twin also its noise and how its nodes share their cores."""

    timing: Timing
    noise: float | None = None
    contention: str | None = None
    assumed: tuple[str, ...] = ()  # times that hold a value which nobody measured

    def apply(self, scenario: Scenario) -> Scenario:
        """The scenario with these times instead of its own; where some are missing, `Scenario.unmeasured` says so."""

        def shared(node: Node) -> Node:
            return node if self.contention is None else dataclasses.replace(node, contention=self.contention)

        return dataclasses.replace(
            scenario,
            timing=self.timing,
            noise=scenario.noise if self.noise is None else self.noise,
            edge=shared(scenario.edge),
            cloud=shared(scenario.cloud),
        )


def load_timing(path: pathlib.Path, pool: ModelPool) -> Timing:
    """Reads a calibration's times for the models of `pool`; `about` and other notes in it are ignored.

    Raises:
      InputError: where the file or a value in it can't be used, or a model of the pool has no time.
    """
    return load_calibration(path, pool).timing


def load_calibration(path: str | pathlib.Path, pool: ModelPool) -> Calibration:
    """Reads a calibration for the models of `pool`; `about` and other notes in it are ignored.

    Raises:
      InputError: where the file or a value in it can't be used, or a model of the pool has no time or another accuracy.
    """
    path = located(path)
    names = {field.name for field in dataclasses.fields(Timing)}
    defaults = {field.name for field in dataclasses.fields(Timing) if field.default is not dataclasses.MISSING}
    optional = {"about", "fit", "status", "noise", "contention", "accuracy"} | defaults - {"unmeasured"}
    data = _keys(_read(path, "calibration"), path, "calibration", names - defaults, optional)
    # A calibration may time more models than this pool has.
    local = _keys(data["local_ms"], path, "local_ms", set(pool.names))
    values = {name: data[name] for name in names & data.keys()}
    values["local_ms"] = tuple(local[name] for name in pool.names)
    # null: not measured.
    unmeasured = tuple(sorted(name for name, value in values.items() if value is None))
    values |= dict.fromkeys(unmeasured, 0.0) | {"unmeasured": unmeasured}
    speeds = _keys(data.get("speeds", {}), path, "speeds", set())
    values["speeds"] = tuple((name, speed) for name, speed in speeds.items() if speed is not None)
    _check_accuracies(data.get("accuracy"), pool, path)
    status = _keys(data.get("status", {}), path, "status", set())
    assumed = tuple(name for name, text in status.items() if isinstance(text, str) and text.startswith("assumed"))
    noise, contention = data.get("noise"), data.get("contention")
    if not (contention is None or (isinstance(contention, str) and contention in CONTENTION_FORMS)):
        expected = ", ".join(CONTENTION_FORMS)
        raise InputError(f"contention: expected {expected}, found {shown(contention)} in {path}")
    number = isinstance(noise, (int, float)) and not isinstance(noise, bool)
    if not (noise is None or (isinstance(noise, (int, float)) and number and 0.0 <= noise <= 1.0)):
        raise InputError(f"noise: expected a number in [0, 1], found {shown(noise)} in {path}")
    return Calibration(timing=_typed(Timing, values, path), noise=noise, contention=contention, assumed=assumed)


def _check_accuracies(measured: object, pool: ModelPool, path: pathlib.Path) -> None:
    """A model is its name and its content: one of the same name and another accuracy is another one."""
    if measured is None:
        return
    accuracies = _keys(measured, path, "accuracy", set(pool.names))
    for name, accuracy in zip(pool.names, pool.accuracy, strict=True):
        if accuracies[name] != accuracy:
            expected = f"{shown(accuracies[name])} %, as of the model that was measured"
            found = f"{accuracy:g} % in the scenario's pool"
            raise InputError(f"models.{name}: expected {expected} in {path}, found {found}")


def load_scenario(path: str | pathlib.Path) -> Scenario:
    """Reads a scenario file and the pool and calibration it names (relative to itself).

    Raises:
      InputError: where a file or a value in it can't be used.
    """
    path = located(path)
    optional = {"constraint", "noise", "monitor_period_ms", "dynamics", "description", "traffic"}
    needed = {"name", "pool", "calibration", "devices", "edge", "cloud"}
    data = _keys(_read(path, "scenario"), path, "scenario", needed, optional)
    pool = load_pool(_beside(path, data["pool"], "pool"))
    timing = load_timing(_beside(path, data["calibration"], "calibration"), pool)
    devices, asking = [], []
    of_traffic = {*traffic_files.OF_ARRIVALS, *traffic_files.OF_LINKS} if "traffic" in data else set()
    for index, entry in enumerate(_sequence(data["devices"], path, "devices")):
        where = f"devices[{index}]"
        keys = _keys(entry, path, where, {"name"}, {"link", "speed"} | of_traffic)
        own = {key: value for key, value in keys.items() if key in of_traffic}
        devices.append(_typed(Device, {key: value for key, value in keys.items() if key not in own}, path))
        asking.append((devices[-1].name, own))
    nodes = {}
    for name in ("edge", "cloud"):
        entry = _keys(data[name], path, name, {"link", "cores"}, {"contention"})
        nodes[name] = _typed(Node, entry, path, f"{name}.")
    values: dict[str, object] = {key: data[key] for key in ("constraint", "noise", "monitor_period_ms") if key in data}
    if "dynamics" in data:
        fields = {field.name for field in dataclasses.fields(Dynamics)}
        entry = _keys(data["dynamics"], path, "dynamics", fields, set())
        chains = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
        values["dynamics"] = _typed(Dynamics, chains, path)
    if "traffic" in data:
        table = _keys(data["traffic"], path, "traffic", set())
        values["traffic"] = traffic_files.read(table, asking, functools.partial(_beside, path), str(path))
    values |= {"name": data["name"], "pool": pool, "timing": timing, "devices": tuple(devices), **nodes}
    return _typed(Scenario, values, path)
