"""Connections over HTTP that have to get on: whoever holds many of them, or trickles, keeps nobody out.

While bytes of a client are waited for, a timer runs that no byte puts off: until a request's head is there, and until
its body is.  An answer may take as long as it likes.  Who was let in once had the token; of all others, whatever they
do, only so many are there at a time, and who is refused is hung up on.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import anyio
import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

    from starlette.responses import PlainTextResponse
    from starlette.types import Message, Receive, Scope, Send


class Limits(NamedTuple):
    """How much a client may be waited for.

    Attributes:
        strangers: connections at once of which none was let in yet.
        silent_s: seconds until the head of a request is there, from the connection or the answer before it.
        body_s: seconds until its body is, too.
        linger_s: seconds that who is refused may go on talking, so that it can read why.
    """

    strangers: int = 200
    silent_s: float = 10.0
    body_s: float = 60.0
    linger_s: float = 2.0


USUAL = Limits()
# Where a request finds its connection.
_HERE = "connection"


class Connection(H11Protocol):
    """A connection that does not wait for its client for ever."""

    limits: ClassVar[Limits] = USUAL
    # Those that were not let in yet, the oldest first; of one server.
    strangers: ClassVar[OrderedDict[int, Connection]]
    _late: asyncio.TimerHandle | None = None
    _awaited: object = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Wait for a request; the oldest stranger goes if there are too many of them."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, _HERE: self}
        self.strangers[id(self)] = self
        self._wait()
        while len(self.strangers) > self.limits.strangers:
            next(iter(self.strangers.values())).give_up()

    def handle_events(self) -> None:
        """Go on with what came, also before the last answer was given, and see what is missing now."""
        super().handle_events()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._forget()
        super().connection_lost(exc)

    def let_in(self) -> None:
        """Note that whoever is there has the token."""
        self.strangers.pop(id(self), None)

    def give_up(self) -> None:
        """End it."""
        self._forget()
        self.transport.close()

    def _wait(self) -> None:
        """Begin to wait if something else is missing than before: bytes of the same head or body gain no time."""
        awaited = (self.conn.their_state, self.cycle)
        if awaited == self._awaited or self.transport.is_closing():
            return
        self._stop()
        self._awaited = awaited
        seconds = {h11.IDLE: self.limits.silent_s, h11.SEND_BODY: self.limits.body_s}.get(self.conn.their_state)
        if seconds is not None:
            self._late = self.loop.call_later(seconds, self.give_up)

    def _stop(self) -> None:
        if self._late is not None:
            self._late.cancel()

    def _forget(self) -> None:
        self._stop()
        self.strangers.pop(id(self), None)


def bounded(limits: Limits) -> type[Connection]:
    """Return the connections of one server, with its limits."""
    return type("Connection", (Connection,), {"limits": limits, "strangers": OrderedDict()})


def let_in(scope: Scope) -> None:
    """Note that the client of a request has the token."""
    here = scope.get("state", {}).get(_HERE)
    if here is not None:
        here.let_in()


async def refuse(answer: PlainTextResponse, scope: Scope, receive: Receive, send: Send) -> None:
    """Give an answer and hang up, as soon as the client has said what it is about to, or soon all the same.

    One that is hung up on while it sends is told of that, and not of the answer.
    """
    here = scope.get("state", {}).get(_HERE)
    seconds = here.limits.linger_s if here is not None else USUAL.linger_s

    async def tell(message: Message) -> None:
        await send({**message, "more_body": True} if message["type"] == "http.response.body" else message)

    answer.headers["Connection"] = "close"
    await answer(scope, receive, tell)
    with anyio.move_on_after(seconds):
        while (await receive()).get("more_body"):
            pass  # It is for nobody.
    await send({"type": "http.response.body", "body": b"", "more_body": False})
