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
    from collections.abc import Callable

MAX_FILE = 1024 * 1024
# Values in a file, and characters in its texts, counted as often as they are referred to.
MAX_VALUES = 100_000
MAX_TEXT = 4 * MAX_FILE


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # the library has no types
    """Plain data only; a plain word is a number, true, false or null where YAML 1.2 says so."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


# The core schema of YAML 1.2 (10.3.2).  The library's own is that of 1.1: `no` is false, 1:30 is 90, and 1e3 a text.
def _whole(text: str) -> int:
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


_CONSTANTS = {"true": True, "false": False, "~": None, "null": None, "": None}
_SCALARS: dict[str, tuple[str, str, Callable[[str], object]]] = {
    "bool": ("true|True|TRUE|false|False|FALSE", "tTfF", lambda text: _CONSTANTS[text.lower()]),
    "null": ("~|null|Null|NULL|", "~nN", lambda text: _CONSTANTS[text.lower()]),
    "int": ("[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789", _whole),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
        lambda text: float(text.replace(".inf", "inf").replace(".nan", "nan")),
    ),
}


def _construct(tag: str) -> Callable[[Any, Any], object]:
    pattern, _, made = _SCALARS[tag]

    def construct(loader: Any, node: Any) -> object:  # noqa: ANN401  the library has no types
        text = str(loader.construct_scalar(node))
        if re.fullmatch(pattern, text):
            return made(text.lower() if tag == "float" else text)
        problem = f"{text[:60]!r} is no {tag}"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)

    return construct


for _tag, (_pattern, _first, _) in _SCALARS.items():
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), [*_first, *([""] if _tag == "null" else [])]
    )
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _construct(_tag))
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile("<<\\Z"), ["<"])


def _check_names(root: Any) -> None:  # noqa: ANN401  the library has no types
    """Refuse a name that is no text, and one that stands twice in a mapping, before any of them are merged."""
    left, seen = [root], set[int]()
    while left:
        node = left.pop()
        if id(node) in seen or isinstance(node, yaml.ScalarNode):
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            left += node.value
            continue
        names = set[str]()
        for key, value in node.value:
            problem = ""
            if not isinstance(key, yaml.ScalarNode):
                problem = "found a name that is no text; quote a text that begins with {{"
            elif key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
                problem = f"the name {key.value!r} is no text; quote it"
            elif key.value in names:
                problem = f"found the name {key.value!r} twice"
            if problem:
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            names.add(key.value)
            left.append(value)


def _loaded(text: str) -> object:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_names(node)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def load(data: bytes, name: str) -> object:
    """Return the data of a plan file.

    Args:
        name: what to call it in complaints.

    Raises:
        InvalidRequest: it is neither JSON nor YAML, or too large.
    """
    if len(data) > MAX_FILE:
        msg = f"{cut(clean(name), 100)!r} is larger than {MAX_FILE} bytes"
        raise InvalidRequest(msg, hint="put large texts into files and name their paths")
    with suppress(CorruptRecord):
        return wire.loads(data)
    try:
        found = _loaded(data.decode("utf-8-sig"))
        _check_size(found)
        # What YAML knows and JSON does not, such as dates, is no part of a plan.
        return json.loads(json.dumps(found, allow_nan=False))
    except UnicodeDecodeError as error:
        msg = f"{cut(clean(name), 100)!r} is not UTF-8: {error.reason} at byte {error.start}"
        raise InvalidRequest(msg, hint="save it as UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        why = getattr(error, "problem", None) or str(error).partition("\n")[0]
        msg = f"{cut(clean(name), 100)!r} is neither YAML nor JSON{where}: {cut(clean(why), 120)}"
        raise InvalidRequest(msg, hint="examples/plans has files to start from") from None
    except (TypeError, ValueError, RecursionError, LookupError, AttributeError) as error:
        msg = f"{cut(clean(name), 100)!r} holds something that is no plain data: {cut(clean(str(error)), 120)}"
        hint = "use texts, numbers, true and false, lists and objects"
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
