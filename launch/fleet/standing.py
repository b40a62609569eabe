"""A fleet of real nodes whose devices make requests at their own times, as the environment that learning sees.

A step is a control period under one standing decision, sent as a lease. What devices report of it becomes what
`TrafficOrchestration.step` tells, by the same functions; so agents can't tell the two apart.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from edge_cloud import messages_pb2 as pb
from edge_cloud import schedule
from edge_cloud.client import Told
from edge_cloud.hold import Occupied
from edge_cloud.inventory import Inventory
from edge_cloud.leases import LONGEST_MS
from edge_cloud.rpc import CallError, Refused
from hl_jax.arrivals import Traffic
from hl_jax.scenario import Scenario
from hl_jax.traffic import environment, flow, reports
from hl_jax.traffic.environment import TrafficParams
from hl_jax.traffic.flow import Requests
from launch.fleet.adapter import STATE_S, TestbedEnv
from launch.host.errors import InputError, RunError

LEASE_PERIODS = 3.0  # control periods for which a decision stands, should nobody send another
NOBODY = 2**63  # number of a decision that nobody has heard of
REPORTS_S = 2.0  # for reports of a period that is over


@jax.jit
def _told(params: TrafficParams, joint: jax.Array, requests: Requests, made: dict[str, jax.Array]) -> dict[str, Any]:
    seen = reports.finished(requests, jnp.float32(jnp.inf), params.deadline_ms, params.lost_ms)
    return environment.told_of(params, joint, seen, made)


def traffic_of(scenario: Scenario) -> dict[str, pb.Traffic]:
    """What each device's application is to do, by name.

    Raises:
      InputError: if real nodes can't do it.
    """
    traffic = scenario.traffic
    assert traffic is not None
    if any(traffic.links) or traffic.uplink is not None:
        raise InputError("mbps: expected none of real links, which are as they are, found some in the scenario")
    patience_ms = traffic.deadline_ms if traffic.late == "dropped" and traffic.deadline_ms is not None else 0.0
    found = {}
    for index, (device, one) in enumerate(zip(scenario.devices, traffic.arrivals, strict=True)):
        found[device.name] = pb.Traffic(
            kind=one.kind,
            interval_ms=one.interval_ms,
            jitter_ms=one.jitter_ms,
            phase_ms=one.phase(index) if one.kind == "periodic" else 0.0,
            burstiness=one.burstiness,
            stamps_ms=one.stamps_ms,
            length_ms=one.length_ms or 0.0,
            seed=index + 1,
            patience_ms=patience_ms,
        )
        try:
            schedule.check(found[device.name])
        except Refused as error:
            raise InputError(f"{device.name} on real nodes: {error.detail}") from error
    return found


@dataclasses.dataclass(frozen=True)
class Seen:
    """One device's requests of one step. Times are ms by its own clock, since its traffic began."""

    made_ms: tuple[float, ...]
    done: tuple[pb.Done, ...]  # since the step before
    judged: tuple[pb.Done, ...]  # of these, those that were over in this step's control period
    now_ms: float  # when it reported last


@dataclasses.dataclass
class _Clock:
    """Where a device's own clock stood at the last report, and when it made its last request. ms, by that clock."""

    life: int = 0
    last_ms: float | None = None
    now_ms: float | None = None

    def gaps(self, told: Told) -> dict[str, Any]:
        """What `drawing.gaps_between` tells of the requests in a device's reports, and the time that they are of.

        Where reports are missing, or it has just (re)started, they tell nothing of how often it asks.
        """
        gaps: list[float] = []
        made, heard_ms = 0, 0.0
        for report in told.reports:
            again = report.started != self.life or self.now_ms is None or report.now_ms < self.now_ms
            if again or told.missing or not report.asking:
                self.last_ms = report.made_ms[-1] if report.made_ms else None
            else:
                assert self.now_ms is not None
                heard_ms += report.now_ms - self.now_ms
                made += len(report.made_ms)
                for at_ms in report.made_ms:
                    if self.last_ms is not None and at_ms >= self.last_ms:
                        gaps.append(at_ms - self.last_ms)
                    self.last_ms = at_ms
            self.life, self.now_ms = report.started, report.now_ms
        since = 0.0 if self.last_ms is None or self.now_ms is None else max(self.now_ms - self.last_ms, 0.0)
        array = np.array(gaps or [0.0])
        return {
            "made": np.int32(made),
            "gaps": np.int32(len(gaps)),
            "gap_ms": np.float32(array.mean()),
            "gap_square_ms2": np.float32((array**2).mean()),
            "since_ms": np.float32(since),
            "heard_ms": np.float32(heard_ms),
        }


class StandingEnv(TestbedEnv):
    """A fleet of N devices with their own traffic as an environment. Use as a context.

    Args:
      scenario: what runs, with traffic.
      inventory: the fleet.
      params: the scenario as arrays, with the penalty of a broken constraint.
      local, folder, record: as `TestbedEnv`'s.

    Attributes:
      seen: each device's requests of the last step. [N]
    """

    takes_traffic = True

    def __init__(
        self,
        scenario: Scenario,
        inventory: Inventory,
        params: TrafficParams,
        *,
        local: bool | None = None,
        folder: pathlib.Path | None = None,
        record: pathlib.Path | None = None,
    ) -> None:
        super().__init__(scenario, inventory, params.fleet, local=local, folder=folder, record=record)
        assert scenario.traffic is not None
        self.traffic, self._wanted = params, traffic_of(scenario)
        self._what: Traffic = scenario.traffic
        self._clocks = {device.name: _Clock() for device in scenario.devices}
        self.seen: tuple[Seen, ...] = ()
        self._marked = 0.0  # when the last control period ended

    def start(self) -> None:
        """As `TestbedEnv`'s; and has every device make its requests.

        Raises:
          InputError, TestbedError, RunError: as `TestbedEnv`'s.
        """
        # Compiled now, so that no step has to wait for it.
        nobody = Told()
        silent = {one.name: nobody for one in self.scenario.devices}
        self._told(np.zeros(self.scenario.users, np.int32), NOBODY, silent, 0.0)
        super().start()
        try:
            self._started_fleet().set_traffic(self._wanted)
        except CallError as error:
            self.close()
            raise RunError(str(error)) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """As `TestbedEnv`'s; nobody makes requests any more on a fleet that stays."""
        if self.fleet is not None and not self.starts_here and (missed := self.fleet.quieten()):
            print(f"{', '.join(missed)}: still making requests, since no order got there", file=sys.stderr)
        super().close()

    def step(
        self, action: Sequence[int] | np.ndarray
    ) -> tuple[np.ndarray, np.float32, np.bool_, np.bool_, dict[str, Any]]:
        """One control period under a standing decision ([N] ints in 0..C-1).

        Returns:
          obs [3N + 6] int32, reward = -cost (ms), terminated, truncated (both False), and info as
          `TrafficOrchestration.step` has it, of what was over in the period; what was over between two steps only tells
          how often devices ask. Besides `stale` (as `TestbedEnv.step`), `unheard` [N] bool (the device hasn't told of
          this period), `missing` [N] bool (reports were lost on their way), `heard_ms` [N] (of how long it has told
          since the step before), and `lost_requests`, how many got no result. While the cloud doesn't answer, devices
          do what they did, and then their fallbacks.

        Raises:
          ValueError: if the action isn't one.
          RunError: if another operator has taken the fleet.
        """
        fleet, joint = self._started_fleet(), self._joint(action)
        period_s = self._what.period_ms / 1000.0
        began = time.monotonic()
        number = self._stand(joint) or NOBODY
        self._marked = self._marked or began
        time.sleep(max(began + period_s - time.monotonic(), 0.0))
        # The same again, which ends the period at every device and changes nothing else.
        self._stand(joint)
        ended = time.monotonic()
        try:
            told = fleet.collect(number, REPORTS_S)
        except Occupied as error:
            raise RunError(error.detail) from error
        self._traffic_again(told)
        stale = not self._observe(STATE_S)
        info = self._told(joint, number, told, 1000.0 * (ended - self._marked)) | {"stale": np.bool_(stale)}
        self._marked = ended
        self._write(joint, float(info["cost_ms"]), self._entry(info))
        return self._obs.copy(), -info["cost_ms"], np.bool_(False), np.bool_(False), info

    def _stand(self, joint: np.ndarray) -> int | None:
        """Tells all devices what to do. Returns the decision's number; None if the cloud doesn't take it."""
        models = len(self.scenario.pool.names)
        # Edge and cloud run the first model: without them it is that.
        fallbacks = np.where(joint < models, joint, 0)
        valid_s = LEASE_PERIODS * self._what.period_ms / 1000.0
        try:
            return self._started_fleet().stand(joint.tolist(), fallbacks.tolist(), valid_s)
        except Occupied as error:
            raise RunError(error.detail) from error
        except CallError:
            return None

    def _traffic_again(self, told: Mapping[str, Told]) -> None:
        """A device that has come back knows of no traffic, and says so."""
        for name, one in told.items():
            if one.closed and not one.reports[-1].asking:
                with contextlib.suppress(CallError):  # the next report says so again
                    self._started_fleet().set_traffic({name: self._wanted[name]})

    def _told(self, joint: np.ndarray, number: int, told: Mapping[str, Told], elapsed_ms: float) -> dict[str, Any]:
        each = [told[device.name] for device in self.scenario.devices]
        made = [self._clocks[device.name].gaps(part) for device, part in zip(self.scenario.devices, each, strict=True)]
        self.seen = tuple(
            Seen(
                made_ms=tuple(at_ms for report in part.reports for at_ms in report.made_ms),
                done=tuple(_sound(one) for report in part.reports for one in report.done),
                judged=tuple(_sound(one) for report in part.reports if report.number >= number for one in report.done),
                now_ms=part.reports[-1].now_ms if part.reports else 0.0,
            )
            for part in each
        )
        columns: dict[str, Any] = {name: np.array([one[name] for one in made]) for name in made[0]}
        columns |= {"requests": np.int32(columns["made"].sum()), "untold": np.int32(0), "periods": np.int32(1)}
        requests = _requests([one.judged for one in self.seen], self.traffic.room)
        info = jax.device_get(_told(self.traffic, jnp.asarray(joint), requests, columns))
        return info | {
            "elapsed_ms": np.float32(elapsed_ms),
            "unheard": np.array([not part.closed for part in each]),
            "missing": np.array([part.missing for part in each]),
            "lost_requests": sum(one.lost != "" for row in self.seen for one in row.judged),
        }

    def _entry(self, info: Mapping[str, Any]) -> dict[str, object]:
        """What a period's line of the record holds of each device."""
        rows = []
        for index, device in enumerate(self.scenario.devices):
            reasons = collections.Counter(one.lost for one in self.seen[index].judged if one.lost)
            names = ("count", "missed", "response_ms", "p95_ms", "waiting_ms", "computing_ms", "way_ms")
            figures = {name: round(float(info[name][index]), 3) for name in names}
            rows.append({"device": device.name, **figures, "gone": bool(info["gone"][index]), "lost": dict(reasons)})
        return {"art_ms": round(float(info["art_ms"]), 3), "devices": rows}


def _sound(one: pb.Done) -> pb.Done:
    """A request as its device tells it; lost where what it tells can't be so."""
    times = (one.response_ms, one.queue_ms, one.compute_ms)
    # A device that it took an hour has lost it long before.
    if one.lost or (all(0.0 <= time <= LONGEST_MS for time in times) and min(one.response_ms, one.compute_ms) > 0.0):
        return one
    return pb.Done(made_ms=one.made_ms, choice=one.choice, lost=f"report: expected finite times, found {times}")


def _requests(done: Sequence[Sequence[pb.Done]], room: int) -> Requests:
    """Requests that are over as arrays [N, M], M a power of two, at least `room`, so that few programs are compiled."""
    most = max(room, *(len(row) for row in done))
    shape = (len(done), 1 << (most - 1).bit_length())
    nothing = np.zeros(shape, np.float32)
    fields: dict[str, Any] = {name: nothing.copy() for name in ("made", "at", "service", "waited", "passed")}
    fields |= {
        "stage": np.full(shape, flow.NOWHERE, np.int32),
        "choice": np.zeros(shape, np.int32),
        "lost": np.zeros(shape, bool),
    }
    for row, requests in enumerate(done):
        for column, one in enumerate(requests):
            cell = {"stage": flow.OVER, "choice": one.choice, "lost": one.lost != "", "at": one.response_ms}
            for name, value in (cell | {"service": one.compute_ms, "waited": one.queue_ms}).items():
                fields[name][row, column] = value
    return Requests(**fields)
