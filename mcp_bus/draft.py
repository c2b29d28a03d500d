"""From what a caller asked for to a body that can be posted, or a clear refusal.  Pure."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mcp_bus import wire
from mcp_bus.errors import InvalidRequest
from mcp_bus.model import MAX_CONTENT, POST_OPTIONS, PRIORITIES, Body, Secret, Task, Ticket

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus.model import Policy, Sender

# Compiled when they are first used.
CAPABILITY = r"[A-Za-z0-9][A-Za-z0-9._:/+-]{0,63}\Z"
LEASE_WORD = r"[0-9a-f]{4,32}\Z"
USAGE = r"[a-z][a-z0-9_]{0,47}\Z"
MOST = 10**15
MAX_TITLE = 200
MAX_WORDS = 32
YEAR_S = 366 * 86_400.0
_EDITABLE = ("title", "thread", "reply_to", "key", "parent")


def check_number(name: str, value: object, *, low: float = 0, high: float = YEAR_S) -> float:
    """Return a number of seconds if it is one within the limits.

    Raises:
        InvalidRequest: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        msg = f"{name} is {value!r}, which is not a number from {low:g} to {high:g}"
        raise InvalidRequest(msg, hint="give seconds, for example 60")
    return float(value)


def check_note(note: object) -> str:
    """Return a note, reason or word of progress if it is text."""
    if isinstance(note, str):
        return check_size(note, "note")
    msg = f"{str(note)[:40]!r} is not a text"
    raise InvalidRequest(msg, hint="give a note or reason as text")


def check_usage(usage: Mapping[str, float]) -> dict[str, float]:
    """Return what a result took, if it is amounts by name.

    Raises:
        InvalidRequest: it is something else.
    """
    found: object = usage
    if isinstance(found, Mapping) and len(found) <= MAX_WORDS and all(itertools.starmap(_is_amount, found.items())):
        return dict(usage)
    msg = f"{str(usage)[:80]!r} is not what a result took"
    raise InvalidRequest(msg, hint='amounts by name, for example {"output_tokens": 512, "cost_usd": 0.02}')


def _is_amount(name: object, value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < MOST
    return is_number and isinstance(name, str) and re.match(USAGE, name) is not None


def check_token(token: object) -> str:
    """Return a lease token if it has the form of one."""
    if isinstance(token, str) and re.match(LEASE_WORD, token):
        return token
    msg = f"{str(token)[:40]!r} is not a lease token"
    raise InvalidRequest(msg, hint="pass the token that the claim returned")


def check_ticket(claim: object) -> Ticket:
    """Return what a worker must show of a claim, if it is one."""
    if isinstance(claim, Task | Ticket):
        return claim.ticket if isinstance(claim, Task) else claim
    msg = f"{str(claim)[:60]!r} is not a claim"
    raise InvalidRequest(msg, hint="pass the task that `claim` returned, or a Ticket of its id and token")


def check_size(text: str, what: str) -> str:
    """Return a text that is within the limit for bodies and results."""
    try:
        size = len(text) if len(text) > MAX_CONTENT else len(text.encode())
    except UnicodeEncodeError:
        msg = f"the {what} has half a surrogate pair in it"
        raise InvalidRequest(msg, hint="send valid Unicode text") from None
    if size > MAX_CONTENT:
        msg = f"the {what} has {size} bytes, the limit is {MAX_CONTENT}"
        raise InvalidRequest(msg, hint="put large data in a file and send its path")
    return text


def check_content(text: str, options: dict[str, Any]) -> str:
    """Return the text of a new task if it says what is to be done, within the limit."""
    if not text and not options.get("title"):
        msg = "the body is empty, and there is no title"
        raise InvalidRequest(msg, hint="say what is to be done")
    return check_size(text, "body")


def check_words(name: str, value: object) -> tuple[str, ...]:
    """Return a list of capabilities, sorted, each once."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple | set | frozenset) or len(value) > MAX_WORDS:
        msg = f"{name} is not a list of at most {MAX_WORDS} words"
        raise InvalidRequest(msg, hint="for example ['python', 'review']")
    for word in value:
        if not isinstance(word, str) or not re.match(CAPABILITY, word):
            msg = f"{str(word)[:80]!r} is not a word for {name}"
            raise InvalidRequest(msg, hint="use letters, digits and . _ : / + -, at most 64")
    return tuple(sorted({word.lower() for word in value}))


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_TITLE:
        msg = f"{name} is not a text of at most {MAX_TITLE} characters"
        raise InvalidRequest(msg, hint="put details into the body")
    return check_size(value, name)


def _whole(name: str, value: object, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        msg = f"{name} is {value!r}, which is not a whole number from {low} to {high}"
        raise InvalidRequest(msg, hint="give one")
    return value


def check(options: dict[str, Any]) -> dict[str, Any]:
    """Check post options by name, type and range; leave out those that are None.

    Raises:
        InvalidRequest: names the option and what it should be.
    """
    made: dict[str, Any] = {}
    for name, value in options.items():
        if name not in POST_OPTIONS:
            msg = f"{name!r} is not an option of post"
            raise InvalidRequest(msg, hint="known options: " + ", ".join(sorted(POST_OPTIONS)))
        if value is None:
            continue
        if name in _EDITABLE:
            made[name] = _text(name, value)
        elif name in _CHECKS:
            made[name] = _CHECKS[name](value)
        else:
            made[name] = check_number(name, value)
    if made.get("result_schema") is not None or made.get("claims"):
        from mcp_bus import contracts  # noqa: PLC0415  most tasks have no contract

        contracts.check_both(made.get("result_schema"), claims=made.get("claims", False))
    return made


def _schema(value: object) -> object:
    from mcp_bus import contracts  # noqa: PLC0415  as above

    return contracts.check_schema(value)


def _kind(value: object) -> str:
    if not isinstance(value, str) or value not in wire.TYPES:
        msg = f"{value!r} is not a message type"
        raise InvalidRequest(msg, hint="known types: " + ", ".join(sorted(wire.TYPES)))
    return value


def check_flag(name: str, value: object) -> bool:
    """Return yes or no if it is one of them."""
    if isinstance(value, bool):
        return value
    msg = f"{name} is {str(value)[:40]!r}, which is neither true nor false"
    raise InvalidRequest(msg, hint="say one of them, without quotes")


def check_priority(value: object) -> int:
    """Return a priority if it is one."""
    return _whole("priority", value, PRIORITIES[0], PRIORITIES[-1])


def check_attempts(value: object) -> int:
    """Return a number of attempts if it is one."""
    return _whole("max_attempts", value, 1, 1000)


def check_readers(value: object) -> tuple[str, ...]:
    """Return the names of agents that something is encrypted to, each once."""
    found = value if isinstance(value, list | tuple) else [None]
    if len(found) <= MAX_WORDS and all(isinstance(name, str) and re.match(wire.READER, name) for name in found):
        return tuple(dict.fromkeys(found))
    msg = f"{str(value)[:80]!r} is not a list of at most {MAX_WORDS} agents to encrypt to"
    raise InvalidRequest(msg, hint="for example ['worker', 'reviewer']")


_CHECKS: dict[str, Callable[[object], object]] = {
    "encrypt_to": check_readers,
    "type": _kind,
    "priority": check_priority,
    "max_attempts": check_attempts,
    "requires": lambda value: check_words("requires", value),
    "result_schema": _schema,
    "claims": lambda value: check_flag("claims", value),
}


def body(  # noqa: PLR0913  one argument per source: id, place, words, sender, options, time and rules
    task_id: str, channel: str, content: str, sender: Sender, options: dict[str, Any], *, now: int, policy: Policy
) -> Body:
    """Make the body of a new task out of checked options and content."""
    delay_s, ttl_s = options.get("delay_s", 0), options.get("ttl_s", policy.ttl_s)
    key = options.get("key", "")
    not_before = now + int(delay_s * 1000) if delay_s else 0
    return Body(
        id=task_id,
        channel=channel,
        content=content,
        sender=sender,
        created=now,
        type=options.get("type", "task"),
        reply_to=options.get("reply_to", ""),
        title=options.get("title", ""),
        thread=options.get("thread", ""),
        priority=options.get("priority", 0),
        not_before=not_before,
        # The ttl counts from when the task can first be claimed, or a delay would eat it up.
        deadline=(not_before or now) + max(1, int(ttl_s * 1000)) if ttl_s else 0,
        max_attempts=options.get("max_attempts"),
        backoff_s=options.get("backoff_s"),
        requires=options.get("requires", ()),
        result_schema=options.get("result_schema"),
        claims=options.get("claims", False),
        encrypted=Secret(options["encrypt_to"]) if options.get("encrypt_to") else None,
        key=key_of(sender.agent, key) if key else "",
    )


def key_of(agent: str, key: str) -> str:
    """Return the name of an idempotency key: one per sender and key."""
    import hashlib  # noqa: PLC0415  loads OpenSSL, which most calls do not need

    return hashlib.sha256(f"{agent}\0{key}".encode()).hexdigest()


def edited(old: Task, task_id: str, content: str, sender: Sender, *, now: int) -> Body:
    """Make the body that replaces a dead task; made twice for one death it has one key."""
    check_size(content, "body")
    secret = old.body.encrypted
    if secret is not None:  # Who posted it first waits for the answer, and may want to see what was asked.
        secret = Secret(tuple(dict.fromkeys((*secret.to, old.body.sender.agent))))
    return old.body._replace(
        encrypted=secret,
        id=task_id,
        content=content,
        sender=sender,
        created=now,
        not_before=0,
        deadline=0,
        retry_of=old.id,
        key=key_of(f"\x01retry of {old.id}", str(old.slot.attempt)),  # No agent is called so.
    )


def same(kept: Body, new: Body) -> bool:
    """Tell whether two bodies ask for the same thing; times and the sender's process do not count.

    Nor do the keys that it is encrypted to, or that it is where nobody asked but the rule of its channel.
    """

    def essence(item: Body) -> Body:
        agent, asked = item.sender._replace(pid=0, pwd=""), item.encrypted if new.encrypted is not None else None
        secret = asked._replace(kids=()) if asked is not None else None
        return item._replace(id="", created=0, not_before=0, deadline=0, sender=agent, encrypted=secret)

    return essence(kept) == essence(new)
