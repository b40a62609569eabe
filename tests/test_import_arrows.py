"""Who may import whom: launch -> {hl_jax, edge_cloud}, and the pure package touches nothing of the outside world."""

from __future__ import annotations

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGES = ("hl_jax", "launch", "edge_cloud")
MOST_LINES = 400

# Files, clocks, logging, processes, sockets and global randomness belong to entry points.
IMPURE = {
    *(
        "absl",
        "grpc",
        "launch",
        "edge_cloud",
        "logging",
        "time",
        "datetime",
        "os",
        "io",
        "pathlib",
        "tempfile",
        "shutil",
    ),
    *(
        "glob",
        "sys",
        "subprocess",
        "threading",
        "multiprocessing",
        "socket",
        "asyncio",
        "random",
        "secrets",
        "requests",
    ),
    *("json", "tomllib", "csv", "pickle", "sqlite3", "urllib", "http", "tensorboardX", "matplotlib", "tqdm", "orbax"),
}
FORBIDDEN = {
    "hl_jax": IMPURE,
    "edge_cloud": {"jax", "jaxlib", "flax", "optax", "chex", "orbax", "hl_jax", "launch"},
    "launch": set(),
}
ADAPTER = "launch/adapter.py"


def imported_modules(source: str, package: str) -> set[str]:
    """Full names of the modules that a file imports, anywhere in it; relative ones resolved against `package`."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            found.add(".".join(part for part in (base, node.module) if part))
            # `from package import submodule` imports the submodule too.
            found |= {".".join(part for part in (base, node.module, alias.name) if part) for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("__import__", "importlib.import_module"):
            found |= {argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)}
    return found


def violations(root: pathlib.Path) -> list[str]:
    """One line per import under `root` that goes against an arrow."""
    wrong = []
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            place = file.relative_to(root).as_posix()
            source = file.read_text(encoding="utf-8")
            modules = imported_modules(source, ".".join(file.relative_to(root).parent.parts))
            tops = {module.split(".")[0] for module in modules}
            wrong += [f"{place} imports {name}" for name in sorted(tops & FORBIDDEN[package])]
            if {"hl_jax", "edge_cloud"} <= tops and place != ADAPTER:
                wrong.append(f"{place} imports both hl_jax and edge_cloud, which only {ADAPTER} may")
            if package == "hl_jax" and "open" in called_names(source):
                wrong.append(f"{place} opens a file")
    return wrong


def called_names(source: str) -> set[str]:
    """Plain function names that a file calls."""
    calls = (node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return {function.id for function in calls if isinstance(function, ast.Name)}


def long_files(root: pathlib.Path) -> list[str]:
    """Python files of the packages and tests with more than 400 lines."""
    files = (file for folder in (*PACKAGES, "tests") for file in sorted((root / folder).rglob("*.py")))
    counted = ((file, len(file.read_text(encoding="utf-8").splitlines())) for file in files)
    return [f"{file.relative_to(root).as_posix()}: {lines} lines" for file, lines in counted if lines > MOST_LINES]


def test_arrows_hold():
    assert violations(ROOT) == []


def test_no_file_is_long():
    assert long_files(ROOT) == []


def test_data_holds_no_code():
    assert [path for path in (ROOT / "data").rglob("*") if path.suffix in (".py", ".sh", ".ipynb")] == []


def test_checkers_look_at_real_files():
    assert (ROOT / "hl_jax" / "simulator.py").exists()
    assert "hl_jax.scenario" in imported_modules((ROOT / "hl_jax" / "simulator.py").read_text(), "hl_jax")
    assert "edge_cloud.slots" in imported_modules((ROOT / "edge_cloud" / "node.py").read_text(), "edge_cloud")
    adapter = imported_modules((ROOT / ADAPTER).read_text(), "launch")
    assert {"hl_jax", "edge_cloud"} <= {module.split(".")[0] for module in adapter}


@pytest.mark.parametrize(
    ("file", "source", "expected"),
    [
        ("hl_jax/planted.py", "from absl import flags", "hl_jax/planted.py imports absl"),
        ("hl_jax/agents/planted.py", "import os.path as p", "hl_jax/agents/planted.py imports os"),
        ("hl_jax/planted.py", "def f():\n    import time", "hl_jax/planted.py imports time"),
        ("hl_jax/planted.py", "from launch import errors", "hl_jax/planted.py imports launch"),
        ("hl_jax/agents/planted.py", "from ...edge_cloud import node", "hl_jax/agents/planted.py imports edge_cloud"),
        ("hl_jax/planted.py", "open('x')", "hl_jax/planted.py opens a file"),
        ("edge_cloud/planted.py", "import jax.numpy as jnp", "edge_cloud/planted.py imports jax"),
        ("edge_cloud/planted.py", "import hl_jax.scenario", "edge_cloud/planted.py imports hl_jax"),
        ("edge_cloud/planted.py", "__import__('launch.train')", "edge_cloud/planted.py imports launch"),
        (
            "launch/planted.py",
            "import hl_jax.simulator\nimport edge_cloud.node",
            "launch/planted.py imports both hl_jax and edge_cloud, which only launch/adapter.py may",
        ),
    ],
)
def test_a_planted_violation_is_found(tmp_path, file, source, expected):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    assert violations(tmp_path) == [expected]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("launch/adapter.py", "import hl_jax.simulator\nimport edge_cloud.node"),
        ("launch/planted.py", "import os\nfrom launch import errors\nimport hl_jax.scenario"),
        ("hl_jax/planted.py", "import jax\nfrom . import scenario\nfrom hl_jax import simulator"),
        ("edge_cloud/planted.py", "import grpc, os, time\nfrom . import node"),
    ],
)
def test_what_is_allowed_passes(tmp_path, file, source):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    assert violations(tmp_path) == []


@pytest.mark.parametrize(("lines", "expected"), [(400, []), (401, ["hl_jax/planted.py: 401 lines"])])
def test_a_long_file_is_found(tmp_path, lines, expected):
    (tmp_path / "hl_jax").mkdir()
    (tmp_path / "hl_jax" / "planted.py").write_text("x = 1\n" * lines)
    assert long_files(tmp_path) == expected
