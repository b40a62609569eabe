"""A public agent, `--agent=sb3_dqn`: Stable-Baselines3's DQN on the Gymnasium wrapper, judged as our agents are.

Its seeds run in processes of their own, because Python holds one thread at a time; a seed that is finished is kept in
the run folder, one that was cut off starts again. Needs requirements-peer.txt.
"""

from __future__ import annotations

import math
import multiprocessing
import multiprocessing.queues
import os
import pathlib
import queue
import signal
import time
from collections.abc import Callable
from multiprocessing.context import SpawnProcess
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from hl_jax import evaluation, gymnasium_env, simulator
from hl_jax.agents.world import Totals
from hl_jax.environments import Params, make_params, sufficient_penalty
from launch.host import files
from launch.host.errors import InputError
from launch.host.progress import Progress
from launch.host.records import as_data, from_data
from launch.host.runtime import use_compilation_cache
from launch.inputs import public
from launch.inputs.agents import make_agent
from launch.inputs.public import PublicConfig
from launch.inputs.settings import Settings
from launch.runs.folder import RunFolder
from launch.runs.history import Histories, Oracle, Row, Show, judged, row
from launch.runs.summary import Failure


class Step(NamedTuple):
    """What the environment told of a real step; times in ms."""

    cost: float
    art: float
    feasible: bool
    elapsed: float  # the slowest device's response time, or control periods
    requests: int
    untold: int  # that the simulation had no room for


def check(chosen: Settings) -> None:
    """Refuses what it can't be trained with.

    Raises:
      InputError: if Stable-Baselines3 isn't there, or real nodes are, or the scenario isn't one for it.
    """
    if not public.installed():
        expected = f"--agent={chosen.agent}: expected the packages of requirements-peer.txt"
        raise InputError(f"{expected}, found none")
    if chosen.real is not None:
        raise InputError(f"--agent={chosen.agent}: expected --env=simulator, found testbed")
    make_agent(chosen.agent, chosen.config, chosen.scenario)  # refuses what has too many joint actions, or another form


def epoch_steps(config: PublicConfig) -> int:
    """Real steps between two evaluations."""
    return config.direct_sessions * config.direct_steps


def _model(chosen: Settings, seed: int) -> Any:
    import stable_baselines3
    from stable_baselines3.common.logger import Logger

    config: PublicConfig = chosen.config
    penalty = sufficient_penalty(chosen.scenario, config.penalty_factor)
    env = gymnasium_env.OrchestrationGymEnv(chosen.scenario, penalty, flatten_actions=True)
    scaled = gymnasium.wrappers.TransformReward(env, lambda reward: float(reward) / config.cost_scale_ms)

    def step_size(left: float) -> float:
        rest = config.learning_rate_end
        return config.q_learning_rate * (rest + (1.0 - rest) * 0.5 * (1.0 + math.cos(math.pi * (1.0 - left))))

    model = stable_baselines3.DQN(
        "MlpPolicy",
        scaled,
        learning_rate=step_size,
        buffer_size=config.direct_capacity,
        learning_starts=config.batch,
        batch_size=config.batch,
        gamma=config.gamma,
        train_freq=config.direct_steps,
        gradient_steps=config.direct_updates,
        target_update_interval=epoch_steps(config),
        exploration_fraction=config.epsilon_epochs,
        exploration_initial_eps=config.epsilon_start,
        exploration_final_eps=config.epsilon_end,
        policy_kwargs={"net_arch": [config.width]},
        seed=seed,
        device="cpu",
    )
    model.set_logger(Logger(folder=None, output_formats=[]))
    return model


def _params(chosen: Settings) -> Params:
    """The scenario's arrays, with the penalty of the constants that are `dqn`'s."""
    return make_params(chosen.scenario, sufficient_penalty(chosen.scenario, chosen.config.penalty_factor))


def _evaluator(chosen: Settings, decide: Callable[[np.ndarray], int]) -> Callable[[], evaluation.Evaluation]:
    """The evaluation of our own agents, of greedy decisions that are made outside JAX."""
    scenario = chosen.scenario
    params = _params(chosen)
    starts = evaluation.judged_states(params)
    largest = (simulator.observation_levels(scenario.users) - 1).astype(np.float32)

    def on_host(obs: jax.Array) -> np.ndarray:
        # As the wrapper scales what the agent learned from.
        index = decide(np.asarray(obs, np.float32) / largest)
        return gymnasium_env.decode_action(index, scenario.users, scenario.choices)

    def greedy(obs: jax.Array) -> jax.Array:
        shape = jax.ShapeDtypeStruct((scenario.users,), jnp.int32)
        decision: jax.Array = jax.pure_callback(on_host, shape, obs, vmap_method="sequential")
        return decision

    return jax.jit(lambda: evaluation.evaluate(greedy, params, starts))


def solve(chosen: Settings) -> Oracle:
    """The true optimum in the states that are evaluated."""
    params = _params(chosen)
    return Oracle(optima=evaluation.optima(params, evaluation.judged_states(params)))


def learn(chosen: Settings, seed: int, tell: Callable[[str], None]) -> list[Row]:
    """Trains one seed; `tell` hears the numbers of each evaluation. Returns its history."""
    from stable_baselines3.common.callbacks import BaseCallback

    model, truth, size = _model(chosen, seed), solve(chosen), epoch_steps(chosen.config)
    judge = _evaluator(chosen, lambda obs: int(model.predict(obs, deterministic=True)[0]))
    jax.block_until_ready(judge())  # compiles, which is no learning
    rows: list[Row] = []

    class Recorder(BaseCallback):
        def __init__(self) -> None:
            super().__init__()
            self.taken: list[Step] = []
            self.since = time.perf_counter()

        def _on_step(self) -> bool:
            self.taken += [
                Step(
                    info["cost_ms"],
                    info["art_ms"],
                    info["feasible"],
                    info.get("elapsed_ms", max(info["response_ms"])),
                    info.get("requests", len(info["response_ms"])),
                    info.get("untold", 0),
                )
                for info in self.locals["infos"]
            ]
            if len(self.taken) == size:
                rows.append(self._row())
                self.taken, self.since = [], time.perf_counter()
                tell(f"seed {seed}: steps {rows[-1].real_steps}, ART {rows[-1].art_ms:.1f} ms")
            return True

        def _row(self) -> Row:
            totals = Totals(
                steps=jnp.int32(size),
                invalid=jnp.int32(0),
                requests=jnp.int32(sum(step.requests for step in self.taken)),
                untold=jnp.int32(sum(step.untold for step in self.taken)),
                cost_ms=jnp.float32(np.mean([step.cost for step in self.taken])),
                art_ms=jnp.float32(np.mean([step.art for step in self.taken])),
                infeasible=jnp.float32(np.mean([not step.feasible for step in self.taken])),
                elapsed_ms=jnp.float32(np.mean([step.elapsed for step in self.taken])),
            )
            seen, spent = judged(jax.device_get(judge()), truth), time.perf_counter() - self.since
            counted = {"requests": float(totals.requests)} if chosen.scenario.traffic else {}
            return row(seed, len(rows) + 1, (self.num_timesteps, 0), totals, seen, counted, spent)

    model.learn(size * chosen.config.epochs, callback=Recorder())
    return rows


def _seed_folder(folder: RunFolder) -> pathlib.Path:
    """Of the finished seeds' histories: this agent has no checkpoints."""
    return folder.path / "seeds"


def _seed_file(folder: RunFolder, seed: int) -> pathlib.Path:
    return _seed_folder(folder) / f"seed-{seed}.json"


def _work(chosen: Settings, seed: int, folder: RunFolder, news: multiprocessing.queues.Queue[str], parent: int) -> None:
    """The body of a seed's process."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its children
    torch.set_num_threads(1)
    use_compilation_cache()

    def tell(numbers: str) -> None:
        if os.getppid() != parent:
            os._exit(1)  # the parent was killed, so a later run does this seed again
        news.put(numbers)

    rows = learn(chosen, seed, tell)
    files.write_json(_seed_file(folder, seed), as_data(rows), indent=None)


def _histories(chosen: Settings, folder: RunFolder) -> Histories:
    """The finished seeds'."""
    paths = {seed: _seed_file(folder, seed) for seed in chosen.seeds}
    found = {seed: files.read_json(path) for seed, path in paths.items()}
    return {seed: from_data(list[Row], rows, str(paths[seed])) for seed, rows in found.items() if rows is not None}


def _learn_all(chosen: Settings, folder: RunFolder, seeds: list[int], threads: int) -> None:
    """Trains seeds, so many at the same time."""
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads can hang
    news: multiprocessing.queues.Queue[str] = context.Queue()
    waiting, running = list(seeds), list[SpawnProcess]()
    total, done = chosen.config.epochs * len(chosen.seeds), chosen.config.epochs * (len(chosen.seeds) - len(seeds))
    with Progress(total, done, f"{chosen.agent} {chosen.scenario.name}") as progress:
        try:
            while waiting or running:
                while waiting and len(running) < threads:
                    process = context.Process(target=_work, args=(chosen, waiting.pop(0), folder, news, os.getpid()))
                    process.start()
                    running.append(process)
                try:
                    progress.advance(1, news.get(timeout=0.2))
                except queue.Empty:
                    failed = [one.exitcode for one in running if one.exitcode]
                    if failed:
                        raise RuntimeError(f"a seed's process ended with status {failed[0]}") from None
                    running = [one for one in running if one.exitcode is None]
        finally:
            for process in running:
                process.terminate()
                process.join()


class PublicRun:
    """All seeds of a run of the public agent."""

    def __init__(self, settings: Settings, folder: RunFolder) -> None:
        check(settings)
        self.settings, self.folder = settings, folder
        self.oracle = solve(settings)
        self.failures: dict[int, Failure] = {}

    def learn(self, threads: int, show: Show) -> Histories:
        """Trains the seeds that aren't finished, so many at the same time. Returns all histories."""
        del show  # a seed's numbers come with its end
        _seed_folder(self.folder).mkdir(exist_ok=True)
        there = _histories(self.settings, self.folder)
        _learn_all(self.settings, self.folder, [seed for seed in self.settings.seeds if seed not in there], threads)
        return _histories(self.settings, self.folder)
