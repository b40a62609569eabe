"""Strictness for every test: ranks must match, keys are used once, NaNs raise. Compiled code is kept on disk."""

from __future__ import annotations

import importlib.util
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

if importlib.util.find_spec("grpc") is None and not os.environ.get("CI"):
    # A developer without the packages of requirements-testbed.txt; in CI their absence is an error.
    collect_ignore_glob = ["edge_cloud/*", "launch/fleet/*", "launch/runs/test_on_fleet.py"]
    collect_ignore = ["launch/test_testbed.py", "launch/test_twin_commands.py"]

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


@pytest.fixture(scope="session")
def model_dir() -> pathlib.Path:
    """Folder of the eight models, built once and kept between runs."""
    from tests.helpers import fleets  # needs the packages of requirements-testbed.txt

    return fleets.built_models()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Certificates for the nodes of `fleets.inventory`."""
    from tests.helpers import fleets

    folder = tmp_path_factory.mktemp("certificates")
    fleets.make_certificates(folder)
    return folder
