"""Real runs of `python -m launch.train`: started, watched, killed, and what they leave read and compared."""

from __future__ import annotations

import dataclasses
import io
import json
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest

from tests.helpers.builders import ROOT, SCENARIOS

EPOCHS = 60
SEEDS = (0, 1)
# Small networks and buffers: an epoch takes milliseconds, so that a run is mostly its start.
SETTINGS = (
    f"--scenario={SCENARIOS / 'expA.toml'}",
    "--users=2",
    "--constraint=85",
    f"--epochs={EPOCHS}",
    "--direct_sessions=4",
    "--direct_steps=5",
    "--direct_updates=4",
    "--world_sessions=40",
    "--suggest_sessions=1",
    "--suggest_steps=2",
    "--plan_sessions=20",
    "--k_best=5",
    "--width=8",
    "--batch=16",
    "--direct_capacity=64",
    "--world_capacity=64",
    "--plan_capacity=32",
)
TIMEOUT_S = 300  # of one process, on a machine that is busy with something else


def begin(folder: pathlib.Path, *more: str, room: int | None = None) -> subprocess.Popen[str]:
    """Starts a run in `folder`, or goes on with the one that is there.

    With `room`, no file of its can grow beyond so many bytes, as on a disk that is nearly full.
    """
    own = ("--resume",) if (folder / "config.json").exists() else (*SETTINGS, f"--seeds={len(SEEDS)}")
    start = ["-m", "launch.train"] if room is None else ["-c", _LIMITED, str(room)]
    return subprocess.Popen(
        [sys.executable, *start, *own, f"--run_dir={folder}", "--checkpoint_epochs=1", *more],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# Python ignores the signal that comes with it.
_LIMITED = """
import resource, runpy, sys
room = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
runpy.run_module("launch.train", run_name="__main__", alter_sys=True)
"""


def end(process: subprocess.Popen[str]) -> tuple[int, list[str], list[str]]:
    """Waits for a process. Returns its exit status and the lines of stdout and stderr."""
    try:
        out, err = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
    return process.returncode, out.splitlines(), err.splitlines()


def finish(folder: pathlib.Path, *more: str, room: int | None = None) -> tuple[int, list[str], list[str]]:
    """Starts a run or goes on with it, to its end."""
    return end(begin(folder, *more, room=room))


def checkpoints(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted((folder / "checkpoints").glob("*.ckpt"))


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, list[str]]:
    """A finished run, the same for all who ask, and its stdout. It also fills the compilation cache."""
    folder = tmp_path_factory.mktemp("runs") / "uninterrupted"
    status, out, err = finish(folder)
    assert status == 0, err
    return folder, out


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as this reader, which shares nothing with the writer, understands it."""

    head: dict[str, Any]
    notes: dict[str, Any]
    arrays: dict[str, np.ndarray]


def read_checkpoint(path: pathlib.Path) -> Checkpoint:
    head_line, _, rest = path.read_bytes().partition(b"\n")
    head = json.loads(head_line)
    with np.load(io.BytesIO(rest[head["notes"] :])) as archive:
        arrays = {name: archive[name] for name in archive.files}
    return Checkpoint(head=head, notes=json.loads(rest[: head["notes"]]), arrays=arrays)


def reached(folder: pathlib.Path) -> int:
    """The epoch of the most advanced checkpoint; -1 before there is any."""
    return max((read_checkpoint(path).notes["epoch"] for path in checkpoints(folder)), default=-1)


def stop(
    process: subprocess.Popen[str], folder: pathlib.Path, epoch: int, delay_s: float, how: signal.Signals
) -> tuple[int, list[str], list[str]]:
    """Sends a signal `delay_s` after `epoch` was checkpointed (-1: after the start), and waits as `end` does."""
    give_up = time.monotonic() + TIMEOUT_S
    while process.poll() is None and epoch >= 0 and reached(folder) < epoch:
        assert time.monotonic() < give_up, f"expected epoch {epoch} within {TIMEOUT_S} s"
        time.sleep(0.002)
    time.sleep(delay_s)
    process.send_signal(how)
    return end(process)


def _timeless(value: Any) -> Any:
    """Plain data without what the clock says."""
    if isinstance(value, dict):
        return {name: _timeless(entry) for name, entry in value.items() if not name.startswith("compute")}
    return [_timeless(entry) for entry in value] if isinstance(value, list) else value


def results(folder: pathlib.Path) -> dict[str, Any]:
    """Everything that a run leaves, but for computing times."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        if path.suffix == ".ckpt":
            checkpoint = read_checkpoint(path)
            found[name] = (_timeless(checkpoint.notes), checkpoint.head["owner"])
            for array, values in checkpoint.arrays.items():
                found[f"{name}{array}"] = (values.dtype.str, values.shape, values.tobytes())
        elif name == "summary.json":
            found[name] = _timeless(json.loads(path.read_text()))
        else:
            found[name] = path.read_bytes()
    return found


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    """Every file's bytes, to see that none was touched."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
