"""Telling a client that a resource it asked about has changed, whoever changed it, in both protocol eras.

A client of the handshake era subscribes to an address and is told on its session; one of the modern era
listens on a stream.  Either way one task looks at what is wanted when something moves on the bus, and tells
only what reads differently now: a client that is told for nothing reads for nothing.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
from mcp import types
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourceUpdated

from mcp_bus.errors import BusError
from mcp_bus.server import resources

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterable, Iterator

    from mcp.server.context import ServerRequestContext
    from mcp.server.session import ServerSession

    from mcp_bus.bus import Bus
    from mcp_bus.server.waker import Waker

# Addresses of one connection that are looked at; a client that wants more reads for itself.
MAX_WANTED = 200
logger = logging.getLogger(__name__)


class Changes:
    """What the clients of one process want to be told of, and what they were last told."""

    def __init__(self, bus: Callable[[], Bus]) -> None:
        """Look at the bus that `bus` returns; nothing is wanted yet."""
        self._bus = bus
        self._events = InMemorySubscriptionBus()
        self._listen = ListenHandler(self._events)
        self._subscribed: set[str] = set()
        # The SDK makes a session for each request; all of them lead to the one client of this process.
        self._client: ServerSession | None = None
        self._listened: Counter[str] = _counter()
        self._known: dict[str, str | None] = {}
        self._wanted = anyio.Event()

    # --- the handshake era --------------------------------------------------------------------

    async def subscribe(
        self, ctx: ServerRequestContext[Any, Any], params: types.SubscribeRequestParams
    ) -> types.EmptyResult:
        """Tell the client when the resource changes."""
        self._want([str(params.uri)])
        self._subscribed.add(str(params.uri))
        self._client = ctx.session
        return types.EmptyResult()

    async def unsubscribe(
        self, ctx: ServerRequestContext[Any, Any], params: types.UnsubscribeRequestParams
    ) -> types.EmptyResult:
        """Tell the client no longer."""
        del ctx
        self._subscribed.discard(str(params.uri))
        self._drop_unwanted()
        return types.EmptyResult()

    # --- the modern era -----------------------------------------------------------------------

    async def listen(
        self, ctx: ServerRequestContext[Any, Any], params: types.SubscriptionsListenRequestParams
    ) -> types.SubscriptionsListenResult:
        """Serve one stream until its client ends it."""
        with self._listening([str(uri) for uri in params.notifications.resource_subscriptions or ()]):
            return await self._listen(ctx, params)

    @contextmanager
    def _listening(self, uris: list[str]) -> Iterator[None]:
        self._want(uris)
        self._listened.update(uris)
        try:
            yield
        finally:
            self._listened.subtract(uris)
            self._drop_unwanted()

    # --- looking ------------------------------------------------------------------------------

    def _want(self, uris: Iterable[str]) -> None:
        """Remember how resources read now, so that the next difference is one."""
        for uri in uris:
            if uri not in self._known and len(self._known) < MAX_WANTED:
                self._known[uri] = self._read(uri)
        self._wanted.set()

    def _drop_unwanted(self) -> None:
        wanted = self._subscribed | {uri for uri, count in self._listened.items() if count > 0}
        self._known = {uri: text for uri, text in self._known.items() if uri in wanted}

    def _read(self, uri: str) -> str | None:
        try:
            return resources.read(self._bus(), uri)
        except BusError:
            return None  # Not there; that it comes to be there is a change.

    def changed(self) -> list[str]:
        """Return the wanted resources that read differently now than when this was last asked."""
        found = []
        for uri, known in list(self._known.items()):
            now = self._read(uri)
            if now != known and uri in self._known:
                self._known[uri] = now
                found.append(uri)
        return found

    async def tell(self, waker: Waker) -> None:
        """Go on telling until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted = anyio.Event()
            while self._known:
                await self._publish(await waker.find(self._bus, lambda: self.changed() or None))

    async def _publish(self, uris: list[str]) -> None:
        for uri in uris:
            await self._events.publish(ResourceUpdated(uri=uri))
            if uri in self._subscribed and self._client is not None:
                with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):  # It is going away.
                    await self._client.send_resource_updated(uri)


def _counter() -> Counter[str]:
    from collections import Counter  # noqa: PLC0415  only its type is needed above

    return Counter()
