"""Prompts start what people want of the bus with a slash; a wrong one is refused in words, in both eras."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from mcp import types
from mcp.shared.exceptions import MCPError

from mcp_bus import planfile
from mcp_bus.server import prompts, tools
from tests.hidden import acting
from tests.server.support import BLOCK, Desk, desk

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus.bus import Bus

pytestmark = pytest.mark.anyio


async def text_of(ann: Desk, name: str, **arguments: str) -> str:
    (message,) = (await ann.client.get_prompt(name, arguments)).messages
    assert message.role == "user"
    assert isinstance(message.content, types.TextContent)
    assert not acting(message.content.text)
    return message.content.text


async def test_prompts_are_listed_with_their_arguments(place: Path, era: str) -> None:
    async with desk(place, era) as ann:
        listed = (await ann.client.list_prompts()).prompts
    assert [item.name for item in listed] == ["work", "delegate", "plan", "status", "triage", "merge_profile", "role"]
    assert all(item.description for item in listed)
    assert {item.name: [arg.name for arg in item.arguments or ()] for item in listed}["work"] == ["channel"]


async def test_each_prompt_names_only_tools_that_there_are(place: Path, era: str, bob: Bus) -> None:
    bob.create_channel("review")
    (place / "bus" / "agents" / "ann.md").write_text("Review.")
    known = {tool.name for tool in (*tools.TOOLS, tools.USER_PROFILE)} | set(planfile.STEP_FIELDS)
    async with desk(place, era) as ann:
        for name in prompts.PROMPTS:
            text = await text_of(ann, name)
            named = {word.strip("(),.;:") for word in text.replace("(", " ").split() if "_" in word}
            assert {word for word in named if word.isidentifier()} <= known, name


async def test_arguments_are_filled_in(place: Path, era: str) -> None:
    async with desk(place, era) as ann:
        assert 'claim_next(channels=["review"])' in await text_of(ann, "work", channel="review")
        assert (await text_of(ann, "delegate", task="build it")).endswith("What is to be done:\nbuild it")


async def test_a_role_is_the_text_of_a_person_between_marks(place: Path, era: str, bob: Bus) -> None:
    bob.create_channel("review")
    (place / "bus" / "agents" / "reviewer.md").write_text("Be kind.\x1b[2J")
    async with desk(place, era) as ann:
        ((_, said),) = BLOCK.findall(await text_of(ann, "role", agent="reviewer"))
        assert said == "Be kind.\\x1b[2J"


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("works", {}, "there is no prompt 'works'"),
        ("work", {"chanel": "x"}, "has no argument 'chanel'"),
        ("role", {"agent": "nobody"}, "no role is written down for 'nobody'"),
        ("role", {"agent": "../../bus"}, "no role is written down"),
    ],
)
async def test_a_wrong_prompt_is_refused_in_words(
    place: Path, era: str, name: str, arguments: dict[str, str], said: str
) -> None:
    async with desk(place, era) as ann:
        with pytest.raises(MCPError, match=said) as refusal:
            await ann.client.get_prompt(name, arguments)
        assert refusal.value.error.code == types.INVALID_PARAMS
        assert "\nnext: " in refusal.value.error.message
