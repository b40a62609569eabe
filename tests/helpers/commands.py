"""Commands run in this process: no start of Python and JAX for each, and nothing stays behind."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from absl import app, flags
from absl.testing import flagsaver

from launch.host import errors
from launch.inputs import agents
from tests.helpers.imports import ROOT, needed_modules

FLAGS = flags.FLAGS
_defined: dict[str, dict[str, flags.Flag[Any]]] = {}  # flags by the module of `launch` that defines them


@dataclasses.dataclass(frozen=True)
class Done:
    """What a command left: its exit status, and what it wrote."""

    status: int
    out: str
    err: str


def _take_flags() -> set[str]:
    """Takes all flags of `launch` out, and remembers them. Returns the modules that they are of."""
    modules = set()
    for module, defined in FLAGS.flags_by_module_dict().items():
        if module.startswith("launch.") and defined:
            modules.add(module)
            for flag in list(defined):
                _defined.setdefault(module, {})[flag.name] = flag
                delattr(FLAGS, flag.name)
    return modules


def _put_flags(modules: set[str]) -> None:
    for module in modules & _defined.keys():
        for name, flag in _defined[module].items():
            FLAGS[name] = flag
            FLAGS.register_flag_by_module(module, flag)


def _forget_own_agents() -> None:
    """A user's agents, whose constants have become flags, are forgotten with them."""
    if "launch.inputs.flags" in sys.modules:
        kinds = sys.modules["launch.inputs.flags"]._KINDS
        for name in kinds.keys() - agents.NAMED.keys():
            del kinds[name]


@contextlib.contextmanager
def _only_flags_of(door: str) -> Iterator[Any]:
    """The command's module, while those flags alone are defined that it has as a process: doors use the same names."""
    before = _take_flags()
    try:
        _put_flags(set(needed_modules(door, "launch")))
        yield importlib.import_module(door)
    finally:
        _forget_own_agents()
        _take_flags()
        _put_flags(before)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs `python -m launch.NAME` with flags, as it is typed in a folder (the repository's root)."""
    # absl's own `run` would change this process's logging for good.
    monkeypatch.setattr(app, "run", lambda main, flags_parser: sys.exit(main(flags_parser(sys.argv))))

    def run(name: str, *arguments: str, cwd: pathlib.Path = ROOT) -> Done:
        door = f"launch.{name}.__main__" if (ROOT / "launch" / name).is_dir() else f"launch.{name}"
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", [f"launch.{name}", *arguments])
        with _only_flags_of(door) as module, flagsaver.flagsaver(), pytest.raises(SystemExit) as stopped:
            errors.run(module.main, getattr(module, "define_given_agent", lambda _: None))
        captured = capsys.readouterr()
        return Done(int(stopped.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def refused(command: Callable[..., Done], tmp_path: pathlib.Path) -> Callable[..., str]:
    """Runs a command that must refuse its flags, `launch.train` in a folder of its own. Returns its line on stderr."""

    def run(*arguments: str, name: str = "train", cwd: pathlib.Path = tmp_path) -> str:
        done = command(name, *arguments, cwd=cwd)
        assert done.status == 2, done.err
        assert done.out == ""
        lines = done.err.splitlines()
        assert len(lines) == 1, done.err
        return lines[0]

    return run
