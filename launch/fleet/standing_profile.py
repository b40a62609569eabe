"""Measures a fleet with traffic of its own for its digital twin, as `profile` does in lock-step.

Reports tell computing, waiting and the way apart, so that the twin's times are those of tasks that don't wait, and its
queues are the event simulation's. It is checked by replaying on it what devices have really asked.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from hl_jax.fitting import twin
from hl_jax.fitting.twin import Observation, Twin
from hl_jax.scenario import Scenario
from hl_jax.traffic import params as traffic_params
from hl_jax.traffic import reports, standing
from hl_jax.traffic.environment import TrafficParams
from launch.fleet.inventory import Inventory, with_faults
from launch.fleet.profile import planned_actions, say, unweakened, weak_actions, weakened
from launch.fleet.standing import StandingEnv
from launch.host.errors import InputError

replay = jax.jit(standing.replayed)


@dataclasses.dataclass(frozen=True)
class Measured:
    """Standing decisions as they were carried out."""

    observations: tuple[Observation, ...]  # times of tasks without their waiting
    computing_ms: tuple[tuple[float, ...], tuple[float, ...]]  # of every task at the edge, at the cloud
    log_spreads: tuple[float, ...]  # of computing times of one device with one model


@dataclasses.dataclass(frozen=True)
class Compared:
    """One standing decision that nothing was fitted to: the twin's response times beside the fleet's."""

    action: tuple[int, ...]
    requests: int
    mean_ms: float
    p95_ms: float
    twin_mean_ms: float
    twin_p95_ms: float

    @property
    def mean_error_percent(self) -> float:
        return 100.0 * (self.twin_mean_ms / self.mean_ms - 1.0)

    @property
    def p95_error_percent(self) -> float:
        return 100.0 * (self.twin_p95_ms / self.p95_ms - 1.0)


def _params(scenario: Scenario) -> TrafficParams:
    return traffic_params.make_params(scenario)


class _Measuring:
    """What was seen so far."""

    def __init__(self) -> None:
        self.observations: list[Observation] = []
        self._nodes: tuple[list[float], list[float]] = ([], [])
        self._spreads: list[float] = []

    def take(self, env: StandingEnv, action: tuple[int, ...], periods: int, where: str, **links: object) -> None:
        """Carries a standing decision out for some control periods."""
        models = len(env.scenario.pool.names)
        rows, computing = [], [[] for _ in action]  # type: ignore[var-annotated]
        for _ in range(periods):
            env.step(action)
            row = []
            for device, seen in enumerate(env.seen):
                mine = [one for one in seen.done if not one.lost and one.choice == action[device]]
                row.append(float(np.mean([one.response_ms - one.queue_ms for one in mine])) if mine else np.nan)
                computing[device] += [one.compute_ms for one in mine]
            rows.append(row)
        times = np.array(rows)
        say(f"{where}{' '.join(map(str, action))}: {np.nanmean(times):.1f} ms without waiting")
        self.observations.append(Observation(action, times, waits=False, **links))  # type: ignore[arg-type]
        for device, choice in enumerate(action):
            if choice >= models:
                self._nodes[choice - models].extend(computing[device])
            elif len(computing[device]) > 1:
                self._spreads.append(float(np.std(np.log(computing[device]), ddof=1)))

    def measured(self) -> Measured:
        edge, cloud = self._nodes
        return Measured(tuple(self.observations), (tuple(edge), tuple(cloud)), tuple(self._spreads))


def measure(scenario: Scenario, inventory: Inventory, periods: int) -> Measured:
    """Carries out the planned standing decisions, and some under weak links where these are emulated here.

    Raises:
      InputError: if the inventory doesn't fit the scenario.
      RunError: if a node doesn't start.
    """
    users, models, seen = scenario.users, len(scenario.pool.names), _Measuring()
    plain, emulated = unweakened(scenario, inventory)
    weak = tuple(device.link == "weak" for device in plain.devices)
    links = {"weak_devices": weak, "weak_edge": plain.edge.link == "weak", "weak_cloud": plain.cloud.link == "weak"}
    with StandingEnv(plain, inventory, _params(plain)) as env:
        env.step((models - 1,) * users)  # the first one opens connections
        for action in planned_actions(users, models):
            seen.take(env, action, periods, "", **links)
    if not emulated:
        return seen.measured()
    with StandingEnv(plain, with_faults(inventory), _params(plain)) as env:
        env.step((models - 1,) * users)
        for place in weakened(env):
            everywhere = (place == "device",) * users
            for action in weak_actions(users, models):
                seen.take(env, action, periods, f"weak {place}, ", weak_devices=everywhere, weak_edge=place == "edge")
    return seen.measured()


def fitted(scenario: Scenario, measured: Measured) -> Twin:
    """The twin of what was measured.

    Raises:
      InputError: if too much was lost to tell.
    """
    if not all(measured.computing_ms):
        raise InputError("--source=testbed: expected tasks at edge and cloud with a result, found none")
    edge, cloud = (float(np.median(times)) for times in measured.computing_ms)
    try:
        found = twin.fit(scenario, measured.observations, (edge, cloud))
    except ValueError as error:
        raise InputError(str(error)) from error
    noise = float(np.median(measured.log_spreads)) if measured.log_spreads else 0.0
    return dataclasses.replace(found, noise=round(max(noise, twin.LEAST_NOISE), 4))


def held_out(scenario: Scenario, inventory: Inventory, count: int, periods: int, seed: int = 0) -> list[Compared]:
    """Random standing decisions that nothing was fitted to, on the fleet and, with the same requests, on its twin.

    Args:
      scenario: with the twin's timing.
      inventory: the fleet.
      count: standing decisions.
      periods: control periods of each, after one in which queues settle.
      seed: of the draw.
    """
    generator, found, params = np.random.default_rng(seed), [], _params(scenario)
    with StandingEnv(scenario, inventory, params) as env:
        env.step((scenario.choices - 3,) * scenario.users)
        for _ in range(count):
            # From an idle fleet: what the decision before has left in queues is over first.
            env.step((scenario.choices - 3,) * scenario.users)
            action = tuple(generator.integers(0, scenario.choices, scenario.users).tolist())
            one = _compared(env, params, action, periods)
            if one is None:
                say(f"{' '.join(map(str, action))}: no request had a result; left out")
                continue
            found.append(one)
            say(
                f"{' '.join(map(str, action))}: {one.mean_ms:.1f} ms, {one.mean_error_percent:+.1f} % by the twin; "
                f"95 % within {one.p95_ms:.1f} ms, {one.p95_error_percent:+.1f} %"
            )
    return found


def _compared(env: StandingEnv, params: TrafficParams, action: tuple[int, ...], periods: int) -> Compared | None:
    starts, lost_ms = [seen.now_ms for seen in env.seen], float(params.lost_ms)
    made: list[list[float]] = [[] for _ in action]
    response: list[dict[float, float]] = [{} for _ in action]
    settled = list(starts)
    for number in range(1 + periods):
        env.step(action)
        for device, seen in enumerate(env.seen):
            made[device] += [at_ms for at_ms in seen.made_ms if at_ms >= starts[device]]
            response[device] |= {one.made_ms: lost_ms if one.lost else one.response_ms for one in seen.done}
            if number == 0:
                settled[device] = seen.now_ms
    most = 1 << (max(max(map(len, made)), 1) - 1).bit_length()
    times = np.full((len(action), most), np.inf, np.float32)
    for device, row in enumerate(made):
        times[device, : len(row)] = np.array(row) - min(starts)
    over = replay(params, jnp.array(action, jnp.int32), jnp.asarray(times))
    theirs = np.asarray(jnp.where(over.lost, lost_ms, over.at - over.made))
    pairs = [
        (response[device][at_ms], float(theirs[device, column]))
        for device, row in enumerate(made)
        for column, at_ms in enumerate(row)
        if at_ms >= settled[device] and at_ms in response[device]
    ]
    if not pairs:
        return None
    columns = np.array(pairs, np.float32).T
    counted = jnp.ones(len(pairs), bool)
    p95 = [float(reports.quantiles(jnp.asarray(column), counted, (0.95,))[0]) for column in columns]
    mean = columns.mean(axis=1)
    return Compared(action, len(pairs), float(mean[0]), p95[0], float(mean[1]), p95[1])
