"""Profile files: what is written is read back, and everything malformed is one clear line."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import tempfile
import tomllib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hl_jax.profiles import QUANTILES, Entry, Profile, Target
from launch.host.errors import InputError
from launch.inputs.profile_files import LONGEST_FILE, as_toml, load_profile, save_profile
from tests.helpers import documents

pytestmark = pytest.mark.smoke

TEXTS = st.text(max_size=20) | st.sampled_from(
    ['"', "\\", '"""', "\r\n", "\x00\x7f\x1b[31m", "é☕\U0001f600", "= [", "#"]
)
NAMES = st.text(min_size=1, max_size=12).filter(lambda text: text.isprintable() and text.strip() != "")
TIMES = st.floats(1e-6, 1e9) | st.integers(1, 10**9)
MAYBE = st.none() | TIMES


@st.composite
def entries(draw: st.DrawFn, model: str) -> Entry:
    times = sorted(draw(st.lists(TIMES, min_size=5, max_size=5)))
    measured = {name: draw(st.sampled_from([None, time])) for name, time in zip(QUANTILES, times[1:], strict=True)}
    others = {name: draw(MAYBE) for name in ("mean_ms", "energy_mj", "memory_mb")}
    accuracies = {name: draw(st.none() | st.floats(0.0, 100.0)) for name in ("top1", "top5")}
    return Entry(model, times[0], **measured, **others, **accuracies)


@st.composite
def targets(draw: st.DrawFn, name: str) -> Target:
    models = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    return Target(name, tuple(draw(entries(model)) for model in models), draw(TEXTS), draw(TEXTS))


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    names = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    idle = draw(st.none() | st.floats(0.0, 1e9))
    return Profile(draw(NAMES), tuple(draw(targets(name)) for name in names), draw(TEXTS), idle, draw(TEXTS))


@given(profiles())
def test_what_is_written_is_read_back(profile):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "x.toml"
        save_profile(path, profile)
        assert load_profile(path) == profile
        assert [one.name for one in pathlib.Path(folder).iterdir()] == ["x.toml"]


@given(profiles())
def test_no_text_leaves_its_quotes(profile):
    """Lines are those of the format, whatever texts hold; none holds what a terminal would obey."""
    text = as_toml(profile)
    assert text.replace("\n", "").isprintable()
    rows = sum(len(target.entries) for target in profile.targets)
    assert sum(line.startswith("  { model = ") for line in text.split("\n")) == rows
    assert tomllib.loads(text)["kind"] == profile.kind


def test_numbers_of_numpy_are_written_as_numbers():
    profile = Profile("x", (Target("cpu", (Entry("d0", np.float64(2.5)),)),))
    assert "p50_ms = 2.5 }" in as_toml(profile)


def test_tables_of_tables_are_the_same(tmp_path):
    (tmp_path / "x.toml").write_text(
        'kind = "x"\n[[targets]]\nname = "cpu"\n[[targets.models]]\nmodel = "d0"\np50_ms = 2\n'
        '[[targets.models]]\nmodel = "d1"\np50_ms = 1.5\n'
    )
    expected = Profile("x", (Target("cpu", (Entry("d0", 2), Entry("d1", 1.5))),))
    assert load_profile(tmp_path / "x.toml") == expected


def test_the_guide_s_example_is_one(tmp_path):
    (block,) = re.findall(r"^```toml\n(.*?)^```$", documents.text("docs/profiles.md"), re.MULTILINE | re.DOTALL)
    (tmp_path / "x.toml").write_text(block)
    profile = load_profile(tmp_path / "x.toml")
    assert (profile.kind, profile.idle_w, len(profile.target("cpu").entries)) == ("my-board", 2.7, 2)
    assert as_toml(profile) == block  # written as it stands there
    for field in dataclasses.fields(Entry):
        assert f"`{field.name}`" in documents.text("docs/profiles.md")


GOOD = """\
kind = "board"
about = "x"

[[targets]]
name = "cpu"
models = [
  { model = "d0", p50_ms = 10.0, p90_ms = 12.0, top1 = 70.0 },
  { model = "d1", p50_ms = 5.0 },
]
"""
ROW = "targets[0].models[0]"
KEYS = "model, p50_ms, mean_ms, p90_ms, p95_ms, p99_ms, p999_ms, energy_mj, memory_mb, top1, top5"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        # Keys.
        (GOOD, "", "targets: expected a list of at least one table, found None"),
        ('kind = "board"', "", "profile: expected the key 'kind', found none in "),
        (
            'kind = "board"',
            'kind = "a"\ncolour = 3',
            "profile: expected some of kind, targets, about, idle_w, source, ",
        ),
        ('name = "cpu"', "", "targets[0]: expected the key 'name', found none in "),
        ('name = "cpu"', 'name = "cpu"\nentries = []', "targets[0]: expected some of name, models, runtime, source, "),
        ("p50_ms = 10.0, ", "", f"{ROW}: expected the key 'p50_ms', found none in "),
        ('model = "d1", ', "", "targets[0].models[1]: expected the key 'model', found none in "),
        ("p90_ms", "p80_ms", f"{ROW}: expected some of {KEYS}, found the key 'p80_ms'"),
        ("top1", '"top\\n1"', f"{ROW}: expected some of {KEYS}, found the key 'top\\n1'"),
        # Types.
        ('kind = "board"', "kind = 3", "profile: kind: expected a name, found 3"),
        ('kind = "board"', 'kind = " "', "profile: kind: expected a name, found ' '"),
        ('about = "x"', "about = 3", "profile: board.about: expected a text, found 3"),
        ('about = "x"', "idle_w = -2", "profile: idle_w: expected a number in [0, 1e+09], found -2"),
        ('about = "x"', 'idle_w = "2"', "profile: idle_w: expected a number in [0, 1e+09], found '2'"),
        ('name = "cpu"', "name = []", "targets[0]: target: expected a name, found []"),
        ('name = "cpu"', 'name = "cpu"\nruntime = 1', "targets[0]: cpu.runtime: expected a text, found 1"),
        ('"d0"', "2020-01-01", f"{ROW}: model: expected a name, found datetime.date(2020, 1, 1)"),
        ("10.0", '"10"', f"{ROW}: d0.p50_ms: expected a number in [1e-06, 1e+09], found '10'"),
        ("10.0", "true", f"{ROW}: d0.p50_ms: expected a number in [1e-06, 1e+09], found True"),
        ("10.0", "[10.0]", f"{ROW}: d0.p50_ms: expected a number in [1e-06, 1e+09], found [10.0]"),
        # Values.
        ("10.0", "0", f"{ROW}: d0.p50_ms: expected a number in [1e-06, 1e+09], found 0"),
        ("10.0", "-1.0", f"{ROW}: d0.p50_ms: expected a number in [1e-06, 1e+09], found -1.0"),
        ("10.0", "nan", f"{ROW}: d0.p50_ms: expected a number in [1e-06, 1e+09], found nan"),
        ("10.0", "1e400", f"{ROW}: d0.p50_ms: expected a number in [1e-06, 1e+09], found inf"),
        ("10.0", "9" * 5000, "profile: expected TOML, found "),
        ("12.0", "9.0", f"{ROW}: d0.p90_ms: expected at least p50_ms, 10, found 9.0"),
        ("70.0", "101", f"{ROW}: d0.top1: expected a number in [0, 100], found 101"),
        ('"d1"', '"d0"', "targets[0]: cpu.models: expected distinct names, found ['d0']"),
        (
            "},\n]\n",
            '},\n]\n[[targets]]\nname = "cpu"\nmodels = [{ model = "d0", p50_ms = 1 }]\n',
            "profile: targets: expected d",
        ),
        # Shapes.
        ("[[targets]]", "[targets]", "targets: expected a list of at least one table, found {"),
        (GOOD, 'kind = "x"\ntargets = []', "targets: expected a list of at least one table, found []"),
        (GOOD, 'kind = "x"\ntargets = [3]', "targets: expected a list of at least one table, found [3]"),
        (
            GOOD,
            'kind = "x"\n[[targets]]\nname = "c"',
            "targets[0].models: expected a list of at least one table, found N",
        ),
        (
            GOOD,
            'kind = "x"\n[[targets]]\nname = "c"\nmodels = [1]',
            "targets[0].models: expected a list of at least on",
        ),
        (GOOD, "a = " + "[" * 5000, "profile: expected TOML, found "),
        # No TOML.
        ("models = [", "models = ", "profile: expected TOML, found "),
        ('name = "cpu"', 'name = "cpu"\nname = "gpu"', "profile: expected TOML, found "),
        ('kind = "board"', 'kind = "bo\x00ard"', "profile: expected TOML, found "),
        (GOOD, '{"kind": "x"}', "profile: expected TOML, found "),
    ],
)
def test_what_is_malformed_is_one_line(tmp_path, old, new, expected):
    assert old in GOOD
    path = tmp_path / "x.toml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        load_profile(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(expected)
    assert text.endswith(f" in {path}")
    assert len(text) < 400


def test_files_that_cannot_be_read(tmp_path):
    bad, long = tmp_path / "latin.toml", tmp_path / "long.toml"
    bad.write_bytes(GOOD.replace('"x"', '"caf\xe9"').encode("latin-1"))
    with long.open("wb") as file:
        file.truncate(LONGEST_FILE + 1)
    for path, expected in (
        (bad, "profile: expected UTF-8 text, found byte 27 that is not, in "),
        (long, f"profile: expected at most {LONGEST_FILE} bytes, found {LONGEST_FILE + 1} in "),
        (tmp_path / "none.toml", "profile: expected a readable file, found No such file or directory at "),
        (tmp_path, "profile: expected a readable file, found Is a directory at "),
        (pathlib.Path("x\x00"), "profile: expected a readable file, found "),
    ):
        with pytest.raises(InputError, match=f"^{expected}"):
            load_profile(path)


def test_a_byte_order_mark_is_no_error(tmp_path):
    path = tmp_path / "x.toml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load_profile(path).kind == "board"


def test_a_file_that_cannot_be_written_leaves_the_earlier_one(tmp_path, monkeypatch):
    path = tmp_path / "x.toml"
    path.write_text(GOOD)
    profile = dataclasses.replace(load_profile(path), about="new")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match=r"^x.toml: expected a file that can be written, found No space left"):
        save_profile(path, profile)
    assert path.read_text() == GOOD
    assert [one.name for one in tmp_path.iterdir()] == ["x.toml"]
