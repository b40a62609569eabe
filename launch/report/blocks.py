"""What a report is made of (headings, paragraphs, tables, pictures), and how it writes numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

GOOD, BAD, PAPER, PLAIN = "good", "bad", "paper", ""


@dataclasses.dataclass(frozen=True)
class Cell:
    """A table's cell; `kind` says how it is meant, and is never the only thing that says so."""

    text: str
    kind: str = PLAIN


@dataclasses.dataclass(frozen=True)
class Heading:
    """Starts a section."""

    text: str


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """Text, with `code` and *emphasis* as its only marks."""

    text: str


@dataclasses.dataclass(frozen=True)
class Bullets:
    """A list of such texts."""

    items: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Table:
    """`groups` names runs of columns: (text, columns); empty for none. `stub` columns name a row."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    groups: tuple[tuple[str, int], ...] = ()
    stub: int = 1


@dataclasses.dataclass(frozen=True)
class Figures:
    """Pictures by name, beside each other where there is room, with one caption."""

    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Tile:
    """A number to see first."""

    value: str
    label: str
    kind: str = PLAIN


Block = Heading | Paragraph | Bullets | Table | Figures


@dataclasses.dataclass(frozen=True)
class Page:
    """A whole report."""

    title: str
    lead_html: str  # under the title
    lead_markdown: str
    warnings: tuple[str, ...]  # what a reader must know before any number
    tiles: tuple[Tile, ...]
    blocks: tuple[Block, ...]


DASH = Cell("–")


def _short(value: float) -> str:
    """About three digits, never in powers of ten."""
    if value < 0.1:
        return np.format_float_positional(value, precision=2, fractional=False, trim="-")
    return f"{value:.2f}" if value < 10.0 else f"{value:.1f}" if value < 100.0 else f"{value:,.0f}"


def count(value: float | None) -> str:
    """Steps with thousands separators."""
    return "never" if value is None else f"{value:,.0f}"


def times(value: float | None, at_least: float | None = None) -> str:
    """A ratio; without one, what it is more than at least."""
    shown = at_least if value is None else value
    if shown is None:
        return "never"
    return f"{'>' if value is None else ''}{_short(shown)}×"


def interval(bounds: Sequence[float | None]) -> str:
    """Both ends of an interval of steps; seeds that never get there may reach into it."""
    low, high = bounds
    return "never" if low is None else f"{low:,.0f} to {'never' if high is None else f'{high:,.0f}'}"


def times_between(bounds: Sequence[float | None]) -> str:
    """Both ends of an interval of ratios; None at its upper end is no end, at both is nothing known."""
    low, high = bounds
    if low is None:
        return "unknown"
    return f"{times(low)} to {'any' if high is None else times(high)}"


def minutes(value: float | None) -> str:
    """A time in minutes."""
    return "never" if value is None else _short(value)


def verdict(good: bool, text: str) -> Cell:
    """A number that is judged."""
    return Cell(f"{'✓' if good else '✗'} {text}", GOOD if good else BAD)
