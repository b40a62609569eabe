"""Reads scenario, pool and calibration files into `hl_jax.scenario` records, checking every field.

Each error is one line: which key, what was expected, what was found, in which file.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib

from hl_jax.checks import shown
from hl_jax.fleets.scenario import AnyScenario, FleetScenario
from hl_jax.scenario import CONTENTION_FORMS, Device, Dynamics, ModelPool, Node, Scenario, Timing
from launch.host.errors import InputError
from launch.host.files import located
from launch.inputs import fleet_files, tables, traffic_files


def load_pool(path: pathlib.Path) -> ModelPool:
    """Reads a model pool (Table III's shape).

    Raises:
      InputError: where the file or a value in it can't be used.
    """
    path = located(path)
    data = tables.keys(tables.read(path, "pool"), path, "pool", {"models"}, {"source"})
    models = []
    for index, entry in enumerate(tables.sequence(data["models"], path, "models")):
        optional = {"description", "type"}
        models.append(tables.keys(entry, path, f"models[{index}]", {"name", "accuracy", "million_macs"}, optional))
    columns = {
        "names": tuple(model["name"] for model in models),
        "accuracy": tuple(model["accuracy"] for model in models),
        "million_macs": tuple(model["million_macs"] for model in models),
    }
    return tables.typed(ModelPool, columns, path)


def load_types(path: pathlib.Path) -> tuple[str, ...]:
    """The types of a pool's models (FP32, Int8), as its file says; none if it doesn't say them all.

    Raises:
      InputError: where the file can't be used, or a type is no text.
    """
    path = located(path)
    models = tables.sequence(tables.keys(tables.read(path, "pool"), path, "pool", {"models"})["models"], path, "models")
    found = []
    for index, entry in enumerate(models):
        kind = tables.keys(entry, path, f"models[{index}]", set()).get("type", "")
        if not isinstance(kind, str):
            raise InputError(f"models[{index}].type: expected a text, found {shown(kind)} in {path}")
        found.append(kind)
    return tuple(found) if all(found) else ()


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
    data = tables.keys(tables.read(path, "calibration"), path, "calibration", names - defaults, optional)
    # A calibration may time more models than this pool has.
    local = tables.keys(data["local_ms"], path, "local_ms", set(pool.names))
    values = {name: data[name] for name in names & data.keys()}
    values["local_ms"] = tuple(local[name] for name in pool.names)
    # null: not measured.
    unmeasured = tuple(sorted(name for name, value in values.items() if value is None))
    values |= dict.fromkeys(unmeasured, 0.0) | {"unmeasured": unmeasured}
    speeds = tables.keys(data.get("speeds", {}), path, "speeds", set())
    values["speeds"] = tuple((name, speed) for name, speed in speeds.items() if speed is not None)
    _check_accuracies(data.get("accuracy"), pool, path)
    status = tables.keys(data.get("status", {}), path, "status", set())
    assumed = tuple(name for name, text in status.items() if isinstance(text, str) and text.startswith("assumed"))
    noise, contention = data.get("noise"), data.get("contention")
    if not (contention is None or (isinstance(contention, str) and contention in CONTENTION_FORMS)):
        expected = ", ".join(CONTENTION_FORMS)
        raise InputError(f"contention: expected {expected}, found {shown(contention)} in {path}")
    number = isinstance(noise, (int, float)) and not isinstance(noise, bool)
    if not (noise is None or (isinstance(noise, (int, float)) and number and 0.0 <= noise <= 1.0)):
        raise InputError(f"noise: expected a number in [0, 1], found {shown(noise)} in {path}")
    return Calibration(timing=tables.typed(Timing, values, path), noise=noise, contention=contention, assumed=assumed)


def _check_accuracies(measured: object, pool: ModelPool, path: pathlib.Path) -> None:
    """A model is its name and its content: one of the same name and another accuracy is another one."""
    if measured is None:
        return
    accuracies = tables.keys(measured, path, "accuracy", set(pool.names))
    for name, accuracy in zip(pool.names, pool.accuracy, strict=True):
        if accuracies[name] != accuracy:
            expected = f"{shown(accuracies[name])} %, as of the model that was measured"
            found = f"{accuracy:g} % in the scenario's pool"
            raise InputError(f"models.{name}: expected {expected} in {path}, found {found}")


def load_any(path: str | pathlib.Path) -> AnyScenario:
    """Reads a scenario file, of the paper's form (`load_scenario`) or of a user's own fleet (`fleet_files`).

    Raises:
      InputError: where a file or a value in it can't be used.
    """
    path = located(path)
    data = tables.read(path, "scenario")
    if fleet_files.MARK not in data:
        return load_scenario(path)
    tables.keys(data, path, "scenario", fleet_files.NEEDED)
    pool = tables.beside(path, data["pool"], "pool")
    return fleet_files.read_fleet(data, load_pool(pool), load_types(pool), path)


def papers(scenario: AnyScenario) -> Scenario:
    """The same, if it is of the paper's form.

    Raises:
      InputError: if it is a fleet of its own.
    """
    if isinstance(scenario, FleetScenario):
        raise InputError(f"--scenario: expected one edge and one cloud here, found a fleet of its own, {scenario.name}")
    return scenario


def load_scenario(path: str | pathlib.Path) -> Scenario:
    """Reads a scenario file and the pool and calibration it names (relative to itself).

    Raises:
      InputError: where a file or a value in it can't be used.
    """
    path = located(path)
    optional = {"constraint", "noise", "monitor_period_ms", "dynamics", "description", "traffic"}
    needed = {"name", "pool", "calibration", "devices", "edge", "cloud"}
    data = tables.keys(tables.read(path, "scenario"), path, "scenario", needed, optional)
    pool = load_pool(tables.beside(path, data["pool"], "pool"))
    timing = load_timing(tables.beside(path, data["calibration"], "calibration"), pool)
    devices, asking = [], []
    of_traffic = {*traffic_files.OF_ARRIVALS, *traffic_files.OF_LINKS} if "traffic" in data else set()
    for index, entry in enumerate(tables.sequence(data["devices"], path, "devices")):
        where = f"devices[{index}]"
        keys = tables.keys(entry, path, where, {"name"}, {"link", "speed"} | of_traffic)
        own = {key: value for key, value in keys.items() if key in of_traffic}
        devices.append(tables.typed(Device, {key: value for key, value in keys.items() if key not in own}, path))
        asking.append((devices[-1].name, own))
    nodes = {}
    for name in ("edge", "cloud"):
        entry = tables.keys(data[name], path, name, {"link", "cores"}, {"contention"})
        nodes[name] = tables.typed(Node, entry, path, f"{name}.")
    values: dict[str, object] = {key: data[key] for key in ("constraint", "noise", "monitor_period_ms") if key in data}
    if "dynamics" in data:
        fields = {field.name for field in dataclasses.fields(Dynamics)}
        entry = tables.keys(data["dynamics"], path, "dynamics", fields, set())
        chains = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
        values["dynamics"] = tables.typed(Dynamics, chains, path)
    if "traffic" in data:
        table = tables.keys(data["traffic"], path, "traffic", set())
        values["traffic"] = traffic_files.read(table, asking, functools.partial(tables.beside, path), str(path))
    values |= {"name": data["name"], "pool": pool, "timing": timing, "devices": tuple(devices), **nodes}
    return tables.typed(Scenario, values, path)
