"""Mean waits against queueing theory: Erlang C, Pollaczek and Khinchine, and a queue that never waits."""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hl_jax
from hl_jax.arrivals import Arrivals, Traffic
from hl_jax.traffic.environment import TrafficOrchestration
from hl_jax.traffic.params import make_params
from hl_jax.traffic.queues import idle, rebased, serve

SERVICE = 1.0
REQUESTS, CHUNK = 10**6, 10**4  # requests of a replication, and of one piece of it


def erlang_c_wait(load: float, servers: int) -> float:
    """Mean wait of M/M/c, in service times, where each server is busy for the part `load` of the time."""
    offered = load * servers
    last = offered**servers / math.factorial(servers) / (1.0 - load)
    waits = last / (sum(offered**k / math.factorial(k) for k in range(servers)) + last)
    return waits * SERVICE / (servers * (1.0 - load))


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def mean_waits(keys: jax.Array, load: float, servers: int, arrivals: str, services: str) -> jax.Array:
    """Mean wait of one replication for each key."""

    def draw(key: jax.Array, law: str, mean: float) -> jax.Array:
        return mean * (jnp.ones(CHUNK) if law == "D" else jax.random.exponential(key, (CHUNK,)))

    def chunk(carry, _):
        server, key = carry
        key, arrival_key, service_key = jax.random.split(key, 3)
        arrival = jnp.cumsum(draw(arrival_key, arrivals, SERVICE / (load * servers)))
        server, served = serve(server, arrival, draw(service_key, services, SERVICE))
        return (rebased(server, arrival[-1]), key), jnp.mean(served.start - arrival)

    def replication(key):
        return jnp.mean(jax.lax.scan(chunk, (idle(servers, 0), key), length=REQUESTS // CHUNK)[1])

    return jax.vmap(replication)(keys)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8, 0.9, 0.95])
@pytest.mark.parametrize(
    ("arrivals", "services", "servers"), [("M", "M", 1), ("M", "D", 1), ("M", "M", 2), ("M", "M", 4), ("D", "D", 1)]
)
def test_mean_wait_is_theorys(arrivals, services, servers, load):
    # One replication's mean is 4 % off at a load of 0.95, whatever simulates it: hence many.
    replications = 1 if arrivals == "D" else {0.3: 2, 0.6: 4, 0.8: 12, 0.9: 40, 0.95: 160}[load]
    found = np.asarray(mean_waits(jax.random.split(jax.random.key(7), replications), load, servers, arrivals, services))
    expected = 0.0 if arrivals == "D" else erlang_c_wait(load, servers) * (0.5 if services == "D" else 1.0)
    assert np.mean(found) == pytest.approx(expected, rel=0.01, abs=1e-3)


def test_a_device_of_its_own_is_a_queue_of_theory():
    """Through the whole environment: M/D/1 on a device that computes everything itself."""
    interval = 600.0
    scenario = dataclasses.replace(
        hl_jax.experiment("A", users=1),
        noise=0.0,
        traffic=Traffic(arrivals=(Arrivals(interval_ms=interval),), waiting=0),
    )
    params, env = make_params(scenario), TrafficOrchestration()
    action = jnp.zeros(1, jnp.int32)

    def one(key):
        reset_key, run_key = jax.random.split(key)
        _, state = env.reset(reset_key, params)

        def step(carry, _):
            key, step_key = jax.random.split(carry[0])
            _, state, _, _, _, info = env.step(step_key, carry[1], action, params)
            return (key, state), (info["count"][0], info["waiting_ms"][0], info["computing_ms"][0], info["untold"])

        return jax.lax.scan(step, (run_key, state), length=500)[1]

    count, wait, computing, untold = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), 128))
    assert int(jnp.sum(untold)) == 0
    found = float(jnp.sum(count * wait) / jnp.sum(count))
    service = float(params.fleet.local_ms[0, 0])
    assert np.allclose(np.asarray(computing)[np.asarray(count) > 0], service, atol=1e-2)
    load = service / interval
    assert found == pytest.approx(service * load / (2.0 * (1.0 - load)), rel=0.02)
