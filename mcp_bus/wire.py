"""JSON <-> model, strict in both directions.

Readers refuse what strict JSON refuses (duplicate keys, NaN, lone surrogates, absurd depth) and
keep what they do not know; writers only write what `docs/protocol.md` names.  The outer fields are
abq 1.0's; everything of ours is under the one key `bus`.
"""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

from mcp_bus.errors import CorruptRecord, InvalidRequest
from mcp_bus.model import (
    MAX_CONTENT,
    NOTHING,
    PRIORITIES,
    Artifact,
    Body,
    Result,
    Secret,
    Sender,
)
from mcp_bus.names import KEY, TASK_ID, check_place

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

VERSION = "1.0.0"
FORMAT = 1
# Fields of a body that are written only where they say something.
_WHEN_SET = (
    "title", "thread", "priority", "not_before", "deadline", "key", "retry_of", "supersedes", "hops", "plan", "node",
    "parent", "depth", "result_schema", "claims",
)  # fmt: skip
TYPES = frozenset({"task", "signal", "command", "eval", "status", "note", "ack", "heartbeat", "state", "call", "bid"})
# Room for the content, escaped (a control character takes six bytes), and everything around it.
MAX_FILE = 8 * MAX_CONTENT
MAX_DEPTH = 64
# Agents, and keys, that one message is encrypted to.
MAX_READERS = 32
READER = r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{1,160}\Z"
# Seconds after which abq's `gc` puts a message aside, where ours has no end: ten years.
NO_END = 315_360_000
LAST = 253_402_300_799_999  # The end of the year 9999; later times are shown as that.
_KNOWN = frozenset({"id", "version", "type", "from", "to", "content", "timestamp", "ttl", "reply_to", "bus"})
_compact: Callable[[Any], str] = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
).encode


def _refuse(what: str) -> NoReturn:
    raise CorruptRecord(what)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        _refuse("it has the same key twice")
    return made


def _constant(name: str) -> NoReturn:
    _refuse(f"{name} is not JSON")


def _float(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else _constant(digits[:40])


_decode: Callable[[str], Any] = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_constant=_constant, parse_float=_float
).decode


def loads(data: bytes) -> dict[str, Any]:
    """Parse one strict JSON object.

    Raises:
        CorruptRecord: says what is wrong with it.
    """
    try:
        text = data.decode("utf-8")
        value = _decode(text)
    except UnicodeDecodeError:
        _refuse("it is not UTF-8")
    except RecursionError:
        _refuse(f"it is nested deeper than {MAX_DEPTH}")
    except ValueError as error:
        _refuse(f"it is not JSON: {error}")
    if not isinstance(value, dict):
        _refuse("it is not a JSON object")
    if text.count("{") + text.count("[") > MAX_DEPTH:
        _check_depth(value)
    if "\\ud" in text or "\\uD" in text:
        _check_surrogates(value)
    return value


def _check_depth(value: object) -> None:
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return
    _refuse(f"it is nested deeper than {MAX_DEPTH}")


def _check_surrogates(value: object) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        _refuse("it has half a surrogate pair")


def dumps(value: object) -> bytes:
    """Return one line of strict JSON, UTF-8, with a newline.

    Raises:
        InvalidRequest: it cannot be written as strict JSON (NaN, half a surrogate pair).
    """
    try:
        return (_compact(value) + "\n").encode()
    except (ValueError, TypeError, RecursionError) as error:
        msg = f"this cannot be written as JSON: {error}"
        raise InvalidRequest(msg, hint="send plain text or plain JSON data") from None


def text_of(content: object) -> str:
    """Return content as the text that is stored: a string as it is, other data as JSON."""
    if isinstance(content, str):
        return content
    return dumps(content)[:-1].decode()


_EPOCH = datetime.fromtimestamp(0, UTC)


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def stamp(ms: int) -> str:
    """Return a time as RFC 3339 in UTC, to the millisecond."""
    ms = max(0, min(ms, LAST))
    return f"{_second(ms // 1000)}.{ms % 1000:03d}Z"


def unstamp(text: object) -> int:
    """Read an RFC 3339 time; 0 when it is not one, or before 1970 (a sender's clock is shown, never obeyed)."""
    try:
        # Whole numbers all the way: through a float, every thirtieth millisecond would come back as the one before.
        return max(0, (datetime.fromisoformat(str(text)).astimezone(UTC) - _EPOCH) // timedelta(milliseconds=1))
    except (ValueError, OverflowError, OSError):
        return 0


def _sender(value: object) -> Sender:
    if not isinstance(value, dict):
        _refuse("'from' is not an object")
    agent, pid, pwd = value.get("agent"), value.get("pid", 0), value.get("pwd", "")
    if not isinstance(agent, str) or not isinstance(pwd, str) or type(pid) is not int:
        _refuse("'from' needs agent (text), pid (number) and pwd (text)")
    return Sender(agent, pid, pwd)


def _origin(sender: Sender) -> dict[str, Any]:
    return {"agent": sender.agent, "pid": sender.pid, "pwd": sender.pwd}


def dump_body(body: Body) -> bytes:
    """Write a message, with defaults left out of `bus`.

    Raises:
        InvalidRequest: content over the limit, or text that is not valid Unicode.
    """
    size = len(body.content)
    if size > MAX_CONTENT or (size * 4 > MAX_CONTENT and len(body.content.encode(errors="replace")) > MAX_CONTENT):
        msg = f"the body is over the limit of {MAX_CONTENT} bytes"
        raise InvalidRequest(msg, hint="put large data in a file and send its path")
    outer: dict[str, Any] = {
        "id": body.id,
        "version": VERSION,
        "type": body.type,
        "from": _origin(body.sender),
        "to": body.channel,
        "content": body.content,
        "timestamp": stamp(body.created),
        "ttl": body.ttl or (-(-(body.deadline - body.created) // 1000) if body.deadline else NO_END),
    }
    if body.reply_to:
        outer["reply_to"] = body.reply_to
    ours: dict[str, Any] = dict(body.extra)
    for key in _WHEN_SET:
        value = getattr(body, key)
        if value or isinstance(value, dict):  # An empty schema is one, too: the result has to be JSON.
            ours[key] = value
    if body.max_attempts is not None:
        ours["max_attempts"] = body.max_attempts
    if body.backoff_s is not None:
        ours["backoff_s"] = body.backoff_s
    ours |= {name: list(value) for name in ("requires", "inputs") if (value := getattr(body, name))}
    ours |= _covered(body.encrypted)
    if ours:
        outer["bus"] = ours
    return dumps(outer)


def _covered(secret: Secret | None) -> dict[str, Any]:
    return {"encrypted": {"to": list(secret.to), "kids": list(secret.kids)}} if secret is not None else {}


def _secret(ours: dict[str, Any]) -> Secret | None:
    """Read to whom something is encrypted (rule EN1); said wrong, it must not make that look like plain text."""
    if "encrypted" not in ours:
        return None
    found = _take(ours, "encrypted", dict, {})
    to, kids = (found.get(name) for name in ("to", "kids"))
    for listed in (to, kids):
        if not isinstance(listed, list) or not 0 < len(listed) <= MAX_READERS:
            _refuse("bus.encrypted does not say to whom, and with which keys")
        if not all(isinstance(name, str) and re.match(READER, name) for name in listed):
            _refuse("bus.encrypted has something that is no name")
    return Secret(tuple(to), tuple(kids))


def _ours(outer: dict[str, Any]) -> dict[str, Any]:
    ours = outer.get("bus", {})
    if not isinstance(ours, dict):
        _refuse("'bus' is not an object")
    return dict(ours)


def _take(ours: dict[str, Any], key: str, kind: type | tuple[type, ...], default: Any) -> Any:  # noqa: ANN401  JSON
    value = ours.pop(key, default)
    if value is default:
        return default
    if not isinstance(value, kind) or isinstance(value, bool):
        _refuse(f"bus.{key} has the wrong type")
    most = 10**6 + 1 if key == "max_attempts" else 10**15
    if isinstance(value, int | float) and key != "priority" and not 0 <= value < most:
        _refuse(f"bus.{key} is out of range")
    return value


def load_body(data: bytes) -> Body:
    """Read a message of ours or of abq.

    Raises:
        CorruptRecord: it is not strict JSON, or a field is missing or has the wrong type.
    """
    outer = loads(data)
    task_id, content = outer.get("id"), outer.get("content")
    if not isinstance(task_id, str) or not TASK_ID.match(task_id):
        _refuse("'id' is missing or not an id")
    if not isinstance(content, str):
        _refuse("'content' is missing or not text")
    kind, channel = outer.get("type", "task"), outer.get("to")
    if not isinstance(kind, str):
        _refuse("'type' is not text")
    try:
        channel = check_place(channel)
    except InvalidRequest as error:
        _refuse(f"'to' is wrong: {error}")
    reply_to = outer.get("reply_to") or ""
    if not isinstance(reply_to, str):
        _refuse("'reply_to' is not text")
    ours = _ours(outer)
    requires = _take(ours, "requires", list, [])
    if not all(isinstance(name, str) for name in requires):
        _refuse("bus.requires is not a list of words")
    inputs = _take(ours, "inputs", list, [])
    if not all(isinstance(item, dict) for item in inputs):
        _refuse("bus.inputs is not a list of objects")
    key = _take(ours, "key", str, "")
    if key and not re.match(KEY, key):  # It becomes a file name.
        _refuse("bus.key is not a sha256 in hex")
    priority = _take(ours, "priority", int, 0)
    if priority not in PRIORITIES:
        _refuse("bus.priority is out of range")
    return Body(
        id=task_id,
        channel=channel,
        content=content,
        sender=_sender(outer.get("from")),
        created=unstamp(outer.get("timestamp")),
        type=kind,
        reply_to=reply_to,
        ttl=_ttl(outer.get("ttl"), ours),
        title=_take(ours, "title", str, ""),
        thread=_take(ours, "thread", str, ""),
        priority=priority,
        not_before=_take(ours, "not_before", int, 0),
        deadline=_take(ours, "deadline", int, 0),
        max_attempts=_take(ours, "max_attempts", int, None),
        backoff_s=_take(ours, "backoff_s", (int, float), None),
        requires=tuple(sorted({name.lower() for name in requires})),
        key=key,
        retry_of=_take(ours, "retry_of", str, ""),
        supersedes=_take(ours, "supersedes", str, ""),
        hops=_take(ours, "hops", int, 0),
        plan=_take(ours, "plan", str, ""),
        node=_take(ours, "node", str, ""),
        parent=_take(ours, "parent", str, ""),
        depth=_take(ours, "depth", int, 0),
        inputs=tuple(inputs),
        result_schema=_take(ours, "result_schema", dict, None),
        claims=ours.pop("claims", False) is True,
        encrypted=_secret(ours),
        extra=ours or NOTHING,
    )


def _ttl(value: object, ours: Mapping[str, Any]) -> int:
    """Return abq's ttl, if it says something of its own."""
    is_own = type(value) is int and 0 < value < NO_END and not ours.get("deadline")
    return value if is_own and isinstance(value, int) else 0


def dump_result(result: Result) -> bytes:
    """Write a response: abq's fields, and the attempt under `bus`."""
    return dumps(
        {
            "id": result.id,
            "version": VERSION,
            "status": result.status,
            "from": _origin(result.sender),
            "result": result.content,
            "error": result.error or None,
            "timestamp": stamp(result.at),
            "bus": {"attempt": result.attempt}
            | {key: value for key in ("token", "place") if (value := getattr(result, key))}
            | ({"artifacts": [item._asdict() for item in result.artifacts]} if result.artifacts else {})
            | ({"usage": dict(result.usage)} if result.usage else {})
            | _covered(result.encrypted),
        }
    )


def load_result(data: bytes) -> Result:
    """Read a response of ours or of abq.

    Raises:
        CorruptRecord: it is not one.
    """
    outer = loads(data)
    task_id, content = outer.get("id"), outer.get("result")
    if not isinstance(task_id, str) or not isinstance(content, str):
        _refuse("'id' or 'result' is missing or not text")
    ours = _ours(outer)
    return Result(
        id=task_id,
        content=content,
        sender=_sender(outer.get("from")),
        at=unstamp(outer.get("timestamp")),
        attempt=_take(ours, "attempt", int, 0),
        token=_take(ours, "token", str, ""),
        place=_take(ours, "place", str, ""),
        artifacts=_artifacts(ours),
        usage=_usage(ours),
        encrypted=_secret(ours),
        status=str(outer.get("status", "success")),
        error=str(outer.get("error") or ""),
    )


def _artifacts(ours: dict[str, Any]) -> tuple[Artifact, ...]:
    """Read what files a result names; one that is none is left out."""
    made: list[Artifact] = []
    for item in _take(ours, "artifacts", list, []):
        path, size, digest = (item.get(key) for key in Artifact._fields) if isinstance(item, dict) else (0, 0, 0)
        if isinstance(path, str) and type(size) is int and isinstance(digest, str) and re.match(KEY, digest):
            made.append(Artifact(path, size, digest))
    return tuple(made)


def _usage(ours: dict[str, Any]) -> dict[str, float]:
    """Read what a result took, by its worker's word; what is no number is left out."""
    found = _take(ours, "usage", dict, {})
    return {str(name): value for name, value in found.items() if type(value) in (int, float)}
