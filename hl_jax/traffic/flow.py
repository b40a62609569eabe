"""What becomes of requests in a control period: through links and queues, in the order in which they come.

Nothing flows back (device, its link, edge, the link above, cloud), so the stations are gone through one after another,
each with all of its requests at once. What hasn't reached a station at the period's end is carried over to the next.
Results are small: they go back at no cost, so a link's delay stands on the way there.

Shapes: `N` devices, `M` requests of each, in the order in which they were made; stations 0 (edge) and 1 (cloud).
"""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp

from hl_jax.choices import node_choices
from hl_jax.traffic import links
from hl_jax.traffic.links import Backlog, Rate
from hl_jax.traffic.merging import merged
from hl_jax.traffic.queues import ABSENT, Served, Server, rebased, serve

# Where a request is.
NOWHERE, MADE, IN_LINK, TO_EDGE, IN_UPLINK, TO_CLOUD, OVER = range(7)


@chex.dataclass(frozen=True)
class Requests:
    """Requests under way or over. All [N, M]; times are ms from the period's start."""

    stage: chex.Array  # int32, where it is
    made: chex.Array  # when its device made it
    choice: chex.Array  # int32, the decision that stood then
    service: chex.Array  # ms of computing that it takes where it goes
    at: (
        chex.Array
    )  # when it gets where it goes next, or was over; in a link with a rate, the work (kbit) until it's out
    passed: chex.Array  # when it got to the edge, on its way there or to the cloud
    waited: chex.Array  # ms for a slot
    lost: chex.Array  # bool, refused or given up


@chex.dataclass(frozen=True)
class Network:
    """The way through the fleet, as it is in one control period."""

    near_ms: chex.Array  # [N] delay from a device to the edge
    beyond_ms: chex.Array  # [2] delay on top before a task may queue at the edge, at the cloud
    after_ms: chex.Array  # [N] delay of a result of the device itself
    link: Rate | None  # [N, K] from each device; None: delay is all
    uplink: Rate | None  # [K] from the edge to the cloud, shared by all
    input_kbit: chex.Array  # [] what a request sends
    patience_ms: chex.Array | None  # [] after which a task that hasn't begun is given up; None: each is done


@chex.dataclass(frozen=True)
class Stations:
    """What works, and until when."""

    devices: Server  # leading axis N
    links: Backlog | None  # leading axis N
    uplink: Backlog | None
    edge: Server
    cloud: Server


def _latest(network: Network, made: chex.Array) -> chex.Array | None:
    return None if network.patience_ms is None else made + network.patience_ms


def _ended(requests: Requests, here: chex.Array, arrival: chex.Array, served: Served, after: chex.Array) -> Requests:
    """With those `here` ([N, M] bool) through a node: over, `after` ms later where they were done."""
    return requests.replace(
        stage=jnp.where(here, OVER, requests.stage),
        at=jnp.where(here, jnp.where(served.done, served.end + after, served.end), requests.at),
        waited=jnp.where(here, served.start, 0.0) - jnp.where(here, arrival, -requests.waited),
        lost=jnp.where(here, ~served.done, requests.lost),
    )


def _on_devices(network: Network, stations: Stations, requests: Requests, models: int) -> tuple[Stations, Requests]:
    """Tasks that the devices do themselves."""
    here = (requests.stage == MADE) & (requests.choice < models)
    arrival = jnp.where(here, requests.made, ABSENT)
    if network.patience_ms is None:
        devices, served = jax.vmap(serve)(stations.devices, arrival, requests.service)
    else:
        devices, served = jax.vmap(serve)(stations.devices, arrival, requests.service, _latest(network, arrival))
    after = network.after_ms[:, None]
    return stations.replace(devices=devices), _ended(requests, here, arrival, served, after)


def _in_link(
    rate: Rate, backlog: Backlog, requests: Requests, here: chex.Array, network: Network, until: chex.Array
) -> tuple[Backlog, Requests, chex.Array]:
    """Inputs `here` ([M] bool) enter a link, those in it go on. Who is through ([M] bool) has `at` when it is."""
    entering = requests.stage == MADE
    arrival = jnp.where(here, jnp.where(entering, requests.made, requests.passed), ABSENT)
    backlog, carried = links.carry(rate, backlog, arrival, network.input_kbit, until)
    inside = (requests.stage == IN_LINK) | (requests.stage == IN_UPLINK)
    zero = jnp.float32(0.0)
    out, left = jax.vmap(lambda work: links.through(rate, zero, work, until))(jnp.where(inside, requests.at, 0.0))
    out, left = jnp.where(here, carried.out, out), jnp.where(here, carried.left, left)
    done = (here & carried.let_in | inside) & jnp.isfinite(out)
    refused = here & ~carried.let_in
    at = jnp.where(done, out, jnp.where(here & carried.let_in | inside, left, requests.at))
    requests = requests.replace(
        stage=jnp.where(refused, OVER, requests.stage),
        at=jnp.where(refused, arrival, at),
        lost=requests.lost | refused,
    )
    return backlog, requests, done


def _sent(network: Network, stations: Stations, requests: Requests, until: chex.Array) -> tuple[Stations, Requests]:
    """Inputs that leave their devices."""
    here = requests.stage == MADE
    if network.link is None or stations.links is None:
        done, out = here, requests.made
    else:

        def into(rate: Rate, backlog: Backlog, row: Requests, entering: chex.Array) -> Any:
            return _in_link(rate, backlog, row, entering, network, until)

        # Those in the uplink have left their devices.
        own = requests.replace(stage=jnp.where(requests.stage == IN_UPLINK, TO_CLOUD, requests.stage))
        backlogs, own, done = jax.vmap(into)(network.link, stations.links, own, here)
        stations, out = stations.replace(links=backlogs), own.at
        stage = jnp.where(here & (own.stage != OVER), IN_LINK, jnp.where(here, OVER, requests.stage))
        in_link = stage == IN_LINK
        requests = requests.replace(stage=stage, at=jnp.where(here | in_link, own.at, requests.at), lost=own.lost)
    passed = jnp.where(done, out + network.near_ms[:, None], requests.passed)
    return stations, requests.replace(stage=jnp.where(done, TO_EDGE, requests.stage), passed=passed)


def _in_order(requests: Requests) -> tuple[Requests, chex.Array]:
    """Inputs pass the edge in the order in which their devices sent them, and that of all of them ([N * M] indices)."""
    sent = (requests.stage >= TO_EDGE) & (requests.stage <= TO_CLOUD)
    passed = jax.lax.cummax(jnp.where(sent, requests.passed, ABSENT), axis=1)
    return requests.replace(passed=jnp.where(sent, passed, requests.passed)), merged(passed)


def _at_edge(
    network: Network, stations: Stations, requests: Requests, until: chex.Array, edge: int
) -> tuple[Stations, Requests]:
    """Tasks for the edge; all are in one row ([M]), in the order in which they pass it."""
    arrival = requests.passed + network.beyond_ms[0]
    here = (requests.stage == TO_EDGE) & (requests.choice == edge) & (arrival <= until)
    arrival = jnp.where(here, arrival, ABSENT)
    server, served = serve(stations.edge, arrival, requests.service, _latest(network, requests.made))
    return stations.replace(edge=server), _ended(requests, here, arrival, served, jnp.float32(0.0))


def _at_cloud(
    network: Network, stations: Stations, requests: Requests, until: chex.Array, cloud: int
) -> tuple[Stations, Requests]:
    """Tasks for the cloud, past the edge; all are in one row ([M]), in the order in which they pass it."""
    passing = (requests.stage == TO_EDGE) & (requests.choice == cloud) & (requests.passed <= until)
    if network.uplink is None or stations.uplink is None:
        done, out = passing, requests.passed
    else:
        inside = requests.stage == IN_UPLINK
        above = requests.replace(stage=jnp.where(inside, IN_UPLINK, jnp.where(passing, TO_EDGE, NOWHERE)))
        backlog, above, done = _in_link(network.uplink, stations.uplink, above, passing, network, until)
        stations, out = stations.replace(uplink=backlog), above.at
        stage = jnp.where(passing & (above.stage != OVER), IN_UPLINK, jnp.where(passing, OVER, requests.stage))
        requests = requests.replace(
            stage=stage, at=jnp.where(passing | inside, above.at, requests.at), lost=requests.lost | above.lost
        )
    stage = jnp.where(done, TO_CLOUD, requests.stage)
    at = jnp.where(done, out + network.beyond_ms[1], requests.at)
    going = stage == TO_CLOUD
    # A link keeps the order, also where its delay has just become shorter.
    arrival = jax.lax.cummax(jnp.where(going, at, ABSENT))
    requests = requests.replace(stage=stage, at=jnp.where(going, arrival, at))
    here = going & (arrival <= until)
    arrival = jnp.where(here, arrival, ABSENT)
    server, served = serve(stations.cloud, arrival, requests.service, _latest(network, requests.made))
    return stations.replace(cloud=server), _ended(requests, here, arrival, served, jnp.float32(0.0))


def through(
    network: Network, stations: Stations, requests: Requests, until: chex.Array, models: int
) -> tuple[Stations, Requests]:
    """Lets requests through the fleet until a moment (ms from the period's start; infinite: to their end).

    Args:
      network: as it is in the period.
      stations: as the requests before have left them.
      requests: [N, M], carried ones first. None is made after `until`.
      until: the period's end.
      models: l, local models.

    Returns:
      both afterwards. A request that is `OVER` may be so `at` a later moment: it has its slot already.
    """
    chex.assert_rank([requests.stage, until], [2, 0])
    edge, cloud = node_choices(models)
    stations, requests = _on_devices(network, stations, requests, models)
    stations, requests = _sent(network, stations, requests, until)
    requests, order = _in_order(requests)
    shape = requests.stage.shape
    row = jax.tree.map(lambda field: field.reshape(-1)[order], requests)
    stations, row = _at_edge(network, stations, row, until, edge)
    stations, row = _at_cloud(network, stations, row, until, cloud)
    back = jnp.zeros_like(order).at[order].set(jnp.arange(order.shape[0], dtype=order.dtype), unique_indices=True)
    return stations, jax.tree.map(lambda field: field[back].reshape(shape), row)


def later(stations: Stations, by: chex.Array) -> Stations:
    """Stations at the next period's start, `by` ms after this one's."""
    return stations.replace(**{name: rebased(getattr(stations, name), by) for name in ("devices", "edge", "cloud")})
