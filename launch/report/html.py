"""report.html: the report's blocks as one page that needs nothing else; for wide screens and phones, light and dark."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping

from launch.report import blocks
from launch.report.plotting import Picture

LONGEST = 40  # of a cell, in characters; longer ones wrap

_STYLE = """
:root { color-scheme: light dark; --page: #f6f8fa; --card: #ffffff; --ink: #24292f; --soft: #57606a; --line: #d0d7de;
  --good: #1a7f37; --bad: #b42318; --paper: #6639a6; --note: #fff4ce; --note-ink: #5c4400; --stripe: #f6f8fa; }
@media (prefers-color-scheme: dark) { :root { --page: #0d1117; --card: #161b22; --ink: #e2e6ea; --soft: #9aa4af;
  --line: #333b45; --good: #57c46f; --bad: #ff8a7d; --paper: #c3a6f5; --note: #3b2f0b; --note-ink: #f5dd94;
  --stripe: #1b2129; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 1600px; margin: 0 auto; padding: 24px 16px 64px; }
header h1 { font-size: 1.75rem; line-height: 1.2; margin: .5em 0 .3em; text-wrap: balance; }
header p { color: var(--soft); margin: 0; max-width: 75ch; }
nav { margin: 16px 0; display: flex; flex-wrap: wrap; gap: 6px 16px; font-size: .9rem; }
nav a { color: inherit; text-decoration-color: var(--line); text-underline-offset: 3px; }
.note { background: var(--note); color: var(--note-ink); padding: 12px 16px; border-radius: 8px; margin: 16px 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); gap: 12px; margin: 20px 0 8px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; }
.tile b { display: block; font-size: 1.6rem; line-height: 1.2; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere; }
.tile span { overflow-wrap: anywhere; font-size: .85rem; color: var(--soft); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 4px 20px 16px;
  margin: 20px 0; }
h2 { font-size: 1.2rem; margin: 16px 0 8px; }
section > p, li { max-width: 85ch; }
section > p { margin: 8px 0 14px; }
li { margin: 3px 0; }
code { font-size: .9em; background: var(--stripe); padding: 1px 4px; border-radius: 4px; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; font-size: .85rem; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 10px; text-align: left; white-space: nowrap; }
thead th { white-space: normal; }
td.number, th.number { text-align: right; }
thead th { font-weight: 600; color: var(--soft); border-bottom: 1px solid var(--line); vertical-align: bottom; }
thead th.group { color: var(--ink); }
tbody th { font-weight: 600; }
tbody .long { white-space: normal; min-width: 16em; }
tbody th.long { font-weight: 400; white-space: normal; min-width: 11em; }
tbody tr:nth-child(even) { background: var(--stripe); }
.first { border-left: 1px solid var(--line); }
.good { color: var(--good); } .bad { color: var(--bad); font-weight: 600; } .paper { color: var(--paper); }
figure { margin: 0; min-width: 0; }
figure img { display: block; max-width: 100%; height: auto; border-radius: 6px; margin: 0 auto; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); gap: 14px; }
.caption { font-size: .85rem; color: var(--soft); }
@media (max-width: 600px) { section { padding: 2px 12px 12px; } main { padding: 12px 8px 40px; }
  header h1 { font-size: 1.4rem; } }
"""

_NUMBER = re.compile(r"^(never|[>✓✗]?\s*(never|[\d.,]+\s*[×%]?))$")


def _marked(text: str) -> str:
    """Text with the two marks that the document uses: `code` and *emphasis*."""
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))
    return re.sub(r"\*([^*\s][^*]*)\*", r"<em>\1</em>", text)


def _anchor(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _classes(*names: str) -> str:
    used = " ".join(name for name in names if name)
    return f' class="{used}"' if used else ""


def _table(table: blocks.Table) -> str:
    starts, at = set(), 0
    for _, width in table.groups:
        starts.add(at)
        at += width
    starts.discard(0)
    # A column of numbers stands to the right, and what fills its gaps with it.
    numbers = {
        column
        for column in range(table.stub, len(table.columns))
        if all(_NUMBER.match(row[column].text) or row[column] == blocks.DASH for row in table.rows)
    }

    def first(column: int) -> str:
        return "first" if column in starts else ""

    def number(column: int) -> str:
        return "number" if column in numbers else ""

    lines = ['<div class="scroll" tabindex="0"><table><thead>']
    if table.groups:
        cells, at = [], 0
        for name, width in table.groups:
            mark = _classes("group", first(at))
            cells.append(f'<th{mark} colspan="{width}" scope="colgroup">{html.escape(name)}</th>')
            at += width
        lines.append(f"<tr>{''.join(cells)}</tr>")
    heads = (
        f'<th{_classes(number(column), first(column))} scope="col">{html.escape(text)}</th>'
        for column, text in enumerate(table.columns)
    )
    lines.append(f"<tr>{''.join(heads)}</tr></thead><tbody>")
    for row in table.rows:
        cells = []
        for column, cell in enumerate(row):
            text = html.escape(cell.text, quote=False)
            long = "long" if len(cell.text) > LONGEST else ""
            if column < table.stub:
                cells.append(f'<th{_classes(long)} scope="row">{text}</th>')
            else:
                cells.append(f"<td{_classes(number(column), cell.kind, first(column), long)}>{text}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return "\n".join([*lines, "</tbody></table></div>"])


def _data(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def _figures(block: blocks.Figures, pictures: Mapping[str, Picture]) -> str:
    shown = [pictures[name] for name in block.names if name in pictures]
    parts = [
        f'<figure><picture><source srcset="{_data(picture.dark)}" media="(prefers-color-scheme: dark)">'
        f'<img src="{_data(picture.light)}" alt="{html.escape(picture.title)}" width="{picture.width}">'
        "</picture></figure>"
        for picture in shown
    ]
    captions = "".join(f'<p class="caption">{_marked(text)}</p>' for text in {one.caption: None for one in shown})
    return f'<div class="figures">{"".join(parts)}</div>{captions}'


def _block(block: blocks.Block, pictures: Mapping[str, Picture]) -> str:
    if isinstance(block, blocks.Heading):
        return f'<h2 id="{_anchor(block.text)}">{html.escape(block.text)}</h2>'
    if isinstance(block, blocks.Paragraph):
        return f"<p>{_marked(block.text)}</p>"
    if isinstance(block, blocks.Bullets):
        return "<ul>" + "".join(f"<li>{_marked(item)}</li>" for item in block.items) + "</ul>"
    if isinstance(block, blocks.Table):
        return _table(block)
    return _figures(block, pictures)


def render(page: blocks.Page, pictures: Mapping[str, Picture]) -> str:
    """The page as HTML."""
    title, parts = page.title, page.blocks
    headings = [block.text for block in parts if isinstance(block, blocks.Heading)]
    links = "".join(f'<a href="#{_anchor(text)}">{html.escape(text)}</a>' for text in headings)
    notes = "".join(f'<p class="note" role="note">{_marked(text)}</p>' for text in page.warnings)
    tiles = "".join(
        f'<div class="tile"><b{_classes(tile.kind)}>{html.escape(tile.value)}</b>'
        f"<span>{html.escape(tile.label)}</span></div>"
        for tile in page.tiles
    )
    body, is_open = [], False
    for block in parts:
        if isinstance(block, blocks.Heading):
            body.append("</section><section>" if is_open else "<section>")
            is_open = True
        body.append(_block(block, pictures))
    sections = "\n".join([*body, "</section>" if is_open else ""])
    # The empty icon keeps browsers from asking a server for one.
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<link rel="icon" href="data:,">
<style>{_STYLE}</style>
</head>
<body>
<main>
<header>
<h1>{html.escape(title)}</h1>
<p>{page.lead_html}</p>
</header>
{notes}
<div class="tiles">{tiles}</div>
<nav aria-label="Contents">{links}</nav>
{sections}
</main>
</body>
</html>
"""
