"""Executors by name, one more of them, and agents of one's own, which workers must find, too."""

from __future__ import annotations

import csv
import json
import os
import pathlib
import subprocess
import sys
import types

import pytest

from hl_jax.agents.q_learning.config import QLearningConfig
from launch.host.errors import InputError
from launch.inputs.settings import Settings
from launch.sweep.executors import EXECUTORS, local, worker
from launch.sweep.executors.slots import Asked, Executor, Reply
from launch.sweep.plan import Unit
from tests.helpers.builders import ROOT, small_scenario

AGENT = pathlib.Path(__file__).parent / "coordinates.py"


class Here:
    """A slot in the sweep's own process."""

    def __init__(self, asked: Asked) -> None:
        self.asked, self.did = asked, list[str]()

    def ready(self) -> bool:
        return True

    def run(self, unit: Unit) -> Reply:
        self.did.append(unit.folder)
        return worker.work(self.asked.task(unit, str(unit.run_folder(self.asked.out).path), "here"))

    def interrupt(self) -> None: ...

    def close(self) -> None:
        self.did.append("closed")


@pytest.mark.process
def test_another_executor_is_a_class_and_a_line(command, monkeypatch, tmp_path):
    made: list[Here] = []
    monkeypatch.setitem(EXECUTORS, "here", Executor(lambda asked: [made.append(Here(asked)) or made[0]]))
    flags = ("--users=2", "--agent=q_learning", "--epochs=5", "--epoch_steps=20", "--grid=step_size=0.3,0.6")
    done = command(
        "sweep", "--flagfile=expC.flags", *flags, "--seeds=2", f"--run_dir={tmp_path}", "--executor=here", cwd=ROOT
    )
    assert done.status == 0, done.err
    (slot,) = made
    assert slot.asked == Asked(tmp_path, 0, 10, False)
    assert sorted(slot.did[:-1]) == sorted(
        path.parent.relative_to(tmp_path / "units").as_posix() for path in tmp_path.glob("units/*/*/summary.json")
    )
    assert (len(slot.did), slot.did[-1]) == (5, "closed")
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert (report["run"]["finished"], report["run"]["units"], len(report["runs"])) == (4, 4, 4)
    assert report["run"]["wall_s"] > 0.0


def sweep(folder: pathlib.Path, *arguments: str) -> None:
    """Runs a sweep in a folder that isn't the repository, whose modules it can import as any Python there."""
    line = [sys.executable, "-m", "launch.sweep", f"--scenario={ROOT / 'data' / 'scenarios' / 'expC.toml'}"]
    line += ["--users=2", "--constraint=80", "--epochs=3", "--seeds=2", "--workers=1", "--run_dir=out", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr


def outcomes(folder: pathlib.Path) -> dict[tuple[str, str], int]:
    """Real steps by setting and seed."""
    with (folder / "out" / "runs.csv").open(encoding="utf-8", newline="") as file:
        return {(row["setting"], row["seed"]): int(row["real_steps"]) for row in csv.DictReader(file)}


@pytest.mark.process
def test_an_agent_of_one_s_own_is_trained_by_workers_and_reported(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "coordinates.py").write_text(AGENT.read_text(encoding="utf-8"), encoding="utf-8")
    both = "--grid=agent=q_learning,mine.coordinates:make"
    sweep(tmp_path, both, "--grid=tries=1,2")  # which q_learning doesn't have
    steps = 3 * 2 * 10  # epochs, devices, choices
    own = {(f"tries={tries}", str(seed)): steps * tries for tries in (1, 2) for seed in (0, 1)}
    known = {("agent=q_learning", str(seed)): 3 * 5000 for seed in (0, 1)}
    named = {(f"agent=mine.coordinates:make, {setting}", seed): found for (setting, seed), found in own.items()}
    assert outcomes(tmp_path) == known | named
    made = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/units/*/*/summary.json")}
    assert len(made) == 6
    # The same runs under the other flag, and none is done again.
    sweep(tmp_path, "--agent=mine.coordinates:make", "--grid=tries=1,2")
    assert outcomes(tmp_path) == own
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/units/*/*/summary.json")} == made


def unit(agent: str, config: object) -> Unit:
    return Unit("point", Settings(small_scenario(), "85", agent, config, (0,), 1), "program")


@pytest.mark.process
def test_an_agent_that_workers_can_t_import_is_refused_at_once(monkeypatch, tmp_path):
    module = types.ModuleType("on_no_disk")
    monkeypatch.setitem(sys.modules, "on_no_disk", module)
    exec(AGENT.read_text(encoding="utf-8"), module.__dict__)
    slot = local.ProcessSlot(Asked(tmp_path, 1, 10, False), 0)
    try:
        for agent, config in (("on_no_disk:make", module.Constants()), ("on_no_disk:make", QLearningConfig())):
            with pytest.raises(InputError, match=r"--agent: .* workers can import, too, found: .*'on_no_disk'"):
                slot.run(unit(agent, config))
    finally:
        slot.close()


def test_constants_that_can_t_be_sent_are_refused():
    class Constants: ...

    with pytest.raises(InputError, match="--agent=mine:make: expected constants that another process can import"):
        Asked(pathlib.Path(), 1, 10, False).task(unit("mine:make", Constants()), "", "").packed()
