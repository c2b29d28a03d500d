"""Models and programs are told who holds a task though no session of it says that it is there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from mcp_bus.holders import UNSEEN
from tests.server.support import desk, found, open_bus

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus.bus import Bus

pytestmark = pytest.mark.anyio

LINE = "^(at work, no live session seen: .*)$"


async def test_a_shell_that_holds_a_task_is_told_of_and_a_live_session_is_not(place: Path, era: str, bob: Bus) -> None:
    async with desk(place, era) as ann:
        bob.post("review", "x")
        await ann.call("claim_next")
        assert "no live session seen" not in await ann.call("list_channels")
        bob.post("review", "y")
        assert bob.claim() is not None
        line = found(LINE, await ann.call("list_channels"))
        assert line == 'at work, no live session seen: "bob" holds 1 task, lease ends in 5 min'
        mine, other = json.loads((await ann.client.read_resource("bus://agents")).contents[0].text)  # type: ignore[union-attr]  # it is text
        assert (mine["agent"], mine["live"], mine["holds"], mine["lease_until"]) == ("ann", True, 1, None)
        assert (other["agent"], other["live"], other["why_not"], other["holds"]) == ("bob", False, UNSEEN, 1)
        assert other["holder"] == bob.identity.holder
        assert other["lease_until"] is not None


async def test_of_many_holders_eight_are_named_and_one_without_a_name_by_its_word(place: Path, era: str) -> None:
    for number in range(10):
        with open_bus(place, agent=f"a{number} and co") as bus:
            bus.post("review", "x")
            assert bus.claim() is not None
    async with desk(place, era) as ann:
        line = found(LINE, await ann.call("list_channels"))
    assert line.count('holder "a') == 8
    assert line.endswith("; and 2 more")
