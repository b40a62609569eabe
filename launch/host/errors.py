"""Bad input ends a command with one clear line on stderr and exit status 2, never with a traceback."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from absl import app, flags, logging


class InputError(Exception):
    """What a user gave can't be used. The message says what was expected, what was found, and where."""


class RunError(Exception):
    """What was asked for is fine but didn't work out: a node that doesn't start, say. One line, exit status 1."""


def _fail(message: str, status: int = 2) -> NoReturn:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)


def _print_any_text() -> None:
    """Lets a terminal that knows fewer characters show a `?` for the others."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _written(work: Callable[[], int | None]) -> int | None:
    """Does something that prints. If nobody reads on (`… | head`), what is still to be written goes nowhere."""
    try:
        status = work()
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def run(main: Callable[[], int | None], prepare: Callable[[list[str]], None] = lambda _: None) -> NoReturn:
    """Runs an entry point: parses the flags, calls `main`; `InputError` becomes exit status 2, `RunError` 1.

    `prepare` gets the command line (the command's name first, flag files read) before it is parsed, and may define more
    flags.
    """
    from launch.host import flagfiles, usage  # they know this module's errors

    def parse(argv: list[str]) -> list[str]:
        try:
            argv = flagfiles.expanded(argv)
            prepare(argv)
            if usage.asked(argv):
                _written(lambda: usage.show(argv))
                sys.exit(0)
            rest = flags.FLAGS(argv)
        except (flags.Error, InputError) as error:
            _fail(str(error))
        if len(rest) > 1:
            _fail(f"arguments: expected flags only (--name=value), found {rest[1]!r} on the command line")
        return rest

    def guarded(_: list[str]) -> int | None:
        # JAX logs which accelerators it didn't find.
        logging.set_verbosity(logging.WARNING)
        try:
            return _written(main)
        except InputError as error:
            _fail(str(error))
        except RunError as error:
            _fail(str(error), 1)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)

    _print_any_text()
    app.run(guarded, flags_parser=parse)
    raise AssertionError("app.run exits")
