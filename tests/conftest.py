"""Strictness for every test: ranks must match, keys are used once, NaNs raise. Compiled code is kept on disk."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pathlib
import signal
from collections.abc import Iterator

import hypothesis
import jax
import pytest

# What tests wait for is the compiler. Without its newer way to fuse loops, and with fewer of LLVM's passes, it takes
# two fifths of the time, and what comes out runs as fast at the sizes of tests. What the environment says goes before:
# `make smoke` compiles as users do.
os.environ["XLA_FLAGS"] = " ".join(
    [
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_backend_optimization_level=1",
        "--xla_llvm_disable_expensive_passes=true",
        os.environ.get("XLA_FLAGS", ""),
    ]
)

from launch.host import runtime  # adds to XLA's flags
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


_sizes: dict[pathlib.Path, int] = {}  # of others' compiled programs, when they were last looked at


def _share() -> None:
    """Gives this worker what all have compiled, in earlier runs or in this one: which tests it gets is chance."""
    _CACHE.mkdir(parents=True, exist_ok=True)
    own = {file.name for file in _CACHE.iterdir()}
    for file in _CACHES.glob("*/*-cache"):
        # One that another is just writing is whole the next time, and then its size is the same.
        with contextlib.suppress(FileExistsError, FileNotFoundError):
            before, _sizes[file] = _sizes.get(file), file.stat().st_size
            if file.name not in own and before == _sizes[file]:
                (_CACHE / file.name).hardlink_to(file)


def pytest_configure() -> None:
    """What earlier runs have compiled is whole."""
    runtime.collect_seldom()
    marks.watch()
    _share()
    _share()


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
def _compiled_code_is_shared_and_given_back() -> Iterator[None]:
    _share()
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
