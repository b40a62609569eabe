"""What `factored` may spend on exploring, and what a look at each place would be worth.

Trying a joint action that isn't expected to be the best costs its excess over the best one's expected cost. An account
pays for that, in costs of the best joint action. It starts with a loan that halves every few steps, because nothing is
known at first and little is unknown soon; from then on it earns a fixed part of each step (`looking_again`), so that
reports which have faded are asked for again. An expensive look may overdraw it: then it takes its time to come back.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np

from hl_jax.agents.factored import posterior as posteriors
from hl_jax.agents.factored.model import ResponseModel, Situation
from hl_jax.agents.factored.posterior import Posterior
from hl_jax.choices import local_models, node_choices

LEARNING = 30.0  # costs of the best joint action that may be lent to learning from nothing
AFRESH = 3.0  # the same after a change, when a part of what is known holds no more
HALVES_AFTER = 7.0  # real steps
PART_AT_ONCE = 0.5  # of the credit, that one step may spend while learning
MOST_AT_ONCE = 0.7  # what a step may cost once the loan is gone, but for looks, which are of one device
LOOK_PRICE = 1.25  # a device's part of the best cost that a nat of information about a place is worth
MODELS_DRAWN = 16  # to see how unsure a time is
SAME = 1e-6  # relative; costs this near count as equal


@chex.dataclass(frozen=True)
class Account:
    """What exploring may cost, in costs of the best joint action."""

    credit: chex.Array  # [] negative: owed
    loan: chex.Array  # [] most that `credit` may be


def open_account() -> Account:
    """Before the first step."""
    return Account(credit=jnp.float32(LEARNING), loan=jnp.float32(LEARNING))


def settle(account: Account, spent: chex.Array, earned: float) -> Account:
    """After a step whose expected cost exceeded the best by `spent`."""
    loan = account.loan * 0.5 ** (1.0 / HALVES_AFTER)
    return Account(credit=jnp.minimum(account.credit + earned - spent, loan), loan=loan)


def afresh(account: Account, changed: chex.Array) -> Account:
    """The account when reality has been found changed ([] bool)."""
    most = jnp.float32(AFRESH)
    return jax.tree.map(lambda now: jnp.where(changed, jnp.maximum(now, most), now), account)


def learning(account: Account) -> chex.Array:
    """Whether so little is known yet that whole joint actions may be tried for what they tell. [] bool."""
    return account.credit > MOST_AT_ONCE


def price(account: Account, users: int) -> chex.Array:
    """What a nat of information is worth, in costs of the best joint action."""
    return jnp.maximum(account.credit, LOOK_PRICE / users)


def affordable(account: Account, excess: chex.Array, look: chex.Array) -> chex.Array:
    """Whether a joint action may be tried that costs so much more than the best; `look`: one device's look."""
    # One mistake mustn't use up what learning needs.
    within = excess <= jnp.maximum(MOST_AT_ONCE, PART_AT_ONCE * account.credit)
    return ((account.credit >= 0.0) & (within | (look & ~learning(account)))) | (excess <= SAME)


def _unsure(key: chex.PRNGKey, model: ResponseModel, posterior: Posterior, situation: Situation) -> chex.Array:
    """Standard deviation of the logarithm of each time, the largest of all tenable hypotheses'. [N, P].

    The key is consumed.
    """

    def spread(key: chex.PRNGKey, hypothesis: Posterior) -> chex.Array:
        drawn = posteriors.sample(key, hypothesis, MODELS_DRAWN)
        return jnp.std(jnp.log(jax.vmap(lambda weights: model.times(weights[None, :], situation))(drawn)), axis=0)

    keys = jax.random.split(key, posterior.evidence.shape[0])
    spreads = jax.vmap(spread)(keys, posterior)  # [X, N, P]
    return jnp.max(jnp.where(posteriors.tenable(posterior)[:, None, None], spreads, 0.0), axis=0)


def _rival(times: chex.Array, accuracy: tuple[float, ...], users: int) -> chex.Array:
    """Of each place's time ([N, P]) the least of another local model at least as accurate. [N, P]."""
    models = local_models(len(accuracy))
    kinds = np.concatenate([np.arange(models), *(np.full(users + 1, choice) for choice in node_choices(models))])
    known = np.array(accuracy)
    rivals = (known[None, :models] >= known[kinds][:, None]) & (np.arange(models)[None, :] != kinds[:, None])
    return jnp.min(jnp.where(rivals[None], times[:, None, :models], jnp.inf), axis=2)


def worth(
    key: chex.PRNGKey,
    model: ResponseModel,
    posterior: Posterior,
    situation: Situation,
    accuracy: tuple[float, ...],
    unsure_above: float,
    everyone: chex.Array,
) -> chex.Array:
    """What a report on each of the P places (as in `ResponseModel.places`) would tell of each device. [N, P] nats.

    Only places count whose time is unsure and may turn out useful under some constraint: shorter than that of every
    local model at least as accurate. The tasks on one node tell the same thing, so they share its worth. Each device
    is asked about a random half of its places, lest all answer one question; or one device only, about all of them.

    Args:
      key: consumed.
      model: the system model.
      posterior: all hypotheses. A time is as unsure as it is under any that is tenable.
      situation: what is observed.
      accuracy: % of each of the C choices.
      unsure_above: a time is unsure above this standard deviation of its logarithm, or half the noise.
      everyone: [] bool, whether to ask all devices.
    """
    draw_key, half_key, device_key = jax.random.split(key, 3)
    likeliest = posteriors.likeliest(posterior)
    times = model.times(likeliest.mean[None, :], situation)
    unsure = _unsure(draw_key, model, posterior, situation)
    rival = _rival(times, accuracy, model.users)
    useful = (times * jnp.exp(-2.0 * unsure) < rival) & (unsure > jnp.maximum(unsure_above, 0.5 * likeliest.noise))
    half = jax.random.bernoulli(half_key, 0.5, times.shape)
    one = jnp.arange(model.users)[:, None] == jax.random.randint(device_key, (), 0, model.users)
    counts = np.arange(model.users + 1)
    tasks = np.maximum(np.concatenate([np.ones(model.models), counts, counts]), 1.0)
    asked = useful & jnp.where(everyone, half, one)
    return jnp.where(asked, jnp.log1p((unsure / likeliest.noise) ** 2), 0.0) / tasks[None, :]
