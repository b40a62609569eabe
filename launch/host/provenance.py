"""What made results: commit, machine, package versions."""

from __future__ import annotations

import dataclasses
import pathlib
import platform
import subprocess
from importlib import metadata

from launch.host import resources
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


def instructions() -> str | None:
    """What the processor can do, None where the system doesn't tell: a program compiled for more doesn't run on it."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(("flags", "Features"))), None)


@dataclasses.dataclass(frozen=True)
class Machine:
    """What computed."""

    system: str
    processor: str
    cores: int  # that this process may use
    python: str

    def __str__(self) -> str:
        return f"{self.cores} cores of {self.processor}, {self.system}, Python {self.python}"


def machine() -> Machine:
    """This one."""
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        processor=_processor(),
        cores=resources.cores(),
        python=platform.python_version(),
    )


def versions() -> dict[str, str]:
    """Of the packages that results depend on, where installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
