"""The constants of the public agent, Stable-Baselines3's DQN: those of our `dqn` that it knows, by the same names."""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import TYPE_CHECKING

from hl_jax.agents.hybrid.config import DqnConfig
from hl_jax.agents.options import check_options, retuned
from hl_jax.agents.registry import AGENTS, Kind
from hl_jax.fleets.scenario import AnyScenario

if TYPE_CHECKING:
    from hl_jax.agents.world import Agent

NAME = "sb3_dqn"


def installed() -> bool:
    """Whether its package is there (requirements-peer.txt)."""
    return importlib.util.find_spec("stable_baselines3") is not None


@dataclasses.dataclass(frozen=True)
class PublicConfig:
    """Of data/results/tuning."""

    epochs: int = retuned(DqnConfig, "epochs", 200)
    direct_sessions: int = retuned(DqnConfig, "direct_sessions", 100)
    direct_steps: int = retuned(DqnConfig, "direct_steps", 1)
    direct_updates: int = retuned(DqnConfig, "direct_updates", 10)
    gamma: float = retuned(DqnConfig, "gamma", 0.0)
    epsilon_start: float = retuned(DqnConfig, "epsilon_start", 1.0)
    epsilon_end: float = retuned(DqnConfig, "epsilon_end", 0.05)
    epsilon_epochs: float = retuned(DqnConfig, "epsilon_epochs", 0.25)
    width: int = retuned(DqnConfig, "width", 64)
    batch: int = retuned(DqnConfig, "batch", 64)
    q_learning_rate: float = retuned(DqnConfig, "q_learning_rate", 3.6e-3)
    learning_rate_end: float = retuned(DqnConfig, "learning_rate_end", 0.02)
    direct_capacity: int = retuned(DqnConfig, "direct_capacity", 8192)
    cost_scale_ms: float = retuned(DqnConfig, "cost_scale_ms", 100.0)
    penalty_factor: float = retuned(DqnConfig, "penalty_factor", 1.2)

    def __post_init__(self) -> None:
        check_options(self)


def _make(config: PublicConfig, scenario: AnyScenario) -> Agent:
    """Our own in its place, which tells its penalty and refuses as many joint actions, and other forms of scenario."""
    return AGENTS["dqn"].make(DqnConfig(**dataclasses.asdict(config)), scenario)


KIND = Kind(PublicConfig, _make)
