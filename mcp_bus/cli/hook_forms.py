"""The clients whose hooks can tell their models something, at which events, and in which form of reply.

In another form than the one its client honours, a text is lost without a word.  So the forms are a table, and each
was tried, or `docs/waking.md` says where it is from.
"""

from __future__ import annotations

import json
from typing import NamedTuple

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


def reply(form: str, event: str, text: str) -> str:
    """Return a text in the form in which a client takes it at an event."""
    if form == "plain":
        return text
    if form == "context":
        return json.dumps({"hookSpecificOutput": {"hookEventName": event, "additionalContext": text}})
    return json.dumps({"decision": form, "reason": text} if form in ("block", "deny") else {form: text})
