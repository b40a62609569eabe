"""What goes beyond the paper: `python -m launch.beyond --run_dir=FOLDER`, all rows or `--rows=cells,drift`.

Each row is measured by one function, judged by its bar, and kept as FOLDER/<row>.json with the command and versions
that made it; README.md and the pictures are made from all rows that the folder holds. Rows can so be measured apart.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
import time

from absl import flags

from hl_jax.statistics import Spread
from launch.beyond import figures
from launch.beyond.bars import ROWS, Measured, read, told
from launch.beyond.kept import Kept
from launch.beyond.lines import Line, TimeLine, UsersLine
from launch.host import errors, files, locks, provenance
from launch.host.errors import InputError
from launch.host.files import write_atomically
from launch.host.records import as_data
from launch.host.runtime import use_compilation_cache
from launch.report.steps import steps_by_users

FLAGS = flags.FLAGS

flags.DEFINE_list("rows", list(ROWS), "Rows to measure now; the table has every row that --run_dir holds.")
flags.DEFINE_integer("seeds", 20, "Seeds of each learning row.", lower_bound=1)
flags.DEFINE_string("run_dir", "runs/factored", "Folder for what was measured.")
flags.DEFINE_string("reproduction", "", "report.json of launch.reproduce: the other agents' steps, for the picture.")


def measure(name: str, seeds: int, folder: pathlib.Path) -> Measured[Line]:
    """Measures one row, or what is left of it."""
    row = ROWS[name]
    began = time.perf_counter(), time.process_time()
    kept = Kept(folder / f"{name}.partial.json", seeds)
    lines = row.measure(seeds, kept)
    kept.discard()
    return Measured(
        row=name,
        command="python -m launch.beyond " + " ".join(sys.argv[1:]),
        commit=provenance.commit() or "unknown",
        versions=provenance.versions(),
        machine=provenance.machine(),
        wall_s=round(time.perf_counter() - began[0], 1),
        cpu_s=round(time.process_time() - began[1], 1),
        lines=lines,
    )


def table(measured: dict[str, Measured[Line]]) -> str:
    """The table of all measured rows, and each row's lines, as Markdown."""
    parts = [
        "# Beyond the paper",
        "",
        "Of `factored`, if no other is named. Steps are real steps until every later decision keeps the constraint "
        "within 1 % of the optimum; 3 % noise unless said. Each row's file says which command, commit and versions "
        "made it.",
        "",
        "| row | what | bar | measured | met |",
        "|---|---|---|---|---|",
    ]
    for name, found in measured.items():
        row = ROWS[name]
        met = "yes" if row.met(found.lines) else "**no**"
        parts.append(f"| `{name}` | {row.title} | {row.bar} | {row.result(found.lines)} | {met} |")
    for name, found in measured.items():
        fields = [field.name for field in dataclasses.fields(ROWS[name].kind)]
        columns = [column for column in fields if column not in ("steps", "users", "after", "marks", "agent")]
        others = "; ".join(f"{', '.join(one.parts)} on another machine ({one.machine})" for one in found.elsewhere)
        parts += [
            "",
            f"## {name}",
            "",
            f"`{found.command}` at {found.commit}, {found.cpu_s:g} s of computing" + (f"; {others}" if others else ""),
            "",
        ]
        parts += ["| " + " | ".join(column.replace("_", " ") for column in columns) + " |", "|---" * len(columns) + "|"]
        shown = [[_cell(getattr(line, column)) for column in columns] for line in found.lines]
        parts += ["| " + " | ".join(cells) + " |" for cells in shown]
    return "\n".join([*parts, ""])


def _cell(value: object) -> str:
    if isinstance(value, Spread):
        middle = "never" if value.median is None else f"{value.median:g}"
        return f"{middle} ({value.succeeded} of {value.seeds})"
    return "never" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Measures the asked rows and makes the table and the pictures."""
    for name in FLAGS.rows:
        if name not in ROWS:
            raise InputError(f"--rows: expected some of {', '.join(ROWS)}, found {name!r}")
    folder = pathlib.Path(FLAGS.run_dir)
    use_compilation_cache()
    with locks.held(folder):
        _measure(folder)


def _measure(folder: pathlib.Path) -> None:
    for name in FLAGS.rows:
        print(f"{name} …", file=sys.stderr, flush=True)
        found = measure(name, FLAGS.seeds, folder)
        files.write_json(folder / f"{name}.json", as_data(found))
        print(f"{name}: {ROWS[name].result(found.lines)} ({found.wall_s:.0f} s)", file=sys.stderr, flush=True)
    measured = read(folder)
    files.write_json(folder / "report.json", told(measured))
    write_atomically(folder / "README.md", table(measured).encode())
    others = figures.read_reproduction(FLAGS.reproduction) if FLAGS.reproduction else {}
    if "users" in measured:
        lines = [line for line in measured["users"].lines if isinstance(line, UsersLine)]
        write_atomically(folder / "users.png", steps_by_users([(line.users, line.steps) for line in lines], others))
    if "time" in measured:
        times = [line for line in measured["time"].lines if isinstance(line, TimeLine)]
        write_atomically(folder / "time.png", figures.decision_times(times))
    print(f"results: {folder}/README.md")


if __name__ == "__main__":
    errors.run(main)
