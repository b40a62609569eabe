"""What orchestration costs on real nodes: `python -m launch.overhead --inventory=data/inventories/local.toml`.

Overhead is a device's response time less computing and waiting for a core (and less link delays, so links must be
regular): the decision's way to the cloud and back, images sent, replies. Random joint actions; times are ms.
"""

from __future__ import annotations

import json
import os

import numpy as np
from absl import flags

from hl_jax import simulator
from launch.fleet.adapter import TestbedEnv
from launch.fleet.inventory import read_inventory
from launch.host import errors
from launch.inputs import scenario_files

_INVENTORY = flags.DEFINE_string("inventory", "data/inventories/local.toml", "The fleet (TOML); ports 0: started here.")
_SCENARIO = flags.DEFINE_string("scenario", "data/scenarios/expA.toml", "Devices, links and cores; links regular.")
_STEPS = flags.DEFINE_integer("steps", 200, "Random joint actions.", lower_bound=1)
_FORMAT = flags.DEFINE_enum("format", "table", ["table", "json"], "A table to read, or JSON for tools.")


def _row(values: list[float]) -> dict[str, float | None]:
    """How many, their median and 95 % quantile (ms); None where there is none."""
    if not values:
        return {"requests": 0, "median": None, "p95": None}
    median, high = np.percentile(values, [50, 95])
    return {"requests": len(values), "median": round(float(median), 2), "p95": round(float(high), 2)}


def main() -> None:
    """Measures and prints."""
    scenario = scenario_files.load_scenario(_SCENARIO.value)
    inventory = read_inventory(_INVENTORY.value)
    generator, models = np.random.default_rng(0), len(scenario.pool.names)
    found: dict[str, list[float]] = {name: [] for name in ("all", "device", "edge", "cloud", "decision")}
    load = []
    with TestbedEnv(scenario, inventory, simulator.make_params(scenario)) as env:
        env.profile((models - 1,) * scenario.users, 3)
        for _ in range(_STEPS.value):
            action = generator.integers(0, scenario.choices, scenario.users)
            info = env.step(action)[-1]
            load.append(os.getloadavg()[0])
            overhead = info["response_ms"] - info["compute_ms"] - info["queue_ms"]
            for choice, lost, ms, decide in zip(action, info["lost"], overhead, info["decide_ms"], strict=True):
                if not lost:
                    where = "device" if choice < models else ("edge", "cloud")[choice - models]
                    found[where].append(float(ms))
                    found["all"].append(float(ms))
                    found["decision"].append(float(decide))
    rows = {name: _row(values) for name, values in found.items()}
    cores, average = os.cpu_count(), float(np.mean(load))
    if _FORMAT.value == "json":
        print(json.dumps({"cores": cores, "load_average": round(average, 2), "overhead_ms": rows}, indent=2))
        return
    print(f"{_STEPS.value} steps of {scenario.users} devices, {cores} cores, load average {average:.1f}")
    print(f"{'where':<9} {'requests':>8} {'median':>7} {'p95':>7}")
    for name, row in rows.items():
        shown = " ".join(f"{'none' if row[key] is None else row[key]:>7}" for key in ("median", "p95"))
        print(f"{name:<9} {row['requests']:>8} {shown}")


if __name__ == "__main__":
    errors.run(main)
