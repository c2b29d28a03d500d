"""Tasks as JSON data: what `--json` shows, with full ids and RFC 3339 times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mcp_bus import history, wire
from mcp_bus.find import LOST, is_lost, short
from mcp_bus.model import State

if TYPE_CHECKING:
    from mcp_bus.model import Attempt, Result, Secret, Sender, Task


def stamp(ms: int) -> str | None:
    """Return a time, or None for never."""
    return wire.stamp(ms) if ms else None


def sender(who: Sender) -> dict[str, Any]:
    """Return who wrote something."""
    return {"agent": who.agent, "pid": who.pid, "pwd": who.pwd}


def state(task: Task) -> str:
    """Return a task's state, with `blocked` told from `dead`, and `unverified` and `lost` from `done`."""
    if task.doubt and task.state is State.DONE:
        return "unverified"
    if is_lost(task):
        return "lost"
    return "blocked" if task.question is not None else str(task.state)


def heading(task: Task) -> str:
    """Return what a list calls a task: its title, or the first line of its body."""
    if task.body.title:
        return task.body.title
    text = task.body.content or (f"({task.hidden})" if task.hidden else "")
    first, more, _ = text.lstrip().partition("\n")
    return f"{first.rstrip()} …" if more else first


def summary(task: Task) -> dict[str, Any]:
    """Return a task without body, result and history.

    Nor the token of its lease: with it a reader could answer in the holder's place, by mistake at least.
    """
    body, slot = task.body, task.slot
    lease = slot.lease if task.state is State.LEASED else None
    return (
        {
            "id": task.id,
            "short": short(task.id),
            "channel": task.channel,
            "state": str(task.state),
            "blocked": task.question is not None,
            "title": body.title,
            "type": body.type,
            "priority": slot.priority,
            "from": sender(body.sender),
            "thread": body.thread,
            "reply_to": body.reply_to,
            "requires": list(body.requires),
            "retry_of": body.retry_of or None,
            "created": stamp(body.created),
            "not_before": stamp(slot.not_before),
            "deadline": stamp(slot.deadline),
            "attempt": slot.attempt,
            "releases": slot.releases,
            "lease": {"holder": lease.holder, "expires": stamp(lease.expires)} if lease else None,
        }
        | proof(task)
        | secret(task.body.encrypted)
        | ({"lost": LOST} if is_lost(task) else {})
    )


def secret(found: Secret | None) -> dict[str, Any]:
    """Return to whom something is encrypted, where it is, and why it is not shown, where it is not."""
    return {"encrypted": {"to": list(found.to), "hidden": found.why or None}} if found is not None else {}


def proof(task: Task) -> dict[str, Any]:
    """Return whose signatures a task has, where its channel is signed; of a hidden one, why it is not shown."""
    if task.hidden:
        return {"hidden": task.hidden}
    if task.proof is None:
        return {}
    body, result, doubt = (text or None for text in task.proof[:3])
    return {"verified": body, "result_verified": result, "not_verified": doubt}


def full(task: Task) -> dict[str, Any]:
    """Return all of a task."""
    return summary(task) | {
        "body": task.body.content,
        "plan": task.body.plan or None,
        "step": task.body.node or None,
        "inputs": [dict(item) for item in task.body.inputs],
        "result_schema": task.body.result_schema,
        "claims": task.body.claims,
        "result": result(task.result) if task.result else None,
        "history": [attempt(line) for line in task.history],
    }


def claimed(task: Task) -> dict[str, Any]:
    """Return a task its reader holds: `ticket` is what its other verbs need."""
    return full(task) | {"ticket": {"id": task.id, "token": task.lease.token}}


def result(found: Result) -> dict[str, Any]:
    """Return what a worker answered."""
    return {
        "status": found.status,
        "content": found.content,
        "error": found.error or None,
        "artifacts": [item._asdict() for item in found.artifacts],
        "usage": dict(found.usage),
        "from": sender(found.sender),
        "at": stamp(found.at),
        "attempt": found.attempt,
    } | secret(found.encrypted)


def attempt(line: Attempt) -> dict[str, Any]:
    """Return a line of history, without the token that may still be valid."""
    made: dict[str, Any] = history.fields(line._replace(token=""))
    return made
