"""`launch.runs.compiled`: a program that was compiled before is loaded, and does the same to the last bit."""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from hl_jax import evaluation, training
from hl_jax.agents.q_learning.agent import make
from hl_jax.agents.q_learning.config import QLearningConfig
from launch.runs import compiled
from tests.helpers.builders import small_scenario
from tests.helpers.trees import assert_identical

SCENARIO = small_scenario(1, constraint=80.0)


def arguments(config: QLearningConfig) -> tuple[Any, tuple[Any, ...]]:
    agent = make(config, SCENARIO)
    params = training.params_for(agent, SCENARIO)
    run = training.programs(agent)[0](jnp.array([3], jnp.int32), params)
    return agent, (run, agent.plan(1), params, evaluation.judged_states(params))


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> Any:
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    compiled._LAST.clear()
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", before)
    compiled._LAST.clear()


def kept(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(folder.glob("hl_jax-epoch-*"))


def test_what_was_compiled_is_loaded_and_computes_the_same(folder, monkeypatch):
    agent, given = arguments(QLearningConfig(epochs=2, epoch_steps=5))
    first = compiled.epoch(agent, given)(*jax.tree.map(jnp.copy, given))
    (path,) = kept(folder)
    compiled._LAST.clear()
    monkeypatch.setattr(compiled, "_compile", None)  # another process finds it
    second = compiled.epoch(agent, given)(*jax.tree.map(jnp.copy, given))
    assert_identical(first, second)
    assert kept(folder) == [path]


def test_another_agent_other_source_and_a_damaged_file_are_compiled(folder, monkeypatch):
    agent, given = arguments(QLearningConfig(epochs=2, epoch_steps=5))
    compiled.epoch(agent, given)
    (path,) = kept(folder)
    compiled.epoch(*arguments(QLearningConfig(epochs=2, epoch_steps=5, gamma=0.5)))
    assert len(kept(folder)) == 2
    # Other source that makes the same program is told by its text, and nothing is compiled.
    monkeypatch.setattr(compiled, "_source", lambda: "changed")
    monkeypatch.setattr(compiled, "_OWN", {"no such option": True})
    compiled._LAST.clear()
    compiled.epoch(agent, given)
    assert len(kept(folder)) == 3
    assert len(list(folder.glob("hl_jax-program-*"))) == 2
    monkeypatch.undo()
    whole = path.read_bytes()
    for damaged in folder.glob("hl_jax-*"):
        damaged.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # one bit
    assert compiled._load(path) is None
    compiled._LAST.clear()
    compiled.epoch(agent, given)
    assert path.stat().st_size > 1000  # and kept again


def test_an_agent_of_ones_own_is_not_kept(folder):
    agent, given = arguments(QLearningConfig(epochs=2, epoch_steps=5))

    class Own(type(agent)):  # type: ignore[misc]
        """Its source may change without hl_jax's."""

    compiled.epoch(Own(agent.config, agent.users, agent.choices), given)
    assert kept(folder) == []
