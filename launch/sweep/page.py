"""A sweep's report as a page: verdicts first, then settings, distributions, curves, and what was run; and its files."""

from __future__ import annotations

import html
import pathlib
from collections.abc import Sequence

from launch.host.files import write_atomically
from launch.host.text import counted
from launch.report import made
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
from launch.report.markdown import escaped
from launch.sweep.collect import EVERYTHING
from launch.sweep.figures import MOST_LINES, draw, numbered
from launch.sweep.report import Comparison, Ends, Report, tables

MOST_ROWS = 400  # of a table on the page; the CSV files have all
FEW_SEEDS = 5


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}" if value < 0.01 else f"{value:.2f}"


def _steps(value: float | None, relative: bool) -> str:
    return count(value) if value is None or not relative else f"{value:.2f}"


def verdict_cell(row: Comparison, level: float) -> Cell:
    """What may be said of a comparison."""
    if row.decided:
        return Cell(f"✓ {row.verdict}", GOOD)
    if row.tested is not None and row.tested.least_adjusted > level:
        return Cell(f"{row.verdict}: too few seeds to tell")
    return Cell(row.verdict)


def _comparison_table(rows: Sequence[Comparison], level: float) -> Table:
    cells: list[tuple[Cell, ...]] = []
    for row in rows[:MOST_ROWS]:
        start = (Cell(row.first), Cell(row.second), verdict_cell(row, level))
        if row.tested is None:
            cells.append((*start, DASH, DASH, DASH, DASH, DASH))
            continue
        low, high = row.tested.interval
        numbers = [f"{row.tested.improvement:.2f}", f"{low:.2f} to {high:.2f}", _p(row.tested.adjusted)]
        numbers += [str(row.tasks), " / ".join(map(str, row.seeds))]
        cells.append((*start, *map(Cell, numbers)))
    columns = ("first", "second", "verdict", "P(second better)", "95 %", "p (corrected)", "strata", "runs")
    return Table(columns, tuple(cells), (), 2)


def _corrected(report: Report) -> str:
    """Which comparisons Holm's correction counts."""
    every = len(report.tested)
    decidable = sum(row.tested.decidable for row in report.tested if row.tested is not None)
    if not decidable:
        return "So few seeds can decide none of the comparisons on this page."
    counted = "all comparisons on this page"
    if decidable < every:
        counted = f"the {decidable} of {every} comparisons on this page that this many seeds can decide"
    return (
        f"Its p-values carry Holm's correction for {counted}, so that the chance of any false difference is at most "
        f"{report.level:.1%}."
    )


def _differences(report: Report) -> list[Block]:
    rows, level = report.comparisons, report.level
    if not rows:
        why = report.search.no_comparison or "There is one setting only: nothing to compare."
        return [Heading("Which settings differ"), Paragraph(why)]
    text = (
        "*P(second better)* is the probability that a run of the second needs fewer real steps to the optimum than one "
        "of the first (0.5: neither; a run that never got there is later than all that did). Undecided means that "
        "the seeds don't support a difference; it doesn't mean that there is none. The test is Mann and Whitney's, "
        f"exact, with tasks (and whatever else was varied) as strata. {_corrected(report)} The intervals are each for "
        "itself."
    )
    found: list[Block] = [Heading("Which settings differ"), Paragraph(text)]
    for axis in dict.fromkeys(row.axis for row in rows if row.kind == "axis"):
        part = [row for row in rows if row.axis == axis]
        if len(report.compared) > 1:
            found.append(Paragraph(f"*{axis}*, all else equal:"))
        found.append(_comparison_table(part, level))
    part = [row for row in rows if row.kind == "setting"]
    if part:
        found += [Paragraph("The first setting with each of the others:"), _comparison_table(part, level)]
    return found


def _settings(report: Report) -> list[Block]:
    rows = report.settings
    if not rows:
        return []
    relative = rows[0].relative
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
            Cell(row.setting),
            Cell(_steps(row.iqm, relative)),
            Cell(_interval(row.iqm_interval, relative)),
            Cell(f"{row.succeeded} of {row.seeds}"),
            Cell(str(row.tasks)),
        )
        for place, row in enumerate(rows[:MOST_ROWS], 1)
    )
    unit = "IQM (of the task's median)" if relative else "IQM (steps)"
    table = Table(
        (*(("no.",) if by_number else ()), "setting", unit, "95 %", "got there", "tasks"), cells, (), 1 + by_number
    )
    return [Heading("Settings"), Paragraph(text), Figures(("settings",)), table]


def _interval(bounds: Ends, relative: bool) -> str:
    if not relative or bounds[0] is None:
        return interval(bounds)
    return f"{bounds[0]:.2f} to {_steps(bounds[1], relative)}"


def _cells(report: Report) -> list[Block]:
    rows = []
    for row in report.cells[:MOST_ROWS]:
        budget, steps = f"{row.least_budget:,}", row.steps
        if row.most_budget != row.least_budget:
            budget += f" to {row.most_budget:,}"
        numbers = [f"{steps.succeeded} of {steps.seeds}", count(steps.median), interval(steps.median_interval)]
        numbers += [count(steps.iqm), interval(steps.iqm_interval), budget]
        numbers += [f"{row.art_over_optimum:.3f}", f"{row.feasible} of {steps.seeds}"]
        rows.append((Cell(row.task), Cell(row.setting), *map(Cell, numbers)))
    columns = (
        *("task", "setting", "got there", "median", "95 %", "IQM", "95 %", "steps taken"),
        *("final ART / optimum", "keeps constraint"),
    )
    more = len(report.cells) - MOST_ROWS
    text = "Real steps to optimal of each setting in each task." + (
        f" {more} more are in settings.csv." if more > 0 else ""
    )
    return [Heading("Every setting in every task"), Paragraph(text), Table(columns, tuple(rows), (), 2)]


def _panels(report: Report) -> list[Block]:
    found: list[Block] = []
    for panel in report.panels:
        names = (f"reached-{panel.axis}", f"curves-{panel.axis}")
        if 1 < len(panel.lines) <= MOST_LINES:
            found += [Heading(f"Steps to optimal and curves: {panel.axis}"), Figures(names)]
    return found


def _search(report: Report) -> list[Block]:
    if not report.search.trials:
        return []
    rows = tuple(
        (Cell(str(trial.number)), Cell(trial.setting), Cell(count(trial.value)), Cell(trial.got_there))
        for trial in report.search.trials
    )
    return [
        Heading("Trials"),
        Paragraph(report.search.about),
        Table(("trial", "setting", "expected running time (steps)", "got there"), rows[:MOST_ROWS], (), 2),
    ]


def _run(report: Report) -> list[Block]:
    return [
        Heading("What was run"),
        Bullets(tuple(report.run.facts())),
        Paragraph("What was varied; all else is in each run's config.json."),
        Table(("flag", "values"), tuple((Cell(axis.name), Cell(axis.values)) for axis in report.axes)),
    ]


def warnings(report: Report) -> list[str]:
    """What a reader must know before any number."""
    found = report.run.warnings()
    fewest = min((cell.steps.seeds for cell in report.cells), default=0)
    if fewest < FEW_SEEDS:
        found.append(
            f"Some settings have {counted(fewest, 'seed')} only; with fewer than {FEW_SEEDS} hardly anything can be "
            "told."
        )
    for task in sorted({cell.task for cell in report.cells}):
        cells = [cell for cell in report.cells if cell.task == task]
        budgets = [cell.most_budget for cell in cells]
        never = any(cell.steps.succeeded < cell.steps.seeds for cell in cells)
        where = f" in task {task}" if task != EVERYTHING else ""
        if never and max(budgets) > 1.2 * min(budgets):
            found.append(
                f"Runs took from {min(budgets):,} to {max(budgets):,} real steps{where}, and some never got there: a "
                "longer run might have. Settings of fewer steps are at a disadvantage there."
            )
            break
    return found


def _tiles(report: Report) -> list[Tile]:
    tested = report.tested
    # Several grids may share a setting: its runs are listed under each name, and counted once.
    runs = {(run.point, run.summary.seed): run.summary.steps_to_optimal is not None for run in report.runs}
    tiles = [
        Tile(
            f"{sum(row.decided for row in tested)} of {len(tested)}",
            "comparisons show a difference that the seeds support",
        ),
        Tile(str(len(report.settings)), f"settings in {counted(len(report.tasks), 'task')}"),
        Tile(f"{sum(runs.values())} of {len(runs)}", "runs got to the optimum for good"),
    ]
    known = [(row.iqm, row) for row in report.settings if row.iqm is not None]
    if known:
        iqm, best = min(known, key=lambda one: one[0])
        unit = "of its task's median steps" if best.relative else "steps"
        tiles.append(Tile(_steps(iqm, best.relative), f"{unit} (IQM): {best.setting}, the least"))
    return tiles


def compose(report: Report) -> Page:
    """The report as a page."""
    compared = ", ".join(report.compared)
    parts = (_differences, _settings, _panels, _search, _cells, _run)
    lead = f"Which settings of {compared} learn in fewer real steps, and which differences are real."
    if report.trained:
        lead += f" Trained: {'; '.join(report.trained)}."
    return Page(
        title=f"Sweep over {compared}",
        lead_html=html.escape(lead, quote=False),
        lead_markdown=escaped(lead),
        warnings=tuple(warnings(report)),
        tiles=tuple(_tiles(report)),
        blocks=tuple(block for part in parts for block in part(report)),
    )


def write(report: Report, folder: pathlib.Path) -> None:
    """report.json, .html, .md, the pictures, and settings.csv, comparisons.csv and runs.csv.

    Raises:
      InputError: if they can't be written.
    """
    made.write(folder, report.as_json(), compose(report), draw(report))
    for name, content in tables(report).items():
        write_atomically(folder / name, content)


def summary_lines(report: Report) -> list[str]:
    """The report in a few lines, for a terminal."""
    lines = [f"note: {warning}" for warning in warnings(report)]
    for row in report.tested:
        if row.kind == "axis" and row.tested is not None:
            chance = f"P(second better) {row.tested.improvement:.2f}, p {row.tested.adjusted:.3g}"
            lines.append(f"{row.first} / {row.second}: {row.verdict} ({chance})")
    return lines
