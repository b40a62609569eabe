"""A sweep at work in its folder: what is unfinished is done, and what each unit took is noted."""

from __future__ import annotations

import contextlib
import pathlib
import sys
import time
from collections.abc import Iterator, Sequence

from launch.host import locks, resources
from launch.host.progress import Progress
from launch.host.worklog import WorkLog
from launch.sweep import collect
from launch.sweep.axes import Assignment
from launch.sweep.executors.slots import Asked, Executor, Reply, Slot, run_all
from launch.sweep.plan import Point, Unit, all_units, points
from launch.sweep.search import Worth, expected_running_time


@contextlib.contextmanager
def alone(out: pathlib.Path) -> Iterator[None]:
    """Makes the folder, and keeps other sweeps out of it.

    Raises:
      InputError: if it can't be made, or another sweep runs in it.
    """
    with locks.held(out):
        (out / "units").mkdir(exist_ok=True)
        yield


def unfinished(plan: Sequence[Unit], out: pathlib.Path) -> list[Unit]:
    """The units that have no summary yet."""
    return [unit for unit in plan if not unit.run_folder(out).finished]


def run_units(plan: Sequence[Unit], out: pathlib.Path, slots: Sequence[Slot]) -> dict[str, str]:
    """Does every unit that isn't finished. Returns why, of each that can't be done.

    Raises:
      KeyboardInterrupt: after the workers have checkpointed.
    """
    waiting = unfinished(plan, out)
    if len(waiting) < len(plan):
        print(f"{len(plan) - len(waiting)} of {len(plan)} units of work are finished already", file=sys.stderr)
    log, failed, memory = WorkLog(out), {}, {}
    count, first = 0, 0.0

    with Progress(len(plan), len(plan) - len(waiting), "sweep", "unit") as progress:

        def done(unit: Unit, reply: Reply) -> None:
            nonlocal count, first
            count += 1
            if reply.error:
                failed[unit.folder] = reply.error
                print(f"{unit.folder} failed: {reply.error}", file=sys.stderr, flush=True)
            else:
                memory[reply.worker] = reply.peak_memory_gib
                log.note(unit.folder, reply.wall_s, resources.peak_memory_gib() + sum(memory.values()))
            now = time.perf_counter()
            first = first or now
            # The first ones start Python and compile what the others find.
            left_s = (now - first) / max(count - 1, 1) * (len(waiting) - count)
            left = f"about {left_s / 60.0:.0f} min left, " if count > len(slots) else ""
            progress.advance(1, f"{left}last {unit.folder}")

        def lost(unit: Unit, why: str) -> None:
            print(f"{unit.folder}: {why}; it is done again", file=sys.stderr, flush=True)

        run_all(waiting, slots, done, lost)
    return failed


class Sweep:
    """The trainings that were asked for so far."""

    def __init__(self, out: pathlib.Path, slots: Sequence[Slot]) -> None:
        self.out, self.slots = out, slots
        self.plan: list[Point] = []
        self.failed: dict[str, str] = {}

    def run(self, plan: Sequence[Point]) -> None:
        """Does what isn't finished of some points (nothing, if there is no slot)."""
        self.plan += plan
        if self.slots:
            self.failed |= run_units(all_units(plan), self.out, self.slots)

    def try_out(self, settings: Sequence[Assignment], tasks: Sequence[Assignment]) -> list[Worth]:
        """Runs settings in every task. Returns what each is worth."""
        self.run(in_tasks(settings, tasks))
        return [self._worth(setting, tasks) for setting in settings]

    def _worth(self, setting: Assignment, tasks: Sequence[Assignment]) -> Worth:
        plan = in_tasks([setting], tasks)
        runs = collect.read_runs(plan, self.out)
        each = [runs[point.name] for point in plan]
        every = [run for one in each for run in one]
        reached = sum(run.summary.steps_to_optimal is not None for run in every)
        whole = all(len(one) == len(point.settings.seeds) for one, point in zip(each, plan, strict=True))
        return Worth(expected_running_time(each) if whole else None, reached, len(every))


def in_tasks(settings: Sequence[Assignment], tasks: Sequence[Assignment]) -> list[Point]:
    """The points of settings that are each run in every task.

    Raises:
      InputError: if one can't be trained.
    """
    return points([{**setting, **task} for setting in settings for task in tasks])


@contextlib.contextmanager
def sweeping(executor: Executor | None, asked: Asked) -> Iterator[Sweep]:
    """A sweep at work on an executor; without one, a sweep that does nothing.

    Raises:
      InputError: if the executor can't be used, or another sweep runs in the folder.
    """
    if executor is None:
        yield Sweep(asked.out, ())
        return
    with alone(asked.out):
        slots = executor.slots(asked)
        try:
            yield Sweep(asked.out, slots)
        finally:
            for slot in slots:
                slot.close()
