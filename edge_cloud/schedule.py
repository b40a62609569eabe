"""When a device makes requests of its own: an endless series of times, as `hl_jax.arrivals` has them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import grpc
import numpy as np

from edge_cloud import messages_pb2 as pb
from edge_cloud.rpc import Refused

KINDS = ("", "periodic", "poisson", "gamma", "trace")
LEAST_MS, LONGEST_MS = 1.0, 3.6e6  # between two requests, on average
MOST_STAMPS = 16_000


def check(traffic: pb.Traffic) -> None:
    """Passes traffic that can be made.

    Raises:
      Refused: if it can't.
    """

    def require(fine: bool, what: str, expected: str, found: object) -> None:
        if not fine:
            text = f"traffic.{what}: expected {expected}, found {str(found)[:80]}"
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, text)

    require(traffic.kind in KINDS, "kind", ", ".join(KINDS[1:]), repr(traffic.kind))
    require(0.0 <= traffic.patience_ms <= LONGEST_MS, "patience_ms", f"0 to {LONGEST_MS:g}", traffic.patience_ms)
    if traffic.kind == "trace":
        stamps = list(traffic.stamps_ms)
        require(1 <= len(stamps) <= MOST_STAMPS, "stamps_ms", f"1 to {MOST_STAMPS} of them", len(stamps))
        ascending = all(0.0 <= one <= other for one, other in itertools.pairwise(stamps))
        require(ascending and stamps[0] >= 0.0, "stamps_ms", "times ascending from 0", stamps)
        fine = math.isfinite(traffic.length_ms) and traffic.length_ms >= max(stamps[-1], len(stamps) * LEAST_MS)
        require(fine, "length_ms", "at least the last of the stamps, and 1 for each", traffic.length_ms)
    elif traffic.kind:
        interval = f"{LEAST_MS:g} to {LONGEST_MS:g}"
        require(LEAST_MS <= traffic.interval_ms <= LONGEST_MS, "interval_ms", interval, traffic.interval_ms)
        require(0.0 <= traffic.jitter_ms <= traffic.interval_ms, "jitter_ms", "0 to the interval", traffic.jitter_ms)
        require(0.0 <= traffic.phase_ms <= LONGEST_MS, "phase_ms", f"0 to {LONGEST_MS:g}", traffic.phase_ms)
        if traffic.kind == "gamma":
            require(0.01 <= traffic.burstiness <= 100.0, "burstiness", "0.01 to 100", traffic.burstiness)


def times_ms(traffic: pb.Traffic) -> Iterator[float]:
    """Times since the traffic began, ascending."""
    random = np.random.default_rng(traffic.seed)
    if traffic.kind == "trace":
        turn = 0
        while True:
            yield from (turn * traffic.length_ms + stamp for stamp in traffic.stamps_ms)
            turn += 1
    nominal, index = 0.0, 0
    while traffic.kind:
        if traffic.kind == "periodic":
            yield traffic.phase_ms + index * traffic.interval_ms + traffic.jitter_ms * random.random()
        else:
            power = traffic.burstiness**-2 if traffic.kind == "gamma" else 1.0
            gap = traffic.interval_ms * random.gamma(power) / power
            # It is found in the middle of a gap.
            nominal += gap * (random.random() if index == 0 else 1.0)
            yield nominal
        index += 1
