"""A sweep's report as a page: verdicts first, then settings, distributions, curves, and what was run."""

from __future__ import annotations

from typing import Any

from launch.report.blocks import (
    DASH,
    GOOD,
    Block,
    Bullets,
    Cell,
    Figures,
    Heading,
    Page,
    Paragraph,
    Table,
    Tile,
    count,
    interval,
)
from launch.sweep.collect import SAME
from launch.sweep.figures import numbered

MOST_ROWS = 400  # of a table on the page; the CSV files have all
FEW_SEEDS = 5


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}" if value < 0.01 else f"{value:.2f}"


def _steps(value: float | None, relative: bool) -> str:
    return count(value) if value is None or not relative else f"{value:.2f}"


def verdict_cell(row: dict[str, Any], level: float) -> Cell:
    """What may be said of a comparison."""
    text = row["verdict"]
    if text in ("not run", SAME):
        return Cell(text)
    if text != "undecided":
        return Cell(f"✓ {text}", GOOD)
    if row["least_adjusted"] > level:
        return Cell("undecided: too few seeds to tell")
    return Cell("undecided")


def _comparison_table(rows: list[dict[str, Any]], level: float) -> Table:
    cells: list[tuple[Cell, ...]] = []
    for row in rows[:MOST_ROWS]:
        start = (Cell(row["first"]), Cell(row["second"]), verdict_cell(row, level))
        if "improvement" not in row:
            cells.append((*start, DASH, DASH, DASH, DASH, DASH))
            continue
        low, high = row["interval"]
        numbers = [f"{row['improvement']:.2f}", f"{low:.2f} to {high:.2f}", _p(row["adjusted"])]
        numbers += [str(row["tasks"]), " / ".join(map(str, row["seeds"]))]
        cells.append((*start, *map(Cell, numbers)))
    columns = ("first", "second", "verdict", "P(second better)", "95 %", "p (corrected)", "strata", "runs")
    return Table(columns, tuple(cells), (), 2)


def _differences(report: dict[str, Any]) -> list[Block]:
    rows, level = report["comparisons"], report["level"]
    if not rows:
        why = report["search"]["no_comparison"] or "There is one setting only: nothing to compare."
        return [Heading("Which settings differ"), Paragraph(why)]
    tested = sum("improvement" in row for row in rows)
    text = (
        "*P(second better)* is the probability that a run of the second needs fewer real steps to the optimum than one "
        "of the first (0.5: neither; a run that never got there is later than all that did). Undecided means that "
        "the seeds don't support a difference; it doesn't mean that there is none. The test is Mann and Whitney's, "
        "exact, with tasks (and whatever else was varied) as strata; its p-values carry Holm's correction for all "
        f"{tested} comparisons on this page, so that the chance of any false difference is at most {level:.1%}. "
        "The intervals are each for itself."
    )
    found: list[Block] = [Heading("Which settings differ"), Paragraph(text)]
    for axis in dict.fromkeys(row["axis"] for row in rows if row["kind"] == "axis"):
        part = [row for row in rows if row["axis"] == axis]
        if len(report["compared"]) > 1:
            found.append(Paragraph(f"*{axis}*, all else equal:"))
        found.append(_comparison_table(part, level))
    part = [row for row in rows if row["kind"] == "setting"]
    if part:
        found += [Paragraph("The first setting with each of the others:"), _comparison_table(part, level)]
    return found


def _settings(report: dict[str, Any]) -> list[Block]:
    rows = report["settings"]
    if not rows:
        return []
    relative = rows[0]["relative"]
    text = (
        "Real steps until the greedy decision meets the constraint within 1 % of the optimum's response time and stays "
        "so: interquartile mean over seeds with its 95 % bootstrap interval. A run that never got there is ranked last."
    )
    if relative:
        text += (
            " Over several tasks, each run's steps are divided by its task's median over all settings, and tasks are "
            "the bootstrap's strata."
        )
    by_number = numbered(rows)
    cells = tuple(
        (
            *((Cell(str(place)),) if by_number else ()),
            Cell(row["setting"]),
            Cell(_steps(row["iqm"], relative)),
            Cell(_interval(row["iqm_interval"], relative)),
            Cell(f"{row['succeeded']} of {row['seeds']}"),
            Cell(str(row["tasks"])),
        )
        for place, row in enumerate(rows[:MOST_ROWS], 1)
    )
    unit = "IQM (of the task's median)" if relative else "IQM (steps)"
    table = Table(
        (*(("no.",) if by_number else ()), "setting", unit, "95 %", "got there", "tasks"), cells, (), 1 + by_number
    )
    return [Heading("Settings"), Paragraph(text), Figures(("settings",)), table]


def _interval(bounds: list[float | None], relative: bool) -> str:
    if not relative or bounds[0] is None:
        return interval(bounds)
    return f"{bounds[0]:.2f} to {_steps(bounds[1], relative)}"


def _cells(report: dict[str, Any]) -> list[Block]:
    rows = []
    for row in report["cells"][:MOST_ROWS]:
        budget = f"{row['least_budget']:,}"
        if row["most_budget"] != row["least_budget"]:
            budget += f" to {row['most_budget']:,}"
        numbers = [f"{row['succeeded']} of {row['seeds']}", count(row["median"]), interval(row["median_interval"])]
        numbers += [count(row["iqm"]), interval(row["iqm_interval"]), budget]
        numbers += [f"{row['art_over_optimum']:.3f}", f"{row['feasible']} of {row['seeds']}"]
        rows.append((Cell(row["task"]), Cell(row["setting"]), *map(Cell, numbers)))
    columns = (
        *("task", "setting", "got there", "median", "95 %", "IQM", "95 %", "steps taken"),
        *("final ART / optimum", "keeps constraint"),
    )
    more = len(report["cells"]) - MOST_ROWS
    text = "Real steps to optimal of each setting in each task." + (
        f" {more} more are in settings.csv." if more > 0 else ""
    )
    return [Heading("Every setting in every task"), Paragraph(text), Table(columns, tuple(rows), (), 2)]


def _panels(report: dict[str, Any]) -> list[Block]:
    found: list[Block] = []
    for panel in report["panels"]:
        names = (f"reached-{panel['axis']}", f"curves-{panel['axis']}")
        if 1 < len(panel["lines"]) <= 8:
            found += [Heading(f"Steps to optimal and curves: {panel['axis']}"), Figures(names)]
    return found


def _search(report: dict[str, Any]) -> list[Block]:
    search = report["search"]
    if search["kind"] == "grid":
        return []
    rows = tuple(
        (Cell(str(trial["number"])), Cell(trial["setting"]), Cell(count(trial["value"])), Cell(trial["got_there"]))
        for trial in search["trials"]
    )
    return [
        Heading("Trials"),
        Paragraph(search["about"]),
        Table(("trial", "setting", "expected running time (steps)", "got there"), rows[:MOST_ROWS], (), 2),
    ]


def _run(report: dict[str, Any]) -> list[Block]:
    run, machine = report["run"], report["run"]["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    facts = [
        f"Command: `{run['command']}`",
        f"Commit: {', '.join(run['commits']) or 'unknown'} (+: with changes that aren't committed)",
        f"Machine: {machine['cores']} cores of {machine['processor']}, {machine['system']}, Python {machine['python']}",
        f"Versions: {versions}",
        f"Units of work: {run['finished']} of {run['units']} finished, {run['wall_s'] / 60.0:.1f} minutes of workers, "
        f"peak memory at most {run['peak_memory_gib']:.1f} GiB",
    ]
    facts += [f"Not done: `{folder}`: {why}" for folder, why in list(run["failed"].items())[:20]]
    axes = tuple((Cell(axis["name"]), Cell(axis["values"])) for axis in report["axes"])
    return [
        Heading("What was run"),
        Bullets(tuple(facts)),
        Paragraph("What was varied; all else is in each run's config.json."),
        Table(("flag", "values"), axes),
    ]


def warnings(report: dict[str, Any]) -> list[str]:
    """What a reader must know before any number."""
    found, run = [], report["run"]
    if run["finished"] < run["units"]:
        missing = run["units"] - run["finished"]
        found.append(f"This is a partial report: {missing} of {run['units']} units of work aren't finished.")
    fewest = min((row["seeds"] for row in report["cells"]), default=0)
    if fewest < FEW_SEEDS:
        found.append(
            f"Some settings have {fewest} seed(s) only; with fewer than {FEW_SEEDS} hardly anything can be told."
        )
    tasks = {row["task"] for row in report["cells"]}
    for task in sorted(tasks):
        rows = [row for row in report["cells"] if row["task"] == task]
        budgets = [row["most_budget"] for row in rows]
        never = any(row["succeeded"] < row["seeds"] for row in rows)
        if never and max(budgets) > 1.2 * min(budgets):
            found.append(
                f"Runs took from {min(budgets):,} to {max(budgets):,} real steps in task {task}, and some never got "
                "there: a longer run might have. Settings of fewer steps are at a disadvantage there."
            )
            break
    return found


def page(report: dict[str, Any]) -> Page:
    """The report as a page."""
    rows = [row for row in report["comparisons"] if "improvement" in row]
    decided = sum(row["verdict"] != "undecided" for row in rows)
    # Several grids may share a setting: its runs are listed under each name, and counted once.
    runs = {(run["point"], run["seed"]): run["steps_to_optimal"] is not None for run in report["runs"]}
    tiles = [
        Tile(f"{decided} of {len(rows)}", "comparisons show a difference that the seeds support"),
        Tile(str(len(report["settings"])), f"settings in {len(report['tasks'])} task(s)"),
        Tile(f"{sum(runs.values())} of {len(runs)}", "runs got to the optimum for good"),
    ]
    known = [row for row in report["settings"] if row["iqm"] is not None]
    if known:
        best = min(known, key=lambda row: row["iqm"])
        unit = "of its task's median steps" if best["relative"] else "steps"
        tiles.append(Tile(_steps(best["iqm"], best["relative"]), f"{unit} (IQM): {best['setting']}, the least"))
    parts = (_differences, _settings, _panels, _search, _cells, _run)
    lead = (
        f"Which settings of {', '.join(report['compared'])} learn in fewer real steps, and which differences are real."
    )
    return Page(
        title=f"Sweep over {', '.join(report['compared'])}",
        lead_html=lead.replace("<", "&lt;"),
        lead_markdown=lead,
        warnings=tuple(warnings(report)),
        tiles=tuple(tiles),
        blocks=tuple(block for part in parts for block in part(report)),
    )
