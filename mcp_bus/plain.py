"""Untrusted text made harmless before a person's terminal or a model sees it; and names that resemble one.  Pure."""

from __future__ import annotations

import unicodedata

# Category of characters that do something instead of showing something: controls, formats (bidi
# overrides, zero-width, tags), surrogates, private use, unassigned.
_ACTIVE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Format characters that scripts need to be written at all: joiners of Persian, Hindi and emoji.
_NEEDED = frozenset({"\u200c", "\u200d"})


def clean(text: str, *, multiline: bool = False) -> str:
    r"""Return the text with everything that could act on its reader made visible, as `\x1b` or `\u202e`.

    Args:
        multiline: keep line feeds and tabs; otherwise they are shown too.
    """
    if text.isascii() and text.isprintable():
        return text
    kept = "\n\t" if multiline else ""
    return "".join(c if c in kept or not _is_active(c) else _shown(c) for c in text)


def _is_active(char: str) -> bool:
    return unicodedata.category(char) in _ACTIVE and char not in _NEEDED


def _shown(char: str) -> str:
    number = ord(char)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def cut(text: str, limit: int) -> str:
    """Return at most `limit` characters of a text, with an ellipsis where it was cut."""
    return text if len(text) <= limit else text[: max(0, limit - 1)] + "…"


def near(name: str, others: list[str]) -> list[str]:
    """Return the names that one may have meant by `name`: two slips apart, or one begins the other."""
    close = [
        other
        for other in others
        if other != name and (other.startswith(name) or name.startswith(other) or slips(name, other) <= 2)
    ]
    return sorted(close, key=lambda other: slips(name, other))[:3]


def slips(one: str, two: str) -> int:
    """Return how many characters must be changed, added or left out to make one text of the other."""
    row = list(range(len(two) + 1))
    for number, char in enumerate(one, 1):
        left, row[0] = row[0], number
        for at, other in enumerate(two, 1):
            left, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, left + (char != other))
    return row[-1]
