"""decisions.md: the decision of every seed as a row of Table V, beside the oracle's (a real fleet's twin's)."""

from __future__ import annotations

from launch.inputs.settings import Settings
from launch.report.markdown import escaped
from launch.runs.history import Oracle
from launch.runs.summary import Summary


def table(summary: Summary, settings: Settings, oracle: Oracle | None) -> str:
    """The page."""
    scenario = settings.scenario
    labels, names = scenario.choice_labels(), [device.name for device in scenario.devices]
    head = ["", "Cnst", *names, "ART (ms)", "AA (%)", "steps to optimal"]
    rows, note = [], "On real nodes nobody knows the true optimum: ART is measured, steps to optimal are not known."
    if oracle is not None:
        optimum = oracle.optima[0]
        best = [labels[choice] for choice in optimum.decision]
        of = "oracle" if settings.real is None else "the twin's oracle"
        rows = [[of, summary.constraint, *best, f"{optimum.art_ms:.2f}", f"{optimum.accuracy:.2f}", ""]]
        listed = f"{len(optimum.optimal)} joint actions are optimal; the oracle's row shows the first."
        note = listed if optimum.complete else "The oracle's row shows one optimal joint action; there may be others."
    for seed in summary.seeds:
        steps = "never" if seed.steps_to_optimal is None else str(seed.steps_to_optimal)
        steps = steps if oracle is not None else "not known"
        steps = f"failed in epoch {seed.failed.epoch}" if seed.failed else steps
        numbers = ["" if number is None else f"{number:.2f}" for number in (seed.art_ms, seed.accuracy)]
        decision = seed.decision or [""] * len(names)
        rows.append([f"seed {seed.seed}", summary.constraint, *decision, *numbers, steps])
    lines = ["| " + " | ".join(map(escaped, head)) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(map(escaped, row)) + " |" for row in rows]
    title = f"# Experiment {escaped(summary.experiment)}, {summary.users} users, {escaped(summary.agent)}"
    return "\n".join([title, "", *lines, "", note, ""])
