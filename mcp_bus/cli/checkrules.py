"""What `doctor` looks at of rules and keys: what keeps this agent from posting or claiming, or was edited."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING

from mcp_bus import access, names
from mcp_bus.cli.arguments import shell
from mcp_bus.cli.checkups import BAD, PERSON, WARNING, Finding
from mcp_bus.cli.differing import differences
from mcp_bus.errors import BusError, CorruptRecord, NotFound, Unreadable, Untrusted
from mcp_bus.find import EXAMINED, queues
from mcp_bus.identity import process
from mcp_bus.model import Policy, State, Task
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
    yield from _trust(call, bus, [*found.values()])
    for name, policy in found.items():
        if "~" not in name:  # What holds for an inbox holds for those of its sessions.
            yield from _encryption(call, bus, name, policy)
            yield from _edited(call, bus, name, policy)
    yield from _closed(call, bus)


def _edited(call: Call, bus: Bus, name: str, policy: Policy) -> Iterator[Finding]:
    """Look whether a channel's file says otherwise than is remembered, and holds."""
    place = f"@{bus.identity.agent}" if name == names.inbox(bus.identity.agent) else name
    for setting, said in differences(call.config.path, name, policy).items():
        value = "yes" if setting == "signed" else ",".join(policy.encrypt_to)
        again = f"{call.again()} channel set {shell(place)} {setting}={value}"
        fix = "" if names.is_inbox(place) else f"{again} writes it back; only a person ends it, in a terminal"
        yield Finding(KEYS if setting == "signed" else ENCRYPTION, WARNING, said, fix)


def _closed(call: Call, bus: Bus) -> Iterator[Finding]:
    """Look for tasks that wait and that this agent can never take, for want of a key; nothing is put aside by that."""
    for name in access.claimable(bus.store, queues(bus.store), bus.identity.agent):
        if not _uses(call, bus, name, ()):
            continue
        found = dict[tuple[str, str], int]()
        for slot in islice(bus.store.scan(name, State.READY), EXAMINED):
            try:
                task = bus.store.get(slot.id, near=slot)
                told = _wanting(call, bus, task) if task is not None else ("", "")
            except BusError:
                continue  # It moved, or cannot be read; of keys that cannot be used is told elsewhere.
            if told[0]:
                found[told] = found.get(told, 0) + 1
        for (why, fix), count in found.items():
            many = "1 task waits" if count == 1 else f"{count} tasks wait"
            yield Finding(KEYS, WARNING, f"{many} on {name} that this agent cannot take: {why}", call.aimed(fix))


def _wanting(call: Call, bus: Bus, task: Task) -> tuple[str, str]:
    """Return which key is missing to take a task, and how one has it; nothing where that is not why."""
    agent = bus.identity.agent
    if task.proof is not None and task.proof.hint:
        return task.proof.broken, task.proof.hint
    if task.hidden and task.body.encrypted is not None:
        is_meant = agent in task.body.encrypted.to
        fix = "work where the key of that name was made, or have it posted anew, to a key that is here"
        return (task.hidden, fix) if is_meant else ("", "")
    why = access.keyless(bus, task.channel, bus.store.policy(task.channel))
    return why, f"{call.again()} key new {shell(agent)}" if why else ""


def _trust(call: Call, bus: Bus, found: Sequence[Policy]) -> Iterator[Finding]:
    """Look whether this is the bus that this user's keys were trusted for."""
    guard = bus.store.guard
    try:
        if isinstance(guard, Guard) and guard.vault.has("trust"):
            guard.trust.check()
    except BusError as error:
        is_needed = any(policy.signed or policy.encrypt_to for policy in found)
        yield Finding(KEYS, BAD if is_needed else WARNING, str(error), call.aimed(error.hint))


def _encryption(call: Call, bus: Bus, name: str, policy: Policy) -> Iterator[Finding]:
    """Look whether anybody, and this agent if that is its business, could post on a channel."""
    to, guard = policy.encrypt_to, bus.store.guard
    try:
        if isinstance(bus.store, FileStore):
            bus.store.seals.readers(name)
    except Untrusted as error:
        yield Finding(ENCRYPTION, BAD, str(error), call.aimed(error.hint))
        return
    if not to or not _uses(call, bus, name, to):
        return
    try:
        if guard is not None:
            guard.addressed(Claim("encrypted-body", "", name, name, bus.identity.agent, 0), to)
    except BusError as error:
        said = str(error) if repr(name) in str(error) else f"{name} is encrypted: {error}"
        yield Finding(ENCRYPTION, WARNING, said, call.aimed(error.hint))
    else:
        if find_spec("pyrage") is None:
            why = f"{name} is encrypted, and what that needs is not installed"
            yield Finding(ENCRYPTION, WARNING, why, process.to_install("pyrage").strip("`"))


def _uses(call: Call, bus: Bus, name: str, to: Sequence[str]) -> bool:
    """Tell whether a channel is this agent's business: it reads it, or is named there."""
    agent, chosen = bus.identity.agent, call.config["channels"]
    if agent in to:
        return True
    return name == names.inbox(agent) if names.is_inbox(name) else not chosen or name in chosen
