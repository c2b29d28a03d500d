"""TOML as text: a table is put in, renewed or cut out; every line that is not of it stays as it is.  Pure.

The text has been read before, and is TOML.  `texts` reads what is made.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# Nothing is matched in two ways, and no quantifier is possessive: see `jsonc`.
_SPACE = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_TEXTS = r'"[^"\\\n]*(?:\\.[^"\\\n]*)*"' + r"|'[^'\n]*'"
_LONG_TEXTS = r'"""[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*"{3,5}' + r"|'''[^']*(?:'(?!'')[^']*)*'{3,5}"
_TOKEN = re.compile(rf"(?P<text>{_LONG_TEXTS}|{_TEXTS})|#[^\n]*|(?P<mark>[\[\]{{}}\n])|[^\"'#\[\]{{}}\n]+", re.DOTALL)
_KEY = re.compile(rf"(?:{_TEXTS}|[^\"'=])*")


def _loads(text: str) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415  one client's

    return tomllib.loads(text)


class Statement(NamedTuple):
    """A line, or lines, that say one thing.

    Attributes:
        start, end: of its lines, their last line end included.
        table: the names that lead to the table it stands in; of one that begins a table, to that.
        names: those that its value has there; none for one that begins a table.
        is_one: whether it begins a table, and not an item of a list of tables.
    """

    start: int
    end: int
    table: tuple[str, ...]
    names: tuple[str, ...] = ()
    is_one: bool = False

    @property
    def path(self) -> tuple[str, ...]:
        """The names that lead to what it says."""
        return self.table + self.names


def put(text: str, path: Sequence[str], value: Mapping[str, Any]) -> str:
    """Return a text with a table, in the place of one that is there, else at its end."""
    said, way = list(_statements(text)), tuple(path)
    inline = _inline_above(text, said, way)
    if inline is not None:
        return _within(text, inline, way, value)
    mine = [one for one in said if one.path[: len(way)] == way]
    line = "\r\n" if "\r\n" in text and text.count("\n") == text.count("\r\n") else "\n"
    if mine and mine[0].is_one and mine[0].path == way:
        return _renewed(text, mine, value, line)
    text = _cut(text, mine)
    gap = "" if not text or re.search(r"(?:\A|\n)\r?\n\Z", text) else line
    gap += line if text and not text.endswith("\n") else ""
    return text + gap + f"[{'.'.join(map(_name, way))}]{line}" + _lines(value, line)


def drop(text: str, path: Sequence[str]) -> str:
    """Return a text without a table, however it is written."""
    said, way = list(_statements(text)), tuple(path)
    inline = _inline_above(text, said, way)
    if inline is not None:
        return _within(text, inline, way, None)
    return _cut(text, [one for one in said if one.path[: len(way)] == way])


def _statements(text: str) -> Iterator[Statement]:
    """Yield what a text says, in its order."""
    at, table = 0, tuple[str, ...]()
    while True:
        space = _SPACE.match(text, at)
        first = space.end() if space else at
        if first >= len(text):
            return
        start, at = text.rfind("\n", 0, first) + 1, _end(text, first)
        if text[first] == "[":
            table = _names(_loads(text[first:at]))
            yield Statement(start, at, table, is_one=not text.startswith("[[", first))
        else:
            key = _KEY.match(text, first)
            yield Statement(start, at, table, _names(_loads(f"{key[0] if key else ''}= 0")))


def _end(text: str, at: int) -> int:
    """Return where the line ends that ends a statement."""
    depth = 0
    while token := _TOKEN.match(text, at):
        at, mark = token.end(), token["mark"]
        depth += 1 if mark in ("[", "{") else -1 if mark in ("]", "}") else 0
        if mark == "\n" and depth <= 0:
            break
    return at


def _names(found: Any) -> tuple[str, ...]:  # noqa: ANN401  tables in tables, or in lists of one
    made = list[str]()
    while found and isinstance(found, dict | list):
        if isinstance(found, dict):
            made += found
        found = found[made[-1]] if isinstance(found, dict) else found[0]
    return tuple(made)


def _cut(text: str, mine: Sequence[Statement]) -> str:
    """Return a text without statements; of two empty lines that meet then, one goes.  Comments stay."""
    spans = list[tuple[int, int]]()
    for one in mine:
        if spans and not text[spans[-1][1] : one.start].strip():
            spans[-1] = (spans[-1][0], one.end)
        else:
            spans.append((one.start, one.end))
    for start, end in reversed(spans):
        before, after = text[:start], text[end:]
        if not after or after.startswith(("\n", "\r\n")):
            before = re.sub(r"(\A|\n)\r?\n\Z", r"\1", before)
        text = before + after
    return text


def _renewed(text: str, mine: Sequence[Statement], value: Mapping[str, Any], line: str) -> str:
    """Return a text in which a table says something else; lines in it that are right already stay, and comments."""
    table, rest, at = mine[0].path, dict(value), mine[0].end
    changes = list[tuple[int, int, str]]()
    for one in mine[1:]:
        name = one.names[0] if one.table == table and len(one.names) == 1 else ""
        made = ""
        if name in rest:
            said, at = {name: rest.pop(name)}, one.end
            if _loads(text[one.start : one.end]) == said:
                continue
            made = _lines(said, line)
        changes.append((one.start, one.end, made))
    gap = line if rest and not text[:at].endswith("\n") else ""
    changes.append((at, at, gap + _lines(rest, line)))
    for start, end, made in sorted(changes, reverse=True):
        text = text[:start] + made + text[end:]
    return text


def _lines(value: Mapping[str, Any], line: str) -> str:
    import tomlkit  # noqa: PLC0415  only one client keeps TOML

    return "".join(f"{_name(name)} = {tomlkit.item(_inline(item)).as_string()}{line}" for name, item in value.items())


def _name(name: str) -> str:
    import tomlkit  # noqa: PLC0415  as above

    return tomlkit.key(name).as_string()


def _inline(value: object) -> object:
    if not isinstance(value, dict):
        return value
    import tomlkit  # noqa: PLC0415  as above

    made = tomlkit.inline_table()
    made.update(value)
    return made


# --- a table in a line of another ---------------------------------------------------------------------------


def _inline_above(text: str, said: Sequence[Statement], way: tuple[str, ...]) -> Statement | None:
    """Return the statement in whose value a table is, or is to be."""
    above = (one for one in said if one.names and len(one.path) < len(way) and one.path == way[: len(one.path)])
    return next((one for one in above if "{" in text[one.start : one.end]), None)


def _within(text: str, one: Statement, way: tuple[str, ...], value: Mapping[str, Any] | None) -> str:
    """Return a text with another value of one statement."""
    import tomlkit  # noqa: PLC0415  as above

    document = tomlkit.parse(text[one.start : one.end])
    *names, last = way[len(one.table) :]
    at: Any = document
    for name in names:
        if name not in at:
            at[name] = tomlkit.inline_table()
        at = at[name]
    if value is None:
        del at[last]
    else:
        at[last] = _inline(dict(value))
    return text[: one.start] + tomlkit.dumps(document) + text[one.end :]
