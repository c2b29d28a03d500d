"""JSON as people keep it in settings: with comments and trailing commas.  Read, and changed without touching the rest.

Pure.  No library for Python edits such text and leaves comments, order and layout as they are.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    Path = Sequence[str | int]

MAX_DEEP = 100
# A comment ends at the first `*/`, and nothing here is matched in two ways: hostile text costs no more than other text.
# No quantifier is possessive: of a group such ones match wrongly in Python 3.11.0 to 3.11.3 (gh-101955).
_SPACE = re.compile(r"(?:[ \t\r\n]+|//[^\n]*|/\*[^*]*\*+(?:[^/*][^*]*\*+)*/)*")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_SCALAR = re.compile(r"-?[0-9][0-9.eE+-]*|true|false|null")
_INDENT = re.compile(r"^([ \t]+)\S", re.MULTILINE)
_REST_OF_LINE = re.compile(r"[ \t]*(?:/\*[^*\n]*\*+(?:[^/*\n][^*\n]*\*+)*/[ \t]*)*(?://[^\r\n]*)?(?=\r?\n|\Z)")


class Malformed(ValueError):
    """A text is not JSON, comments and trailing commas allowed; says where and why."""


class Value(NamedTuple):
    """A value where it stands in a text.

    Attributes:
        start, end: its first character, and the one after its last.
        data: what it means.
        members: of an object or a list, in the order of the text.
    """

    start: int
    end: int
    data: object
    members: tuple[Member, ...] = ()


class Member(NamedTuple):
    """A member of an object, or an item of a list, whose key is its number.

    `start` is that of its key, of an item that of its value; `comma` is the place of the comma after it, -1 for none.
    """

    key: str
    start: int
    value: Value
    comma: int = -1


def parse(text: str) -> Value:
    """Return the value that a text is.

    Raises:
        Malformed: it is none.
    """
    reader = _Reader(text)
    value = reader.value(reader.skip(0), 0)
    end = reader.skip(value.end)
    if end < len(text):
        raise reader.wrong(end, "something follows the value")
    return value


class _Reader:
    """Reads one text."""

    def __init__(self, text: str) -> None:
        self._text = text

    def wrong(self, at: int, why: str) -> Malformed:
        line, column = self._text.count("\n", 0, at) + 1, at - self._text.rfind("\n", 0, at)
        return Malformed(f"line {line}, column {column}: {why}")

    def skip(self, at: int) -> int:
        """Return where what is neither space nor comment goes on."""
        found = _SPACE.match(self._text, at)
        return found.end() if found else at

    def value(self, at: int, depth: int) -> Value:
        if depth > MAX_DEEP:
            raise self.wrong(at, f"it is nested more than {MAX_DEEP} deep")
        first = self._text[at : at + 1]
        if first == "{":
            return self._object(at, depth)
        if first == "[":
            return self._array(at, depth)
        if first == '"':
            return self._string(at)
        found = _SCALAR.match(self._text, at)
        if self._text.startswith("/*", at):
            raise self.wrong(at, "a comment has no end")
        if not found:
            raise self.wrong(at, "a value is missing" if not first else f"{first!r} begins no value")
        try:
            return Value(at, found.end(), json.loads(found[0]))
        except ValueError:
            raise self.wrong(at, f"{found[0][:40]!r} is no number") from None

    def _string(self, at: int) -> Value:
        found = _STRING.match(self._text, at)
        if not found:
            raise self.wrong(at, "a text has no end, or a line break in it")
        try:
            return Value(at, found.end(), json.loads(found[0]))
        except ValueError:
            raise self.wrong(at, "a text has an escape that JSON does not know") from None

    def _comma(self, at: int, closing: str) -> tuple[int, int]:
        """Return the place of a comma, -1 for none, and where the next item or the end is."""
        at = self.skip(at)
        if self._text[at : at + 1] == ",":
            return at, self.skip(at + 1)
        if self._text[at : at + 1] != closing:
            raise self.wrong(at, f"',' or '{closing}' is missing")
        return -1, at

    def _array(self, start: int, depth: int) -> Value:
        items, at = list[Member](), self.skip(start + 1)
        while self._text[at : at + 1] != "]":
            item = self.value(at, depth + 1)
            comma, after = self._comma(item.end, "]")
            items.append(Member(str(len(items)), at, item, comma))
            at = after
        return Value(start, at + 1, [item.value.data for item in items], tuple(items))

    def _object(self, start: int, depth: int) -> Value:
        members, at, data = list[Member](), self.skip(start + 1), dict[str, object]()
        while self._text[at : at + 1] != "}":
            if self._text[at : at + 1] != '"':
                raise self.wrong(at, "a name in quotes is missing")
            key = self._string(at)
            colon = self.skip(key.end)
            if self._text[colon : colon + 1] != ":":
                raise self.wrong(colon, "':' is missing")
            value = self.value(self.skip(colon + 1), depth + 1)
            if str(key.data) in data:
                raise self.wrong(at, f"{str(key.data)[:40]!r} is there twice")
            comma, after = self._comma(value.end, "}")
            members.append(Member(str(key.data), at, value, comma))
            data[str(key.data)] = value.data
            at = after
        return Value(start, at + 1, data, tuple(members))


# --- changing ---------------------------------------------------------------------------------------------


def put(text: str, path: Path, value: object, *, is_flat: bool = False) -> str:
    """Return a text in which a member, and the objects that lead to it, are there; all else is as it was.

    Args:
        path: names in objects, numbers in lists; a number that a list has not got yet adds an item.
        is_flat: whether the value is written in one line.

    Raises:
        Malformed: the text is no JSON, or something on the way is no object, or no list where the path has a number.
    """
    style, at = _Style(text, is_flat=is_flat), parse(text)
    for depth, key in enumerate(path):
        if not isinstance(at.data, list if isinstance(key, int) else dict):
            where = ".".join(map(str, path[:depth])) or "the whole"
            msg = f"{where} is no {'list' if isinstance(key, int) else 'object'}"
            raise Malformed(msg)
        known = next((member for member in at.members if member.key == str(key)), None)
        if known is None:
            for name in reversed(path[depth + 1 :]):
                value = [value] if isinstance(name, int) else {name: value}
            return _added(text, at, "" if isinstance(key, int) else f"{json.dumps(key)}: ", value, style)
        at = known.value
    return text[: at.start] + style.dump(value, style.before(at.start)) + text[at.end :]


def drop(text: str, path: Path) -> str:
    """Return a text without a member or an item; one that has it not is returned as it is.

    Raises:
        Malformed: the text is no JSON.
    """
    at = parse(text)
    for key in path[:-1]:
        known = next((member for member in at.members if member.key == str(key)), None)
        if known is None:
            return text
        at = known.value
    index = next((number for number, member in enumerate(at.members) if member.key == str(path[-1])), -1)
    if index < 0:
        return text
    member, comma = at.members[index], at.members[index - 1].comma if index else -1
    start, end = member.start, member.comma + 1 if member.comma >= 0 else member.value.end
    line = text.rfind("\n", 0, start) + 1
    is_last = member.comma < 0 <= comma
    if not text[line:start].strip(" \t") and _REST_OF_LINE.match(text, end):  # The line is its own, and goes with it.
        start = line - 1 if line else 0
        start -= text[start - 1 : start] == "\r"
    elif is_last and not text[comma + 1 : start].strip():
        return text[:comma] + text[end:]
    else:
        end += len(text[end:]) - len(text[end:].lstrip(" \t"))
    text = text[:start] + text[end:]
    return text[:comma] + text[comma + 1 :] if is_last else text


def _added(text: str, within: Value, name: str, value: object, style: _Style) -> str:
    """Return a text with one more member; `name` is what stands before its value."""
    is_flat = "\n" not in text[within.start : within.end] and bool(within.members)
    outer = style.before(within.start)
    if is_flat:
        made = f"{name}{json.dumps(value, ensure_ascii=False)}"
        last = within.members[-1]
        if last.comma >= 0:
            return f"{text[: last.comma + 1]} {made}{text[last.comma + 1 :]}"
        return f"{text[: last.value.end]}, {made}{text[last.value.end :]}"
    inner = outer + style.unit
    made = f"{style.line}{inner}{name}{style.dump(value, inner)}"
    if not within.members:
        kept = text[within.start + 1 : within.end - 1].rstrip()  # Comments, perhaps.
        return f"{text[: within.start + 1]}{kept}{made}{style.line}{outer}{text[within.end - 1 :]}"
    last = within.members[-1]
    place = last.value.end if last.comma < 0 else last.comma + 1
    rest = _REST_OF_LINE.match(text, place)
    line = rest.end() if rest else place
    comma = "," if last.comma < 0 else ""
    return f"{text[:place]}{comma}{text[place:line]}{made}{',' if last.comma >= 0 else ''}{text[line:]}"


class _Style:
    """How a text is laid out."""

    def __init__(self, text: str, *, is_flat: bool) -> None:
        self._text = text
        self._is_flat = is_flat
        self.line = "\r\n" if "\r\n" in text else "\n"
        found = _INDENT.search(text)
        self.unit = found[1] if found else "  "

    def before(self, at: int) -> str:
        """Return the indentation of the line that a place is in."""
        line = self._text.rfind("\n", 0, at) + 1
        rest = self._text[line:]
        return rest[: len(rest) - len(rest.lstrip(" \t"))]

    def dump(self, value: object, indent: str) -> str:
        """Return a value as text that goes on at an indentation."""
        text = json.dumps(value, indent=None if self._is_flat else self.unit, ensure_ascii=False)
        return text.replace("\n", self.line + indent)
