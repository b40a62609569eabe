"""One command at a time in a folder: real processes, one of them killed."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest

from launch.host import files, locks
from launch.host.errors import InputError
from launch.host.locks import Occupied
from launch.runs.folder import RunFolder, new_folder
from tests.helpers.imports import ROOT

FLAGFILE = f"--flagfile={ROOT / 'expA.flags'}"
HOLDER = """
import pathlib, sys
from launch.host import locks
with locks.held(pathlib.Path(sys.argv[1])):
    print(flush=True)
    input()
"""


@contextlib.contextmanager
def another_process(folder):
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.process
def test_a_second_process_is_told_who_works_there(tmp_path):
    with another_process(tmp_path) as process:
        expected = rf"--run_dir: expected no other command at work in .*, found \S+ on \S+, process {process.pid} \("
        with pytest.raises(Occupied, match=expected), locks.held(tmp_path):
            raise AssertionError("expected to be kept out")
        process.send_signal(signal.SIGKILL)
        process.wait()
        with locks.held(tmp_path):  # the system took the dead one's back
            assert (tmp_path / locks.NAME).exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.process
def test_a_train_is_refused_beside_another_in_its_folder(tmp_path, refused):
    with another_process(tmp_path / "run"):
        for more in ((), ("--resume",)):
            error = refused(FLAGFILE, "--users=1", f"--run_dir={tmp_path / 'run'}", *more, cwd=ROOT)
            assert "--run_dir: expected no other command at work in" in error
    for door, flags in (("reproduce", ()), ("beyond", ("--rows=",)), ("sweep", (FLAGFILE, "--grid=k_best=1"))):
        with another_process(tmp_path / door):
            error = refused(f"--run_dir={tmp_path / door}", *flags, name=door, cwd=ROOT)
            assert "expected no other command at work in" in error


def test_many_threads_take_turns_and_leave_nothing(tmp_path):
    """Each holds a file of its own, as processes do; who waits gets it in the end, whoever removed the lock file."""
    inside, most, turns = [], [], 100

    def work():
        for _ in range(turns):
            with locks.held(tmp_path / "here", wait=True):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(most) == 4 * turns
    assert not (tmp_path / "here" / locks.NAME).exists()


@pytest.mark.parametrize("name", ["here", "here/.lock"])
def test_a_link_to_nowhere_is_told(tmp_path, name):
    """And not tried for ever."""
    if "/" in name:
        (tmp_path / "here").mkdir()
    (tmp_path / name).symlink_to(tmp_path / "nowhere" / "at all")
    told = "expected a folder that can be made and written"
    with pytest.raises(InputError, match=told), locks.held(tmp_path / "here"):
        pass


def test_a_folder_that_goes_while_it_is_made_is_made_again(tmp_path, monkeypatch):
    """As it is when another command ends between two of the calls that make it."""
    real, times = pathlib.Path.mkdir, []

    def mkdir(self, *arguments, **named):
        times.append(self)
        if len(times) == 1:
            raise FileExistsError(str(self))  # it was there; but whoever looks now finds nothing
        real(self, *arguments, **named)

    monkeypatch.setattr(pathlib.Path, "mkdir", mkdir)
    with locks.held(tmp_path / "here"):
        assert (tmp_path / "here" / locks.NAME).exists()


def test_a_folder_that_was_there_stays(tmp_path):
    with locks.held(tmp_path):
        pass
    assert tmp_path.is_dir()


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match="--state_dir: expected a folder that can be made and written, found"),
        locks.held(tmp_path / "file" / "x", "--state_dir"),
    ):
        pass


def test_writes_that_were_cut_off_are_cleared_by_who_holds_the_folder_next(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)
    cut_off = [run.path / ".summary.json.12-00ab12cd.tmp", run.checkpoints / ".group-0000.ckpt.9-0123abcd.tmp"]
    kept = [run.path / "mine.tmp", run.path / ".mine.tmp", run.metrics]
    for path in cut_off + kept:
        path.write_text("")
    with run.held():
        assert [path.exists() for path in cut_off + kept] == [False, False, True, True, True]


def test_writers_of_one_file_share_no_temporary_name(tmp_path):
    """Two at once: each write succeeds, and what is there afterwards is one of them, whole."""
    path, failures = tmp_path / "checkpoint", []

    def write(letter):
        for _ in range(200):
            try:
                files.write_atomically(path, letter * 10_000)
            except InputError as error:
                failures.append(error)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        with contextlib.suppress(FileNotFoundError):
            assert len(set(path.read_bytes())) == 1
    assert failures == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint"]
    assert len(path.read_bytes()) == 10_000


def test_two_runs_of_one_second_get_two_folders(tmp_path, monkeypatch):
    """Also where both choose the name before either has made it."""
    monkeypatch.chdir(tmp_path)
    with contextlib.ExitStack() as closing:
        found = [new_folder("A-hybrid-20260102-030405", closing).path for _ in range(3)]
        assert [str(path) for path in found] == [f"runs/A-hybrid-20260102-030405{end}" for end in ("", "-2", "-3")]
        assert all((path / locks.NAME).exists() for path in found)
    assert os.listdir("runs") == []
