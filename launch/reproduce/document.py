"""The report as a sequence of blocks (headings, paragraphs, tables, pictures), which Markdown and HTML both show."""

from __future__ import annotations

from typing import Any

from launch.report.blocks import (
    BAD,
    DASH,
    GOOD,
    PAPER,
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
    minutes,
    times,
    verdict,
)
from launch.reproduce.collect import TIES
from launch.reproduce.plan import AGENTS, COMPARED, constraint_text

NAMES = {"hybrid": "Ours", "dqn": "AdaDeep", "q_learning": "AutoScale"}  # as the paper's tables call them
BASELINES = ("dqn", "q_learning")


def tiles(report: dict[str, Any]) -> list[Tile]:
    """The numbers to see first."""
    found = []
    five, six = report["table5"], report["table6"]
    if five["run"]:
        every = five["agreeing"] == five["run"]
        label = "rows of Table V in which our agent decides as the true optimum"
        found.append(Tile(f"{five['agreeing']} of {five['run']}", label, GOOD if every else BAD))
        label = "rows of Table V whose response time is within 3 % of the printed one"
        found.append(Tile(f"{five['art_near']} of {five['run']}", label))
    if six["run"]:
        every = six["within_paper"] == six["run"]
        label = "cells of Table VI at or under the paper's step count"
        found.append(Tile(f"{six['within_paper']} of {six['run']}", label, GOOD if every else BAD))
    for agent in BASELINES:
        head = six["headline"][agent]
        if head["cells"]:
            label = f"steps of {agent} over hybrid's at five users, at most; the paper's “up to” is {head['paper']}"
            found.append(Tile(times(head["most"], head["most_at_least"]), label))
    return found


def _against_printed(row: dict[str, Any]) -> str:
    """How our decision stands to the printed one."""
    excess = row["printed_excess_percent"]
    if row["ours"]["as_printed"]:
        return "the printed one"
    # What float32 can't tell apart, or the table's two decimals don't show.
    return "tied with it" if abs(excess) < 0.005 else f"printed one is {excess:.2f} % slower"


def _table5(report: dict[str, Any]) -> list[Block]:
    data = report["table5"]
    if not data["rows"]:
        return []
    decisions, numbers = [], []
    for row in data["rows"]:
        ours, printed = row["ours"], row["paper"]
        mark = "*" if row["contradiction"] else ""
        name = (Cell(row["experiment"]), Cell(constraint_text(row["constraint"]) + mark))
        best, shown = Cell(" ".join(row["oracle"]["decision"])), Cell(" ".join(printed["decision"]), PAPER)
        art, accuracy = Cell(f"{printed['art_ms']:.2f}", PAPER), Cell(f"{printed['accuracy']:.2f}", PAPER)
        optimum = Cell(f"{row['oracle']['art_ms']:.2f}")
        if ours is None:
            decisions.append((*name, Cell("not run"), DASH, best, shown, DASH))
            numbers.append((*name, DASH, optimum, art, DASH, DASH, accuracy))
            continue
        good = verdict(not ours["differing"], f"{len(ours['agreeing'])} of {ours['seeds']}")
        decisions.append((*name, Cell(" ".join(ours["decision"])), good, best, shown, Cell(_against_printed(row))))
        ratio = verdict(abs(ours["art_ratio"] - 1.0) <= 0.03, f"{ours['art_ratio']:.3f}×")
        mine, reached = Cell(f"{ours['art_ms']:.2f}"), Cell(f"{ours['accuracy']:.2f}")
        numbers.append((*name, mine, optimum, art, ratio, reached, accuracy))
    text = (
        f"{data['run']} of {data['of']} rows were run. Our agent (hybrid, five users) decides as the true optimum in "
        f"{data['agreeing']} of them, equal devices and ties aside, in {data['agreeing_every_seed']} with every seed. "
        f"A tie is what is slower by at most {100 * TIES:.1f} %, as in the calibration, because the printed decisions "
        f"demand ties; without them {data['exact']} agree. "
        "Where seeds differ, the row shows what most do. The optimum is by brute force over all joint actions of the "
        "simulator, without noise; of several optima the first is shown. The last column says how ours stands to the "
        "printed decision on the simulator, equal devices aside."
    )
    columns = ("Exp", "Cnst", "ours", "seeds", "true optimum", "printed", "ours is")
    groups = (("", 2), ("ART (ms)", 4), ("Accuracy (%)", 2))
    second = (
        f"ART is noise-free, and within 3 % of the printed one in {data['art_near']} of {data['run']} rows. "
        "The simulator is fitted to the printed ones (`data/README.md`): this shows how well one model explains all."
    )
    return [
        Heading("Table V: decisions"),
        Paragraph(text),
        Table(columns, tuple(decisions), (), 2),
        Heading("Table V: response time and accuracy"),
        Paragraph(second),
        Table(("Exp", "Cnst", "ours", "optimum", "printed", "ratio", "ours", "printed"), tuple(numbers), groups, 2),
    ]


def _table6(report: dict[str, Any]) -> list[Block]:
    data = report["table6"]
    if not data["rows"]:
        return []
    short, detail, ratios = [], [], []
    for row in data["rows"]:
        name = (Cell(str(row["users"])), Cell(constraint_text(row["constraint"])))
        cells: list[Cell] = []
        for agent in NAMES:
            cell, printed = row["agents"].get(agent), Cell(f"{row['paper'][agent]:,}", PAPER)
            if cell is None:
                cells += [Cell("not run"), printed, DASH]
                continue
            got = f"{count(cell['median'])} ({cell['succeeded']} of {cell['seeds']})"
            # Only our own agent is held to the paper's count: a better baseline is no merit of it.
            ratio = Cell(times(cell["ratio"]))
            if agent == "hybrid":
                ratio = verdict(cell["ratio"] is not None and cell["ratio"] <= 1.0, ratio.text)
            cells += [Cell(got), printed, ratio]
            numbers = [f"{cell['succeeded']} of {cell['seeds']}", count(cell["median"])]
            numbers += [interval(cell["median_interval"]), count(cell["iqm"]), interval(cell["iqm_interval"])]
            numbers += [f"{count(cell['exact_median'])} ({cell['exact_succeeded']} of {cell['seeds']})"]
            detail.append((*name, Cell(agent), *map(Cell, numbers), Cell(f"{cell['budget_steps']:,}")))
        short.append((*name, *cells))
        gains: list[Cell] = []
        for agent in BASELINES:
            gain = row["over_hybrid"][agent]
            gains += (
                [DASH, DASH]
                if gain is None
                else [Cell(times(gain["ours"], gain["at_least"])), Cell(times(gain["paper"]), PAPER)]
            )
        ratios.append((*name, *gains))
    groups = (("", 2), *((f"{agent} ({name})", 3) for agent, name in NAMES.items()))
    columns = ("Users", "Cnst", *(["ours", "printed", "ratio"] * 3))
    text = (
        "Experiment A. Real steps until the greedy decision meets the constraint within 1 % of the optimum's response "
        "time and stays so at every later evaluation: median over seeds, in brackets how many seeds got there. "
        "Every interaction counts, planning's included; a count is as fine as evaluations are apart (*What was run*). "
        f"hybrid is at or under the paper's count in {data['within_paper']} of {data['run']} cells that were run "
        f"({data['of']} in the table)."
    )
    blocks: list[Block] = [
        Heading("Table VI: steps to the optimal policy"),
        Paragraph(text),
        Figures(("steps",)),
        Table(columns, tuple(short), groups, 2),
        Heading("How much sooner hybrid learns"),
        Paragraph(_headline_text(data["headline"])),
        Table(
            ("Users", "Cnst", "ours", "printed", "ours", "printed"),
            tuple(ratios),
            (("", 2), ("dqn / hybrid", 2), ("q_learning / hybrid", 2)),
            2,
        ),
    ]
    if detail:
        head = ("Users", "Cnst", "agent", "got there", "median", "95 %", "IQM", "95 %", "exactly optimal", "budget")
        blocks += [
            Heading("Table VI in detail"),
            Paragraph(
                "Median and interquartile mean (IQM) over seeds with 95 % bootstrap intervals; a seed that never got "
                "there is ranked last. “Exactly optimal” is the same count with no tolerance."
            ),
            Table(head, tuple(detail), (), 3),
        ]
    return blocks


def _headline_text(headline: dict[str, Any]) -> str:
    parts = []
    for agent, name in (("dqn", "AdaDeep"), ("q_learning", "AutoScale")):
        head = headline[agent]
        if not head["cells"]:
            parts.append(f"{agent}: not run at five users (the paper: up to {head['paper']}× over {name}).")
            continue
        ours = f"{times(head['least'])} to {times(head['most'])}" if head["most"] is not None else "no ratio"
        more = (
            f", and more than {times(head['most_at_least'])} where it never got there" if head["most_at_least"] else ""
        )
        parts.append(f"At five users {agent} takes {ours} of hybrid's steps{more} (the paper: up to {head['paper']}×).")
    return " ".join(parts)


def _table7(report: dict[str, Any]) -> list[Block]:
    data = report["table7"]
    if not data["rows"]:
        return []
    rows = []
    for row in data["rows"]:
        for agent in NAMES:
            cell = row["agents"].get(agent)
            if cell is None:
                continue
            cells = []
            for kind in ("compute_min", "experience_min", "total_min"):
                entry = cell[kind]
                printed = DASH if entry["paper"] is None else Cell(f"{entry['paper']:,g}", PAPER)
                ratio = DASH if entry["ratio"] is None else Cell(times(entry["ratio"]))
                cells += [Cell(minutes(entry["median"])), printed, ratio]
            cells += [Cell(f"{cell['succeeded']} of {cell['seeds']}"), Cell(f"{cell['steps_per_s']:,.0f}")]
            rows.append((Cell(str(row["users"])), Cell(agent), *cells))
    machine = report["run"]["machine"]
    limits = ", ".join(constraint_text(limit) for limit in COMPARED)
    text = (
        f"Minutes up to the optimum, median over the seeds of all constraints that were run (of {limits}). Printed "
        "beside dqn are AdaDeep's, beside q_learning AutoScale's. "
        "*Computation* is the wall time of a seed's epochs, the simulator's steps and the evaluations included and "
        f"compilation not, while other seeds ran on the other cores of this machine ({machine['cores']} cores, "
        f"{machine['processor']}); the paper's was measured on an NVIDIA RTX 5000. *Experience* is what the steps "
        "would have taken for real, each as long as its slowest device's response time; the paper's was measured on "
        "its cloud instances. Ratios are ours over printed, and compare different machines."
    )
    groups = (("", 2), ("Computation (min)", 3), ("Experience (min)", 3), ("Total (min)", 3), ("", 2))
    columns = ("Users", "Agent", *(["ours", "printed", "ratio"] * 3), "got there", "steps/s")
    return [Heading("Table VII: training time"), Paragraph(text), Table(columns, tuple(rows), groups, 2)]


def _figure3(report: dict[str, Any]) -> list[Block]:
    names = tuple(f"figure3-{panel['users']}-users" for panel in report["figure3"]["panels"])
    if not names:
        return []
    text = (
        "Experiment A. The paper's figure shows the reward while training; ours shows the noise-free cost of the "
        "greedy decision at that time, so that exploration doesn't blur it. The paper gives no numbers for it beyond "
        "Table VI."
    )
    return [Heading("Figure 3: training curves"), Paragraph(text), Figures(names)]


def _peer(report: dict[str, Any]) -> list[Block]:
    data = report["peer"]
    if "peer" not in report["tables"]:
        return []
    head = Heading("A public peer: Stable-Baselines3's DQN")
    if not data["rows"]:
        reason = (
            "was left out" if data["installed"] else "isn't installed (requirements-peer.txt), so this part wasn't run"
        )
        return [head, Paragraph(f"Stable-Baselines3 {reason}.")]
    rows = []
    for row in data["rows"]:
        cells = []
        for name in ("ours", "theirs"):
            one = row[name]
            if one is None:
                cells += [Cell("not run"), DASH]
                continue
            got = (
                f"{count(one['median'])} ({one['succeeded']} of {one['seeds']})"
                if row["judged"] or name == "ours"
                else "–"
            )
            cells += [Cell(got), Cell(f"{one['steps_per_s']:,.0f}")]
        speed = Cell(times(row["speed_ratio"])) if row["speed_ratio"] else DASH
        rows.append((Cell(str(row["users"])), Cell(constraint_text(row["constraint"])), *cells, speed))
    text = (
        "The same environment through the Gymnasium wrapper, our dqn's constants (batch, width, step sizes, "
        "schedules), and the same evaluation of its greedy decisions. What only it has (uniform replay, clipped loss "
        "and gradients) is as its defaults are. "
        "Where only its speed was measured, steps aren't shown. Steps/s include the environment's steps and as many "
        "updates after each as our dqn makes; `python -m launch.benchmark` measures speed alone, both taking turns."
    )
    columns = ("Users", "Cnst", "steps to optimal", "steps/s", "steps to optimal", "steps/s", "speed")
    groups = (("", 2), ("dqn (ours)", 2), ("Stable-Baselines3", 2), ("ours/theirs", 1))
    return [head, Paragraph(text), Table(columns, tuple(rows), groups, 2)]


def _beyond(report: dict[str, Any]) -> list[Block]:
    data = report["beyond"]
    if not data["rows"]:
        return []
    text = (
        "`factored` learns each device's response time and searches the joint actions through that model. Recorded by "
        f"`python -m launch.beyond` (commit {', '.join(data['commits'])}) in `data/results/factored`, which has every "
        "case; not run again for this report."
    )
    rows = tuple((Cell(row["title"]), Cell(row["bar"]), verdict(row["met"], row["result"])) for row in data["rows"])
    picture: list[Block] = [Figures(("users",))] if data["users"] else []
    return [
        Heading("Beyond the paper: factored"),
        Paragraph(text),
        *picture,
        Table(("What", "Bar", "Measured"), rows, (), 1),
    ]


def _doubts(report: dict[str, Any]) -> list[Block]:
    items = tuple(entry["text"] for entry in report["shortfalls"])
    first: Block = Bullets(items) if items else Paragraph("Nowhere in what was run.")
    rows = tuple(f"Table V, {entry['row']} (marked * above): {entry['text']}." for entry in report["contradictions"])
    note = "The printed numbers are kept as they are, and nothing is tuned to these rows:"
    return [
        Heading("Where we fall short"),
        Paragraph("Made from the numbers: against the true optimum, against the paper, and baselines that failed."),
        first,
        Heading("Where the paper contradicts itself"),
        Paragraph(note),
        Bullets(rows),
    ]


def _run(report: dict[str, Any]) -> list[Block]:
    run, machine = report["run"], report["run"]["machine"]
    done = [unit for unit in report["units"] if unit["finished"]]
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    facts = (
        f"Command: `{run['command']}`",
        f"Commit: {', '.join(run['commits']) or 'unknown'} (+: with changes that aren't committed)",
        f"Machine: {machine['cores']} cores of {machine['processor']}, {machine['system']}, Python {machine['python']}",
        f"Versions: {versions}",
        f"Units of work: {len(done)} of {len(report['units'])} finished, {run['wall_s'] / 60.0:.1f} minutes in all, "
        f"peak memory {run['peak_memory_gib']:.1f} GiB",
    )
    rows = []
    for entry in sorted(report["given"], key=lambda entry: (AGENTS.index(entry["agent"]), entry["users"])):
        changes = ", ".join(f"{name}={value}" for name, value in entry["changes"].items()) or "none"
        steps = f"{entry['most_steps']:,}" if entry["most_steps"] else "–"
        numbers = (str(entry["users"]), steps, str(entry["evaluations"]), str(entry["seeds"]), changes, entry["why"])
        rows.append((Cell(entry["agent"]), *map(Cell, numbers)))
    columns = ("Agent", "Users", "most real steps", "evaluations", "seeds", "departures from its defaults", "why")
    return [
        Heading("What was run"),
        Bullets(facts),
        Paragraph(
            "What each agent was given; all other constants are its defaults (in report.json). How they were chosen, "
            "and what else was tried, is in `data/results/tuning`."
        ),
        Table(columns, tuple(rows), (), 2),
    ]


def title(report: dict[str, Any]) -> str:
    """The report's title."""
    return "The paper's tables, ours beside the printed"


def warnings(report: dict[str, Any]) -> list[str]:
    """What a reader must know before any number."""
    found = []
    if report["quick"]:
        found.append(
            "This is a quick run: a small subset of the plan with few seeds, to see that everything works. "
            "Don't judge by it; `python -m launch.reproduce` makes the whole."
        )
    missing = sum(not unit["finished"] for unit in report["units"])
    if missing:
        found.append(f"This is a partial report: {missing} of {len(report['units'])} units of work aren't finished.")
    return found


def page(report: dict[str, Any]) -> Page:
    """The report as a page."""
    lead = (
        "hl_jax’s agents on its simulator beside <em>Hybrid Learning for Orchestrating Deep Learning Inference in "
        "Multi-user Edge-cloud Networks</em> (Shahhosseini et al.). Numbers in "
        '<span class="paper">this colour</span> are the paper’s, as printed.'
    )
    return Page(
        title=title(report),
        lead_html=lead,
        lead_markdown="*Italic* numbers are the paper's, as printed.",
        warnings=tuple(warnings(report)),
        tiles=tuple(tiles(report)),
        blocks=tuple(blocks(report)),
    )


def blocks(report: dict[str, Any]) -> list[Block]:
    """The whole report after its title, warnings and tiles."""
    parts = (_table5, _table6, _table7, _figure3, _peer, _beyond, _doubts, _run)
    return [block for part in parts for block in part(report)]
