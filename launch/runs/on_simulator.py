"""Runs seeds on the simulator: groups of seeds in compiled programs, spread over threads, checkpointed, resumable.

A group is `lanes` seeds in one vmapped program, so a seed's result depends on the number of lanes (a compiler may
round differently), and on nothing else: not on the number of seeds, of threads, or of interruptions.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import heapq
import threading
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from hl_jax import evaluation, training
from hl_jax.agents.world import Agent, AgentState, Run
from hl_jax.environments import Params, State
from launch.host.errors import InputError
from launch.host.progress import Progress
from launch.host.records import as_data, from_data
from launch.host.text import fixed
from launch.inputs.agents import make_agent
from launch.inputs.settings import Settings
from launch.runs import checkpoints, compiled, history
from launch.runs.folder import RunFolder
from launch.runs.history import Oracle, Row, Show, judged
from launch.runs.summary import Failure, failure


@dataclasses.dataclass
class Group:
    """Some seeds' runs: where they are, and what they have shown so far."""

    index: int
    seeds: tuple[int, ...]  # as many as lanes; only the run's own are reported
    run: Run
    epoch: int
    history: dict[int, list[Row]]
    failures: dict[int, Failure] = dataclasses.field(default_factory=dict)

    def over(self, epochs: int) -> bool:
        """Whether nothing is left to do: all epochs, or no seed that can go on."""
        return self.epoch >= epochs or self.failures.keys() == self.history.keys()

    def agents(self) -> dict[int, AgentState]:
        """The agent's state of each seed that has begun."""
        lanes = {seed: lane for lane, seed in enumerate(self.seeds) if seed in self.history}
        return {seed: jax.tree.map(lambda leaf, lane=lane: leaf[lane], self.run.agent) for seed, lane in lanes.items()}


@dataclasses.dataclass(frozen=True)
class _Notes:
    """What a checkpoint holds beside a group's arrays."""

    epoch: int
    history: dict[int, list[Row]]
    failures: dict[int, Failure]


def solve(params: Params, starts: State) -> Oracle:
    """The true optimum in each of these states.

    Raises:
      InputError: if nobody can tell it: a fleet too large for a proof in time.
    """
    try:
        return Oracle(optima=evaluation.optima(params, starts))
    except ValueError as error:
        raise InputError(f"--scenario: {error}") from error


def load_groups(agent: Agent, params: Params, settings: Settings, folder: RunFolder) -> list[Group]:
    """A run's groups, each at its last checkpoint if it has one.

    Raises:
      InputError: if a checkpoint is damaged or belongs to other settings.
    """
    seeds, lanes = settings.seeds, settings.lanes
    init, _ = training.programs(agent)
    found = []
    for index, low in enumerate(range(0, len(seeds), lanes)):
        own = seeds[low : low + lanes]
        # The last group is filled up with seeds that nobody asked for: the program's size must not change.
        padded = own + tuple(range(own[-1] + 1, own[-1] + 1 + lanes - len(own)))
        run = init(jnp.array(padded, jnp.int32), params)
        group = Group(index=index, seeds=padded, run=run, epoch=0, history={seed: [] for seed in own})
        path = folder.group(index)
        if path.exists():
            group.run, data = checkpoints.load(path, group.run, settings.digest)
            notes = from_data(_Notes, data, str(path))
            group.epoch, group.history, group.failures = notes.epoch, notes.history, notes.failures
        found.append(group)
    return found


class Simulation:
    """All seeds of a run on the simulator."""

    def __init__(self, settings: Settings, folder: RunFolder, checkpoint_epochs: int) -> None:
        self.settings, self.folder = settings, folder
        self.checkpoint_epochs = checkpoint_epochs
        self.agent = make_agent(settings.agent, settings.config, settings.scenario)
        try:
            self.params = training.params_for(self.agent, settings.scenario)
        except ValueError as error:
            raise InputError(f"--scenario: {error}") from error
        self.starts = evaluation.judged_states(self.params)
        self.oracle = solve(self.params, self.starts)
        self._epoch = training.programs(self.agent)[1]
        self._stop = threading.Event()
        self.failures: dict[int, Failure] = {}

    def groups(self) -> list[Group]:
        """The groups, each at its last checkpoint if it has one."""
        return load_groups(self.agent, self.params, self.settings, self.folder)

    def save(self, group: Group) -> None:
        """Checkpoints a group."""
        notes = _Notes(epoch=group.epoch, history=group.history, failures=group.failures)
        checkpoints.save(self.folder.group(group.index), group.run, as_data(notes), self.settings.digest)

    @staticmethod
    def histories(groups: Sequence[Group]) -> dict[int, list[Row]]:
        """What each seed has shown so far."""
        return {seed: list(rows) for group in groups for seed, rows in group.history.items()}

    def advance(self, group: Group) -> str:
        """Runs one epoch of a group. Returns the numbers to watch.

        A seed that can't go on keeps its last state that could (`training.epoch`), and takes no further part.
        """
        start = time.perf_counter()
        group.run, report = self._epoch(group.run, self.agent.plan(group.epoch + 1), self.params, self.starts)
        report = jax.tree.map(np.asarray, report)
        spent = (time.perf_counter() - start) / len(group.seeds)
        group.epoch += 1
        failed, row = len(group.failures), None
        for lane, seed in enumerate(group.seeds):
            if seed not in group.history or seed in group.failures:
                continue
            one = jax.tree.map(lambda leaf, lane=lane: leaf[lane], report)
            if one.wrong.any():
                group.failures[seed] = failure(group.epoch, group.run.agent, one.learning, one.wrong)
            else:
                steps, shown = (int(one.real_steps), int(one.model_steps)), judged(one.evaluation, self.oracle)
                row = history.row(seed, group.epoch, steps, one.totals, shown, one.learning, spent)
                group.history[seed].append(row)
        if group.epoch % self.checkpoint_epochs == 0 or group.over(self.agent.epochs) or len(group.failures) > failed:
            self.save(group)
        if row is None:
            return "no seed of these can go on"
        regret = f"{fixed(row.regret_percent or 0.0, 1)} %" if row.feasible else "breaks the constraint"
        return f"steps {row.real_steps}, ART {row.art_ms:.1f} ms, regret {regret}"

    def learn(self, threads: int, show: Show = lambda _: None) -> dict[int, list[Row]]:
        """Runs every seed to its end and returns their histories; on an interrupt, checkpoints first.

        Threads take the group that is least advanced, an epoch at a time, so that all cores stay busy to the end.
        """
        groups = self.groups()
        waiting = [(group.epoch, group.index) for group in groups if not group.over(self.agent.epochs)]
        heapq.heapify(waiting)
        if waiting:
            # Once, not by every thread; and before the clock runs, because compiling is no learning.
            self._epoch = compiled.epoch(self.agent, (groups[0].run, self.agent.plan(1), self.params, self.starts))
        lock = threading.Lock()
        total = self.agent.epochs * len(groups)

        def work(progress: Progress) -> None:
            while not self._stop.is_set():
                with lock:
                    if not waiting:
                        return
                    _, index = heapq.heappop(waiting)
                group = groups[index]
                numbers = self.advance(group)
                progress.advance(1, numbers)
                with lock:
                    show(lambda: self.histories(groups))
                if not group.over(self.agent.epochs):
                    with lock:
                        heapq.heappush(waiting, (group.epoch, index))

        done = sum(group.epoch for group in groups)
        with (
            Progress(total, done, f"{self.settings.agent} {self.settings.scenario.name}") as progress,
            concurrent.futures.ThreadPoolExecutor(threads) as pool,
        ):
            workers = [pool.submit(work, progress) for _ in range(threads)]
            try:
                for worker in concurrent.futures.as_completed(workers):
                    worker.result()
            except BaseException:
                # Let the epochs under way end, so that what is saved is whole.
                self._stop.set()
                concurrent.futures.wait(workers)
                for group in groups:
                    self.save(group)
                raise
        self.failures = {seed: one for group in groups for seed, one in group.failures.items()}
        return self.histories(groups)
