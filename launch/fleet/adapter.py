"""The one adapter between learning and the real execution layer: a fleet of real nodes as an environment.

Impure: every step runs real inferences on real processes. It keeps the simulator's contract, which
tests/helpers/env_contract.py checks, and uses its cost, so that agents can't tell the two apart, except that response
times are what they are.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import tempfile
import time
from collections.abc import Sequence
from typing import Any, Self, TextIO

import jax
import numpy as np

from edge_cloud.client import Fleet, Outcome
from edge_cloud.hold import Occupied
from edge_cloud.inventory import Inventory, NodeSpec
from edge_cloud.rpc import CallError
from hl_jax import simulator
from hl_jax.scenario import Node, Scenario
from launch.fleet.inventory import connected, starts_here
from launch.fleet.testbed import Testbed
from launch.host.errors import InputError, RunError

STATE_S = 0.5  # for reading the fleet's state after a step; without an answer the last one is kept


@jax.jit
def _judge(params: simulator.EnvParams, joint: jax.Array, response: jax.Array) -> tuple[jax.Array, ...]:
    """Accuracy (%), whether the constraint is kept, and cost (ms) of a joint action [N] that took `response` [N] ms."""
    accuracy = simulator.mean_accuracy(params, joint)
    return accuracy, simulator.meets_constraint(params, joint), simulator.cost_ms(params, joint, response)


def fleet_of(scenario: Scenario, inventory: Inventory) -> Inventory:
    """The part of an inventory that a scenario describes: its devices, with its links, speeds and cores.

    Links that are regular at both ends need no relay, unless faults are to be played on them.

    Raises:
      InputError: if the inventory lacks a device or a model of the scenario.
    """
    models = scenario.pool.names
    if not set(models) <= set(inventory.models):
        found = ", ".join(inventory.models)
        expected = f"those of scenario {scenario.name} ({', '.join(models)})"
        raise InputError(f"models: expected {expected}, found {found} in inventory {inventory.name}")
    if scenario.dynamics is not None:
        raise InputError(f"scenario {scenario.name}: expected fixed conditions on real nodes, found [dynamics]")
    faults = inventory.emulation is not None and inventory.emulation.faults
    weak_edge = scenario.edge.link == "weak"

    def placed(spec: NodeSpec, link: str, weak_upper: bool) -> NodeSpec:
        relayed = faults or weak_upper or link == "weak"
        return dataclasses.replace(spec, link=link, uplink=spec.uplink if relayed else "")

    def tier(spec: NodeSpec, node: Node, weak_upper: bool) -> NodeSpec:
        return dataclasses.replace(placed(spec, node.link, weak_upper), cores=node.cores)

    known = {device.name: device for device in inventory.devices}
    missing = [device.name for device in scenario.devices if device.name not in known]
    if missing:
        found = f"none for {', '.join(missing)}"
        raise InputError(f"nodes: expected scenario {scenario.name}'s devices, found {found} in {inventory.name}")
    devices = [
        dataclasses.replace(placed(known[each.name], each.link, weak_edge), speed=each.speed)
        for each in scenario.devices
    ]
    edge = tier(inventory.edge, scenario.edge, scenario.cloud.link == "weak")
    cloud = tier(inventory.cloud, scenario.cloud, False)
    emulation = inventory.emulation
    if emulation is not None:
        cpu_ms = {name: value for name, value in emulation.cpu_ms.items() if name in models}
        emulation = dataclasses.replace(emulation, cpu_ms=cpu_ms)
    waiting = inventory.waiting
    if scenario.traffic is not None:
        waiting = scenario.traffic.waiting
        if not waiting:
            raise InputError("waiting: expected at least 1 place to wait at a real node, found 0 (no limit)")
    nodes = (*devices, edge, cloud)
    return dataclasses.replace(inventory, models=models, nodes=nodes, emulation=emulation, waiting=waiting)


def check_same(scenario: Scenario, inventory: Inventory) -> None:
    """Checks that a fleet that runs already is what a scenario says: choices are numbers, and mean what it says.

    Raises:
      InputError: if its devices, its models or their order are others; or, where they are emulated and thus known, its
        links, speeds or cores.
    """
    names = [device.name for device in scenario.devices]
    compared: list[tuple[str, Sequence[object], Sequence[object]]] = [
        ("devices", list(names), [device.name for device in inventory.devices]),
        ("models", list(scenario.pool.names), list(inventory.models)),
    ]
    if scenario.traffic is not None:
        compared.append(("places to wait at a node", [scenario.traffic.waiting], [inventory.waiting]))
    if inventory.emulation is not None:
        nodes = [*inventory.devices, inventory.edge, inventory.cloud]
        tiers = [scenario.edge, scenario.cloud]
        links = [*(device.link for device in scenario.devices), *(node.link for node in tiers)]
        compared += [
            ("links", links, [node.link for node in nodes]),
            ("speeds", [device.speed for device in scenario.devices], [device.speed for device in inventory.devices]),
            ("cores of edge and cloud", [node.cores for node in tiers], [node.cores for node in nodes[-2:]]),
        ]
    for what, expected, found in compared:
        if expected != found:
            wanted, there = (", ".join(map(str, values)) for values in (expected, found))
            raise InputError(
                f"{what}: expected scenario {scenario.name}'s {wanted}, found {there} in inventory {inventory.name}"
            )


class TestbedEnv:
    """A fleet of N devices as an environment. Use as a context: leaving it ends the nodes that it started.

    Args:
      scenario: what runs. Its calibration isn't used.
      inventory: the fleet. A local one is fitted to the scenario (`fleet_of`) and started here.
      params: the scenario as the simulator's arrays, with the penalty of a broken constraint.
      local: whether to start the nodes here, or they run already, as they are; None: see `starts_here`.
      folder: of a local testbed's logs, certificates and ports; None: a temporary one.
      record: file to which every step is added as one line of JSON; None: none.

    Raises:
      InputError: if the inventory doesn't fit the scenario, or that has traffic.

    Attributes:
      note: what goes into the record with every step.
      steps: how many are in the record, or were taken since the start if there is none.
      testbed: the processes of a local fleet, once started.
      fleet: the running fleet, once started: for orders (background load, links, faults).
    """

    takes_traffic = False  # whether devices make their own requests

    __test__ = False  # not a test, whatever pytest makes of its name

    def __init__(
        self,
        scenario: Scenario,
        inventory: Inventory,
        params: simulator.EnvParams,
        *,
        local: bool | None = None,
        folder: pathlib.Path | None = None,
        record: pathlib.Path | None = None,
    ) -> None:
        if scenario.traffic is not None and not self.takes_traffic:
            raise InputError(
                f"scenario {scenario.name}: expected one without traffic, since devices ask together here, found some"
            )
        self.scenario = scenario
        local = starts_here(inventory) if local is None else local
        self.inventory = fleet_of(scenario, inventory) if local else inventory
        if not local:
            check_same(scenario, inventory)
        self.params = params
        self.note: dict[str, object] = {}
        self.deadline_s = self.inventory.deadline_ms / 1000.0
        self.testbed: Testbed | None = None
        self.fleet: Fleet | None = None
        self.starts_here, self._folder, self._record_path = local, folder, record
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._record: TextIO | None = None
        self._obs = np.zeros(3 * scenario.users + 6, np.int32)
        self.steps = 0

    def start(self) -> None:
        """Starts a local fleet, or connects to a running one.

        Raises:
          InputError: if models, certificates or the record can't be had, or another operator drives the fleet.
          TestbedError: if a node doesn't start.
          RunError: if a running fleet's cloud doesn't answer or doesn't know all nodes.
        """
        try:
            self._open_record()
            if self.starts_here:
                folder = self._folder
                if folder is None:
                    self._temporary = tempfile.TemporaryDirectory(prefix="hl-jax-testbed-")
                    folder = pathlib.Path(self._temporary.name)
                self.testbed = Testbed(self.inventory, folder)
                self.testbed.start()
                self.inventory = self.testbed.inventory
            # Compiled now, so that the first step keeps its deadline.
            users = self.scenario.users
            jax.block_until_ready(_judge(self.params, np.zeros(users, np.int32), np.ones(users, np.float32)))
            self.fleet = connected(self.inventory)
            try:
                self.fleet.wait_until_known(self.deadline_s)
                self.fleet.drive()
            except Occupied as error:
                raise InputError(error.detail) from error
            except (TimeoutError, CallError) as error:
                raise RunError(str(error)) from error
            # An operator before may have left devices asking by themselves, under which nothing is measured.
            if not self.starts_here and (missed := self.fleet.quieten()):
                raise RunError(
                    f"fleet: expected every device to take orders, found none of {', '.join(missed)} that does"
                )
        except BaseException:
            self.close()
            raise

    def reset(self, seed: int = 0) -> np.ndarray:
        """Lets the monitors forget what was before. Returns the observation [3N + 6], int32.

        The seed has nothing to seed: conditions are fixed, and real response times are not drawn.
        """
        time.sleep(self.inventory.monitor_period_ms / 1000.0)
        self._observe(self.deadline_s)
        return self._obs.copy()

    def step(
        self, action: Sequence[int] | np.ndarray
    ) -> tuple[np.ndarray, np.float32, np.bool_, np.bool_, dict[str, Any]]:
        """One joint decision ([N] ints in 0..C-1), carried out. Returns by its deadline and `STATE_S`.

        Returns:
          obs [3N + 6] int32, reward = -cost (ms), terminated, truncated (both False), and info: `response_ms` [N] (a
          lost request's is the deadline), `mean_ms` the same (nobody knows the real mean), `art_ms`, `accuracy` (%, of
          the pool's table), `feasible`, `cost_ms`; and `lost`, `gone` [N] bool (the device itself didn't answer: it
          counts in no mean), `reasons` [N] (empty where not lost),
          `queue_ms`, `compute_ms`, `decide_ms` [N], `stale` (the cloud gave no state, obs is the last one).

        Raises:
          ValueError: if the action isn't one.
          RunError: if another operator has taken the fleet.
        """
        fleet, joint = self._started_fleet(), self._joint(action)
        try:
            outcomes = fleet.step(joint.tolist(), self.deadline_s)
        except Occupied as error:
            raise RunError(error.detail) from error
        stale = not self._observe(STATE_S)
        info = self._info(joint, outcomes) | {"stale": np.bool_(stale)}
        self._write(joint, float(info["cost_ms"]), {"outcomes": [dataclasses.asdict(outcome) for outcome in outcomes]})
        return self._obs.copy(), -info["cost_ms"], np.bool_(False), np.bool_(False), info

    def _started_fleet(self) -> Fleet:
        if self.fleet is None:
            raise RuntimeError("step: expected start before, found the fleet not started")
        return self.fleet

    def _joint(self, action: Sequence[int] | np.ndarray) -> np.ndarray:
        """A joint action as [N] int32.

        Raises:
          ValueError: if it isn't one.
        """
        joint, choices = np.asarray(action), self.scenario.choices
        fine = joint.shape == (self.scenario.users,) and np.issubdtype(joint.dtype, np.integer)
        if not fine or not ((joint >= 0) & (joint < choices)).all():
            expected = f"{self.scenario.users} integers in 0..{choices - 1}"
            raise ValueError(f"action: expected {expected}, found {action!r}")
        return joint.astype(np.int32)

    def profile(self, action: Sequence[int] | np.ndarray, times: int) -> np.ndarray:
        """Measures one joint action again and again. Returns response times [times, N], ms; NaN where lost."""
        rows = []
        for _ in range(times):
            info = self.step(action)[-1]
            rows.append(np.where(info["lost"], np.nan, info["response_ms"]))
        return np.stack(rows)

    def _info(self, joint: np.ndarray, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        response = np.array([outcome.response_ms for outcome in outcomes], np.float32)
        gone = np.array([outcome.gone for outcome in outcomes])
        # Nobody waits at a device that isn't there; where none is, every step is lost.
        there = response if gone.all() else response[~gone]
        art = np.float32(there.mean())
        accuracy, feasible, cost = jax.device_get(_judge(self.params, joint, np.full(len(response), art)))
        return {
            "response_ms": response,
            "mean_ms": response,
            "art_ms": art,
            "accuracy": np.float32(accuracy),
            "feasible": np.bool_(feasible),
            "cost_ms": np.float32(cost),
            "lost": np.array([outcome.lost != "" for outcome in outcomes]),
            "gone": gone,
            "reasons": tuple(outcome.lost for outcome in outcomes),
            "queue_ms": np.array([outcome.queue_ms for outcome in outcomes], np.float32),
            "compute_ms": np.array([outcome.compute_ms for outcome in outcomes], np.float32),
            "decide_ms": np.array([outcome.decide_ms for outcome in outcomes], np.float32),
        }

    def _observe(self, timeout_s: float) -> bool:
        """Reads the state; False where the cloud doesn't give it."""
        assert self.fleet is not None
        try:
            levels = np.array(self.fleet.state(timeout_s).levels, np.int32)
        except CallError:
            return False
        largest = simulator.observation_levels(self.scenario.users) - 1
        if levels.shape != largest.shape or not ((levels >= 0) & (levels <= largest)).all():
            return False  # garbage
        self._obs = levels
        return True

    def _write(self, joint: np.ndarray, cost_ms: float, seen: dict[str, object]) -> None:
        self.steps += 1
        if self._record is None:
            return
        entry = self.note | {
            "step": self.steps - 1,
            "time": round(time.time(), 3),
            "action": joint.tolist(),
            "cost_ms": round(cost_ms, 3),
            **seen,
        }
        self._record.write(json.dumps(entry) + "\n")
        self._record.flush()

    def _open_record(self) -> None:
        if self._record_path is None:
            return
        try:
            self._record = self._record_path.open("a+", encoding="utf-8")
            self.steps = self._mend_record()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"record: expected a file to add to, found {error} at {self._record_path}") from error

    def _mend_record(self) -> int:
        """Number of lines in the record. A line that was cut off, by a kill -9 say, is ended and stays one."""
        assert self._record is not None
        self._record.seek(0)
        content = self._record.read()
        if content and not content.endswith("\n"):
            self._record.write("\n")
            self._record.flush()
        return len(content.splitlines())

    def close(self) -> None:
        """Ends the nodes that were started here."""
        if self.fleet is not None:
            self.fleet.close()
        if self.testbed is not None:
            self.testbed.stop()
        if self._record is not None:
            self._record.close()
        if self._temporary is not None:
            self._temporary.cleanup()
        self.fleet = self.testbed = self._record = self._temporary = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
