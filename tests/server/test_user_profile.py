"""The user's profile in mid-conversation: a resource, a prompt that merges, and a tool where the operator offers it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus import userprofile
from tests.server.support import desk
from tests.server.test_prompts import text_of

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus.bus import Bus
    from tests.server.support import Desk

pytestmark = pytest.mark.anyio


async def resource(ann: Desk) -> Any:
    (found,) = (await ann.client.read_resource("bus://profile")).contents
    return json.loads(found.text)  # type: ignore[union-attr]  # it is text


async def test_it_is_read_merged_and_written_back_on_what_was_read(place: Path, era: str, bob: Bus) -> None:
    userprofile.write(bob, "- likes tea", base=0)
    async with desk(place, era, shared_profile=True) as ann:
        assert (await resource(ann))["revision"] == 1
        asked = await text_of(ann, "merge_profile", mine="- likes green tea")
        assert "- likes tea\n" in asked
        assert "- likes green tea\n" in asked
        assert "with base 1: with the tool user_profile" in asked
        assert "- likes tea" in await ann.call("user_profile")
        said = await ann.call("user_profile", text="- likes green tea", base=1)
        assert said.startswith("the shared profile is at revision 2\n")
        assert userprofile.read(bob).text == "- likes green tea\n"
        refused = await ann.refused("user_profile", text="- likes coffee", base=1)
        assert refused.startswith("the profile is at revision 2, written by ann, and not at 1\nnext: read it again")
        assert "needs base" in await ann.refused("user_profile", text="- likes coffee")
    assert userprofile.read(bob).text == "- likes green tea\n"


async def test_the_tool_is_offered_only_where_the_operator_says_so(place: Path, era: str) -> None:
    async with desk(place, era) as ann:
        names = {tool.name for tool in (await ann.client.list_tools()).tools}
        assert "user_profile" not in names
        assert (await resource(ann)) == {"revision": 0, "text": "", "by": None, "at": None}
        asked = await text_of(ann, "merge_profile")
        assert "there is none yet" in asked
        assert "your own USER.md" in asked
        assert "mcp-bus profile write FILE --base 0" in asked
    async with desk(place, era, shared_profile=True, read_only=True) as ann:
        assert "user_profile" not in {tool.name for tool in (await ann.client.list_tools()).tools}
    async with desk(place, era, shared_profile=True, profile="worker") as ann:
        assert "user_profile" in {tool.name for tool in (await ann.client.list_tools()).tools}
