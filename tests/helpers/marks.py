"""Which tests start processes and which depend on the clock: said by markers, and found where it isn't said.

`process` and `clock` (pyproject.toml) are what `make check` leaves out; all tests of `clock` run one after another.
"""

from __future__ import annotations

import functools
import multiprocessing.process
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from typing import Any

import pytest

_ROOT = pathlib.Path(__file__).parent.parent.parent
_STARTS: tuple[tuple[Any, str], ...] = (
    (subprocess.Popen, "__init__"),
    (multiprocessing.process.BaseProcess, "start"),
    *((os, name) for name in ("fork", "forkpty", "posix_spawn", "posix_spawnp", "system")),
)
_CLOCKS = ("monotonic", "perf_counter", "process_time", "time")
# A training notes how long it took, whatever that was: what `launch` measures makes no test depend on the clock.
_READ_BY = tuple(str(_ROOT / folder) + os.sep for folder in ("tests", "edge_cloud"))
_SLEPT_BY = (*_READ_BY, str(_ROOT / "launch") + os.sep)

_patches = pytest.MonkeyPatch()
_seen: dict[str, str] = {}  # what the test that runs has done, by the marker that says so


def _told(original: Callable[..., Any], marker: str, what: str, callers: tuple[str, ...]) -> Callable[..., Any]:
    """The function, which also notes that it was called from a file in one of these folders."""

    @functools.wraps(original)
    def call(*arguments: Any, **named: Any) -> Any:
        file = sys._getframe(1).f_code.co_filename
        if marker not in _seen and file.startswith(callers):
            _seen[marker] = f"{what} in {file}"
        return original(*arguments, **named)

    return call


def watch() -> None:
    """From now on notes each start of a process, each sleep, and each look at a clock."""
    for owner, name in _STARTS:
        what = f"{owner.__name__}.{name}"
        _patches.setattr(owner, name, _told(getattr(owner, name), "process", what, ("",)))
    _patches.setattr(time, "sleep", _told(time.sleep, "clock", "time.sleep", _SLEPT_BY))
    for name in _CLOCKS:
        _patches.setattr(time, name, _told(getattr(time, name), "clock", f"time.{name}", _READ_BY))


def unwatch() -> None:
    """Notes nothing any more."""
    _patches.undo()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    """What fixtures do counts, too."""
    _seen.clear()
    yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Fails a test that did something which none of its markers says."""
    yield
    for marker, what in _seen.items():
        if item.get_closest_marker(marker) is None:
            pytest.fail(f"expected @pytest.mark.{marker}, found a test that calls {what}", pytrace=False)


def group(items: list[pytest.Item]) -> None:
    """Orders tests, and says which of them one worker runs one after another: those of a file; those of the clock.

    Those of the clock come first, so that they run beside tests of one thread; those that start processes, last.
    """

    def place(item: pytest.Item) -> int:
        if item.get_closest_marker("clock"):
            return 0
        return 2 if item.get_closest_marker("process") else 1

    items.sort(key=place)
    for item in items:
        kind = ("clock", "", "process")[place(item)]
        name = kind if kind == "clock" else f"{item.nodeid.partition('::')[0]} {kind}".strip()
        item.add_marker(pytest.mark.xdist_group(name))
