"""Real models, certificates and nodes for the tests of the execution layer."""

from __future__ import annotations

import importlib.util
import os
import pathlib

import pytest

if importlib.util.find_spec("grpc") is None and not os.environ.get("CI"):
    # A developer without the packages of requirements-testbed.txt; in CI their absence is an error.
    collect_ignore_glob = ["test_*.py"]
else:
    from tests.edge_cloud import fleets


@pytest.fixture(scope="session")
def model_dir() -> pathlib.Path:
    """Folder of the eight models, built once and kept between runs."""
    return fleets.built_models()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Certificates for the nodes of `fleets.inventory`."""
    folder = tmp_path_factory.mktemp("certificates")
    fleets.make_certificates(folder)
    return folder
