"""A channel's policy <-> JSON, strict: what it may say, within which limits."""

from __future__ import annotations

from typing import Any

from mcp_bus import wire
from mcp_bus.errors import CorruptRecord, InvalidRequest
from mcp_bus.model import POLICY_FIELDS, Policy
from mcp_bus.names import check_place

# Characters of a text in a policy, so that no `channel.json` outgrows what its readers accept.
MAX_TEXT = 4000
# What counts in a name has room for nine digits, and some to grow.
MOST = {"max_attempts": 10**6 + 1, "max_releases": 10**6 + 1}
KINDS = ("queue", "topic", "inbox")
# Those of inboxes, and of broadcast.
INBOX = Policy("inbox", max_attempts=10**6, backoff_s=0, lease_s=600, max_releases=10**6)
EVERYONE = Policy("topic", ttl_s=86_400, description="what everyone should know; each agent reads it")


def fields(policy: Policy) -> dict[str, Any]:
    """Return a channel's policy as JSON data."""
    return {name: getattr(policy, name) for name in Policy._fields}


def make(values: dict[str, Any], base: Policy | None = None) -> Policy:
    """Make a policy from named values, over `base` or the defaults.

    Raises:
        InvalidRequest: an unknown name, a wrong type or a value out of range.
    """
    made = fields(base or Policy())
    for name, value in values.items():
        if name not in POLICY_FIELDS:
            msg = f"{name!r} is not a channel setting"
            raise InvalidRequest(msg, hint="known settings: " + ", ".join(made))
        kind = type(made[name])
        if kind is str:
            fits = isinstance(value, str) and len(value) <= MAX_TEXT
        elif kind is bool:
            fits = isinstance(value, bool)
        else:
            fits = type(value) in (int, kind) and 0 <= value < (MOST.get(name) or 10**9)
        if not fits or (name in ("max_attempts", "lease_s", "max_lease_s") and not value):
            msg = f"{value!r} is not a value for the channel setting {name!r}"
            raise InvalidRequest(msg, hint=f"it is a {kind.__name__}, for example {made[name]!r}")
        made[name] = kind(value)
    if made["kind"] not in KINDS:
        msg = f"{made['kind']!r} is not a kind of channel"
        raise InvalidRequest(msg, hint="the kinds are 'queue' and 'topic'")
    return Policy(**made)


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
