"""What a result must be, checked before it is accepted: results are untrusted input.

K1  The result of a task with a schema is JSON that meets it; also as the one fenced block of a text.
K2  Before the check, words of an enumeration and names of properties that differ in case, spaces, dashes or
    underscores only become those of the schema: models and languages disagree on these and mean the same.
K3  With `claims`, a result has a list `claims`, and wherever one stands in a result that has a contract, each claim
    has a `label` of `LABELS`; a FACT names its `evidence`.
K4  A schema refers to nothing outside itself: a check fetches nothing.  That it ends is seen to by `checking`.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from mcp_bus.errors import InvalidRequest, ResultRejected
from mcp_bus.model import MAX_CONTENT
from mcp_bus.plain import clean, cut

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


LABELS = ("FACT", "INFERENCE", "ASSUMPTION", "UNKNOWN")
MAX_SCHEMA = 32 * 1024
SHOWN = 5
# References that lead to references.
MAX_LEADS = 16
_SPACING = re.compile(r"[\s_-]+")


def check_schema(schema: object) -> Mapping[str, Any]:
    """Return a JSON Schema if it is one that results can be checked with (rule K4).

    Raises:
        InvalidRequest: it is none, it is too large, or it refers to something else.
    """
    from jsonschema import SchemaError  # noqa: PLC0415  100 ms that only a task with a schema should pay

    if not isinstance(schema, dict) or not schema:
        msg = f"{cut(clean(json.dumps(schema, default=str)), 60)} is not a JSON Schema"
        raise InvalidRequest(msg, hint='an object, for example {"type": "object", "required": ["passed"]}')
    try:
        _check_size(len(json.dumps(schema, allow_nan=False)))
        _validator({}).check_schema(schema)
        _check_within(schema, schema)
    except InvalidRequest:
        raise
    except (SchemaError, ValueError, TypeError, RecursionError) as error:
        words = error.message if isinstance(error, SchemaError) else str(error)
        at = f" at {_path(error.absolute_path)}" if isinstance(error, SchemaError) else ""
        msg = f"the result schema is no JSON Schema{at}: {cut(clean(words), 160)}"
        raise InvalidRequest(msg, hint="see json-schema.org, draft 2020-12") from None
    return schema


def _check_size(size: int) -> None:
    if size > MAX_SCHEMA:
        msg = f"the result schema has {size} bytes, the limit is {MAX_SCHEMA}"
        raise InvalidRequest(msg, hint="check what matters, and leave the rest open")


def check_both(schema: Mapping[str, Any] | None, *, claims: bool) -> None:
    """Refuse a contract that no result can meet: a schema that leaves no room for the claims that are asked for.

    Raises:
        InvalidRequest: says why.
    """
    if schema is None or not claims:
        return
    kinds = schema.get("type", "object")
    has_room = "object" in (kinds if isinstance(kinds, list) else [kinds])
    is_closed = schema.get("additionalProperties") is False and "claims" not in schema.get("properties", {})
    if not has_room or is_closed:
        why = 'allows no field "claims"' if has_room else "is not of an object"
        msg = f"claims asks for a list of claims in the result, and its schema {why}"
        raise InvalidRequest(msg, hint='let the schema be of an object with "claims", or leave claims out')


def _check_within(node: object, root: object) -> None:
    for name, value in _members(node):
        if name in ("$ref", "$dynamicRef") and isinstance(value, str) and not value.startswith("#"):
            msg = f"it refers to {value[:80]!r}, outside itself"
            raise ValueError(msg)
        if name in ("$ref", "$dynamicRef") and not isinstance(_resolved({"$ref": value}, root), dict | bool):
            msg = f"it refers to {str(value)[:80]!r}, which is no schema in it, or only leads on and on"
            raise ValueError(msg)
        _check_within(value, root)


def _members(node: object) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        yield from node.items()
    elif isinstance(node, list):
        yield from (("", item) for item in node)


def _validator(schema: Mapping[str, Any]) -> Any:  # noqa: ANN401  the library gives its validators no type
    from jsonschema import Draft202012Validator  # noqa: PLC0415  as above
    from referencing import Registry  # noqa: PLC0415  as above

    return Draft202012Validator(schema, registry=Registry())


def accept(text: str, schema: Mapping[str, Any] | None, *, claims: bool) -> str:
    """Return a result as it is kept: the text itself, or its JSON with the schema's own words (rules K1 to K3).

    Raises:
        ResultRejected: it breaks its contract; says where, and how.
    """
    if schema is None and not claims:
        _check_free(text)
        return text
    try:
        value = _parsed(text)
    except (ValueError, RecursionError) as error:
        value = text
        if claims or not _takes_text(schema):
            msg = f"the result is no JSON, alone or as its one fenced block: {cut(clean(str(error)), 120)}"
            raise ResultRejected(msg, hint="give the JSON alone, or in one fenced block") from None
    try:
        made = _normal(value, schema, schema) if schema is not None else value
        complaints = list(_complaints(made, schema)) + list(_claimed(made, is_needed=claims))
    except RecursionError:
        msg = "the result is nested too deeply"
        raise ResultRejected(msg, hint="give a flatter one") from None
    except (ArithmeticError, LookupError, ValueError, MemoryError) as error:
        msg = f"the result cannot be checked: {cut(clean(str(error)), 120)}"
        raise ResultRejected(msg, hint="give plain JSON with numbers of usual size") from None
    if complaints:
        more = f"; and {len(complaints) - SHOWN} more" if len(complaints) > SHOWN else ""
        msg = f"the result breaks its contract: {'; '.join(complaints[:SHOWN])}{more}"
        raise ResultRejected(msg)
    kept = text if made is text else _written(made)
    if len(kept.encode(errors="replace")) > MAX_CONTENT:
        msg = f"the result has more than {MAX_CONTENT} bytes once it is written out"
        raise ResultRejected(msg, hint="put large data into a file, and name it as an artifact")
    return kept


def _written(value: Any) -> str:  # noqa: ANN401  JSON
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        msg = "the result has a number that is too large"
        raise ResultRejected(msg, hint="give it as a text") from None


def _check_free(text: str) -> None:
    """Refuse claims without evidence in a result that nothing else is asked of; the text stays as it is (rule K3)."""
    try:
        value = _parsed(text)
    except (ValueError, RecursionError):
        return
    complaints = list(_claimed(value, is_needed=False))
    if complaints:
        msg = f"the result breaks its contract: {'; '.join(complaints[:SHOWN])}"
        raise ResultRejected(msg)


def _parsed(text: str) -> Any:  # noqa: ANN401  JSON
    def refuse(name: str) -> Any:  # noqa: ANN401  never returns
        msg = f"{name} is no JSON number"
        raise ValueError(msg)

    try:
        return json.loads(text, parse_constant=refuse)
    except ValueError:
        blocks = _fenced(text)
        if len(blocks) != 1:
            raise
        return json.loads(blocks[0], parse_constant=refuse)


def _fenced(text: str) -> list[str]:
    """Return what stands in the fenced blocks of a text, in one pass."""
    made, inside = list[str](), list[str]()
    is_open = False
    for line in text.splitlines():
        if line.startswith("```") and (is_open or line[3:].strip().lower() in ("", "json")):
            if is_open:
                made.append("\n".join(inside))
            is_open, inside = not is_open, []
        elif is_open:
            inside.append(line)
    return made


def _takes_text(schema: Mapping[str, Any] | None) -> bool:
    kind = schema.get("type") if schema is not None else None
    return "string" in (kind if isinstance(kind, list) else [kind])


def _complaints(value: object, schema: Mapping[str, Any] | None) -> Iterator[str]:
    if schema is None:
        return
    found = sorted(_validator(schema).iter_errors(value), key=lambda error: list(map(str, error.absolute_path)))
    for error in found:
        yield f"{_path(error.absolute_path)}: {cut(clean(error.message), 160)}"


def _path(parts: Any) -> str:  # noqa: ANN401  a deque of names and numbers
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{cut(clean(str(part)), 60)}" for part in parts)


# --- the seam -------------------------------------------------------------------------------------


def _normal(value: Any, schema: Any, root: Any) -> Any:  # noqa: ANN401  JSON
    """Return a value with the schema's own spelling of what it says (rule K2)."""
    schema = _resolved(schema, root)
    if not isinstance(schema, dict):
        return value
    for word in ("allOf", "anyOf", "oneOf"):
        for inner in schema.get(word, ()):
            value = _normal(value, inner, root)
    if isinstance(value, str):
        return _member(value, schema)
    if isinstance(value, list):
        items = schema.get("items")
        return [_normal(item, items, root) for item in value]
    properties = schema.get("properties")
    if not isinstance(value, dict) or not isinstance(properties, dict):
        return value
    spelled = {_plain(name): name for name in properties}
    made: dict[str, Any] = {}
    for name, item in value.items():
        known = name if name in properties else str(spelled.get(_plain(name), name))
        known = name if known in value or known in made else known
        made[known] = _normal(item, properties.get(known), root)
    return made


def _resolved(schema: Any, root: Any) -> Any:  # noqa: ANN401  JSON
    """Follow references within the schema; None for one that leads nowhere, or on and on."""
    for _ in range(MAX_LEADS):
        if not isinstance(schema, dict) or not isinstance(schema.get("$ref"), str):
            return schema
        schema = _pointed(schema["$ref"], root)
    return None


def _pointed(reference: str, root: Any) -> Any:  # noqa: ANN401  JSON
    """Return what a pointer such as `#/$defs/item` leads to; anchors are not followed."""
    head, slash, path = reference.partition("/")
    found = root if head == "#" else None
    for part in path.split("/") if slash else ():
        name = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(found, list):
            found = found[int(name)] if name.isdecimal() and int(name[:6]) < len(found) else None
        else:
            found = found.get(name) if isinstance(found, dict) else None
    return found


def _member(value: str, schema: Mapping[str, Any]) -> str:
    known = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if not isinstance(known, list) or value in known:
        return value
    meant = [item for item in known if isinstance(item, str) and _plain(item) == _plain(value)]
    return meant[0] if len(meant) == 1 else value


def _plain(text: str) -> str:
    return _SPACING.sub("", text).casefold()


# --- what is claimed --------------------------------------------------------------------------------


def _claimed(value: Any, *, is_needed: bool, at: str = "$") -> Iterator[str]:  # noqa: ANN401  JSON
    """Complain of claims without a label, and of facts without evidence (rule K3); spell their labels alike."""
    claims = value.get("claims") if isinstance(value, dict) else None
    if isinstance(claims, list):
        yield from _labelled(claims, at)
    elif is_needed or claims is not None:
        yield f"{at}.claims: a list of claims is wanted here"
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in inner:
        if isinstance(item, dict | list) and item is not claims:
            yield from _claimed(item, is_needed=False, at=at + _path([name])[1:])


def _labelled(claims: list[Any], where: str) -> Iterator[str]:
    for number, claim in enumerate(claims):
        at, label = f"{where}.claims[{number}]", claim.get("label") if isinstance(claim, dict) else None
        if not isinstance(label, str) or label.strip().upper() not in LABELS:
            yield f"{at}.label: one of {', '.join(LABELS)} is wanted here"
            continue
        claim["label"] = label.strip().upper()
        evidence = claim.get("evidence")
        is_shown = isinstance(evidence, list) and all(isinstance(item, str) and item.strip() for item in evidence)
        if claim["label"] == "FACT" and not (is_shown and evidence):
            yield f"{at}.evidence: a FACT names its evidence, a list of ids; without any it is an ASSUMPTION"
