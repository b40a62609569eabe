"""A scenario file's traffic, and the traces it names: replayed exactly, or one line that says what is wrong."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hl_jax.arrivals import Traffic
from hl_jax.traffic import drawing
from hl_jax.traffic.params import law_of, make_params
from launch.host.errors import InputError
from launch.host.files import ROOT
from launch.inputs import traffic_files
from launch.inputs.scenario_files import load_scenario

DEVICES = ("S1", "S2", "S3", "S4", "S5")
PERIOD_MS = 5000.0
MOST = 60  # stamps of an example


def scenario_with(folder: pathlib.Path, traffic: str, devices: str = "") -> pathlib.Path:
    """A copy of experiment A with this text as its traffic; `devices` is added to its first device."""
    text = (ROOT / "data/scenarios/expA.toml").read_text(encoding="utf-8").replace('"../', f'"{ROOT}/data/')
    head, first, rest = text.partition("[[devices]]\n")
    path = folder / "scenario.toml"
    path.write_text(f"{head}[traffic]\n{traffic}\n\n{first}{devices}\n{rest}", encoding="utf-8")
    return path


def test_each_kind_is_read(tmp_path):
    traffic = load_scenario(
        scenario_with(
            tmp_path,
            'kind = "periodic"\ninterval_ms = 500\njitter_ms = 20\ndeadline_ms = 300\nlate = "dropped"\nmbps = 20\n'
            "uplink_mbps = 100.0\nperiod_ms = 2000",
            'kind = "gamma"\nburstiness = 2.5\ninterval_ms = 800\nmbps = 5',
        )
    ).traffic
    assert traffic is not None
    assert [one.kind for one in traffic.arrivals] == ["gamma"] + ["periodic"] * 4
    assert [one.interval_ms for one in traffic.arrivals] == [800] + [500] * 4
    assert (traffic.arrivals[0].burstiness, traffic.arrivals[1].jitter_ms) == (2.5, 20)
    assert [link.mbps for link in traffic.links if link] == [(5,)] + [(20,)] * 4
    assert (traffic.period_ms, traffic.deadline_ms, traffic.late) == (2000, 300, "dropped")
    assert traffic.uplink is not None
    assert traffic.uplink.mbps == (100.0,)


def test_a_control_period_may_last_a_minute(tmp_path):
    traffic = load_scenario(scenario_with(tmp_path, "period_ms = 60000\ninterval_ms = 60000")).traffic
    assert (traffic.period_ms, traffic.arrivals[0].interval_ms) == (60000, 60000)


@pytest.mark.parametrize("stamps", ["0\n1700000000", "1e308", "0\n1e11", "nan", "# a comment\nwhen\n3"])
def test_times_that_nobody_can_mean_are_refused_in_one_line(tmp_path, stamps):
    (tmp_path / "trace.csv").write_text(stamps)
    with pytest.raises(InputError) as caught:
        load_scenario(scenario_with(tmp_path, 'kind = "trace"\ntrace = "trace.csv"'))
    assert "\n" not in str(caught.value)
    assert "trace.csv" in str(caught.value)
    assert "expected" in str(caught.value)


def test_together_is_the_papers(tmp_path):
    assert load_scenario(scenario_with(tmp_path, 'kind = "together"')).traffic is None


@pytest.mark.parametrize(
    ("traffic", "device", "says"),
    [
        ('kind = "often"', "", "traffic: expected kind together, periodic, poisson, gamma, trace, found 'often'"),
        ('kind = "together"\ninterval_ms = 3', "", "expected nothing beside kind together, found interval_ms"),
        ('kind = "together"', "interval_ms = 3", "devices.S1: expected nothing of requests beside kind together"),
        ('kind = "poisson"\nfoo = 1', "", "found the key 'foo'"),
        ('kind = "poisson"\ninterval_ms = 0', "", r"interval_ms: expected a number in \[1, 1e\+09\], found 0"),
        ('kind = "poisson"\ninterval_ms = "fast"', "", "found 'fast'"),
        ('kind = "poisson"\njitter_ms = 4', "", "expected none of periodic requests' for poisson ones"),
        ('kind = "periodic"\ninterval_ms = 10\njitter_ms = 11', "", "jitter_ms"),
        ('kind = "periodic"\nburstiness = 2.0', "", "burstiness"),
        ('kind = "trace"', "", "expected trace, a file, and perhaps scale beside kind trace, found no trace"),
        ('kind = "poisson"\ntrace = "x.csv"', "", "expected trace with kind trace"),
        ('kind = "trace"\ntrace = "missing.csv"', "", "trace: expected a readable file, found No such file"),
        ('kind = "poisson"\nobjective = "misses"', "", "objective: expected a deadline_ms to miss"),
        ('kind = "poisson"\nlate = "dropped"', "", "late: expected a deadline_ms to be late for"),
        ('kind = "poisson"\nperiod_ms = 1e7', "", "period_ms: expected a number in"),
        ('kind = "poisson"\ninterval_ms = 1e8', "", "requests: expected at least 0.01 in a control period"),
        ('kind = "poisson"\nmbps = 0', "", "mbps: expected a rate above 0"),
        ('kind = "poisson"\nmbps = 3\nbandwidth = "x.csv"', "", "expected mbps or bandwidth, found both"),
        ('kind = "poisson"', "speedy = 1", "devices\\[0\\]: expected one of .*, found the key 'speedy'"),
        ('kind = "poisson"', "interval_ms = -1", "devices.S1 in .*interval_ms"),
    ],
)
def test_a_mistake_is_one_clear_line(tmp_path, traffic, device, says):
    with pytest.raises(InputError, match=says) as found:
        load_scenario(scenario_with(tmp_path, traffic, device))
    assert "\n" not in str(found.value)
    assert str(tmp_path) in str(found.value)


def trace_of(folder: pathlib.Path, text: str) -> pathlib.Path:
    path = folder / "trace.csv"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return path


BAD = [
    "nan",
    "inf",
    "-1",
    "-inf",
    "1e400",
    "abc",
    "1_000",
    "１２",
    "0x10",
    "1;2",
    "--",
    "1e",
    "2020-01-01",
    "None",
    "'1'",
]
STAMPS = ["0.5", "1.0", "1.5"]


def malformed() -> list[str]:
    """A hundred trace files that can't be used."""
    texts = ["\n".join([*STAMPS[:place], bad, *STAMPS[place:]]) for bad in BAD for place in (1, 2, 3)]
    texts += ["\n".join(["time_s,device", f"{bad},S1"]) for bad in BAD]
    texts += ["\n".join(["count", "3", bad]) for bad in BAD]
    texts += ["\n".join(["time_s", *pair]) for pair in itertools.permutations(["3", "2", "1"], 2) if pair[0] > pair[1]]
    texts += ["", "\n\n", "# only a comment\n", "time_s\n", "count\n", "count\n0\n0\n", "time_s,device\n1,S9\n"]
    texts += ["1,2\n", "time_s,device\n1\n", "time_s,device\n1,S1,S2\n", "when\n1\n", "time,device\n1,S1\n"]
    texts += [
        "count\n1e8\n",
        "count\n9e6\n9e6\n",
        "\x00\n",
        "0.5\n\udcff\n",
        "time_s\n1\n0.5\n",
        "device,time_s\nS1,1\n",
    ]
    texts += ["1 2 3\n", "time_s\n1 2\n", "count\n1.5.2\n", "time_s,device\n1,\n2,S7\n"]
    return texts


def test_there_are_a_hundred_of_them():
    assert len(malformed()) == len(set(malformed())) >= 100


@pytest.mark.parametrize("text", malformed())
def test_a_malformed_trace_is_one_clear_line(tmp_path, text):
    path = trace_of(tmp_path, text)
    with pytest.raises(InputError, match=r"expected .*, found ") as found:
        traffic_files.request_trace(path, 1.0, PERIOD_MS, DEVICES)
    assert "\n" not in str(found.value)
    assert str(path) in str(found.value)


@jax.jit
def _start(law):
    return drawing.start(jax.random.key(0), law)


@jax.jit
def _draw(law, clocks):
    return drawing.draw(law, clocks, jnp.float32(PERIOD_MS), MOST)


@settings(max_examples=60, deadline=None)
@given(
    stamps=st.lists(st.floats(0.0, 40.0).map(lambda x: round(x, 6)), min_size=1, max_size=MOST).map(sorted),
    origin=st.sampled_from([0.0, 1.7e9]),
)
def test_time_stamps_are_replayed_exactly(tmp_path_factory, stamps, origin):
    path = trace_of(tmp_path_factory.mktemp("trace"), "\n".join(repr(origin + stamp) for stamp in stamps))
    found = traffic_files.request_trace(path, 1.0, PERIOD_MS, DEVICES)[""]
    first = origin + stamps[0]
    start = first if 1000.0 * first >= PERIOD_MS else 0.0
    expected = np.array([1000.0 * ((origin + stamp) - start) for stamp in stamps])
    assert np.array_equal(np.array(found.stamps_ms), expected)
    law = law_of(Traffic(arrivals=(found,), period_ms=PERIOD_MS))
    # Arrays of one size, so that all examples share a program.
    periods = law.stamps.first.shape[1]
    stamped = drawing.Stamps(
        offset=jnp.pad(law.stamps.offset, ((0, 0), (0, MOST - len(stamps)))),
        first=jnp.pad(law.stamps.first, ((0, 0), (0, 10 - periods)), mode="edge"),
    )
    law = dataclasses.replace(law, stamps=stamped)
    clocks, seen = _start(law), []
    for period in range(int(found.length_ms / PERIOD_MS)):
        clocks, times, beyond = _draw(law, clocks)
        assert int(beyond[0]) == 0
        there = np.asarray(times[0], np.float64)
        seen.append(there[np.isfinite(there)] + period * PERIOD_MS)
    assert np.allclose(np.concatenate(seen), expected, rtol=0.0, atol=0.5 / drawing.GRID + 1e-9)


@settings(max_examples=60, deadline=None)
@given(counts=st.lists(st.integers(0, 30), min_size=1, max_size=30), scale=st.sampled_from([1.0, 0.3, 2.5]))
def test_counts_are_kept_and_spread(tmp_path_factory, counts, scale):
    path = trace_of(tmp_path_factory.mktemp("trace"), "\n".join(["count", *map(str, counts)]))
    if sum(counts) * scale < 1.0:
        return
    found = traffic_files.request_trace(path, scale, PERIOD_MS, DEVICES)[""]
    stamps = np.array(found.stamps_ms) / 1000.0
    assert np.all(np.diff(stamps) >= 0.0)
    due = np.concatenate([[0.0], np.cumsum(np.array(counts) * scale)])
    by_second = np.searchsorted(stamps, np.arange(len(counts) + 1), side="left")
    assert np.all(np.abs(by_second - due) <= 0.5 + 1e-6)


def test_a_trace_names_devices(tmp_path):
    trace_of(tmp_path, "time_s,device\n0.1,S1\n0.2,S2\n0.3,S1\n0.3,S3\n4.0,S4\n4.9,S5\n")
    traffic = load_scenario(scenario_with(tmp_path, 'kind = "trace"\ntrace = "trace.csv"')).traffic
    assert traffic is not None
    assert [len(one.stamps_ms) for one in traffic.arrivals] == [2, 1, 1, 1, 1]
    assert traffic.weights[0] == pytest.approx(2 / 6)
    trace_of(tmp_path, "time_s,device\n0.1,S1\n")
    with pytest.raises(InputError, match=r"devices\.S2 in .*expected requests of S2, found none"):
        load_scenario(scenario_with(tmp_path, 'kind = "trace"\ntrace = "trace.csv"'))


def test_a_links_trace_is_read(tmp_path):
    (tmp_path / "link.csv").write_text("since_s,mbps\n0,20\n10,2\n15,20\n", encoding="utf-8")
    path = scenario_with(tmp_path, 'kind = "poisson"\nbandwidth = "link.csv"')
    params = make_params(load_scenario(path))
    assert params.link is not None
    assert np.asarray(params.link.kbit_per_ms)[0, :, 0].tolist() == [20.0, 20.0, 2.0, 20.0]
    for text, says in (("0,20\n0,3\n", "more than 0"), ("1,20\n", "expected 0 first"), ("0,0\n", "a rate above 0")):
        (tmp_path / "link.csv").write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=says):
            load_scenario(path)
