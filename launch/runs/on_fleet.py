"""Runs seeds on real nodes, one after the other: the same agents, stepped from the host, checkpointed, resumable.

Nobody knows a real fleet's optimum. With a digital twin (`--calibration`) the twin's stands for it: decisions are
judged by the twin's times after each epoch, which costs no step. In the end every seed's policy is carried out
`measurements` times for real, and that is its response time in `summary.json`.

A checkpoint is written after every epoch. An epoch that was interrupted is taken again from its start; its steps stay
in `steps.jsonl` and count as interactions.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import pathlib
import signal
import threading
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from hl_jax import evaluation, health, objective, training
from hl_jax.agents.stepped import Stepped, host_world
from hl_jax.agents.world import AgentState
from hl_jax.environments import Params, mean_accuracy
from hl_jax.fleets.params import FleetParams
from hl_jax.scenario import Scenario
from hl_jax.traffic.environment import TrafficParams
from launch.fleet.adapter import TestbedEnv
from launch.fleet.inventory import Inventory, inventory_from
from launch.fleet.standing import StandingEnv
from launch.host.errors import InputError, RunError
from launch.host.progress import Progress
from launch.host.text import fixed
from launch.inputs.agents import make_agent
from launch.inputs.scenario_files import papers
from launch.inputs.settings import Settings
from launch.runs import learned
from launch.runs.folder import RunFolder
from launch.runs.history import Measured, Oracle, Row, Show, Worth, judged, row
from launch.runs.learned import Seed
from launch.runs.summary import Failure, failure


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does: in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt("SIGTERM")

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def fleet_env(scenario: Scenario, inventory: Inventory, params: Params, folder: RunFolder) -> TestbedEnv:
    """The fleet as an environment: lock-step, or with devices' own traffic."""
    assert not isinstance(params, FleetParams)  # `papers` has refused it
    if isinstance(params, TrafficParams):
        return StandingEnv(scenario, inventory, params, folder=folder.testbed, record=folder.steps)
    return TestbedEnv(scenario, inventory, params, folder=folder.testbed, record=folder.steps)


class RealRun:
    """All seeds of a run on a fleet of real nodes."""

    def __init__(self, settings: Settings, folder: RunFolder) -> None:
        assert settings.real is not None
        self.settings, self.folder, self.real = settings, folder, settings.real
        scenario = papers(settings.scenario)
        self.agent = make_agent(settings.agent, settings.config, scenario)
        try:
            self.params = training.params_for(self.agent, scenario)
        except ValueError as error:
            raise InputError(f"--scenario: {error}") from error
        self._host = Stepped(self.agent)
        self._decide = jax.jit(self.agent.decide)
        self.env = fleet_env(scenario, inventory_from(self.real.inventory), self.params, folder)
        self.oracle: Oracle | None = None
        self._starts = evaluation.judged_states(self.params)  # one: conditions of real nodes are what they are
        if self.real.twin:
            try:
                self.oracle = Oracle(optima=evaluation.optima(self.params, self._starts))
            except ValueError as error:
                raise InputError(f"--calibration: {error}") from error
        self._check = jax.jit(health.check)
        self._evaluate = jax.jit(
            lambda params, starts, decision: evaluation.evaluate(lambda _: decision, params, starts)
        )
        self.failures: dict[int, Failure] = {}
        self._donors = self._read_donors() if self.real.init_from else []

    def _read_donors(self) -> list[AgentState]:
        """Agents of the run that this one goes on from, by seed."""
        folder = RunFolder(pathlib.Path(self.real.init_from))
        theirs = folder.settings()
        if (theirs.agent, theirs.config) != (self.settings.agent, self.settings.config):
            expected = f"a run of --agent={self.settings.agent} with the same constants"
            raise InputError(f"--init_from: expected {expected}, found other ones of {theirs.agent} in {folder}")
        if other := self.settings.scenario.unlike(theirs.scenario):
            raise InputError(f"--init_from: {other} in {folder} (this run's are expected)")
        if (theirs.scenario.traffic is None) != (self.settings.scenario.traffic is None):
            kinds = ("with", "without") if self.settings.scenario.traffic else ("without", "with")
            raise InputError(f"--init_from: expected a run {kinds[0]} traffic, found one {kinds[1]} in {folder}")
        if folder.summary() is None:
            raise InputError(f"--init_from: expected a finished run, found one without summary.json in {folder}")
        agents = learned.read(theirs, folder)
        if missing := [seed for seed in theirs.seeds if seed not in agents]:
            found = f"none of seed {', '.join(map(str, missing))}"
            raise InputError(f"--init_from: expected a checkpoint of every seed, found {found} in {folder}")
        return [agents[seed].state for seed in theirs.seeds]

    # -- State ------------------------------------------------------------------------------------------------------

    def fresh(self, number: int, obs: jax.Array) -> Seed:
        """A seed before its first epoch, in the observed state [F]."""
        run, before = learned.first_run(self.agent, number, obs), (0, 0)
        if self._donors:
            donor = self._donors[self.settings.seeds.index(number) % len(self._donors)]
            before = (int(donor.real_steps), int(donor.model_steps))
            # Its own draws, or all that start from one donor would be alike.
            donor = self.agent.under(donor, self.settings.scenario.constraint)
            run = dataclasses.replace(run, agent=donor.replace(key=run.agent.key, obs=run.agent.obs))
        return Seed(number=number, run=run, before=before)

    def _save(self, seed: Seed) -> None:
        seed.save(self.settings, self.folder)

    # -- Learning ---------------------------------------------------------------------------------------------------

    def learn(self, threads: int, show: Show = lambda _: None) -> dict[int, list[Row]]:
        """Runs every seed to its end and returns their histories. A fleet that is started here is always taken down.

        Args:
          threads: not used; a fleet takes one step at a time.
          show: is told how to get the histories so far, after each epoch.

        Raises:
          InputError: if models or certificates can't be had, or a checkpoint can't be used.
          RunError: if a node doesn't start.
          KeyboardInterrupt: after the nodes are down; the last checkpoints hold.
        """
        del threads
        seeds = self.settings.seeds
        histories: dict[int, list[Row]] = {number: [] for number in seeds}
        what = f"{self.settings.agent} {self.settings.scenario.name} (real)"
        with _terminated_like_interrupted(), self.env, Progress(self.agent.epochs * len(seeds), 0, what) as progress:
            for number in seeds:
                fresh = self.fresh(number, jnp.asarray(self.env.reset()))
                seed = learned.load_seed(fresh, self.settings, self.folder)
                progress.advance(seed.epoch, f"seed {number}")
                while seed.epoch < self.agent.epochs and seed.failure is None:
                    self._advance(seed, progress)
                    histories[number] = seed.rows
                    show(lambda: histories)
                if seed.failure is not None:
                    self.failures[number] = seed.failure
                if seed.rows and seed.rows[-1].measured is None:
                    self._measure(seed)
                histories[number] = seed.rows
        return histories

    def _advance(self, seed: Seed, progress: Progress) -> None:
        """One epoch, then a checkpoint.

        Where the agent can't go on after it (`health`), it learns no more: its last finite policy is what is measured.

        Raises:
          RunError: if the fleet reports a response time that is none.
        """
        started, lost, inside = time.monotonic(), 0, 0.0
        self.env.note = {"seed": seed.number, "epoch": seed.epoch + 1, "phase": "learn"}

        def step(
            env: jax.Array, key: jax.Array, action: jax.Array
        ) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
            nonlocal lost, inside
            began = time.monotonic()
            joint = np.asarray(action)
            obs, _, _, _, info = self.env.step(joint)
            inside += time.monotonic() - began
            times = info["response_ms"]
            if not (np.isfinite(times) & (times > 0.0)).all():
                where = f"seed {seed.number}, epoch {seed.epoch + 1}, step {int(env) + 1}"
                raise RunError(f"response times: expected finite ones above 0 ms, found {times.tolist()} in {where}")
            lost += int(info.get("lost_requests", info["lost"].sum()))
            decision = " ".join(map(str, joint))
            times_seen, sum_ms = seed.seen.get(decision, (0, 0.0))
            seed.seen[decision] = (times_seen + 1, sum_ms + float(info["art_ms"]))
            progress.advance(0, f"seed {seed.number}, step {int(env) + 1}, ART {float(info['art_ms']):.1f} ms")
            arrays = {name: jnp.asarray(value) for name, value in info.items() if name != "reasons"}
            return env + 1, jnp.asarray(obs), arrays

        world = host_world(step)
        before = seed.run
        after, learning = self._host.epoch(world, before, self._host.plan(seed.epoch + 1))
        decision = self._decide(after.agent, jnp.asarray(after.agent.obs, jnp.int32))
        wrong = np.asarray(self._check(before, after, learning, decision))
        if wrong.any():
            seed.failure = failure(seed.epoch + 1, after.agent, learning, wrong)
            self._save(seed)
            return
        seed.run, seed.epoch = after, seed.epoch + 1
        wall = time.monotonic() - started
        extra = {name: float(value) for name, value in learning.items()} | {"lost_requests": lost, "wall_s": wall}
        if self.settings.scenario.traffic is not None:
            extra["requests"] = float(after.totals.requests)
        seed.rows.append(self._row(seed, extra, wall - inside))
        self._save(seed)
        progress.advance(1, self._numbers(seed.rows[-1]))

    @staticmethod
    def _numbers(row: Row) -> str:
        art = "not measured" if row.art_ms is None else f"{row.art_ms:.1f} ms"
        regret = "" if row.regret_percent is None else f", regret {fixed(row.regret_percent, 1)} % (twin)"
        kept = "" if row.feasible else ", breaks the constraint"
        return f"seed {row.seed}, steps {row.real_steps}, greedy ART {art}{regret}{kept}"

    def _judged(self, seed: Seed, decision: jax.Array) -> Worth:
        """What a joint decision ([N]) is worth: by the twin, or what its steps have shown."""
        joint = np.asarray(decision).tolist()
        count, sum_ms = seed.seen.get(" ".join(map(str, joint)), (0, 0.0))
        art, regret = sum_ms / count if count else None, None
        accuracy = mean_accuracy(self.params, decision)
        if self.oracle is not None:
            found = judged(jax.device_get(self._evaluate(self.params, self._starts, decision)), self.oracle)
            art, regret = found.art_ms, found.regret_percent
        return Worth(
            art_ms=art,
            accuracy=float(accuracy),
            feasible=bool(objective.meets(accuracy, self.settings.scenario.constraint)),
            regret_percent=regret,
            decision=tuple(joint),
        )

    def _row(self, seed: Seed, learning: dict[str, float], compute_s: float) -> Row:
        """What an epoch showed."""
        agent = seed.run.agent
        decision = self._decide(agent, jnp.asarray(agent.obs, jnp.int32))
        steps = int(agent.real_steps) - seed.before[0], int(agent.model_steps) - seed.before[1]
        judged = self._judged(seed, decision)
        return row(seed.number, seed.epoch, steps, seed.run.totals, judged, learning, compute_s)

    def _measure(self, seed: Seed) -> None:
        """Carries the learned policy out for real, in the states that it itself brings about, and learns nothing."""
        self.env.note = {"seed": seed.number, "phase": "measure"}
        obs, arts, lost = jnp.asarray(self.env.reset()), [], 0
        decisions: collections.Counter[tuple[int, ...]] = collections.Counter()
        for _ in range(self.real.measurements):
            joint = np.asarray(self._decide(seed.run.agent, obs))
            seen, _, _, _, info = self.env.step(joint)
            obs = jnp.asarray(seen)
            arts.append(float(info["art_ms"]))
            lost += int(info.get("lost_requests", info["lost"].sum()))
            decisions[tuple(joint.tolist())] += 1
        labels, common = self.settings.scenario.choice_labels(), decisions.most_common(1)[0][0]
        last = seed.rows[-1]
        measured = Measured(
            art_ms=float(np.mean(arts)),
            art_sd_ms=float(np.std(arts)),
            twin_art_ms=last.art_ms if self.oracle is not None else None,
            measurements=len(arts),
            lost_requests=lost + int(sum(row.learning["lost_requests"] for row in seed.rows)),
            decisions={" ".join(labels[choice] for choice in one): times for one, times in decisions.items()},
            wall_s=sum(row.learning["wall_s"] for row in seed.rows),
            interactions=self._interactions(seed.number),
        )
        accuracy = float(mean_accuracy(self.params, jnp.array(common)))
        seed.rows[-1] = dataclasses.replace(last, decision=tuple(common), accuracy=accuracy, measured=measured)
        self._save(seed)

    def _interactions(self, number: int) -> int:
        """Steps that this seed has taken, with those of interrupted epochs and of measuring."""
        count = 0
        for line in self.folder.steps.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):  # a line that was cut off
                count += json.loads(line).get("seed") == number
        return count
