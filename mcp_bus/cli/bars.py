"""Bars for a terminal: how much of a channel's work is in hand, waiting, dead and done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_bus.cli.output import STATE_STYLES, cut, fit
from mcp_bus.model import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mcp_bus.cli.output import Out
    from mcp_bus.find import ChannelView

# What a bar tells apart, in its order: the word, the mark, which says it without colours too, and the states.
PARTS = (
    ("leased", ">", (State.LEASED,)),
    ("waiting", ".", (State.READY, State.SCHEDULED)),
    ("dead", "x", (State.DEAD,)),
    ("done", "#", (State.DONE,)),
)
FEW = 10
# Columns of a bar at least; a name or a bar takes a quarter of a line at most.
SMALL, QUARTER = 8, 4


def show(out: Out, views: Sequence[ChannelView]) -> None:
    """Add a bar for each channel, the busiest first; nothing where stdout is no terminal, or there are no tasks."""
    room = out.columns()
    rows = [(view.name, _counts(view)) for view in views]
    rows = sorted((row for row in rows if any(row[1])), key=lambda row: (-sum(row[1][:3]), row[0]))
    if not room or not rows:
        return
    size = max(SMALL, room // QUARTER)
    long = min(size, max(len(name) for name, _ in rows[:FEW]))
    out.line()
    out.line(out.paint(cut("channels  " + "  ".join(f"{mark} {word}" for word, mark, _ in PARTS), room), "dim"))
    told = [_told(counts) for _, counts in rows[:FEW]]
    has_words = long + size + 4 + max(map(len, told)) <= room
    for (name, counts), words in zip(rows, told, strict=False):
        out.line(f"{fit(name, long)}  {_bar(out, counts, size)}{'  ' + words if has_words else ''}")
    if len(rows) > FEW:
        out.line(f"and {len(rows) - FEW} more: `mcp-bus ls`")


def _counts(view: ChannelView) -> list[int]:
    return [sum(view.counts[state] for state in states) for *_, states in PARTS]


def _told(counts: Sequence[int]) -> str:
    return "  ".join(f"{count} {word}" for (word, *_), count in zip(PARTS, counts, strict=True) if count)


def _bar(out: Out, counts: Sequence[int], size: int) -> str:
    cells = zip(PARTS, shares(counts, size), strict=True)
    return "".join(out.paint(mark * share, STATE_STYLES[of[0]]) for (_, mark, of), share in cells if share)


def shares(counts: Sequence[int], size: int) -> list[int]:
    """Return how many of `size` cells each count gets: in proportion, and one at least where there is anything."""
    made = [max(1, round(count * size / sum(counts))) if count else 0 for count in counts]
    made[counts.index(max(counts))] += size - sum(made)
    return made
