"""Resource Monitoring: Table II's discretization, and utilization over a window from a known counter."""

from __future__ import annotations

import collections
import time
import tomllib

import psutil
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_cloud import monitor
from edge_cloud.background import Background
from tests.helpers.fleets import ROOT, wait_for


def test_levels_are_table_twos():
    table = tomllib.loads((ROOT / "data" / "paper" / "table2.toml").read_text())
    levels = {component["symbol"]: component["levels"] for component in table["components"]}
    assert levels["P^E"] == levels["P^C"] == monitor.CPU_LEVELS
    assert {levels[symbol] for symbol in levels if symbol not in ("P^E", "P^C")} == {2}


@pytest.mark.parametrize(
    ("utilization", "level"), [(0.0, 0), (0.11, 0), (1 / 9, 1), (0.5, 4), (8 / 9, 8), (0.999, 8), (1.0, 8), (1.7, 8)]
)
def test_nine_cpu_levels(utilization, level):
    assert monitor.cpu_level(utilization) == level


def test_two_valued_states_have_thresholds():
    assert [monitor.is_busy(value) for value in (0.0, 0.49, 0.5, 1.0)] == [0, 0, 1, 1]
    assert [monitor.is_memory_busy(value) for value in (0.79, 0.8)] == [0, 1]
    assert [monitor.is_weak(value) for value in (0.3, 9.9, 10.0, 20.0)] == [0, 0, 1, 1]


def test_utilization_is_the_busy_part_of_the_window(monkeypatch):
    now, busy = 0.0, 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    meter = monitor.Utilization(lambda: busy, cores=2, window_s=1.0)
    for _ in range(20):  # one second in which one of two cores works
        now, busy = now + 0.05, busy + 0.05
        meter.sample()
    assert meter.read() == pytest.approx(0.5)
    for _ in range(8):  # 0.4 s of rest: 0.6 s of one core's work are left in the window
        now += 0.05
        meter.sample()
    assert meter.read() == pytest.approx(0.3)
    now += 0.3  # between samples: 0.3 s are left
    assert meter.read() == pytest.approx(0.15)
    now += 5.0
    meter.sample()
    assert meter.read() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.clock
def test_a_delay_is_the_least_of_the_last_three():
    delay = monitor.Delay()
    assert delay.value == 0.0
    sent = 1000.0 * time.time()
    assert delay.add(sent - 50.0) == pytest.approx(50.0, abs=5.0)
    assert delay.add(sent - 20.0) == pytest.approx(20.0, abs=5.0)
    for _ in range(3):
        delay.add(1000.0 * time.time() - 80.0)
    assert delay.value == pytest.approx(80.0, abs=5.0)


@pytest.mark.clock
def test_background_load_burns_real_cpu_and_takes_real_memory():
    load = Background(cores=1)
    memory = monitor.process_memory(10000.0)
    load.set(0.5, 200.0)
    assert monitor.process_memory(10000.0) - memory == pytest.approx(0.02, abs=0.005)
    before, started = time.process_time(), time.monotonic()
    time.sleep(1.0)
    part = (time.process_time() - before) / (time.monotonic() - started)
    load.set(0.0, 0.0)
    wait_for(lambda: monitor.process_memory(10000.0) - memory < 0.005)
    time.sleep(0.1)
    idle = time.process_time()
    time.sleep(0.3)
    idle = time.process_time() - idle
    load.close()
    assert 0.02 < part < 0.7  # half, and on a machine with much else to do less
    assert idle < 0.02


@pytest.mark.parametrize(("cpu", "memory_mb"), [(0.96, 0.0), (-0.1, 0.0), (float("nan"), 0.0), (0.0, -1.0), (0.0, 1e6)])
def test_impossible_background_loads_are_refused(cpu, memory_mb):
    load = Background(cores=1)
    with pytest.raises(ValueError, match="background"):
        load.set(cpu, memory_mb)
    load.close()


Times = collections.namedtuple("Times", "user nice system idle iowait irq softirq steal guest guest_nice")


@pytest.mark.parametrize(
    ("times", "busy"),
    [
        (Times(10, 0, 0, 90, 5, 0, 0, 0, 0, 0), 10),
        (Times(10, 0, 0, 90, 5, 0, 0, 0, 10, 0), 10),  # a guest's time is in `user`
        (Times(0, 25, 0, 90, 5, 0, 0, 0, 0, 25), 25),  # a niced one's in `nice`
        (Times(8, 4, 2, 90, 5, 1, 1, 3, 6, 2), 19),
    ],
)
def test_busy_seconds_are_as_psutil_counts_them(monkeypatch, times, busy):
    monkeypatch.setattr(psutil, "cpu_times", lambda: times)
    assert monitor.machine_busy_seconds() == busy
    assert monitor.machine_busy_seconds() == psutil._cpu_busy_time(times)


def test_a_system_that_counts_less_is_taken_as_it_is(monkeypatch):
    mac = collections.namedtuple("Mac", "user nice system idle")
    monkeypatch.setattr(psutil, "cpu_times", lambda: mac(10, 1, 2, 90))
    assert monitor.machine_busy_seconds() == 13


@given(
    st.floats(-5e4, 5e4),
    st.floats(0.1, 50.0),
    st.floats(0.1, 50.0),
)
@example(-4.0, 10.0, 1.0)  # just too far apart to be believed: half of the round trip is further off than the clock
def test_clocks_that_disagree_make_no_link_weak_that_is_not(ahead_ms, up_ms, down_ms):
    """A sender's clock that is `ahead_ms` of ours: no delay is more than the round trip, nor far from the truth."""
    delay, round_trip = monitor.Delay(), up_ms + down_ms
    told = delay.of(up_ms - ahead_ms, round_trip)
    assert 0.0 <= told <= round_trip + monitor.CLOCK_SLACK_MS
    believed = -monitor.CLOCK_SLACK_MS <= up_ms - ahead_ms <= round_trip + monitor.CLOCK_SLACK_MS
    assert abs(told - up_ms) <= (abs(ahead_ms) if believed else abs(up_ms - down_ms) / 2.0) + 1e-6
    assert delay.of(up_ms - ahead_ms, 0.0) == max(up_ms - ahead_ms, 0.0)  # with nothing to compare with
