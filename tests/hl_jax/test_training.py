"""`hl_jax.training`: what is compiled once must be."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from hl_jax import training
from hl_jax.agents.registry import AGENTS
from tests.helpers.builders import small_scenario


@pytest.mark.parametrize("name", sorted(AGENTS))
def test_a_run_has_the_same_types_before_and_after_an_epoch(name):
    """A weakly typed number becomes a strong one in the first epoch, and the second compiles everything again."""
    scenario = small_scenario(2, constraint=80.0)
    agent = AGENTS[name].make(AGENTS[name].config(), scenario)
    params = training.params_for(agent, scenario)
    traced = jax.make_jaxpr(lambda seed: training.init(agent, seed, params))(jnp.int32(0))
    assert not any(getattr(leaf, "weak_type", False) for leaf in traced.out_avals)
