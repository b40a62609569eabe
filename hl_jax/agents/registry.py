"""The agents by name, and what an agent of one's own must be to stand beside them.

An agent is a function `make(config, scenario)` that returns what keeps the `Agent` protocol; the class of its constants
is what `config` is annotated with. Here they are named apart, so that constants can be read without loading JAX.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hl_jax.agents.factored.config import FactoredConfig
from hl_jax.agents.hybrid.config import DqnConfig, HybridConfig
from hl_jax.agents.q_learning.config import QLearningConfig
from hl_jax.scenario import Scenario

if TYPE_CHECKING:
    from hl_jax.agents.world import Agent


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of agent: the class of its constants (a dataclass, all fields with defaults), and what makes one."""

    config: type[Any]
    make: Callable[[Any, Scenario], Agent]


def _hybrid(config: HybridConfig, scenario: Scenario) -> Agent:
    from hl_jax.agents.hybrid.agent import make

    return make(config, scenario)


def _dqn(config: DqnConfig, scenario: Scenario) -> Agent:
    from hl_jax.agents.hybrid.agent import make_direct

    return make_direct(config, scenario)


def _q_learning(config: QLearningConfig, scenario: Scenario) -> Agent:
    from hl_jax.agents.q_learning.agent import make

    return make(config, scenario)


def _factored(config: FactoredConfig, scenario: Scenario) -> Agent:
    from hl_jax.agents.factored.agent import make

    return make(config, scenario)


AGENTS = {
    "hybrid": Kind(HybridConfig, _hybrid),
    "dqn": Kind(DqnConfig, _dqn),
    "q_learning": Kind(QLearningConfig, _q_learning),
    "factored": Kind(FactoredConfig, _factored),
}


def kind_of(make: Callable[[Any, Scenario], Agent]) -> Kind:
    """The kind of agent that a function makes.

    Raises:
      ValueError: if its first parameter isn't annotated with a dataclass all of whose fields have defaults.
    """
    try:
        hints = typing.get_type_hints(make)
        config = next(kind for name, kind in hints.items() if name != "return")
    except (NameError, StopIteration, TypeError) as error:
        raise ValueError(f"make(config, scenario): expected an annotated config, found {error!r}") from error
    if not (isinstance(config, type) and dataclasses.is_dataclass(config)):
        raise ValueError(f"make(config, scenario): expected a dataclass of constants, found {config!r}")
    without = [
        field.name
        for field in dataclasses.fields(config)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if without:
        raise ValueError(f"{config.__name__}: expected a default for every constant, found none for {without[0]}")
    return Kind(config, make)
