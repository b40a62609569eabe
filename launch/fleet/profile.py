"""Measures a fleet of real nodes for its digital twin: what `python -m launch.calibrate --source=testbed` does.

On a fleet that is started here, weak links are measured too: with a relay on every link, the devices' made weak,
then the edge's.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np

from hl_jax import simulator
from hl_jax.choices import node_choices
from hl_jax.fitting import twin
from hl_jax.fitting.twin import Observation
from hl_jax.scenario import Scenario
from launch.fleet.adapter import TestbedEnv
from launch.fleet.inventory import Inventory, starts_here, with_faults
from launch.host.errors import InputError


def planned_actions(users: int, models: int) -> list[tuple[int, ...]]:
    """Every model on every device in turn; then 1 to N tasks on the edge, and on the cloud.

    Devices run different models: on one machine, the same ones at once slow each other down more than is usual.
    """
    local = [tuple((first + device) % models for device in range(users)) for first in range(models)]
    tiers = [
        (tier,) * tasks + local[tasks % models][tasks:]
        for tier in node_choices(models)
        for tasks in range(1, users + 1)
    ]
    return local + tiers


def say(text: str) -> None:
    """One line of how measuring goes."""
    print(text, file=sys.stderr, flush=True)


def measure(scenario: Scenario, inventory: Inventory, repeats: int) -> list[Observation]:
    """Carries out the planned joint actions, and some under weak links where these are emulated here.

    Raises:
      InputError: if the inventory doesn't fit the scenario.
      RunError: if a node doesn't start.
    """
    scenario, emulated = unweakened(scenario, inventory)
    users, models = scenario.users, len(scenario.pool.names)
    weak = tuple(device.link == "weak" for device in scenario.devices)
    observations = []
    with TestbedEnv(scenario, inventory, simulator.make_params(scenario)) as env:
        env.profile((models - 1,) * users, 2)  # the first steps open connections
        for action in planned_actions(users, models):
            times = env.profile(action, repeats)
            say(f"{' '.join(map(str, action))}: {np.nanmean(times):.1f} ms")
            seen = Observation(action, times, weak, scenario.edge.link == "weak", scenario.cloud.link == "weak")
            observations.append(seen)
    if emulated:
        observations += _measure_weak(scenario, inventory, repeats)
    return observations


def unweakened(scenario: Scenario, inventory: Inventory) -> tuple[Scenario, bool]:
    """The scenario to measure, and whether links are emulated here.

    Where they are, they are regular in it: what weak ones cost is measured by itself.
    """
    if not (starts_here(inventory) and inventory.emulation is not None and inventory.emulation.control):
        return scenario, False
    regular = tuple(dataclasses.replace(device, link="regular") for device in scenario.devices)
    nodes = {name: dataclasses.replace(getattr(scenario, name), link="regular") for name in ("edge", "cloud")}
    return dataclasses.replace(scenario, devices=regular, **nodes), True


def weakened(env: TestbedEnv) -> Iterator[str]:
    """Makes the devices' links weak, then the edge's; says which are. All are to have relays (`with_faults`).

    Not the cloud's: the timing model has nothing for what a weak cloud costs tasks that stay below it.
    """
    inventory, fleet = env.inventory, env.fleet
    assert inventory.emulation is not None
    assert fleet is not None
    delay = inventory.emulation.weak_link_ms
    for place in ("device", "edge"):
        for device in inventory.devices:
            fleet.set_link(device.name, delay if place == "device" else 0.0, delay if place == "edge" else 0.0)
        fleet.set_link(inventory.edge.name, delay if place == "edge" else 0.0)
        yield place


def weak_actions(users: int, models: int) -> list[tuple[int, ...]]:
    """Joint actions that tell what weak links cost. Local tasks are most of what a fleet does, so most of these."""
    return [(choice,) + (models - 1,) * (users - 1) for choice in (models - 1, 0, 1, *node_choices(models))]


def _measure_weak(scenario: Scenario, inventory: Inventory, repeats: int) -> list[Observation]:
    """The same fleet with a relay on every link: the devices' weak, then the edge's."""
    users, models = scenario.users, len(scenario.pool.names)
    observations = []
    with TestbedEnv(scenario, with_faults(inventory), simulator.make_params(scenario)) as env:
        env.profile((models - 1,) * users, 2)
        for place in weakened(env):
            for action in weak_actions(users, models):
                times = env.profile(action, repeats)
                say(f"weak {place}, {' '.join(map(str, action))}: {np.nanmean(times):.1f} ms")
                weak = (place == "device",) * users
                observations.append(Observation(action, times, weak, place == "edge"))
    return observations


def held_out(
    scenario: Scenario, inventory: Inventory, count: int, repeats: int, seed: int = 0
) -> tuple[list[float], list[Observation]]:
    """Random joint actions that nothing was fitted to: what the twin predicts of their ART, against the fleet.

    Args:
      scenario: with the twin's timing and contention.
      inventory: the fleet.
      count: joint actions.
      repeats: steps of each, averaged.
      seed: of the draw.

    Returns:
      Relative errors of predicted ART, %, and what was measured.
    """
    users, choices = scenario.users, scenario.choices
    generator, errors, observations = np.random.default_rng(seed), [], []
    params = simulator.make_params(scenario)
    with TestbedEnv(scenario, inventory, params) as env:
        env.profile((choices - 3,) * users, 2)
        for _ in range(count):
            action = tuple(generator.integers(0, choices, users).tolist())
            times = env.profile(action, repeats)
            times = times[np.isfinite(times).all(axis=1)]
            if not len(times):  # the mean of those who answered would be another fleet's
                say(f"{' '.join(map(str, action))}: in every step a request was lost; left out")
                continue
            predicted = float(np.mean(simulator.response_ms(params, params.start, jnp.array(action, jnp.int32))))
            errors.append(100.0 * (predicted / float(times.mean()) - 1.0))
            weak = tuple(device.link == "weak" for device in scenario.devices)
            links = (scenario.edge.link == "weak", scenario.cloud.link == "weak")
            observations.append(Observation(action, times, weak, *links))
    return errors, observations


def summary_of(errors: Sequence[float]) -> dict[str, float]:
    """Median, 95th percentile and worst of the absolute errors, %."""
    absolute = np.abs(errors)
    return {
        "median": round(float(np.median(absolute)), 2),
        "p95": round(float(np.percentile(absolute, 95)), 2),
        "worst": round(float(absolute.max()), 2),
        "bias": round(float(np.median(errors)), 2),
    }


def fitted(scenario: Scenario, observations: Sequence[Observation]) -> twin.Twin:
    """The twin of what was measured.

    Raises:
      InputError: if too much was lost to tell.
    """
    try:
        return twin.fit(scenario, observations)
    except ValueError as error:
        raise InputError(str(error)) from error
