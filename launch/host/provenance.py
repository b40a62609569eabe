"""What made results: commit, machine, package versions, and the log of earlier calls of `reproduce` and `sweep`."""

from __future__ import annotations

import json
import os
import pathlib
import platform
import subprocess
from importlib import metadata
from typing import Any

from launch.host.errors import InputError
from launch.host.files import ROOT

PACKAGES = ("jax", "jaxlib", "flax", "optax", "chex", "numpy", "scipy", "gymnasium", "stable-baselines3", "torch")


def commit() -> str | None:
    """The repository's commit, with `+` where tracked files differ from it; None outside a repository."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        # A surrounding repository, of which this folder isn't the root, is another project's.
        if pathlib.Path(git("rev-parse", "--show-toplevel")).resolve() != ROOT.resolve():
            return None
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    """What computed: system, processor, cores that this process may use."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Of the packages that results depend on, where installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def read_log(folder: pathlib.Path) -> dict[str, Any]:
    """What earlier calls noted about each unit's making."""
    path = folder / "log.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"units": {}, "peak_memory_gib": 0.0}
    except (OSError, ValueError) as error:
        raise InputError(f"log.json: expected a log of units of work, found {error} in {folder}") from error
