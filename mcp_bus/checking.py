"""Whether a result meets its task's contract, found out within a time limit.

Schema and result may come from two strangers, and there is no telling from a schema how long a check takes: patterns,
references and combinations can each be made to take for ever.  So a check that is short for certain is made here, and
any other in a process of its own, which is ended when its time is up.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from mcp_bus import contracts
from mcp_bus.errors import InvalidRequest, ResultRejected

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mcp_bus.model import Body

# What a check may take, in seconds and bytes of memory.
LIMIT_S = 5.0
MAX_MEMORY = 1024**3
# A check with nothing but these is short: at most as long as the product of schema and result.
_SHORT = frozenset({
    "$schema", "$id", "$comment", "title", "description", "default", "examples", "type", "enum", "const", "properties",
    "required", "items", "additionalProperties", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
    "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties",
})  # fmt: skip
MAX_PRODUCT = 2**23
_PROGRAM = "import sys; sys.path[:] = {path!r}; from mcp_bus.checking import main; main()"


def of(body: Body, text: str) -> str:
    """Return a result as it is kept, if it meets the contract of its task; a step of a plan always has one.

    Raises:
        ResultRejected: it does not; says where, and how.
        InvalidRequest: the contract is none that can be met.
    """
    schema = body.result_schema
    if not body.has_contract:
        return text
    if schema is not None:
        try:
            contracts.check_schema(schema)  # Another program may have written it.
        except InvalidRequest as error:
            msg = f"the contract of {body.id!r} cannot be met: {error}"
            raise InvalidRequest(msg, hint="fail it, with this as the reason") from None
    return accept(text, schema, claims=body.claims)


def accept(text: str, schema: Mapping[str, Any] | None, *, claims: bool) -> str:
    """Return a result as it is kept; see `contracts.accept`.

    Raises:
        ResultRejected: it breaks its contract, or whether it does cannot be found out in time.
    """
    if schema is None or (is_short(schema) and len(json.dumps(schema)) * len(text) <= MAX_PRODUCT):
        return contracts.accept(text, schema, claims=claims)
    import subprocess  # noqa: PLC0415  7 ms that no verb should pay

    asked = json.dumps({"text": text, "schema": schema, "claims": claims})
    try:
        done = subprocess.run(  # noqa: S603  our own program
            [sys.executable, "-c", _PROGRAM.format(path=sys.path)],
            input=asked.encode(),
            capture_output=True,
            timeout=LIMIT_S + 1,
            check=True,
        )
        answer = json.loads(done.stdout)
    except (subprocess.SubprocessError, ValueError):
        msg = f"the result cannot be checked within {LIMIT_S:g} s"
        raise ResultRejected(msg, hint="give a smaller one; if none passes, fail the task and say this") from None
    if "wrong" in answer:
        raise ResultRejected(str(answer["wrong"]), hint=str(answer["hint"]))
    return str(answer["kept"])


def is_short(schema: object) -> bool:
    """Tell whether a check with this schema is short for certain."""
    if isinstance(schema, bool) or schema is None:
        return True
    if not isinstance(schema, dict) or not _SHORT.issuperset(schema):
        return False
    properties = schema.get("properties", {})
    inner = [schema.get("items"), schema.get("additionalProperties")]
    inner += properties.values() if isinstance(properties, dict) else [properties]
    return all(map(is_short, inner))


def main() -> None:
    """Check what stdin asks for, and say on stdout how it went: the process that `accept` starts."""
    try:
        import resource  # noqa: PLC0415  not on every system
    except ImportError:
        resource = None  # type: ignore[assignment]  # the parent's time limit holds all the same
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (int(LIMIT_S), int(LIMIT_S)))
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    asked = json.load(sys.stdin)
    try:
        made = {"kept": contracts.accept(asked["text"], asked["schema"], claims=asked["claims"])}
    except ResultRejected as error:
        made = {"wrong": str(error), "hint": error.hint}
    json.dump(made, sys.stdout)
