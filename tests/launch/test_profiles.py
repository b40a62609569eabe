"""The command `python -m launch.profiles`: what it shows, makes, adds to, and refuses."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hl_jax.profiles import Entry
from launch.inputs.profile_files import load_profile
from tests.helpers.builders import ROOT

TABLE = "system,paper_name,p50_ms,p90_ms,p99_ms,energy_mJ_per_inference,top1_percent\n"
TABLE += "a,d0,10,11,15,33.6,71.7\na,d3,2,,,,\nb,d0,20,21,25,,\n"
LOG = "count=9 curr=2000 avg=2100 median=2050 p95=2400\nInference timings in us: Init: 1, Inference (avg): 2100\n"
OUT = ("--kind=board", "--target=cpu", "--out=board.toml")


@pytest.fixture
def place(tmp_path):
    (tmp_path / "t.csv").write_text(TABLE)
    (tmp_path / "log.txt").write_text(LOG)
    (tmp_path / "folder").mkdir()
    return tmp_path


def test_all_that_come_along_are_shown_from_any_folder(command, tmp_path):
    done = command("profiles", cwd=tmp_path)
    assert done.status == 0, done.err
    header, *rows = done.out.splitlines()
    assert header.split() == ["kind", "target", "model", "p50", "ms", "p90/p50", "p99/p50", "mJ", "top-1", "%"]
    assert len(rows) == 137
    (row,) = [row.split() for row in rows if row.startswith("jetson-orin  ") and " tflite " in row and " d0 " in row]
    assert row == ["jetson-orin", "tflite", "d0", "37.01", "1.01", "1.02", "695.6", "71.7"]


def test_one_is_shown(command):
    done = command("profiles", "--show=data/profiles/mate-10-pro.toml")
    assert done.status == 0, done.err
    assert [line.split()[2] for line in done.out.splitlines()[1:]] == ["d4", "d5", "d6", "d7"]


def test_a_table_becomes_a_file_and_a_log_is_added(command, place):
    done = command("profiles", *OUT, "--from_csv=t.csv", "--system=a", '--about=a "board"\n#1', cwd=place)
    assert done.status == 0, done.err
    assert done.out.splitlines()[-1] == "board.toml: board, 1 target"
    assert done.out.splitlines()[1].split() == ["board", "cpu", "d0", "10.00", "1.10", "1.50", "33.6", "71.7"]
    assert done.out.splitlines()[2].split() == ["board", "cpu", "d3", "2.00"]
    first = load_profile(place / "board.toml")
    assert (first.about, first.targets[0].source) == ('a "board"\n#1', "a")
    gpu = ("--kind=board", "--target=gpu", "--out=board.toml", "--add", "--runtime=TFLite 2.16, GPU delegate")
    done = command("profiles", *gpu, "--from_benchmark=d0=log.txt", cwd=place)
    assert done.status == 0, done.err
    assert done.out.splitlines()[-1] == "board.toml: board, 2 targets"
    both = load_profile(place / "board.toml")
    assert both.about == first.about
    assert both.targets[0] == first.targets[0]
    assert both.entry("gpu", "d0") == Entry("d0", 2.05, 2.1, p95_ms=2.4)
    assert (both.targets[1].runtime, both.targets[1].source) == (
        "TFLite 2.16, GPU delegate",
        "benchmark_model, log.txt",
    )


KEPT = 'kind = "board"\n[[targets]]\nname = "cpu"\nmodels = [{ model = "d0", p50_ms = 1 }]\n'


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["--kind=board"],
            "kind: expected it beside one of --from_csv, --from_benchmark, --measure, found none of them",
        ),
        (["--add"], "add: expected it beside one of --from_csv, --from_benchmark, --measure, found none of them"),
        (["--show=t.csv", "--out=x.toml"], "out: expected it beside one of --from_csv, --from_benchmark, --measure, f"),
        (["--show=none.toml"], "profile: expected a readable file, found No such file or directory at 'none.toml'"),
        (["--show="], "profile: expected a readable file, found Is a directory at '.'"),
        (["--show=t.csv"], "profile: expected TOML, found "),
        (
            ["--from_csv=t.csv", "--measure=m"],
            "flags: expected one of --from_csv, --from_benchmark, --measure, --show, ",
        ),
        (["--from_csv=t.csv"], "kind: expected a value beside --from_csv, found none"),
        (["--from_csv=t.csv", "--kind=x"], "target: expected a value beside --from_csv, found none"),
        (["--measure=m", "--kind=x", "--target=y"], "out: expected a value beside --measure, found none"),
        (["--from_csv=t.csv", *OUT[:2], "--out=x.csv"], "out: expected a file *.toml, found 'x.csv'"),
        (
            ["--from_csv=t.csv", *OUT[:2], "--out=a/b.toml", "--system=a"],
            "b.toml: expected a file that can be written, ",
        ),
        (
            ["--from_csv=t.csv", *OUT[:2], f"--out={'x' * 300}.toml", "--system=a"],
            f"{'x' * 300}.toml: expected a file ",
        ),
        (["--from_csv=t.csv", "--kind= ", *OUT[1:], "--system=a"], "kind: expected a name, found ' '"),
        (["--from_csv=t.csv", "--target=a\nb", OUT[0], OUT[2], "--system=a"], r"target: expected a name, found 'a\nb'"),
        (
            ["--from_csv=t.csv", *OUT],
            "from_csv: expected one system, or --system to choose one of 2, found 'a, b' in t",
        ),
        (
            ["--from_csv=none.csv", *OUT],
            "from_csv: expected a readable file, found No such file or directory at 'none.",
        ),
        (["--from_benchmark=log.txt", *OUT], "from_benchmark: expected MODEL=FILE,MODEL=FILE…, found 'log.txt'"),
        (["--from_benchmark=d0=t.csv", *OUT], "from_benchmark d0: expected one line 'Inference timings in us: …', fou"),
        (
            ["--from_benchmark=d0=log.txt", *OUT, "--system=a"],
            "system: expected --from_csv beside it, found --from_bench",
        ),
        (
            ["--from_csv=t.csv", *OUT, "--add"],
            "profile: expected a readable file, found No such file or directory at 'b",
        ),
        (["--measure=none", *OUT], "measure: expected a folder with files NAME.tflite, found no such folder at 'none'"),
        (
            ["--measure=folder", *OUT],
            "measure: expected a folder with files NAME.tflite, found no such file at 'folder'",
        ),
        (["--measure=folder", *OUT, "--runs=0"], "flag --runs=0: "),
    ],
)
def test_what_is_refused_is_one_line(refused, place, words, expected):
    before = sorted(path.name for path in place.iterdir())
    assert refused(*words, name="profiles", cwd=place).startswith(f"error: {expected}")
    assert sorted(path.name for path in place.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (OUT, "out: expected a new file, or --add, found one at 'board.toml'; it is kept"),
        ((*OUT, "--add"), "target: expected one that isn't in board.toml yet, found 'cpu'"),
        (("--kind=x", "--target=gpu", OUT[2], "--add"), "kind: expected board, which board.toml is of, found 'x'"),
        (
            (OUT[0], "--target=gpu", OUT[2], "--add", "--about=x"),
            "about: expected none beside --add, since board.toml ",
        ),
    ],
)
def test_a_file_that_is_there_is_kept(refused, place, words, expected):
    """And nothing is measured in vain: what isn't possible is said first."""
    (place / "board.toml").write_text(KEPT)
    for source in ("--from_benchmark=d0=log.txt", "--measure=folder"):
        assert refused(*words, source, name="profiles", cwd=place).startswith(f"error: {expected}")
        assert (place / "board.toml").read_text() == KEPT


@pytest.mark.process
def test_as_a_process_it_needs_no_jax_to_show_and_leaves_no_traceback(place):
    script = (
        "import sys, launch.profiles, launch.inputs.profile_files as files\n"
        "assert launch.profiles.table([files.load_profile(path) for path in files.shipped_profiles()])\n"
        "assert 'jax' not in sys.modules and 'edge_cloud' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    line = [sys.executable, "-m", "launch.profiles", "--from_csv=/dev/null", *OUT]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == ("error: from_csv: expected a header and at least one row, found nothing in /dev/null\n")
