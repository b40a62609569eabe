"""`launch.reproduce`: its plan, that interruptions change nothing, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from hl_jax.objective import CONSTRAINTS
from launch.host.errors import InputError
from launch.inputs import agents, public
from launch.reproduce import plan, report, units
from launch.reproduce.sections.section import COMPARED
from launch.reproduce.units import TOLD, Case
from launch.runs import unit
from launch.runs.folder import RunFolder
from tests.helpers.builders import ROOT
from tests.helpers.needs import needs_peer


def cells(*tables: str, agents: tuple[str, ...] = plan.AGENTS, quick: bool = False) -> set[tuple]:
    return {unit.case for unit in plan.units(tables, agents, 5, quick)}


def test_plan_covers_the_tables():
    assert cells("5") == {Case(name, 5, limit, "hybrid") for name in "ABCD" for limit in CONSTRAINTS}
    ours = ("hybrid", "dqn", "q_learning")
    assert cells("6") == {Case("A", users, limit, agent) for users in (3, 4, 5) for limit in COMPARED for agent in ours}
    assert cells("7") == cells("6")
    curves = {("A", users, limit) for users in (1, 2, 3, 4, 5) for limit in CONSTRAINTS}
    assert cells("fig3") == {Case(*cell, agent) for cell in curves for agent in ("hybrid", "dqn")}
    assert {cell[3] for cell in cells("peer")} == {"dqn", public.NAME}


def test_shared_units_are_run_once_with_the_same_seeds():
    needed = plan.units(plan.tables(), plan.AGENTS, 7, False)
    cases = [unit.case for unit in needed]
    assert len(cases) == len(set(cases))
    assert len({unit.folder for unit in needed}) == len(needed)
    (shared,) = (unit for unit in needed if unit.case == Case("A", 5, "85", "hybrid"))
    assert shared.tables == ("5", "6", "knowledge", "7", "fig3")
    assert all(unit.settings.seeds == tuple(range(7)) for unit in needed)
    assert all(unit.settings.scenario.users == unit.case.users for unit in needed)


def test_every_agent_of_the_plan_can_be_made():
    for one in plan.units(plan.tables(), plan.AGENTS, 1, False):
        agents.make_agent(one.case.agent, one.settings.config, one.settings.scenario)


def test_quick_is_a_small_part_of_the_whole():
    assert cells(*plan.tables(), quick=True) < cells(*plan.tables())
    assert {cell[3] for cell in cells(*plan.tables(), quick=True)} == set(plan.AGENTS)
    whole, small = (plan.units(plan.tables(), plan.AGENTS, 0, quick) for quick in (False, True))
    told = {(one.case.agent, len(one.settings.seeds)) for one in whole if one.case.knowledge == TOLD}
    assert told == set(plan.SEEDS.items())
    assert {len(unit.settings.seeds) for unit in small} == {plan.QUICK_SEEDS}
    assert min(plan.SEEDS.values()) > plan.QUICK_SEEDS


def test_agents_can_be_left_out():
    assert {cell[3] for cell in cells(*plan.tables(), agents=("hybrid",))} == {"hybrid"}
    with pytest.raises(InputError, match="--agents: expected one that --tables=5 needs, found only dqn"):
        plan.units(("5",), ("dqn",), 5, False)


def test_other_settings_get_another_folder():
    few, many = (plan.units(("5",), ("hybrid",), seeds, False)[0] for seeds in (5, 6))
    assert few.folder != many.folder
    assert few.folder.startswith("A-5-Min-hybrid-")
    longer = dataclasses.replace(few.settings, config=dataclasses.replace(few.settings.config, epochs=61))
    assert dataclasses.replace(few, settings=longer).folder != few.folder


# Three trainings of two users, small but real.
SCRIPT = """
import dataclasses, pathlib, sys
from launch.reproduce import __main__ as reproduce
from launch.reproduce import units
from launch.host.runtime import use_compilation_cache

def unit(agent, limit, table):
    case = units.Case("A", 2, limit, agent)
    made = units.settings(case, 2)
    config = dataclasses.replace(made.config, epochs=5 if agent == "hybrid" else 12)
    return units.Unit(case, (table,), dataclasses.replace(made, config=config))

use_compilation_cache()
needed = [unit("hybrid", "85", "fig3"), unit("dqn", "85", "fig3"), unit("dqn", "Max", "fig3")]
reproduce.reproduce(needed, pathlib.Path(sys.argv[1]), command="the test's", checkpoint_epochs=1)
"""


def start(out: pathlib.Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(out)], cwd=ROOT, stderr=subprocess.PIPE, text=True)


def finish(out: pathlib.Path) -> str:
    process = start(out)
    try:
        _, said = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 0, said
    return said


def stop_when(out: pathlib.Path, pattern: str, how: int) -> tuple[int, str]:
    """Starts it and sends the signal once a file of that pattern is there. Returns exit status and stderr."""
    process = start(out)
    try:
        while not list(out.glob(pattern)):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.02)
        process.send_signal(how)
        _, said = process.communicate(timeout=600)
    finally:
        process.kill()
    return process.returncode, said


def without_clock(value):
    """A report or summary without what depends on the wall clock."""
    clock = (*report.clock(), "compute_s", "compute_to_optimal_s", "run")
    if isinstance(value, dict):
        return {key: without_clock(item) for key, item in value.items() if key not in clock}
    return [without_clock(item) for item in value] if isinstance(value, (list, tuple)) else value


def everything(out: pathlib.Path) -> dict[str, object]:
    """What a reproduction leaves, wall-clock times aside."""
    found: dict[str, object] = {}
    for path in sorted(out.rglob("*.json")):
        found[path.relative_to(out).as_posix()] = without_clock(json.loads(path.read_text(encoding="utf-8")))
    found.pop("log.json")
    return found | {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*.[cp][sn][vg]"))}


def files(folder: pathlib.Path) -> dict[str, int]:
    return {path.as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def finished_units(out: pathlib.Path) -> dict[str, int]:
    """Every file of every finished unit, and when it was written."""
    return {name: at for path in out.glob("units/*/summary.json") for name, at in files(path.parent).items()}


@pytest.mark.process
def test_interruptions_change_nothing(tmp_path):
    """Kill -9 in the first unit and in the second, then Ctrl-C in the third, then to the end."""
    whole, out = tmp_path / "whole", tmp_path / "interrupted"
    finish(whole)
    before: dict[str, int] = {}
    for pattern, how in (
        ("units/*-85-hybrid-*/checkpoints/group-*.ckpt", signal.SIGKILL),
        ("units/*-85-dqn-*/checkpoints/group-*.ckpt", signal.SIGKILL),
        ("units/*-Max-dqn-*/config.json", signal.SIGINT),
    ):
        status, said = stop_when(out, pattern, how)
        assert status != 0, said  # it had not come to its end
        now = finished_units(out)
        assert now.items() >= before.items()
        before = now
    assert not (out / "report.json").exists()
    assert len(list(out.glob("units/*/summary.json"))) == 2
    said = finish(out)
    assert "2 of 3 units of work are finished already" in said
    assert finished_units(out).items() >= before.items()
    assert everything(out) == everything(whole)
    assert json.loads((out / "report.json").read_text(encoding="utf-8"))["run"]["wall_s"] > 0.0
    # And once more: nothing at all is computed.
    before = files(out / "units")
    assert "3 of 3 units of work are finished already" in finish(out)
    assert files(out / "units") == before


@pytest.mark.process
@needs_peer
def test_peer_is_a_unit_that_goes_on_where_it_was(tmp_path):
    folder, made = RunFolder(tmp_path), units.settings(Case("A", 3, "85", public.NAME), 2)
    made = dataclasses.replace(
        made,
        scenario=units.scenario_of("A", 2, "85"),
        config=dataclasses.replace(made.config, epochs=3, direct_sessions=50),
    )
    summary = unit.run(made, folder, threads=2)
    first, second = summary.seeds
    assert [first.real_steps, second.real_steps] == [150, 150]
    assert first.experience_s != second.experience_s
    assert first.oracle_art_ms == pytest.approx(summary.aggregate.oracle_art_ms)
    assert folder.summary() == summary
    before = files(tmp_path)
    assert unit.run(made, folder) == summary
    assert files(tmp_path) == before
    # As if it had been killed in the second seed: the first is kept, the second is the same again.
    kept = tmp_path / "seeds" / "seed-0.json"
    folder.summary_file.unlink()
    (tmp_path / "seeds" / "seed-1.json").unlink()
    again = unit.run(made, folder, threads=2)
    assert kept.stat().st_mtime_ns == before[kept.as_posix()]
    assert without_clock(again.as_json()) == without_clock(summary.as_json())
    with pytest.raises(InputError, match="run folder: expected a run of the same settings"):
        unit.run(dataclasses.replace(made, seeds=(5, 6)), folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tables=6,8"], "--tables: expected a comma list of 5, 6, knowledge, 7, fig3, peer, found '8'"),
        (
            ["--agents=factored"],
            "--agents: expected a comma list of hybrid, dqn, q_learning, sb3_dqn, found 'factored'",
        ),
        (["--seeds=0"], "--seeds: expected at least 1, found 0"),
        (["--gamma=0.5"], "--gamma: expected with launch.train, found with launch.reproduce"),
        (
            ["--report_only", "--run_dir={folder}"],
            "--report_only: expected finished units of this plan, found none in ",
        ),
        (["--quick", "--run_dir={file}"], "--run_dir: expected a folder that can be made and written, found "),
    ],
)
def test_bad_input_is_one_line(refused, tmp_path, arguments, message):
    file = tmp_path / "file"
    file.write_text("mine", encoding="utf-8")
    given = [argument.format(folder=tmp_path / "new", file=file) for argument in arguments]
    assert refused(*given, name="reproduce").startswith(f"error: {message}")
    assert os.listdir(tmp_path) == ["file"]
    assert file.read_text(encoding="utf-8") == "mine"


@pytest.mark.process
def test_bad_input_ends_a_process(tmp_path):
    line = [sys.executable, "-m", "launch.reproduce", "--seeds=0"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --seeds: expected at least 1, found 0\n"
