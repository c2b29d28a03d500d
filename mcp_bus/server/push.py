"""Claude Code's channels: a notification that reaches an idle model, where its client allows that.

Off unless asked for (`MCP_BUS_CLAUDE_CHANNEL`), because the vendor has it behind a gate of its own and only in the
handshake era: so a server that offers it refuses the modern era, once, in the words that make a client fall
back.  What is pushed is that something waits, never what it says: the text of another agent must not come as
if the client itself had spoken.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal, Self

import anyio
from mcp import types
from mcp.server.lowlevel import Server
from mcp.shared.message import SessionMessage

from mcp_bus.server.words import several

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp.server.session import ServerSession

    from mcp_bus.bus import Bus
    from mcp_bus.server.waker import Waker

CAPABILITY: dict[str, dict[str, Any]] = {"claude/channel": {}}
# A client of the modern era asks this first; a server that does not know it is of the handshake era.
PROBE = "server/discover"
logger = logging.getLogger(__name__)


class ChannelNote(types.Notification[dict[str, Any], Literal["notifications/claude/channel"]]):
    """The vendor's notification: `content` is shown to the model, `meta` becomes its attributes."""

    method: Literal["notifications/claude/channel"] = "notifications/claude/channel"
    params: dict[str, Any]


class HandshakeOnly:
    """A read stream without the modern era's first question, which is answered as a server of before it would."""

    def __init__(self, inner: Any, outer: Any) -> None:  # noqa: ANN401  whatever streams the transport has
        """Read from `inner`; refuse on `outer`."""
        self._inner = inner
        self._outer = outer

    async def receive(self) -> Any:  # noqa: ANN401  a message, or what the transport made of one
        """Return the next message that is not that question."""
        while True:
            item = await self._inner.receive()
            message = item.message if isinstance(item, SessionMessage) else None
            if not isinstance(message, types.JSONRPCRequest) or message.method != PROBE:
                return item
            error = types.ErrorData(code=types.METHOD_NOT_FOUND, message="Method not found", data=PROBE)
            await self._outer.send(SessionMessage(types.JSONRPCError(jsonrpc="2.0", id=message.id, error=error)))

    def __aiter__(self) -> HandshakeOnly:
        """Return the stream itself."""
        return self

    async def __anext__(self) -> Any:  # noqa: ANN401  as `receive`
        """Return the next message, until there is none."""
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        """Close what is read from."""
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        """Return the stream itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close what is read from."""
        await self.aclose()


class HandshakeServer(Server[Any]):
    """A server that only speaks the handshake era."""

    async def run(self, read_stream: Any, write_stream: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  the SDK's own
        """Serve a connection; see `Server.run`."""
        await super().run(HandshakeOnly(read_stream, write_stream), write_stream, *args, **kwargs)


class Push:
    """Tells the client that something new waits in the inbox, once for each message."""

    def __init__(self, bus: Callable[[], Bus]) -> None:
        """Push for the agent that the bus is open as; nobody is there to be told yet."""
        self._bus = bus
        self._client: ServerSession | None = None
        self._told: frozenset[str] = frozenset()
        self._connected = anyio.Event()

    def connected(self, client: ServerSession) -> None:
        """Push to this client from now on."""
        self._client = client
        self._connected.set()

    def fresh(self) -> frozenset[str]:
        """Return the ids that wait and were not told yet; what waits no longer may be told again later."""
        waiting = frozenset(self._bus().mail.waiting())
        new = waiting - self._told
        self._told &= waiting
        return new

    async def tell(self, waker: Waker) -> None:
        """Go on telling until cancelled."""
        await self._connected.wait()
        while True:
            new = await waker.find(self._bus, lambda: self.fresh() or None)
            self._told |= new
            await self._send(new)

    async def _send(self, new: frozenset[str]) -> None:
        assert self._client is not None
        text = f"{several(len(new), 'new message')} in your inbox on the bus; read_inbox shows them"
        note = ChannelNote(params={"content": text, "meta": {"kind": "inbox", "count": str(len(new))}})
        try:
            await self._client.send_notification(note)  # type: ignore[arg-type]  # the SDK lists only its own kinds
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            logger.debug("the client is gone")
