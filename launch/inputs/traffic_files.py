"""Reads a scenario file's traffic: how requests come, links with a rate, and the traces that it names.

A trace of requests is a text file: a time stamp (seconds) on each line, or below a header `time_s`, `time_s,device` or
`count` (requests in each second). A trace of a link is `since_s,mbps`. Each error is one line that says where.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hl_jax.arrivals import KINDS, MOST_STAMPS, Arrivals, Bandwidth, Traffic
from hl_jax.checks import shown
from launch.host.errors import InputError

TOGETHER = "together"  # all devices at one instant, once a step: no traffic
OF_ARRIVALS = ("kind", "interval_ms", "jitter_ms", "phase_ms", "burstiness", "trace", "scale")
OF_LINKS = ("mbps", "bandwidth")
OF_UPLINK = ("uplink_mbps", "uplink_bandwidth")
OF_TRAFFIC = ("period_ms", "deadline_ms", "late", "waiting", "objective", "lost_ms", "input_kb")
LONGEST_FILE = 2**30  # bytes
LARGEST = 1e11  # of a trace: seconds, a rate or a count


def _lines(path: pathlib.Path, what: str) -> list[str]:
    """A text file's lines, comments and empty ones included."""
    try:
        if path.stat().st_size > LONGEST_FILE:
            raise InputError(f"{what}: expected at most {LONGEST_FILE} bytes, found {path.stat().st_size} in {path}")
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{what}: expected UTF-8 text, found byte {error.start} that is not, in {path}") from error
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        found = getattr(error, "strerror", None) or error
        raise InputError(f"{what}: expected a readable file, found {found} at {str(path)!r}") from error


def _number(text: str, what: str, path: pathlib.Path, line: int) -> float:
    """A number that isn't negative, and no larger than can be meant."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    # Python reads 1_000 and other digits than ASCII's as numbers; whoever wrote them meant something else.
    if not (0.0 <= value <= LARGEST and text.isascii() and "_" not in text):
        expected = f"a number from 0 to {LARGEST:g}"
        raise InputError(f"{what}: expected {expected}, found {shown(text)} in {path}, line {line}")
    return value


@dataclasses.dataclass(frozen=True)
class _Table:
    """A trace file's rows, by its header."""

    header: tuple[str, ...]
    rows: list[tuple[int, list[str]]]  # with the line that each stands on


def _table(path: pathlib.Path, what: str, headers: Sequence[tuple[str, ...]], default: tuple[str, ...]) -> _Table:
    rows = [
        (number, [cell.strip() for cell in line.split(",")])
        for number, line in enumerate(_lines(path, what), 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not rows:
        raise InputError(f"{what}: expected at least one row, found none in {path}")
    header, top = default, rows[0][0]
    if any(cell.isidentifier() for cell in rows[0][1]):
        header = tuple(rows[0][1])
        rows = rows[1:]
    if header not in headers:
        expected = " or ".join(",".join(one) for one in headers)
        raise InputError(
            f"{what}: expected the header {expected}, found {shown(','.join(header))} in {path}, line {top}"
        )
    for number, cells in rows:
        if len(cells) != len(header):
            expected = f"{len(header)} column{'s' if len(header) > 1 else ''} ({','.join(header)})"
            raise InputError(f"{what}: expected {expected}, found {len(cells)} in {path}, line {number}")
    if not 1 <= len(rows) <= MOST_STAMPS:
        raise InputError(f"{what}: expected 1 to {MOST_STAMPS} rows, found {len(rows)} in {path}")
    return _Table(header, rows)


def _from_counts(table: _Table, path: pathlib.Path, scale: float) -> tuple[list[float], float]:
    """Stamps (s) of so many requests in each second, evenly spread, and how long it all lasts (s)."""
    stamps, total = [], 0.0
    for second, (line, (text,)) in enumerate(table.rows):
        count = scale * _number(text, "count", path, line)
        if total + count > MOST_STAMPS:
            raise InputError(f"count: expected at most {MOST_STAMPS} requests, found more in {path}, line {line}")
        # Request k is made when k + 1/2 of them are due, which is exact for counts that aren't whole after scaling.
        first, last = math.ceil(total - 0.5), math.ceil(total + count - 0.5)
        stamps += [second + (k + 0.5 - total) / count for k in range(first, last)]
        total += count
    return stamps, float(len(table.rows))


def request_trace(path: pathlib.Path, scale: float, period_ms: float, devices: Sequence[str]) -> dict[str, Arrivals]:
    """The requests that a trace file holds, of each device it names; of every device (``""``) if it names none.

    Time starts at the first stamp's control period, whatever clock the stamps are of.

    Args:
      path: the file.
      scale: so many times as many requests in the same time (counts), or the same in 1/scale of the time (stamps).
      period_ms: the trace starts again after a whole number of these.
      devices: whom it may name.

    Raises:
      InputError: naming the line that can't be used.
    """
    table = _table(path, "trace", [("time_s",), ("time_s", "device"), ("count",)], ("time_s",))
    if table.header == ("count",):
        stamps, length = _from_counts(table, path, scale)
        by_device = {"": [1000.0 * stamp for stamp in stamps]}
        if not stamps:
            raise InputError(f"count: expected at least one request, found none in {path}")
        length *= 1000.0
    else:
        times, before = [], 0.0
        for line, (text, *_) in table.rows:
            stamp = _number(text, "time_s", path, line)
            if stamp < before:
                raise InputError(f"time_s: expected at least {before:g}, found {text} in {path}, line {line}")
            times.append(stamp)
            before = stamp
        origin = times[0] if times[0] * 1000.0 >= period_ms else 0.0
        moved = [1000.0 * (stamp - origin) / scale for stamp in times]
        by_device = {}
        for (line, cells), stamp in zip(table.rows, moved, strict=True):
            name = cells[1] if len(cells) > 1 else ""
            if name and name not in devices:
                raise InputError(
                    f"device: expected one of {', '.join(devices)}, found {shown(name)} in {path}, line {line}"
                )
            by_device.setdefault(name, []).append(stamp)
        length = math.nextafter(moved[-1], math.inf)
    length = period_ms * max(1, math.ceil(length / period_ms))
    try:
        return {
            name: Arrivals(
                kind="trace", interval_ms=max(length / len(found), 1.0), stamps_ms=tuple(found), length_ms=length
            )
            for name, found in by_device.items()
        }
    except ValueError as error:
        raise InputError(f"trace: {error} in {path}") from error


def link_trace(path: pathlib.Path, period_ms: float) -> Bandwidth:
    """What a link carries, from a file `since_s,mbps`; it starts again after a whole number of control periods.

    Raises:
      InputError: naming the line that can't be used.
    """
    table = _table(path, "bandwidth", [("since_s", "mbps")], ("since_s", "mbps"))
    since, rates = [], []
    for line, (moment, rate) in table.rows:
        since.append(1000.0 * _number(moment, "since_s", path, line))
        rates.append(_number(rate, "mbps", path, line))
        if len(since) > 1 and since[-1] <= since[-2]:
            expected = f"more than {since[-2] / 1000.0:g}"
            raise InputError(f"since_s: expected {expected}, found {moment} in {path}, line {line}")
    if since[0] != 0.0:
        raise InputError(f"since_s: expected 0 first, found {table.rows[0][1][0]} in {path}, line {table.rows[0][0]}")
    # The last rate lasts as long as the one before.
    last = since[-1] - since[-2] if len(since) > 1 else period_ms
    length = period_ms * max(1, math.ceil((since[-1] + last) / period_ms - 1e-9))
    try:
        return Bandwidth(mbps=tuple(rates), since_ms=tuple(since), length_ms=length)
    except ValueError as error:
        raise InputError(f"bandwidth: {error} in {path}") from error


Beside = Callable[[object, str], pathlib.Path]  # the file that a value names, relative to the scenario's


def _link(values: Mapping[str, object], prefix: str, period_ms: float, beside: Beside, where: str) -> Bandwidth | None:
    """A link's rate: `mbps`, a trace's file `bandwidth`, or none."""
    constant, trace = values.get(f"{prefix}mbps"), values.get(f"{prefix}bandwidth")
    if constant is not None and trace is not None:
        raise InputError(f"{where}: expected {prefix}mbps or {prefix}bandwidth, found both")
    if trace is not None:
        return link_trace(beside(trace, f"{prefix}bandwidth"), period_ms)
    if constant is None:
        return None
    try:
        return Bandwidth(mbps=(constant,))  # type: ignore[arg-type]
    except ValueError as error:
        raise InputError(f"{where}: {prefix}{error}") from error


def _arrivals(
    name: str, values: Mapping[str, object], period_ms: float, beside: Beside, devices: Sequence[str], where: str
) -> Arrivals:
    """One device's requests."""
    given = {key: values[key] for key in OF_ARRIVALS if key in values}
    if given.get("kind") == "trace":
        extra = sorted(given.keys() - {"kind", "trace", "scale"})
        if extra or "trace" not in given:
            expected = "trace, a file, and perhaps scale"
            raise InputError(f"{where}: expected {expected} beside kind trace, found {', '.join(extra) or 'no trace'}")
        scale = given.get("scale", 1.0)
        if not (isinstance(scale, (int, float)) and not isinstance(scale, bool) and 1e-6 <= scale <= 1e6):
            raise InputError(f"{where}: scale: expected a number in [1e-06, 1e+06], found {shown(scale)}")
        path = beside(given["trace"], "trace")
        found = request_trace(path, float(scale), period_ms, devices)
        if name not in found and "" not in found:
            raise InputError(f"{where}: expected requests of {name}, found none in {path}")
        return found.get(name) or found[""]
    for key in ("trace", "scale"):
        if key in given:
            raise InputError(f"{where}: expected {key} with kind trace, found kind {shown(given.get('kind'))}")
    try:
        return Arrivals(**given)  # type: ignore[arg-type]
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error


def read(
    table: Mapping[str, object], devices: Sequence[tuple[str, Mapping[str, object]]], beside: Beside, where: str
) -> Traffic | None:
    """A scenario's traffic; None where all devices ask together.

    Args:
      table: the file's `traffic`.
      devices: each device's name, and what its own table says of its requests and its link.
      beside: finds a file that the scenario names.
      where: the scenario's file.

    Raises:
      InputError: where something can't be used.
    """
    allowed = (*OF_ARRIVALS, *OF_LINKS, *OF_UPLINK, *OF_TRAFFIC)
    for key in table:
        if key not in allowed:
            raise InputError(f"traffic: expected some of {', '.join(allowed)}, found the key {shown(key)} in {where}")
    kind = table.get("kind", "poisson")
    if kind == TOGETHER:
        if len(table) > 1:
            found = ", ".join(sorted(set(table) - {"kind"}))
            raise InputError(f"traffic: expected nothing beside kind {TOGETHER}, found {found} in {where}")
        for name, own in devices:
            if own:
                expected = f"nothing of requests beside kind {TOGETHER}"
                raise InputError(f"devices.{name}: expected {expected}, found {', '.join(sorted(own))} in {where}")
        return None
    if kind not in KINDS:
        raise InputError(f"traffic: expected kind {', '.join((TOGETHER, *KINDS))}, found {shown(kind)} in {where}")
    plain: dict[str, Any] = {key: table[key] for key in OF_TRAFFIC if key in table}
    names = [name for name, _ in devices]
    try:
        period_ms = Traffic(arrivals=(Arrivals(),), **{"period_ms": 5000.0, **plain}).period_ms
    except ValueError as error:
        raise InputError(f"traffic: {error} in {where}") from error
    arrivals, links = [], []
    for name, own in devices:
        place = f"devices.{name} in {where}"
        # Another kind of requests has nothing in common with the fleet's.
        common = table if own.get("kind", kind) == kind else {}
        arrivals.append(_arrivals(name, {"kind": kind, **common, **own}, period_ms, beside, names, place))
        own_link = any(key in own for key in OF_LINKS)
        links.append(_link(own if own_link else table, "", period_ms, beside, place))
    uplink = _link(table, "uplink_", period_ms, beside, f"traffic in {where}")
    try:
        return Traffic(arrivals=tuple(arrivals), links=tuple(links) if any(links) else (), uplink=uplink, **plain)
    except ValueError as error:
        raise InputError(f"traffic: {error} in {where}") from error
