"""The agents that `--agent` names: hl_jax's own, a public one, or one of the user's as `module:function`."""

from __future__ import annotations

import importlib
import traceback
from typing import TYPE_CHECKING, Any

from hl_jax.agents import registry
from hl_jax.fleets.scenario import AnyScenario
from launch.host.errors import InputError
from launch.inputs import public

if TYPE_CHECKING:
    from hl_jax.agents.world import Agent

NAMED = {**registry.AGENTS, public.NAME: public.KIND}


def kind_of(name: str) -> registry.Kind:
    """The kind of agent that a name stands for.

    Raises:
      InputError: if it is none of ours, and no function that can be imported.
    """
    if name in NAMED:
        return NAMED[name]
    module, colon, function = name.partition(":")
    if not (module and colon and function):
        known = ", ".join(NAMED)
        raise InputError(f"--agent: expected one of {known}, or MODULE:FUNCTION of your own, found {name!r}")
    expected = "--agent: expected a function that makes an agent"
    try:
        found = importlib.import_module(module)
    except Exception as error:  # it is the user's own module, which may do anything
        file, line = traceback.extract_tb(error.__traceback__)[-1][:2]
        where = "" if isinstance(error, (ImportError, SyntaxError)) else f" in {file}, line {line}"
        raise InputError(f"{expected}, found {type(error).__name__}: {error}{where} ({name})") from error
    if not hasattr(found, function):
        raise InputError(f"{expected}, found no {function} in module {module} ({name})")
    try:
        return registry.kind_of(getattr(found, function))
    except ValueError as error:
        raise InputError(f"--agent: {error} ({name})") from error


def make_agent(name: str, config: Any, scenario: AnyScenario) -> Agent:
    """The agent for a scenario's devices, choices and constraint.

    Raises:
      InputError: if it can't handle so many.
    """
    try:
        return kind_of(name).make(config, scenario)
    except ValueError as error:
        raise InputError(f"{error} (--agent={name}, scenario {scenario.name})") from error
