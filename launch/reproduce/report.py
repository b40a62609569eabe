"""The report of a reproduction: report.json from the run folders, then report.md, report.html and pictures from it."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from hl_jax.agents import registry
from launch.host import files, provenance
from launch.host.files import write_atomically
from launch.report import html as report_html
from launch.report import markdown as report_markdown
from launch.reproduce import collect as report_collect
from launch.reproduce import document as report_document
from launch.reproduce import figures as report_figures
from launch.reproduce import plan as report_plan
from launch.reproduce.plan import Unit, constraint_text
from launch.runs.folder import failures


def shortfalls(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Where our numbers fall short of the paper's or of the optimum, from the numbers alone."""
    found: list[dict[str, Any]] = []

    def add(kind: str, text: str) -> None:
        found.append({"kind": kind, "text": text})

    for row in report["table5"]["rows"]:
        place, ours = f"Table V, {row['experiment']}/{constraint_text(row['constraint'])}", row["ours"]
        if not ours:
            continue
        if ours["differing"]:
            which = f"seed {', '.join(map(str, ours['differing']))}"
            add("decision", f"{place}: {len(ours['differing'])} of {ours['seeds']} seeds decide worse ({which}).")
        error = 100.0 * (ours["art_ratio"] - 1.0)
        if abs(ours["art_ratio"] - 1.0) > report_collect.ART_TOLERANCE:
            printed = row["paper"]["art_ms"]
            doubt = " (a row that contradicts itself)" if row["contradiction"] else ""
            add("art", f"{place}: ART is {ours['art_ms']:.2f} ms, {error:+.1f} % off the printed {printed:.2f}{doubt}.")
    for row in report["table6"]["rows"]:
        place = f"Table VI, {row['users']} users, {constraint_text(row['constraint'])}"
        for agent, cell in row["agents"].items():
            if cell["never"]:
                which = f"seed {', '.join(map(str, cell['never']))}"
                never = f"{len(cell['never'])} of {cell['seeds']} seeds"
                add(
                    "never",
                    f"{place}: {never} of {agent} never got there in {cell['budget_steps']:,} steps ({which}).",
                )
        hybrid = row["agents"].get("hybrid")
        if hybrid and hybrid["ratio"] is not None and hybrid["ratio"] > 1.0:
            steps = f"a median of {hybrid['median']:,.0f} steps"
            add("steps", f"{place}: hybrid needs {steps}, over the paper's {hybrid['paper']:,}.")
        for agent, name in (("dqn", "AdaDeep"), ("q_learning", "AutoScale")):
            base, gain = row["agents"].get(agent), row["over_hybrid"][agent]
            if base and base["ratio"] is not None and base["ratio"] > 1.0:
                worse = f"{base['median']:,.0f} steps, more than {name}'s {base['paper']:,} in the paper"
                add("baseline", f"{place}: our {agent} needs {worse}, which flatters hybrid.")
            if gain and gain["ours"] is not None and gain["ours"] < gain["paper"]:
                ratio = f"{agent} needs {gain['ours']:.1f} times hybrid's steps"
                add("speed-up", f"{place}: {ratio}; in the paper {name} needs {gain['paper']:.1f} times.")
    for folder, why in report["run"]["failed"].items():
        add("failed", f"{folder} failed and counts nowhere: {why}.")
    for row in report["beyond"]["rows"]:
        if not row["met"]:
            add("beyond", f"factored, {row['title']}: {row['result']} (bar: {row['bar']}).")
    return found


def build(
    plan: Sequence[Unit], folder: pathlib.Path, *, command: str, quick: bool, tables: Sequence[str]
) -> dict[str, Any]:
    """report.json's content."""
    results = report_collect.read_results(plan, folder / "units")
    log = provenance.read_log(folder)
    made = [log["units"].get(unit.folder, {}) for unit in plan]
    cells = {table: {unit for unit in plan if table in unit.tables} for table in report_plan.TABLES}
    report: dict[str, Any] = {
        "about": "hl_jax: the paper's tables, ours beside the printed",
        "quick": quick,
        "tables": list(tables),
        "units": [
            {
                "experiment": unit.experiment,
                "users": unit.users,
                "constraint": unit.constraint,
                "agent": unit.agent,
                "seeds": len(unit.settings.seeds),
                "tables": list(unit.tables),
                "folder": f"units/{unit.folder}",
                "finished": (unit.experiment, unit.users, unit.constraint, unit.agent) in results,
            }
            for unit in plan
        ],
        "run": {
            "command": command,
            "commits": sorted({one["commit"] for one in made if one.get("commit")}),
            "versions": provenance.versions(),
            "machine": provenance.machine(),
            "failed": failures({unit.folder: folder / "units" / unit.folder for unit in plan}),
            "wall_s": sum(one.get("wall_s", 0.0) for one in made),
            "peak_memory_gib": log["peak_memory_gib"],
        },
        "given": _given(plan, results),
        "defaults": {name: dataclasses.asdict(kind.config()) for name, kind in registry.AGENTS.items()},
        "table5": report_collect.table5(results, {(unit.experiment, unit.constraint) for unit in cells["5"]}),
        "table6": report_collect.table6(results, {(unit.users, unit.constraint) for unit in cells["6"]}),
        "table7": report_collect.table7(results, {(unit.users, unit.constraint) for unit in cells["7"]}),
        "figure3": report_collect.figure3(results, plan, folder / "units"),
        "peer": report_collect.peers(results, plan),
        "beyond": report_collect.beyond(),
        "contradictions": [
            {"row": f"{row['experiment']}/{row['constraint']}", "text": row["contradiction"]}
            for row in report_collect.paper_table(5)["rows"]
            if "contradiction" in row
        ],
    }
    report["shortfalls"] = shortfalls(report)
    return report


def _given(plan: Sequence[Unit], results: report_collect.Results) -> list[dict[str, Any]]:
    """What each agent was given at each number of users."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for unit in plan:
        summary = results.get((unit.experiment, unit.users, unit.constraint, unit.agent))
        entry = found.setdefault(
            (unit.agent, unit.users),
            {
                "agent": unit.agent,
                "users": unit.users,
                "seeds": len(unit.settings.seeds),
                "changes": unit.budget.changes,
                "why": unit.budget.why,
                "evaluations": unit.settings.config.epochs,
                "most_steps": 0,
            },
        )
        if summary:
            entry["most_steps"] = max(entry["most_steps"], *(seed.real_steps for seed in summary.whole))
    return list(found.values())


def write(report: dict[str, Any], folder: pathlib.Path) -> None:
    """report.json, report.md, report.html and the pictures that the Markdown shows.

    Raises:
      InputError: if they can't be written.
    """
    pictures, page = report_figures.draw(report), report_document.page(report)
    files.write_json(folder / "report.json", report)
    for name, picture in pictures.items():
        write_atomically(folder / f"{name}.png", picture.light)
    write_atomically(folder / "report.md", report_markdown.render(page, pictures).encode())
    write_atomically(folder / "report.html", report_html.render(page, pictures).encode())


def summary_lines(report: dict[str, Any]) -> list[str]:
    """The report in a few lines, for a terminal."""
    lines = [f"note: {warning}" for warning in report_document.warnings(report)]
    lines += [f"{tile.value:>10}  {tile.label}" for tile in report_document.tiles(report)]
    return [*lines, f"{len(report['shortfalls']):>10}  places where we fall short, listed in the report"]
