"""JSON files that a run leaves and a later one reads."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from launch.errors import InputError


def read(path: pathlib.Path) -> Any:
    """A file's content; None where there is no such file.

    Raises:
      InputError: if it isn't JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return None
    except ValueError as error:
        raise InputError(f"{path.name}: expected JSON, found {error} in {path.parent}") from error
