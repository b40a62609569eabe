"""Runs a sweep's units on a Ray cluster (requirements-ray.txt). Nodes share no files with the sweep.

A node needs a checkout of the same commit with the same packages, on its PYTHONPATH. A unit is done in a temporary
folder of its node and its files come back as bytes; the sweep alone writes them, the summary last, so that a unit is
there whole and once, or not at all.
"""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import tempfile
import types
from typing import TYPE_CHECKING

from absl import flags

from launch.host import provenance, resources
from launch.host.errors import InputError
from launch.host.files import write_atomically
from launch.runs.folder import RunFolder
from launch.sweep.executors.slots import ONE_THREAD, Asked, Reply, WorkerLost
from launch.sweep.executors.worker import answer
from launch.sweep.plan import Unit

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

_ADDRESS = flags.DEFINE_string("ray_address", "", "Of the Ray cluster (HOST:PORT, auto); default: one on this machine.")
READY_S = 5.0  # how long to wait for a worker before looking again whether it is still needed
SAME = ("jax", "jaxlib", "flax", "optax", "chex", "numpy")  # packages that results depend on


class Worker:
    """The actor: does unit after unit on its node, so that JAX starts and programs compile once."""

    def about(self) -> dict[str, str | None]:
        """What results depend on here."""
        from launch.host.runtime import use_compilation_cache

        use_compilation_cache()
        versions = provenance.versions()
        return {"commit": provenance.commit()} | {name: versions[name] for name in SAME}

    def work(self, packed: bytes) -> tuple[Reply, dict[str, bytes]]:
        """Does a packed task. Returns the files that it leaves, too, by their path in the unit's folder."""
        with tempfile.TemporaryDirectory(prefix="hl_jax-sweep-") as place:
            folder = pathlib.Path(place) / "unit"
            reply = answer(packed, str(folder))
            paths = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
            return reply, {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


class RaySlot:
    """A place for one actor; it gets another, wherever the cluster has room, after it died."""

    def __init__(self, ray: types.ModuleType, asked: Asked, number: int) -> None:
        self._ray, self._asked, self._name = ray, asked, f"ray-{number}"
        self._actor: ActorHandle | None = None
        self._about: ObjectRef | None = None  # the actor's first answer, until it came

    def _drop(self) -> None:
        if self._actor is not None:
            with contextlib.suppress(Exception):
                self._ray.kill(self._actor)
        self._actor = self._about = None

    def ready(self) -> bool:
        if self._actor is None:
            own = self._ray.remote(num_cpus=1, max_restarts=0, runtime_env={"env_vars": ONE_THREAD})(Worker)
            self._actor = own.remote()
            self._about = self._actor.about.remote()
        if self._about is None:
            return True
        came, _ = self._ray.wait([self._about], timeout=READY_S)
        if not came:
            return False
        try:
            found = self._ray.get(self._about)
        except self._ray.exceptions.RayTaskError as error:
            raise InputError(f"--executor=ray: expected a node that can import this checkout, found {error}") from error
        except self._ray.exceptions.RayError:
            self._drop()
            return False
        self._about = None
        mine = Worker().about()
        if found != mine:
            raise InputError(f"--executor=ray: expected nodes with {mine}, found one with {found}")
        return True

    def run(self, unit: Unit) -> Reply:
        assert self._actor is not None
        packed = self._asked.task(unit, "", self._name).packed()
        try:
            reply, files = self._ray.get(self._actor.work.remote(packed))
        except self._ray.exceptions.RayError as error:
            self._drop()
            raise WorkerLost(f"Ray worker ended ({type(error).__name__})") from error
        if not reply.accepted().error:
            write_files(unit.run_folder(self._asked.out), files)
        return reply

    def interrupt(self) -> None:
        self._drop()

    def close(self) -> None:
        self._drop()


def write_files(run: RunFolder, files: dict[str, bytes]) -> None:
    """A finished unit's files, its summary last."""
    shutil.rmtree(run.checkpoints, ignore_errors=True)  # of a local sweep that was interrupted
    for name in sorted(files, key=lambda name: (name == run.summary_file.name, name)):
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(run.path / name, files[name])


def slots(asked: Asked) -> list[RaySlot]:
    """As many places as the cluster has CPUs, or as are asked for.

    Raises:
      InputError: if Ray isn't installed, or the cluster can't be reached.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError(f"--executor=ray: expected requirements-ray.txt installed, found {error}") from error
    address = _ADDRESS.value
    options: dict[str, str | bool | int] = {"log_to_driver": False, "logging_level": "warning"}
    if address:
        options["address"] = address
    else:
        options |= {"include_dashboard": False, "num_cpus": asked.workers or resources.cores()}
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise InputError(
            f"--ray_address: expected a Ray cluster at {address or 'this machine'}, found {error}"
        ) from error
    count = asked.workers or max(int(ray.cluster_resources().get("CPU", 1)), 1)
    return [RaySlot(ray, asked, number) for number in range(count)]
