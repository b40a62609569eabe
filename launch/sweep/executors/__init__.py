"""Where a sweep's units run: executors by name. Another one is a file beside these, and a line here."""

from __future__ import annotations

from launch.sweep.executors import local, ray_cluster
from launch.sweep.executors.slots import Executor

EXECUTORS: dict[str, Executor] = {
    "local": Executor(local.slots),
    "ray": Executor(ray_cluster.slots, flags=("ray_address",)),
}
