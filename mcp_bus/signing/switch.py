"""Making a channel signed or encrypted, and no longer, or to others: that is a person's decision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_bus import names, policies
from mcp_bus.errors import Conflict, CorruptRecord, InvalidRequest, NotFound
from mcp_bus.model import OPEN, Policy, State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mcp_bus.model import Slot
    from mcp_bus.stores.base import Store


def check(store: Store, channel: str, settings: Mapping[str, object]) -> None:
    """Refuse to switch signatures off in passing, or on where unsigned tasks would be put aside; and other readers.

    Raises:
        InvalidRequest: it is to be switched off, or encrypted to others than it is.
        Conflict: tasks wait there that nobody signed.
    """
    to, (is_signed, known, _) = settings.get("encrypt_to"), store.guarded(channel)
    if known and isinstance(to, list | tuple) and tuple(dict.fromkeys(to)) != known:
        msg = f"{channel!r} is encrypted to {', '.join(known)}, and only a person may change that"
        raise InvalidRequest(msg, hint=f"in a terminal: `mcp-bus channel set {channel} encrypt_to=…`")
    value = settings.get("signed")
    if type(value) is not bool:
        return  # Whoever reads settings says what is wrong with it.
    if is_signed and not value:
        msg = f"{channel!r} is signed, and only a person may end that"
        raise InvalidRequest(msg, hint=f"in a terminal: `mcp-bus channel set {channel} signed=no`")
    if is_signed or not value:
        return
    slots = (slot for state in (*OPEN, State.DEAD) for slot in store.scan(channel, state))
    waiting = next((slot for slot in slots if not _is_signed(store, slot)), None)
    if waiting is not None:
        msg = f"{waiting.id!r} is {waiting.state} on {channel!r}, and not signed: nobody would get it any more"
        hint = "let them be done or cancel them, or choose a new channel for what is to be signed"
        raise Conflict(msg, hint="let them be read and acked first" if names.is_inbox(channel) else hint)


def _is_signed(store: Store, slot: Slot) -> bool:
    """Tell whether a task has a signature, as one that was posted before a person ended them."""
    try:
        task = store.get(slot.id, near=slot)
    except CorruptRecord:
        return False
    # What says whose an encrypted one is may be inside it, and no signature beside it.
    return task is not None and bool(task.verified) and task.body.encrypted is None


def inbox(store: Store, name: str, settings: Mapping[str, object]) -> Policy:
    """Let messages to an agent be signed, or encrypted, from now on.

    Args:
        name: the agent, as `@name`.
        settings: `signed`, `encrypt_to`, and nothing else.
    """
    box = names.inbox(name[1:])
    if not settings or not settings.keys() <= {"signed", "encrypt_to"}:
        msg = f"{name[:80]!r} is an inbox, which has no settings but 'signed' and 'encrypt_to'"
        raise InvalidRequest(msg, hint=f"`mcp-bus channel set {name} signed=yes`")
    check(store, box, settings)
    store.declare(box, policies.make(dict(settings), _policy(store, box)))
    return store.policy(box)


def off(store: Store, channel: str) -> Policy:
    """Let a channel be unsigned from now on; what is older still has to be signed.

    For a person to decide: whoever can write the bus is then believed again.
    """
    box = names.inbox(channel[1:]) if channel.startswith("@") else channel
    policy = _policy(store, box)
    if store.guard is not None and store.guarded(box).signed:
        store.guard.forget(box)
    store.declare(box, policy._replace(signed=False))
    return store.policy(box)


def readdress(store: Store, channel: str, to: object) -> Policy:
    """Let a channel be encrypted to other agents, or to none, from now on; what is there stays as it is.

    For a person to decide: whoever else is named can read what is posted then.
    """
    box = names.inbox(channel[1:]) if channel.startswith("@") else channel
    policy = policies.make({"encrypt_to": to}, _policy(store, box))
    if store.guard is not None:
        store.guard.readdress(box, policy.encrypt_to)
    store.declare(box, policy)
    return store.policy(box)


def _policy(store: Store, channel: str) -> Policy:
    try:
        return store.policy(channel)
    except NotFound:
        return policies.INBOX if names.is_inbox(channel) else Policy()
