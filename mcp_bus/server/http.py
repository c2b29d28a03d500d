"""`mcp-bus serve --http`: MCP over Streamable HTTP, for clients on this machine that have the token.

The address is of loopback, always: what comes from elsewhere comes through something that encrypts and decides who
may, such as ssh.  A browser on this machine is kept out by the token, and by the check of `Host` and `Origin` against
names that were made to lead here.
"""

from __future__ import annotations

import hmac
import logging
import re
import signal
import socket
from collections import OrderedDict
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import anyio
import uvicorn
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.responses import PlainTextResponse

from mcp_bus import names, plain
from mcp_bus.errors import InvalidRequest, StoreUnavailable
from mcp_bus.identity.session import check_agent
from mcp_bus.server.app import build
from mcp_bus.server.connections import USUAL, bounded, let_in, refuse
from mcp_bus.server.sessions import IDLE_S, LINE, PATH, SESSION_HEADER, Key, Line, Many, agent_in

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from starlette.types import Message, Receive, Scope, Send

    from mcp_bus.config import Config
    from mcp_bus.server.connections import Limits

HOST = "127.0.0.1"
NAMES = ("127.0.0.1", "localhost")
# A message on the bus has at most 1 MiB; JSON may make six bytes of one.
MAX_BODY = 8 * 1024 * 1024
# What is open of the handshake era, of clients that may never come back.
MAX_TRANSPORTS = 1000
_HOST = re.compile(r"(127\.0\.0\.1|localhost):[0-9]{1,5}\Z", re.IGNORECASE)
# What is being answered may end; what waits for a task is cut off then, and gives back what it got.
GRACE_S = 1
logger = logging.getLogger(__name__)


class Door:
    """Lets in who has the token and comes to an address of ours, and notes which client is there."""

    def __init__(self, manager: StreamableHTTPSessionManager, sessions: Many, token: str) -> None:
        """Compare with the token; nothing is open yet."""
        self._manager = manager
        self._sessions = sessions
        self._token = token.encode()
        # To which address a session of the handshake era belongs; the SDK knows no addresses.
        self._agents = OrderedDict[str, str]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request (ASGI 3)."""
        if scope["type"] != "http":
            return  # Neither lifespan nor web sockets were asked for.
        refusal = self._refusal(scope)
        if refusal is not None:
            await refuse(refusal, scope, receive, send)
            return
        let_in(scope)
        line, status = Line(), list[int]()
        agent, session = agent_in(scope["path"]) or "", _header(scope, SESSION_HEADER)

        async def listen() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect":
                line.cut()
            return message

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                status.append(message["status"])
                self._opened(message, agent)
            await send(message)

        with self._sessions.streaming(Key(agent, session)):
            await self._manager.handle_request({**scope, LINE: line}, listen, tell)
        if scope["method"] == "DELETE" and status and status[0] < HTTPStatus.BAD_REQUEST:
            self._agents.pop(session, None)
            self._sessions.end(Key(agent, session))

    def _opened(self, message: Message, agent: str) -> None:
        """Note to whom a session belongs that has just been opened."""
        session = _header(message, SESSION_HEADER)
        if session:
            self._agents.setdefault(session, agent)
            while len(self._agents) > MAX_TRANSPORTS:
                self._agents.popitem(last=False)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        scheme, _, said = _header(scope, "authorization").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(said.strip().encode(), self._token):
            text = "this needs the token of `mcp-bus serve --http`: Authorization: Bearer TOKEN\n"
            return PlainTextResponse(text, 401, {"WWW-Authenticate": 'Bearer realm="mcp-bus"'})
        if not _HOST.match(_header(scope, "host")):
            return PlainTextResponse(f"this is {HOST}, and answers to no other name; use that\n", 421)
        agent, session = agent_in(scope["path"]), _header(scope, SESSION_HEADER)
        if agent is None:
            return PlainTextResponse(f"there is nothing here; the endpoint is {PATH} or {PATH}/AGENT\n", 404)
        why = _unfit(agent) if agent else ""
        if self._agents.get(session, agent) != agent:
            why = "this session is of another address; begin a new one"
        return PlainTextResponse(f"{why}\n", 404) if why else None


def _unfit(agent: str) -> str:
    """Say why a name in an address is none; empty if it is one."""
    if agent.strip().casefold() in names.RESERVED or plain.clean(agent).strip() != agent:
        return "a name in an address can be seen, whole, and is not like a reserved one"
    try:
        check_agent(agent, is_program=True)
    except InvalidRequest as error:
        return str(error)
    return ""


def _header(scope: Mapping[str, Any], name: str) -> str:
    """Return the first header of a name, for there should be one."""
    found = (value for key, value in scope["headers"] if key == name.encode())
    return bytes(next(found, b"")).decode("latin-1")


class _Server(uvicorn.Server):
    """A server that leaves the signals to us, and says when it can be reached."""

    started_up: Callable[[], None]

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Take no signal."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        self.started_up()


def listen(port: int) -> socket.socket:
    """Return a socket that listens on loopback; port 0 takes any that is free.

    Raises:
        StoreUnavailable: the port is taken, or may not be.
    """
    try:
        return socket.create_server((HOST, port), backlog=128)
    except OSError as error:
        msg = f"cannot listen on {HOST}:{port}: {error.strerror}"
        raise StoreUnavailable(msg, hint="name another port, or 0 for any that is free") from None


def address(place: socket.socket) -> str:
    """Return the address at which clients find what listens there."""
    return f"http://{HOST}:{place.getsockname()[1]}{PATH}"


async def serve(
    config: Config, token: str, place: socket.socket, *, ready: Callable[[], None], limits: Limits = USUAL
) -> None:
    """Serve until SIGINT or SIGTERM; then all sessions give back what they hold.

    Args:
        ready: called when the first request can come.
        limits: how long, and how often, somebody may say nothing.
    """
    sessions = Many(config)
    manager = StreamableHTTPSessionManager(
        build(config, sessions),
        security_settings=TransportSecuritySettings(
            allowed_hosts=[f"{name}:*" for name in NAMES],
            allowed_origins=[f"http://{name}:*" for name in NAMES],
        ),
        max_request_body_size=MAX_BODY,
        session_idle_timeout=3 * IDLE_S,
        max_sessions=MAX_TRANSPORTS,
    )
    app = Door(manager, sessions, token)
    server = _Server(
        uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", ws="none", http=bounded(limits),
            server_header=False, timeout_graceful_shutdown=GRACE_S,
        )
    )  # fmt: skip
    server.started_up = ready
    with place:
        async with manager.run(), anyio.create_task_group() as tasks:
            tasks.start_soon(_until_told, server)
            await server.serve(sockets=[place])
            tasks.cancel_scope.cancel()


async def _until_told(server: uvicorn.Server) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
        async for number in received:
            server.force_exit = server.should_exit
            server.should_exit = True
            logger.info("%s: ending", number.name)
            # What is cut off now is no failure, though the server under this says so with a traceback.
            logging.getLogger("uvicorn.error").disabled = True
