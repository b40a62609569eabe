"""One command at a time in a folder: a lock that the system takes back from a process that died."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import getpass
import os
import pathlib
import socket
import sys
from collections.abc import Iterator
from typing import IO

from launch.host.errors import InputError

NAME = ".lock"
TRIES = 100  # each fails only if another command ends in the same microseconds


class Occupied(InputError):
    """Another command is at work in the folder; the message says which."""


def described() -> str:
    """This process, for people: user, machine, number, command, and since when."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = str(os.getuid())
    command = pathlib.Path(sys.argv[0])
    name = command.parent.name if command.stem == "__main__" else command.stem
    now = datetime.datetime.now().isoformat(sep=" ", timespec="seconds")
    return f"{user} on {socket.gethostname()}, process {os.getpid()} ({name or 'python'}), since {now}"


def _holder(path: pathlib.Path) -> str:
    """Who holds it, as it says; nothing if it has just been given back."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_text(encoding="utf-8", errors="replace").strip()
    return ""


def _opened(path: pathlib.Path) -> IO[str]:
    """The lock file, in a folder that is made if it isn't there.

    Who held it last may take the folder away between any two of these calls; then it is tried again. But not for
    ever: elsewhere (under /proc, through a link to nowhere) the same errors never end.
    """
    for left in reversed(range(TRIES)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return path.open("a+", encoding="utf-8")
        except (FileNotFoundError, FileExistsError):
            if not left:
                raise
    raise AssertionError("the last try returns or raises")


def _locked(path: pathlib.Path, wait: bool) -> IO[str] | None:
    """The lock file, held, with this process's name in it; None where another process holds it."""
    while True:
        file = _opened(path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            # Who held it before may have removed it: what is locked now is then no longer what others will find.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    file.truncate(0)
                    file.write(described() + "\n")
                    file.flush()
                    return file
        except BlockingIOError:
            file.close()
            return None
        except BaseException:
            file.close()
            raise
        file.close()


@contextlib.contextmanager
def held(folder: pathlib.Path, flag: str = "--run_dir", name: str = NAME, wait: bool = False) -> Iterator[None]:
    """Keeps other processes out of a folder, which is made if it isn't there and taken away again if it stays empty.

    Args:
      folder: which one.
      flag: what names it, for the message.
      name: of the lock file in it.
      wait: whether to wait for another process, or to refuse.

    Raises:
      Occupied: if another process holds it, who is named.
      InputError: if it can't be made or written.
    """
    path, made = folder / name, not folder.exists()
    try:
        file = _locked(path, wait)
        holder = "" if file else _holder(path)
    except OSError as error:
        found = f"found {error.strerror} at {error.filename or path}"
        raise InputError(f"{flag}: expected a folder that can be made and written, {found}") from error
    if file is None:
        raise Occupied(f"{flag}: expected no other command at work in {folder}, found {holder or 'one'}")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()  # refused unless it is still empty
