"""The agents by name, and what an agent of one's own must be to stand beside them.

An agent is a function `make(config, scenario)` that returns what keeps the `Agent` protocol; the class of its constants
is what `config` is annotated with. Here they are named apart, so that constants can be read without loading JAX.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hl_jax.agents.factored.config import FactoredConfig
from hl_jax.agents.hybrid.config import DqnConfig, HybridConfig
from hl_jax.agents.q_learning.config import QLearningConfig
from hl_jax.fleets.scenario import AnyScenario, FleetScenario
from hl_jax.scenario import Scenario

if TYPE_CHECKING:
    from hl_jax.agents.world import Agent


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of agent: the class of its constants (a dataclass, all fields with defaults), and what makes one."""

    config: type[Any]
    make: Callable[[Any, AnyScenario], Agent]


def _papers(agent: str, scenario: AnyScenario) -> Scenario:
    """A scenario of the paper's form, for an agent that knows no other.

    Raises:
      ValueError: if it is a fleet of its own.
    """
    if isinstance(scenario, FleetScenario):
        expected = f"factored, for a fleet of its own ({scenario.name})"
        raise ValueError(f"agent: expected {expected}, found {agent}")
    return scenario


def _hybrid(config: HybridConfig, scenario: AnyScenario) -> Agent:
    from hl_jax.agents.hybrid.agent import make

    return make(config, _papers("hybrid", scenario))


def _dqn(config: DqnConfig, scenario: AnyScenario) -> Agent:
    from hl_jax.agents.hybrid.agent import make_direct

    return make_direct(config, _papers("dqn", scenario))


def _q_learning(config: QLearningConfig, scenario: AnyScenario) -> Agent:
    from hl_jax.agents.q_learning.agent import make

    return make(config, _papers("q_learning", scenario))


def _factored(config: FactoredConfig, scenario: AnyScenario) -> Agent:
    from hl_jax.agents.factored import agent, placing, standing

    if isinstance(scenario, FleetScenario):
        return placing.make(config, scenario)
    if config.prior != "none":
        raise ValueError(f"--prior: expected none but for a fleet of its own, found {config.prior}")
    return agent.make(config, scenario) if scenario.traffic is None else standing.make(config, scenario)


AGENTS = {
    "hybrid": Kind(HybridConfig, _hybrid),
    "dqn": Kind(DqnConfig, _dqn),
    "q_learning": Kind(QLearningConfig, _q_learning),
    "factored": Kind(FactoredConfig, _factored),
}


# What `hl_jax.agents.world.Agent` asks for; whoever only reads constants needn't load it.
PARTS = ("epochs", "penalty_factor", "init", "plan", "epoch", "decide", "under")


def _constants(make: Callable[..., Any]) -> type[Any]:
    """The class of a function's first argument."""
    expected = "expected a function make(config, scenario)"
    if not callable(make) or isinstance(make, type):
        raise ValueError(f"{expected}, found {make!r}")
    try:
        parameters = list(inspect.signature(make).parameters.values())
        hints = typing.get_type_hints(make)
    except (NameError, TypeError, ValueError) as error:
        raise ValueError(f"{expected}, found {error}") from error
    needed = [one for one in parameters if one.default is one.empty and one.kind is not one.VAR_KEYWORD]
    fits = len(parameters) >= 2 and all(one.kind is one.POSITIONAL_OR_KEYWORD for one in needed) and len(needed) <= 2
    if not fits:
        raise ValueError(f"{expected}, found {make.__name__}{inspect.signature(make)}")
    config = hints.get(parameters[0].name)
    if not (isinstance(config, type) and dataclasses.is_dataclass(config)):
        found = "none" if config is None else repr(config)
        raise ValueError(f"{make.__name__}: expected a dataclass as {parameters[0].name}'s type, found {found}")
    try:
        typing.get_type_hints(config)
    except (NameError, TypeError) as error:
        raise ValueError(f"{config.__name__}: expected types that can be read, found {error}") from error
    return config


def kind_of(make: Callable[[Any, Any], Agent]) -> Kind:
    """The kind of agent that a function makes.

    Raises:
      ValueError: if it isn't a function of a dataclass, all of whose fields have defaults, and a scenario.
    """
    config = _constants(make)
    for field in dataclasses.fields(config):
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{config.__name__}: expected a default for every constant, found none for {field.name}")
        if not field.init:
            raise ValueError(f"{config.__name__}: expected constants that can be given, found {field.name}")
    config()  # its own checks may refuse its defaults

    def made(constants: Any, scenario: AnyScenario) -> Agent:
        found = make(constants, scenario)
        missing = [part for part in PARTS if not hasattr(found, part)]
        if missing:
            raise ValueError(f"{make.__name__}: expected an agent with {', '.join(PARTS)}, found none of {missing[0]}")
        if type(found).__hash__ is None:
            raise ValueError(f"{make.__name__}: expected an agent that can be hashed (a frozen dataclass), found none")
        return found

    return Kind(config, made)


def agent(kind: str | Callable[[Any, Any], Agent], scenario: AnyScenario, **constants: Any) -> Agent:
    """An agent for a scenario.

    Args:
      kind: one of `AGENTS`, or a function of one's own, `make(config, scenario)` (docs/agents.md).
      scenario: says how many devices and choices there are; what else of it the agent may know is the agent's affair.
      constants: fields of its configuration; what isn't given has its default.

    Raises:
      ValueError: if there is no such agent, or it can't be made so.
    """
    if isinstance(kind, str):
        if kind not in AGENTS:
            raise ValueError(
                f"agent: expected one of {', '.join(AGENTS)}, or a function that makes one, found {kind!r}"
            )
        chosen = AGENTS[kind]
    else:
        chosen = kind_of(kind)
    known = [field.name for field in dataclasses.fields(chosen.config)]
    for name in constants:
        if name not in known:
            raise ValueError(f"agent: expected some of {', '.join(known)}, found {name!r}")
    return chosen.make(chosen.config(**constants), scenario)
