"""Files that are either whole or as they were before, and JSON that a command leaves and a later one reads."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import secrets
from collections.abc import Iterator

from launch.host.errors import InputError

_LAUNCH = pathlib.Path(__file__).parents[1]
_WHEEL = _LAUNCH / "_wheel"  # only in an installed wheel: what commands read of the repository (pyproject.toml)
INSTALLED = _WHEEL.is_dir()
ROOT = _WHEEL if INSTALLED else _LAUNCH.parent  # of the repository


def located(path: str | pathlib.Path) -> pathlib.Path:
    """A file that is given, or one that comes with hl_jax: data/… is found there from any folder."""
    path = pathlib.Path(path)
    ours = ROOT / path
    return ours if path.parts[:1] == ("data",) and not path.exists() and ours.exists() else path


def name_of(text: str) -> str:
    """A user's text as part of a file's name: it leads to no other folder, and needs no quotes in a shell."""
    kept = "".join(one if one.isalnum() or one in "-_." else "_" for one in text)
    return kept.encode()[:80].decode(errors="ignore").lstrip(".") or "_"


_TEMPORARY = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.tmp")


def clear_cut_off(folder: pathlib.Path) -> None:
    """Takes away what writes in a folder left that were cut off; its holder alone may, since others' are at work."""
    for path in folder.glob(".*.tmp"):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a temporary file's path; what was written there replaces `path` at the end, or `path` stays as it was.

    Raises:
      InputError: if the disk is full or the folder can't be written.
    """
    # Nobody else's name: another process may be writing the same file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        found = f"found {error.strerror} at {path}; earlier files are kept"
        raise InputError(f"{path.name}: expected a file that can be written, {found}") from error


def write_atomically(path: pathlib.Path, content: bytes) -> None:
    """Replaces `path` by `content`, or leaves it as it was.

    Raises:
      InputError: if the disk is full or the folder can't be written.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: pathlib.Path, content: object, indent: int | None = 1) -> None:
    """Replaces `path` by plain data as JSON.

    Raises:
      InputError: if the disk is full or the folder can't be written.
      ValueError: for a number that isn't finite, which no JSON is: whoever has one says what it means.
    """
    text = json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False) + "\n"
    # A path that is no UTF-8 holds lone surrogates; written so, they are JSON's own escapes.
    write_atomically(path, text.encode("utf-8", "backslashreplace"))


def read_json(path: pathlib.Path) -> object:
    """A file's content; None where there is no such file.

    Raises:
      InputError: if it is there but can't be read, or isn't JSON.
    """
    try:
        content: object = json.loads(path.read_text(encoding="utf-8"))
        return content
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(f"{path.name}: expected a readable file, found {error.strerror} at {path}") from error
    except ValueError as error:
        raise InputError(f"{path.name}: expected JSON, found {error} in {path.parent}") from error
