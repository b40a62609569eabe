"""log.json of a command that does many units of work: what each took, and of which commit it is. It outlives a call."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Iterable

from launch.host import files, provenance
from launch.host.records import as_data, from_data


@dataclasses.dataclass(frozen=True)
class Entry:
    """One unit."""

    wall_s: float  # of all calls together
    commit: str | None  # of the last one


@dataclasses.dataclass(frozen=True)
class Log:
    """All units, by their folders' names."""

    units: dict[str, Entry]
    peak_memory_gib: float

    def commits(self, folders: Iterable[str]) -> tuple[str, ...]:
        """Of some units."""
        return tuple(sorted({entry.commit for name in folders if (entry := self.units.get(name)) and entry.commit}))

    def wall_s(self, folders: Iterable[str]) -> float:
        """Of some units together."""
        return sum(self.units[name].wall_s for name in folders if name in self.units)


class WorkLog:
    """The log in a command's folder."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._path = folder / "log.json"

    @functools.cached_property
    def _commit(self) -> str | None:
        # Of the first note, since that is when what runs was loaded; whoever only reads the log starts no git.
        return provenance.commit()

    def read(self) -> Log:
        """What was noted so far.

        Raises:
          InputError: if the file isn't a log.
        """
        content = files.read_json(self._path)
        return Log({}, 0.0) if content is None else from_data(Log, content, str(self._path))

    def note(self, folder: str, wall_s: float, memory_gib: float) -> None:
        """Adds a call's part of a unit."""
        log = self.read()
        before = log.units.get(folder, Entry(0.0, None))
        units = log.units | {folder: Entry(before.wall_s + wall_s, self._commit)}
        files.write_json(self._path, as_data(Log(units, max(log.peak_memory_gib, memory_gib))))
