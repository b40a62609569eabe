"""The fleet under traffic once more, as processes of SimPy: one for each request, which waits, is served, and leaves.

Written from the rules, not from `hl_jax.traffic`: links deliver in order, nodes serve first come, first served, a task
that finds `waiting` others waiting is refused, and one whose turn comes after its patience is given up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Sequence
from typing import Any

import simpy

LOCAL, EDGE, CLOUD = "local", "edge", "cloud"


@dataclasses.dataclass(frozen=True)
class Ask:
    """One request: who makes it and when, where it goes, and what it takes there (ms)."""

    device: int
    made: float
    where: str
    service: float


@dataclasses.dataclass(frozen=True)
class Fleet:
    """What stands between requests and answers. Times are ms; rates are pieces (since, kbit per ms), or None."""

    near: Sequence[float]
    to_edge: float
    to_cloud: float
    after: Sequence[float]
    slots: tuple[int, int, int]
    waiting: int  # 0: no limit
    patience: float | None
    kbit: float
    links: Sequence[list[tuple[float, float]] | None]
    uplink: list[tuple[float, float]] | None
    cycle: float  # after which rates repeat


class _Node:
    """Slots with a queue."""

    def __init__(self, env: simpy.Environment, slots: int, fleet: Fleet) -> None:
        self.env, self.fleet = env, fleet
        self.slots = simpy.Resource(env, slots)

    def serve(self, ask: Ask) -> Generator[Any, Any, bool]:
        """Whether the task was done."""
        waits = len(self.slots.queue)
        if self.fleet.waiting and waits >= self.fleet.waiting:
            return False
        with self.slots.request() as turn:
            yield turn
            patience = self.fleet.patience
            if patience is not None and self.env.now > ask.made + patience:
                return False
            yield self.env.timeout(ask.service)
        return True


class _Link:
    """A link with a rate that carries one input after the other."""

    def __init__(self, env: simpy.Environment, pieces: list[tuple[float, float]], fleet: Fleet) -> None:
        self.env, self.pieces, self.fleet = env, pieces, fleet
        self.free = simpy.Resource(env, 1)

    def _rate(self) -> tuple[float, float]:
        """The rate now, and for how long."""
        turn = self.env.now % self.fleet.cycle
        start = self.env.now - turn
        current = max(index for index, (since, _) in enumerate(self.pieces) if since <= turn + 1e-9)
        ends = self.pieces[current + 1][0] if current + 1 < len(self.pieces) else self.fleet.cycle
        return self.pieces[current][1], start + ends - self.env.now

    def carry(self) -> Generator[Any, Any, bool]:
        if self.fleet.waiting and len(self.free.queue) >= self.fleet.waiting:
            return False
        with self.free.request() as turn:
            yield turn
            left = self.fleet.kbit
            while left > 1e-9:
                rate, lasts = self._rate()
                takes = min(left / rate if rate > 0.0 else lasts, lasts)
                yield self.env.timeout(max(takes, 1e-9))
                left -= rate * takes
        return True


def run(fleet: Fleet, asks: Sequence[Ask]) -> list[tuple[float, bool]]:
    """When each request was over (ms), and whether it got its result."""
    env = simpy.Environment()
    devices = [_Node(env, fleet.slots[0], fleet) for _ in fleet.near]
    edge, cloud = (_Node(env, slots, fleet) for slots in fleet.slots[1:])
    links = [None if pieces is None else _Link(env, pieces, fleet) for pieces in fleet.links]
    uplink = None if fleet.uplink is None else _Link(env, fleet.uplink, fleet)
    over: dict[int, tuple[float, bool]] = {}

    def request(number: int, ask: Ask) -> Generator[Any, Any, None]:
        yield env.timeout(ask.made)
        link = links[ask.device]
        if ask.where == LOCAL:
            done = yield from devices[ask.device].serve(ask)
            if done:
                yield env.timeout(fleet.after[ask.device])
        else:
            done = True if link is None else (yield from link.carry())
            if done:
                yield env.timeout(fleet.near[ask.device])
            if done and ask.where == EDGE:
                yield env.timeout(fleet.to_edge)
                done = yield from edge.serve(ask)
            elif done:
                done = True if uplink is None else (yield from uplink.carry())
                if done:
                    yield env.timeout(fleet.to_cloud)
                    done = yield from cloud.serve(ask)
        over[number] = (env.now, done)

    for number, ask in enumerate(asks):
        env.process(request(number, ask))
    env.run()
    return [over[number] for number in range(len(asks))]
