"""Plans drawn: as a tree for terminals, and as Mermaid, DOT and SVG.  Pure; names of steps are plain words."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from mcp_bus.plain import clean, cut, duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mcp_bus.report import Row

FORMATS = ("tree", "mermaid", "dot", "svg")
MARKS = {"done": "✓", "failed": "✗", "skipped": "-", "leased": "▶", "blocked": "?", "waiting": "·"}
# Fill and line of a step, by its stage; readable with and without colour, for the stage is written too.
COLOURS = {
    "done": ("#d5f0d9", "#2b7a3d"),
    "failed": ("#f8d3d3", "#a42828"),
    "blocked": ("#f8d3d3", "#a42828"),
    "skipped": ("#ececec", "#8a8a8a"),
    "leased": ("#fdf0c4", "#a07a00"),
    "waiting": ("#ffffff", "#9a9a9a"),
}
OTHER = ("#dbe8fb", "#2f5fa8")
_HARMLESS = {ord('"'): "'", ord("\\"): "/", ord("<"): "(", ord(">"): ")", ord("#"): "No. "}
# Sizes in an SVG: a box, and the space between two.
WIDE, HIGH, ACROSS, DOWN, EDGE = 168, 44, 56, 18, 16
FONT = 'font-family="sans-serif" font-size="13"'


def draw(form: str, goal: str, rows: Sequence[Row]) -> str:
    """Return a plan in a format of `FORMATS`."""
    return {"tree": tree, "mermaid": mermaid, "dot": dot, "svg": svg}[form](goal, rows)


def tree(goal: str, rows: Sequence[Row]) -> str:
    """Return steps as a tree: each below the first it comes after, the others it waits for named beside it."""
    below: dict[str, list[Row]] = {}
    for row in rows:
        below.setdefault(row.step.after[0] if row.step.after else "", []).append(row)
    lines = [cut(clean(goal), 100)]
    # A stack, for a chain of 500 steps is deeper than Python likes to go.
    waiting = [(row, "", row is below[""][-1]) for row in reversed(below.get("", []))]
    while waiting:
        row, indent, is_last = waiting.pop()
        lines.append(f"{indent}{'└' if is_last else '├'} {_told(row)}")
        inner = f"{indent}{' ' if is_last else '│'} "
        mine = below.get(row.step.name, [])
        waiting += [(child, inner, child is mine[-1]) for child in reversed(mine)]
    return "\n".join(lines)


def _told(row: Row) -> str:
    words = [f"{MARKS.get(row.stage, '○')} {row.step.name}", row.stage]
    words += [f"by {row.who}"] if row.who else []
    words += [f"attempt {row.node.attempts}"] if row.node.attempts > 1 else []
    words += [duration(row.took)] if row.took >= 1000 else []
    words += [f"(also after {', '.join(row.step.after[1:])})"] if row.step.after[1:] else []
    words += ["*"] if row.is_critical else []
    return "  ".join(words) + (f"  {row.why}" if row.why and row.stage != "leased" else "")


def mermaid(goal: str, rows: Sequence[Row]) -> str:
    """Return a Mermaid flowchart."""
    ids = _ids(rows)
    lines = ["---", f"title: {_quoted(goal)}", "---", "flowchart LR"]
    lines += [f'    {ids[row.step.name]}["{row.step.name}<br>{row.stage}"]:::{_kind(row)}' for row in rows]
    lines += [f"    {ids[need]} --> {ids[row.step.name]}" for row in rows for need in row.step.after]
    kinds = dict.fromkeys(_kind(row) for row in rows)
    lines += [f"    classDef {kind} fill:{_colours(kind)[0]},stroke:{_colours(kind)[1]}" for kind in kinds]
    return "\n".join(lines)


def dot(goal: str, rows: Sequence[Row]) -> str:
    """Return a graph for Graphviz."""
    ids = _ids(rows)
    lines = ["digraph plan {", f"  label={_quoted(goal)}; rankdir=LR;", "  node [shape=box, style=filled];"]
    for row in rows:
        fill, stroke = _colours(_kind(row))
        label = f"{row.step.name}\\n{row.stage}"
        lines.append(f'  {ids[row.step.name]} [label="{label}", fillcolor="{fill}", color="{stroke}"];')
    lines += [f"  {ids[need]} -> {ids[row.step.name]};" for row in rows for need in row.step.after]
    return "\n".join([*lines, "}"])


def svg(goal: str, rows: Sequence[Row]) -> str:
    """Return a picture: a column for each number of steps that come before, at the least."""
    column: dict[str, int] = {}
    place: dict[str, tuple[int, int]] = {}
    heights: dict[int, int] = {}
    for row in rows:
        at = 1 + max((column[need] for need in row.step.after), default=-1)
        column[row.step.name] = at
        place[row.step.name] = (EDGE + at * (WIDE + ACROSS), 40 + heights.get(at, 0) * (HIGH + DOWN))
        heights[at] = heights.get(at, 0) + 1
    wide = 2 * EDGE + (max(heights, default=0) + 1) * (WIDE + ACROSS) - ACROSS
    high = 40 + EDGE + max(heights.values(), default=1) * (HIGH + DOWN) - DOWN
    size = f'width="{wide}" height="{high}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {wide} {high}" {FONT}>',
        f"<title>{escape(clean(goal))}</title>",
        f'<rect width="{wide}" height="{high}" fill="#ffffff"/>',
        f'<text x="{EDGE}" y="24" font-weight="bold">{escape(cut(clean(goal), max(20, wide // 8)))}</text>',
    ]
    for row in rows:
        lines += [_edge(place[need], place[row.step.name]) for need in row.step.after]
    lines += [_box(row, place[row.step.name]) for row in rows]
    return "\n".join([*lines, "</svg>"])


def _edge(start: tuple[int, int], end: tuple[int, int]) -> str:
    left, top, right, low = start[0] + WIDE, start[1] + HIGH // 2, end[0], end[1] + HIGH // 2
    middle = (left + right) // 2
    path = f"M{left} {top} C{middle} {top} {middle} {low} {right - 5} {low}"
    head = f"M{right - 6} {low - 4} L{right} {low} L{right - 6} {low + 4}"
    return f'<path d="{path} {head}" fill="none" stroke="#777777"/>'


def _box(row: Row, place: tuple[int, int]) -> str:
    (left, top), (fill, stroke) = place, _colours(_kind(row))
    weight = 2.5 if row.is_critical else 1
    told = f"{row.stage}{f', {duration(row.took)}' if row.took >= 1000 else ''}"
    why = f"<title>{escape(row.why)}</title>" if row.why else ""
    return (
        f'<g>{why}<rect x="{left}" y="{top}" width="{WIDE}" height="{HIGH}" rx="6" fill="{fill}" stroke="{stroke}" '
        f'stroke-width="{weight}"/><text x="{left + 10}" y="{top + 18}">{escape(cut(row.step.name, 22))}</text>'
        f'<text x="{left + 10}" y="{top + 35}" fill="#555555" font-size="11">{escape(told)}</text></g>'
    )


def _ids(rows: Sequence[Row]) -> dict[str, str]:
    """Return a name for each step that no language takes for a word of its own."""
    return {row.step.name: f"s{number}" for number, row in enumerate(rows)}


def _kind(row: Row) -> str:
    return row.stage if row.stage in COLOURS else "open"


def _colours(kind: str) -> tuple[str, str]:
    return COLOURS.get(kind, OTHER)


def _quoted(text: str) -> str:
    """Return a text in double quotes that all these languages read as one text and nothing else."""
    return f'"{cut(clean(text), 100).translate(_HARMLESS)}"'
