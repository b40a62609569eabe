"""Reads what others measured into rows of a profile: a CSV table, and logs of TensorFlow Lite's `benchmark_model`.

Nothing is guessed: what a file doesn't say isn't in the row, and a file without a median is refused. Each error is one
line: what was expected, what was found, where.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import pathlib
import re
from collections.abc import Mapping

from hl_jax.checks import shown
from hl_jax.profiles import Entry
from launch.host.errors import InputError
from launch.inputs.profile_files import read_text

# Columns of a table, by the fields that they fill; the columns after them say what was measured, or are ignored.
COLUMNS = {
    "p50_ms": "p50_ms",
    "mean_ms": "mean_ms",
    "p90_ms": "p90_ms",
    "p95_ms": "p95_ms",
    "p99_ms": "p99_ms",
    "p999_ms": "p999_ms",
    "energy_mJ_per_inference": "energy_mj",
    "memory_MB": "memory_mb",
    "top1_percent": "top1",
    "top5_percent": "top5",
}
NAMES = ("paper_name", "model")  # columns with a model's name: the first of them that there is
ALSO = ("repo", "system", "type", "width", "mean_W")


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of one system in a CSV."""

    entries: tuple[Entry, ...]
    source: str  # what the table says of where they are from, or the file's name


def _number(text: str, column: str, where: str) -> float | None:
    text = text.strip()
    if not text:
        return None
    # Python reads 1_000 and other digits than ASCII's as numbers; whoever wrote them meant something else.
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text, re.ASCII):
        raise InputError(f"{column}: expected a number, found {shown(text)} in {where}")
    return float(text)


def _entry(model: str, values: Mapping[str, float | None], where: str) -> Entry:
    try:
        return Entry(model, **values)  # type: ignore[arg-type] # a median that is None is refused there
    except ValueError as error:
        raise InputError(f"{error} in {where}") from error


def _rows(path: pathlib.Path) -> list[tuple[int, list[str]]]:
    """A CSV's rows that aren't empty, with the line that each ends on."""
    reader = csv.reader(io.StringIO(read_text(path, "from_csv"), newline=""), strict=True)
    rows = []
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append((reader.line_num, row))
    except csv.Error as error:
        raise InputError(f"from_csv: expected CSV, found {error} in {path}, line {reader.line_num}") from error
    if not rows:
        raise InputError(f"from_csv: expected a header and at least one row, found nothing in {path}")
    return rows


def _header(cells: list[str], path: pathlib.Path) -> list[str]:
    header = [cell.strip() for cell in cells]
    known = (*NAMES, *COLUMNS, *ALSO)
    for name in header:
        if name not in known:
            raise InputError(f"from_csv: expected some of {', '.join(known)}, found the column {shown(name)} in {path}")
        if header.count(name) > 1:
            raise InputError(f"from_csv: expected each column once, found {name} {header.count(name)} times in {path}")
    if "p50_ms" not in header or not set(NAMES) & set(header):
        expected = f"the columns p50_ms and {' or '.join(NAMES)}"
        raise InputError(f"from_csv: expected {expected}, found {', '.join(header)} in {path}")
    return header


def from_csv(path: pathlib.Path, system: str | None = None) -> Table:
    """Reads a table with a header, one row for each model of a system.

    Args:
      path: the file.
      system: which of several systems, as the column `system` names it.

    Raises:
      InputError: where the table can't be used.
    """
    (_, first), *rows = _rows(path)
    header = _header(first, path)
    kept: list[tuple[str, dict[str, str]]] = []
    for line, cells in rows:
        where = f"{path}, line {line}"
        if len(cells) != len(header):
            raise InputError(f"from_csv: expected {len(header)} columns, found {len(cells)} in {where}")
        kept.append((where, dict(zip(header, (cell.strip() for cell in cells), strict=True))))
    there = list(dict.fromkeys(row.get("system", "") for _, row in kept))
    if system is not None and system not in there:
        raise InputError(f"system: expected one of {shown(', '.join(there))}, found {shown(system)} in {path}")
    if system is None and len(there) > 1:
        expected = f"one system, or --system to choose one of {len(there)}"
        raise InputError(f"from_csv: expected {expected}, found {shown(', '.join(there))} in {path}")
    if not kept:
        raise InputError(f"from_csv: expected at least one row below the header, found none in {path}")
    entries: dict[str, Entry] = {}
    sources = []
    for where, row in kept:
        if system is not None and row.get("system", "") != system:
            continue
        model = row[next(name for name in NAMES if name in header)]
        if model in entries:
            raise InputError(f"from_csv: expected each model once, found {shown(model)} again in {where}")
        values = {COLUMNS[name]: _number(text, name, where) for name, text in row.items() if name in COLUMNS}
        entries[model] = _entry(model, values, where)
        sources.append(", ".join(row[name] for name in ("repo", "system") if row.get(name)))
    return Table(tuple(entries.values()), "; ".join(dict.fromkeys(filter(None, sources))) or path.name)


_NUMBER = r"([0-9.]+(?:e[+-]?\d+)?)"
_TIMINGS = re.compile(rf"Inference timings in us: Init: .*Inference \(avg\): {_NUMBER}")
_COUNT = re.compile(rf"\bcount=(\d+) .*\bcurr={_NUMBER}")
_MEMORY = re.compile(rf"emory footprint.*\(MB\).*\boverall={_NUMBER}")


def from_benchmark(path: pathlib.Path, model: str) -> Entry:
    """Reads what one run of `benchmark_model` printed, with whatever stands before its lines (Android's log, say).

    The real runs' line is the last `count=…` before `Inference timings in us`; the warm-up's comes before it.

    Raises:
      InputError: if it isn't such a log, is cut off, has several runs, or no median, which old versions don't print.
    """
    what = f"from_benchmark {model}"
    lines = read_text(path, what).splitlines()
    ends = [index for index, line in enumerate(lines) if _TIMINGS.search(line)]
    if len(ends) != 1:
        found = "none" if not ends else f"{len(ends)} of them"
        raise InputError(f"{what}: expected one line 'Inference timings in us: …', found {found} in {path}")
    counts = [(index, line) for index, line in enumerate(lines[: ends[0]]) if _COUNT.search(line)]
    if not counts:
        raise InputError(f"{what}: expected a line 'count=… avg=… median=…' before the timings, found none in {path}")
    index, line = counts[-1]
    where = f"{path}, line {index + 1}"

    def value(name: str) -> float | None:
        match = re.search(rf"\b{name}=([^\s(]+)", line)  # `curr=1357602(all same)`
        return None if match is None else _number(match[1], name, where)

    median, p95 = value("median"), value("p95")
    # Where all runs took the same, the line has no mean.
    mean = value("curr") if "(all same)" in line or value("count") == 1 else value("avg")
    if median is None or mean is None:
        lost = "median" if median is None else "avg"
        expected = f"{lost}=… beside count=…"
        more = "; newer versions of benchmark_model print it" if lost == "median" else ""
        raise InputError(f"{what}: expected {expected}, found none in {where}{more}")
    memory = next(filter(None, map(_MEMORY.search, lines[ends[0] :])), None)
    overall = None if memory is None else _number(memory[1], "overall", str(path))
    # An overall of 0: the tool's own footprint hid it.
    values = {"p50_ms": _ms(median), "mean_ms": _ms(mean), "p95_ms": _ms(p95), "memory_mb": overall or None}
    return _entry(model, values, where)


def _ms(microseconds: float | None) -> float | None:
    return None if microseconds is None else round(1e-3 * microseconds, 9)


def benchmark_files(text: str) -> dict[str, pathlib.Path]:
    """`d0=log0.txt,d3=log3.txt` as files by model.

    Raises:
      InputError: if it isn't such a list.
    """
    files: dict[str, pathlib.Path] = {}
    for part in text.split(","):
        model, equals, path = (piece.strip() for piece in part.partition("="))
        if not (model and equals and path):
            raise InputError(f"from_benchmark: expected MODEL=FILE,MODEL=FILE…, found {shown(part)}")
        if model in files:
            raise InputError(f"from_benchmark: expected each model once, found {shown(model)} again")
        files[model] = pathlib.Path(path)
    return files
