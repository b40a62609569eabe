"""What `factored` keeps of old reports (a summary that fades), and what exploring may cost (an account)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hl_jax.agents.factored import agent as factored
from hl_jax.agents.factored import exploring as factored_exploring
from hl_jax.agents.factored import model as factored_model
from hl_jax.agents.factored import reports as factored_reports
from hl_jax.agents.factored.model import Reports, ResponseModel
from hl_jax.agents.factored.posterior import Posterior
from tests.helpers.builders import D0, EDGE

USERS = 2
MODEL = ResponseModel(users=USERS, accuracy=(90.0, 80.0, 70.0))
fold = jax.jit(MODEL.fold, static_argnums=3)
fit = jax.jit(MODEL.fit)
NOTHING_FORGOTTEN = jnp.zeros(MODEL.prior_weights[0].shape[0], bool)


def _reports(random: np.random.Generator, steps: int) -> Reports:
    """Steps of random joint actions in random situations, with times that one draw from the prior gives: [M, N, ...].

    What is observed only adds to a time, so that none comes near 0, where a time is no smooth function of weights.
    """
    mean, std = MODEL.prior_weights
    drawn = mean + 0.3 * std[0] * random.normal(size=mean.shape)
    drawn[-10:] = np.abs(drawn[-10:])  # the amounts
    truth, rows = jnp.asarray(drawn, jnp.float32), []
    for _ in range(steps):
        situation = factored_model.Situation(
            flags=jnp.asarray(random.integers(0, 2, (USERS, 3)), jnp.int32),
            level=jnp.asarray(random.integers(0, 5, 2), jnp.float32),
            memory=jnp.asarray(random.integers(0, 2, 2), jnp.int32),
            weak=jnp.asarray(random.integers(0, 2, 2), jnp.int32),
        )
        action = jnp.asarray(random.integers(0, 5, USERS), jnp.int32)
        factors, amounts = _features(situation, action)
        rows.append(
            Reports(
                factors=factors,
                amounts=amounts,
                logs=_log_time(truth, factors, amounts) + jnp.asarray(random.normal(0.0, 0.05, USERS), jnp.float32),
                trust=jnp.ones(USERS),
                kind=jnp.maximum(action - MODEL.models + 1, 0),
                held=jnp.zeros(USERS, bool),
            )
        )
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)


_features, _log_time = jax.jit(MODEL.features), jax.jit(factored_model.log_time)


def _flat(reports: Reports) -> Reports:
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), reports)


def _summed(reports: Reports, at: Posterior, steps: int) -> factored_model.Summary:
    """What the first steps' reports say, linearised at a posterior, nothing faded or forgotten."""
    summary = MODEL.no_summary()
    for step in range(steps):
        row = jax.tree.map(lambda leaf, step=step: leaf[step], reports)
        summary = fold(summary, at, row, 1.0, NOTHING_FORGOTTEN)
    return summary


def _settled(posterior: Posterior, summary: factored_model.Summary, recent: Reports) -> Posterior:
    """Fitted until nothing moves; the noise is kept as the prior has it, so that both ways weigh alike."""
    start = MODEL.start()
    for _ in range(4):
        posterior = fit(posterior.replace(noise=start.noise), summary, recent)
    return posterior


def test_reports_that_are_summed_up_say_what_they_said_one_by_one():
    """Folded where the weights have settled, a linearised report is the report."""
    reports = _reports(np.random.default_rng(0), 24)
    whole = _settled(MODEL.start(), MODEL.no_summary(), _flat(reports))
    summary = _summed(reports, whole, 12)
    halves = _settled(whole, summary, _flat(jax.tree.map(lambda leaf: leaf[12:], reports)))
    assert float(summary.count) == 24
    np.testing.assert_allclose(halves.mean, whole.mean, atol=2e-2)
    np.testing.assert_allclose(halves.evidence, whole.evidence, rtol=1e-3, atol=0.1)
    one, other = (np.linalg.inv(_precision(posterior)) for posterior in (halves, whole))
    np.testing.assert_allclose(one, other, atol=0.02 * np.abs(other).max())


def _precision(posterior: Posterior) -> np.ndarray:
    root = np.asarray(posterior.root, np.float64)
    return np.swapaxes(root, 1, 2) @ root


def test_what_is_faded_counts_less_and_the_prior_does_not_fade():
    reports = _reports(np.random.default_rng(1), 6)
    whole = _settled(MODEL.start(), MODEL.no_summary(), _flat(reports))
    summary = _summed(reports, whole, 6)
    nothing = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[0]), reports)
    rows = np.asarray(summary.rows, np.float64)
    faded = fold(summary, whole, nothing, 0.25, NOTHING_FORGOTTEN)
    assert float(faded.count) == pytest.approx(0.25 * float(summary.count))
    for before, after in zip(rows, np.asarray(faded.rows, np.float64), strict=True):
        np.testing.assert_allclose(after.T @ after, 0.25 * before.T @ before, atol=1e-4)
    for _ in range(40):
        faded = fold(faded, whole, nothing, 0.25, NOTHING_FORGOTTEN)
    prior = _settled(MODEL.start(), faded, _flat(jax.tree.map(lambda leaf: leaf[None], nothing)))
    np.testing.assert_allclose(prior.mean, MODEL.start().mean, atol=1e-3)
    np.testing.assert_allclose(_precision(prior), _precision(MODEL.start()), rtol=1e-3, atol=1e-2)


def test_forgetting_a_node_keeps_what_is_said_of_everything_else():
    """Against the marginal worked out in double precision: the precision's Schur complement."""
    reports = _reports(np.random.default_rng(2), 30)
    whole = _settled(MODEL.start(), MODEL.no_summary(), _flat(reports))
    summary = _summed(reports, whole, 30)
    gone = np.asarray(MODEL.weights_of(jnp.array([False, True, True, False])))  # the second device and the edge
    nothing = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[0]), reports)
    left = fold(summary, whole, nothing, 1.0, jnp.asarray(gone))
    kept = np.flatnonzero(~gone)
    every = (np.asarray(part, np.float64) for part in (summary.rows, left.rows, whole.noise))
    for before, after, noise in zip(*every, strict=True):
        np.testing.assert_allclose(after[:, :-1][:, gone], 0.0, atol=1e-5)
        matrix = before[:, :-1].T @ before[:, :-1]
        inside, across = matrix[np.ix_(gone, gone)] + noise**2 * np.eye(gone.sum()), matrix[np.ix_(~gone, gone)]
        expected = matrix[np.ix_(~gone, ~gone)] - across @ np.linalg.solve(inside, across.T)
        found = after[:, :-1][:, kept].T @ after[:, :-1][:, kept]
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(matrix).max())


def test_weights_of_a_source_are_those_that_only_its_reports_speak_of():
    """The features of one source's task touch its own weights; those of tasks elsewhere don't."""
    situation = factored_model.Situation(
        flags=jnp.ones((USERS, 3), jnp.int32),
        level=jnp.full(2, 3.0),
        memory=jnp.ones(2, jnp.int32),
        weak=jnp.ones(2, jnp.int32),
    )
    edge = np.asarray(MODEL.weights_of(jnp.array([False, False, True, False])))
    device = np.asarray(MODEL.weights_of(jnp.array([True, False, False, False])))
    at_edge = np.concatenate(_features(situation, jnp.array([EDGE, D0])), axis=1)
    local = np.concatenate(_features(situation, jnp.array([D0, EDGE])), axis=1)
    assert at_edge[0, edge].any()
    assert not local[0, edge].any()
    assert local[0, device].any()
    assert not at_edge[0, device].any()
    assert not at_edge[1, device].any()
    assert not (edge & device).any()


def test_old_reports_are_not_dropped_at_the_end_of_the_recent_ones():
    """A step's reports leave the ring for the summary: together they count as many as there were, less what faded."""
    config = factored.FactoredConfig(recent=2 * USERS, memory=1000.0)
    agent: Any = factored.sized(config, USERS, (90.0, 80.0, 70.0, 90.0, 90.0), 70.0)
    observe = jax.jit(agent.observe)
    state = agent.init(jax.random.key(0), jnp.zeros(3 * USERS + 6, jnp.int32))
    for step in range(12):
        state = observe(state, jnp.array([step % 3, EDGE]), jnp.array([100.0, 200.0]), state.obs)
    count = float(state.summary.count) + float(state.reports.trust.sum())
    assert 12 * USERS * np.exp(-12 / 1000.0) <= count <= 12 * USERS


# -- The account ----------------------------------------------------------------------------------------------------


def test_the_account_by_hand():
    account = factored_exploring.open_account()
    assert float(account.credit) == factored_exploring.LEARNING
    account = factored_exploring.settle(account, jnp.float32(4.0), 0.004)
    assert float(account.credit) == pytest.approx(26.004)  # the loan, 27.2 by now, would allow more
    for _ in range(7 * 20):
        account = factored_exploring.settle(account, jnp.float32(0.0), 0.004)
    assert 0.0 <= float(account.credit) < 1e-4  # of the loan nothing is left, and nothing is saved up
    overdrawn = factored_exploring.settle(account, jnp.float32(0.6), 0.004)
    assert float(overdrawn.credit) == pytest.approx(-0.596, abs=1e-4)
    again = factored_exploring.afresh(overdrawn, jnp.bool_(True))
    assert float(again.credit) == float(again.loan) == factored_exploring.AFRESH
    assert float(factored_exploring.afresh(overdrawn, jnp.bool_(False)).credit) == float(overdrawn.credit)


@pytest.mark.parametrize("cost", [0.002, 0.05, 0.6, 3.0])
def test_exploring_costs_no_more_than_it_earns_in_the_long_run(cost):
    """Looks of one device that always cost the same, asked for at every step."""
    earned, steps = 0.004, 4000
    account = dataclasses.replace(factored_exploring.open_account(), credit=jnp.float32(0.0), loan=jnp.float32(0.0))

    def step(account: Any, _: None) -> Any:
        tried = factored_exploring.affordable(account, jnp.float32(cost), jnp.bool_(True))
        spent = jnp.where(tried, cost, 0.0)
        return factored_exploring.settle(account, spent, earned), spent

    _, spent = jax.jit(lambda account: jax.lax.scan(step, account, None, length=steps))(account)
    assert float(spent.sum()) <= earned * steps + cost
    assert float(spent.sum()) >= 0.9 * min(earned, cost) * steps - cost


def test_what_costs_nothing_is_always_affordable_and_one_mistake_does_not_end_learning():
    broke = dataclasses.replace(factored_exploring.open_account(), credit=jnp.float32(-1.0))
    assert bool(factored_exploring.affordable(broke, jnp.float32(0.0), jnp.bool_(False)))
    assert not bool(factored_exploring.affordable(broke, jnp.float32(0.01), jnp.bool_(True)))
    rich = factored_exploring.open_account()
    assert bool(factored_exploring.affordable(rich, jnp.float32(14.0), jnp.bool_(True)))
    assert not bool(factored_exploring.affordable(rich, jnp.float32(16.0), jnp.bool_(True)))


def test_nothing_surprises_before_anything_is_known():
    reports = _reports(np.random.default_rng(3), 1)
    row = jax.tree.map(lambda leaf: leaf[0], reports).replace(logs=jnp.full(USERS, 0.6))
    assert not np.asarray(jax.jit(factored_reports.surprises)(MODEL.start(), row, 6.0, 0.2)).any()
