"""Which session a request belongs to: over stdio there is one for the process, over HTTP one for each client.

Over HTTP nobody hears a client go: one that asks for nothing for `IDLE_S` has gone, and what it holds is given back.
"""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
from mcp import types
from mcp.shared.exceptions import MCPError
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from mcp_bus.server.session import Session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from anyio.abc import TaskGroup
    from mcp.server.context import ServerRequestContext

    from mcp_bus.config import Config

# Where the server is found; below it an agent's name may follow.
PATH = "/mcp"
# The protocol's own header for the session of the handshake era.
SESSION_HEADER = "mcp-session-id"
IDLE_S = 600.0
LOOK_S = 5.0
MAX_SESSIONS = 100
# Of one address, so that a client that begins anew each time keeps no other out.
MAX_OF_ONE = 20
# Where a request has its line.
LINE = "mcp_bus.line"
logger = logging.getLogger(__name__)


class Alone:
    """The one session of a process that speaks with one client."""

    def __init__(self, config: Config) -> None:
        """Open nothing yet."""
        self._config = config
        self._session: Session | None = None

    @asynccontextmanager
    async def life(self) -> AsyncIterator[Alone]:
        """Keep the session alive; see `Session.life`."""
        async with Session(self._config).life() as self._session:
            yield self

    def of(self, ctx: ServerRequestContext[Any, Any]) -> Session:
        """Return the session."""
        del ctx
        assert self._session is not None, "requests come while it lives"
        return self._session

    @contextmanager
    def using(self, ctx: ServerRequestContext[Any, Any]) -> Iterator[None]:
        """Need not note that a request is being answered."""
        del ctx
        yield


class Key(NamedTuple):
    """What tells clients apart: the agent that the address names, the session of the handshake era, or a name.

    The modern era has no sessions, so two clients of one name at one address are one there.
    """

    agent: str
    session: str = ""
    client: str = ""


class Line:
    """The connection of a request: what is done for its sender ends with it."""

    def __init__(self) -> None:
        self._scopes = set[anyio.CancelScope]()
        self._is_cut = False

    @contextmanager
    def on(self) -> Iterator[anyio.CancelScope]:
        """Cancel what is done in this context when the connection ends."""
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            if self._is_cut:
                scope.cancel()
            try:
                yield scope
            finally:
                self._scopes.discard(scope)

    def cut(self) -> None:
        """Note that the connection has ended."""
        self._is_cut = True
        for scope in self._scopes:
            scope.cancel()


class _Held:
    """A session, and when the last request of it came or went."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.touched = anyio.current_time()
        self.over = anyio.Event()


class Many:
    """A session for each client, from its first request until it says goodbye or is silent for too long."""

    def __init__(self, config: Config) -> None:
        """Open nothing yet."""
        self._config = config
        self._held: dict[Key, _Held] = {}
        # What clients have open: a client may listen before it has a session, and after it has lost one.
        self._open = Counter[Key]()
        self._group: TaskGroup | None = None

    @asynccontextmanager
    async def life(self) -> AsyncIterator[Many]:
        """Keep sessions alive; at the end all give back what they hold."""
        async with anyio.create_task_group() as self._group:
            self._group.start_soon(self._looking)
            try:
                yield self
            finally:
                self._group.cancel_scope.cancel()

    def of(self, ctx: ServerRequestContext[Any, Any]) -> Session:
        """Return the session of a request.

        Raises:
            MCPError: it would be one too many.
        """
        return self._of(_key(ctx)).session

    def _of(self, key: Key) -> _Held:
        held = self._held.get(key)
        if held is None:
            self._make_room(key.agent)
            held = self._held[key] = _Held(Session(self._settings(key.agent)))
            assert self._group is not None, "requests come while it lives"
            self._group.start_soon(self._live, key, held)
        held.touched = anyio.current_time()
        return held

    def _make_room(self, agent: str) -> None:
        """End a session that does nothing, if there is one too many, of the same address rather than of another.

        Raises:
            MCPError: all of them do something.
        """
        mine = sum(key.agent == agent for key in self._held)
        if len(self._held) < MAX_SESSIONS and mine < MAX_OF_ONE:
            return
        spare = [key for key, held in self._held.items() if not self._open[key] and not held.session.is_holding]
        spare = [key for key in spare if key.agent == agent] or (spare if mine < MAX_OF_ONE else [])
        if not spare:
            msg = "too many clients are at work, and there is no room for another; end one of them"
            raise MCPError(types.INTERNAL_ERROR, msg)
        self.end(min(spare, key=lambda key: self._held[key].touched))

    def _settings(self, agent: str) -> Config:
        """Return the settings of one more session: of the agent that was named, and of a generation of its own."""
        return self._config.replaced("connection", session="", **({"agent": agent} if agent else {}))

    async def _live(self, key: Key, held: _Held) -> None:
        try:
            async with held.session.life():
                await held.over.wait()
        except Exception:
            logger.exception("a session failed")
        finally:
            if self._held.get(key) is held:
                del self._held[key]

    @contextmanager
    def using(self, ctx: ServerRequestContext[Any, Any]) -> Iterator[None]:
        """Keep the session of a request from counting as idle while it is answered; stop if nobody waits any more.

        Raises:
            MCPError: its connection has ended; nobody reads this.
        """
        assert ctx.request is not None, "over HTTP each message comes in a request"
        with self.streaming(_key(ctx)), ctx.request.scope[LINE].on() as scope:
            yield
        if scope.cancelled_caught:
            msg = "the connection of this request has ended"
            raise MCPError(types.INTERNAL_ERROR, msg)

    @contextmanager
    def streaming(self, key: Key) -> Iterator[None]:
        """Keep a session from counting as idle while something of its client is open."""
        self._open[key] += 1
        try:
            yield
        finally:
            self._open[key] -= 1
            if not self._open[key]:
                del self._open[key]
            if key in self._held:
                self._held[key].touched = anyio.current_time()

    def end(self, key: Key) -> None:
        """End a session whose client said goodbye."""
        held = self._held.pop(key, None)
        if held is not None:
            held.over.set()

    async def _looking(self) -> None:
        while True:
            await anyio.sleep(LOOK_S)
            self.end_idle()

    def end_idle(self) -> None:
        """End the sessions whose clients were silent for too long."""
        now = anyio.current_time()
        for key, held in list(self._held.items()):
            if not self._open[key] and now - held.touched >= IDLE_S:
                logger.info("%s has asked for nothing for %g s", key, IDLE_S)
                self.end(key)


def agent_in(path: str) -> str | None:
    """Return the agent that an address names, empty for none; None if it is no address of ours."""
    path = path.removesuffix("/")
    if path == PATH:
        return ""
    below = path.removeprefix(PATH + "/")
    return below if below != path else None


def _key(ctx: ServerRequestContext[Any, Any]) -> Key:
    assert ctx.request is not None, "over HTTP each message comes in a request"
    agent = agent_in(str(ctx.request.scope["path"])) or ""
    # In the modern era there are no sessions, and whoever names one has made it up.
    session = ctx.request.headers.get(SESSION_HEADER, "") if ctx.protocol_version in HANDSHAKE_PROTOCOL_VERSIONS else ""
    known = ctx.session.client_params
    return Key(agent, session, "" if session or known is None else known.client_info.name)
