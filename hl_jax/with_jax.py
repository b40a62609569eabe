"""The part of the face that needs JAX; `hl_jax` loads it when it is first asked for."""

from hl_jax.agents.world import Agent
from hl_jax.evaluation import Judged
from hl_jax.learning import Trained, evaluate, oracle, train
from hl_jax.optimum.oracle import Optimum, brute_force
from hl_jax.simulator import Orchestration, make_params

__all__ = [
    "Agent",
    "Judged",
    "Optimum",
    "Orchestration",
    "Trained",
    "brute_force",
    "evaluate",
    "make_params",
    "oracle",
    "train",
]
