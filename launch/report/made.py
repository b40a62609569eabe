"""What a report says of its own making, and how it is written: the half that every command's report shares."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from launch.host import files, provenance
from launch.host.files import write_atomically
from launch.host.provenance import Machine
from launch.host.worklog import Log
from launch.report import html, markdown
from launch.report.blocks import Page
from launch.report.plotting import Picture

MOST_FAILED = 20  # units that a page names


@dataclasses.dataclass(frozen=True)
class Made:
    """Of which command, commits, versions and machine a report is."""

    command: str
    commits: tuple[str, ...]
    versions: dict[str, str]
    machine: Machine
    units: int  # of work
    finished: int
    failed: dict[str, str]  # why, of each unit that couldn't be done or whose seeds failed
    wall_s: float
    peak_memory_gib: float

    def facts(self) -> list[str]:
        """For a list on the page."""
        changed = " (+: with changes that weren't committed)" if any("+" in one for one in self.commits) else ""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        facts = [
            f"Command: `{self.command}`",
            f"Commit: {', '.join(self.commits) or 'unknown'}{changed}",
            f"Machine: {self.machine}",
            f"Versions: {versions}",
            f"Units of work: {self.finished} of {self.units} finished, {self.wall_s / 60.0:.1f} minutes in all, peak "
            f"memory at most {self.peak_memory_gib:.1f} GiB",
        ]
        return facts + [f"Not done: `{name}`: {why}" for name, why in list(self.failed.items())[:MOST_FAILED]]

    def warnings(self) -> list[str]:
        """What a reader must know before any number."""
        missing = self.units - self.finished
        if not missing:
            return []
        return [f"This is a partial report: {missing} of {self.units} units of work aren't finished."]


def made(command: str, log: Log, folders: Sequence[str], finished: int, failed: Mapping[str, str]) -> Made:
    """A report's making, now; `folders` names its units."""
    return Made(
        command=command,
        commits=log.commits(folders),
        versions=provenance.versions(),
        machine=provenance.machine(),
        units=len(folders),
        finished=finished,
        failed=dict(failed),
        wall_s=log.wall_s(folders),
        peak_memory_gib=log.peak_memory_gib,
    )


def write(folder: pathlib.Path, data: object, page: Page, pictures: Mapping[str, Picture]) -> None:
    """report.json, report.md with its pictures, and report.html. Pictures of an earlier report are taken away.

    Raises:
      InputError: if they can't be written.
    """
    files.write_json(folder / "report.json", data)
    for old in folder.glob("*.png"):
        if old.stem not in pictures:
            old.unlink()
    for name, picture in pictures.items():
        write_atomically(folder / f"{name}.png", picture.light)
    write_atomically(folder / "report.md", markdown.render(page, pictures).encode())
    write_atomically(folder / "report.html", html.render(page, pictures).encode())
