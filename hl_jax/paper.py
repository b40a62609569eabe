"""The paper's four experiments, by name: Table IV's links, Table III's models, and times fitted to Table V.

The numbers are those of `data/` (scenarios/expA.toml … expD.toml, pools/mobilenet.toml, calibration/paper.json), where
their sources and status stand; this package opens no file, so that they are stated here too, and a test compares them.
"""

from __future__ import annotations

from hl_jax.objective import constraint_value
from hl_jax.scenario import Device, ModelPool, Node, Scenario, Timing

POOL = ModelPool(
    names=("d0", "d1", "d2", "d3", "d4", "d5", "d6", "d7"),
    accuracy=(89.9, 88.2, 84.9, 74.2, 88.9, 87.0, 83.2, 72.8),
    million_macs=(569, 317, 150, 41, 569, 317, 150, 41),
)
TIMING = Timing(
    local_ms=(458.1402, 282.8756, 166.728, 90.9191, 246.3457, 167.0877, 111.4772, 73.0477),
    edge_ms=360.3346,
    cloud_ms=363.4852,
    edge_share_ms=200.0,
    cloud_share_ms=72.0,
    edge_reference_cores=2,
    cloud_reference_cores=4,
    weak_device_ms=76.5275,
    weak_edge_ms=1.9434,
    weak_edge_offload_ms=34.3324,
    weak_cloud_offload_ms=34.3324,
    busy_cpu_factor=2.0,
    busy_memory_factor=1.25,
)
# Links of the devices S1 to S5 and of the edge; the cloud's is regular.
LINKS = {
    "A": (("regular", "regular", "regular", "regular", "regular"), "regular"),
    "B": (("regular", "weak", "regular", "weak", "regular"), "weak"),
    "C": (("weak", "weak", "weak", "regular", "regular"), "regular"),
    "D": (("weak", "weak", "weak", "weak", "weak"), "weak"),
}


def experiment(name: str, users: int = 5, constraint: str | float = 85, noise: float = 0.03) -> Scenario:
    """One of the paper's experiments.

    Args:
      name: A, B, C or D (Table IV).
      users: the first so many of its five devices.
      constraint: mean accuracy to keep: `Min`, `Max`, or a percentage.
      noise: standard deviation of the log of a device's response time; the paper gives none.

    Raises:
      ValueError: saying what was expected and what was found.
    """
    if name not in LINKS:
        raise ValueError(f"experiment: expected {', '.join(LINKS)}, found {name!r}")
    devices, edge = LINKS[name]
    return Scenario(
        name=name,
        pool=POOL,
        timing=TIMING,
        devices=tuple(Device(f"S{number}", link) for number, link in enumerate(devices, 1)),
        edge=Node(edge, cores=2),
        cloud=Node("regular", cores=4),
        constraint=constraint_value(constraint, POOL),
        noise=noise,
    ).with_users(users)
