"""The flags shared by the entry points, and how they become validated settings.

An agent's constants are the fields of its configuration; each becomes a flag here, so that its default, its reason and
its limits are written once. A flag that isn't given has the chosen agent's default.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from absl import flags

from hl_jax import checks, objective
from hl_jax.agents import registry
from hl_jax.arrivals import OBJECTIVES, Arrivals, Traffic
from hl_jax.checks import shown
from hl_jax.fleets.scenario import AnyScenario, FleetScenario
from hl_jax.objective import constraint_value
from hl_jax.scenario import KNOBS, Scenario
from launch.host import flagfiles
from launch.host.errors import InputError
from launch.inputs import agents, scenario_files, traffic_files
from launch.inputs.settings import Settings

FLAGS = flags.FLAGS

flags.DEFINE_string("scenario", None, "Scenario file, for example data/scenarios/expC.toml (format: data/README.md).")
flags.DEFINE_string(
    "calibration",
    None,
    "Calibration file instead of the scenario's: a testbed's digital twin (python -m launch.calibrate).",
)
flags.DEFINE_string("users", "", "Number of devices, the scenario's first ones; default all of them.")
flags.DEFINE_string("constraint", "", "Mean accuracy to keep: Min, Max or a percentage; default the scenario's.")
flags.DEFINE_enum("knobs", "both", KNOBS, "Which of Table I's knobs devices have: offloading, models, or both.")
flags.DEFINE_string(
    "agent", "hybrid", f"Who learns: {', '.join(agents.NAMED)}, or your own as MODULE:FUNCTION (docs/agents.md)."
)
flags.DEFINE_integer("seeds", 5, "Number of seeds; one seed's result doesn't depend on how many there are.")
flags.DEFINE_integer("first_seed", 0, "The first of them.")
flags.DEFINE_string(
    "run_dir", "", "Where results go; default runs/<experiment>-<agent>-<time>, or named after the command."
)
flags.DEFINE_bool(
    "resume",
    False,
    "Go on with the run in --run_dir, exactly where it was; its own flags hold. With flags, start one if none is.",
)
flags.DEFINE_integer("threads", 0, "Seeds learned at the same time; 0: as many as there are cores.")
flags.DEFINE_integer(
    "lanes", 1, "Seeds in one compiled program (vmap). More suit a GPU; the last bits of results depend on it."
)
flags.DEFINE_integer("checkpoint_epochs", 10, "Epochs between checkpoints.")
flags.DEFINE_enum(
    "traffic", None, (traffic_files.TOGETHER, "periodic", "poisson"), "When devices ask, instead of the scenario's."
)
flags.DEFINE_float("interval_ms", None, "Mean time between a device's requests, ms, instead of the scenario's.")
flags.DEFINE_float("period_ms", None, "Control period under traffic, ms: how long a joint decision stands.")
flags.DEFINE_float(
    "deadline_ms",
    None,
    "When an answer is late, ms, instead of the scenario's.",
)
flags.DEFINE_enum(
    "objective",
    None,
    (*OBJECTIVES, *objective.OBJECTIVES),
    "What is to be least: under traffic mean, a quantile or misses; of a fleet of its own time, energy or both.",
)
flags.DEFINE_float("noise", None, "Noise of the simulator instead of the scenario's (0.03 is 3 %).")


# How --help groups them; the agents' constants are further flags of this module.
FLAG_GROUPS = {
    "What is to be decided": ("scenario", "users", "constraint", "knobs", "calibration", "noise"),
    "When requests come": ("traffic", "interval_ms", "period_ms", "deadline_ms", "objective"),
    "Who learns": ("agent", "seeds", "first_seed", "lanes"),
    "The run": ("run_dir", "resume", "threads", "checkpoint_epochs"),
}

_KINDS: dict[str, registry.Kind] = {}  # whose constants are flags
_DEFINE = {int: flags.DEFINE_integer, float: flags.DEFINE_float, str: flags.DEFINE_string, bool: flags.DEFINE_bool}


def _types(config: type) -> dict[str, type]:
    """What each constant holds: as it is annotated, or else what its default is."""
    hints, defaults = typing.get_type_hints(config), config()
    named = {field.name: getattr(defaults, field.name) for field in dataclasses.fields(config)}
    return {name: hints[name] if hints[name] in _DEFINE else type(value) for name, value in named.items()}


def _define_constants(kinds: dict[str, registry.Kind]) -> None:
    """One flag for each constant of these agents; the help lists every agent's default.

    Raises:
      InputError: if a constant can't be a flag.
    """
    fields: dict[str, dataclasses.Field[object]] = {}
    holds: dict[str, type] = {}
    defaults: dict[str, dict[str, object]] = {}
    ours: dict[str, type] = {}
    for kind in _KINDS.values():
        ours |= _types(kind.config)
    for agent, kind in kinds.items():
        types = _types(kind.config)
        for field in dataclasses.fields(kind.config):
            what = types[field.name]
            if ours.get(field.name, what) is not what:
                expected = f"{ours[field.name].__name__}, as other agents' constant of this name"
                raise InputError(f"--{field.name}: expected {expected}, found {what.__name__} ({agent})")
            fields.setdefault(field.name, field)
            holds.setdefault(field.name, what)
            defaults.setdefault(field.name, {})[agent] = getattr(kind.config(), field.name)
    for name, field in fields.items():
        if name in ours:
            continue
        agent, default = next(iter(defaults[name].items()))
        if name in FLAGS:
            raise InputError(f"--{name}: expected a name of its own for a constant, found one of {agent} that is taken")
        if holds[name] not in _DEFINE:
            raise InputError(f"--{name}: expected a whole number, a number, a text or a truth value, found {default!r}")
        shown = ", ".join(f"{agent} {value}" for agent, value in defaults[name].items())
        text = f"{field.metadata.get('help', 'a constant of ' + agent)} (default: {shown})"
        if "choices" in field.metadata:
            flags.DEFINE_enum(name, None, list(field.metadata["choices"]), text, module_name=__name__)
        else:
            _DEFINE[holds[name]](name, None, text, module_name=__name__)  # type: ignore[operator]
    _KINDS.update(kinds)


_define_constants(agents.NAMED)


def define_agent(name: str) -> None:
    """Makes the constants of an agent of the user's own flags; ours have theirs.

    Raises:
      InputError: if there is no such agent, or a constant can't be a flag.
    """
    if name not in _KINDS:
        _define_constants({name: agents.kind_of(name)})


def define_given_agent(arguments: Sequence[str]) -> None:
    """The same for the agent that a command line names, before it is parsed.

    Raises:
      InputError: if there is no such agent, or a constant can't be a flag.
    """
    try:
        every = FLAGS.read_flags_from_files(list(arguments), force_gnu=False)
    except (flags.Error, OSError):
        return  # parsing says what is wrong
    for first, second in zip(every, [*every[1:], ""], strict=True):
        option, equals, value = first.lstrip("-").partition("=")
        if first.startswith("-") and option == "agent":
            define_agent(value if equals else second)


def own_flags() -> list[flags.Flag[object]]:
    """The flags of a training, which are defined here."""
    return list(FLAGS.get_flags_for_module(__name__))


def _with_traffic(scenario: Scenario) -> Scenario:
    """The scenario with the traffic that the flags ask for.

    Raises:
      ValueError: if they don't fit one another, or the scenario.
    """
    given: dict[str, Any] = {name: FLAGS[name].value for name in ("period_ms", "deadline_ms", "objective")}
    given = {name: value for name, value in given.items() if value is not None}
    kind, interval = FLAGS.traffic, FLAGS.interval_ms
    if kind is None and scenario.traffic is None and (given or interval is not None):
        name = next(iter(given), "interval_ms")
        raise ValueError(f"{name}: expected with --traffic or a scenario that has some, found without")
    if kind == traffic_files.TOGETHER:
        if given or interval is not None:
            raise ValueError(f"traffic: expected nothing beside {kind}, found --{next(iter(given), 'interval_ms')}")
        return dataclasses.replace(scenario, traffic=None)
    traffic = scenario.traffic
    if kind is not None:
        # Of a scenario that has traffic each device asks as often as before.
        before = [1000.0] * scenario.users if traffic is None else [1.0 / one.per_ms for one in traffic.arrivals]
        each = tuple(Arrivals(kind=kind, interval_ms=one if interval is None else interval) for one in before)
        traffic = Traffic(arrivals=each, **given) if traffic is None else dataclasses.replace(traffic, arrivals=each)
    elif interval is not None and traffic is not None:
        if any(one.kind == "trace" for one in traffic.arrivals):
            raise ValueError("interval_ms: expected none with a trace, found one")
        each = tuple(dataclasses.replace(one, interval_ms=interval) for one in traffic.arrivals)
        traffic = dataclasses.replace(traffic, arrivals=each)
    if traffic is not None and given:
        traffic = dataclasses.replace(traffic, **given)
    return scenario if traffic is None else dataclasses.replace(scenario, traffic=traffic)


def _fleet(fleet: FleetScenario) -> FleetScenario:
    """A fleet of its own with what flags ask of it.

    Raises:
      InputError: for a flag of what it has none of, or that it can't keep.
    """
    for name in ("calibration", "traffic", "interval_ms", "period_ms"):
        if FLAGS[name].value is not None:
            raise InputError(f"--{name}: expected none with a fleet of its own, found one (scenario {FLAGS.scenario})")
    try:
        if FLAGS.objective is not None:
            fleet = dataclasses.replace(fleet, goal=dataclasses.replace(fleet.goal, objective=FLAGS.objective))
        if FLAGS.deadline_ms is not None:
            checks.number(FLAGS.deadline_ms, "deadline_ms", 1e-3)
            devices = tuple(dataclasses.replace(one, deadline_ms=FLAGS.deadline_ms) for one in fleet.devices)
            fleet = dataclasses.replace(fleet, devices=devices)
        if FLAGS.noise is not None:  # deadlines ask of quantiles, so that the optimum depends on it
            fleet = dataclasses.replace(fleet, noise=FLAGS.noise)
        return fleet.with_knobs(FLAGS.knobs)
    except ValueError as error:
        raise InputError(f"--{error} (scenario {FLAGS.scenario})") from error


def scenario_file() -> AnyScenario:
    """The scenario that --scenario names, with --calibration's times, what --knobs leaves, and the asked traffic."""
    if FLAGS.scenario is None:
        raise InputError("--scenario: expected a scenario file (--scenario=FILE or --flagfile=expC.flags), found none")
    scenario = scenario_files.load_any(FLAGS.scenario)
    if isinstance(scenario, FleetScenario):
        return _fleet(scenario)
    if FLAGS.calibration is not None:
        calibration = scenario_files.load_calibration(FLAGS.calibration, scenario.pool)
        scenario = calibration.apply(scenario)
        if scenario.dynamics and (assumed := [name for name in calibration.assumed if name.endswith("_factor")]):
            print(f"note: assumed and not measured in {FLAGS.calibration}: {', '.join(assumed)}", file=sys.stderr)
    try:
        return _with_traffic(scenario.with_knobs(FLAGS.knobs))
    except ValueError as error:
        raise InputError(f"--{error} (scenario {FLAGS.scenario})") from error


def check_measured(scenario: AnyScenario) -> AnyScenario:
    """The same scenario, if all that matters of its calibration was measured.

    Raises:
      InputError: naming what wasn't.
    """
    missing = scenario.unmeasured()
    if missing and isinstance(scenario, FleetScenario):
        expected = f"targets whose energy was measured for scenario {scenario.name}"
        raise InputError(f"--objective: expected {expected}, found {', '.join(missing)} without")
    if missing:
        place = FLAGS.calibration or f"the calibration of {FLAGS.scenario}"
        expected = f"measured times for scenario {scenario.name}"
        raise InputError(f"--calibration: expected {expected}, found none for {', '.join(missing)} in {place}")
    return scenario


def chosen_scenario(scenario: AnyScenario, users: str, constraint: str) -> AnyScenario:
    """The scenario with so many users and that constraint ("" leaves the file's).

    Raises:
      InputError: if it hasn't so many devices, or no joint action meets the constraint.
    """
    try:
        if users:
            if not users.isdecimal():
                raise ValueError(f"users: expected a number, found {users!r}")
            scenario = scenario.with_users(int(users))
        if constraint:
            scenario = dataclasses.replace(scenario, constraint=constraint_value(constraint, scenario.pool))
        if FLAGS.noise is not None:
            scenario = dataclasses.replace(scenario, noise=FLAGS.noise)
    except ValueError as error:
        raise InputError(f"--{error} (scenario {FLAGS.scenario})") from error
    return check_measured(scenario)


def agent_config(agent: str) -> Any:
    """The agent's configuration with the flags that were given.

    Raises:
      InputError: for a value out of range, or a flag that this agent doesn't have.
    """
    define_agent(agent)
    config = _KINDS[agent].config
    by_constant: dict[str, list[str]] = {}
    for other, kind in _KINDS.items():
        for field in dataclasses.fields(kind.config):
            by_constant.setdefault(field.name, []).append(other)
    given = {name: FLAGS[name].value for name in sorted(by_constant) if FLAGS[name].value is not None}
    for name in given:
        if agent not in by_constant[name]:
            raise InputError(
                f"--{name}: expected with --agent={', '.join(by_constant[name])}, found with --agent={agent}"
            )
    try:
        return config(**given)
    except ValueError as error:
        raise InputError(str(error)) from error


@contextlib.contextmanager
def given(values: Mapping[str, str]) -> Iterator[None]:
    """The flags as if these had been on the command line, and as they were afterwards.

    Raises:
      InputError: if a flag's parser refuses its value.
    """
    old = {name: (FLAGS[name].value, FLAGS[name].present) for name in values}
    try:
        for name, text in values.items():
            try:
                FLAGS[name].parse(text)
            except (flags.Error, ValueError) as error:
                raise InputError(str(error)) from error
        yield
    finally:
        for name, (value, present) in old.items():
            FLAGS[name].value, FLAGS[name].present = value, present


def config_from(path: pathlib.Path, agent: str) -> Any:
    """The agent's configuration with a flag file's constants.

    Raises:
      InputError: if the file can't be read, or holds anything but constants of this agent.
    """
    values = {}
    known = {field.name for field in dataclasses.fields(_KINDS[agent].config)}
    for line in flagfiles.lines(path):
        name, equals, text = line.removeprefix("--").partition("=")
        if line == f"--agent={agent}":
            continue
        if not line.startswith("--") or not equals or name not in known:
            raise InputError(f"flagfile: expected --CONSTANT=VALUE of {agent}, found {line!r} in {path}")
        values[name] = text
    with given(values):
        return agent_config(agent)


# Seeds are int32 keys; each has a history of its own in memory.
LIMITS = (
    ("seeds", 1, 10**6),
    ("first_seed", 0, 2**31 - 1 - 10**6),
    ("lanes", 1, 2**16),
    ("threads", 0, 2**12),
    ("checkpoint_epochs", 1, 10**9),
)


def settings() -> Settings:
    """All flags of a run as validated settings."""
    for name, low, high in LIMITS:
        if not low <= int(FLAGS[name].value or 0) <= high:
            raise InputError(f"--{name}: expected a whole number in [{low}, {high}], found {shown(FLAGS[name].value)}")
    scenario = chosen_scenario(scenario_file(), FLAGS.users, FLAGS.constraint)
    return Settings(
        scenario=scenario,
        constraint=FLAGS.constraint or f"{scenario.constraint:g}",
        agent=FLAGS.agent,
        config=agent_config(FLAGS.agent),
        seeds=tuple(range(FLAGS.first_seed, FLAGS.first_seed + FLAGS.seeds)),
        lanes=FLAGS.lanes,
    )


HOW_TO_RUN = ("run_dir", "resume", "threads", "checkpoint_epochs", "flagfile")  # what decides no result


def refuse_other_settings(stored: Settings, given: Callable[[], Settings] = settings) -> None:
    """Checks the flags of a resumed run: none that decides its results, or the same as the run's own.

    Args:
      stored: the run's settings.
      given: makes settings from the flags.

    Raises:
      InputError: naming what differs.
    """
    if FLAGS.scenario is not None:
        mine_all = given()
        for field in dataclasses.fields(Settings):
            mine, theirs = getattr(mine_all, field.name), getattr(stored, field.name)
            if mine != theirs:
                raise InputError(f"--resume: expected this run's own {field.name} {theirs!r}, found {mine!r}")
        return
    for name in sorted({flag.name for flag in own_flags()} - set(HOW_TO_RUN)):
        if FLAGS[name].present:
            raise InputError(f"--resume: expected no --{name} (the run has its own), found {FLAGS[name].value!r}")
