"""What the seeds of a run have learned, read from its checkpoints: in groups (simulator), one by one (real nodes).

Only what was learned is given. A seed without a checkpoint, or with one of before its first epoch, has learned nothing,
and isn't replaced by an agent in its first state.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from hl_jax import training
from hl_jax.agents.world import Agent, AgentState, Run, Totals, observed_levels
from launch.host.errors import InputError
from launch.host.records import as_data, from_data
from launch.inputs.agents import make_agent
from launch.inputs.settings import Settings
from launch.runs import checkpoints, on_simulator
from launch.runs.folder import RunFolder
from launch.runs.history import Row
from launch.runs.summary import Failure


@dataclasses.dataclass
class Seed:
    """One seed's run on real nodes: where it is, what it has shown, and what it has measured of each decision."""

    number: int
    run: Run
    before: tuple[int, int]  # real and model steps that the agent had taken elsewhere
    epoch: int = 0
    rows: list[Row] = dataclasses.field(default_factory=list)
    seen: dict[str, tuple[int, float]] = dataclasses.field(default_factory=dict)  # decision: how often, sum of ART (ms)
    failure: Failure | None = None  # why it learns no more; its last finite policy goes on deciding

    def save(self, settings: Settings, folder: RunFolder) -> None:
        """Checkpoints it."""
        notes = _Notes(epoch=self.epoch, rows=self.rows, seen=self.seen, before=self.before, failure=self.failure)
        checkpoints.save(folder.seed(self.number), self.run, as_data(notes), settings.digest)


@dataclasses.dataclass(frozen=True)
class _Notes:
    """What a checkpoint holds beside a seed's arrays."""

    epoch: int
    rows: list[Row]
    seen: dict[str, tuple[int, float]]
    before: tuple[int, int]
    failure: Failure | None


def load_seed(seed: Seed, settings: Settings, folder: RunFolder) -> Seed:
    """The seed at its last checkpoint, if it has one.

    Raises:
      InputError: if that is damaged or belongs to other settings.
    """
    path = folder.seed(seed.number)
    if not path.exists():
        return seed
    run, data = checkpoints.load(path, seed.run, settings.digest)
    notes = from_data(_Notes, data, str(path))
    return Seed(number=seed.number, run=run, **vars(notes))


def first_run(agent: Agent, number: int, obs: jax.Array) -> Run:
    """A seed's run before its first epoch, in the observed state [F]. Keys are those of a simulated run."""
    _, agent_key, env_key = jax.random.split(jax.random.key(number), 3)
    return Run(agent=jax.jit(agent.init)(agent_key, obs), env=jnp.int32(0), env_key=env_key, totals=Totals.zero())


@dataclasses.dataclass(frozen=True)
class Learned:
    """What one seed has learned so far."""

    epoch: int  # epochs behind it, at least one
    state: AgentState


def read(settings: Settings, folder: RunFolder) -> dict[int, Learned]:
    """What the seeds of a run have learned; those that have learned nothing, or left nothing, are missing.

    Raises:
      InputError: if none has, or a checkpoint is damaged or belongs to other settings.
    """
    agent = make_agent(settings.agent, settings.config, settings.scenario)
    found: dict[int, Learned] = {}
    if settings.real is None:
        groups = on_simulator.load_groups(agent, training.params_for(agent, settings.scenario), settings, folder)
        for group in groups:
            if group.epoch > 0:
                found |= {seed: Learned(group.epoch, state) for seed, state in group.agents().items()}
    else:
        obs = jnp.zeros(len(observed_levels(settings.scenario)), jnp.int32)
        for number in settings.seeds:
            if folder.seed(number).exists():
                seed = load_seed(Seed(number, first_run(agent, number, obs), (0, 0)), settings, folder)
                if seed.epoch > 0:
                    found[number] = Learned(seed.epoch, seed.run.agent)
    if not found:
        there = sorted(path.name for path in folder.checkpoints.glob("*.ckpt"))
        what = f"only {', '.join(there)}, of before the first epoch" if there else "none"
        raise InputError(
            f"checkpoints: expected those of seeds that have learned, found {what} in {folder.checkpoints} "
            "(launch.sweep keeps them with --keep_checkpoints)"
        )
    return found
