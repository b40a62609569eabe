"""The finished lines of a row that `launch.beyond` is measuring, on disk, so that an interrupted row goes on."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import TypeVar

from launch.beyond.lines import Line
from launch.host import files, provenance, runtime
from launch.host.progress import Progress
from launch.host.records import as_data, from_data

Some = TypeVar("Some", bound=Line)
Part = Callable[[], list[Some]]


@dataclasses.dataclass(frozen=True)
class _Stamp:
    """What made lines."""

    commit: str | None
    versions: dict[str, str]
    seeds: int


@dataclasses.dataclass(frozen=True)
class _Content:
    stamp: _Stamp
    lines: dict[str, list[dict[str, object]]]  # by part


class Kept:
    """Lines by part; those of other code, other versions or another number of seeds don't count."""

    def __init__(self, path: pathlib.Path, seeds: int) -> None:
        commit = provenance.commit()
        # Changed files have no name by which to know them again.
        self._path = path if commit is not None and not commit.endswith("+") else None
        self._stamp = _Stamp(commit, provenance.versions(), seeds)
        data = files.read_json(path) if self._path else None
        found = None if data is None else from_data(_Content, data, str(path))
        self._done = found.lines if found and found.stamp == self._stamp else {}
        self._where, self._row = str(path), path.name.split(".")[0]

    def measure(self, kind: type[Some], parts: Mapping[str, Part[Some]], tell: Callable[[Some], str]) -> list[Some]:
        """The lines of all parts in order; a part that isn't there yet is measured and kept. `tell` is for a person."""
        lines = []
        with Progress(len(parts), sum(name in self._done for name in parts), self._row, "part") as progress:
            for name, part in parts.items():
                if name in self._done:
                    lines += from_data(list[kind], self._done[name], self._where)  # type: ignore[valid-type]
                    continue
                runtime.make_room()
                new = part()
                self._done[name] = as_data(new)
                self._write()
                progress.advance(1, f"{name}: {tell(new[-1])}")
                lines += new
        return lines

    def _write(self) -> None:
        if self._path is not None:
            files.write_json(self._path, as_data(_Content(self._stamp, self._done)), indent=None)

    def discard(self) -> None:
        """Once the row is written."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
