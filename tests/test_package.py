"""The wheel: what it holds, that it works from any folder, and that pyproject.toml and requirements*.txt agree."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata

import pytest
from packaging.requirements import Requirement

import hl_jax
from launch.host import files
from tests.helpers.builders import ROOT
from tests.helpers.imports import imported_modules

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
LEFT_OUT = {"data/results"}  # recorded runs, 10 MB and more


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def pinned(name: str) -> tuple[dict[str, Requirement], list[str]]:
    """A requirements file's own packages, and the files that it includes."""
    found, included, why = {}, [], False
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("-r "):
            included.append(line.removeprefix("-r "))
        elif line and not line.startswith("#"):
            assert why, f"{name}: expected a line that says what {line} is for"
            requirement = Requirement(line)
            found[requirement.name] = requirement
        why = line.startswith("#")
    return found, included


@pytest.mark.parametrize("extra", ["", *EXTRAS])
def test_requirements_files_pin_what_the_package_asks_for(extra):
    asked = [Requirement(text) for text in (EXTRAS[extra] if extra else PROJECT["dependencies"])]
    found, included = pinned(f"requirements-{extra}.txt" if extra else "requirements.txt")
    includes = [set(one.extras) for one in asked if one.name == PROJECT["name"]]
    asked = [one for one in asked if one.name != PROJECT["name"]]
    assert {f"requirements-{name}.txt" for names in includes for name in names} == set(included) - {"requirements.txt"}
    assert {one.name for one in asked} == set(found)
    for one in asked:
        (pin,) = found[one.name].specifier
        assert pin.operator == "=="
        assert one.specifier.contains(pin.version), f"{found[one.name]} isn't in {one}"


def test_every_requirements_file_is_an_extra_or_for_developers():
    there = {path.name for path in ROOT.glob("requirements*.txt")}
    extras = {f"requirements-{extra}.txt" for extra in EXTRAS}
    assert there == extras | {"requirements.txt", "requirements-dev.txt", "requirements-converter.txt"}


def test_whatever_is_imported_is_asked_for():
    files_ = [file for package in ("hl_jax", "launch", "edge_cloud") for file in (ROOT / package).rglob("*.py")]
    imported = {name.partition(".")[0] for file in files_ for name in imported_modules(file.read_text(), "")}
    foreign = imported - set(sys.stdlib_module_names) - {"hl_jax", "launch", "edge_cloud", ""}
    dists = metadata.packages_distributions()
    pins = {_plain(name) for file in ROOT.glob("requirements*.txt") for name in pinned(file.name)[0]}
    known = {"jax": "jax", "google": "protobuf", "tflite_runtime": "ai_edge_litert", "torch": "torch"}
    lost = {name for name in foreign if not {_plain(known.get(name, one)) for one in dists.get(name, [name])} & pins}
    assert lost == set()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("wheel")
    line = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        f"--wheel-dir={folder}",
    ]
    done = subprocess.run([*line, str(ROOT)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.process
def test_the_wheel_holds_the_packages_and_the_data(wheel):
    assert wheel.name == f"hl_jax-{hl_jax.__version__}-py3-none-any.whl"
    names = set(zipfile.ZipFile(wheel).namelist())
    inside = {name for name in names if ".dist-info/" not in name}
    tracked = subprocess.run(
        ["git", "ls-files", "hl_jax", "launch", "edge_cloud", "data"], cwd=ROOT, capture_output=True
    )
    if tracked.returncode == 0:  # else not a checkout
        files_ = [name for name in tracked.stdout.decode().splitlines() if (ROOT / name).exists()]
        code = {name for name in files_ if not name.startswith("data/")}
        data = {f"launch/_wheel/{name}" for name in files_ if name.startswith("data/")}
        data = {name for name in data if not any(f"/{folder}/" in name for folder in LEFT_OUT)}
        assert code | data <= inside
    assert not any(name.startswith(("tests/", "data/", "stubs/")) or "__pycache__" in name for name in inside)
    assert not any("/results/" in name for name in inside)
    assert "hl_jax/py.typed" in inside


@pytest.mark.process
def test_commands_find_their_data_in_an_installed_wheel(wheel, tmp_path):
    """From an empty folder, by the installed code alone."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "empty").mkdir()
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import pathlib, hl_jax, launch\n"
        "from launch.host.files import INSTALLED, ROOT\n"
        "from launch.inputs.scenario_files import load_scenario\n"
        "assert pathlib.Path(launch.__file__).is_relative_to(sys.argv[1]), launch.__file__\n"
        "assert INSTALLED and pathlib.Path(ROOT).is_relative_to(sys.argv[1])\n"
        "assert load_scenario('data/scenarios/expA.toml') == hl_jax.experiment('A')\n"
        "from launch.report import steps; assert steps.TABLE_VI.exists()\n"
    )
    line = [sys.executable, "-P", "-c", script, str(tmp_path / "site")]
    done = subprocess.run(line, cwd=tmp_path / "empty", capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_given_goes_before_what_comes_along(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert files.located("data/pools/mobilenet.toml") == ROOT / "data" / "pools" / "mobilenet.toml"
    assert files.located("mine.toml") == pathlib.Path("mine.toml")
    assert files.located("data/none.toml") == pathlib.Path("data/none.toml")
    assert files.located("pyproject.toml") == pathlib.Path("pyproject.toml")  # of the repository, but no data
    mine = tmp_path / "data" / "pools" / "mobilenet.toml"
    mine.parent.mkdir(parents=True)
    mine.touch()
    assert files.located("data/pools/mobilenet.toml") == pathlib.Path("data/pools/mobilenet.toml")
