"""Files that are whole or as they were, and JSON that comes back as it was given."""

from __future__ import annotations

import errno
import os
import pathlib
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.host import files
from launch.host.errors import InputError

# Every character, lone surrogates too: a path on disk that is no UTF-8 holds them.
TEXT = st.text(st.characters(exclude_categories=()))


@given(st.dictionaries(TEXT, TEXT | st.integers() | st.none()))
def test_what_is_written_is_read(content):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "data.json"
        files.write_json(path, content)
        # Two lone surrogates beside each other are one character to JSON, as they are to everyone else.
        assert files.read_json(path) == _joined(content)
        path.read_text(encoding="utf-8")


def _joined(value):
    if isinstance(value, dict):
        return {_joined(key): _joined(entry) for key, entry in value.items()}
    return (
        value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass") if isinstance(value, str) else value
    )


def test_nothing_there_is_none_and_nothing_else_is(tmp_path):
    assert files.read_json(tmp_path / "none.json") is None
    (tmp_path / "file").write_text("{}")
    assert files.read_json(tmp_path / "file" / "none.json") is None
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(InputError, match=r"folder\.json: expected a readable file, found Is a directory"):
        files.read_json(tmp_path / "folder.json")
    for content in (b"", b"{", b"\xff"):
        (tmp_path / "bad.json").write_bytes(content)
        with pytest.raises(InputError, match=r"bad\.json: expected JSON, found"):
            files.read_json(tmp_path / "bad.json")


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "data.json"
    files.write_json(path, [1])

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"expected a file that can be written, .* earlier files are kept"):
        files.write_json(path, [2])
    assert files.read_json(path) == [1]
    assert list(tmp_path.iterdir()) == [path]
