"""Text for people and models: what is untrusted made harmless, time spans, names that resemble one.  Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_bus.model import DAY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# Category of characters that do something instead of showing something: controls, formats (bidi
# overrides, zero-width, tags), surrogates, private use, unassigned.
_ACTIVE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Format characters that scripts need to be written at all: joiners of Persian, Hindi and emoji.
_NEEDED = frozenset({"\u200c", "\u200d"})
# The two variation selectors that common text has, for emoji; and what is drawn as nothing at all: the other
# selectors, fillers, blanks.
_SELECTORS = frozenset({"\ufe0e", "\ufe0f"})
_HIDDEN = frozenset(
    [*map(chr, range(0xFE00, 0xFE0E)), *map(chr, range(0xE0100, 0xE01F0)), *map(chr, range(0x180B, 0x1810)),
     "\u034f", "\u115f", "\u1160", "\u17b4", "\u17b5", "\u2800", "\u3164", "\uffa0"]
)  # fmt: skip
# Names longer than this are compared with none: the work grows with the square.
LONG = 200
MINUTE = 60_000
HOUR = 60 * MINUTE


def clean(text: str, *, multiline: bool = False) -> str:
    r"""Return the text with everything that could act on its reader made visible, as `\x1b` or `\u202e`.

    Args:
        multiline: keep line feeds and tabs; otherwise they are shown too.
    """
    if text.isascii() and text.isprintable():
        return text
    from unicodedata import category  # noqa: PLC0415  text of plain ASCII does not need it

    kept = "\n\t" if multiline else ""
    # Of two selectors in a row the second selects nothing: so that a row of them can hide a text.
    return "".join(
        _shown(c) if (_is_active(c, category) and c not in kept) or (c in _SELECTORS and before in _SELECTORS) else c
        for before, c in zip(" " + text, text, strict=False)
    )


def _is_active(char: str, category: Callable[[str], str]) -> bool:
    return (category(char) in _ACTIVE and char not in _NEEDED) or char in _HIDDEN


def _shown(char: str) -> str:
    number = ord(char)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def cut(text: str, limit: int) -> str:
    """Return at most `limit` characters of a text, with an ellipsis where it was cut."""
    return text if len(text) <= limit else text[: max(0, limit - 1)] + "…"


def one_line(text: str, limit: int = 200) -> str:
    """Return untrusted text as one harmless line; only the beginning of a long one."""
    return cut(clean(text[: limit + 1]), limit)


def duration(ms: int) -> str:
    """Return a time span for people: `40 s`, `12 min`, `3 h`, `2 d`."""
    for size, unit in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if ms >= 2 * size:
            return f"{round(ms / size)} {unit}"
    return f"{round(max(0, ms) / 1000)} s"


def near(name: str, others: Iterable[str]) -> list[str]:
    """Return the names that one may have meant, the likeliest first: few slips apart, or one begins the other.

    How many slips are few grows with the length: among short names, two slips make any of any other.
    """
    close = [other for other in others if other != name and _is_near(name, other)]
    return sorted(close, key=lambda other: slips(name, other))[:3]


def _is_near(one: str, two: str) -> bool:
    if min(len(one), len(two)) < 2:
        return False
    longer = max(len(one), len(two))
    if longer > LONG:
        return False
    allowed = 0 if longer < 3 else 1 if longer < 6 else 2 if longer < 12 else 3
    return one.startswith(two) or two.startswith(one) or slips(one, two) <= allowed


def slips(one: str, two: str) -> int:
    """Return how many slips make one text of the other: a character changed, added or left out, or two swapped."""
    before: list[int] = []
    last = list(range(len(two) + 1))
    for number, char in enumerate(one, 1):
        row = [number]
        for at, other in enumerate(two, 1):
            cost = min(last[at] + 1, row[at - 1] + 1, last[at - 1] + (char != other))
            if number > 1 and at > 1 and (char, one[number - 2]) == (two[at - 2], other):
                cost = min(cost, before[at - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]
