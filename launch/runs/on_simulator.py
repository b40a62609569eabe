"""Runs seeds on the simulator: groups of seeds in compiled programs, spread over threads, checkpointed, resumable.

A group is `lanes` seeds in one vmapped program, so a seed's result depends on the number of lanes (a compiler may
round differently), and on nothing else: not on the number of seeds, of threads, or of interruptions.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import heapq
import pathlib
import threading
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hl_jax import evaluation, oracle, training
from launch.host.progress import Progress
from launch.inputs.agents import make_agent, make_params
from launch.inputs.settings import Settings
from launch.runs import checkpoints
from launch.runs import folder as run_folder
from launch.runs.summary import Failure, Oracle, failure

DYNAMIC_STATES = 16  # states that a policy of a changing scenario is evaluated in


@functools.lru_cache(maxsize=4)
def _programs(agent: Any) -> tuple[Any, Any]:
    """An agent's programs, traced once a process: a sweep's workers run one agent's seeds one after the other."""
    return training.programs(agent)


_COMPILED: dict[Any, Any] = {}


def _compiled(agent: Any, arguments: tuple[Any, ...]) -> Any:
    """The compiled epoch for arguments of these shapes; the last one is kept."""
    leaves, structure = jax.tree.flatten(arguments)
    key = (agent, structure, tuple(jax.typeof(leaf) for leaf in leaves))
    if key not in _COMPILED:
        _COMPILED.clear()
        _COMPILED[key] = _programs(agent)[1].lower(*arguments).compile()
    return _COMPILED[key]


@dataclasses.dataclass
class Group:
    """Some seeds' runs: where they are, and what they have shown so far."""

    index: int
    seeds: tuple[int, ...]  # as many as lanes; only the run's own are reported
    run: Any
    epoch: int
    history: dict[int, list[dict[str, Any]]]
    failures: dict[int, Failure] = dataclasses.field(default_factory=dict)

    def over(self, epochs: int) -> bool:
        """Whether nothing is left to do: all epochs, or no seed that can go on."""
        return self.epoch >= epochs or self.failures.keys() == self.history.keys()


class Simulation:
    """All seeds of a run on the simulator."""

    def __init__(self, settings: Settings, folder: pathlib.Path, owner: str, checkpoint_epochs: int) -> None:
        self.settings, self.folder, self.owner = settings, folder, owner
        self.checkpoint_epochs = checkpoint_epochs
        self.agent = make_agent(settings.agent, settings.config, settings.scenario)
        self.params = make_params(settings.config, settings.scenario)
        count = DYNAMIC_STATES if settings.scenario.dynamics else 1
        self.starts = evaluation.start_states(jax.random.key(0), self.params, count)
        self.oracle = self._solve()
        self._init, self._epoch = _programs(self.agent)  # type: ignore[arg-type]  # agents are frozen dataclasses
        self._stop = threading.Event()
        self.failures: dict[int, Failure] = {}

    def _solve(self) -> Oracle:
        """The true optimum in every state that is evaluated."""
        conditions = self.starts.conditions
        count = conditions.node_cpu.shape[0]
        each = [jax.tree.map(lambda leaf, index=index: leaf[index], conditions) for index in range(count)]
        return Oracle(optima=tuple(oracle.optimum(self.params, one) for one in each))

    def _path(self, index: int) -> pathlib.Path:
        return self.folder / "checkpoints" / f"group-{index:04d}.ckpt"

    def groups(self) -> list[Group]:
        """The groups, each at its last checkpoint if it has one.

        Raises:
          InputError: if a checkpoint is damaged or belongs to other settings.
        """
        seeds, lanes = self.settings.seeds, self.settings.lanes
        found = []
        for index, low in enumerate(range(0, len(seeds), lanes)):
            own = seeds[low : low + lanes]
            # The last group is filled up with seeds that nobody asked for: the program's size must not change.
            padded = own + tuple(range(own[-1] + 1, own[-1] + 1 + lanes - len(own)))
            run = self._init(jnp.array(padded, jnp.int32), self.params)
            group = Group(index=index, seeds=padded, run=run, epoch=0, history={seed: [] for seed in own})
            if self._path(index).exists():
                group.run, notes = checkpoints.load(self._path(index), group.run, self.owner)
                group.epoch = notes["epoch"]
                group.history = {int(seed): rows for seed, rows in notes["history"].items()}
                group.failures = {int(seed): Failure(**one) for seed, one in notes.get("failures", {}).items()}
            found.append(group)
        return found

    def save(self, group: Group) -> None:
        """Checkpoints a group."""
        failures = {seed: dataclasses.asdict(one) for seed, one in group.failures.items()}
        notes = {"epoch": group.epoch, "history": group.history, "failures": failures}
        checkpoints.save(self._path(group.index), group.run, notes, self.owner)

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
                row = run_folder.entry(seed, group.epoch, one, self.oracle, spent)
                group.history[seed].append(row)
        if group.epoch % self.checkpoint_epochs == 0 or group.over(self.agent.epochs) or len(group.failures) > failed:
            self.save(group)
        if row is None:
            return "no seed of these can go on"
        regret = f"{row['regret_percent']:.1f} %" if row["feasible"] else "breaks the constraint"
        return f"steps {row['real_steps']}, ART {row['art_ms']:.1f} ms, regret {regret}"

    def learn(self, threads: int) -> dict[int, list[dict[str, Any]]]:
        """Runs every seed to its end and returns their histories; on an interrupt, checkpoints first.

        Threads take the group that is least advanced, an epoch at a time, so that all cores stay busy to the end.
        """
        groups = self.groups()
        waiting = [(group.epoch, group.index) for group in groups if not group.over(self.agent.epochs)]
        heapq.heapify(waiting)
        if waiting:
            # Once, not by every thread; and before the clock runs, because compiling is no learning.
            self._epoch = _compiled(self.agent, (groups[0].run, self.agent.plan(1), self.params, self.starts))
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
        return {seed: rows for group in groups for seed, rows in group.history.items()}
