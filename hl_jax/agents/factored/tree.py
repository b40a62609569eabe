"""What `factored` knows of a user's own fleet before it learns: its structure, never a profile's numbers.

Who hangs on whom, which choices exist, which machines are of one kind, how accurate models are and what they compute
(multiply-accumulates and types, which are theirs wherever they run). A time is predicted by its logarithm:

    level[kind, target] + slope[kind, target] * log(MACs) + type[kind, target] + entry[kind, target, model]
    + machine + what a busy monitor adds,

each weight Gaussian a priori around what all kinds have in common. So a report on one device says something of all
devices of its kind, of other models on the same target, and a little of other machines.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from hl_jax.fleets.scenario import PLACES, FleetScenario

# Standard deviations of the logarithm's parts a priori. Over two dozen public system/runtime pairs times follow MACs to
# a power of 0.3 to 0.9, within 5 to 15 %, for each type of model by itself.
LEVEL, KIND, TARGET = 2.0, 1.0, 0.7
SLOPE, COMMON_SLOPE, OWN_SLOPE = 0.65, 0.1, 0.2
COMMON_TYPE, OWN_TYPE = 0.8, 0.6
ENTRY, MACHINE = 0.1, 0.12
BUSY_CPU, BUSY_MEMORY = (math.log(1.5), 0.5), (math.log(1.2), 0.3)  # mean and deviation
FIRST_MS = 30.0  # of a time before any is known


@dataclasses.dataclass(frozen=True)
class Tree:
    """A fleet's structure: N devices, C choices, L entries (kind x target x model); machines: devices, then nodes."""

    where: tuple[int, ...]  # [C] index in PLACES
    mask: tuple[tuple[bool, ...], ...]  # [N][C]
    entry: tuple[tuple[int, ...], ...]  # [N][C] which of L; 0 where there is no such choice
    group: tuple[int, ...]  # [L] which of G, kind x target
    kind: tuple[int, ...]  # [G]
    kinds: int
    macs: tuple[float, ...]  # [L] log of MACs beside the most
    type: tuple[int, ...]  # [L] of the model
    types: int
    edge: tuple[int, ...]  # [N] the edge that a device hangs on; E: none
    cloud: tuple[int, ...]  # [N] its cloud; K: none
    edges: int  # E
    clouds: int  # K
    accuracy: tuple[float, ...]  # [C] %
    deadline_ms: tuple[float, ...]  # [N] inf: none
    weights: tuple[float, float]  # what a ms and what a mJ cost
    radio_ms: tuple[float, ...]  # [N] of what an offloaded task takes, that a device sends or receives itself
    radio_mj: tuple[float, ...]  # [N]
    wait_w: float
    shapes: tuple[float, ...] = ()  # [L] log of a model's time beside others' on other machines; (): not told

    @property
    def users(self) -> int:
        return len(self.mask)

    @property
    def choices(self) -> int:
        return len(self.where)

    @property
    def groups(self) -> int:
        return len(self.kind)

    @property
    def entries(self) -> int:
        return len(self.group)

    @property
    def machines(self) -> int:
        return self.users + self.edges + self.clouds


def elsewhere(fleet: FleetScenario) -> np.ndarray:
    """How models compare on machines of other kinds than the fleet's own: mean log of times, less a target's mean. [l].

    Raises:
      ValueError: if no such machine has a target on which all models were measured.
    """
    mine = {one.kind for one in (*fleet.devices, *fleet.edges, *fleet.clouds)}
    found = []
    for profile in fleet.profiles:
        for target in profile.targets:
            times = {entry.model: entry.p50_ms for entry in target.entries}
            if profile.kind not in mine and all(name in times for name in fleet.pool.names):
                logs = np.log([times[name] for name in fleet.pool.names])
                found.append(logs - logs.mean())
    if not found:
        expected = "profiles of other machines than the fleet's own, with all of the pool's models"
        raise ValueError(f"prior: expected {expected}, found none in scenario {fleet.name}")
    shape: np.ndarray = np.mean(found, axis=0)
    return shape


def structure(fleet: FleetScenario, radio: dict[str, Any], prior: str = "none") -> Tree:
    """A fleet's structure; `radio` is what sending takes and draws (`fleets.params.ways`), which the goal says.

    With the prior `profiles` also how models compare on other machines (`elsewhere`), whose scale is still learned.

    Raises:
      ValueError: if the prior needs profiles that aren't there.
    """
    shape = elsewhere(fleet) if prior == "profiles" else None
    groups: dict[tuple[str, str], int] = {}
    entries: dict[tuple[str, str, int], int] = {}
    table = np.zeros((fleet.users, fleet.choices), int)
    for index, (device, mask) in enumerate(zip(fleet.devices, fleet.mask, strict=True)):
        places = fleet.places(device)
        for choice in np.flatnonzero(mask):
            option = fleet.options[choice]
            machine = places[PLACES.index(option.place)]
            assert machine is not None  # the mask says so
            groups.setdefault((machine.kind, option.target), len(groups))
            key = (machine.kind, option.target, option.model)
            table[index, choice] = entries.setdefault(key, len(entries))
    kinds = {name: number for number, name in enumerate(dict.fromkeys(kind for kind, _ in groups))}
    types = {name: number for number, name in enumerate(dict.fromkeys(fleet.types))}
    most = max(fleet.pool.million_macs)
    # A model without any MACs says nothing by them.
    macs = [math.log(max(one, 1e-3 * most) / most) if most else 0.0 for one in fleet.pool.million_macs]
    edge_names, cloud_names = [one.name for one in fleet.edges], [one.name for one in fleet.clouds]
    edges = [fleet.edge_of(one) for one in fleet.devices]
    clouds = [fleet.cloud_of(one) for one in fleet.devices]
    return Tree(
        where=tuple(PLACES.index(option.place) for option in fleet.options),
        mask=fleet.mask,
        entry=tuple(map(tuple, table.tolist())),
        group=tuple(groups[kind, target] for kind, target, _ in entries),
        kind=tuple(kinds[kind] for kind, _ in groups),
        kinds=len(kinds),
        macs=tuple(macs[model] for *_, model in entries),
        type=tuple(types[fleet.types[model]] if fleet.types else 0 for *_, model in entries),
        types=max(len(types), 1),
        edge=tuple(len(edge_names) if one is None else edge_names.index(one.name) for one in edges),
        cloud=tuple(len(cloud_names) if one is None else cloud_names.index(one.name) for one in clouds),
        edges=len(edge_names),
        clouds=len(cloud_names),
        accuracy=fleet.choice_accuracy(),
        deadline_ms=tuple(math.inf if one.deadline_ms is None else one.deadline_ms for one in fleet.devices),
        weights=fleet.goal.weights,
        radio_ms=tuple(radio["radio_ms"].tolist()),
        radio_mj=tuple(radio["radio_mj"].tolist()),
        wait_w=fleet.radio.wait_mw / 1000.0,
        shapes=() if shape is None else tuple(float(shape[model]) for *_, model in entries),
    )


@dataclasses.dataclass(frozen=True)
class Features:
    """Weights' places and priors. D weights."""

    entries: np.ndarray  # [L, D] what each entry's logarithm is of the weights, its machine's aside
    machine: np.ndarray  # [N, C] which weight is the machine's, of each choice
    busy: tuple[int, int]  # which weights are a busy CPU's and a busy memory's
    mean: np.ndarray  # [D]
    deviation: np.ndarray  # [D]


def features(tree: Tree) -> Features:
    """The system model's weights."""
    columns: list[np.ndarray] = []
    mean: list[float] = []
    deviation: list[float] = []

    def add(column: np.ndarray, center: float, spread: float) -> None:
        columns.append(column)
        mean.append(center)
        deviation.append(spread)

    group, macs, kind_of = np.array(tree.group), np.array(tree.macs), np.array(tree.kind)
    kind, of_type = kind_of[group], np.array(tree.type)
    ones = np.ones(tree.entries)
    add(ones, math.log(FIRST_MS), LEVEL)
    told = bool(tree.shapes)  # then nothing else is needed that says how models compare
    add(macs, 0.0 if told else SLOPE, COMMON_SLOPE)
    for one in range(tree.kinds):
        add((kind == one) * ones, 0.0, KIND)
    for one in range(1, tree.types):
        add((of_type == one) * ones, 0.0, COMMON_TYPE)
    for one in range(tree.groups):
        here = (group == one) * ones
        add(here, 0.0, TARGET)
        add(here * macs, 0.0, OWN_SLOPE)
        for each in range(1, tree.types):
            add(here * (of_type == each), 0.0, OWN_TYPE)
    for one in range(tree.entries):
        add((np.arange(tree.entries) == one) * ones, tree.shapes[one] if told else 0.0, ENTRY)
    first = len(columns)
    for _ in range(tree.machines):
        add(np.zeros(tree.entries), 0.0, MACHINE)
    busy = len(columns), len(columns) + 1
    for center, spread in (BUSY_CPU, BUSY_MEMORY):
        add(np.zeros(tree.entries), center, spread)
    users = tree.users
    # A device without an edge or a cloud has no choice there; any weight will do.
    nodes = np.stack(
        [
            np.arange(users),
            users + np.minimum(tree.edge, max(tree.edges - 1, 0)),
            np.minimum(users + tree.edges + np.array(tree.cloud), tree.machines - 1),
        ],
        axis=1,
    )
    return Features(
        entries=np.stack(columns, axis=1).astype(np.float32),
        machine=(first + nodes[:, list(tree.where)]).astype(np.int32),
        busy=busy,
        mean=np.array(mean, np.float32),
        deviation=np.array(deviation, np.float32),
    )
