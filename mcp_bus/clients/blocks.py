"""The block that tells a model of the bus, in a file of instructions between two marks.  Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus.clients.parts import ABSENT, ADDED, AGENTS_MD, REMOVED, REPLACED, SAME, given
from mcp_bus.clients.texts import BOM
from mcp_bus.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_FENCE = re.compile(r" {0,3}(`{3,}(?=[^`\n]*$)|~{3,})", re.MULTILINE)
BEGIN, END = "<!-- mcp-bus: begin -->", "<!-- mcp-bus: end -->"


def text() -> str:
    """Return the block, its marks included."""
    return given("block.md")


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of Markdown that are in no block of code, each with its place; a fence without an end is none."""
    held, fence, at = list[tuple[int, str]](), "", 0
    for line in _LINE.findall(text):
        found = _FENCE.match(line)
        if fence:
            held.append((at, line))
            if found and found[1].startswith(fence) and not line[found.end() :].strip():
                held, fence = [], ""
        elif found:
            held, fence = [(at, line)], found[1]
        elif not line.startswith(("    ", "\t")):
            yield at, line
        at += len(line)
    yield from held


class Block(NamedTuple):
    """The block, as a part of a file."""

    text: str

    @property
    def name(self) -> str:
        """It is what AGENTS.md and its kind have."""
        return AGENTS_MD

    def put(self, text: str, *, is_known: bool, is_forced: bool) -> tuple[str, str]:  # noqa: ARG002  of every part
        """Return instructions with it, at their end or where it is already; see `Part`."""
        line = "\r\n" if "\r\n" in text else "\n"
        made = self.text.replace("\n", line)
        place = _place(text)
        if place:
            start, end = place
            if not text[end - 1 :].startswith("\n"):  # It ends the text.
                made = made.removesuffix(line)
            return text[:start] + made + text[end:], SAME if text[start:end] == made else REPLACED
        gap = line if text.removeprefix(BOM) else ""
        gap += line if gap and not text.endswith("\n") else ""
        return text + gap + made, ADDED

    def drop(self, text: str, *, is_known: bool) -> tuple[str | None, str]:  # noqa: ARG002  as above
        """Return instructions without it, and without the empty line before it."""
        place = _place(text)
        if place is None:
            return text, ABSENT
        start, end = place
        before = text[:start]
        for line in ("\r\n", "\n"):
            if before.endswith(line * 2) or before.removeprefix(BOM) == line:
                before = before.removesuffix(line)
                break
        return before + text[end:], REMOVED


def _place(text: str) -> tuple[int, int] | None:
    """Return where the block begins and ends, the end of its last line included; None if it is not there.

    Raises:
        InvalidRequest: the marks are not one of each, in this order.
    """
    marks = list[tuple[str, int, int]]()
    for at, line in prose(text):
        mark = line.removeprefix(BOM).strip()
        if mark in (BEGIN, END):
            marks.append((mark, at + line.index("<"), at + len(line)))
    if not marks:
        return None
    if [mark for mark, _, _ in marks] != [BEGIN, END]:
        msg = f"it has not one {BEGIN!r} and one {END!r} after it"
        raise InvalidRequest(msg, hint="mend or remove these lines")
    return marks[0][1], marks[1][2]
