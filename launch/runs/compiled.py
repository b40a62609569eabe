"""An agent's compiled epoch, kept on disk: a later run of the same program neither traces nor compiles it again.

JAX's own cache keeps what the compiler made, but to find it there the program must be traced and lowered, which takes
longer than loading it. Here it goes by what it is made from: the agent, the arguments' shapes, hl_jax's source,
versions and machine. Agents of a user's own aren't kept, since nobody tells which source they depend on.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pathlib
import pickle
from collections.abc import Hashable

import jax
import jax.numpy as jnp
from jax.experimental import serialize_executable
from jax.stages import Compiled

import hl_jax
from hl_jax import training
from hl_jax.agents.world import Agent
from launch.host import provenance
from launch.host.errors import InputError
from launch.host.files import write_atomically

_OWN = {"xla_embed_ir_in_executable": False}  # as it is anyway; but an option that is given makes it another program

_LAST: dict[Hashable, Compiled] = {}


def epoch(agent: Agent, arguments: tuple[object, ...]) -> Compiled:
    """The compiled epoch of `training.programs` for arguments of these shapes; the last one stays in memory."""
    leaves, structure = jax.tree.flatten(arguments)
    key = (agent, structure, tuple(jax.typeof(leaf) for leaf in leaves))
    if key not in _LAST:
        _LAST.clear()
        path = _path("epoch", (type(agent), agent, str(key[1:]), _source())) if _is_kept(agent) else None
        _LAST[key] = (path and _load(path)) or _compile(agent, arguments, path)
    return _LAST[key]


@functools.cache
def _source() -> str:
    """A digest of hl_jax's source."""
    root = pathlib.Path(hl_jax.__file__).parent
    files = {str(file.relative_to(root)): file.read_bytes() for file in sorted(root.rglob("*.py"))}
    return hashlib.sha256(repr(files).encode()).hexdigest()


def _path(kind: str, made_from: object) -> pathlib.Path:
    """Where something of a kind is kept that is made from this, by these versions, settings and this machine."""
    settings = [f"{name}={value}" for name, value in sorted(jax.config.values.items()) if "cache" not in name]
    machine = (jax.devices()[0].device_kind, provenance.instructions(), provenance.versions(), provenance.machine())
    whole = repr((made_from, settings, os.environ.get("XLA_FLAGS"), machine))
    folder = pathlib.Path(jax.config.values["jax_compilation_cache_dir"])
    return folder / f"hl_jax-{kind}-{hashlib.sha256(whole.encode()).hexdigest()}-cache"


def _is_kept(agent: Agent) -> bool:
    """Whether somebody asked for a cache, the agent is one of ours, and it is known what this machine can run."""
    asked = bool(jax.config.values["jax_compilation_cache_dir"])
    return asked and type(agent).__module__.startswith("hl_jax.") and provenance.instructions() is not None


def _load(path: pathlib.Path) -> Compiled | None:
    """What is kept there, if that can still be used."""
    try:
        digest, _, content = path.read_bytes().partition(b"\n")
        if hashlib.sha256(content).hexdigest().encode() != digest:
            return None  # damaged: a program that still ran might compute anything
        payload, inside, outside = pickle.loads(content)
        return serialize_executable.deserialize_and_load(payload, inside, outside)
    except Exception:  # noqa: BLE001 -- whatever is wrong with a file that is only there to save time
        return None


def _compile(agent: Agent, arguments: tuple[object, ...], path: pathlib.Path | None) -> Compiled:
    """Compiles the program, and keeps it if it works when it is loaded again."""
    lowered = training.programs(agent)[1].lower(*arguments)
    if path is None:
        return lowered.compile()
    # Source that changes seldom changes the program.
    program = _path("program", lowered.as_text())
    if found := _load(program):
        _link(program, path)
        return found
    # What comes out of JAX's own cache can't be written again: this program must neither be found there nor get in.
    before = jax.config.values["jax_persistent_cache_min_compile_time_secs"]
    jax.config.update("jax_persistent_cache_min_compile_time_secs", float("inf"))
    try:
        compiled = lowered.compile(_OWN)
    finally:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", before)
    try:
        parts = serialize_executable.serialize(compiled)
        again = serialize_executable.deserialize_and_load(*parts)
        jax.block_until_ready(again(*jax.tree.map(jnp.copy, arguments)))  # a copy: the program uses them up
        content = pickle.dumps(parts)
        write_atomically(program, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
        _link(program, path)
    except (InputError, ValueError, TypeError, RuntimeError, pickle.PicklingError):
        pass  # a disk that is full, or a device whose programs can't be written: it is compiled again the next time
    return compiled


def _link(program: pathlib.Path, path: pathlib.Path) -> None:
    """Lets what is kept at `program` be found at `path`, too; where that can't be, it is traced again the next time."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
        path.hardlink_to(program)
