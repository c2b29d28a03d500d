"""What `doctor` looks at of channels' rules and keys: those that keep this agent from posting or claiming."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from mcp_bus import names
from mcp_bus.cli.checkups import BAD, PERSON, WARNING, Finding
from mcp_bus.errors import BusError, CorruptRecord, NotFound, Unreadable, Untrusted
from mcp_bus.model import Policy
from mcp_bus.signing.guard import Guard
from mcp_bus.stores.base import Claim
from mcp_bus.stores.file import FileStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mcp_bus.bus import Bus
    from mcp_bus.cli.arguments import Call

KEYS, ENCRYPTION = "keys", "encryption"


def rules(call: Call, bus: Bus) -> Iterator[Finding]:
    """Look at the rules of all channels, and at the keys that they need; nothing is opened."""
    found = dict[str, Policy]()
    for name in bus.store.channels():
        try:
            found[name] = bus.store.policy(name)
        except (NotFound, Unreadable):
            continue  # Gone by now; or closed, of which `rights` tells.
        except CorruptRecord as error:
            yield Finding("channel", PERSON, str(error), f"{call.again()} fsck")
    yield from _trust(bus, [*found.values()])
    for name, policy in found.items():
        if "~" not in name:  # What holds for an inbox holds for those of its sessions.
            yield from _encryption(call, bus, name, policy)


def _trust(bus: Bus, found: Sequence[Policy]) -> Iterator[Finding]:
    """Look whether this is the bus that this user's keys were trusted for."""
    guard = bus.store.guard
    try:
        if isinstance(guard, Guard) and guard.vault.has("trust"):
            guard.trust.check()
    except BusError as error:
        is_needed = any(policy.signed or policy.encrypt_to for policy in found)
        yield Finding(KEYS, BAD if is_needed else WARNING, str(error), error.hint)


def _encryption(call: Call, bus: Bus, name: str, policy: Policy) -> Iterator[Finding]:
    """Look whether anybody, and this agent if that is its business, could post on a channel."""
    to, guard = policy.encrypt_to, bus.store.guard
    try:
        if isinstance(bus.store, FileStore):
            bus.store.seals.readers(name)
    except Untrusted as error:
        yield Finding(ENCRYPTION, BAD, str(error), error.hint)
        return
    if not to or not _uses(call, bus, name, to):
        return
    try:
        if guard is not None:
            guard.addressed(Claim("encrypted-body", "", name, name, bus.identity.agent, 0), to)
    except BusError as error:
        yield Finding(ENCRYPTION, WARNING, f"{name} is encrypted: {error}", error.hint)
    else:
        if find_spec("pyrage") is None:
            why = f"{name} is encrypted, and what that needs is not installed"
            yield Finding(ENCRYPTION, WARNING, why, "pip install 'mcp-bus[encrypted]'")


def _uses(call: Call, bus: Bus, name: str, to: Sequence[str]) -> bool:
    """Tell whether a channel is this agent's business: it reads it, or is named there."""
    agent, chosen = bus.identity.agent, call.config["channels"]
    if agent in to:
        return True
    return name == names.inbox(agent) if names.is_inbox(name) else not chosen or name in chosen
