"""Changes of inputs that keep their form, so that what is behind the first check is reached as well.

Bytes that are flipped are no JSON most of the time.  So half of the changes are made to the tree: a value replaced, a
field doubled, moved, renamed or removed, always written by a writer that can say what no strict writer would.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mcp_bus.signing import jws

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random


class Pairs(list[Any]):
    """An object as its fields in order, where one name may stand twice."""


class Raw(str):
    """Text that is written as it is, whether or not it is JSON."""

    __slots__ = ()


VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 3, 1.5, -9, 10, 10**6, 10**9, 10**15 - 1, 10**15, "", "x", "work", "@ann", "Ä", "\0",
    "req_0123456789abcdef", "2026-11-21T06:39:00.123Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999Z",
    "0" * 64, "../x", "a\nb", "\u202e", "\U0001f600", [], ["x"], [["x"]], Pairs(), Pairs([("x", 1)]), Raw("NaN"),
    Raw("-Infinity"), Raw("1e999"), Raw("-0.0"), Raw("-0"), Raw("1E5"), Raw("1e-400"), Raw(r'"\ud800"'),
    Raw(r'"\uD83D\uDE00"'),
    Raw("1" * 30), Raw("1" * 5000), Raw("[" * 70 + "]" * 70), Raw("01"), Raw("'x'"), Raw('"\\u0000"'), "x" * 70,
    "x" * 3000, ["x"] * 60,
)  # fmt: skip


def parts(data: bytes, chance: Random, words: Sequence[str]) -> bytes:
    """Change the JSON in one part of a signature or key in compact form."""
    found = data.split(b".")
    at = chance.randrange(len(found))
    try:
        inner = jws.unb64(found[at].decode("ascii"))
    except ValueError:
        return tree(data, chance, words)
    changed = tree(inner, chance, words) if inner.startswith(b"{") else inner[::-1]
    found[at] = jws.b64(changed).encode()
    return b".".join(found)


def tree(data: bytes, chance: Random, words: Sequence[str]) -> bytes:
    """Change one to three things in JSON; what is none is changed as text."""
    try:
        value = json.loads(data, object_pairs_hook=Pairs)
    except (ValueError, RecursionError):
        return text(data, chance, words)
    for _ in range(chance.randint(1, 3)):
        value = _changed(value, chance, words)
    try:
        return _written(value).encode("utf-8", "surrogatepass")
    except RecursionError:
        return data


def _changed(value: Any, chance: Random, words: Sequence[str]) -> Any:
    """Return a value with one change, somewhere in it."""
    if not isinstance(value, list) or not value or chance.random() < 0.1:
        return chance.choice(VALUES) if chance.random() < 0.8 else chance.choice(words)
    at = chance.randrange(len(value))
    if not isinstance(value, Pairs):
        made = list(value)
        made[at] = _changed(made[at], chance, words)
        return made + made[at : at + 1] if chance.random() < 0.2 else made
    fields, (name, inner) = Pairs(value), value[at]
    deed = chance.random()
    if deed < 0.55:
        fields[at] = (name, _changed(inner, chance, words))
    elif deed < 0.65:
        del fields[at]
    elif deed < 0.75:
        fields.insert(chance.randrange(len(fields) + 1), fields[at])
    elif deed < 0.85:
        fields[at] = (chance.choice((*words, "x" * 1500)), inner)
    else:
        fields.append((chance.choice(words), chance.choice(VALUES)))
    return fields


def _written(value: Any) -> str:
    if isinstance(value, Raw):
        return value
    if isinstance(value, Pairs):
        return "{" + ",".join(f"{json.dumps(name)}:{_written(inner)}" for name, inner in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def text(data: bytes, chance: Random, words: Sequence[str]) -> bytes:
    """Insert a word, or put it in the place of some bytes; at the end more often than elsewhere."""
    at = len(data) if chance.random() < 0.2 else chance.randrange(len(data) + 1)
    end = at if chance.random() < 0.6 else min(len(data), at + chance.randint(1, 12))
    return data[:at] + chance.choice(words).encode() + data[end:]


FORMS: dict[str, Callable[[bytes, Random, Sequence[str]], bytes]] = {"json": tree, "parts": parts, "text": text}
