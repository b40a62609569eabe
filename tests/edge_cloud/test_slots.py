"""Core slots: order, bounds, deadlines and pacing, with stand-ins for models whose CPU time is known."""

from __future__ import annotations

import os
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_cloud.runtime import Inference
from edge_cloud.slots import LONGEST_WAIT_MS, NICENESS, PACINGS, Expired, Pacing, QueueFull, Slots

pytestmark = pytest.mark.clock

IMAGE = np.zeros((224, 224, 3), np.uint8)


class Stub:
    """A model that waits until it may end, and says that it took `cpu_ms`."""

    def __init__(self, cpu_ms: float = 1.0) -> None:
        self.cpu_ms, self.go, self.order = cpu_ms, threading.Event(), []

    def classify(self, image: np.ndarray) -> Inference:
        self.order.append(int(image[0, 0, 0]))
        assert self.go.wait(20.0)
        return Inference((1, 2, 3, 4, 5), (0.5, 0.2, 0.1, 0.1, 0.1), self.cpu_ms)


def run_in_thread(slots: Slots, number: int, results: list, deadline_s: float = 20.0) -> threading.Thread:
    image = IMAGE.copy()
    image[0, 0, 0] = number

    def work() -> None:
        try:
            results.append(slots.run("d0", image, deadline_s))
        except Exception as error:  # noqa: BLE001
            results.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def open_slots(stub: Stub, **changes) -> Slots:
    values = {"cores": 1, "pacing": Pacing(), "most_waiting": 8} | changes
    return Slots(lambda: {"d0": stub}, **values)


def wait_until(condition) -> None:
    ends = time.monotonic() + 10.0
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.002)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads share their process's priority")
@pytest.mark.parametrize("mode", ["off", "measured"])
def test_paced_inferences_give_way_and_nothing_else_does(mode):
    seen = []

    class Watched(Stub):
        def classify(self, image: np.ndarray) -> Inference:
            seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
            return super().classify(image)

    stub, own = Watched(), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    stub.go.set()
    slots = open_slots(stub, pacing=Pacing(mode))
    slots.run("d0", IMAGE, 20.0)
    slots.close()
    assert seen == [own if mode == "off" else max(own, NICENESS)]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == own


def test_first_come_first_served():
    stub, results = Stub(), []
    slots = open_slots(stub)
    threads = []
    for number in range(1, 6):
        threads.append(run_in_thread(slots, number, results))
        wait_until(lambda number=number: len(stub.order) == 1 and slots._jobs.qsize() == number - 1)
    stub.go.set()
    for thread in threads:
        thread.join()
    assert stub.order == [1, 2, 3, 4, 5]
    slots.close()


def test_one_more_than_may_wait_is_refused():
    stub, results = Stub(), []
    slots = open_slots(stub, most_waiting=2)
    threads = []
    for number in range(1, 4):  # one runs, two wait
        threads.append(run_in_thread(slots, number, results))
        wait_until(lambda number=number: len(stub.order) == 1 and slots._jobs.qsize() == number - 1)
    with pytest.raises(QueueFull, match="at most 2 waiting"):
        slots.run("d0", IMAGE, 1.0)
    stub.go.set()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    slots.close()


def test_a_request_whose_deadline_passed_is_never_run():
    stub, results = Stub(), []
    slots = open_slots(stub)
    first = run_in_thread(slots, 1, results)
    wait_until(lambda: stub.order == [1])
    with pytest.raises(Expired, match="within 50 ms"):
        slots.run("d0", IMAGE, 0.05)
    stub.go.set()
    first.join()
    last = run_in_thread(slots, 3, results)
    last.join()
    assert stub.order == [1, 3]
    slots.close()


@pytest.mark.parametrize(
    ("pacing", "background", "expected_ms"),
    [
        (Pacing("off", 30.0), 0.0, 0.0),
        (Pacing("measured", 30.0), 0.0, 120.0),  # 30 x 4 ms, as this inference took
        (Pacing("calibrated", 30.0, {"d0": 5.0}), 0.0, 150.0),  # 30 x 5 ms, whatever it took
        (Pacing("calibrated", 30.0, {"d0": 5.0}), 0.5, 300.0),  # half of the core is another's
    ],
)
def test_a_slot_is_held_as_paced(pacing, background, expected_ms):
    stub = Stub(cpu_ms=4.0)
    stub.go.set()
    slots = open_slots(stub, pacing=pacing, background=lambda: background)
    times = [slots.run("d0", IMAGE, 20.0).compute_ms for _ in range(3)]
    while min(times) >= expected_ms + 40.0 and len(times) < 30:  # the machine may be busy, but not always
        times.append(slots.run("d0", IMAGE, 20.0).compute_ms)
    slots.close()
    assert expected_ms <= min(times) < expected_ms + 40.0


@given(
    scale=st.floats(0.1, 100.0),
    cpu_ms=st.floats(0.1, 50.0),
    background=st.floats(0.0, 0.95),
    mode=st.sampled_from(PACINGS),
)
def test_waiting_leaves_an_inference_its_time(scale, cpu_ms, background, mode):
    pacing = Pacing(mode, scale, {"d0": cpu_ms})
    wait = pacing.wait_ms("d0")
    assert 0.0 <= wait <= LONGEST_WAIT_MS
    if wait > 0.0:
        assert mode == "calibrated"
        assert wait + cpu_ms <= pacing.hold_ms("d0", cpu_ms, background)
    elif mode == "calibrated":
        assert scale <= 1.0


def test_a_calibrated_inference_lets_messages_go_first_and_is_no_longer_held():
    begun = []

    class Watched(Stub):
        def classify(self, image: np.ndarray) -> Inference:
            begun.append(time.monotonic())
            return super().classify(image)

    stub = Watched(cpu_ms=1.0)
    stub.go.set()
    slots = open_slots(stub, pacing=Pacing("calibrated", 40.0, {"d0": 1.0}))
    started = time.monotonic()
    timed = slots.run("d0", IMAGE, 20.0)
    ended = time.monotonic()
    slots.close()
    assert begun[0] - started >= LONGEST_WAIT_MS / 1000.0
    assert 40.0 <= timed.compute_ms <= 1000.0 * (ended - started)


def test_cores_work_side_by_side_and_busy_time_is_theirs():
    stub, results = Stub(cpu_ms=10.0), []
    stub.go.set()
    slots = open_slots(stub, cores=2, pacing=Pacing("measured", 60.0))
    started = time.monotonic()
    threads = [run_in_thread(slots, number, results) for number in range(4)]
    for thread in threads:
        thread.join()
    elapsed = time.monotonic() - started
    # Two rounds of 600 ms: the first two wait for nothing, the others for the first ones.
    waits = sorted(result.queue_ms for result in results)
    assert waits[1] < 400.0 < waits[2]
    assert 2.4 <= slots.busy_seconds() <= 2 * elapsed
    slots.close()


def test_closing_gives_up_what_waits():
    stub, results = Stub(), []
    slots = open_slots(stub)
    threads = [run_in_thread(slots, 1, results)]
    wait_until(lambda: stub.order == [1])
    threads.append(run_in_thread(slots, 2, results))
    wait_until(lambda: slots._jobs.qsize() == 1)
    closing = threading.Thread(target=slots.close)
    closing.start()
    threads[1].join()
    stub.go.set()
    threads[0].join()
    closing.join()
    assert [type(result).__name__ for result in results] == ["Expired", "Timed"]


def test_an_error_of_the_model_reaches_who_asked_and_the_slot_goes_on():
    class Broken:
        def classify(self, image):
            if image[0, 0, 0] == 1:
                raise RuntimeError("broken")
            return Inference((1,) * 5, (0.0,) * 5, 0.1)

    slots = Slots(lambda: {"d0": Broken()}, 1, Pacing(), 4)
    bad = IMAGE.copy()
    bad[0, 0, 0] = 1
    with pytest.raises(RuntimeError, match="broken"):
        slots.run("d0", bad, 5.0)
    assert slots.run("d0", IMAGE, 5.0).inference.classes == (1,) * 5
    slots.close()
