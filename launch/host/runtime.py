"""How JAX runs in the entry points. Import this before anything that computes."""

from __future__ import annotations

import contextlib
import gc
import os
import pathlib
import warnings

from launch.host import files
from launch.host.errors import InputError

# Before JAX starts: one thread a program. Seeds fill the cores, and results don't depend on how many there are.
# Numbers are float32 and int32 in all that is learned and recorded here, whatever the user's other programs want.
os.environ |= {"JAX_ENABLE_X64": "0", "JAX_NUMPY_DTYPE_PROMOTION": "standard"}
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), "--xla_cpu_multi_thread_eigen=false"]).strip()


def collect_seldom() -> None:
    """Looks for garbage after 50,000 new objects, not 700: tracing a program makes a million that all stay in use."""
    gc.set_threshold(50_000, 20, 100)


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, unless the user's environment says where already.

    Raises:
      InputError: if the environment names a platform that isn't here.
    """
    import jax  # here: a bare device runs `launch.node` without it

    collect_seldom()
    try:
        jax.devices()
    except RuntimeError as error:
        found = f"{os.environ.get('JAX_PLATFORMS', '')!r} ({' '.join(str(error).split())[:160]})"
        raise InputError(f"JAX_PLATFORMS: expected a platform that JAX finds here, found {found}") from error
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
        cache = home / "hl_jax" / "jax" if files.INSTALLED else files.ROOT / ".cache" / "jax"
        jax.config.update("jax_compilation_cache_dir", str(cache))
    # A cache that can't be written or read only costs time: what is wrong with the disk is told where it matters.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache")


# Each compiled program keeps some mappings of memory (those of `factored` 4,000 each). A process may hold 65,530 of
# them under Linux's default, and dies in XLA at the next.
MOST_MAPPINGS = 20_000


def make_room() -> None:
    """Gives compiled programs back if they have become many: for processes that compile for fleet after fleet."""
    import jax

    with contextlib.suppress(OSError):  # another system has no such file, nor this limit
        if pathlib.Path("/proc/self/maps").read_bytes().count(b"\n") > MOST_MAPPINGS:
            jax.clear_caches()
