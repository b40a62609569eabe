"""`launch.sweep` as a command: killed at several moments, its workers killed, added to; and what it refuses."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from launch.sweep import work
from launch.sweep.executors import slots
from launch.sweep.executors.slots import Reply
from launch.sweep.plan import Unit
from tests.helpers.builders import ROOT

# Runs of two users: an instant each, once they are compiled.
TINY = (
    *(f"--flagfile={ROOT / 'expC.flags'}", "--users=2", "--agent=q_learning", "--epochs=30", "--epoch_steps=30"),
    *("--checkpoint_epochs=5", "--grid=step_size=0.3,0.6", "--seeds=4"),
)


def start(out: pathlib.Path, *arguments: str) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "launch.sweep", *TINY, f"--run_dir={out}", *arguments]
    return subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    return said


def wait_for(process: subprocess.Popen[str], out: pathlib.Path, pattern: str, count: int = 1) -> None:
    while len(list(out.glob(pattern))) < count:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


def workers(process: subprocess.Popen[str]) -> list[int]:
    """Worker processes of a sweep."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if int(words[1]) == process.pid and b"launch.sweep.executors.worker" in command:
            found.append(int(folder.name))
    return found


def finished_files(out: pathlib.Path) -> dict[str, int]:
    """Every file of every finished unit, and when it was written."""
    found = {}
    for summary in out.glob("units/*/*/summary.json"):
        # Checkpoints go once a unit is finished.
        found |= {str(path): path.stat().st_mtime_ns for path in summary.parent.iterdir() if path.is_file()}
    return found


def results(out: pathlib.Path) -> dict[str, object]:
    """Every unit's summary, wall-clock times aside, and its metrics."""
    found: dict[str, object] = {}
    for path in sorted(out.glob("units/*/*/summary.json")):
        summary = json.loads(path.read_text(encoding="utf-8"))
        for seed in summary["seeds"]:
            seed.pop("compute_s")
            seed.pop("compute_to_optimal_s")
        metrics = (path.parent / "metrics.csv").read_bytes()
        found[path.parent.relative_to(out).as_posix()] = (summary, metrics)
    return found


@pytest.mark.process
def test_killing_changes_nothing_and_adding_computes_what_is_new(tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "killed"
    finish(start(whole))
    before: dict[str, int] = {}
    for pattern, count in (("units/*/*/config.json", 1), ("units/*/*/summary.json", 2), ("units/*/*/summary.json", 5)):
        process = start(out, "--workers=1")
        try:
            wait_for(process, out, pattern, count)
            orphans = workers(process)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        now = finished_files(out)
        assert now.items() >= before.items()
        before = now
        deadline = time.monotonic() + 30.0
        while any(pathlib.Path(f"/proc/{pid}").exists() for pid in orphans):  # they notice at once
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert len(list(out.glob("units/*/*/summary.json"))) < 8
    # To the end, with more seeds, while workers die.
    process = start(out, "--workers=1", "--seeds=5")
    wait_for(process, out, "units/*/*/summary.json", 7)
    for pid in workers(process):
        os.kill(pid, signal.SIGKILL)
    said = finish(process)
    assert "worker process ended (SIGKILL" in said
    assert "of 10 units of work are finished already" in said
    assert finished_files(out).items() >= before.items()
    found, expected = results(out), results(whole)
    assert len(expected) == 8
    assert len(found) == 10
    assert found.items() >= expected.items()
    assert not list(out.glob("units/*/*/checkpoints"))


def test_two_sweeps_don_t_share_a_folder(refused, tmp_path):
    with work.alone(tmp_path):  # as a sweep holds it while it runs
        line = refused(*TINY, f"--run_dir={tmp_path}", name="sweep", cwd=ROOT)
    assert "--run_dir: expected no other command at work in" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--grid=gamma=0:2:0.01"], "--gamma: expected a value in [0, 0.999], found 1.0 (of the sweep's point"),
        (["--resume", "--workers=-1"], "--resume: expected with launch.train, found with launch.sweep"),
        (["--executor=moon"], "--executor: expected one of local, ray, found 'moon'"),
        (["--ray_address=a:1"], "--ray_address: expected with --executor=ray, found with --executor=local"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(refused, tmp_path, arguments, message):
    line = refused(*TINY, f"--run_dir={tmp_path / 'new'}", *arguments, name="sweep", cwd=ROOT)
    assert line.startswith(f"error: {message}")
    assert os.listdir(tmp_path) == []


class FakeSlot:
    """Does units in no time, in order; may die at some."""

    def __init__(self, deadly: set[str]) -> None:
        self.did: list[str] = []
        self.deadly = deadly

    def ready(self) -> bool:
        return True

    def run(self, unit: Unit) -> Reply:
        self.did.append(unit.folder)
        if unit.folder in self.deadly:
            raise slots.WorkerLost("it died")
        return Reply()

    def interrupt(self) -> None: ...

    def close(self) -> None: ...


def units(*names: str) -> list[Unit]:
    """Units as `point.seed`; a point's first letter is its program."""

    class Settings:
        def __init__(self, seed: int) -> None:
            self.seeds = (seed,)

    parts = [name.split(".") for name in names]
    return [Unit(point, Settings(int(seed)), point[0]) for point, seed in parts]  # type: ignore[arg-type]


def test_a_worker_stays_with_its_program_then_begins_another_then_helps():
    waiting = slots.Waiting(units("a1.0", "a1.1", "b.0", "a2.0", "a2.1", "b.1", "b.2"))
    took = []
    last: dict[str, str | None] = {"one": None, "two": None}
    for worker in ("one", "two", "one", "two", "two", "two", "one"):
        unit = waiting.take(last[worker])
        assert unit is not None
        last[worker] = unit.program
        took.append(unit.folder)
    # Two points of one program count as one, wherever they stand.
    assert took[:5] == ["a1/seed-0000", "b/seed-0000", "a1/seed-0001", "b/seed-0001", "b/seed-0002"]
    assert took[5:] == ["a2/seed-0000", "a2/seed-0001"]
    for _ in range(7):
        waiting.count_done()
    assert waiting.take("a") is None


def test_a_unit_that_kills_every_worker_is_given_up_and_the_others_are_done():
    slot, done, lost = FakeSlot({"a/seed-0001"}), {}, []
    plan = units("a.0", "a.1", "b.0")
    slots.run_all(
        plan, [slot], lambda unit, reply: done.update({unit.folder: reply.error}), lambda *what: lost.append(what)
    )
    assert done["a/seed-0000"] == done["b/seed-0000"] == ""
    assert done["a/seed-0001"] == "5 workers died over it; the last one: it died"
    assert slot.did.count("a/seed-0001") == len(lost) == 5
    assert len(done) == 3
