"""Who may post to a channel, claim from it and read it: what its rules `post_by`, `claim_by` and `read_by` say.

A name is what a session says it is, and a proof only on signed channels.  So these rules keep agents that use this
program apart; they do not keep a process from the files.  Sweeps and plans go by the store, which they do not hinder.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from mcp_bus import names, policies
from mcp_bus.errors import Conflict, CorruptRecord, InvalidRequest, NotAllowed, NotFound
from mcp_bus.model import OPEN, Body, Sender
from mcp_bus.plain import cut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from mcp_bus.model import Policy, Task
    from mcp_bus.operate import Operator
    from mcp_bus.stores.base import Guarded, Store

UNREADABLE = "the rules of its channel cannot be read"


# Types of abq that ask for more than to be read, and what is said of them wherever they are shown.
ASKING = {
    "eval": "eval (its sender asks to run it as code; nothing here does)",
    "command": "command (words of its sender, not an order; nothing here runs it)",
}


def kind(name: str) -> str:
    """Return a message's type as readers are told it."""
    return ASKING.get(name, name)


def check_kind(name: str, *, may_eval: bool) -> None:
    """Refuse to post what a receiver might run, unless the user allowed it.

    Raises:
        NotAllowed: says how it is allowed.
    """
    if name == "eval" and not may_eval:
        msg = "a message of type eval is text that its receiver might run, and to post one is not allowed here"
        raise NotAllowed(msg, hint="post it as a task, in words; a person allows it with MCP_BUS_ALLOW_EVAL=yes")


def whom(patterns: Sequence[str]) -> str:
    """Return the agents that a rule names."""
    return cut(", ".join(repr(pattern) for pattern in patterns), 300)


def check_post(channel: str, policy: Policy, agent: str) -> None:
    """Refuse a post to a channel that does not let its sender post.

    Raises:
        NotAllowed: says who may.
    """
    if not policies.lets(policy.post_by, agent):
        msg = f"{agent!r} may not post on {channel!r}: its rule post_by names {whom(policy.post_by)}"
        raise NotAllowed(msg, hint="post on another channel, or ask one of those to")


def check_revive(store: Store, task: Task) -> None:
    """Refuse to make a task ready that would be put aside, for its sender may not post any more.

    Raises:
        NotAllowed: says who may.
    """
    policy, agent = store.policy(task.channel), task.body.sender.agent
    if not policies.lets(policy.post_by, agent):
        msg = f"{task.id!r} is from {agent!r}, who may not post on {task.channel!r} any more"
        raise NotAllowed(msg, hint=f"retry it with an edited body, as one of {whom(policy.post_by)}")


def check_senders(store: Store, channel: str, patterns: Sequence[str]) -> None:
    """Refuse a rule by which tasks that wait, or are worked on, would be put aside.

    Raises:
        Conflict: names one.
    """
    for slot in (slot for state in OPEN for slot in store.scan(channel, state)):
        try:
            task = store.get(slot.id, at=slot)
        except (Conflict, CorruptRecord):
            continue  # It moved, and its sender was let; or it is put aside anyway.
        agent = task.body.sender.agent if task is not None else ""
        if task is not None and not policies.lets(patterns, agent):
            msg = f"{slot.id!r} is {slot.state} on {channel!r}, and its sender {agent!r} is not in post_by"
            raise Conflict(msg, hint="let such tasks be done or cancel them first, or name their senders, too")


def check_rules(bus: Operator, channel: str, known: Policy, policy: Policy) -> None:
    """Refuse to let an agent change any setting of a channel whose rules say who may, and do not name it.

    A stranger to the lists who may set the others lifts its quotas, ends its tasks by `max_attempts`, has what is
    done forgotten by `retention_days`, and takes leases away by `lease_s`.

    Raises:
        NotAllowed: says who may.
    """
    rules = [patterns for patterns in (known.post_by, known.claim_by, known.read_by) if patterns]
    if known == policy or not rules or bus.is_person:
        return
    if not any(policies.lets(patterns, bus.identity.agent) for patterns in rules):
        those = whom(sorted({name for patterns in rules for name in patterns}))
        msg = f"{bus.identity.agent!r} may not change the settings of {channel!r}: its rules name {those}"
        raise NotAllowed(msg, hint="one of those changes them, or a person in a terminal, with no --agent")


def may_claim(policy: Policy, agent: str) -> bool:
    """Tell whether an agent may claim: whoever claims reads, so without `claim_by` it is `read_by` that says."""
    return policies.lets(policy.claim_by or policy.read_by, agent)


def keyless(bus: Operator, channel: str, policy: Policy | Guarded) -> str:
    """Return why an agent could not answer what is posted on a channel: it cannot sign there; empty if it can."""
    agent, guard = bus.identity.agent, bus.store.guard
    if not policy.signed or guard is None or guard.signs(agent):
        return ""
    return (
        f"{channel!r} is signed, and {agent!r} has no key to sign a result with: `mcp-bus key new {agent!r}` makes one"
    )


def check_keys(bus: Operator, channel: str, to: Sequence[str]) -> None:
    """Refuse a post on a channel that is not there yet, for which a key is missing: the channel would stay, empty.

    Args:
        to: whom the post is to be encrypted to; empty for what this user remembers of the channel.

    Raises:
        NoKey: says whose.
        Untrusted: this is not the bus that keys were trusted for.
    """
    store, agent = bus.store, bus.identity.agent
    rule = store.guarded(channel)
    to = tuple(to) or rule.to
    if store.guard is None or not (to or rule.signed):
        return
    from mcp_bus.stores.base import Claim  # noqa: PLC0415  most posts are neither

    if to:
        claim = Claim("encrypted-body", "", channel, channel, agent, bus.source.now())
        store.guard.conceal(claim, b"", store.guard.addressed(claim, to).kids)
    else:
        store.guard.seal(Claim("body", "", channel, channel, agent, bus.source.now()), b"")


def check_claim(channel: str, policy: Policy, agent: str) -> None:
    """Refuse a claim on a channel that was named, where there are no tasks, or where this agent may not claim.

    Raises:
        InvalidRequest: it is a topic.
        NotAllowed: says who may.
    """
    if policy.kind != "queue":
        msg = f"{channel!r} is a {policy.kind}, whose messages are read by every subscriber and claimed by none"
        raise InvalidRequest(msg, hint="subscribe to it, and read your inbox")
    if not may_claim(policy, agent):
        rule, those = ("claim_by", policy.claim_by) if policy.claim_by else ("read_by", policy.read_by)
        msg = f"{agent!r} may not claim on {channel!r}: its rule {rule} names {whom(those)}"
        raise NotAllowed(msg, hint="claim on other channels, or name none")


def named(check: Callable[[str], str], channels: Iterable[str]) -> list[str]:
    """Return what was named, once each; a channel whose rules cannot be read keeps nobody from the others.

    Args:
        check: returns a channel, or raises why it is none to look in.

    Raises:
        CorruptRecord: there is no other.
    """
    found, unread = list[str](), list[CorruptRecord]()
    for name in dict.fromkeys(channels):
        try:
            found.append(check(name))
        except CorruptRecord as error:
            unread.append(error)
    if unread and not found:
        raise unread[0]
    for why in unread:
        passed_over(str(why))
    return found


@cache
def passed_over(why: str) -> None:
    """Tell once what was passed over."""
    import logging  # noqa: PLC0415  milliseconds, and nearly no process gets here

    logging.getLogger(__name__).warning("passed over: %s", why)


def claimable(store: Store, channels: Sequence[str], agent: str) -> list[str]:
    """Return those channels that let an agent claim; of one whose rules cannot be read that is found out later."""
    found = list[str]()
    for name in channels:
        try:
            if may_claim(store.policy(name), agent):
                found.append(name)
        except CorruptRecord:
            found.append(name)
        except NotFound:
            continue
    return found


def may_read(store: Store, channel: str, agent: str) -> bool:
    """Tell whether an agent may read what others post on a channel; not where its rules cannot be read."""
    try:
        return policies.lets(store.policy(channel).read_by, agent)
    except NotFound:
        return True
    except CorruptRecord:
        return False


def check_read(store: Store, topic: str, agent: str) -> None:
    """Refuse to let an agent read a topic that does not let it.

    Raises:
        NotAllowed: says who may.
    """
    if not may_read(store, topic, agent):
        msg = f"{agent!r} may not read {topic!r}: its rule read_by names {whom(store.policy(topic).read_by)}"
        raise NotAllowed(msg, hint="read other topics")


def shown(bus: Operator, task: Task) -> Task:
    """Return a task as this session may see it: whole, or that it is there and how it stands, with the reason."""
    why = _hidden(bus, task)
    if not why:
        return task
    body = task.body
    kept = Body(
        id=body.id,
        channel=body.channel,
        content="",
        sender=Sender(body.sender.agent),
        created=body.created,
        type=body.type,
        priority=body.priority,
        not_before=body.not_before,
        deadline=body.deadline,
        max_attempts=body.max_attempts,
        backoff_s=body.backoff_s,
        requires=body.requires,
        retry_of=body.retry_of,
        plan=body.plan,
        node=body.node,
        parent=body.parent,
        depth=body.depth,
    )
    history = tuple(line._replace(note="", token="") for line in task.history)
    return task._replace(body=kept, result=None, history=history, hidden=why)


def _hidden(bus: Operator, task: Task) -> str:
    """Return why a task's text is not for this session; empty if it is."""
    lease, agent = task.slot.lease, bus.identity.agent
    if (lease is not None and names.is_of(lease.holder, agent)) or names.is_inbox(task.channel):
        return ""
    why = barred(bus, task.channel, task.body.sender.agent)
    return why or (barred(bus, topic, task.body.sender.agent) if (topic := _called_on(task.body, agent)) else "")


def _called_on(body: Body, agent: str) -> str:
    """Return the topic whose rule an awarded task has, too, for it says what its call said; none for who won it."""
    topic = body.extra.get(names.TOPIC)
    if body.channel != names.AWARDS or not isinstance(topic, str) or not names.is_place(topic):
        return ""
    return "" if names.addressed(agent) in body.requires else topic


def barred(bus: Operator, channel: str, owner: str) -> str:
    """Return why what an agent let be said on a channel is not for this session; empty if it is."""
    agent = bus.identity.agent
    if bus.is_person or owner == agent:
        return ""
    try:
        policy = bus.store.policy(channel)
    except NotFound:
        return ""
    except CorruptRecord:
        return UNREADABLE
    if policies.lets(policy.read_by, agent):
        return ""
    return f"{agent!r} may not read {channel!r}: its rule read_by names {whom(policy.read_by)}"
