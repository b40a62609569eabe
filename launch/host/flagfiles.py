"""Flag files, read here and not by absl: any of them may have a byte-order mark, or not be text at all.

A relative path in a flag file means a file beside it, if there is one; else it is taken from the current folder, as on
the command line.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator, Sequence

from launch.host.errors import InputError

# Flags that name files which are read; where results go is always taken from the current folder.
READ = (
    *("scenario", "calibration", "inventory", "sweep_file", "init_from", "run_dirs", "reproduction", "data"),
    *("pool", "paper", "models", "weights_dir", "calibration_images", "topology"),
)
MOST_FILES = 100
_FLAGFILE = re.compile(r"--?flagfile(=(?P<path>.*))?$", re.DOTALL)
_PATH = re.compile(rf"--?(?P<name>{'|'.join(READ)})=(?P<path>.+)$", re.DOTALL)


def lines(path: pathlib.Path) -> list[str]:
    """A flag file's lines, less empty ones and comments.

    Raises:
      InputError: if it can't be read, or isn't UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"flagfile: expected a readable file, found {error.strerror} at {path}") from error
    except (ValueError, UnicodeDecodeError) as error:
        where = f"byte {error.start} that is not" if isinstance(error, UnicodeDecodeError) else str(error)
        raise InputError(f"flagfile: expected UTF-8 text, found {where}, in {path}") from error
    stripped = (line.strip() for line in text.splitlines())
    return [line for line in stripped if line and not line.startswith(("#", "//"))]


def _beside(flag: str, path: pathlib.Path) -> str:
    """A flag of the file at `path`, its own relative path taken from there if that leads to something."""
    found = _PATH.match(flag)
    if found is None:
        return flag
    parts = [path.parent / part for part in found["path"].split(",")]
    if not all(part.exists() for part in parts):
        return flag
    return f"--{found['name']}={','.join(map(str, parts))}"


def expanded(arguments: Sequence[str]) -> list[str]:
    """A command line with the flags of its flag files in their places.

    Raises:
      InputError: if a flag file can't be read, isn't UTF-8, or names itself.
    """
    opened = 0

    def each(flags: Sequence[str], inside: tuple[pathlib.Path, ...]) -> Iterator[str]:
        nonlocal opened
        rest = iter(flags)
        for flag in rest:
            found = _FLAGFILE.match(flag)
            if found is None:
                yield _beside(flag, inside[-1]) if inside else flag
                continue
            name = found["path"] if found["path"] is not None else next(rest, "")
            path = pathlib.Path(name).expanduser()
            if inside and not path.is_absolute() and (inside[-1].parent / path).exists():
                path = inside[-1].parent / path
            opened += 1
            if path in inside or opened > MOST_FILES:
                raise InputError(f"flagfile: expected files that don't name themselves, found {path} again")
            yield from each(lines(path), (*inside, path))

    command, *flags = arguments
    # What comes after "--" isn't flags.
    end = flags.index("--") if "--" in flags else len(flags)
    return [command, *each(flags[:end], ()), *flags[end:]]
