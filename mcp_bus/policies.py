"""A channel's policy <-> JSON, strict: what it may say, within which limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mcp_bus import wire
from mcp_bus.errors import CorruptRecord, InvalidRequest
from mcp_bus.model import POLICY_FIELDS, Policy
from mcp_bus.names import check_place
from mcp_bus.plain import cut, near

if TYPE_CHECKING:
    from collections.abc import Sequence

# Characters of a text in a policy, so that no `channel.json` outgrows what its readers accept.
MAX_TEXT = 4000
# What counts in a name has room for nine digits, and some to grow.
MOST = {"max_attempts": 10**6 + 1, "max_releases": 10**6 + 1}
# What people call the types of settings.
WORDS = {
    bool: "true or false",
    int: "a whole number from 0",
    float: "a number from 0",
    str: f"a text of at most {MAX_TEXT}",
}
KINDS = ("queue", "topic", "inbox")
# Patterns of agents' names in a rule who may do something; those of one have room for so many bytes in all.
MAX_PATTERNS, MAX_PATTERN, MAX_PATTERNS_SIZE = 50, 160, 8000
# Those of inboxes, and of broadcast.
_STANDS = "* stands for any part of a name, ? for one character"
INBOX = Policy("inbox", max_attempts=10**6, backoff_s=0, lease_s=600, max_releases=10**6)
EVERYONE = Policy("topic", ttl_s=86_400, description="what everyone should know; each agent reads it")


def fields(policy: Policy) -> dict[str, Any]:
    """Return a channel's policy as JSON data."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in policy._asdict().items()}


def lets(patterns: Sequence[str], agent: str) -> bool:
    """Tell whether a rule lets an agent do something: it names nobody, or one of its patterns is the whole name."""
    if not patterns:
        return True
    from fnmatch import fnmatchcase  # noqa: PLC0415  most channels have no such rule

    return any(fnmatchcase(agent, pattern) for pattern in patterns)


def make(values: dict[str, Any], base: Policy | None = None) -> Policy:
    """Make a policy from named values, over `base` or the defaults.

    Raises:
        InvalidRequest: an unknown name, a wrong type or a value out of range.
    """
    made = (base or Policy())._asdict()
    for name, value in values.items():
        if name not in POLICY_FIELDS:
            msg = f"{cut(repr(name), 80)} is not a channel setting"
            close = near(str(name), made)
            hint = f"did you mean {close[0]!r}?" if close else "known settings: " + ", ".join(made)
            raise InvalidRequest(msg, hint=hint)
        kind = type(made[name])
        if kind is tuple:
            made[name] = _patterns(name, value)
            continue
        if kind is str:
            fits = isinstance(value, str) and len(value) <= MAX_TEXT
        elif kind is bool:
            fits = isinstance(value, bool)
        else:
            fits = type(value) in (int, kind) and 0 <= value < (MOST.get(name) or 10**9)
        if not fits or (name in ("max_attempts", "lease_s", "max_lease_s") and not value):
            msg = f"{cut(repr(value), 80)} is not a value for the channel setting {name!r}"
            raise InvalidRequest(msg, hint=f"it is {WORDS[kind]}, for example {made[name]!r}")
        made[name] = kind(value)
    if made["kind"] not in KINDS:
        msg = f"{cut(repr(made['kind']), 80)} is not a kind of channel"
        raise InvalidRequest(msg, hint="the kinds are 'queue' and 'topic'")
    return Policy(**made)


def _patterns(name: str, value: object) -> tuple[str, ...]:
    """Return patterns of names, each once.

    Raises:
        InvalidRequest: they are none, or too many.
    """
    if not isinstance(value, list | tuple) or len(value) > MAX_PATTERNS:
        msg = f"{str(value)[:80]!r} is not a list of at most {MAX_PATTERNS} patterns for the channel setting {name!r}"
        raise InvalidRequest(msg, hint="for example ['planner', 'ci-*']; an empty list lets everyone")
    for pattern in value:
        is_text = isinstance(pattern, str) and 0 < len(pattern) <= MAX_PATTERN and pattern.isprintable()
        # What is encrypted is for whoever has a key: there is none of a pattern.
        if not is_text or any(mark in pattern for mark in ("[],*? " if name == "encrypt_to" else "[], ")):
            msg = f"{str(pattern)[:80]!r} is not a pattern of names for the channel setting {name!r}"
            raise InvalidRequest(
                msg,
                hint=f"1 to {MAX_PATTERN} characters without blanks, commas and brackets; "
                + ("the whole name of an agent" if name == "encrypt_to" else _STANDS),
            )
    if sum(len(pattern.encode(errors="replace")) for pattern in value) > MAX_PATTERNS_SIZE:
        msg = f"the patterns of the channel setting {name!r} have more than {MAX_PATTERNS_SIZE} bytes"
        raise InvalidRequest(msg, hint="name groups of agents with *")
    return tuple(dict.fromkeys(value))


def load(data: bytes, channel: str) -> Policy:
    """Read a `channel.json`.  Settings of a later version are passed over.

    Raises:
        CorruptRecord: it is not JSON or a known setting is out of range.
    """
    check_place(channel)
    known = {key: value for key, value in wire.loads(data).items() if key in POLICY_FIELDS}
    try:
        return make(known)
    except InvalidRequest as error:
        what = f"the policy of channel {channel!r} is wrong: {error}"
        raise CorruptRecord(what) from None
