"""Flag files: any bytes, byte-order marks, files beside them, files that name themselves."""

from __future__ import annotations

import pathlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.host import flagfiles
from launch.host.errors import InputError
from tests.helpers.builders import ROOT


def expanded(*arguments):
    return flagfiles.expanded(["train", *arguments])[1:]


def test_flags_stand_in_the_place_of_their_file(tmp_path):
    (tmp_path / "inner.flags").write_text("--noise=0.1\n")
    (tmp_path / "outer.flags").write_text(
        "# a comment\n// another\n\n--users=2\n--flagfile=inner.flags\n  --seeds=3  \n"
    )
    outer = tmp_path / "outer.flags"
    expected = ["--a", "--users=2", "--noise=0.1", "--seeds=3", "--b"]
    assert expanded("--a", f"--flagfile={outer}", "--b") == expected
    assert expanded("--a", "--flagfile", str(outer), "--b") == expected
    assert expanded("--", f"--flagfile={outer}") == ["--", f"--flagfile={outer}"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_byte_order_mark_and_other_line_ends_are_taken(tmp_path, end):
    path = tmp_path / "windows.flags"
    path.write_bytes(b"\xef\xbb\xbf" + f"--users=2{end}--constraint=é{end}".encode())
    assert expanded(f"--flagfile={path}") == ["--users=2", "--constraint=é"]


def test_files_beside_it_are_meant_and_results_go_to_the_current_folder(tmp_path, monkeypatch):
    other = tmp_path / "elsewhere"
    other.mkdir()
    (tmp_path / "mine.toml").write_text("")
    (tmp_path / "run").mkdir()
    path = tmp_path / "mine.flags"
    path.write_text(
        "--scenario=mine.toml\n--calibration=none.json\n--run_dir=run\n--run_dirs=run,run\n--users=mine.toml\n"
    )
    monkeypatch.chdir(other)
    assert expanded(f"--flagfile={path}") == [
        f"--scenario={tmp_path / 'mine.toml'}",
        "--calibration=none.json",  # not there: as it is typed, so that it is told as it is typed
        "--run_dir=run",
        f"--run_dirs={tmp_path / 'run'},{tmp_path / 'run'}",
        "--users=mine.toml",
    ]
    assert expanded("--scenario=mine.toml") == ["--scenario=mine.toml"]


def test_our_own_flag_files_work_from_any_folder(tmp_path, command):
    done = command("oracle", f"--flagfile={ROOT / 'expA.flags'}", "--users=1", cwd=tmp_path)
    assert done.status == 0, done.err


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"--scenario=caf\xe9.toml\n", "flagfile: expected UTF-8 text, found byte 14 that is not, in "),
        (b"--flagfile=PLACE", "flagfile: expected files that don't name themselves, found "),
        (b"--flagfile=none.flags", "flagfile: expected a readable file, found No such file or directory at none.flags"),
        (b"--flagfile", "flagfile: expected a readable file, found "),
    ],
)
def test_what_is_no_flag_file_is_told_in_one_line(tmp_path, refused, content, expected):
    path = tmp_path / "some.flags"
    path.write_bytes(content.replace(b"PLACE", str(path).encode()))
    assert f"error: {expected}" in refused(f"--flagfile={path}")


def test_a_folder_and_a_path_with_a_zero_byte_are_told(tmp_path):
    with pytest.raises(InputError, match="flagfile: expected a readable file, found Is a directory"):
        expanded(f"--flagfile={tmp_path}")
    with pytest.raises(InputError, match="flagfile: expected"):
        expanded("--flagfile=a\x00b")


@given(st.lists(st.binary(max_size=40), max_size=3))
def test_any_bytes_raise_nothing_but_input_errors(tmp_path_factory, contents):
    folder: pathlib.Path = tmp_path_factory.mktemp("flags")
    paths = [folder / f"{index}.flags" for index in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    error, found = None, []
    try:
        found = expanded(*(f"--flagfile={path}" for path in paths))
    except InputError as reason:
        error = str(reason)
    assert all(line.strip() == line and line for line in found)
    assert error is None or re.match(r"flagfile: expected .* found ", error, re.DOTALL)
