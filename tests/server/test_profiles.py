"""No answer sends a model to a tool it has not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from mcp_bus.server.tools import TOOLS
from tests.server.support import Desk, claim_in, desk

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus.bus import Bus

pytestmark = pytest.mark.anyio

TOOL = re.compile(r"\b(?:" + "|".join(tool.name for tool in TOOLS if tool.name != "heartbeat") + r")\b")


async def look(desk: Desk, names: set[str], task: str) -> list[str]:
    """Call what every profile with such a tool has, in each way that ends differently."""
    told = []
    for tool, arguments in (
        ("list_channels", {}),
        ("post_task", {"channel": "review", "body": "x" * 9000, "key": "k"}),
        ("post_task", {"channel": "review", "body": "x" * 9000, "key": "k"}),
        ("list_channels", {}),
        ("send_message", {"to": "@bob", "body": "x"}),
        ("read_inbox", {}),
        ("get_task", {"task": task}),
        ("find_tasks", {}),
        ("find_tasks", {"text": "nowhere"}),
        ("await_results", {"tasks": [task]}),
        ("control_task", {"task": task, "action": "retry"}),
        ("control_task", {"task": task, "action": "cancel"}),
        ("get_task", {"task": task}),
    ):
        if tool in names:
            told.append(await desk.call(tool, **arguments))
    if "claim_next" in names:
        claimed = await desk.call("claim_next")
        claim = claim_in(claimed)
        told += [claimed, await desk.call("claim_next", channels=["elsewhere"])]
        told.append(await desk.call("heartbeat", **claim.mine, progress="busy"))
        told.append(await desk.call("submit_result", **claim.mine, status="blocked", result="?"))
        told.append(await desk.refused("heartbeat", **claim.mine))
    for tool in ("get_task", "heartbeat", "control_task"):
        if tool in names:
            arguments = {"heartbeat": {"token": "abcdef"}, "control_task": {"action": "cancel"}}.get(tool, {})
            told.append(await desk.refused(tool, task="ffffffff", **arguments))
    return told


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("profile", ["worker", "lead", "full"])
async def test_answers_name_offered_tools_only(
    place: Path, era: str, bob: Bus, profile: str, *, read_only: bool
) -> None:
    task = bob.post("old", "x", max_attempts=1).id[-8:]
    claimed = bob.claim()
    assert claimed is not None
    bob.nack(claimed, "no")
    bob.mail.send("@ann", "hello")
    bob.mail.send("broadcast", "hello")
    async with desk(place, era, profile=profile, read_only=read_only) as ann:
        names = {tool.name for tool in (await ann.client.list_tools()).tools}
        told = await look(ann, names, task)
        assert len(told) >= 1
        for text in told:
            assert set(TOOL.findall(text)) <= names, text
        for tool in {tool.name for tool in TOOLS} - names:
            text = await ann.refused(tool)
            where = "to readers" if read_only else f"in the profile '{profile}'"
            assert text.startswith(f"{tool} is not offered {where}\nnext: use what is: ")
            assert set(TOOL.findall(text.partition("\n")[2])) <= names


async def test_a_worker_is_told_where_the_rest_of_a_long_task_is(place: Path, era: str, bob: Bus) -> None:
    task = bob.post("review", "x" * 20_000).id[-8:]
    async with desk(place, era, profile="worker") as ann:
        assert f"more characters; `mcp-bus show {task}` prints it)" in await ann.call("claim_next")
    async with desk(place, era) as ann:
        assert f'more characters; get_task(task="{task}", offset=5000))' in await ann.call("claim_next")


async def test_what_a_small_profile_does_not_show_it_takes_all_the_same(place: Path, era: str, bob: Bus) -> None:
    async with desk(place, era, profile="worker") as ann:
        shown = {tool.name: set(tool.input_schema["properties"]) for tool in (await ann.client.list_tools()).tools}
        assert shown["post_task"] == {"channel", "body"}
        task = await ann.post(title="T", options={"priority": 3})
    assert (bob.get(task).body.title, bob.get(task).body.priority) == ("T", 3)
