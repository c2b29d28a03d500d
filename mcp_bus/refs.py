r"""What a step's text and condition say of the results of other steps.  Pure.

    Summarise {{gather}} for {{ scan.repo.name }}.        a reference: a step, and a path into its JSON result
    lint.passed == true                                    a condition: a reference, compared with a JSON value
    not lint.findings                                      or by itself, for whether it is there and not empty

`\{{` stands for two braces that begin no reference.
"""

from __future__ import annotations

import json
import operator
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from mcp_bus.errors import InvalidRequest
from mcp_bus.model import MAX_CONTENT, NOTHING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_PATH = r"(?P<step>[a-z0-9][a-z0-9_-]*)(?P<path>(?:\.[A-Za-z0-9_-]+)*)"
# One scan for what is looked for and what is filled in, so that both see the same; what comes out is not scanned again.
_BRACES = re.compile(rf"\\\{{\{{|\{{\{{\s*{_PATH}\s*\}}\}}|\{{\{{(?P<odd>[^{{}}\n]{{0,60}})\}}\}}")
# Blanks stand where only one part can take them: where two can, a long run of them takes its square of time.
_CONDITION = re.compile(
    rf"\s*(?P<negated>not\s+)?{_PATH}(?:\s*(?P<sign>==|!=|<=|>=|<|>)\s*(?P<value>\S(?:.*\S)?))?\s*\Z"
)
_SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
MISSING = object()
# A result up to this size, in bytes, is put into the task that needs it; of larger ones its place and hash.
INLINE = 8 * 1024


class Reference(NamedTuple):
    """A step, and where in its result."""

    step: str
    path: tuple[str, ...]


class Condition(NamedTuple):
    """What must hold of a reference; without a `sign`, that it is there and not empty."""

    of: Reference
    is_negated: bool
    sign: str
    value: Any


def _reference(match: re.Match[str]) -> Reference:
    return Reference(match["step"], tuple(match["path"].split(".")[1:]))


def references(text: str) -> list[Reference]:
    """Return what a text refers to.

    Raises:
        InvalidRequest: something in double braces is no reference.
    """
    found = list(_BRACES.finditer(text))
    odd = next((match["odd"] for match in found if match["odd"] is not None), None)
    if odd is not None:
        msg = f"{odd.strip()!r} in double braces is no reference to a step"
        raise InvalidRequest(msg, hint=r"write {{step}} or {{step.field}}, or \{{ for braces as they are")
    return [_reference(match) for match in found if match["step"] is not None]


def fill(text: str, results: Mapping[str, str], instead: Mapping[str, str] = NOTHING) -> str:
    """Return a text with each reference replaced by what it stands for.

    Args:
        results: of every step it names that has one.
        instead: what stands for results that are too large to be put in, and for large parts of them.

    Raises:
        InvalidRequest: it becomes too long.
    """
    known: dict[str, str] = {}
    size = 0

    def put(match: re.Match[str]) -> str:
        nonlocal size
        if match["step"] is None:
            return match[0].removeprefix("\\")
        if match[0] not in known:
            known[match[0]] = _filled(match, results, instead)
        size += len(known[match[0]])
        if size > MAX_CONTENT:
            msg = f"with its references filled in it has more than {MAX_CONTENT} characters"
            raise InvalidRequest(msg, hint="refer to less, or to parts")
        return known[match[0]]

    return _BRACES.sub(put, text)


def _filled(match: re.Match[str], results: Mapping[str, str], instead: Mapping[str, str]) -> str:
    if not match["path"] and match["step"] in instead:
        return instead[match["step"]]
    found = look(_reference(match), results)
    if found is MISSING:
        return f"(nothing: {lacks(_reference(match), results)})"
    text = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
    if len(text.encode(errors="replace")) > INLINE and match["step"] in instead:
        return f"({match['path'][1:]} of {instead[match['step']].strip('()')})"
    return text


def look(reference: Reference, results: Mapping[str, str]) -> Any:  # noqa: ANN401  a JSON value
    """Return what a reference stands for: a whole result as its text, a part of it as JSON; else `MISSING`."""
    text = results.get(reference.step)
    if text is None:
        return MISSING
    found: Any = text
    if reference.path:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return MISSING
    for name in reference.path:
        if isinstance(found, dict) and name in found:
            found = found[name]
        elif isinstance(found, list) and name.isdecimal() and int(name[:9]) < len(found):
            found = found[int(name[:9])]
        else:
            return MISSING
    return found


def condition(text: str) -> Condition:
    """Return what a condition says.

    Raises:
        InvalidRequest: it is none.
    """
    match, value = _CONDITION.match(text), None
    if match is not None and match["sign"]:
        try:
            value = json.loads(match["value"])
        except (ValueError, RecursionError):
            match = None
    if match is None or (match["negated"] and match["sign"]):
        msg = f"{text[:80]!r} is not a condition"
        hint = 'for example: lint.passed == true, scan.count > 3, lint.severity == "HIGH", not lint.findings; one each'
        raise InvalidRequest(msg, hint=hint)
    return Condition(_reference(match), bool(match["negated"]), match["sign"] or "", value)


def lacks(reference: Reference, results: Mapping[str, str]) -> str:
    """Say why there is nothing that a reference stands for; empty when there is."""
    if look(reference, results) is not MISSING:
        return ""
    if reference.step not in results:
        return f"{reference.step} has no result"
    try:
        json.loads(results[reference.step])
    except (ValueError, RecursionError):
        return f"the result of {reference.step} is no JSON"
    return f"{reference.step} has no {'.'.join(reference.path)}"


def holds(text: str, results: Mapping[str, str]) -> bool:
    """Tell whether a condition holds.  Of what is missing, and between things that have no order, nothing holds.

    A whole result is compared as the JSON that it is, and as a text where it is none, or is compared with one.
    """
    asked = condition(text)
    found = look(asked.of, results)
    if isinstance(found, str) and not asked.of.path and not (asked.sign and isinstance(asked.value, str)):
        with suppress(ValueError, RecursionError):
            found = json.loads(found)
    if not asked.sign:
        return (found is MISSING or not found) if asked.is_negated else (found is not MISSING and bool(found))
    if found is MISSING:
        return False
    if asked.sign in ("==", "!="):
        return _SIGNS[asked.sign]((type(found) is bool, found), (type(asked.value) is bool, asked.value))
    both = (found, asked.value)
    has_order = all(isinstance(item, str) for item in both) or all(
        isinstance(item, int | float) and not isinstance(item, bool) for item in both
    )
    return has_order and _SIGNS[asked.sign](*both)
