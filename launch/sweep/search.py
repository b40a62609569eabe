"""Searching settings instead of trying all: at random, or with Optuna's samplers, which learn from earlier trials.

A trial is a setting in every task. Both are functions of a seed: a random trial of its number alone, so that more
trials leave the first ones as they are, and Optuna's of the earlier trials' results, so that a search that was stopped
takes the same way again over the runs that are finished, and goes on. No data base is kept.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from launch.host.errors import InputError
from launch.sweep.axes import Assignment, Axis, fitted
from launch.sweep.collect import TASKS, Run, label, steps_of
from launch.sweep.report import Search, Tried

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial as Asked

FLAGS = flags.FLAGS
SAMPLERS = ("tpe", "cmaes", "qmc")


@dataclasses.dataclass(frozen=True)
class Worth:
    """What a setting came to, in all tasks together."""

    value: float | None  # expected running time (real steps); infinite: it never got there, None: it couldn't be run
    succeeded: int  # runs that got there
    runs: int


@dataclasses.dataclass(frozen=True)
class Trial:
    """A setting that was tried."""

    number: int
    setting: Assignment
    worth: Worth


def split(axes: Sequence[Axis]) -> tuple[list[Axis], list[Assignment]]:
    """The axes to search, and the tasks that every trial is run in.

    Raises:
      InputError: if nothing is left to search, or tasks are an interval.
    """
    searched = [axis for axis in axes if axis.name not in TASKS]
    tasks = [axis for axis in axes if axis.name in TASKS]
    for axis in tasks:
        if axis.is_interval:
            raise InputError(f"--{axis.name}: expected values (every trial is run in each), found an interval")
    if not searched:
        raise InputError(f"--search: expected an axis other than {', '.join(TASKS)} to search, found none")
    combined = itertools.product(*(axis.values for axis in tasks))
    names = [axis.name for axis in tasks]
    return searched, [dict(zip(names, values, strict=True)) for values in combined]


def is_integer(axis: Axis) -> bool:
    """Whether the axis's flag takes integers only."""
    return FLAGS[axis.name].flag_type() == "int"


def integer_bounds(axis: Axis) -> tuple[int, int]:
    """The integers of an interval.

    Raises:
      InputError: if there is none.
    """
    low, high = math.ceil(axis.low), math.floor(axis.high)
    if low > high:
        raise InputError(f"--{axis.name}: expected an interval with an integer in it, found {axis.low:g}:{axis.high:g}")
    return low, high


def drawn(axis: Axis, number: int, seed: int) -> str:
    """A trial's value of an axis, which depends on nothing but these."""
    random = np.random.default_rng([seed, number, *axis.name.encode()])
    if not axis.is_interval:
        return axis.values[int(random.integers(len(axis.values)))]
    if is_integer(axis):
        low, high = integer_bounds(axis)
        if not axis.log:
            return str(int(random.integers(low, high + 1)))
        # Equal ratios of intervals of a half to each side, so that the ends are as likely as the rest.
        value = math.exp(random.uniform(math.log(low - 0.5), math.log(high + 0.5)))
        return str(min(max(round(value), low), high))
    if axis.log:
        return f"{math.exp(random.uniform(math.log(axis.low), math.log(axis.high))):.6g}"
    return f"{random.uniform(axis.low, axis.high):.6g}"


def random_settings(axes: Sequence[Axis], trials: int, seed: int) -> list[Assignment]:
    """Independent draws of every axis."""
    return [fitted({axis.name: drawn(axis, number, seed) for axis in axes}, axes) for number in range(trials)]


def ends(axes: Sequence[Axis]) -> list[Assignment]:
    """Settings that together hold every listed value and both ends of every interval, to be checked beforehand."""
    every = {axis.name: _checked(axis) for axis in axes}
    first = {name: values[0] for name, values in every.items()}
    # Each agent with all that it has: others may not have it.
    firsts = [{**first, "agent": agent} for agent in every["agent"]] if "agent" in every else [first]
    others = {name: values for name, values in every.items() if name != "agent"}
    varied = [{**one, name: text} for one in firsts for name, values in others.items() for text in values]
    return [fitted(one, axes) for one in (*firsts, *varied)]


def _checked(axis: Axis) -> tuple[str, ...]:
    if not axis.is_interval:
        return axis.values
    if is_integer(axis):
        return tuple(map(str, integer_bounds(axis)))
    return (f"{axis.low:.6g}", f"{axis.high:.6g}")


def expected_running_time(tasks: Sequence[Sequence[Run]]) -> float:
    """Real steps spent over optima reached (Hansen et al.'s ERT): what counts is both speed and reliability.

    A run that got there has spent its steps to optimal, another all that it took. Over several tasks the geometric
    mean, so that easy and hard ones weigh alike. Infinite if in some task nobody got there.
    """
    logs = []
    for runs in tasks:
        steps = steps_of(runs)
        spent = np.where(np.isfinite(steps), steps, [run.summary.real_steps for run in runs])
        reached = int(np.isfinite(steps).sum())
        if not reached:
            return math.inf
        logs.append(math.log(max(float(spent.sum()), 1.0) / reached))
    return math.exp(sum(logs) / len(logs)) if logs else math.inf


def sampler(name: str, seed: int) -> BaseSampler:
    """One of Optuna's samplers.

    Raises:
      InputError: if it isn't installed.
    """
    try:
        import optuna
        from optuna import samplers

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        if name == "cmaes":
            import cmaes  # noqa: F401 -- Optuna would only miss it after some trials

            return samplers.CmaEsSampler(seed=seed)
    except ImportError as error:
        raise InputError(f"--search=optuna: expected requirements-sweep.txt installed, found {error}") from error
    if name == "qmc":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return samplers.QMCSampler(seed=seed, warn_asynchronous_seeding=False, warn_independent_sampling=False)
    # Trials that are asked for together must differ.
    return samplers.TPESampler(seed=seed, constant_liar=True)


def _suggested(trial: Asked, axis: Axis) -> str:
    if not axis.is_interval:
        return trial.suggest_categorical(axis.name, list(axis.values))
    if is_integer(axis):
        return str(trial.suggest_int(axis.name, *integer_bounds(axis), log=axis.log))
    return f"{trial.suggest_float(axis.name, axis.low, axis.high, log=axis.log):.6g}"


def optuna_trials(
    axes: Sequence[Axis],
    trials: int,
    *,
    sampler: BaseSampler,
    batch: int,
    run: Callable[[list[Assignment]], list[Worth]],
) -> list[Trial]:
    """Asks for `batch` settings at once, runs them, tells their values, and so on.

    Args:
      axes: what is searched.
      trials: how many settings to try.
      sampler: one of Optuna's.
      batch: settings that are tried at the same time; results depend on it, not on how many workers there are.
      run: what each of some settings is worth.
    """
    import optuna

    study = optuna.create_study(sampler=sampler)
    found: list[Trial] = []
    while len(found) < trials:
        asked = [study.ask() for _ in range(min(batch, trials - len(found)))]
        settings = [fitted({axis.name: _suggested(one, axis) for axis in axes}, axes) for one in asked]
        for one, setting, worth in zip(asked, settings, run(settings), strict=True):
            if worth.value is None:
                study.tell(one, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(one, worth.value)
            found.append(Trial(len(found), setting, worth))
    return found


NO_COMPARISON = (
    "Not told here: the best of many trials is the best partly by chance, and these very runs chose it. To learn "
    "whether it is better, run a grid of it and of what it should beat, with seeds that the search didn't use "
    "(--first_seed)."
)


def reported(kind: str, trials: Sequence[Trial], about: str) -> Search:
    """The search for the report, best trials first."""

    def rank(trial: Trial) -> tuple[float, int]:
        return (math.inf if trial.worth.value is None else trial.worth.value, trial.number)

    def shown(trial: Trial) -> Tried:
        worth = trial.worth
        value = worth.value if worth.value is not None and math.isfinite(worth.value) else None
        return Tried(trial.number, label(trial.setting), value, f"{worth.succeeded} of {worth.runs}")

    return Search(kind, about, NO_COMPARISON, tuple(shown(trial) for trial in sorted(trials, key=rank)))
