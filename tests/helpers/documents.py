"""README.md and the guides, as what a reader would try: commands, code, links, names of files."""

from __future__ import annotations

import pathlib
import re
import shlex

from tests.helpers.imports import ROOT

DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "data/README.md",
    "edge_cloud/README.md",
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
)


def text(document: str) -> str:
    """A document's text."""
    return (ROOT / document).read_text(encoding="utf-8")


def code(document: str) -> list[str]:
    """Its blocks of Python."""
    return re.findall(r"^```python\n(.*?)^```$", text(document), re.MULTILINE | re.DOTALL)


def _prose(document: str) -> str:
    return re.sub(r"^```.*?^```$", "", text(document), flags=re.MULTILINE | re.DOTALL)


def commands(document: str) -> list[list[str]]:
    """What it says to type: lines of its indented blocks, and `python -m …` in its sentences, in words."""
    prose = _prose(document)
    lines = re.findall(r"^ {4}(\S.*)$", prose.replace("\\\n", " "), re.MULTILINE)
    lines += [" ".join(found.split()) for found in re.findall(r"`((?:python -m|make) [^`]+)`", prose)]
    return [shlex.split(line, comments=True) for line in lines]


def doors(document: str) -> list[tuple[str, tuple[str, ...]]]:
    """Its commands of `launch`, each with its flags; "…" stands for what a reader adds."""
    found = []
    for words in commands(document):
        while words and re.fullmatch(r"[A-Z_]+=\S+", words[0]):
            words = words[1:]
        if words[:2] == ["python", "-m"] and words[2].startswith("launch."):
            found.append((words[2].removeprefix("launch."), tuple(word for word in words[3:] if word != "…")))
    return found


def links(document: str) -> list[str]:
    """Files and pictures that it links to, from the repository's root."""
    found = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", _prose(document))
    folder = (ROOT / document).parent
    return [str((folder / link).resolve()) for link in found if "://" not in link]


def named_files(document: str) -> list[pathlib.Path]:
    """Files and folders that it names in code font, from the repository's root, and expects to be there."""
    folders = "hl_jax|launch|edge_cloud|data|docs|tests"
    return [ROOT / name for name in re.findall(rf"`((?:{folders})/[\w./-]*)`", text(document))]
