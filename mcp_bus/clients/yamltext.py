"""YAML as text: an entry of a table is put in, renewed or cut out; every line that is not of it stays as it is.  Pure.

The text has been read before, and is YAML.  `texts` reads what is made, and refuses what is not the old settings with
that one difference.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NULL = "tag:yaml.org,2002:null"
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_-]*\Z")


class _Pair(NamedTuple):
    """A name and its value, where they stand in a text."""

    key: Any
    value: Any

    @property
    def end(self) -> int:
        """Where its last character is; of an alias, which stands elsewhere, its name's."""
        return max(int(self.key.end_mark.index), _end(self.value))


def put(text: str, path: Sequence[str], value: Mapping[str, Any]) -> str:
    """Return a text with an entry, in the place of one that is there, else at the end of its table.

    Raises:
        ValueError: it is written in a way that is not changed here.
    """
    root = _root(text)
    if root is None or root.tag == _NULL:
        return _inserted(text, len(text), _lines(path, value, 0, 2, _line(text)))
    pairs, at = _way(root, path), root
    unit = _unit(root)
    for depth in range(len(path)):
        if depth == len(pairs):
            return _added(text, at, path[depth:], value, unit)
        at = pairs[depth].value
        if depth < len(path) - 1 and at.tag == _NULL:
            plain = text[: at.start_mark.index] + text[at.end_mark.index :]
            made = _lines(path[depth + 1 :], value, pairs[depth].key.start_mark.column + unit, unit, _line(text))
            return _inserted(plain, pairs[depth].key.end_mark.index, made)
    pair, above = pairs[-1], pairs[-2].value if len(pairs) > 1 else root
    if above.flow_style:
        start, end = _inner(pair)
        return text[:start] + json.dumps(value, ensure_ascii=False) + text[end:]
    start, end = _span(text, pair)
    made = _lines([str(path[-1])], value, pair.key.start_mark.column, unit, _line(text))
    return text[:start] + made + text[end:]


def drop(text: str, path: Sequence[str]) -> str:
    """Return a text without an entry that is there.

    Raises:
        ValueError: as of `put`.
    """
    pairs = _way(_root(text), path)
    *_, above, pair = pairs
    inside = [_Pair(*item) for item in above.value.value]
    index = next(number for number, one in enumerate(inside) if one.key is pair.key)
    if above.value.flow_style:
        start, end = pair.key.start_mark.index, _inner(pair)[1]
        if index + 1 < len(inside):
            end = inside[index + 1].key.start_mark.index
        elif index:
            start = inside[index - 1].end
        return text[:start] + text[end:]
    start, end = _span(text, pair)
    text = text[:start] + text[end:]
    if len(inside) == 1:
        colon = text.index(":", above.key.end_mark.index) + 1
        text = f"{text[:colon]} {{}}{text[colon:]}"
    return text


def _root(text: str) -> Any:  # noqa: ANN401  a node, or None
    from ruamel.yaml import YAML as Yaml  # noqa: PLC0415, N811  only one client keeps YAML

    return Yaml(typ="safe", pure=True).compose(text)


def _way(root: Any, path: Sequence[str]) -> list[_Pair]:  # noqa: ANN401  as above
    """Return the pairs that lead to an entry, as far as they are there."""
    made, at = list[_Pair](), root
    for name in path:
        items = at.value if isinstance(at.value, list) else []
        found = next((_Pair(*item) for item in items if isinstance(item, tuple) and item[0].value == name), None)
        if found is None:
            break
        made.append(found)
        at = found.value
    return made


def _end(node: Any) -> int:  # noqa: ANN401  as above
    """Return where a value ends; comments and empty lines behind a table are not of it."""
    if isinstance(node.value, list) and node.value and not node.flow_style:
        last = node.value[-1]
        return _Pair(*last).end if isinstance(last, tuple) else _end(last)
    return int(node.end_mark.index)


def _inner(pair: _Pair) -> tuple[int, int]:
    """Return where a value in braces begins and ends."""
    start, end = pair.value.start_mark.index, pair.value.end_mark.index
    if start < pair.key.end_mark.index:
        msg = "the entry is an alias"
        raise ValueError(msg)
    return start, end


def _span(text: str, pair: _Pair) -> tuple[int, int]:
    """Return where the lines of a pair begin and end."""
    start = text.rfind("\n", 0, pair.key.start_mark.index) + 1
    if text[start : pair.key.start_mark.index].strip(" "):
        msg = "the entry does not begin its line"
        raise ValueError(msg)
    return start, _line_end(text, pair.end)


def _line_end(text: str, at: int) -> int:
    if text[at - 1 : at] == "\n":
        return at
    found = text.find("\n", at)
    return found + 1 if found >= 0 else len(text)


def _line(text: str) -> str:
    return "\r\n" if "\r\n" in text and text.count("\n") == text.count("\r\n") else "\n"


def _inserted(text: str, at: int, made: str) -> str:
    """Return a text with lines below the one that a place is in."""
    at = _line_end(text, at)
    gap = "" if text[:at].endswith("\n") or not at else _line(text)
    return text[:at] + gap + made + text[at:]


def _added(text: str, table: Any, path: Sequence[str], value: Mapping[str, Any], unit: int) -> str:  # noqa: ANN401  as above
    """Return a text with one more entry at the end of a table."""
    if table.flow_style:
        said: Any = value
        for name in reversed(path[1:]):
            said = {name: said}
        end = table.end_mark.index - 1
        comma = ", " if table.value else ""
        before = text[:end].rstrip(" ")
        return f"{before}{comma}{_name(path[0])}: {json.dumps(said, ensure_ascii=False)}{text[len(before) :]}"
    return _inserted(text, _end(table), _lines(path, value, table.start_mark.column, unit, _line(text)))


def _unit(root: Any) -> int:  # noqa: ANN401  as above
    """Return by how much a text is indented."""
    for _, inner in root.value if isinstance(root.value, list) else ():
        if isinstance(inner.value, list) and inner.value and not inner.flow_style and isinstance(inner.value[0], tuple):
            return max(1, int(inner.start_mark.column - root.start_mark.column))
    return 2


def _lines(path: Sequence[str], value: Mapping[str, Any], column: int, unit: int, line: str) -> str:
    rows = [" " * (column + unit * depth) + f"{_name(name)}:" for depth, name in enumerate(path)]
    indent = " " * (column + unit * len(path))
    rows += [f"{indent}{_name(name)}: {json.dumps(said, ensure_ascii=False)}" for name, said in value.items()]
    return "".join(row + line for row in rows)


def _name(name: str) -> str:
    return name if _PLAIN.match(name) else json.dumps(name, ensure_ascii=False)
