"""Reproduces the paper's tables and figure: `python -m launch.reproduce` (a small part first: --quick).

Every training is a unit of work with a folder of its own under --run_dir. What is finished isn't computed again, what
was interrupted goes on from its last checkpoint, and the report at the end is made from the folders alone.
"""

from __future__ import annotations

import pathlib
import resource
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from launch.host import errors, files, provenance
from launch.host.errors import InputError
from launch.host.runtime import use_compilation_cache
from launch.inputs.flags import own_flags
from launch.reproduce import plan as report_plan
from launch.reproduce import report
from launch.reproduce import sb3 as peer
from launch.reproduce.plan import Unit
from launch.runs import unit as units
from launch.runs.folder import RunFolder
from launch.runs.summary import Summary

FLAGS = flags.FLAGS
_QUICK = flags.DEFINE_bool("quick", False, "A small subset, two to three minutes on two cores; the report says so.")
_TABLES = flags.DEFINE_list(
    "tables", list(report_plan.TABLES), "What to reproduce: 5, 6, 7 (tables), fig3 (Figure 3), peer (a public agent)."
)
_AGENTS = flags.DEFINE_list("agents", list(report_plan.AGENTS), "The agents to run; what needs others is left out.")
_REPORT_ONLY = flags.DEFINE_bool("report_only", False, "Make the report from what is finished, and run nothing.")

OWN_FLAGS = ("seeds", "threads", "checkpoint_epochs", "run_dir", "flagfile")  # of those that all entry points share
SECONDS_A_MINUTE = 60.0


def _chosen(name: str, given: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """A list flag's values, in the order of `known`."""
    for value in given:
        if value not in known:
            raise InputError(f"--{name}: expected a comma list of {', '.join(known)}, found {value!r}")
    if not given:
        raise InputError(f"--{name}: expected at least one of {', '.join(known)}, found none")
    return tuple(value for value in known if value in given)


def _refuse_other_flags() -> None:
    """The plan decides what is run, so that a flag of a single training would be ignored."""
    for flag in own_flags():
        if flag.present and flag.name not in OWN_FLAGS:
            raise InputError(f"--{flag.name}: expected with launch.train, found with launch.reproduce")
    for name, low in (("seeds", 1), ("threads", 0), ("checkpoint_epochs", 1)):
        if int(FLAGS[name].value or 0) < low:
            raise InputError(f"--{name}: expected at least {low}, found {FLAGS[name].value}")


def _peak_memory_gib() -> float:
    """Most memory of this process and of the largest of its children, together."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(resource.getrusage(kind).ru_maxrss for kind in kinds) / 2**20


def _note(out: pathlib.Path, unit: Unit, wall_s: float) -> None:
    """Adds this call's part of a unit to the log, which the report's wall time is from."""
    log = provenance.read_log(out)
    entry = log["units"].setdefault(unit.folder, {"wall_s": 0.0})
    entry["wall_s"] += wall_s
    entry["commit"] = provenance.commit()
    log["peak_memory_gib"] = max(log["peak_memory_gib"], _peak_memory_gib())
    files.write_json(out / "log.json", log)


def _result(summary: Summary) -> str:
    steps = summary.aggregate.steps_to_optimal
    middle = "never" if steps.median is None else f"{steps.median:,.0f} steps"
    return f"{steps.succeeded} of {steps.seeds} seeds optimal, median {middle}"


def run_units(
    plan: Sequence[Unit], out: pathlib.Path, *, threads: int, checkpoint_epochs: int, say: Callable[[str], None]
) -> None:
    """Runs every unit that isn't finished, one after the other, each on all cores.

    Raises:
      InputError: if a folder can't be used.
      KeyboardInterrupt: after checkpointing the unit under way.
    """
    waiting = [unit for unit in plan if not RunFolder(out / "units" / unit.folder).finished]
    left, spent, done = sum(unit.weight for unit in waiting), 0.0, 0.0
    if len(waiting) < len(plan):
        say(f"{len(plan) - len(waiting)} of {len(plan)} units of work are finished already")
    for unit in waiting:
        number = plan.index(unit) + 1
        # The first units tell how fast this machine is; until then nothing is promised.
        rest = f", about {(left - done) * spent / done / SECONDS_A_MINUTE:.0f} min left" if done else ""
        say(f"[{number}/{len(plan)}] {unit.title}{rest}")
        start = time.perf_counter()
        _note(out, unit, 0.0)  # with its commit, however this call ends
        try:
            folder = RunFolder(out / "units" / unit.folder)
            if unit.agent == peer.AGENT:
                summary = peer.run(unit.settings, folder, threads=threads)
            else:
                summary = units.run(unit.settings, folder, threads=threads, checkpoint_epochs=checkpoint_epochs)
        finally:
            wall_s = time.perf_counter() - start
            _note(out, unit, wall_s)
        spent, done = spent + wall_s, done + unit.weight
        say(f"[{number}/{len(plan)}] {unit.title}: {_result(summary)} ({wall_s:.0f} s)")


def reproduce(
    plan: Sequence[Unit],
    out: pathlib.Path,
    *,
    command: str,
    quick: bool = False,
    tables: Sequence[str] = report_plan.TABLES,
    threads: int = 0,
    checkpoint_epochs: int = 10,
    report_only: bool = False,
) -> dict[str, Any]:
    """Runs what isn't finished of a plan, and writes the report. Returns report.json's content.

    Raises:
      InputError: if a folder can't be used, or nothing is finished of what to report on.
    """

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    if report_only:
        if not any(RunFolder(out / "units" / unit.folder).finished for unit in plan):
            raise InputError(f"--report_only: expected finished units of this plan, found none in {out}")
    else:
        try:
            (out / "units").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"--run_dir: expected a folder that can be made, found {error.strerror} at {out}"
            ) from error
        runnable = [unit for unit in plan if unit.agent != peer.AGENT or peer.installed()]
        if len(runnable) < len(plan):
            say("Stable-Baselines3 isn't installed (requirements-peer.txt): its part is left out")
        run_units(runnable, out, threads=threads, checkpoint_epochs=checkpoint_epochs, say=say)
    content = report.build(plan, out, command=command, quick=quick, tables=tables)
    report.write(content, out)
    return content


def main() -> int:
    """Runs the plan that the flags ask for."""
    _refuse_other_flags()
    tables = _chosen("tables", _TABLES.value, report_plan.TABLES)
    chosen = _chosen("agents", _AGENTS.value, report_plan.AGENTS)
    plan = report_plan.plan(tables, chosen, FLAGS.seeds if FLAGS["seeds"].present else 0, _QUICK.value)
    out = pathlib.Path(FLAGS.run_dir or "runs/reproduction")
    given = [one for one in sys.argv[1:] if "report_only" not in one]  # what ran the units
    use_compilation_cache()
    try:
        content = reproduce(
            plan,
            out,
            command=shlex.join(["python", "-m", "launch.reproduce", *given]),
            quick=_QUICK.value,
            tables=tables,
            threads=FLAGS.threads,
            checkpoint_epochs=FLAGS.checkpoint_epochs,
            report_only=_REPORT_ONLY.value,
        )
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    for line in report.summary_lines(content):
        print(line)
    print(f"report: {out / 'report.html'} (also report.md, report.json)")
    for folder, why in content["run"]["failed"].items():
        print(f"failed: {folder}: {why}", file=sys.stderr)
    return 1 if content["run"]["failed"] else 0


if __name__ == "__main__":
    errors.run(main)
