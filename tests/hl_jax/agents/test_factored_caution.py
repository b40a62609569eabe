"""How unsure `factored` is of a time, and what its policy makes of that."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hl_jax import simulator
from hl_jax.agents.factored import agent as factored
from hl_jax.agents.factored import posterior as posteriors
from tests.helpers.builders import D0, EDGE, small_scenario

USERS = 3
SCENARIO = small_scenario(USERS, constraint=80.0, noise=0.03)
PARAMS = simulator.make_params(SCENARIO)
AGENT = factored.sized(factored.FactoredConfig(recent=12 * USERS), USERS, SCENARIO.choice_accuracy(), 80.0)
MODEL = AGENT.model
cautious = jax.jit(AGENT._cautious)
unsure, times = jax.jit(MODEL.unsure), jax.jit(MODEL.times)


@functools.cache
def _state() -> Any:
    """After ten steps in which all devices but the first compute locally; the first one asks the edge."""
    state = AGENT.init(jax.random.key(0), jnp.zeros(3 * USERS + 6, jnp.int32))
    random, observe, fit = np.random.default_rng(0), jax.jit(AGENT.observe), jax.jit(AGENT.fit_model)
    action = jnp.array([EDGE, D0, D0], jnp.int32)
    for _ in range(10):
        times = simulator.response_ms(PARAMS, PARAMS.start, action) * jnp.asarray(np.exp(random.normal(0, 0.03, USERS)))
        state = fit(observe(state, action, times.astype(jnp.float32), state.obs))
    return state.replace(account=state.account.replace(loan=jnp.float32(0.0)))


def _times(costs: Any) -> np.ndarray:
    return np.concatenate([costs.local, costs.edge, costs.cloud], axis=1)


def test_deviations_are_the_normal_numbers_seen_through_the_posterior():
    posterior = _state().posterior
    for root, deviations in zip(posterior.root, posterior.deviations, strict=True):
        np.testing.assert_allclose(np.asarray(root, np.float64) @ deviations.T, MODEL.normals, atol=2e-3)


def test_a_time_is_as_unsure_as_its_draws_differ():
    state = _state()
    best = posteriors.likeliest(state.posterior)
    found = np.asarray(unsure(best, state.situation))

    def logs(weights: Any) -> np.ndarray:
        every = jnp.broadcast_to(weights, (USERS, weights.shape[0]))  # each device its own copy
        return np.log(np.asarray(times(every, state.situation), np.float64))

    step = 1e-2  # of a draw, so that times are linear in it
    squares = [((logs(best.mean + step * away) - logs(best.mean)) / step) ** 2 for away in best.deviations]
    np.testing.assert_allclose(found, np.sqrt(np.mean(squares, axis=0)), rtol=0.02, atol=1e-3)
    edge = MODEL.models + 1  # with one task there
    assert found[0, edge] < 0.5 * found[0, edge + 1], "what was reported is surer than what wasn't"


@pytest.mark.parametrize(("loan", "share"), [(0.0, 1.0), (0.75, 0.25), (1.0, 0.0), (30.0, 0.0)])
def test_what_is_unsure_is_taken_to_be_longer_once_learning_is_over(loan, share):
    state = _state()
    state = state.replace(account=state.account.replace(loan=jnp.float32(loan)))
    best = posteriors.likeliest(state.posterior)
    plain = np.asarray(times(best.mean[None, :], state.situation)) * float(state.scale_ms)
    spread = np.asarray(unsure(best, state.situation))
    longer = np.exp(share * AGENT.config.caution * np.minimum(spread, factored.UNKNOWN))
    found = _times(cautious(state, state.situation, state.constraint))
    np.testing.assert_allclose(found, plain * longer, rtol=1e-4)


def test_a_level_that_was_never_in_the_background_makes_nothing_unsure():
    state = _state()
    loaded = state.situation.replace(level=jnp.array([4.0, 4.0]))
    best = posteriors.likeliest(state.posterior)
    plain = np.asarray(times(best.mean[None, :], loaded)) * float(state.scale_ms)
    asked = {highest: state.replace(highest=jnp.full(2, highest)) for highest in (0.0, 4.0)}
    ratios = {highest: _times(cautious(one, loaded, one.constraint)) / plain for highest, one in asked.items()}
    idle = _times(cautious(state, state.situation, state.constraint))
    idle /= np.asarray(times(best.mean[None, :], state.situation)) * float(state.scale_ms)
    np.testing.assert_allclose(ratios[0.0], idle, rtol=1e-4)
    assert ratios[4.0].max() > ratios[0.0].min()
    assert (ratios[4.0][:, MODEL.models :] >= ratios[0.0][:, MODEL.models :] - 0.02).mean() > 0.9


def test_no_caution_is_the_most_probable_times():
    state = _state()
    bold = dataclasses.replace(AGENT, config=dataclasses.replace(AGENT.config, caution=0.0))
    best = posteriors.likeliest(state.posterior)
    plain = np.asarray(times(best.mean[None, :], state.situation)) * float(state.scale_ms)
    np.testing.assert_allclose(_times(bold._cautious(state, state.situation, state.constraint)), plain, rtol=1e-5)
