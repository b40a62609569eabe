"""What a user's shell, terminal, machine and names bring along: nothing of it becomes a traceback or a wrong answer."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from launch.beyond import searching
from launch.host import files
from launch.host.errors import InputError
from launch.report import plotting
from launch.report.markdown import escaped
from launch.runs.folder import RunFolder
from tests.helpers.builders import ROOT, SCENARIOS

SMALL = ("--agent=q_learning", "--users=1", "--epochs=2", "--epoch_steps=40", "--seeds=1")
TRAIN = (f"--flagfile={ROOT / 'expA.flags'}", *SMALL)
LIKE_MACOS = """
import os, runpy, sys
del os.sched_getaffinity, os.sched_setaffinity
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__")
"""


def typed(tmp_path, *arguments, start=("-m",), **environment):
    """A command as a process, in a folder of its own."""
    return subprocess.run(
        [sys.executable, *start, *arguments],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        timeout=300,
        check=False,
    )


NAMES = (
    "tier $5_a_b$",
    "Ba$$in",
    "A$_$B",
    "50% $ 50%$",
    r"a$\b$",
    "_hidden",
    "{0} %s {name}",
    "a|b *c* `d` <e> [f](g)",
    "café ☕ 東京",
    "../../elsewhere",
    "/etc/elsewhere",
    ".",
    "a" * 300,
    "-rf --seeds=3",
    "$(touch elsewhere) ; & 'quoted\"",
)


def renamed(tmp_path, name, model=None):
    """Experiment A by another name, its first device too."""
    text = (SCENARIOS / "expA.toml").read_text().replace('"../', f'"{SCENARIOS.parent}/')
    text = text.replace('name = "A"', f"name = {json.dumps(name)}").replace('"S1"', json.dumps(name))
    path = tmp_path / "named.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_names_are_data(command, tmp_path, name):
    """No formula, no format, no path, no Markdown."""
    done = command("train", f"--scenario={renamed(tmp_path, name)}", *SMALL, cwd=tmp_path)
    assert done.status == 0, done.err
    assert {path.name for path in tmp_path.iterdir()} == {"named.toml", "runs"}
    (folder,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"[\w.-]+", folder.name)
    run = RunFolder(folder)
    assert run.summary().experiment == name
    assert run.curves.read_bytes()[:4] == b"\x89PNG"
    assert f"# Experiment {escaped(name)}, 1 users" in run.decisions.read_text(encoding="utf-8")


def test_a_name_stands_in_pictures_as_it_is_written():
    for name in NAMES:
        figure, axes = plotting.plt.subplots()
        text = axes.text(0, 0, plotting.plain(name))
        shown, math = text._preprocess_math(text.get_text())
        assert (shown.lstrip(), bool(math) and math != "TeX") == (name, False)
        line = axes.plot([0, 1], label=plotting.plain(name))[0]
        assert not line.get_label().startswith("_")
        plotting.png(figure)


@pytest.mark.parametrize("name", NAMES)
def test_names_become_one_part_of_a_path(name):
    found = files.name_of(name)
    assert re.fullmatch(r"[\w.-]+", found)
    assert found not in (".", "..")
    assert len(found.encode()) <= 80


@pytest.mark.process
def test_a_terminal_of_fewer_characters_shows_others(tmp_path):
    path = renamed(tmp_path, "café ☕")
    for arguments in (("launch.train", *SMALL), ("launch.oracle", "--users=1", "--format=json")):
        done = typed(tmp_path, *arguments, f"--scenario={path}", PYTHONIOENCODING="ascii")
        assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
    assert json.loads(done.stdout)[0]["experiment"] == "café ☕"
    assert b"caf?" in typed(tmp_path, "launch.oracle", f"--scenario={path}", PYTHONIOENCODING="ascii").stdout


@pytest.mark.process
def test_jaxs_own_settings_change_nothing(tmp_path, command):
    strange = {"JAX_ENABLE_X64": "1", "JAX_NUMPY_DTYPE_PROMOTION": "strict"}
    done = typed(tmp_path, "launch.train", *TRAIN, "--run_dir=strange", **strange)
    assert done.returncode == 0, done.stderr
    assert command("train", *TRAIN, "--run_dir=plain", cwd=tmp_path).status == 0
    plain, other = (RunFolder(tmp_path / name).metrics.read_text() for name in ("plain", "strange"))
    assert plain == other


@pytest.mark.process
def test_a_platform_that_is_not_there_is_told_in_one_line(tmp_path):
    done = typed(tmp_path, "launch.train", *TRAIN, JAX_PLATFORMS="abacus")
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert b"error: JAX_PLATFORMS: expected a platform that JAX finds here, found 'abacus'" in done.stderr


@pytest.mark.process
def test_a_system_that_does_not_tell_its_affinity_learns(tmp_path):
    done = typed(tmp_path, LIKE_MACOS, "launch.train", *TRAIN, start=("-c",))
    assert done.returncode == 0, done.stderr


def test_a_system_that_keeps_no_process_to_one_core_is_told(monkeypatch):
    monkeypatch.delattr(os, "sched_setaffinity")
    with pytest.raises(InputError, match="--rows: expected a system that keeps a process to one core, found"):
        searching.decision_time((1,))


@pytest.mark.process
@pytest.mark.parametrize("command", ["launch.oracle --users=1", "launch.train --helpfull", "launch.train --epochs=1"])
def test_who_reads_no_further_is_no_error(tmp_path, command):
    """`… | head -1`, on a pipe whose reader is gone before the first line."""
    reader, writer = os.pipe()
    os.close(reader)
    name, *more = command.split()
    more = [*TRAIN, *more] if name == "launch.train" else [TRAIN[0], *more]
    process = subprocess.Popen(
        [sys.executable, "-m", name, *more],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=writer,
        stderr=subprocess.PIPE,
    )
    os.close(writer)
    _, error = process.communicate(timeout=300)
    assert (process.returncode, b"Traceback" in error, b"BrokenPipe" in error) == (0, False, False), error


@pytest.mark.parametrize("door", ["train", "sweep", "evaluate", "oracle", "testbed", "reproduce"])
@pytest.mark.parametrize("flag", ["--help", "--helpfull", "-h"])
def test_help_is_no_error_and_shows_flags_in_groups(command, door, flag):
    done = command(door, flag)
    assert (done.status, done.err) == (0, "")
    assert "\n  --" in done.out
    assert ("--k_best" in done.out) == (flag == "--helpfull" and door != "testbed")


def test_a_byte_order_mark_is_taken(command, tmp_path):
    path = renamed(tmp_path, "marked")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert command("oracle", f"--scenario={path}", "--users=1").status == 0
