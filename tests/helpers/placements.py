"""Random problems of placing tasks in a tree of nodes, made as real ones are: in NumPy, seeded."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from hl_jax.placement import CLOUD, DEVICE, EDGE, Placement

ACCURACY = np.array([89.9, 88.2, 84.9, 74.2, 88.9, 87.0, 83.2, 72.8])
WORK = np.array([459.0, 281.0, 162.5, 85.3, 247.0, 168.8, 112.4, 73.5])  # ms of the eight models, d4 to d7 int8
FORMS = ("linear", "steps", "quadratic", "queue")


@dataclasses.dataclass(frozen=True)
class Size:
    """How large a problem is, and what it is like."""

    users: int
    edges: int
    clouds: int
    models: int = 8
    targets: tuple[int, int, int] = (3, 2, 2)  # on the device, at the edge, in the cloud
    masked: float = 0.2  # of the choices
    limited: float = 0.2  # of the choices, by how many tasks may be at the node
    energy: bool = False

    @property
    def choices(self) -> int:
        """C."""
        return self.models * sum(self.targets)


def occupancy(form: str, users: int, cores: int) -> np.ndarray:
    """By number of tasks, 0..N: as the simulator's."""
    tasks = np.arange(users + 1)
    further = np.maximum(tasks - 1, 0) / cores
    return {
        "linear": 1.0 + further,
        "steps": np.maximum(np.ceil(tasks / cores), 1.0),
        "quadratic": 1.0 + further**2,
        "queue": np.maximum(np.cumsum(np.ceil(tasks / cores)) / np.maximum(tasks, 1), 1.0),
    }[form]


def _times(rng: np.random.Generator, kinds: int, targets: int, models: int, low: float, high: float) -> np.ndarray:
    """By kind of machine, target and model, ms: targets differ by 10 and more, int8 is faster or slower."""
    speed = np.exp(rng.uniform(np.log(low), np.log(high), (kinds, targets, 1)))
    int8 = np.exp(rng.uniform(np.log(0.1), np.log(1.7), (kinds, targets, 1)))
    work = np.resize(WORK, models) * np.where(np.resize(np.arange(8) >= 4, models), int8, 1.0)
    return speed * work * rng.lognormal(0.0, 0.1, (kinds, targets, models))


def draw(rng: np.random.Generator, size: Size, constraint: float | None = None) -> dict[str, Any]:
    """A problem as NumPy arrays. Devices are of a few kinds, each with a link of its own."""
    users, models = size.users, size.models
    kinds = int(rng.integers(1, 5))
    kind = rng.integers(0, kinds, users)
    link = rng.uniform(0.0, 60.0, users) * rng.integers(0, 2, users)
    where = np.repeat([DEVICE, EDGE, CLOUD], np.array(size.targets) * models)
    node_times = [
        _times(rng, max(nodes, 1), t, models, 0.05, 0.8)
        for nodes, t in zip((size.edges, size.clouds), size.targets[1:], strict=True)
    ]
    edge = rng.integers(0, size.edges, users) if size.edges else np.zeros(users, np.int64)
    parent = rng.integers(0, size.clouds, max(size.edges, 1)) if size.clouds else np.zeros(max(size.edges, 1), np.int64)
    cloud = parent[edge]
    local = _times(rng, kinds, size.targets[0], models, 0.2, 4.0)[kind].reshape(users, -1)
    share = np.concatenate(
        [local, node_times[0][edge].reshape(users, -1), 0.6 * node_times[1][cloud].reshape(users, -1)], axis=1
    )
    away = np.concatenate(
        [
            np.zeros(size.targets[0] * models),
            np.full(size.targets[1] * models, 12.0),
            np.full(size.targets[2] * models, 70.0),
        ]
    )
    base = np.where(where[None, :] == DEVICE, 0.0, away[None, :] + link[:, None])
    if size.energy:
        # mJ: computing draws watts that differ by target, waiting for an answer little, the radio in between.
        watts = rng.uniform(1.0, 30.0, (kinds, size.targets[0], 1)) * np.ones((1, 1, models))
        idle, radio = rng.uniform(0.3, 3.0, users), rng.uniform(0.5, 4.0, users)
        share = np.where(where[None, :] == DEVICE, 1.0, idle[:, None]) * share
        share[:, : local.shape[1]] *= watts[kind].reshape(users, -1)
        base = base * radio[:, None]
    # What a device has no node for hangs on none.
    edge, cloud = (edge, cloud) if size.edges else (np.full(users, 0), cloud)
    if size.edges:
        edge = np.where(rng.random(users) < 0.1, size.edges, edge)
    if size.clouds:
        cloud = np.where(rng.random(users) < 0.05, size.clouds, cloud)
    base = np.where(rng.random(base.shape) < size.masked, np.inf, base)
    limits = rng.integers(1, max(3, users // 2) + 1, base.shape)
    most = np.where(rng.random(base.shape) < size.limited, limits, users)
    sharing = [
        np.stack([occupancy(str(rng.choice(FORMS)), users, int(rng.integers(1, 5))) for _ in range(nodes)])
        if nodes
        else np.ones((0, users + 1))
        for nodes in (size.edges, size.clouds)
    ]
    accuracy = np.tile(np.resize(ACCURACY, models), sum(size.targets))[None, :] - rng.integers(0, 3, (users, 1)) * 0.37
    possible = np.isfinite(base) & (most >= 1)
    possible &= (where[None, :] != EDGE) | (edge < size.edges)[:, None]
    possible &= (where[None, :] != CLOUD) | (cloud < size.clouds)[:, None]
    highest = np.where(possible, accuracy, 0.0).max(axis=1).mean()
    least = np.where(possible, accuracy, 100.0).min(axis=1).mean()
    if constraint is None:
        kind_of = rng.random()
        asked = 0.0 if kind_of < 0.15 else highest if kind_of > 0.9 else rng.uniform(least, highest)
    else:
        asked = constraint
    return {
        "base": base.astype(np.float32),
        "share": share.astype(np.float32),
        "most": most.astype(np.int32),
        "where": where.astype(np.int32),
        "edge": edge.astype(np.int32),
        "cloud": cloud.astype(np.int32),
        "edges": sharing[0].astype(np.float32),
        "clouds": sharing[1].astype(np.float32),
        "accuracy": accuracy.astype(np.float32),
        "constraint": np.float32(asked),
    }


def plain(arrays: dict[str, Any]) -> Placement:
    """The problem as NumPy's arrays."""
    return Placement(**arrays)


def on_device(arrays: dict[str, Any]) -> Placement:
    """The problem as JAX's arrays."""
    return Placement(**{name: jnp.asarray(array) for name, array in arrays.items()})
