"""How JAX runs in the entry points. Import this before anything that computes."""

from __future__ import annotations

import os
import pathlib

from launch.host import files

# Before JAX starts: one thread a program. Seeds fill the cores, and results don't depend on how many there are.
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), "--xla_cpu_multi_thread_eigen=false"]).strip()


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, unless the user's environment says where already."""
    import jax  # here: a bare device runs `launch.node` without it

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
        cache = home / "hl_jax" / "jax" if files.INSTALLED else files.ROOT / ".cache" / "jax"
        jax.config.update("jax_compilation_cache_dir", str(cache))
