"""The clients whose hooks can tell their models something, at which events, and in which form of reply.

In another form than the one its client honours, a text is lost without a word.  So the forms are a table, and each
was tried, or `docs/waking.md` says where it is from.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from mcp_bus.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

START, TURN, STOP = "start", "turn", "stop"


class Event(NamedTuple):
    """What an event of a client means to us, and the form of reply by which a text gets from it to the model."""

    moment: str
    form: str


_START, _TURN, _STOP = Event(START, "context"), Event(TURN, "context"), Event(STOP, "block")
_SAME = {"SessionStart": _START, "UserPromptSubmit": _TURN, "PostToolUse": _TURN, "Stop": _STOP}
CLIENTS: dict[str, dict[str, Event]] = {
    "claude-code": _SAME,
    "codex": _SAME,
    "gemini-cli": {
        "SessionStart": _START,
        "BeforeAgent": _TURN,
        "AfterTool": _TURN,
        "AfterAgent": Event(STOP, "deny"),
    },
    "cursor": {
        "sessionStart": Event(START, "additional_context"),
        "postToolUse": Event(TURN, "additional_context"),
        "stop": Event(STOP, "followup_message"),
    },
    # It has plugins instead of commands: ours is in docs/waking.md, and takes plain text.
    "opencode": {
        "session.created": Event(START, "plain"),
        "session.compacted": Event(START, "plain"),
        "chat.message": Event(TURN, "plain"),
        "tool.execute.after": Event(TURN, "plain"),
    },
}
# What a client calls itself over MCP, where that is another word: the agent's name has it.
CALLED = {"codex": "codex-mcp-client", "gemini-cli": "gemini-cli-mcp-client", "cursor": "cursor-vscode"}


def event(client: str, name: str) -> Event:
    """Return what an event means.

    Raises:
        InvalidRequest: there is no such client, or it tells its model nothing then.
    """
    if client not in CLIENTS:
        msg = f"{client[:40]!r} is no client with a hook that is known here"
        raise InvalidRequest(msg, hint=f"known: {', '.join(CLIENTS)}")
    if name not in CLIENTS[client]:
        msg = f"{name[:40]!r} is no event by which {client} lets its model be told something"
        raise InvalidRequest(msg, hint=f"known: {', '.join(CLIENTS[client])}")
    return CLIENTS[client][name]


def is_meant(event: Event, said: Mapping[str, Any]) -> bool:
    """Tell whether the agent may be told something, by what its client says of the event.

    A helper of the agent could not read its inbox; and a stop that was held up once, or that its user or an error
    brought about, is let go.
    """
    is_held = bool(said.get("stop_hook_active") or said.get("loop_count"))
    is_stopped = is_held or said.get("status", "completed") != "completed"
    return not said.get("agent_id") and not (event.moment == STOP and is_stopped)


def reply(form: str, event: str, text: str) -> str:
    """Return a text in the form in which a client takes it at an event."""
    if form == "plain":
        return text
    if form == "context":
        return json.dumps({"hookSpecificOutput": {"hookEventName": event, "additionalContext": text}})
    return json.dumps({"decision": form, "reason": text} if form in ("block", "deny") else {form: text})
