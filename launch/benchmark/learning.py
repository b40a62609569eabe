"""How fast `dqn` searches and learns, beside Stable-Baselines3's DQN on the same environment.

Both have the same batch, width and schedule, and take turns.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable

import gymnasium
import jax
import jax.numpy as jnp

from hl_jax import evaluation, gymnasium_env, training
from hl_jax.agents.hybrid import agent as hybrid
from hl_jax.agents.hybrid.config import HybridConfig
from hl_jax.agents.hybrid.state import AgentState
from hl_jax.choices import joint_actions
from hl_jax.scenario import Scenario
from hl_jax.search import joint
from launch.host.errors import InputError
from launch.inputs.agents import make_agent
from launch.inputs.flags import agent_config

TARGET_COPY_STEPS = 100
EXPLORATION = 0.1  # constant, so that every measured step costs the same
DISCOUNT = 0.9
# Steps of one turn, by users: enough for seconds of the slower peer.
STEPS = {3: (4000, 1000), 4: (2000, 250), 5: (1000, 40)}


@dataclasses.dataclass(frozen=True)
class Search:
    """One exact K-best search."""

    users: int
    joint_actions: int
    k: int
    compile_s: float
    search_ms: float


@dataclasses.dataclass(frozen=True)
class Learning:
    """Steps with one update each, ours and the peer's taking turns."""

    users: int
    ours_steps_per_s: float
    stable_baselines3_steps_per_s: float
    ratio: float  # median of `ratios`
    ratios: list[float]
    compile_s: float
    stable_baselines3: str  # its version


def _median_ms(call: Callable[[], object], repeats: int) -> float:
    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def search_figures(scenario: Scenario) -> Search:
    """Milliseconds of one K-best search over all joint actions in one state."""
    config: HybridConfig = agent_config("hybrid")
    agent = hybrid.make(config, scenario)
    run = training.init(agent, jnp.int32(0), training.params_for(agent, scenario))

    def suggest(state: AgentState, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
        return joint.k_best(agent.learner.model_values(state, obs), config.k_best)

    start = time.perf_counter()
    compiled = jax.jit(suggest).lower(run.agent, run.agent.obs).compile()
    return Search(
        users=scenario.users,
        joint_actions=joint_actions(scenario.users, scenario.choices),
        k=config.k_best,
        compile_s=time.perf_counter() - start,
        search_ms=_median_ms(lambda: compiled(run.agent, run.agent.obs), 200),
    )


class Ours:
    """`dqn`: one environment step and one update a step."""

    def __init__(self, scenario: Scenario, config: HybridConfig) -> None:
        config = dataclasses.replace(
            config,
            direct_sessions=TARGET_COPY_STEPS,
            direct_steps=1,
            direct_updates=1,
            gamma=DISCOUNT,
            epsilon_start=EXPLORATION,
            epsilon_end=EXPLORATION,
        )
        self._agent = make_agent("dqn", config, scenario)
        self._params = training.params_for(self._agent, scenario)
        self._starts = evaluation.start_states(jax.random.key(0), self._params, 1)
        init, epoch = training.programs(self._agent)
        self._run = init(jnp.array([0], jnp.int32), self._params)
        start = time.perf_counter()
        self._epoch = epoch.lower(self._run, self._agent.plan(1), self._params, self._starts).compile()
        self.compile_s = time.perf_counter() - start
        self.steps_per_second(TARGET_COPY_STEPS)

    def steps_per_second(self, steps: int) -> float:
        """Speed over so many steps (whole epochs)."""
        start = time.perf_counter()
        for _ in range(steps // TARGET_COPY_STEPS):
            self._run, report = self._epoch(self._run, self._agent.plan(1), self._params, self._starts)
        jax.block_until_ready(report.real_steps)
        return steps / (time.perf_counter() - start)


class StableBaselines:
    """Stable-Baselines3's DQN on the Gymnasium wrapper, joint actions flattened."""

    def __init__(self, scenario: Scenario, config: HybridConfig) -> None:
        try:
            import stable_baselines3
        except ImportError as error:
            raise InputError(
                "benchmark: expected requirements-peer.txt installed, found no stable_baselines3"
            ) from error
        env = gymnasium_env.OrchestrationGymEnv(scenario, flatten_actions=True)
        scaled = gymnasium.wrappers.TransformReward(env, lambda reward: float(reward) / config.cost_scale_ms)
        self.version = stable_baselines3.__version__
        self._model = stable_baselines3.DQN(
            "MlpPolicy",
            scaled,
            learning_rate=config.q_learning_rate,
            buffer_size=config.direct_capacity,
            learning_starts=config.batch,
            batch_size=config.batch,
            gamma=DISCOUNT,
            train_freq=1,
            gradient_steps=1,
            target_update_interval=TARGET_COPY_STEPS,
            exploration_initial_eps=EXPLORATION,
            exploration_final_eps=EXPLORATION,
            policy_kwargs={"net_arch": [config.width]},
            seed=0,
            device="cpu",
        )
        self._model.learn(config.batch + 10)

    def steps_per_second(self, steps: int) -> float:
        """Speed over so many steps, one update each."""
        start = time.perf_counter()
        self._model.learn(steps, reset_num_timesteps=False)
        return steps / (time.perf_counter() - start)


def learning_figures(scenario: Scenario, repeats: int) -> Learning:
    """Steps (with one update each) per second of `dqn` and of Stable-Baselines3's."""
    config = agent_config("dqn")
    ours, theirs = Ours(scenario, config), StableBaselines(scenario, config)
    our_steps, their_steps = STEPS[scenario.users]
    turns = [(ours.steps_per_second(our_steps), theirs.steps_per_second(their_steps)) for _ in range(repeats)]
    return Learning(
        users=scenario.users,
        ours_steps_per_s=statistics.median(mine for mine, _ in turns),
        stable_baselines3_steps_per_s=statistics.median(other for _, other in turns),
        ratio=statistics.median(mine / other for mine, other in turns),
        ratios=[mine / other for mine, other in turns],
        compile_s=ours.compile_s,
        stable_baselines3=theirs.version,
    )
