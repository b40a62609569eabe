"""Hybrid learning for orchestrating deep-learning inference: pure functional JAX.

This is its face: scenarios and the paper's experiments, agents by name, `train`, `evaluate`, the environment, the
oracle (README.md has ten lines that use them). Importing it loads no JAX; what needs JAX does, when it is asked for.
Nothing in this package reads a flag, a file or a clock, or logs: entry points in `launch/` do.

Shapes, everywhere: `N` devices (users), `C` choices per device, `A` joint actions, `K` candidates,
`B` batch, `M` buffer capacity, `S` seeds, `T` epochs, `F` observed components, `H` hidden units.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hl_jax.agents.registry import AGENTS, agent
from hl_jax.paper import experiment
from hl_jax.scenario import Device, Dynamics, ModelPool, Node, Scenario, Timing

if TYPE_CHECKING:
    from hl_jax.agents.world import Agent
    from hl_jax.evaluation import Judged
    from hl_jax.gymnasium_env import OrchestrationGymEnv
    from hl_jax.learning import Trained, evaluate, oracle, train
    from hl_jax.optimum.oracle import Optimum, brute_force
    from hl_jax.simulator import Orchestration, make_params

__version__ = "0.1.0"
__all__ = [
    "AGENTS",
    "Agent",
    "Device",
    "Dynamics",
    "Judged",
    "ModelPool",
    "Node",
    "Optimum",
    "Orchestration",
    "OrchestrationGymEnv",
    "Scenario",
    "Timing",
    "Trained",
    "__version__",
    "agent",
    "brute_force",
    "evaluate",
    "experiment",
    "make_params",
    "oracle",
    "train",
]


def __getattr__(name: str) -> Any:
    """What needs JAX, loaded when it is asked for (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "OrchestrationGymEnv":
        from hl_jax import gymnasium_env

        value: Any = gymnasium_env.OrchestrationGymEnv
    else:
        from hl_jax import with_jax

        value = getattr(with_jax, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
