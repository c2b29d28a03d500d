"""What keeps the check of a result short: schema and result may come from two strangers.  Pure.

A pattern is refused if a group that repeats has a choice or a repetition in it; of one with several endless repetitions
only short texts are looked at, for the work grows with that power of the length.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Check = Callable[[Any, Any, Any, Any], Iterator[Any]]

KEYWORDS = ("pattern", "patternProperties", "uniqueItems")
MAX_PATTERN = 200
# Characters of a text that a pattern with so many endless repetitions looks at.
LENGTHS = (10**6, 10**6, 2000, 200, 50)
MAX_UNIQUE = 500
# Schemas that one check goes through; a chain of references can double with each link.
MAX_STEPS = 20_000
_ESCAPE, _CLASS = re.compile(r"\\."), re.compile(r"\[\^?\]?[^\]]*\]")
_FIXED, _ENDLESS = re.compile(r"\{\d+\}"), re.compile(r"[*+]|\{\d*,\}")


class TooMuch(ValueError):
    """A check would take too long."""


def _bare(pattern: str) -> str:
    """Return a pattern with only what groups, chooses and repeats."""
    return _FIXED.sub("", _CLASS.sub("x", _ESCAPE.sub("x", pattern)))


def check_pattern(pattern: str) -> None:
    """Refuse a pattern that may not end.

    Raises:
        ValueError: says why.
    """
    bare, opened = _bare(pattern), list[int]()
    is_nested = False
    for at, char in enumerate(bare):
        if char == "(":
            opened.append(at)
        elif char == ")" and opened:
            inside, after = bare[opened.pop() + 1 : at], bare[at + 1 : at + 2]
            is_nested |= after in ("*", "+", "{") and bool(re.search(r"[*+{|]|[^(]\?", inside))
    if len(pattern) > MAX_PATTERN or is_nested or len(_ENDLESS.findall(bare)) >= len(LENGTHS):
        msg = f"the pattern {pattern[:80]!r} is too long, or repeats what repeats or chooses"
        raise ValueError(msg)


def _reach(pattern: str) -> int:
    """Return how long a text a pattern may look at."""
    return LENGTHS[min(len(_ENDLESS.findall(_bare(pattern))), len(LENGTHS) - 1)]


def bounded(name: str, check: Check) -> Check:
    """Return a keyword's check that refuses what would take too long."""

    def short(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:  # noqa: ANN401  the library's own form
        patterns = [value] if name == "pattern" else value if name == "patternProperties" else ()
        texts = [instance] if isinstance(instance, str) else instance if isinstance(instance, dict) else ()
        if any(len(text) > _reach(pattern) for pattern in patterns for text in texts):
            msg = "a text is too long for the pattern that it must match"
            raise TooMuch(msg)
        if name == "uniqueItems" and isinstance(instance, list) and len(instance) > MAX_UNIQUE:
            msg = f"a list has more than {MAX_UNIQUE} items that must differ"
            raise TooMuch(msg)
        yield from check(validator, value, instance, schema)

    return short


def counted(checks: Mapping[str, Check], known: Mapping[str, Check]) -> dict[str, Check]:
    """Return checks with references that are counted, so that a chain of them comes to an end."""
    steps = 0

    def counting(check: Check) -> Check:
        def once(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:  # noqa: ANN401  as above
            nonlocal steps
            steps += 1
            if steps > MAX_STEPS:
                msg = "its schema refers to itself too often"
                raise TooMuch(msg)
            yield from check(validator, value, instance, schema)

        return once

    return {**checks, **{name: counting(known[name]) for name in ("$ref", "$dynamicRef")}}
