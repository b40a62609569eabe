"""A public agent as a unit of work: Stable-Baselines3's DQN on the Gymnasium wrapper, judged as our agents are.

It gets the constants of our `dqn` (batch, width, step sizes, schedules), the same steps, and the same evaluation of its
greedy decisions. Its seeds run in processes of their own, because Python holds one thread at a time; a seed that is
finished is kept in the run folder, one that was cut off starts again. Needs requirements-peer.txt.
"""

from __future__ import annotations

import importlib.util
import json
import math
import multiprocessing
import os
import pathlib
import queue
import signal
import time
import types
from collections.abc import Callable
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from hl_jax import evaluation, gymnasium_env, oracle, simulator
from hl_jax.agents.config import HybridConfig
from hl_jax.penalty import sufficient_penalty
from launch.host import files
from launch.host.errors import InputError
from launch.host.files import write_atomically
from launch.host.progress import Progress
from launch.host.runtime import use_compilation_cache
from launch.inputs.agents import make_params
from launch.inputs.settings import Settings
from launch.runs import folder as run_folder
from launch.runs.summary import Oracle, finished

AGENT = "sb3_dqn"
ENV = "simulator (Gymnasium)"
PACKAGE = "stable_baselines3"


def installed() -> bool:
    """Whether Stable-Baselines3 is there."""
    return importlib.util.find_spec(PACKAGE) is not None


def epoch_steps(config: HybridConfig) -> int:
    """Real steps between two evaluations."""
    return config.direct_sessions * config.direct_steps


def _model(chosen: Settings, seed: int) -> Any:
    import stable_baselines3
    from stable_baselines3.common.logger import Logger

    config: HybridConfig = chosen.config
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


def _evaluator(chosen: Settings, decide: Callable[[np.ndarray], int]) -> Callable[[], evaluation.Evaluation]:
    """The evaluation of our own agents, of greedy decisions that are made outside JAX."""
    scenario = chosen.scenario
    params = make_params(chosen.config, scenario)
    starts = evaluation.start_states(jax.random.key(0), params, 1)
    largest = (simulator.observation_levels(scenario.users) - 1).astype(np.float32)

    def on_host(obs: Any) -> np.ndarray:
        # As the wrapper scales what the agent learned from.
        index = decide(np.asarray(obs, np.float32) / largest)
        return gymnasium_env.decode_action(index, scenario.users, scenario.choices)

    def greedy(obs: Any) -> Any:
        shape = jax.ShapeDtypeStruct((scenario.users,), jnp.int32)
        return jax.pure_callback(on_host, shape, obs, vmap_method="sequential")

    return jax.jit(lambda: evaluation.evaluate(greedy, params, starts))


def solve(chosen: Settings) -> Oracle:
    """The true optimum in the state that is evaluated."""
    return Oracle(optima=(oracle.brute_force(make_params(chosen.config, chosen.scenario)),))


def learn(chosen: Settings, seed: int, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """Trains one seed; `tell` hears the numbers of each evaluation. Returns its history, as `run_folder.entry`."""
    from stable_baselines3.common.callbacks import BaseCallback

    model, truth, size = _model(chosen, seed), solve(chosen), epoch_steps(chosen.config)
    judge = _evaluator(chosen, lambda obs: int(model.predict(obs, deterministic=True)[0]))
    jax.block_until_ready(judge())  # compiles, which is no learning
    rows: list[dict[str, Any]] = []

    class Recorder(BaseCallback):
        def __init__(self) -> None:
            super().__init__()
            self.infos: list[dict[str, Any]] = []
            self.since = time.perf_counter()

        def _on_step(self) -> bool:
            self.infos += self.locals["infos"]
            if len(self.infos) == size:
                rows.append(self._row())
                self.infos, self.since = [], time.perf_counter()
                tell(f"seed {seed}: steps {rows[-1]['real_steps']}, ART {rows[-1]['art_ms']:.1f} ms")
            return True

        def _row(self) -> dict[str, Any]:
            totals = types.SimpleNamespace(
                steps=size,
                cost_ms=np.mean([info["cost_ms"] for info in self.infos]),
                art_ms=np.mean([info["art_ms"] for info in self.infos]),
                infeasible=np.mean([not info["feasible"] for info in self.infos]),
                elapsed_ms=np.mean([max(info["response_ms"]) for info in self.infos]),
            )
            seen = jax.device_get(judge())
            report = types.SimpleNamespace(
                totals=totals, real_steps=self.num_timesteps, model_steps=0, learning={}, evaluation=seen
            )
            return run_folder.entry(seed, len(rows) + 1, report, truth, time.perf_counter() - self.since)

    model.learn(size * chosen.config.epochs, callback=Recorder())
    return rows


def _seed_file(folder: pathlib.Path, seed: int) -> pathlib.Path:
    return folder / "seeds" / f"seed-{seed}.json"


def _work(chosen: Settings, seed: int, folder: pathlib.Path, news: Any, parent: int) -> None:
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
    write_atomically(_seed_file(folder, seed), json.dumps(rows).encode())


def _histories(chosen: Settings, folder: pathlib.Path) -> dict[int, list[dict[str, Any]]]:
    """The finished seeds'."""
    found = {seed: files.read_json(_seed_file(folder, seed)) for seed in chosen.seeds}
    return {seed: rows for seed, rows in found.items() if rows is not None}


def _learn_all(chosen: Settings, folder: pathlib.Path, seeds: list[int], threads: int) -> None:
    """Trains seeds, so many at the same time."""
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads can hang
    news, waiting, running = context.Queue(), list(seeds), list[Any]()
    total, done = chosen.config.epochs * len(chosen.seeds), chosen.config.epochs * (len(chosen.seeds) - len(seeds))
    with Progress(total, done, f"{AGENT} {chosen.scenario.name}") as progress:
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


def run(chosen: Settings, folder: pathlib.Path, *, threads: int = 0) -> dict[str, Any]:
    """Runs, or goes on with, the peer's training that belongs in `folder`. Returns its summary.

    Raises:
      InputError: if the folder can't be used, or belongs to other settings.
    """
    config = folder / "config.json"
    if not config.is_file():
        run_folder.check_new(folder)
        run_folder.make_folder(folder)
        run_folder.write_config(folder, chosen, ENV)
    stored = json.loads(config.read_text(encoding="utf-8"))
    if any(stored.get(name) != value for name, value in json.loads(json.dumps(chosen.as_json())).items()):
        raise InputError(f"run folder: expected a run of the same settings, found another's in {folder}")
    done = finished(folder)
    if done is not None:
        return done
    (folder / "seeds").mkdir(exist_ok=True)
    left = [seed for seed in chosen.seeds if seed not in _histories(chosen, folder)]
    _learn_all(chosen, folder, left, threads or len(os.sched_getaffinity(0)))
    return run_folder.write_results(folder, chosen, ENV, _histories(chosen, folder), solve(chosen))
