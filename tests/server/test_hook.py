"""The tool that no model sees: what a client is answered from its hooks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from mcp.types import TextContent

from mcp_bus.hooks.forms import CLIENTS
from tests.fakes import ERAS
from tests.server.support import Desk, desk, open_bus

if TYPE_CHECKING:
    from pathlib import Path

    from mcp.types import CallToolResult

pytestmark = pytest.mark.anyio
TURNS = ("UserPromptSubmit", "PostToolUse")


async def asked(desk: Desk, event: str, **more: object) -> CallToolResult:
    return await desk.client.call_tool("hook", {"hook_event_name": event, "session_id": "5e5c", **more})


async def told(desk: Desk, event: str, **more: object) -> dict[str, Any]:
    """Return the one JSON object that a hook is answered with; another form would be lost."""
    answer = await asked(desk, event, **more)
    assert not answer.is_error
    assert answer.structured_content is None
    (content,) = answer.content
    assert isinstance(content, TextContent)
    found = json.loads(content.text)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("era", ERAS)
async def test_it_is_not_listed_and_is_answered_all_the_same(place: Path, era: str) -> None:
    open_bus(place).close()
    async with desk(place, era) as ann:
        assert "hook" not in [tool.name for tool in (await ann.client.list_tools()).tools]
        assert await told(ann, "PostToolUse") == {}


@pytest.mark.parametrize("event", TURNS)
async def test_what_is_new_is_told_once_and_stays_unread(place: Path, event: str) -> None:
    async with desk(place, "auto") as ann:
        with open_bus(place) as bob:
            bob.mail.send("@ann", "a secret")
        text = (await told(ann, event))["hookSpecificOutput"]["additionalContext"]
        assert 'new for you: 1 message, from "bob"' in text
        assert await told(ann, event) == {}
        assert "a secret" in await ann.call("read_inbox"), "a hook offers nothing"


async def test_a_stop_is_held_up_for_the_urgent_once_and_not_when_it_was_held_up(place: Path) -> None:
    async with desk(place, "auto") as ann:
        with open_bus(place) as bob:
            bob.mail.send("@ann", "later")
            assert await told(ann, "Stop") == {}
            bob.mail.send("@ann", "now", priority=1)
        for held in (True, "true"):
            assert await told(ann, "Stop", stop_hook_active=held) == {}
        found = await told(ann, "Stop", stop_hook_active="${stop_hook_active}")
        assert found["decision"] == "block"
        assert "1 message, 1 urgent" in found["reason"]
        assert await told(ann, "Stop", stop_hook_active=False) == {}


async def test_a_helper_of_the_agent_is_told_nothing_and_one_that_is_not_named_is_none(place: Path) -> None:
    async with desk(place, "auto") as ann:
        with open_bus(place) as bob:
            bob.mail.send("@ann", "hello")
        assert await told(ann, "PostToolUse", agent_id="helper-1") == {}
        assert await told(ann, "PostToolUse", agent_id="${agent_id}") != {}


async def test_a_start_tells_the_tokens_of_what_this_very_session_holds(place: Path) -> None:
    async with desk(place, "auto") as ann:
        await ann.post("work", "paint it")
        claim = await ann.claim("work")
        text = (await told(ann, "SessionStart"))["hookSpecificOutput"]["additionalContext"]
        assert claim.token in text
        assert 'you are "ann", session ' in text


async def test_a_hook_makes_no_bus_and_says_that_the_agent_is_there(place: Path) -> None:
    async with desk(place, "auto") as ann:
        assert await told(ann, "UserPromptSubmit") == {}
        assert not (place / "bus").exists()
        with open_bus(place) as bob:
            assert await told(ann, "UserPromptSubmit") == {}
            assert [item.presence.agent for item in bob.roster.all() if item.is_live] == ["ann"]


async def test_readers_are_told_what_waits_at_a_start_and_else_nothing(place: Path) -> None:
    with open_bus(place) as bob:
        bob.mail.send("@ann", "hello")
    async with desk(place, "auto", read_only=True) as ann:
        assert await told(ann, "PostToolUse") == {}
        assert "Unread: 1 message" in str(await told(ann, "SessionStart"))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({}, "argument 'hook_event_name' is missing"),
        ({"hook_event_name": "Stopp"}, "'Stopp' is no event"),
        ({"hook_event_name": "Stop", "sesion_id": "x"}, "did you mean 'session_id'?"),
        ({"hook_event_name": "Stop", "stop_hook_active": "maybe"}, "argument 'stop_hook_active'"),
    ],
)
async def test_a_mistyped_setting_is_an_error_that_names_it(
    place: Path, arguments: dict[str, Any], complaint: str
) -> None:
    async with desk(place, "auto") as ann:
        assert complaint in await ann.refused("hook", **arguments)
        assert not (place / "bus").exists()


def test_every_event_of_the_client_is_looked_at() -> None:
    assert {"SessionStart", *TURNS, "Stop"} == set(CLIENTS["claude-code"])
