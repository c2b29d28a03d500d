"""A client is told that what it asked about reads differently, whoever changed it, in both eras."""

from __future__ import annotations

import warnings
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from mcp import MCPDeprecationWarning, types
from mcp.client import Client

from mcp_bus.server.app import build
from tests.server.support import WAIT_S, Desk, process, settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from mcp.client.stdio import StdioServerParameters
    from mcp.server.lowlevel import Server

    from mcp_bus.bus import Bus

pytestmark = pytest.mark.anyio

INBOX = "bus://channels/review/inbox"


class Ear:
    """What a client hears: addresses, in order."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self._more = anyio.Event()

    def hear(self, uri: str) -> None:
        self.heard.append(uri)
        self._more.set()
        self._more = anyio.Event()

    async def until(self, count: int) -> list[str]:
        with anyio.fail_after(WAIT_S):
            while len(self.heard) < count:
                await self._more.wait()
        return self.heard


@asynccontextmanager
async def hearing(server: Server[Any] | StdioServerParameters, era: str, *uris: str) -> AsyncIterator[tuple[Desk, Ear]]:
    """Connect, and ask to be told of changes as the era has it."""
    ear = Ear()

    async def told(message: object) -> None:
        if era == "legacy" and isinstance(message, types.ResourceUpdatedNotification):
            ear.hear(str(message.params.uri))

    with anyio.fail_after(3 * WAIT_S):
        async with Client(server, mode=era, message_handler=told) as client, anyio.create_task_group() as group:
            await Desk(client).call("list_channels")
            await (_subscribe(client, uris) if era == "legacy" else group.start(_listen, client, uris, ear))
            yield Desk(client), ear
            group.cancel_scope.cancel()


async def _subscribe(client: Client, uris: tuple[str, ...]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MCPDeprecationWarning)
        for uri in uris:
            await client.subscribe_resource(uri)


async def _listen(client: Client, uris: tuple[str, ...], ear: Ear, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    async with client.listen(resource_subscriptions=list(uris)) as stream:
        task_status.started()
        async for event in stream:
            ear.hear(str(event.uri))  # type: ignore[union-attr]  # only these were asked for


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


@pytest.mark.parametrize("uri", ["bus://inbox", "bus://agents", "bus://topics/news", "bus://channels"])
async def test_each_kind_of_resource_is_told_of(place: Path, era: str, bob: Bus, uri: str) -> None:
    bob.mail.topics.subscribe("news")
    async with hearing(build(settings(place)), era, uri) as (_, ear):
        if uri == "bus://agents":
            bob.roster.arrive()
        elif uri == "bus://inbox":
            bob.mail.send("@ann", "hello")
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
