"""Resources: the bus for reading, as JSON; and completions for the names in their addresses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from mcp import types

from mcp_bus import find, policies, wire
from mcp_bus.errors import NotFound
from mcp_bus.model import OPEN, State, Task
from mcp_bus.names import check_channel
from mcp_bus.plain import clean

if TYPE_CHECKING:
    from mcp_bus.bus import Bus

CHANNELS = "bus://channels"
INBOX = "bus://channels/{channel}/inbox"
TASK = "bus://tasks/{id}"
MAX_LISTED = 200
JSON = "application/json"


def fixed() -> list[types.Resource]:
    """Return the resources that have one address."""
    return [
        types.Resource(
            uri=CHANNELS, name="channels", title="Channels", description="every channel with its counts", mime_type=JSON
        )
    ]


def templates() -> list[types.ResourceTemplate]:
    """Return the resources whose address has a name in it."""
    inbox = "what waits and what is in work on a channel"
    task = "a task with its state, history and result"
    return [
        types.ResourceTemplate(
            uri_template=INBOX, name="inbox", title="Channel inbox", description=inbox, mime_type=JSON
        ),
        types.ResourceTemplate(uri_template=TASK, name="task", title="Task", description=task, mime_type=JSON),
    ]


def read(bus: Bus, uri: str) -> str:
    """Return what an address names, as JSON text.

    Raises:
        NotFound: it names nothing.
    """
    scheme, _, path = uri.partition("://")
    parts = [unquote(part) for part in path.split("/")]
    if scheme != "bus" or "" in parts:
        parts = []
    if parts == ["channels"]:
        return _dump([_channel(view) for view in find.channels(bus.store)])
    if len(parts) == 3 and parts[0] == "channels" and parts[2] == "inbox":
        return _dump(_inbox(bus, check_channel(parts[1])))
    if len(parts) == 2 and parts[0] == "tasks":
        return _dump(_task(bus.get(parts[1])))
    msg = f"there is no resource {uri[:120]!r}"
    raise NotFound(msg, hint=f"resources: {CHANNELS}, {INBOX}, {TASK}")


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
    made: dict[str, Any] = {
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
        "history": [wire.attempt_fields(entry) | {"token": None} for entry in task.history],
        "result": None,
    }
    if result is not None:
        made["result"] = {
            "status": result.status,
            "content": result.content,
            "error": result.error,
            "from": result.sender.agent,
            "at": wire.stamp(result.at),
        }
    return made


def complete(bus: Bus, name: str, value: str) -> list[str]:
    """Return names of channels or ids of tasks that begin (ids: or end) with what was typed."""
    if name == "channel":
        return [channel for channel in bus.store.channels() if channel.startswith(value)]
    if name == "id":
        return sorted((i for i in bus.store.ids() if i.startswith(value) or i.endswith(value)), reverse=True)
    return []
