"""Every command under random flags, files and environments: one line and exit status 2, or it works; never a traceback.

What a command would compute or start is cut off where it begins: these runs are of what reads, parses and checks. A
few are typed as whole commands.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import subprocess
import sys

import pytest

from launch.host.errors import InputError
from tests.helpers.builders import ROOT, SCENARIOS
from tests.helpers.commands import FLAGS, _only_flags_of

RUNS = int(os.environ.get("HL_JAX_FUZZ", "200"))  # 5,000 in the longer mode
COMMANDS = int(os.environ.get("HL_JAX_FUZZ_COMMANDS", "3"))  # 200

# Where the work of each command begins.
WORK = {
    "train": ["launch.runs.unit:open_unit"],
    "evaluate": ["launch.evaluate:_judge"],
    "oracle": ["launch.oracle:solve"],
    "sweep": ["launch.sweep.__main__:_sweeping"],
    "reproduce": ["launch.reproduce.__main__:reproduce"],
    "beyond": ["launch.beyond.__main__:measure"],
    "benchmark": ["launch.benchmark.__main__:search_figures"],
    "calibrate": ["launch.fleet.profile:measure", "hl_jax.fitting.calibration:fit"],
    "candidates": ["launch.candidates:best_candidates"],
    "testbed": ["launch.testbed:Testbed", "launch.testbed:connected"],
    "overhead": ["launch.overhead:TestbedEnv"],
    "latency": ["launch.latency:load_pool"],
    "models": ["launch.models:build"],
    "profiles": ["launch.fleet.measuring:measure"],
    "node": ["edge_cloud.node:Node", "edge_cloud.node:Links"],
    "certs": [],
}
NUMBERS = ["0", "1", "2", "3", "-1", "1e9", "1e39", "inf", "-inf", "nan", "0.5", "9" * 25, "0x10", "1_000", "٣", "1,2"]
TEXTS = ["", " ", "Min", "max", "85", "80:90:5", "80:90:0", "89.9", "both", "models", "é☕", "a\nb", "$(x)", "%s{0}"]
TEXTS += ["hybrid", "dqn", "factored", "q_learning", "os:getcwd", "no_such:make", "json:", ":", "simulator", "testbed"]
TEXTS += ["k_best=1,2", "gamma=0.1,nan", "seeds=1", "constraint=Min,Max", "scenario=a.toml", "=", "k_best=", "--x"]
PATHS = ["scenario.toml", "mutated.toml", "bom.toml", "latin1.toml", "fleet.toml", "fleet.json", "sweep.toml"]
PATHS += ["own.flags", "binary", "empty", "folder", "none", "run", "torn", "bare", "twin.json", "calibration.json"]
PATHS += ["/dev/null/x", "."]
SWEEPS = ["[flags]\nusers=1\n[grid]\nk_best=[1,2]\n", "[grid]\n", "grid=3", "["]
FLAG_FILES = [b"--users=2\n", b"--users=\xe9\n", b"\xef\xbb\xbf--users=2", b"x", b""]
TABLES = ["model,p50_ms\nd0,1\n", "model,p50_ms\nd0,x\n", "model,p50_ms\n", 'model,p50_ms\n"d0', "a\n1\n"]
LOGS = ["count=2 curr=1 avg=1 median=1\nInference timings in us: Init: 1, Inference (avg): 1\n", "count=1", "\x00"]
CONFIGS = ["{}", "[]", "", '{"agent": "x"}', "{"]


def _files(folder, random_):
    """Files of every kind, some of them right, in `folder`."""
    own = (SCENARIOS / "expA.toml").read_text().replace('"../', f'"{SCENARIOS.parent}/')
    fleet = (ROOT / "data" / "inventories" / "local.toml").read_text()
    calibration = (ROOT / "data" / "calibration" / "paper.json").read_text()

    def mutated(text):
        lines = text.splitlines()
        for _ in range(random_.randint(1, 3)):
            place = random_.randrange(len(lines))
            key, equals, _ = lines[place].partition(" = ")
            value = random_.choice(["nan", "inf", "-1", "[]", "{}", '""', '"x"', "true", "1e400", "[", "'é'"])
            lines[place] = random_.choice(["", lines[place][:-1], f"{key}{equals}{value}", "\x00", lines[place] * 2])
        return "\n".join(lines)

    (folder / "scenario.toml").write_text(own)
    (folder / "mutated.toml").write_text(mutated(own))
    (folder / "bom.toml").write_bytes(b"\xef\xbb\xbf" + own.encode())
    (folder / "latin1.toml").write_bytes(own.replace('"A"', '"caf\xe9"').encode("latin-1"))
    (folder / "fleet.toml").write_text(mutated(fleet) if random_.random() < 0.7 else fleet)
    (folder / "fleet.json").write_text(random_.choice(["{}", "[]", '{"nodes": 3}', "nul", '{"name": NaN}']))
    (folder / "calibration.json").write_text(calibration)
    (folder / "twin.json").write_text(calibration.replace('"weak_edge_ms":', '"weak_edge_ms": null, "x":'))
    (folder / "profile.toml").write_text(mutated((ROOT / "data" / "profiles" / "amd-zen4.toml").read_text()))
    (folder / "table.csv").write_text(random_.choice(TABLES))
    (folder / "log.txt").write_text(random_.choice(LOGS))
    (folder / "sweep.toml").write_text(random_.choice(SWEEPS))
    (folder / "own.flags").write_bytes(random_.choice(FLAG_FILES))
    (folder / "binary").write_bytes(random_.randbytes(64))
    (folder / "empty").write_bytes(b"")
    (folder / "folder").mkdir(exist_ok=True)
    (folder / "bare").mkdir(exist_ok=True)
    (folder / "bare" / "config.json").write_text(random_.choice(CONFIGS))
    (folder / "bare" / "summary.json").write_text("{")
    torn = folder / "torn"
    if torn.exists():
        file = random_.choice([path for path in torn.rglob("*") if path.is_file()])
        content = bytearray(file.read_bytes())
        if content:
            content[random_.randrange(len(content))] ^= 1 << random_.randrange(8)
        file.write_bytes(bytes(content[: random_.choice([len(content), len(content) // 2])]))


def _flags_of(door):
    module = f"launch.{door}.__main__" if (ROOT / "launch" / door).is_dir() else f"launch.{door}"
    with _only_flags_of(module):
        return sorted(
            flag.name
            for name, flags in FLAGS.flags_by_module_dict().items()
            if name.startswith("launch.")
            for flag in flags
        )


def _line(random_, names):
    """A random command line."""
    words = []
    for _ in range(random_.randint(0, 6)):
        name = random_.choice([*names, *["scenario", "run_dir", "inventory", "flagfile"] * 4, "no_such_flag"])
        likely = {
            "scenario": PATHS[:4] * 3 + PATHS,
            "calibration": ["calibration.json", "twin.json", *PATHS],
            "inventory": ["fleet.toml", "fleet.json", *PATHS],
            "run_dir": ["run", "torn", "bare", "new", *PATHS],
            "from_csv": ["table.csv", *PATHS],
            "from_benchmark": ["d0=log.txt", "d0=empty", *PATHS],
            "show": ["profile.toml", *PATHS],
            "run_dirs": ["run", "run,torn", *PATHS],
            "init_from": ["run", "torn", "bare", *PATHS],
            "flagfile": ["own.flags", str(ROOT / "expA.flags"), *PATHS],
            "sweep_file": ["sweep.toml", *PATHS],
            "out": ["new.json", "folder", "/dev/null/x"],
            "state_dir": ["folder", "new", "empty"],
        }.get(name, NUMBERS * 2 + TEXTS + PATHS)
        bare = random_.choice([f"--{name}", name])
        words.append(f"--{name}={random_.choice(likely)}" if random_.random() < 0.93 else bare)
    return words


def _cut_off(monkeypatch):
    def stop(*_, **__):
        raise InputError("work: expected to begin here, found the test's end")

    for places in WORK.values():
        for place in places:
            module, name = place.split(":")
            monkeypatch.setattr(importlib.import_module(module), name, stop)


def _fine(status, out, err, what):
    assert status in (0, 2, 130), (what, err)
    assert "Traceback" not in err, (what, err)
    if status == 2:
        told = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(told) == 1, (what, err)
        assert err.splitlines()[-1] == told[0], (what, err)
        assert len(told[0]) < 2000, (what, err)


@pytest.fixture
def place(tmp_path, command):
    """A folder with a finished run and a copy of it that gets torn."""
    done = command(
        "train", "--scenario=" + str(SCENARIOS / "expA.toml"), "--users=1", "--agent=q_learning", "--epochs=2",
        "--epoch_steps=20", "--seeds=1", f"--run_dir={tmp_path / 'run'}", cwd=tmp_path,
    )  # fmt: skip
    assert done.status == 0, done.err
    shutil.copytree(tmp_path / "run", tmp_path / "torn")
    return tmp_path


def test_every_door_is_tried():
    doors = {path.stem for path in (ROOT / "launch").glob("*.py")} - {"__init__"}
    doors |= {path.parent.name for path in (ROOT / "launch").glob("*/__main__.py")}
    assert WORK.keys() == doors


@pytest.mark.process
def test_random_flags_and_files_end_in_one_line(place, command, monkeypatch):
    random_ = random.Random(20261126)
    flags = {door: _flags_of(door) for door in WORK}
    _cut_off(monkeypatch)
    whole = (place / "run" / "summary.json").read_bytes()
    reached = 0
    for number in range(RUNS):
        if number % 10 == 0:
            shutil.rmtree(place / "torn")
            shutil.copytree(place / "run", place / "torn")
        _files(place, random_)
        door = random_.choice(list(WORK))
        words = _line(random_, flags[door])
        environment = {
            name: random_.choice(values)
            for name, values in {
                "COLUMNS": ["1", "abc", "100000", ""],
                "XDG_CACHE_HOME": [str(place / "cache"), "/dev/null"],
                "http_proxy": ["http://127.0.0.1:9"],
                "TERM": ["dumb", ""],
                "LC_ALL": ["C", "xx_YY"],
            }.items()
            if random_.random() < 0.2
        }
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            done = command(door, *words, cwd=place)
        what = f"python -m launch.{door} {' '.join(map(repr, words))} with {environment} (run {number})"
        _fine(done.status, done.out, done.err, what)
        reached += "found the test's end" in done.err
        # Nothing of a finished run is lost, whatever was asked.
        assert (place / "run" / "summary.json").read_bytes() == whole, what
    assert reached > RUNS / 50  # some lines are good ones


@pytest.mark.process
def test_random_commands_end_in_one_line(place):
    """The same as whole processes, with a limit on what they may compute."""
    random_ = random.Random(7)
    doors = [door for door in WORK if door not in ("testbed", "overhead", "node", "models", "latency", "calibrate")]
    flags = {door: _flags_of(door) for door in doors}
    for number in range(COMMANDS):
        _files(place, random_)
        door = random_.choice(doors)
        words = _line(random_, flags[door])
        line = [sys.executable, "-m", f"launch.{door}", *words]
        try:
            done = subprocess.run(
                line,
                cwd=place,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                errors="replace",
                timeout=60,
                check=False,
            )
        except subprocess.TimeoutExpired:
            continue  # a good line, which computes
        _fine(done.returncode, done.stdout, done.stderr, f"{json.dumps(line)} (command {number})")
