"""`python -m launch.train` and bad input: exit status 2, one clear line on stderr, and nothing that existed is lost."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import signal

import jax.numpy as jnp
import numpy as np
import pytest

from launch.host.errors import InputError
from launch.runs import checkpoints
from tests.helpers.builders import SCENARIOS
from tests.helpers.training_runs import begin, contents, finish, results, stop

SCENARIO = f"--scenario={SCENARIOS / 'expA.toml'}"
SMALL = (SCENARIO, "--users=2")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--epoch=3",), r"Unknown command line flag 'epoch'"),
        (("--agent=ppo",), r"--agent: expected one of hybrid, dqn, .*, or MODULE:FUNCTION of your own, found 'ppo'"),
        (("--planning_step=both",), r"--planning_step=both: value should be one of <real\|model\|mixed>"),
        (("--seeds=many",), r"--seeds=many"),
        (("--seeds=0",), r"--seeds: expected a whole number in \[1, 1000000\], found 0"),
        (("--first_seed=-1",), r"--first_seed: expected a whole number in \[0, \d+\], found -1"),
        (("--users=7",), r"--users: expected 1 to 5 \(devices of scenario A\), found 7"),
        (("--users=0",), r"--users: expected 1 to 5"),
        (("--users=two",), r"--users: expected a number, found 'two'"),
        (("--constraint=95",), r"--constraint: expected Min, Max or a number in \[0, 89.9\] \(%\), found '95'"),
        (("--constraint=nan",), r"--constraint: expected .* found 'nan'"),
        (("--constraint=maximum",), r"--constraint: expected .* found 'maximum'"),
        (("--noise=-0.1",), r"--noise: expected a number in \[0, 1\], found -0.1"),
        (("--batch=0",), r"--batch: expected a value in \[1, 65536\], found 0"),
        (("--gamma=1.5",), r"--gamma: expected a value in \[0, 0.999\], found 1.5"),
        (("--penalty_factor=inf",), r"--penalty_factor: expected a value in \[1, 1e\+09\], found inf"),
        (("--penalty_factor=1e39",), r"--penalty_factor: expected a value in \[1, 1e\+09\], found 1e\+39"),
        (("--agent=factored", "--surprise=inf"), r"--surprise: expected a value in \[0, 1e\+09\], found inf"),
        (("--agent=q_learning", "--start_value_ms=inf"), r"--start_value_ms: expected .*, found inf"),
        (("--agent=q_learning", "--start_value_ms=-inf"), r"--start_value_ms: expected .*, found -inf"),
        (("--noise=inf",), r"--noise: expected a number in \[0, 1\], found inf"),
        (("--epochs=99999999999999999999",), r"--epochs: expected a value in \[1, 1e\+09\], found 9999"),
        (("--seeds=99999999999999999999",), r"--seeds: expected a whole number in \[1, 1000000\], found 9999"),
        (("--gamma=nan",), r"--gamma: expected a value in \[0, 0.999\], found nan"),
        (("--direct_capacity=100",), r"--direct_capacity: expected a power of two, found 100"),
        (("--alpha_schedule=cosine",), r"--alpha_schedule: expected linear, exp or constant:VALUE"),
        (("--k_best=0",), r"--k_best: expected a value in \[1, 1e\+09\], found 0"),
        (("--step_size=0.1",), r"--step_size: expected with --agent=q_learning, found with --agent=hybrid"),
        (
            (f"--scenario={SCENARIOS / 'ten.toml'}", "--users=10"),
            r"--users: expected at most 10000000 joint actions .* \(--agent=hybrid, scenario ten\)",
        ),
        (("--agent=factored", "--knobs=models"), r"--knobs: expected both or offloading for this agent, found models"),
        (("expA.flags",), r"arguments: expected flags only .* found 'expA.flags'"),
        (("--flagfile=none.flags",), r"none.flags"),
        (
            ("--scenario=none.toml",),
            r"scenario: expected a readable file, found No such file or directory at 'none.toml'",
        ),
        (("--resume",), r"--resume: expected with --run_dir=FOLDER of the run, found without"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_refuses_bad_flags(refused, tmp_path, arguments, expected):
    assert re.search(expected, refused(*SMALL, *arguments))
    assert contents(tmp_path) == {}


def test_refuses_to_resume_what_is_not_there_without_settings(refused, tmp_path):
    expected = r"--run_dir: expected a run's folder, found No such file .* nothing"
    assert re.search(expected, refused("--resume", "--run_dir=nothing"))
    assert contents(tmp_path) == {}


def test_settings_do_not_let_resume_into_a_folder_of_something_else(refused, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    before = contents(tmp_path)
    assert "--run_dir: expected a new or empty folder" in refused(*SMALL, "--resume", "--run_dir=mine")
    assert contents(tmp_path) == before


def test_refuses_to_start_without_a_scenario(refused):
    assert "--scenario: expected a scenario file" in refused("--users=2")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name = ", r"scenario: expected TOML, found .* in bad.toml"),
        (
            'name = "X"\npool = 3\ncalibration = "c"\ndevices = []\nedge = {}\ncloud = {}',
            r"pool: expected .* found 3 in bad",
        ),
        ("\x00", r"scenario: expected TOML"),
    ],
    ids=["no TOML", "a number for a file", "a zero byte"],
)
def test_refuses_a_malformed_scenario(refused, tmp_path, text, expected):
    (tmp_path / "bad.toml").write_text(text)
    assert re.search(expected, refused("--scenario=bad.toml"))


def test_refuses_a_scenario_whose_own_constraint_cannot_be_met(refused, tmp_path):
    text = (SCENARIOS / "expA.toml").read_text().replace('"../', f'"{SCENARIOS.parent}/')
    (tmp_path / "strict.toml").write_text(text.replace("constraint = 85.0", "constraint = 90.5"))
    line = refused("--scenario=strict.toml")
    assert re.search(r"constraint: expected .* \(at most 89.9 %\), found 90.5 in strict.toml", line)


def test_refuses_a_folder_that_holds_something(refused, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("three years")
    assert "--run_dir: expected a new or empty folder, or a run and --resume, found content" in refused(
        *SMALL, "--run_dir=mine"
    )
    assert "found content at mine/thesis.txt" in refused(*SMALL, "--run_dir=mine/thesis.txt")
    assert contents(tmp_path) == {"mine/thesis.txt": b"three years"}


def test_refuses_a_folder_that_cannot_be_made(refused, tmp_path):
    (tmp_path / "file").write_text("content")
    expected = "--run_dir: expected a folder that can be made and written, found Not a directory at file/run"
    assert expected in refused(*SMALL, "--run_dir=file/run")
    assert "--run_dir: expected a folder that can be made" in refused(*SMALL, "--run_dir=/proc/run/1")
    assert contents(tmp_path) == {"file": b"content"}


# -- Resuming -----------------------------------------------------------------------------------------------------


@pytest.fixture
def finished(uninterrupted: tuple[pathlib.Path, list[str]]) -> pathlib.Path:
    return uninterrupted[0]


@pytest.fixture
def unfinished(finished: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A run's folder before its results were written, in a copy."""
    folder = tmp_path / "unfinished"
    shutil.copytree(finished, folder)
    (folder / "summary.json").unlink()
    return folder


@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--batch=32",), r"--resume: expected no --batch \(the run has its own\), found 32"),
        (("--users=3",), r"--resume: expected no --users \(the run has its own\), found '3'"),
        (("--seeds=9",), r"--resume: expected no --seeds \(the run has its own\), found 9"),
        ((SCENARIO, "--users=3"), r"--resume: expected this run's own scenario"),
        ((*SMALL, "--constraint=89"), r"--resume: expected this run's own scenario"),
        ((*SMALL, "--constraint=85"), r"--resume: expected this run's own config"),
    ],
    ids=lambda value: " ".join(value).replace(str(SCENARIOS), "") if isinstance(value, tuple) else "",
)
def test_refuses_to_resume_with_other_settings(refused, finished, arguments, expected):
    before = contents(finished)
    line = refused("--resume", f"--run_dir={finished}", *arguments)
    assert re.search(expected, line), line[:500]
    assert contents(finished) == before


@pytest.mark.process
def test_refuses_to_resume_from_a_damaged_config(refused, unfinished):
    config = unfinished / "config.json"
    whole = config.read_text()
    values = json.loads(whole)
    for text, expected in (
        (whole[: len(whole) // 2], r"config.json: expected a run's settings, found .* in "),
        ("[]", r"config.json: expected a run's settings"),
        (json.dumps({**values, "agent": "ppo"}), r"config.json: expected a run's settings, found .* found 'ppo' in "),
        (json.dumps({**values, "config": {"width": 0}}), r"config.json: expected .* --width: expected a value in"),
        (json.dumps({**values, "config": {"depth": 2}}), r"config.json: expected a run's settings"),
    ):
        config.write_text(text)
        assert re.search(expected, refused("--resume", f"--run_dir={unfinished}"))


def error_of(status: int, err: list[str]) -> str:
    """The one line that says what went wrong, under what a run tells while it goes well."""
    assert status == 2, err
    said = [line for line in err if not line.startswith(("run folder: ", "hybrid A: "))]
    assert len(said) == 1, err
    assert said[0].startswith("error: ")
    return said[0]


@pytest.mark.process
def test_refuses_a_damaged_checkpoint_and_a_foreign_one(unfinished):
    """A flipped bit in one group's file; then the checkpoints of a run that had other settings."""
    path = unfinished / "checkpoints" / "group-0001.ckpt"
    whole = path.read_bytes()
    path.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    before = contents(unfinished)
    status, out, err = finish(unfinished)
    assert f"found a damaged file {path}" in error_of(status, err)
    assert out == []
    assert contents(unfinished) == before
    path.write_bytes(whole)
    config = json.loads((unfinished / "config.json").read_text())
    config["scenario"]["noise"] = 0.05
    (unfinished / "config.json").write_text(json.dumps(config))
    before = contents(unfinished)
    status, _, err = finish(unfinished)
    assert re.search(
        r"checkpoint: expected one of this run's settings \(.*\), found one of others", error_of(status, err)
    )
    assert contents(unfinished) == before


@pytest.mark.process
def test_a_full_disk_keeps_the_last_good_checkpoints(finished, tmp_path):
    folder = tmp_path / "full"
    assert stop(begin(folder), folder, 5, 0.0, signal.SIGINT)[0] == 130
    before = contents(folder)
    smallest = min(len(content) for name, content in before.items() if name.endswith(".ckpt"))
    status, _, err = finish(folder, room=smallest // 2)
    line = error_of(status, err)
    assert re.search(
        r"group-000[01].ckpt: expected a file that can be written, found File too large at .*; earlier files are kept",
        line,
    )
    assert contents(folder) == before
    # With room again, it ends as if nothing had happened.
    status, _, err = finish(folder)
    assert status == 0, err
    assert results(folder) == results(finished)


@pytest.mark.process
@pytest.mark.parametrize("fits", ["nothing", "all but curves.png"])
def test_a_disk_that_fills_up_at_the_end(unfinished, fits):
    """Learned, but no room for the results: the checkpoints stay, and a resumed run writes them later."""
    sizes = {path.name: path.stat().st_size for path in unfinished.rglob("*") if path.is_file()}
    room = 1000 if fits == "nothing" else max(sizes["metrics.csv"], sizes["events.out.tfevents.0"])
    assert room < sizes["curves.png"]
    kept = {name: content for name, content in contents(unfinished).items() if "checkpoints" in name}
    status, _, err = finish(unfinished, room=room)
    error_of(status, err)
    assert kept.items() <= contents(unfinished).items()
    assert not (unfinished / "summary.json").exists()


# -- Checkpoint files ---------------------------------------------------------------------------------------------

TREE = {"weights": jnp.arange(6.0), "count": jnp.int32(3)}


@pytest.fixture
def checkpoint(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "one.ckpt"
    checkpoints.save(path, TREE, {"epoch": 4}, "mine")
    return path


def test_a_checkpoint_comes_back(checkpoint):
    tree, notes = checkpoints.load(checkpoint, TREE, "mine")
    np.testing.assert_array_equal(tree["weights"], TREE["weights"])
    assert (int(tree["count"]), notes) == (3, {"epoch": 4})


def test_any_flipped_byte_is_found(checkpoint):
    whole = checkpoint.read_bytes()
    for position in np.random.default_rng(0).choice(len(whole), 60, replace=False):
        checkpoint.write_bytes(whole[:position] + bytes([whole[position] ^ 0x10]) + whole[position + 1 :])
        with pytest.raises(InputError, match=r"^checkpoint: expected .*, found .*one.ckpt$"):
            checkpoints.load(checkpoint, TREE, "mine")


@pytest.mark.parametrize("length", [0, 1, 50, 400])
def test_a_file_that_was_cut_off_is_found(checkpoint, length):
    checkpoint.write_bytes(checkpoint.read_bytes()[:length])
    with pytest.raises(InputError, match="checkpoint: expected"):
        checkpoints.load(checkpoint, TREE, "mine")


def test_other_owners_shapes_types_and_names_are_refused(checkpoint):
    for tree, owner, expected in (
        (TREE, "theirs", r"expected one of this run's settings \(theirs\), found one of others \(mine\)"),
        ({**TREE, "weights": jnp.arange(7.0)}, "mine", r"expected .*weights.* of float32\[7\], found float32\[6\]"),
        ({**TREE, "count": jnp.float32(3)}, "mine", r"expected .*count.* of float32\[\], found int32\[\]"),
        ({**TREE, "more": jnp.float32(3)}, "mine", r"expected .*more.* of float32\[\], found nothing"),
    ):
        with pytest.raises(InputError, match=expected):
            checkpoints.load(checkpoint, tree, owner)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(checkpoint, monkeypatch):
    before = contents(checkpoint.parent)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        InputError,
        match=r"one.ckpt: expected a file that can be written, found No space left on device at .*; earlier files",
    ):
        checkpoints.save(checkpoint, {**TREE, "count": jnp.int32(9)}, {"epoch": 5}, "mine")
    assert contents(checkpoint.parent) == before
