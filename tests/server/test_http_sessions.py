"""Whose session a request over HTTP belongs to, how long it lasts, and how many there can be."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anyio.lowlevel
import pytest
from mcp.shared.exceptions import MCPError

from mcp_bus.model import State
from mcp_bus.server import sessions
from tests.server.support import open_bus, settings, until

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.anyio


async def test_a_client_that_is_silent_for_too_long_is_gone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = sessions.Many(settings(place))
    with open_bus(place) as bus:
        posted = bus.post("review", "look").id
        async with many.life():
            session = many.of(_request("/mcp/ann", client="c"))
            assert many.of(_request("/mcp/ann", client="c")) is session
            assert many.of(_request("/mcp/ann", client="d")) is not session
            assert session.bus().claim(()) is not None
            many.end_idle()
            assert bus.get(posted).state is State.LEASED, "it has just asked for something"
            monkeypatch.setattr(sessions, "IDLE_S", 0.0)
            with many.using(_request("/mcp/ann", client="c")):
                many.end_idle()
                await anyio.lowlevel.checkpoint()
                assert many.of(_request("/mcp/ann", client="c")) is session, "it is being answered"
            many.end_idle()
            await until(lambda: bus.get(posted).state is State.READY, "it was not given back")
            assert many.of(_request("/mcp/ann", client="c")) is not session


async def test_there_is_room_for_who_comes_as_long_as_somebody_does_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 3)
    monkeypatch.setattr(sessions, "MAX_OF_ONE", 2)
    many = sessions.Many(settings(place))
    with open_bus(place) as bus:
        async with many.life():
            for agent in "ab":
                bus.post(agent, "x")
                assert many.of(_request(f"/mcp/{agent}")).bus().claim([agent]) is not None
            idle = many.of(_request("/mcp/c", client="1"))
            second = many.of(_request("/mcp/c", client="2"))
            assert second is not idle, "the one that did nothing had to go"
            assert many.of(_request("/mcp/c", client="2")) is second
            with many.using(_request("/mcp/c", client="2")), pytest.raises(MCPError, match="no room for another"):
                many.of(_request("/mcp/d"))
            assert many.of(_request("/mcp/d")) is not second
            assert many.of(_request("/mcp/c", client="2")) is not second, "it did nothing, and had to go"


async def test_one_address_has_room_of_its_own(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_OF_ONE", 2)
    many = sessions.Many(settings(place))
    async with many.life():
        other = many.of(_request("/mcp/other"))
        first = many.of(_request("/mcp/d", client="1"))
        for number in "2345":
            many.of(_request("/mcp/d", client=number))
        assert many.of(_request("/mcp/other")) is other
        assert many.of(_request("/mcp/d", client="1")) is not first


async def test_a_session_that_nobody_gave_is_none_in_the_modern_era(place: Path) -> None:
    many = sessions.Many(settings(place))
    async with many.life():
        first = many.of(_request("/mcp/a", session="made-up", client="c", era="2026-07-28"))
        assert many.of(_request("/mcp/a", session="another", client="c", era="2026-07-28")) is first
        assert many.of(_request("/mcp/a", session="1", client="c")) is not many.of(_request("/mcp/a", session="2"))


def _request(path: str, *, session: str = "", client: str = "", era: str = "2025-06-18") -> Any:
    known = SimpleNamespace(client_info=SimpleNamespace(name=client)) if client else None
    headers = {"mcp-session-id": session} if session else {}
    request = SimpleNamespace(scope={"path": path, sessions.LINE: sessions.Line()}, headers=headers)
    return SimpleNamespace(request=request, session=SimpleNamespace(client_params=known), protocol_version=era)
