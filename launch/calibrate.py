"""Fits the simulator's times and writes them as a calibration file: `python -m launch.calibrate --source=paper`.

`--source=paper` depends on the files under `--data` alone: fitting again gives the same bytes. `--source=testbed`
measures a fleet of real nodes; its file is the fleet's digital twin, for `--calibration` of the other entry points.
Under a scenario with traffic the fleet is measured while its devices make their own requests.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from hl_jax import objective, scenario, simulator
from hl_jax.choices import choice_labels
from hl_jax.fitting import calibration, twin
from hl_jax.optimum import oracle
from launch.host import errors, files
from launch.host.errors import InputError, RunError
from launch.host.files import located
from launch.inputs import scenario_files, tables

if TYPE_CHECKING:
    from launch.fleet.inventory import Inventory

_SOURCE = flags.DEFINE_enum(
    "source", "paper", ["paper", "testbed"], "What to fit the times to: the paper's Table V, or a fleet of real nodes."
)
_OUT = flags.DEFINE_string(
    "out", None, "Calibration file to write; default data/calibration/paper.json, for a testbed runs/twin.json."
)
_INVENTORY = flags.DEFINE_string(
    "inventory", "data/inventories/local.toml", "With --source=testbed, the fleet (TOML); ports 0: started here."
)
_SCENARIO = flags.DEFINE_string(
    "scenario", "data/scenarios/expA.toml", "With --source=testbed, devices, links and cores; its Busy factors stay."
)
_REPEATS = flags.DEFINE_integer(
    "repeats", 6, "Steps (control periods) of each joint action that is measured.", lower_bound=2
)
_CHECK = flags.DEFINE_integer(
    "check", 0, "Random joint actions to predict and then measure, which nothing is fitted to.", lower_bound=0
)
_DATA = flags.DEFINE_string("data", "data", "Folder of the tables, the model pool and the assumed numbers.")

_TABLE = "paper, Table V, with the links of Table IV"
_COMMAND = "python -m launch.calibrate --source=paper"
_FITTED = "fitted: least squares over Table V"
_ANCHORED = f"{_FITTED}; the rows can't tell d0, d4, edge and cloud apart, so this rests on d0's"
_LINE = "on the line through d2 and d3 in million MACs"
_STATUS = {
    "local_ms.d0": f"assumed: {_LINE}, because the rows can't tell it from d4, edge and cloud",
    "local_ms.d1": f"assumed: {_LINE}, because no row has it",
    "local_ms.d2": _FITTED,
    "local_ms.d3": f"{_FITTED}, where only B/80 has it",
    "local_ms.d4": _ANCHORED,
    "local_ms.d5": _FITTED,
    "local_ms.d6": _FITTED,
    "local_ms.d7": _FITTED,
    "edge_ms": _ANCHORED,
    "cloud_ms": _ANCHORED,
    "weak_device_ms": _FITTED,
    "weak_device_offload_ms": "assumed: none, because one number for a weak device fits Table V",
    "weak_edge_ms": _FITTED,
    "weak_edge_offload_ms": _FITTED,
    "weak_cloud_offload_ms": "assumed: as for a weak edge, because no experiment has a weak cloud",
}


def _field(table: Mapping[str, object], key: str, kinds: tuple[type, ...], where: str, path: pathlib.Path) -> Any:
    value = table.get(key)
    if not isinstance(value, kinds) or isinstance(value, bool):
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise InputError(f"{where}.{key}: expected {expected}, found {value!r} in {path}")
    return value


def _entries(path: pathlib.Path, key: str) -> list[Mapping[str, object]]:
    entries = _field(tables.read(path, "table"), key, (list,), "table", path)
    for index, entry in enumerate(entries):
        if not isinstance(entry, Mapping):
            raise InputError(f"{key}[{index}]: expected a table, found {entry!r} in {path}")
    return entries


def _is_weak(link: object, where: str, path: pathlib.Path) -> bool:
    if link not in scenario.LINKS:
        raise InputError(f"{where}: expected {' or '.join(scenario.LINKS)}, found {link!r} in {path}")
    return link == "weak"


def _read_links(path: pathlib.Path) -> dict[str, tuple[tuple[bool, ...], bool]]:
    """Table IV: for each experiment whether each device's link is weak, and whether the edge's is."""
    links = {}
    for index, entry in enumerate(_entries(path, "experiments")):
        where = f"experiments[{index}]"
        devices = _field(entry, "devices", (list,), where, path)
        weak = tuple(_is_weak(link, f"{where}.devices", path) for link in devices)
        links[_field(entry, "name", (str,), where, path)] = (weak, _is_weak(entry.get("edge"), f"{where}.edge", path))
    return links


def _read_rows(data: pathlib.Path, pool: scenario.ModelPool) -> list[calibration.Row]:
    """Table V's rows under Table IV's links."""
    path, labels = data / "paper" / "table5.toml", choice_labels(pool.names)
    links, rows = _read_links(data / "paper" / "table4.toml"), []
    for index, entry in enumerate(_entries(path, "rows")):
        where = f"rows[{index}]"
        experiment = _field(entry, "experiment", (str,), where, path)
        if experiment not in links:
            raise InputError(f"{where}.experiment: expected one of {', '.join(links)}, found {experiment!r} in {path}")
        weak_devices, weak_edge = links[experiment]
        decision = _field(entry, "decision", (list,), where, path)
        if len(decision) != len(weak_devices) or not all(choice in labels for choice in decision):
            expected = f"{len(weak_devices)} of {', '.join(labels)}"
            raise InputError(f"{where}.decision: expected {expected}, found {decision!r} in {path}")
        constraint = _field(entry, "constraint", (str, int, float), where, path)
        try:
            row = calibration.Row(
                label=f"{experiment}/{constraint}",
                weak_devices=weak_devices,
                weak_edge=weak_edge,
                constraint=objective.constraint_value(constraint, pool),
                decision=tuple(labels.index(choice) for choice in decision),
                art_ms=float(_field(entry, "art_ms", (int, float), where, path)),
                trusted="contradiction" not in entry,
            )
        except ValueError as error:
            raise InputError(f"{where}: {error} in {path}") from error
        rows.append(row)
    return rows


def _read_assumed(path: pathlib.Path) -> tuple[calibration.Assumptions, dict[str, str]]:
    """What the rows don't determine, and the status of each such number."""
    table, values, status = tables.read(path, "assumed"), {}, {}
    for field in dataclasses.fields(calibration.Assumptions):
        entry = _field(table, field.name, (dict,), "assumed", path)
        values[field.name] = _field(entry, "value", (int, float), field.name, path)
        words = [_field(entry, key, (str,), field.name, path) for key in ("status", "reason")]
        status[field.name] = ": ".join(words)
    return calibration.Assumptions(**values), status


def _document(
    rows: Sequence[calibration.Row],
    pool: scenario.ModelPool,
    assumed: calibration.Assumptions,
    assumed_status: Mapping[str, str],
) -> dict[str, object]:
    """The calibration file's content."""
    fitted = calibration.fit(rows, pool, assumed)
    exact = calibration.fit(rows, pool, assumed, tie_tolerance=0.0)
    free = calibration.fit([dataclasses.replace(row, trusted=False) for row in rows], pool, assumed)
    times = dataclasses.asdict(fitted.timing)
    del times["speeds"], times["unmeasured"]  # which only a fleet's twin has
    times["local_ms"] = dict(zip(pool.names, fitted.timing.local_ms, strict=True))
    columns = zip(rows, fitted.fitted_ms, fitted.error_percent, fitted.excess_percent, strict=True)
    return {
        "about": {
            "source": _TABLE,
            "command": _COMMAND,
            "units": "ms; *_factor and *_cores have none",
            "method": "hl_jax/fitting/calibration.py; see data/README.md",
        },
        **times,
        "status": _STATUS | dict(assumed_status),
        "fit": {
            "rmse_ms": round(fitted.rmse_ms, 4),
            "worst_percent": round(fitted.worst_percent, 4),
            "tie_tolerance_percent": 100.0 * calibration.TIE_TOLERANCE,
            "rmse_ms_without_tie_tolerance": round(exact.rmse_ms, 4),
            "rmse_ms_without_optimality": round(free.rmse_ms, 4),
            "not_required_optimal": [row.label for row in rows if not row.trusted],
            "least_edge_share_ms": round(fitted.least_share_ms[0], 4),
            "least_cloud_share_ms": round(fitted.least_share_ms[1], 4),
            "active": list(fitted.active),
            "rows": {
                row.label: {
                    "printed_ms": row.art_ms,
                    "fitted_ms": round(art, 4),
                    # Adding 0.0 turns a rounded -0.0 into 0.0.
                    "error_percent": round(error, 4) + 0.0,
                    "excess_over_best_percent": round(excess, 4) + 0.0,
                }
                for row, art, error, excess in columns
            },
        },
    }


def _scenario(row: calibration.Row, pool: scenario.ModelPool, timing: scenario.Timing) -> scenario.Scenario:
    links = [scenario.LINKS[weak] for weak in row.weak_devices]
    return scenario.Scenario(
        name=row.label,
        pool=pool,
        timing=timing,
        devices=tuple(scenario.Device(f"S{index + 1}", link) for index, link in enumerate(links)),
        edge=scenario.Node(scenario.LINKS[row.weak_edge], timing.edge_reference_cores),
        cloud=scenario.Node("regular", timing.cloud_reference_cores),
        constraint=row.constraint,
    )


def _print_rows(rows: Sequence[calibration.Row], pool: scenario.ModelPool, path: pathlib.Path) -> None:
    """Judges the written file by brute force over the simulator, which shares nothing with the fit."""
    timing = scenario_files.load_timing(path, pool)
    exact = tied = 0
    fit = json.loads(path.read_text(encoding="utf-8"))["fit"]
    print(f"{'row':<6} {'printed ms':>10} {'fitted ms':>10} {'error %':>8}  Table V's decision")
    for row in rows:
        params = simulator.make_params(_scenario(row, pool, timing))
        optimum = oracle.brute_force(params, tie_tolerance=calibration.TIE_TOLERANCE + calibration.MARGIN)
        agrees = bool((optimum.optimal == row.decision).all(axis=1).any())
        numbers = fit["rows"][row.label]
        excess = numbers["excess_over_best_percent"]
        exact, tied = exact + (agrees and not excess), tied + (agrees and bool(excess))
        verdict = f"{'tied' if agrees else 'not optimal'}, {excess:.2f} % above the best" if excess else "optimal"
        doubt = "" if row.trusted else " (the row contradicts itself)"
        times = f"{numbers['printed_ms']:>10.2f} {numbers['fitted_ms']:>10.2f} {numbers['error_percent']:>+8.2f}"
        print(f"{row.label:<6} {times}  {verdict}{doubt}")
    tolerance = fit["tie_tolerance_percent"]
    print(f"RMSE {fit['rmse_ms']:.2f} ms, worst row {fit['worst_percent']:.2f} %; decisions that agree: ", end="")
    print(f"{exact + tied} of {len(rows)} ({exact} optimal, {tied} tied within {tolerance:g} %)")
    print(f"written to {path}")


def _from_testbed(out: pathlib.Path) -> None:
    """Measures a fleet, fits, writes the file, and says how well its twin predicts."""
    try:
        # Only there are the packages of requirements-testbed.txt needed.
        from launch.fleet import profile, standing_profile
        from launch.fleet.inventory import read_inventory
    except ImportError as error:
        expected = "the packages of requirements-testbed.txt"
        raise InputError(f"--source=testbed: expected {expected}, found {error}") from error
    fleet, inventory = scenario_files.load_scenario(_SCENARIO.value), read_inventory(_INVENTORY.value)
    if fleet.traffic is None:
        observations = profile.measure(fleet, inventory, _REPEATS.value)
        made = profile.fitted(fleet, observations)
    else:
        measured = standing_profile.measure(fleet, inventory, _REPEATS.value)
        observations, made = list(measured.observations), standing_profile.fitted(fleet, measured)
    times = dataclasses.asdict(made.timing)
    times["local_ms"] = dict(zip(fleet.pool.names, made.timing.local_ms, strict=True))
    speeds = dict(made.timing.speeds)
    times["speeds"] = {device.name: speeds.get(device.name) for device in fleet.devices}
    unmeasured = times.pop("unmeasured")
    times |= dict.fromkeys(unmeasured)
    status = dict.fromkeys(times, "measured") | dict.fromkeys(("busy_cpu_factor", "busy_memory_factor"), "assumed")
    status |= dict.fromkeys(unmeasured, "not measured: it was never so while this fleet was measured, or always")
    document = {
        "about": {
            "source": f"the fleet {inventory.name}, measured {datetime.date.today().isoformat()}",
            "command": f"python -m launch.calibrate --source=testbed --inventory={_INVENTORY.value}",
            "units": "ms; *_factor and *_cores have none",
            "method": "hl_jax/fitting/twin.py",
            "emulation": dataclasses.asdict(inventory.emulation) if inventory.emulation else None,
        },
        **times,
        "accuracy": dict(zip(fleet.pool.names, fleet.pool.accuracy, strict=True)),
        "noise": made.noise,
        "contention": twin.CONTENTION,
        "status": status,
        "fit": {"art_error_percent": profile.summary_of(made.error_percent), "joint_actions": len(observations)},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(out, document, indent=2)
    print(f"written to {out}; error of ART over what was fitted: {document['fit']['art_error_percent']}")
    if unmeasured:
        print(f"not measured, and refused where it matters: {', '.join(unmeasured)}")
    if _CHECK.value:
        there = scenario_files.load_calibration(out, fleet.pool).apply(fleet)
        if missing := there.unmeasured():
            raise InputError(
                f"--check: expected a fleet of which all that matters was measured, found {', '.join(missing)}"
            )
        document["fit"] |= _held_out(there, inventory)
        files.write_json(out, document, indent=2)


def _held_out(there: scenario.Scenario, inventory: Inventory) -> dict[str, object]:
    """How well a twin predicts what nothing was fitted to, for its file; and says so."""
    from launch.fleet import profile, standing_profile

    nothing = "--check: expected steps without a lost request, found none"
    if there.traffic is None:
        errors, seen = profile.held_out(there, inventory, _CHECK.value, _REPEATS.value)
        if not errors:
            raise RunError(nothing)
        print(f"error of ART over {len(errors)} held-out joint actions: {profile.summary_of(errors)} %")
        rows = [
            {
                "action": list(one.action),
                "art_ms": round(float(one.response_ms.mean()), 2),
                "error": round(error, 2),
            }
            for error, one in zip(errors, seen, strict=True)
        ]
        return {"held_out_art_error_percent": profile.summary_of(errors), "held_out": rows}
    compared = standing_profile.held_out(there, inventory, _CHECK.value, _REPEATS.value)
    if not compared:
        raise RunError(nothing)
    mean = profile.summary_of([one.mean_error_percent for one in compared])
    p95 = profile.summary_of([one.p95_error_percent for one in compared])
    print(
        f"error of the mean over {len(compared)} held-out standing decisions: {mean} %; of the 95 % quantile: {p95} %"
    )
    return {
        "held_out_mean_error_percent": mean,
        "held_out_p95_error_percent": p95,
        "held_out": [dataclasses.asdict(one) for one in compared],
    }


def main() -> None:
    """Fits, writes the file, and says how well it fits."""
    if _SOURCE.value == "testbed":
        _from_testbed(pathlib.Path(_OUT.value or "runs/twin.json"))
        return
    _from_paper(located(_DATA.value), pathlib.Path(_OUT.value or "data/calibration/paper.json"))


def _from_paper(data: pathlib.Path, out: pathlib.Path) -> None:
    """Fits, writes the file, and prints how it compares with the table, row by row."""
    pool = scenario_files.load_pool(data / "pools" / "mobilenet.toml")
    rows = _read_rows(data, pool)
    assumed, status = _read_assumed(data / "calibration" / "assumed.toml")
    try:
        document = _document(rows, pool, assumed, status)
    except ValueError as error:
        raise InputError(f"{error} in {data / 'paper' / 'table5.toml'}") from error
    files.write_json(out, document, indent=2)
    _print_rows(rows, pool, out)


if __name__ == "__main__":
    errors.run(main)
