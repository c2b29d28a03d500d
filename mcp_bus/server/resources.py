"""Resources: the bus for reading, as JSON; and completions for the names in their addresses."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from mcp import types

from mcp_bus import access, find, history, model, picture, plans, policies, report, traces, userprofile, wire
from mcp_bus.errors import Conflict, CorruptRecord, NotFound
from mcp_bus.holders import UNSEEN, holdings, unseen
from mcp_bus.model import OPEN, State, Task
from mcp_bus.names import check_channel, inbox, is_inbox
from mcp_bus.plain import clean
from mcp_bus.plan import counts, outcome
from mcp_bus.topics import readers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mcp_bus.bus import Bus
    from mcp_bus.holders import Holding
    from mcp_bus.model import Body, Secret, Slot

CHANNELS = "bus://channels"
AGENTS = "bus://agents"
MINE = "bus://inbox"
INBOX = "bus://channels/{channel}/inbox"
TASK = "bus://tasks/{id}"
TOPIC = "bus://topics/{topic}"
ROLE = "bus://agents/{agent}/role"
TRACE = "bus://messages/{id}/trace"
PROFILE = "bus://profile"
PLANS = "bus://plans"
PLAN = "bus://plans/{plan}"
MAX_LISTED = 200
# Messages of a topic, the latest, that are shown with their text.
MAX_SHOWN = 50
JSON = "application/json"
_FIXED = {
    CHANNELS: ("channels", "every channel with its counts"),
    AGENTS: ("agents", "who is there, and what they can do"),
    PLANS: ("plans", "every plan, and how it stands"),
    PROFILE: ("profile", "the user's profile that all agents share, and its revision"),
    MINE: ("inbox", "this agent's messages that were not acked; reading them here offers none"),
}
_TEMPLATES = {
    INBOX: ("channel-inbox", "what waits and what is in work on a channel"),
    TASK: ("task", "a task with its state, history and result"),
    TOPIC: ("topic", "the latest messages of a topic, and who reads it"),
    ROLE: ("role", "the role that is written down for an agent"),
    TRACE: ("trace", "what became of a message"),
    PLAN: ("plan", "a plan: each step's state, who did it, why not; and a picture in Mermaid"),
}


def fixed() -> list[types.Resource]:
    """Return the resources that have one address."""
    return [
        types.Resource(uri=uri, name=name, title=name.capitalize(), description=about, mime_type=JSON)
        for uri, (name, about) in _FIXED.items()
    ]


def templates() -> list[types.ResourceTemplate]:
    """Return the resources whose address has a name in it."""
    return [
        types.ResourceTemplate(
            uri_template=uri, name=name, title=name.capitalize().replace("-", " "), description=about, mime_type=JSON
        )
        for uri, (name, about) in _TEMPLATES.items()
    ]


def read(bus: Bus, uri: str) -> str:
    """Return what an address names, as JSON text.

    Raises:
        NotFound: it names nothing.
    """
    scheme, _, path = uri.partition("://")
    parts = [unquote(part) for part in path.split("/")] if scheme == "bus" else []
    found = _whole(bus, parts) if len(parts) == 1 else _named(bus, parts)
    if found is None:
        msg = f"there is no resource {uri[:120]!r}"
        raise NotFound(msg, hint=f"resources: {', '.join([*_FIXED, *_TEMPLATES])}")
    return _dump(found)


def _whole(bus: Bus, parts: list[str]) -> object:
    match parts:
        case ["channels"]:
            return [_channel(view) for view in find.channels(bus.store)]
        case ["agents"]:
            return _agents(bus)
        case ["plans"]:
            return _plans(bus)
        case ["inbox"]:
            return _mine(bus)
        case ["profile"]:
            return _profile(bus)
    return None


def _named(bus: Bus, parts: list[str]) -> object:
    found: object = None
    match parts:
        case ["channels", name, "inbox"]:
            found = _inbox(bus, check_channel(name))
        case ["plans", name] if name:
            found = _plan(bus, name)
        case ["tasks", name] if name:
            found = _task(bus.get(name))
        case ["topics", name]:
            found = _topic(bus, check_channel(name))
        case ["agents", *words, "role"] if words:
            found = {"agent": "/".join(words), "role": role(bus, "/".join(words))}
        case ["messages", name, "trace"] if name:
            found = traces.fields(traces.trace(bus, name))
    return found


def _dump(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, indent=1)
    # Nothing in it may act on a reader; such characters stand inside strings only.
    return text if clean(text, multiline=True) == text else "".join(map(_harmless, text))


def _harmless(char: str) -> str:
    if clean(char, multiline=True) == char:
        return char
    return json.dumps(char)[1:-1] if not char.isascii() else f"\\u{ord(char):04x}"


def _channel(view: find.ChannelView) -> dict[str, Any]:
    return {
        "channel": view.name,
        "counts": view.counts,
        "oldest_ready": wire.stamp(view.oldest) if view.oldest else None,
        "policy": policies.fields(view.policy),
    }


def _inbox(bus: Bus, channel: str) -> dict[str, Any]:
    bus.store.policy(channel)
    listed = {state: list(bus.store.scan(channel, state, limit=MAX_LISTED)) for state in OPEN}
    return {
        "channel": channel,
        "counts": bus.store.count(channel),
        "tasks": [
            {
                "id": slot.id,
                "state": slot.state,
                "priority": slot.priority,
                "attempt": slot.attempt,
                "holder": slot.lease.holder if slot.lease else None,
            }
            for state in (State.LEASED, State.READY, State.SCHEDULED)
            for slot in listed[state]
        ],
    }


def _task(task: Task) -> dict[str, Any]:
    body, slot, result = task.body, task.slot, task.result
    made: dict[str, Any] = (
        {
            "id": task.id,
            "channel": task.channel,
            "state": task.state,
            "title": body.title,
            "body": body.content,
            "type": body.type,
            "from": body.sender.agent,
            "posted": wire.stamp(body.created),
            "priority": slot.priority,
            "attempt": slot.attempt,
            "holder": slot.lease.holder if slot.lease and task.state is State.LEASED else None,
            "history": [history.fields(entry) | {"token": None} for entry in task.history],
            "result": None,
        }
        | ({"hidden": task.hidden} if task.hidden else {})
        | _secret(body.encrypted)
    )
    if result is not None:
        made["result"] = {
            "status": result.status,
            "content": result.content,
            "error": result.error,
            "from": result.sender.agent,
            "at": wire.stamp(result.at),
        } | _secret(result.encrypted)
    return made


def _secret(found: Secret | None) -> dict[str, Any]:
    return {"encrypted": {"to": list(found.to), "hidden": found.why or None}} if found is not None else {}


def _plans(bus: Bus) -> list[dict[str, Any]]:
    made = []
    for name in bus.store.records.names(model.PLANS):
        with suppress(CorruptRecord, NotFound):
            plan, progress = plans.progress(bus, name)
            made.append({"id": plan.id, "goal": plan.goal, "state": outcome(plan, progress), **counts(plan, progress)})
    return made


def _plan(bus: Bus, name: str) -> dict[str, Any]:
    plan, progress = plans.progress(bus, plans.resolve(bus, name))
    drawn = picture.mermaid(plan.goal, report.rows(bus, plan, progress))
    return report.fields(bus, plan, progress) | {"mermaid": drawn}


def _agents(bus: Bus) -> list[dict[str, Any]]:
    """Return the sessions that are remembered, then who else holds a task: by name where that can be told."""
    seen = bus.roster.all()
    held = holdings(bus.store, {item.presence.agent for item in seen} | {bus.identity.agent})
    made, about = list[dict[str, Any]](), dict[str, Any]()
    for item in seen:
        here, holding = item.presence, held.get(item.presence.holder)
        about = {"client": here.client, "capabilities": list(here.capabilities), "since": wire.stamp(here.since)}
        made.append(_agent(here.agent, here.holder, item.why, holding) | {"session": here.session} | about)
    for other in unseen(held.values(), seen):
        about = {"client": "", "capabilities": [], "since": None}
        made.append(_agent(other.agent, other.holder, UNSEEN, other) | {"session": None} | about)
    return made


def _agent(agent: str, holder: str, why: str, holding: Holding | None) -> dict[str, Any]:
    return {
        "agent": agent or None,
        "holder": holder,
        "live": not why,
        "why_not": why or None,
        "holds": holding.tasks if holding else 0,
        # A live session renews by itself: that would be a change each time.
        "lease_until": wire.stamp(holding.until) if why and holding is not None else None,
    }


def _message(body: Body) -> dict[str, Any]:
    return {
        "id": body.id,
        "from": body.sender.agent,
        "type": body.type,
        "title": body.title,
        "body": body.content,
        "sent": wire.stamp(body.created),
        "priority": body.priority,
        "thread": body.thread,
        "reply_to": body.reply_to,
        "supersedes": body.supersedes or None,
    } | _secret(body.encrypted)


def _bodies(bus: Bus, slots: Iterable[Slot]) -> list[Body]:
    found = []
    for slot in slots:
        with suppress(Conflict, CorruptRecord):
            task = bus.store.get(slot.id, at=slot)
            if task is not None:
                found.append(access.shown(bus, task).body)
    return found


def _mine(bus: Bus) -> dict[str, Any]:
    new = sorted(bus.mail.waiting(is_count=False).values(), key=lambda slot: slot.id)[:MAX_SHOWN]
    told = [(body, False) for body in _bodies(bus, new)]
    told += [(item.body, True) for item in bus.mail.unacked()[:MAX_SHOWN]]
    messages = [
        _message(body) | {"on": None if is_inbox(body.channel) else body.channel, "offered": is_offered}
        for body, is_offered in sorted(told, key=lambda item: item[0].id)
    ]
    return {"agent": bus.identity.agent, "messages": messages, "topics": sorted(bus.mail.topics.subscribed())}


def _profile(bus: Bus) -> dict[str, Any]:
    found = userprofile.read(bus)
    at = wire.stamp(found.at) if found.revision else None
    return {"revision": found.revision, "text": found.text, "by": found.by or None, "at": at}


def _topic(bus: Bus, name: str) -> dict[str, Any]:
    if bus.store.policy(name).kind != "topic":
        msg = f"{name!r} is a queue, not a topic"
        raise NotFound(msg, hint=f"read {INBOX.replace('{channel}', name)}")
    slots = sorted(bus.store.scan(name, State.READY), key=lambda slot: slot.id)
    return {
        "topic": name,
        "retained": len(slots),
        "readers": sorted(cursor.agent for cursor in readers(bus, name) if cursor.is_active),
        "messages": [_message(body) for body in _bodies(bus, slots[-MAX_SHOWN:])],
    }


def role(bus: Bus, agent: str) -> str:
    """Return the role that a person wrote down for an agent.

    Raises:
        NotFound: none is.
    """
    text = bus.store.records.text("agents", inbox(agent)[1:])
    if text is None:
        msg = f"no role is written down for {agent[:80]!r}"
        raise NotFound(msg, hint=f"a person writes one into the bus: agents/{inbox(agent)[1:]}.md")
    return text


def complete(bus: Bus, name: str, value: str) -> list[str]:
    """Return names of channels, topics or agents, or ids, that begin (ids: or end) with what was typed."""
    if name == "channel":
        return [channel for channel in find.public(bus.store) if channel.startswith(value)]
    if name == "topic":
        return [topic for topic in bus.mail.topics.all() if topic.startswith(value)]
    if name == "agent":
        return sorted({seen.presence.agent for seen in bus.roster.all() if seen.presence.agent.startswith(value)})
    if name == "plan":
        known = sorted(bus.store.records.names(model.PLANS), reverse=True)
        return [plan for plan in known if plan.startswith(value) or plan.endswith(value)]
    if name == "id":
        return sorted((i for i in bus.store.ids() if i.startswith(value) or i.endswith(value)), reverse=True)
    return []
