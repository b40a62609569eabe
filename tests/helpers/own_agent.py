"""The agent that docs/agents.md builds, written where a user would write it."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator

import pytest

from tests.helpers import documents

NAME = "my_package.descent:make"


@pytest.fixture(scope="session")
def own_agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    """The folder that holds `my_package`, which can be imported; once a session, as its constants become flags once."""
    folder = tmp_path_factory.mktemp("own")
    package = folder / "my_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "descent.py").write_text(documents.code("docs/agents.md")[0], encoding="utf-8")
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
