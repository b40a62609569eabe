"""report.md: the report's blocks as Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping

from launch.report import blocks
from launch.report.plotting import Picture


def escaped(text: str) -> str:
    """A user's text in a cell of a table: none of its characters is Markdown's."""
    # An underscore inside a word stands for itself.
    return re.sub(r"[\\|*`<>\[\]]|(?<!\w)_|_(?!\w)", r"\\\g<0>", text)


def _text(cell: blocks.Cell) -> str:
    text = escaped(cell.text)
    return f"*{text}*" if cell.kind == blocks.PAPER else text


def _table(table: blocks.Table) -> list[str]:
    columns = list(table.columns)
    if table.groups:
        # Markdown has one line of headings, so that a column carries its group's name.
        groups = [name for name, width in table.groups for _ in range(width)]
        columns = [f"{group}: {column}" if group else column for group, column in zip(groups, columns, strict=True)]
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(_text(cell) for cell in row) + " |" for row in table.rows]
    return [*lines, ""]


def _block(block: blocks.Block, pictures: Mapping[str, Picture]) -> list[str]:
    if isinstance(block, blocks.Heading):
        return [f"## {block.text}", ""]
    if isinstance(block, blocks.Paragraph):
        return [block.text, ""]
    if isinstance(block, blocks.Bullets):
        return [*(f"- {item}" for item in block.items), ""]
    if isinstance(block, blocks.Table):
        return _table(block)
    shown = [name for name in block.names if name in pictures]
    captions = {pictures[name].caption: None for name in shown}
    return [*(f"![{pictures[name].title}]({name}.png)" for name in shown), "", *captions, ""]


def render(page: blocks.Page, pictures: Mapping[str, Picture]) -> str:
    """The page as Markdown; its pictures are files beside it."""
    lines = [f"# {page.title}", ""]
    for warning in page.warnings:
        lines += [f"**{warning}**", ""]
    lines += [f"- **{tile.value}** {tile.label}" for tile in page.tiles]
    lines += ["", page.lead_markdown, ""]
    for block in page.blocks:
        lines += _block(block, pictures)
    return "\n".join(lines)
