"""`--help`: what a command does and its main flags in groups; `--helpfull`: every flag. Exit status 0."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence

from absl import flags

HELP, FULL = ("--help", "-help", "-h", "--helpshort", "-helpshort"), ("--helpfull", "-helpfull")
INDENT = 6


def asked(argv: Sequence[str]) -> bool:
    """Whether a command line asks for help."""
    return any(argument in (*HELP, *FULL) for argument in argv[1:])


def _flag(flag: flags.Flag[object]) -> str:
    """One flag: its name with what it takes, its help, its default."""
    choices = getattr(flag.parser, "enum_values", None)
    value = "" if flag.boolean else f"={'|'.join(choices or ['VALUE'])}"
    about = (flag.help or "").removeprefix(f"<{'|'.join(choices or [])}>: ")
    default = "" if flag.default in (None, "", []) else f" (default: {(flag.default_as_str or '').strip(chr(39))})"
    text = textwrap.fill(
        " ".join(f"{about}{default}".split()),
        max(shutil.get_terminal_size().columns - 2, 40),
        initial_indent=" " * INDENT,
        subsequent_indent=" " * INDENT,
    )
    return f"  --{'[no]' if flag.boolean else ''}{flag.name}{value}\n{text}"


def _groups(full: bool) -> Iterable[tuple[str, list[flags.Flag[object]]]]:
    """The flags by title: a module's `FLAG_GROUPS` (title to names) says which are its main ones."""
    for module, defined in flags.FLAGS.flags_by_module_dict().items():
        ours = module.startswith("launch.") or module in ("__main__", sys.argv[0])
        if not ours or not defined:
            continue
        by_name = {flag.name: flag for flag in defined}
        # absl names the flags of the module that is run after the command line.
        groups = getattr(sys.modules.get(module, sys.modules["__main__"]), "FLAG_GROUPS", None)
        if groups is None:
            yield "Flags of this command", defined
            continue
        for title, names in groups.items():
            yield title, [by_name.pop(name) for name in names if name in by_name]
        if by_name and full:
            yield "Constants of the agents", list(by_name.values())


def text(full: bool) -> str:
    """The page."""
    about = (sys.modules["__main__"].__doc__ or "").strip()
    parts = [about, ""]
    for title, found in _groups(full):
        if found:
            parts += [f"{title}:", "", *(_flag(flag) for flag in found), ""]
    parts.append("Flags may stand in a file, one a line: --flagfile=FILE.")
    if not full:
        parts.append("--helpfull shows every flag, the agents' constants among them.")
    return "\n".join(parts)


def show(argv: Sequence[str]) -> None:
    """Prints what is asked for."""
    print(text(any(argument in FULL for argument in argv)))
