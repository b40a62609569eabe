"""A run's folder: every file that a training leaves, by name, with what writes it and what reads it.

All but the checkpoints is made from the histories that these hold, so that a resumed run leaves the same. A folder with
config.json is a run's; one with summary.json is a finished one's.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import pathlib
import platform
from collections.abc import Iterator, Mapping
from importlib import metadata

import numpy as np

from launch.host import files, locks
from launch.host.errors import InputError
from launch.host.files import write_atomically
from launch.inputs.settings import Settings, read_settings
from launch.runs import decisions
from launch.runs.history import METRICS, Histories, Oracle
from launch.runs.summary import Failure, Summary, from_json, summarize

VERSIONS = ("jax", "flax", "optax", "chex", "numpy", "absl-py")


class RunFolder:
    """The folder of one training."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.summary_file = path / "summary.json"
        self.metrics = path / "metrics.csv"
        self.decisions = path / "decisions.md"
        self.curves = path / "curves.png"
        self.events = path / "events"
        self.checkpoints = path / "checkpoints"
        self.steps = path / "steps.jsonl"  # of a real fleet: every step that was taken, learned from or not
        self.testbed = path / "testbed"  # of a fleet that is started here: its nodes' files

    def __str__(self) -> str:
        return str(self.path)

    def group(self, index: int) -> pathlib.Path:
        """The checkpoint of a group of seeds on the simulator."""
        return self.checkpoints / f"group-{index:04d}.ckpt"

    def seed(self, number: int) -> pathlib.Path:
        """The checkpoint of a seed on a fleet."""
        return self.checkpoints / f"seed-{number:04d}.ckpt"

    @property
    def begun(self) -> bool:
        """Whether there is a run."""
        return self.config.is_file()

    @property
    def finished(self) -> bool:
        """Whether it has come to its end."""
        return self.summary() is not None

    def check_new(self) -> None:
        """Refuses a folder that holds something already.

        Raises:
          InputError: if it does.
        """
        path = self.path
        # What starts with a dot is a write that was cut off.
        if path.exists() and (not path.is_dir() or any(not entry.name.startswith(".") for entry in path.iterdir())):
            expected = "a new or empty folder, or a run and --resume"
            raise InputError(f"--run_dir: expected {expected}, found content at {path}")

    @contextlib.contextmanager
    def held(self, *, wait: bool = False) -> Iterator[None]:
        """Keeps other commands out of the folder, which is made if need be, or waits until they are done.

        Raises:
          InputError: if another is at work in it, or it can't be made.
        """
        with locks.held(self.path, wait=wait):
            for folder in (self.path, self.checkpoints):
                files.clear_cut_off(folder)
            yield

    def begin(self, settings: Settings) -> None:
        """Makes the folder, with every setting in config.json and the versions that run it.

        Raises:
          InputError: if it can't be made.
        """
        make_folder(self.path)
        versions = {name: metadata.version(name) for name in VERSIONS} | {"python": platform.python_version()}
        content = {**settings.as_json(), "env": settings.env, "versions": versions}
        files.write_json(self.config, content, indent=2)

    def settings(self) -> Settings:
        """The run's settings.

        Raises:
          InputError: if config.json isn't there, or isn't one.
        """
        return read_settings(self.config)

    def summary(self) -> Summary | None:
        """The summary of a finished run, None of any other folder.

        Raises:
          InputError: if summary.json can't be read, or is of another version.
        """
        content = files.read_json(self.summary_file)
        return None if content is None else from_json(content, str(self.summary_file))

    def write_results(
        self,
        settings: Settings,
        histories: Histories,
        oracle: Oracle | None,
        failures: Mapping[int, Failure] | None = None,
        pictures: bool = True,
    ) -> Summary:
        """Writes everything but checkpoints (without `pictures`, no curves and no events); returns the summary."""
        summary = summarize(settings, histories, oracle, failures or {})
        write_atomically(self.metrics, _metrics(settings, histories).encode())
        write_atomically(self.decisions, decisions.table(summary, settings, oracle).encode())
        if pictures and any(histories.values()):
            # Here: Matplotlib and TensorBoard's packages take seconds to load, and a run's first step needs neither.
            from launch.runs import curves, events

            events.write(self.events, histories)
            write_atomically(self.curves, curves.draw(summary, histories, oracle.art_ms if oracle else None))
        # Last: a folder with a summary is complete.
        files.write_json(self.summary_file, summary.as_json(), indent=2)
        return summary

    def write_progress(self, settings: Settings, histories: Histories) -> None:
        """metrics.csv and events of a run that still learns, as far as it has come.

        Raises:
          InputError: if they can't be written.
        """
        write_atomically(self.metrics, _metrics(settings, histories).encode())
        from launch.runs import events

        events.write(self.events, histories)

    def regrets(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Real steps and regret of the greedy decision (%) after each epoch, of each seed in metrics.csv.

        Raises:
          InputError: if it isn't a run's.
        """
        found: dict[int, list[tuple[float, float]]] = {}
        try:
            with self.metrics.open(encoding="utf-8", newline="") as file:
                for line in csv.DictReader(file):
                    point = (float(line["real_steps"]), float(line["regret_percent"]))
                    found.setdefault(int(line["seed"]), []).append(point)
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise InputError(f"metrics.csv: expected a run's metrics, found {error!r} in {self.path}") from error
        return {seed: (np.array(points)[:, 0], np.array(points)[:, 1]) for seed, points in found.items()}


def new_folder(name: str, closing: contextlib.ExitStack) -> RunFolder:
    """A folder under runs/ that nobody has, by that name or by the first free number after it; held by `closing`.

    Raises:
      InputError: if it can't be made.
    """
    for number in itertools.count(1):
        folder = RunFolder(pathlib.Path("runs") / (name if number == 1 else f"{name}-{number}"))
        if folder.path.exists():
            continue
        with contextlib.suppress(locks.Occupied):
            closing.enter_context(folder.held())
            if not folder.begun:  # else another of the same second has begun it just now
                return folder
    raise AssertionError("unreachable: there is always another number")


def make_folder(path: pathlib.Path) -> None:
    """Makes the folder that --run_dir names.

    Raises:
      InputError: if it can't be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--run_dir: expected a folder that can be made, found {error.strerror} at {path}") from error


def _metrics(settings: Settings, histories: Histories) -> str:
    """metrics.csv: a line for each row of each seed, the agent's own figures last."""
    rows = [row for seed in settings.seeds for row in histories[seed]]
    extra = sorted({name for row in rows for name in row.learning})
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow([*METRICS, *extra])
    for row in rows:
        writer.writerow([getattr(row, name) for name in METRICS] + [row.learning.get(name, "") for name in extra])
    return table.getvalue()


def failures(folders: Mapping[str, pathlib.Path]) -> dict[str, str]:
    """What became of those of some finished runs whose seeds failed, by the same names."""
    found = {name: RunFolder(folder).summary() for name, folder in folders.items()}
    lines = {name: "; ".join(summary.failures) for name, summary in found.items() if summary is not None}
    return {name: line for name, line in lines.items() if line}
