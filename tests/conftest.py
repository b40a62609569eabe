"""Strictness for every test: ranks must match, keys are used once, NaNs raise. Compiled code is kept on disk."""

from __future__ import annotations

import os
import pathlib
import signal
from collections.abc import Iterator

import hypothesis
import jax
import pytest

_ROOT = pathlib.Path(__file__).parent.parent
# A directory per worker: JAX doesn't write its cache atomically. In the environment, so that the entry points
# that tests run as processes of their own share it.
_CACHE = _ROOT / ".cache" / "jax" / os.environ.get("PYTEST_XDIST_WORKER", "main")
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(_CACHE)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

jax.config.update("jax_compilation_cache_dir", str(_CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_debug_nans", True)

# A shell that starts something in the background has it ignore Ctrl-C, and all that it starts; some tests send that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A first call compiles, so no example has a deadline; in CI every run tries the same examples.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(scope="module", autouse=True)
def _compiled_code_is_given_back() -> Iterator[None]:
    """Each program keeps some mappings of memory; a process may hold 65,530 of them, and dies in XLA at the next."""
    yield
    jax.clear_caches()
