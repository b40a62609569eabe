"""Reproduces the paper's tables and figure: `python -m launch.reproduce` (a small part first: --quick).

Every training is a unit of work with a folder of its own under --run_dir. What is finished isn't computed again, what
was interrupted goes on from its last checkpoint, and the report at the end is made from the folders alone.
"""

from __future__ import annotations

import pathlib
import shlex
import sys
from collections.abc import Sequence

from absl import flags

from launch.host import errors, locks
from launch.host.errors import InputError
from launch.host.runtime import use_compilation_cache
from launch.inputs import public
from launch.inputs.flags import own_flags
from launch.reproduce import plan, report
from launch.reproduce.report import Report
from launch.reproduce.sections import SECTIONS
from launch.reproduce.units import Unit, run_units
from launch.runs.folder import make_folder

FLAGS = flags.FLAGS
_QUICK = flags.DEFINE_bool("quick", False, "A small subset, three to four minutes on two cores; the report says so.")
_TABLES = flags.DEFINE_list(
    "tables",
    None,
    f"What to reproduce, all unless said: {', '.join(f'{name} ({SECTIONS[name].about})' for name in plan.tables())}.",
)
_AGENTS = flags.DEFINE_list("agents", list(plan.AGENTS), "The agents to run; what needs others is left out.")
_REPORT_ONLY = flags.DEFINE_bool("report_only", False, "Make the report from what is finished, and run nothing.")

OWN_FLAGS = ("seeds", "threads", "checkpoint_epochs", "run_dir", "flagfile")  # of those that all entry points share


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


def reproduce(
    units: Sequence[Unit],
    out: pathlib.Path,
    *,
    command: str,
    quick: bool = False,
    tables: Sequence[str] | None = None,
    threads: int = 0,
    checkpoint_epochs: int = 10,
    report_only: bool = False,
) -> Report:
    """Runs what isn't finished of some units, and writes the report (of `tables`, or of all). Returns it.

    Raises:
      InputError: if a folder can't be used, or nothing is finished of what to report on.
    """

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    if report_only:
        if not any(unit.run_folder(out).finished for unit in units):
            raise InputError(f"--report_only: expected finished units of this plan, found none in {out}")
    else:
        make_folder(out / "units")
        runnable = [unit for unit in units if unit.case.agent != public.NAME or public.installed()]
        if len(runnable) < len(units):
            say("Stable-Baselines3 isn't installed (requirements-peer.txt): its part is left out")
        units = [unit for unit in units if unit in runnable or unit.run_folder(out).finished]
        run_units(runnable, out, threads=threads, checkpoint_epochs=checkpoint_epochs, say=say)
    asked = plan.tables() if tables is None else tables
    found = report.build(units, out, command=command, quick=quick, tables=asked)
    report.write(found, out)
    return found


def main() -> int:
    """Runs the plan that the flags ask for."""
    _refuse_other_flags()
    tables = _chosen("tables", plan.tables() if _TABLES.value is None else _TABLES.value, plan.tables())
    chosen = _chosen("agents", _AGENTS.value, plan.AGENTS)
    units = plan.units(tables, chosen, FLAGS.seeds if FLAGS["seeds"].present else 0, _QUICK.value)
    out = pathlib.Path(FLAGS.run_dir or "runs/reproduction")
    given = [one for one in sys.argv[1:] if "report_only" not in one]  # what ran the units
    use_compilation_cache()
    try:
        with locks.held(out):
            found = reproduce(
                units,
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
    for line in report.summary_lines(found):
        print(line)
    print(f"report: {out / 'report.html'} (also report.md, report.json)")
    for folder, why in found.run.failed.items():
        print(f"failed: {folder}: {why}", file=sys.stderr)
    return 1 if found.run.failed else 0


if __name__ == "__main__":
    errors.run(main)
