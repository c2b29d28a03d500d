"""Plan files: JSON or YAML 1.2, strictly: a name twice, or a file that unfolds without end, is an error."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

import yaml

from mcp_bus import wire
from mcp_bus.errors import CorruptRecord, InvalidRequest
from mcp_bus.plain import clean, cut

if TYPE_CHECKING:
    from collections.abc import Hashable

MAX_FILE = 1024 * 1024
# Values in a file, and characters in its texts, counted as often as they are referred to.
MAX_VALUES = 100_000
MAX_TEXT = 4 * MAX_FILE


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # the library has no types
    """Plain data only, with every name once; a plain word is a number, true, false or null where YAML 1.2 says so."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:  # noqa: ANN401, FBT001, FBT002  the library's own form
        seen = set[str]()
        for key, _ in node.value:
            if key.value in seen:
                problem = f"found the name {key.value!r} twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(str(key.value))
        made: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return made


# The core schema of YAML 1.2 (10.3.2), and the merge key.  The library's own is that of 1.1, where `no` is false,
# 1:30 is 90, and 1e3 a text.
for _tag, _pattern, _first in (
    ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", "[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("merge", "<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), list(_first))


def load(text: str, name: str) -> object:
    """Return the data of a plan file.

    Args:
        name: what to call it in complaints.

    Raises:
        InvalidRequest: it is neither JSON nor YAML, or too large.
    """
    if len(text) > MAX_FILE:
        msg = f"{cut(clean(name), 100)!r} is larger than {MAX_FILE} bytes"
        raise InvalidRequest(msg, hint="put large texts into files and name their paths")
    with suppress(CorruptRecord):
        return wire.loads(text.encode())
    try:
        found = yaml.load(text, _Loader)  # noqa: S506  it is a safe loader
        _check_size(found)
        # What YAML knows and JSON does not, such as dates, is no part of a plan.
        return json.loads(json.dumps(found, allow_nan=False))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        why = getattr(error, "problem", None) or str(error).partition("\n")[0]
        msg = f"{cut(clean(name), 100)!r} is neither YAML nor JSON{where}: {cut(clean(why), 120)}"
        raise InvalidRequest(msg, hint="examples/plans has files to start from") from None
    except (TypeError, ValueError, RecursionError) as error:
        msg = f"{cut(clean(name), 100)!r} holds something that is no plain data: {cut(clean(str(error)), 120)}"
        braces = "unhashable" in str(error)
        hint = "quote a text that begins with {{" if braces else "use texts, numbers, true and false, lists and objects"
        raise InvalidRequest(msg, hint=hint) from None


def _check_size(value: object) -> None:
    """Count values as often as they are referred to, as far as the limit.

    Raises:
        ValueError: there are more.
    """
    left, count, size = [value], 0, 0
    while left:
        item = left.pop()
        count += 1
        size += len(item) if isinstance(item, str) else 0
        if count > MAX_VALUES or size > MAX_TEXT:
            msg = f"it unfolds to more than {MAX_VALUES} values, or {MAX_TEXT} characters"
            raise ValueError(msg)
        if isinstance(item, dict):
            left += item.values()
        elif isinstance(item, list):
            left += item
