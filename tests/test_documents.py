"""README.md and the guides are true: commands parse, code runs, links and files are there."""

from __future__ import annotations

import contextlib
import pathlib
import re
import sys
from collections.abc import Iterator

import pytest
from absl import flags
from absl.testing import flagsaver

from tests.helpers import commands as helpers
from tests.helpers import documents
from tests.helpers.builders import ROOT
from tests.helpers.own_agent import own_agent  # noqa: F401 - fixture

FLAGS = flags.FLAGS
DOORS = sorted({(name, words) for document in documents.DOCUMENTS for name, words in documents.doors(document)})
PYTHON = [
    (document, number)
    for document in ("README.md", "docs/scenarios.md", "docs/agents.md", "docs/profiles.md", "docs/fleets.md")
    for number in range(len(documents.code(document)))
]
MOST_LINES = 72  # of README.md: about a screen


@contextlib.contextmanager
def typed(name: str, words: tuple[str, ...]) -> Iterator[None]:
    """The flags as this command line sets them, of that command alone."""
    from launch.inputs.flags import define_given_agent  # here: with it its flags are there

    door = f"launch.{name}.__main__" if (ROOT / "launch" / name).is_dir() else f"launch.{name}"
    with helpers._only_flags_of(door), flagsaver.flagsaver():
        if name in ("train", "sweep"):
            define_given_agent([name, *words])
        rest = FLAGS([name, *words])
        assert len(rest) == 1, rest
        yield


def test_there_are_commands_to_look_at():
    assert len(DOORS) > 25
    assert {"train", "evaluate", "oracle", "reproduce", "sweep", "testbed", "benchmark"} <= {name for name, _ in DOORS}


@pytest.mark.parametrize(
    ("name", "words"), DOORS, ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_every_command_is_one(name, words, own_agent, monkeypatch):  # noqa: F811 - the fixture
    monkeypatch.chdir(ROOT)
    # --help ends a command; what it lists is defined all the same.
    asked = tuple(word for word in words if not word.startswith("--help"))
    with typed(name, asked):
        if name == "train" and FLAGS.scenario is not None and FLAGS.calibration is None:
            from launch.inputs.flags import own_flags, settings

            chosen = settings()  # every value is checked, and files are read
            assert chosen.agent == FLAGS.agent
            assert own_flags()


def test_every_target_of_make_is_there():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in documents.DOCUMENTS:
        asked = [words[1] for words in documents.commands(document) if words[:1] == ["make"] and len(words) > 1]
        assert set(asked) <= targets, document


def test_every_requirements_file_is_there():
    for document in documents.DOCUMENTS:
        for name in re.findall(r"requirements[\w-]*\.txt", documents.text(document)):
            assert (ROOT / name).exists(), f"{document}: {name}"


@pytest.mark.parametrize("document", documents.DOCUMENTS)
def test_links_and_named_files_are_there(document):
    missing = [link for link in documents.links(document) if not pathlib.Path(link).exists()]
    missing += [str(path.relative_to(ROOT)) for path in documents.named_files(document) if not path.exists()]
    assert missing == []


def test_the_readme_fits_a_screen():
    lines = documents.text("README.md").splitlines()
    assert len(lines) <= MOST_LINES
    (ten,) = documents.code("README.md")
    statements = [line for line in ten.splitlines() if line and not line.startswith("import")]
    assert len(statements) <= 10


@pytest.mark.parametrize(("document", "number"), PYTHON)
def test_code_runs_as_it_stands(document, number, capsys, own_agent):  # noqa: F811
    exec(compile(documents.code(document)[number], f"{document}[{number}]", "exec"), {"__name__": "__main__"})
    out = capsys.readouterr().out
    if document == "README.md":
        optimal, decided, steps, _ = out.splitlines()
        assert optimal == "optimal: d2/L d5/L d6/L 148.4 ms"
        assert re.fullmatch(r"decided: (d\d/[LEC] ){3}1\d\d\.\d ms", decided)
        assert len(re.findall(r"\d+|None", steps.split(":")[1])) == 5
    assert "absl" not in out
    assert sys.modules["hl_jax"]


@pytest.mark.parametrize("document", [name for name in documents.DOCUMENTS if documents.doors(name)])
def test_commands_are_given_as_they_must_be_typed(document):
    """In a fresh shell `python` knows nothing of what is installed in `.venv`."""
    lines = (ROOT / document).read_text(encoding="utf-8").splitlines()
    first = next((index for index, line in enumerate(lines) if line.startswith("    python -m launch")), len(lines))
    before = "\n".join(lines[:first])
    assert first == len(lines) or ". .venv/bin/activate" in before


def test_the_readme_says_how_its_environment_is_entered():
    assert "`. .venv/bin/activate`" in (ROOT / "README.md").read_text(encoding="utf-8")
