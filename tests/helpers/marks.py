"""Which tests start processes and which depend on the clock: said by markers, and found where it isn't said.

`process` and `clock` (pyproject.toml) are what `make check` leaves out; `make test` runs the latter by themselves.
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
    """Fails a test that did what no marker of its says. Who starts a process may look whether it ended."""
    yield
    said = {marker.name for marker in item.iter_markers()}
    for marker, what in _seen.items():
        if not said & {marker, "process"}:
            pytest.fail(f"expected @pytest.mark.{marker}, found a test that calls {what}", pytrace=False)


def _place(item: pytest.Item) -> tuple[int, str]:
    """When a test's turn comes, and with which others one worker runs it (with none: '')."""
    if item.get_closest_marker("clock"):
        return 0, "clock"
    if item.get_closest_marker("process"):
        return 2, "uninterrupted" if "uninterrupted" in getattr(item, "fixturenames", ()) else ""
    return 1, item.nodeid.partition("::")[0]


def group(items: list[pytest.Item]) -> None:
    """Orders tests, and says which of them one worker runs one after another.

    Those of the clock come first, so that they run beside tests of one process. What a file's tests compile serves all
    of them. Those that start processes come last, each wherever there is room, unless they share a training.
    """
    items.sort(key=lambda item: _place(item)[0])
    for item in items:
        if name := _place(item)[1]:
            item.add_marker(pytest.mark.xdist_group(name))
