"""A client that listens for changes, as its era has it."""

from __future__ import annotations

import warnings
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
from mcp import MCPDeprecationWarning, types
from mcp.client import Client

from tests.server.support import WAIT_S, Desk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


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
async def hearing(server: Any, era: str, *uris: str) -> AsyncIterator[tuple[Desk, Ear]]:
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
