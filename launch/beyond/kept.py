"""The finished lines of a row that `launch.beyond` is measuring, on disk, so that an interrupted row goes on."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from launch.host import files, provenance
from launch.host.files import write_atomically
from launch.host.progress import Progress


class Kept:
    """Lines by name; those of other code, other versions or another number of seeds don't count."""

    def __init__(self, path: pathlib.Path, seeds: int) -> None:
        commit = provenance.commit()
        # Changed files have no name by which to know them again.
        self._path = path if commit is not None and not commit.endswith("+") else None
        self._stamp = {"commit": commit, "versions": provenance.versions(), "seeds": seeds}
        found = (files.read_json(path) if self._path else None) or {}
        self._done: dict[str, list[dict[str, Any]]] = found["lines"] if found.get("stamp") == self._stamp else {}
        self._row = path.name.split(".")[0]

    def measure(
        self, parts: Mapping[str, Callable[[], list[dict[str, Any]]]], tell: Callable[[dict[str, Any]], str]
    ) -> list[dict[str, Any]]:
        """The lines of all parts in order; a part that isn't there yet is measured and kept. `tell` is for a person."""
        with Progress(len(parts), sum(name in self._done for name in parts), self._row, "part") as progress:
            for name, part in parts.items():
                if name not in self._done:
                    self._done[name] = part()
                    self._write()
                    progress.advance(1, f"{name}: {tell(self._done[name][-1])}")
        return [line for name in parts for line in self._done[name]]

    def _write(self) -> None:
        if self._path is not None:
            content = {"stamp": self._stamp, "lines": self._done}
            write_atomically(self._path, (json.dumps(content) + "\n").encode())

    def discard(self) -> None:
        """Once the row is written."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
