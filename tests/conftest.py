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

from launch.host import runtime  # sets XLA's flags
from tests.helpers import marks
from tests.helpers.commands import command, refused  # noqa: F401 - fixtures
from tests.helpers.marks import pytest_runtest_call, pytest_runtest_setup  # noqa: F401 - hooks
from tests.helpers.training_runs import uninterrupted  # noqa: F401 - a fixture

_ROOT = pathlib.Path(__file__).parent.parent
# A worker inherits the flags, and has just added them again; what is compiled under others isn't found in the cache.
os.environ["XLA_FLAGS"] = " ".join(dict.fromkeys(os.environ["XLA_FLAGS"].split()))
# A directory per worker: JAX doesn't write its cache atomically. In the environment, so that the entry points
# that tests run as processes of their own share it.
_CACHES = _ROOT / ".cache" / "jax"
_CACHE = _CACHES / os.environ.get("PYTEST_XDIST_WORKER", "main")
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(_CACHE)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
# A GPU's own cache, whose path would be part of every key: what one worker compiled, no other would find.
os.environ["JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES"] = "none"

jax.config.update("jax_compilation_cache_dir", str(_CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
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


def pytest_configure(config: pytest.Config) -> None:
    """Before any worker starts, gives each what all have compiled in earlier runs: which tests it gets is chance."""
    marks.watch()
    if hasattr(config, "workerinput"):
        return
    count = getattr(config.option, "numprocesses", None)
    compiled = {file.name: file for file in _CACHES.glob("*/*-cache")}
    for folder in [_CACHES / f"gw{number}" for number in range(count)] if count else [_CACHE]:
        folder.mkdir(parents=True, exist_ok=True)
        for name in compiled.keys() - {file.name for file in folder.iterdir()}:
            os.link(compiled[name], folder / name)


def pytest_unconfigure() -> None:
    """Leaves the process as it was."""
    marks.unwatch()


def pytest_ignore_collect(collection_path: pathlib.Path, config: pytest.Config) -> bool | None:
    """With `-m smoke` alone, files without such a test aren't imported: not all that they need may be installed."""
    if config.option.markexpr != "smoke" or not collection_path.name.startswith("test_"):
        return None
    return "mark.smoke" not in collection_path.read_text(encoding="utf-8") or None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tells the workers of pytest-xdist which tests belong together."""
    if hasattr(config, "workerinput"):
        marks.group(items)


@pytest.fixture(scope="module", autouse=True)
def _compiled_code_is_given_back() -> Iterator[None]:
    yield
    runtime.make_room()  # the file of tests that adds most mappings adds 28,000


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
