"""Tables and logs of benchmark_model: read as they are, and what can't be used is one clear line."""

from __future__ import annotations

import pathlib

import pytest

from hl_jax.profiles import Entry
from launch.host.errors import InputError
from launch.inputs.profile_imports import benchmark_files, from_benchmark, from_csv

pytestmark = pytest.mark.smoke

TABLE = """\
repo,system,model,paper_name,type,width,top1_percent,mean_ms,p50_ms,p90_ms,p95_ms,p99_ms,p999_ms,mean_W,energy_mJ_per_inference
results,board-a,mobilenet-1.0,d0,FP32,1.0,71.7,10.5,10.0,11.0,12.0,15.0,20.0,3.2,33.6
results,board-a,mobilenet-0.25,d3,FP32,0.25,51.8,2.5,2.0,,,,,,

results,board-b,mobilenet-1.0,d0,FP32,1.0,71.7,20.5,20.0,21.0,22.0,25.0,30.0,,
"""


def table(tmp_path: pathlib.Path, text: str) -> pathlib.Path:
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_like_the_public_one(tmp_path):
    read = from_csv(table(tmp_path, TABLE), "board-a")
    assert read.source == "results, board-a"
    assert read.entries == (
        Entry("d0", 10.0, 10.5, 11.0, 12.0, 15.0, 20.0, 33.6, None, 71.7),
        Entry("d3", 2.0, 2.5, top1=51.8),
    )


def test_a_smaller_table(tmp_path):
    read = from_csv(table(tmp_path, '\ufeffmodel, p50_ms ,memory_MB,top5_percent\r\n"d,0", 1e1 ,4.5,90\r\n'))
    assert read.entries == (Entry("d,0", 10.0, memory_mb=4.5, top5=90.0),)
    assert read.source == "t.csv"


HEAD = "model,p50_ms,p90_ms\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "from_csv: expected a header and at least one row, found nothing in PLACE"),
        ("\n , \n", "from_csv: expected a header and at least one row, found nothing in PLACE"),
        (HEAD, "from_csv: expected at least one row below the header, found none in PLACE"),
        (
            "model,p50\nd0,1\n",
            "from_csv: expected some of paper_name, model, p50_ms, mean_ms, p90_ms, p95_ms, p99_ms, ",
        ),
        (
            "model,p90_ms\nd0,1\n",
            "from_csv: expected the columns p50_ms and paper_name or model, found model, p90_ms in",
        ),
        (
            "p50_ms,p90_ms\n1,2\n",
            "from_csv: expected the columns p50_ms and paper_name or model, found p50_ms, p90_ms i",
        ),
        ("model,p50_ms,p50_ms\nd0,1,2\n", "from_csv: expected each column once, found p50_ms 2 times in PLACE"),
        (HEAD + "d0,1\n", "from_csv: expected 3 columns, found 2 in PLACE, line 2"),
        (HEAD + "d0,1,2,3\n", "from_csv: expected 3 columns, found 4 in PLACE, line 2"),
        (HEAD + "d0,1;5,2\n", "p50_ms: expected a number, found '1;5' in PLACE, line 2"),
        (HEAD + "d0,nan,2\n", "p50_ms: expected a number, found 'nan' in PLACE, line 2"),
        (HEAD + "d0,1_0,2\n", "p50_ms: expected a number, found '1_0' in PLACE, line 2"),
        (HEAD + "d0,٣,2\n", "p50_ms: expected a number, found '٣' in PLACE, line 2"),
        (HEAD + "d0,1e400,\n", "d0.p50_ms: expected a number in [1e-06, 1e+09], found inf in PLACE, line 2"),
        (HEAD + "d0,,2\n", "d0.p50_ms: expected a number in [1e-06, 1e+09], found None in PLACE, line 2"),
        (HEAD + "d0,0,2\n", "d0.p50_ms: expected a number in [1e-06, 1e+09], found 0.0 in PLACE, line 2"),
        (HEAD + "d0,3,2\n", "d0.p90_ms: expected at least p50_ms, 3, found 2.0 in PLACE, line 2"),
        (HEAD + ",3,4\n", "model: expected a name, found '' in PLACE, line 2"),
        (HEAD + "d0,3,4\n\nd0,3,4\n", "from_csv: expected each model once, found 'd0' again in PLACE, line 4"),
        (HEAD + '"d0,3,4\n', "from_csv: expected CSV, found "),
        (HEAD + "d0,3,\x00\n", "p90_ms: expected a number, found '\\x00' in PLACE, line 2"),
        (TABLE, "from_csv: expected one system, or --system to choose one of 2, found 'board-a, board-b' in PLACE"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_line(tmp_path, text, expected):
    path = table(tmp_path, text)
    with pytest.raises(InputError) as caught:
        from_csv(path)
    said = str(caught.value).replace(str(path), "PLACE")
    assert said.startswith(expected)
    assert "\n" not in said
    assert "PLACE" in said


def test_a_system_that_is_not_there(tmp_path):
    path = table(tmp_path, TABLE)
    with pytest.raises(InputError, match=r"^system: expected one of 'board-a, board-b', found 'board-c' in "):
        from_csv(path, "board-c")


def test_another_encoding_is_one_line(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(HEAD.encode() + "dé,1,2".encode("latin-1"))
    with pytest.raises(InputError, match=r"^from_csv: expected UTF-8 text, found byte 21 that is not, in "):
        from_csv(path)
    path.write_text(HEAD, encoding="utf-16")
    with pytest.raises(InputError, match=r"^from_csv: expected UTF-8 text, found byte 0 that is not, in "):
        from_csv(path)


# Written after what benchmark_model prints: its lines, with the numbers of no real machine.
WARM_UP = (
    "count=4 first=131000 curr=129500 min=129000 max=131000 avg=129875 std=800 p5=129000 median=129500 p95=131000\n"
)
RUNS = (
    "count=50 first=120000 curr=121000 min=118500 max=180250 avg=1.21437e+05 std=4100 "
    "p5=118900 median=120500 p95=125750\n"
)
TIMINGS = (
    "Inference timings in us: Init: 5685, First inference: 131000, Warmup (avg): 129875, Inference (avg): 1.21437e+05\n"
)
MEMORY = "Memory footprint delta from the start of the tool (MB): init=4.21094 overall=46.0859\n"
LOG = (
    "STARTING!\nLog parameter values verbosely: [0]\nGraph: [mobilenet.tflite]\nLoaded model mobilenet.tflite\n"
    "Initialized session in 5.685ms.\n"
    "Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.\n"
    f"{WARM_UP}\n"
    "Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.\n"
    f"{RUNS}\n{TIMINGS}"
    "Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE.\n"
    f"{MEMORY}"
)
READ = Entry("d0", 120.5, 121.437, p95_ms=125.75, memory_mb=46.0859)


def log(tmp_path: pathlib.Path, text: str) -> Entry:
    path = tmp_path / "log.txt"
    path.write_text(text)
    return from_benchmark(path, "d0")


@pytest.mark.parametrize("before", ["", "INFO: ", "08-01 10:00:00.000  1234  1234 I tflite  : "])
def test_a_log_of_benchmark_model(tmp_path, before):
    assert log(tmp_path, "".join(f"{before}{line}\n" for line in LOG.splitlines())) == READ


def test_profiling_below_the_timings_is_not_read(tmp_path):
    more = "Timings (microseconds): count=50 first=1 curr=1 min=1 max=1 avg=1 std=0\nMemory (bytes): count=0\n"
    assert log(tmp_path, LOG + more) == READ


def test_older_words_for_memory_and_none_at_all(tmp_path):
    older = LOG.replace("Memory footprint delta from the start of the tool (MB)", "Peak memory footprint (MB)")
    assert log(tmp_path, older) == READ
    assert log(tmp_path, LOG.replace(MEMORY, "")).memory_mb is None
    assert log(tmp_path, LOG.replace("overall=46.0859", "overall=0")).memory_mb is None


@pytest.mark.parametrize(
    "runs",
    [
        "count=1 curr=120500 p5=120500 median=120500 p95=120500\n",
        "count=50 curr=120500(all same) p5=120500 median=120500 p95=120500\n",
    ],
)
def test_a_single_run_and_equal_ones_have_no_mean_of_their_own(tmp_path, runs):
    read = log(tmp_path, LOG.replace(RUNS, runs))
    assert (read.p50_ms, read.mean_ms, read.p95_ms) == (120.5, 120.5, 120.5)


def test_a_log_without_p95(tmp_path):
    assert log(tmp_path, LOG.replace(" p95=125750", "")).p95_ms is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "from_benchmark d0: expected one line 'Inference timings in us: …', found none in PLACE"),
        (LOG.replace(TIMINGS, ""), "from_benchmark d0: expected one line 'Inference timings in us: …', found none in "),
        (LOG + LOG, "from_benchmark d0: expected one line 'Inference timings in us: …', found 2 of them in PLACE"),
        (
            TIMINGS,
            "from_benchmark d0: expected a line 'count=… avg=… median=…' before the timings, found none in PLACE",
        ),
        (
            LOG.replace(" p5=118900 median=120500 p95=125750", ""),
            "from_benchmark d0: expected median=… beside count=…, found none in PLACE, line 10; newer versions",
        ),
        (
            LOG.replace("avg=1.21437e+05 ", ""),
            "from_benchmark d0: expected avg=… beside count=…, found none in PLACE, li",
        ),
        (LOG.replace("median=120500", "median=fast"), "median: expected a number, found 'fast' in PLACE, line 10"),
        (
            LOG.replace("median=120500", "median=0"),
            "d0.p50_ms: expected a number in [1e-06, 1e+09], found 0.0 in PLACE",
        ),
        (
            LOG.replace("p95=125750", "p95=110000"),
            "d0.p95_ms: expected at least p50_ms, 120.5, found 110.0 in PLACE, li",
        ),
    ],
)
def test_a_log_that_cannot_be_used_is_one_line(tmp_path, text, expected):
    with pytest.raises(InputError) as caught:
        log(tmp_path, text)
    said = str(caught.value).replace(str(tmp_path / "log.txt"), "PLACE")
    assert said.startswith(expected)
    assert "\n" not in said


def test_which_log_is_of_which_model():
    files = {"d0": pathlib.Path("a.txt"), "d3": pathlib.Path("b=c.txt")}
    assert benchmark_files("d0=a.txt, d3=b=c.txt") == files
    for text in ("", "d0", "d0=", "=a.txt", "d0=a.txt,", "d0=a.txt,d3"):
        with pytest.raises(InputError, match=r"^from_benchmark: expected MODEL=FILE,MODEL=FILE…, found "):
            benchmark_files(text)
    with pytest.raises(InputError, match=r"^from_benchmark: expected each model once, found 'd0' again$"):
        benchmark_files("d0=a.txt,d0=b.txt")
