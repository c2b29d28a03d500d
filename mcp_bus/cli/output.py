"""What people and programs see: tables, colour, ages, and no text that acts on a terminal."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from mcp_bus.errors import BusError
from mcp_bus.plain import clean, cut, duration, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import TextIO

__all__ = [
    "Out",
    "Unwritten",
    "ago",
    "clean",
    "cut",
    "document",
    "duration",
    "fit",
    "one_line",
    "quote",
    "width",
    "word",
]

STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34"}
# Columns narrower than this say nothing.
NARROW = 8


class Unwritten(BusError):
    """The answer could not be written."""

    code = "unwritten"
    retryable = True


class Out:
    """Where a verb's answer goes: data to stdout, all at once, and words for people to stderr."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        """Start with nothing to say and no colour."""
        self.as_json = as_json
        self.quiet = quiet
        self.has_colour = False
        # Whether anything was written to stdout.
        self.is_told = False
        self._lines: list[str] = []

    def line(self, text: str = "") -> None:
        """Add a line to the answer.  Untrusted parts of it were cleaned by the caller."""
        self._lines.append(text)

    def json(self, value: object, *, is_line: bool = False) -> None:
        """Make a value the answer, as one JSON document; or one of several, each a line."""
        self._lines.append(document(value, indent=2 if _is_terminal(sys.stdout) and not is_line else None))

    def forget(self) -> None:
        """Take back what was not written yet."""
        self._lines = []

    def table(self, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Add a table; its last column gives way when the terminal is too narrow.

        Cells may be painted: only the first paint of a cell counts, and cells are cleaned by the caller.
        """
        lines = [head, *rows]
        widths = [max(width(row[column]) for row in lines) for column in range(len(head))]
        room = self.columns()
        if room:
            widths[-1] = max(NARROW, min(widths[-1], room - sum(widths[:-1]) - 2 * (len(head) - 1)))
        for number, row in enumerate(lines):
            cells = [fit(cell, size) for cell, size in zip(row, widths, strict=True)]
            text = "  ".join(cells).rstrip()
            self.line(self.paint(text, "dim") if number == 0 else self._states(text, row))

    def _states(self, text: str, row: Sequence[str]) -> str:
        """Colour the first cell of a row that names a state."""
        for cell in row:
            if self.has_colour and cell in STATE_STYLES:
                return text.replace(cell, self.paint(cell, STATE_STYLES[cell]), 1)
        return text

    def state(self, word: str) -> str:
        """Return a state in its colour."""
        return self.paint(word, STATE_STYLES.get(word, ""))

    def paint(self, text: str, style: str) -> str:
        """Return a text in a colour of `STYLES`, if there are colours."""
        return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if self.has_colour and style else text

    def columns(self) -> int:
        """Return how wide the terminal is; 0 when stdout is none, and nothing needs to be cut."""
        if not _is_terminal(sys.stdout):
            return 0
        try:
            return os.get_terminal_size(sys.stdout.fileno()).columns
        except OSError:
            return 80

    def note(self, text: str) -> None:
        """Tell people something they may want to know, unless they asked for quiet."""
        if not self.quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """Tell people something they must know."""
        if sys.stderr is not None:
            print(text, file=sys.stderr)

    def flush(self) -> None:
        """Write the answer so far.

        Raises:
            BrokenPipeError: nobody reads it.
            Unwritten: it could not be written for another reason.
        """
        if not self._lines:
            return
        text, self._lines = "\n".join(self._lines) + "\n", []
        if sys.stdout is None:
            msg = "the answer could not be written: stdout is closed"
            raise Unwritten(msg)
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
            self.is_told = True
        except BrokenPipeError:
            raise
        except OSError as error:
            msg = f"the answer could not be written: {error.strerror}"
            raise Unwritten(msg, hint="look at where stdout goes") from error

    def abandon(self) -> None:
        """Let what is left in the buffers go nowhere, or Python complains about it when it ends."""
        self._lines = []
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                _to_nowhere(stream)
            except (AttributeError, ValueError):
                continue  # It was closed from the start.


def document(value: object, indent: int | None = None) -> str:
    """Return a value as a JSON document, ASCII and without control characters; in one line unless indented."""
    import json

    # The one control character JSON leaves as it is.
    return json.dumps(value, indent=indent).replace("\x7f", "\\u007f")


def _to_nowhere(stream: TextIO) -> None:
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())


STATE_STYLES = {
    "ready": "blue",
    "leased": "yellow",
    "scheduled": "dim",
    "done": "green",
    "dead": "red",
    "blocked": "red",
    "unverified": "red",
    "lost": "red",
    "cancelled": "dim",
    "expired": "dim",
}


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # It was closed.
        return False


def width(text: str) -> int:
    """Return how many columns a text takes."""
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def fit(text: str, size: int) -> str:
    """Return a text that takes exactly `size` columns, cut with an ellipsis or filled up."""
    while width(text) > size:
        text = cut(text, len(text) - max(1, (width(text) - size) // 2)) if len(text) > 1 else ""
    return text + " " * (size - width(text))


def quote(text: str) -> list[str]:
    """Return untrusted text as harmless lines that cannot be taken for lines of ours."""
    return ["  | " + line for line in clean(text, multiline=True).split("\n")]


def ago(then: int, now: int) -> str:
    """Return a time as people say it: `3 min ago`, `in 5 min`; empty for never."""
    if not then:
        return ""
    return f"in {duration(then - now)}" if then > now else f"{duration(now - then)} ago"


def word(value: object) -> str:
    """Return a setting as people type it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return clean(
        ",".join(value) if isinstance(value, tuple | list) else f"{value:g}" if isinstance(value, float) else str(value)
    )
