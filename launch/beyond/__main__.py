"""What `factored` shows beyond the paper: `python -m launch.beyond --run_dir=FOLDER`, all rows or `--rows=cells,drift`.

Each row is measured by one function, judged by its bar, and kept as FOLDER/<row>.json with the command and versions
that made it; README.md and the pictures are made from all rows that the folder holds. Rows can so be measured apart.
"""

from __future__ import annotations

import pathlib
import sys
import time
from typing import Any

from absl import flags

from launch.beyond import figures as beyond_figures
from launch.beyond.bars import ROWS, read, told
from launch.beyond.kept import Kept
from launch.host import errors, files, provenance
from launch.host.errors import InputError
from launch.host.files import write_atomically
from launch.host.records import as_data
from launch.host.runtime import use_compilation_cache
from launch.report.steps import steps_by_users
from launch.runs.folder import make_folder

FLAGS = flags.FLAGS

flags.DEFINE_list("rows", list(ROWS), "Rows to measure now; the table has every row that --run_dir holds.")
flags.DEFINE_integer("seeds", 20, "Seeds of each learning row.", lower_bound=1)
flags.DEFINE_string("run_dir", "runs/factored", "Folder for what was measured.")
flags.DEFINE_string("reproduction", "", "report.json of launch.reproduce: the other agents' steps, for the picture.")


def measure(name: str, seeds: int, folder: pathlib.Path) -> dict[str, Any]:
    """Measures one row, or what is left of it."""
    import importlib  # a row's module defines what it needs when it is asked for

    row = ROWS[name]
    function = getattr(importlib.import_module(f"launch.beyond.{row.module}"), row.function)
    began = time.perf_counter(), time.process_time()
    kept = Kept(folder / f"{name}.partial.json", seeds)
    lines = function() if row.module == "searching" else function(seeds, kept)
    kept.discard()
    return {
        "row": name,
        "command": "python -m launch.beyond " + " ".join(sys.argv[1:]),
        "commit": provenance.commit() or "unknown",
        "versions": provenance.versions(),
        "machine": as_data(provenance.machine()),
        "wall_s": round(time.perf_counter() - began[0], 1),
        "cpu_s": round(time.process_time() - began[1], 1),
        "bar_met": row.met(lines),
        "lines": lines,
    }


def table(measured: dict[str, dict[str, Any]]) -> str:
    """The table of all measured rows, and each row's lines, as Markdown."""
    parts = [
        "# What `factored` shows",
        "",
        "Steps are real steps until every later decision keeps the constraint within 1 % of the optimum; 3 % noise "
        "unless said. Each row's file says which command, commit and versions made it.",
        "",
        "| row | what | bar | measured | met |",
        "|---|---|---|---|---|",
    ]
    for name, found in measured.items():
        row = ROWS[name]
        met = "yes" if row.met(found["lines"]) else "**no**"
        parts.append(f"| `{name}` | {row.title} | {row.bar} | {row.result(found['lines'])} | {met} |")
    for name, found in measured.items():
        columns = [key for key in found["lines"][0] if key not in ("steps", "users", "after")]
        parts += [
            "",
            f"## {name}",
            "",
            f"`{found['command']}` at {found['commit']}, {found['cpu_s']:g} s of computing",
            "",
        ]
        parts += ["| " + " | ".join(column.replace("_", " ") for column in columns) + " |", "|---" * len(columns) + "|"]
        parts += ["| " + " | ".join(_cell(line[column]) for column in columns) + " |" for line in found["lines"]]
    return "\n".join([*parts, ""])


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        middle = "never" if value["median"] is None else f"{value['median']:g}"
        return f"{middle} ({value['succeeded']} of {value['seeds']})"
    return "never" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Measures the asked rows and makes the table and the pictures."""
    for name in FLAGS.rows:
        if name not in ROWS:
            raise InputError(f"--rows: expected some of {', '.join(ROWS)}, found {name!r}")
    folder = pathlib.Path(FLAGS.run_dir)
    make_folder(folder)
    use_compilation_cache()
    for name in FLAGS.rows:
        print(f"{name} …", file=sys.stderr, flush=True)
        found = measure(name, FLAGS.seeds, folder)
        files.write_json(folder / f"{name}.json", found)
        print(f"{name}: {ROWS[name].result(found['lines'])} ({found['wall_s']:.0f} s)", file=sys.stderr, flush=True)
    measured = read(folder)
    files.write_json(folder / "report.json", told(measured))
    write_atomically(folder / "README.md", table(measured).encode())
    others = beyond_figures.read_reproduction(FLAGS.reproduction) if FLAGS.reproduction else {}
    if "users" in measured:
        write_atomically(folder / "users.png", steps_by_users(measured["users"]["lines"], others))
    if "time" in measured:
        write_atomically(folder / "time.png", beyond_figures.decision_times(measured["time"]["lines"]))
    print(f"results: {folder}/README.md")


if __name__ == "__main__":
    errors.run(main)
