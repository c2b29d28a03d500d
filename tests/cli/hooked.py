"""A client that calls its hook, and what each client says and takes: shared by the tests of `mcp-bus hook`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mcp_bus.hooks import forms

if TYPE_CHECKING:
    import subprocess

    from tests.cli.conftest import Cli

# What each client says on stdin: captured from the versions that docs/waking.md names, cut to what tells
# them apart; Cursor's is from its documentation, and opencode's is what our plugin sends.
SAID: dict[str, dict[str, dict[str, Any]]] = {
    "claude-code": {
        "SessionStart": {"session_id": "5e5c", "transcript_path": "t.jsonl", "source": "startup"},
        "UserPromptSubmit": {"session_id": "5e5c", "permission_mode": "default", "prompt": "hello"},
        "PostToolUse": {
            "session_id": "5e5c", "tool_name": "Bash", "tool_input": {"command": "ls"},
            "tool_response": {"stdout": "x"}, "tool_use_id": "toolu_1",
        },
        "Stop": {"session_id": "5e5c", "stop_hook_active": False, "last_assistant_message": "done"},
    },
    "codex": {
        "SessionStart": {"session_id": "019a", "transcript_path": None, "source": "startup", "model": "fake"},
        "UserPromptSubmit": {"session_id": "019a", "turn_id": "1", "prompt": "hello", "permission_mode": "default"},
        "PostToolUse": {"session_id": "019a", "turn_id": "1", "tool_name": "Bash", "tool_response": ""},
        "Stop": {"session_id": "019a", "turn_id": "1", "stop_hook_active": False, "last_assistant_message": None},
    },
    "gemini-cli": {
        "SessionStart": {"session_id": "9b1d", "timestamp": "2026-11-24T00:00:00.000Z", "source": "startup"},
        "BeforeAgent": {"session_id": "9b1d", "timestamp": "2026-11-24T00:00:00.000Z", "prompt": "hello"},
        "AfterTool": {"session_id": "9b1d", "tool_name": "ls", "tool_input": {}, "tool_response": {"llmContent": "x"}},
        "AfterAgent": {"session_id": "9b1d", "prompt": "a", "prompt_response": "b", "stop_hook_active": False},
    },
    "cursor": {
        "sessionStart": {"conversation_id": "668", "session_id": "668", "workspace_roots": ["/"]},
        "postToolUse": {"conversation_id": "668", "tool_name": "Shell", "tool_output": "x", "cwd": "/"},
        "stop": {"conversation_id": "668", "status": "completed", "loop_count": 0},
    },
    "opencode": {
        "session.created": {"session_id": "ses_1"},
        "session.compacted": {"session_id": "ses_1"},
        "chat.message": {"session_id": "ses_1"},
        "tool.execute.after": {"session_id": "ses_1"},
    },
}  # fmt: skip
EVENTS = [(client, event) for client, events in SAID.items() for event in events]
STARTS = [(client, event) for client, event in EVENTS if forms.CLIENTS[client][event].moment == forms.START]
STOPS = [(client, event) for client, event in EVENTS if forms.CLIENTS[client][event].moment == forms.STOP]
TURNS = [pair for pair in EVENTS if pair not in STARTS + STOPS]


class Client:
    """A client that calls its hook: as a process, with JSON on stdin."""

    def __init__(self, cli: Cli) -> None:
        self.cli = cli

    def call(
        self,
        client: str,
        event: str,
        *flags: str,
        said: str | None = None,
        env: dict[str, str] | None = None,
        **more: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Call the hook with a captured input, changed as told."""
        known = SAID[client].get(event, {})
        given = (
            json.dumps({"hook_event_name": event, "cwd": str(self.cli.home)} | known | more) if said is None else said
        )
        return self.cli.run("hook", *flags, client, event, text=given, env=env or {})

    def told(self, client: str, event: str, **more: Any) -> str:
        """Call the hook, check that all went well, and return the text that the model is told; empty for none."""
        done = self.call(client, event, **more)
        assert (done.returncode, done.stderr) == (0, "")
        return text_of(client, event, done.stdout)


def text_of(client: str, event: str, out: str) -> str:
    """Take the text out of a reply, which must have exactly the form that the client honours."""
    if not out:
        return ""
    if client == "opencode":
        return out.removesuffix("\n")
    reply = json.loads(out)
    if client == "cursor":
        ((key, text),) = reply.items()
        assert key == ("followup_message" if event == "stop" else "additional_context")
        return str(text)
    if event in ("Stop", "AfterAgent"):
        assert reply.keys() == {"decision", "reason"}
        assert reply["decision"] == {"Stop": "block", "AfterAgent": "deny"}[event]
        return str(reply["reason"])
    assert reply == {"hookSpecificOutput": {"hookEventName": event, "additionalContext": ANY_TEXT}}
    return str(reply["hookSpecificOutput"]["additionalContext"])


class _AnyText:
    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and bool(other)

    def __hash__(self) -> int:
        return 0


ANY_TEXT = _AnyText()


def send(cli: Cli, body: str = "the secret body", *, priority: int = 0, sender: str = "ann") -> str:
    message: str = cli.json("--agent", sender, "send", "@tester", body, "--priority", str(priority))["id"]
    return message


def unread(cli: Cli) -> list[str]:
    """Return the names of the files that say that a message waits untouched."""
    return [name for name in cli.files() if name.startswith("channels/@tester/requests/")]
