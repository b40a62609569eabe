"""A sweep's report: report.json from the run folders, then a page, Markdown, pictures and CSV files from it."""

from __future__ import annotations

import csv
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from launch.host import files, provenance
from launch.host.files import write_atomically
from launch.report import html as report_html
from launch.report import markdown as report_markdown
from launch.runs.folder import RunFolder
from launch.sweep import collect as sweep_collect
from launch.sweep import figures as sweep_figures
from launch.sweep import page as sweep_document
from launch.sweep.axes import Axis
from launch.sweep.plan import Point, all_units

GRID = {"kind": "grid", "no_comparison": "", "trials": [], "about": ""}


def _axis(axis: Axis) -> dict[str, str]:
    if axis.is_interval:
        return {"name": axis.name, "values": f"{axis.low:g} to {axis.high:g}{' (log)' if axis.log else ''}"}
    return {"name": axis.name, "values": ", ".join(axis.values)}


def build(
    plan: Sequence[Point],
    out: pathlib.Path,
    *,
    command: str,
    axes: Sequence[Axis],
    failed: Mapping[str, str],
    search: Mapping[str, Any] = GRID,
) -> dict[str, Any]:
    """report.json's content.

    Args:
      plan: the sweep's points.
      out: the sweep's folder.
      command: what runs it.
      axes: what was varied.
      failed: why, of each unit that couldn't be done.
      search: how the points were chosen.
    """
    log, work = provenance.read_log(out), all_units(plan)
    made = [log["units"].get(unit.folder, {}) for unit in work]
    return {
        "about": "hl_jax: a sweep",
        **sweep_collect.build(plan, out / "units", compare=search["kind"] == "grid"),
        "axes": [_axis(axis) for axis in axes],
        "search": dict(search),
        "run": {
            "command": command,
            "commits": sorted({one["commit"] for one in made if one.get("commit")}),
            "versions": provenance.versions(),
            "machine": provenance.machine(),
            "units": len(work),
            "finished": sum(RunFolder(out / "units" / unit.folder).finished for unit in work),
            "failed": dict(failed),
            "wall_s": sum(one.get("wall_s", 0.0) for one in made),
            "peak_memory_gib": log["peak_memory_gib"],
        },
    }


def table(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as CSV; both ends of an interval become columns of their own."""
    flat = []
    for row in rows:
        one: dict[str, Any] = {}
        for name, value in row.items():
            if isinstance(value, list):
                one |= {f"{name}_{side}": item for side, item in zip(("low", "high"), value, strict=True)}
            else:
                one[name] = value
        flat.append(one)
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in flat for name in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue().encode()


def write(report: dict[str, Any], folder: pathlib.Path) -> None:
    """report.json, .html, .md, the pictures, and settings.csv, comparisons.csv and runs.csv.

    Raises:
      InputError: if they can't be written.
    """
    pictures, page = sweep_figures.draw(report), sweep_document.page(report)
    files.write_json(folder / "report.json", report)
    for old in folder.glob("*.png"):
        if old.stem not in pictures:
            old.unlink()
    for name, picture in pictures.items():
        write_atomically(folder / f"{name}.png", picture.light)
    comparisons = [
        {**row, "seeds": row["seeds"] if isinstance(row["seeds"], int) else sum(row["seeds"])}
        for row in report["comparisons"]
    ]
    for name, rows in (("settings", report["cells"]), ("comparisons", comparisons), ("runs", report["runs"])):
        write_atomically(folder / f"{name}.csv", table(rows))
    write_atomically(folder / "report.md", report_markdown.render(page, pictures).encode())
    write_atomically(folder / "report.html", report_html.render(page, pictures).encode())


def summary_lines(report: dict[str, Any]) -> list[str]:
    """The report in a few lines, for a terminal."""
    lines = [f"note: {warning}" for warning in sweep_document.warnings(report)]
    for row in report["comparisons"]:
        if row["kind"] == "axis" and "improvement" in row:
            chance = f"P(second better) {row['improvement']:.2f}, p {row['adjusted']:.3g}"
            lines.append(f"{row['first']} / {row['second']}: {row['verdict']} ({chance})")
    return lines
