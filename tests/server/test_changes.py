"""A client is told that what it asked about reads differently, whoever changed it, in both eras."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import pytest
from mcp import MCPDeprecationWarning

from mcp_bus import userprofile
from mcp_bus.server.app import build
from tests.server.hearing import hearing
from tests.server.support import process, settings

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus.bus import Bus

pytestmark = pytest.mark.anyio

INBOX = "bus://channels/review/inbox"


async def test_what_another_process_writes_is_told(place: Path, era: str, bob: Bus, unpolled: None) -> None:
    del unpolled
    bob.create_channel("review")
    async with hearing(build(settings(place)), era, INBOX) as (_, ear):
        bob.post("review", "x")
        assert await ear.until(1) == [INBOX]
        task = bob.claim(["review"])
        assert task is not None
        await ear.until(2)
        bob.ack(task, "done")
        await ear.until(3)


async def test_a_real_client_process_is_told(place: Path, era: str, bob: Bus) -> None:
    bob.create_channel("review")
    async with hearing(process(place), era, INBOX) as (_, ear):
        for number in range(3):
            bob.post("review", "x")
            assert len(await ear.until(number + 1)) == number + 1


async def test_who_asked_about_one_thing_is_not_told_of_another(place: Path, era: str, bob: Bus) -> None:
    for channel in ("review", "build"):
        bob.create_channel(channel)
    async with hearing(build(settings(place)), era, INBOX) as (_, ear):
        bob.post("build", "x")
        bob.post("review", "x")
        assert await ear.until(1) == [INBOX]


@pytest.mark.parametrize("uri", ["bus://inbox", "bus://agents", "bus://topics/news", "bus://channels", "bus://profile"])
async def test_each_kind_of_resource_is_told_of(place: Path, era: str, bob: Bus, uri: str) -> None:
    bob.mail.topics.subscribe("news")
    async with hearing(build(settings(place)), era, uri) as (_, ear):
        if uri == "bus://agents":
            bob.roster.arrive()
        elif uri == "bus://inbox":
            bob.mail.send("@ann", "hello")
        elif uri == "bus://profile":
            userprofile.write(bob, "- likes tea", base=0)
        elif uri == "bus://topics/news":
            bob.mail.send("news", "extra")
        else:
            bob.post("review", "x")
        assert set(await ear.until(1)) == {uri}


async def test_a_resource_that_comes_to_be_there_is_a_change(place: Path, era: str, bob: Bus) -> None:
    async with hearing(build(settings(place)), era, INBOX) as (_, ear):
        bob.post("review", "x")
        assert await ear.until(1) == [INBOX]


async def test_who_unsubscribed_is_told_no_longer(place: Path, bob: Bus) -> None:
    bob.create_channel("review")
    agents = "bus://agents"
    async with hearing(build(settings(place)), "legacy", INBOX, agents) as (ann, ear):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MCPDeprecationWarning)
            await ann.client.unsubscribe_resource(INBOX)
        bob.post("review", "x")
        bob.roster.arrive()
        assert await ear.until(1) == [agents]
