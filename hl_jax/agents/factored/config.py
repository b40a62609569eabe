"""The constants of `factored`."""

from __future__ import annotations

import dataclasses

from hl_jax.agents.options import check_options, option


@dataclasses.dataclass(frozen=True)
class FactoredConfig:
    """Constants of `factored`."""

    epochs: int = option(60, "epochs of the run", low=1)
    epoch_steps: int = option(1, "real steps between evaluations", low=1)
    k_best: int = option(8, "K, best joint actions under a sampled model, of which the most telling is tried", low=1)
    curiosity: float = option(
        0.25,
        "part of the steps that may look for what other constraints need or what may have changed",
        low=0.0,
        high=1.0,
    )
    looking_again: float = option(
        0.003,
        "part of the response time that exploring may cost on average once the first steps have taught: "
        "an unused edge is looked at every 200 steps or so",
        low=0.0,
        high=1.0,
    )
    unsure_above: float = option(
        0.03, "a time is unsure above this standard deviation of its logarithm (or half the noise)", low=0.0
    )
    memory: float = option(
        512.0, "real steps after which a report counts 1/e as much; what changes slowly is followed so fast", low=1.0
    )
    recent: int = option(
        160,
        "latest reports that the model is linearised for anew at each step; earlier ones are summed up",
        low=1,
        high=10**4,
    )
    caution: float = option(
        1.5,
        "standard deviations of its logarithm by which the policy takes a time to be longer, once learning is over",
        low=0.0,
    )
    surprise: float = option(
        6.0, "standard deviations from the prediction at which older reports of that node are dropped", low=0.0
    )
    least_change: float = option(0.2, "log of the change below which nothing is dropped, however certain", low=0.0)

    prior: str = option(
        "none",
        "of a fleet of its own: what is known beforehand, nothing, or how models compare on other machines",
        choices=("none", "profiles"),
    )

    rolled_out: int = option(
        32, "under traffic: joint decisions that are rolled out in each planning", low=1, high=4096
    )
    rollouts: int = option(8, "under traffic: rollouts of each of them", low=1, high=4096)
    exploring_budget: float = option(
        4.0,
        "under traffic: what may be spent on trying, in costs of one control period under the best decision "
        "(of misses: in periods whose every request is late); it is earned back by looking_again a period",
        low=0.0,
    )
    memory_periods: float = option(
        100.0, "under traffic: control periods after which a report counts 1/e as much", low=1.0
    )

    def __post_init__(self) -> None:
        check_options(self)
