"""Every constant of Algorithm 1, with its default and the reason for it."""

from __future__ import annotations

import dataclasses
import math

from hl_jax.agents.options import check_options, option, retuned
from hl_jax.objective import PENALTY_FACTOR


@dataclasses.dataclass(frozen=True)
class HybridConfig:
    """Algorithm 1. Names follow the paper's: N, N_direct, T_direct, N_world, N_suggest, T_suggest, N_plan, K, alpha."""

    epochs: int = option(160, "N, epochs of the run", low=1)
    direct_sessions: int = option(5, "N_direct, sessions of direct RL in an epoch at alpha 0", low=0)
    direct_steps: int = option(5, "T_direct, real steps in a direct session", low=1)
    direct_updates: int = option(20, "minibatches after each direct session (lines 14 and 15)", low=1)
    world_sessions: int = option(450, "N_world, system-model minibatches in an epoch at alpha 0", low=0)
    suggest_sessions: int = option(4, "N_suggest, sessions of suggestion in an epoch at alpha 1", low=0)
    suggest_steps: int = option(1, "T_suggest, planning steps in a suggestion session", low=1)
    plan_sessions: int = option(300, "N_plan, planning minibatches in an epoch at alpha 1", low=0)
    # 60 needs fewer steps, but can't tell decisions 0.3 % apart; 30 fails now and then (docs/ablations.md).
    k_best: int = option(300, "K, best predicted actions tried at each planning step; all where there are fewer", low=1)
    alpha_schedule: str = option("linear", "alpha over epochs: linear (epoch/N, the paper's), exp, or constant:VALUE")
    planning_step: str = option(
        "model",
        "whether line 30 takes a step in the environment (real), in the system model, or (mixed) the first --k_real of "
        "a planning step's suggestions also in the environment, for D_direct and D_world to learn from",
        choices=("real", "model", "mixed"),
    )
    k_real: int = option(3, "suggestions of a planning step that --planning_step=mixed tries for real", low=0)
    gamma: float = option(
        0.0,
        "discount of the next state's value; a decision hardly changes what the next one costs",
        low=0.0,
        high=0.999,
    )
    epsilon_start: float = option(1.0, "probability of a random joint action in the first epoch", low=0.0, high=1.0)
    epsilon_end: float = option(0.1, "the same once it has fallen", low=0.0, high=1.0)
    epsilon_epochs: float = option(0.05, "part of the epochs over which epsilon falls linearly", low=0.0, high=1.0)
    explore: str = option(
        "feasible",
        "what line 9 draws at random with probability epsilon: the joint action, each device's choice by itself "
        "(choice), or the same of those joint actions alone that keep the constraint (feasible), where Q knows it",
        choices=("joint", "choice", "feasible"),
    )
    model_penalty: str = option(
        "known",
        "the system model predicts the cost (learned), or the average response time, as section III says, to which "
        "what breaking the constraint costs is added (known: accuracies and constraint are the orchestrator's own)",
        choices=("learned", "known"),
    )
    model_output: str = option(
        "devices",
        "what the system model learns where --model_penalty=known: the average response time, as section III says, or "
        "each device's, whose mean it then predicts (devices)",
        choices=("average", "devices"),
    )
    q_penalty: str = option(
        "known",
        "Q is the cost (learned), or the average response time, and what breaks the constraint is out of the question "
        "(known)",
        choices=("learned", "known"),
    )
    loss: str = option(
        "relative",
        "what both networks learn from: squared errors, or squared errors relative to what was observed (at least a "
        "hundredth of --cost_scale_ms), since noise and tolerance are in proportion to it",
        choices=("squared", "relative"),
    )
    weight_decay: float = option(0.1, "pull of both networks' weights towards 0 (AdamW)", low=0.0, high=1.0)
    plan_key: str = option(
        "state",
        "by what line 29 tells whether D_plan holds a suggestion: its action, or its state and action",
        choices=("action", "state"),
    )
    plan_start: str = option(
        "seen",
        "state in which a session of suggestion starts: the current one, or one drawn from D_world",
        choices=("current", "seen"),
    )
    imagined: str = option(
        "renewed",
        "what D_plan's costs are, where line 30 only imagines them, when they are learned from: as first imagined, or "
        "as the system model has them now",
        choices=("kept", "renewed"),
    )
    suggested: str = option(
        "both",
        "whose best actions line 26 suggests: the system model's, or for one half Q's own (both), so that what Q takes "
        "to be better than it is gets corrected",
        choices=("model", "both"),
    )
    choice_tables: str = option(
        "auto",
        "by what a device's choice adds to what both networks predict: numbers of its own, numbers that all devices "
        "share and a difference of its own (shared), or what a layer shared by all devices makes of its state and the "
        "nodes', with that difference (state); auto: state where conditions change, else shared",
        choices=("auto", "own", "shared", "state"),
    )
    hidden_counts: str = option(
        "chosen",
        "for what a hidden unit (a load, say) counts in both networks: the same whatever devices choose (alike), "
        "or what each device's choice says (chosen), as a node's load slows only those that run there",
        choices=("alike", "chosen"),
    )
    own_decay: float = option(
        3.0,
        "pull of both networks' differences between devices towards 0, instead of --weight_decay",
        low=0.0,
        high=100.0,
    )
    head: int = option(128, "hidden units of the layer that tables of the state come from", low=1, high=4096)
    width: int = option(32, "hidden units of the Q-network and of the system model", low=1, high=4096)
    batch: int = option(
        32, "transitions in a minibatch; 64 learn no sooner and take half as long again", low=1, high=2**16
    )
    q_learning_rate: float = option(4e-3, "Adam's step for the Q-network at the start", low=0.0, high=1.0)
    model_learning_rate: float = option(5e-3, "Adam's step for the system model at the start", low=0.0, high=1.0)
    learning_rate_end: float = option(1.0, "part of both steps that is left at the end (cosine)", low=0.0, high=1.0)
    epoch_rate_end: float = option(
        0.02,
        "part of both steps that is left at the end of each phase of an epoch: direct RL, learning the model, planning "
        "(cosine)",
        low=0.0,
        high=1.0,
    )
    direct_capacity: int = option(8192, "transitions D_direct holds", low=2, high=2**22, power_of_two=True)
    world_capacity: int = option(8192, "transitions D_world holds", low=2, high=2**22)
    plan_capacity: int = option(8192, "transitions D_plan holds", low=2, high=2**22, power_of_two=True)
    priority_exponent: float = option(
        0.6, "0 draws uniformly, 1 in proportion to the TD error; much of which is noise here", low=0.0, high=1.0
    )
    beta_start: float = option(0.4, "importance correction in the first epoch; rises to 1", low=0.0, high=1.0)
    cost_scale_ms: float = option(100.0, "costs are divided by this before a network sees them", low=1e-3)
    penalty_factor: float = option(
        PENALTY_FACTOR, "penalty of a broken constraint, in the least that never pays (hl_jax/objective.py)", low=1.0
    )

    def __post_init__(self) -> None:
        check_options(self)
        if self.q_penalty == "known" and self.model_penalty == "learned":
            raise ValueError("--model_penalty: expected known with --q_penalty=known, found learned")
        alpha_at(self.alpha_schedule, 1, self.epochs)

    @property
    def models_devices(self) -> bool:
        """Whether the system model predicts each device's response time."""
        return self.model_penalty == "known" and self.model_output == "devices"

    @property
    def knows_penalty(self) -> bool:
        """Whether a network is told what breaks the constraint, and so has to be told accuracies and constraint."""
        return "known" in (self.model_penalty, self.q_penalty)


@dataclasses.dataclass(frozen=True)
class DqnConfig(HybridConfig):
    """Direct RL alone, with what hybrid knows; what data/results/tuning searched is written out.

    That was where conditions stay as they are; `launch/beyond/changing.py` has constants for where they change.
    """

    epochs: int = retuned(HybridConfig, "epochs", 120)
    direct_sessions: int = retuned(HybridConfig, "direct_sessions", 5)
    direct_steps: int = retuned(HybridConfig, "direct_steps", 5)
    direct_updates: int = retuned(HybridConfig, "direct_updates", 200)
    batch: int = retuned(HybridConfig, "batch", 64)
    gamma: float = retuned(HybridConfig, "gamma", 0.0)
    q_learning_rate: float = retuned(HybridConfig, "q_learning_rate", 1.04e-2)
    learning_rate_end: float = retuned(HybridConfig, "learning_rate_end", 1.0)
    epoch_rate_end: float = retuned(HybridConfig, "epoch_rate_end", 0.1)
    epsilon_end: float = retuned(HybridConfig, "epsilon_end", 0.1)
    epsilon_epochs: float = retuned(HybridConfig, "epsilon_epochs", 0.007)
    loss: str = retuned(HybridConfig, "loss", "relative")
    choice_tables: str = retuned(HybridConfig, "choice_tables", "auto")
    hidden_counts: str = retuned(HybridConfig, "hidden_counts", "alike")
    own_decay: float = retuned(HybridConfig, "own_decay", 3.0)
    weight_decay: float = retuned(HybridConfig, "weight_decay", 1e-3)
    priority_exponent: float = retuned(HybridConfig, "priority_exponent", 0.2)


def alpha_at(schedule: str, epoch: int, epochs: int) -> float:
    """Algorithm 1, line 5: alpha of `epoch` (1..N).

    Raises:
      ValueError: for a schedule that is none of linear, exp, constant:VALUE.
    """
    if schedule == "linear":
        return epoch / epochs
    if schedule == "exp":
        # Rises fast at first, to 1 - e^-5 in the last epoch.
        return 1.0 - math.exp(-5.0 * epoch / epochs)
    kind, _, text = schedule.partition(":")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if kind != "constant" or not 0.0 <= value <= 1.0:
        expected = "linear, exp or constant:VALUE with VALUE in [0, 1]"
        raise ValueError(f"--alpha_schedule: expected {expected}, found {schedule!r}")
    return value
