"""One MCP connection over stdin and stdout, without threads, that ends when it is told to.

`serve_stdio` serves a low-level `Server`, `run_stdio` makes a process of it, `leave` ends that process.
The SDK speaks the protocol, in either era; this module only moves lines.

On Windows the SDK's own transport serves, and only the end of input stops it. Elsewhere the caller can count on this:

1. The wire is claimed: while serving, fd 0 reads nothing and fd 1 is stderr, here and in children.
2. No descriptor is made non-blocking for anybody else (that flag is shared, by a terminal even with our stderr):
   nothing is read before the kernel has it, and nothing written beyond what the kernel promised to take.
3. A frame that was begun is finished, or the connection is over. Frames leave in the order of `send`, which
   returns when the kernel has its frame. A client that stops reading stops us.
4. Bad input costs its sender an error, and nobody else anything.
5. End of input, SIGINT, SIGTERM, SIGHUP and a client that no longer reads take one path: the input ends, handlers are
   cancelled, then the lifespan's exit and `on_close` run, uncancelled.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn, Self

import anyio
import anyio.lowlevel
from mcp import types
from mcp.server.stdio import stdio_server
from mcp.shared.dispatcher import as_request_id
from mcp.shared.message import SessionMessage

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from anyio.abc import TaskStatus
    from mcp.server.lowlevel import Server
    from mcp.server.models import InitializationOptions

    OnSignal = Callable[[signal.Signals], None] | None
    OnClose = Callable[[], Awaitable[None]]

__all__ = ["MAX_LINE", "leave", "run_stdio", "serve_stdio"]

MAX_LINE = 32 * 1024 * 1024  # bytes; a longer line is refused, and never held as a whole
MAX_QUEUED = 8 * 1024 * 1024  # bytes of answers the client has not read, beyond which it is not read from
DRAIN_S = 0.25  # what handlers that run at the end of input have to finish and be answered
STALL_S = 0.5  # a client that takes nothing for so long, once we are stopping, counts as gone
PATIENCE_S = 2.0  # a signal that finds the stop already this old ends the process at once, with code 1
# A terminal that closes sends SIGHUP.
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))

logger = logging.getLogger(__name__)


class _Stream:
    """What the SDK asks of either stream: it can be closed, which leaves the descriptor to its owner."""

    _closed = False

    async def aclose(self) -> None:
        self._closed = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class _Outbox(_Stream):
    """The server's write stream: one frame at a time, straight to the descriptor."""

    def __init__(self, fd: int) -> None:
        self.on_broken: Callable[[], None] = lambda: None
        self.queued = 0
        self.unanswered: set[types.RequestId | None] = set()
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._lock = anyio.Lock(fast_acquire=True)
        self._stall_s = math.inf
        self._waiting = anyio.CancelScope()
        self._changed = anyio.Event()

    async def send(self, item: SessionMessage, /) -> None:
        """Return once the kernel has the whole frame; raise BrokenResourceError if it never will."""
        message = item.message
        frame = message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
        self.queued += len(frame)
        try:
            async with self._lock:
                await self._write(memoryview(frame))
        finally:
            self.queued -= len(frame)
            self._changed.set()
        if isinstance(message, types.JSONRPCResponse | types.JSONRPCError):
            self.forget(message.id)

    async def _write(self, rest: memoryview) -> None:
        begun = False
        while rest:
            if self._closed:
                raise anyio.BrokenResourceError
            try:
                taken = await self._take(rest, shield=begun)
            except OSError:  # the client is gone, or it stalled while we are stopping
                self._closed = True
                self.on_broken()
            else:
                rest = rest[taken:]
                begun = begun or taken > 0

    async def _take(self, rest: memoryview, *, shield: bool) -> int:
        if not self._poll.poll(0):
            # Half a frame would corrupt every later one: a cancelled handler still finishes its own.
            with anyio.fail_after(self._stall_s, shield=shield) as self._waiting:
                await anyio.wait_writable(self._fd)
        with contextlib.suppress(BlockingIOError):
            # PIPE_BUF is what a pipe that is reported writable takes without blocking.
            return os.write(self._fd, rest[: select.PIPE_BUF])
        return 0

    def hurry(self) -> None:
        """From now on, give up on a client that takes nothing for `STALL_S`."""
        self._stall_s = STALL_S
        self._waiting.deadline = anyio.current_time() + STALL_S

    def forget(self, request_id: types.RequestId | None) -> None:
        """Count a request as settled: it was answered, or its sender cancelled it."""
        self.unanswered.discard(request_id)
        self._changed.set()

    async def until(self, met: Callable[[], bool]) -> None:
        """Return when `met`, which may look at `queued` and `unanswered`, is true."""
        while not met():
            self._changed = anyio.Event()
            await self._changed.wait()


class _Inbox(_Stream):
    """The server's read stream: the lines of a descriptor as messages, until the end or `stop`."""

    def __init__(self, fd: int, outbox: _Outbox, max_line: int) -> None:
        self.stopping_since = math.inf
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._outbox = outbox
        self._max_line = max_line
        self._buffer = bytearray()
        self._scanned = 0
        self._ended = False
        self._waiting = anyio.CancelScope()

    def stop(self) -> None:
        """End the stream now, whatever is still unread."""
        self._begin_stop()
        self._closed = True
        self._waiting.cancel()

    def _begin_stop(self) -> None:
        self.stopping_since = min(self.stopping_since, time.monotonic())
        self._outbox.hurry()

    async def receive(self) -> SessionMessage:
        """Return the next valid message, or raise EndOfStream."""
        while not self._closed:
            if self._outbox.queued >= MAX_QUEUED:
                with anyio.CancelScope() as self._waiting:
                    await self._outbox.until(lambda: self._outbox.queued < MAX_QUEUED)
            elif (line := self._next_line()) is not None:
                if (message := await self._accept(line)) is not None:
                    return SessionMessage(message)
            elif self._ended:
                self._begin_stop()
                with anyio.move_on_after(DRAIN_S) as self._waiting:
                    await self._outbox.until(lambda: not self._outbox.unanswered)
                break
            else:
                await self._fill()
        raise anyio.EndOfStream

    def _next_line(self) -> bytes | None:
        too_long = self._max_line + 1
        end = self._buffer.find(b"\n", self._scanned)
        if end >= 0:
            line = bytes(self._buffer[: min(end, too_long)])
            del self._buffer[: end + 1]
            self._scanned = 0
            return line
        # One byte beyond the limit is enough to know, at the newline, that the line was too long.
        del self._buffer[too_long:]
        self._scanned = len(self._buffer)
        return None

    async def _fill(self) -> None:
        with anyio.CancelScope() as self._waiting:
            # Regular files and /dev/null, which epoll refuses, are always ready and never get there.
            if self._poll.poll(0):
                await anyio.lowlevel.checkpoint()
            else:
                await anyio.wait_readable(self._fd)
            try:
                chunk = os.read(self._fd, 64 * 1024)
            except BlockingIOError:
                return
            except OSError:  # a terminal that hung up
                chunk = b""
            self._ended = not chunk
            self._buffer += chunk or b"\n"

    async def _accept(self, line: bytes) -> types.JSONRPCMessage | None:
        try:
            message = _parsed(line, self._max_line)
        except _RefusedError as refused:
            code, text, request_id = refused.args
            error = types.ErrorData(code=code, message=text)
            with contextlib.suppress(anyio.BrokenResourceError):
                await self._outbox.send(SessionMessage(types.JSONRPCError(jsonrpc="2.0", id=request_id, error=error)))
            return None
        # A subscription is open for as long as its client: waiting for it would delay every exit.
        if isinstance(message, types.JSONRPCRequest) and message.method != "subscriptions/listen":
            self._outbox.unanswered.add(message.id)
        elif isinstance(message, types.JSONRPCNotification) and message.method == "notifications/cancelled":
            self._outbox.forget(as_request_id((message.params or {}).get("requestId")))
        return message

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None


class _RefusedError(Exception):
    """A line to answer with this error (code, text, id of the request if known), unseen by the SDK."""


def _parsed(line: bytes, max_line: int) -> types.JSONRPCMessage | None:
    if not line.strip():
        return None
    if len(line) > max_line:
        raise _RefusedError(types.INVALID_REQUEST, f"a line of over {max_line} bytes was dropped", None)
    try:
        message = types.jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValueError:
        raise _diagnosis(line) from None
    # The SDK's models take a request with an unusable id for a notification, and never answer it.
    if isinstance(message, types.JSONRPCNotification) and b'"id"' in line and "id" in json.loads(line):
        raise _diagnosis(line)
    return message


def _diagnosis(line: bytes) -> _RefusedError:
    # Naming the request, where it can be found, spares its sender the wait for a timeout.
    try:
        value = json.loads(line.decode(errors="replace"))
    except (ValueError, RecursionError):
        return _RefusedError(types.PARSE_ERROR, "the line is not JSON", None)
    request_id = as_request_id(value.get("id")) if isinstance(value, dict) and "method" in value else None
    if line.decode(errors="replace").encode() != line:
        return _RefusedError(types.PARSE_ERROR, "the line is not UTF-8", request_id)
    return _RefusedError(types.INVALID_REQUEST, "the line is not one JSON-RPC message", request_id)


async def serve_stdio(
    server: Server[Any],
    options: InitializationOptions,
    *,
    on_signal: OnSignal = None,
    on_close: OnClose = anyio.lowlevel.checkpoint,
    max_line: int = MAX_LINE,
) -> None:
    """Serve one connection over this process's stdin and stdout; return when it is over.

    Call it in the main thread. A stop is no error; what is raised comes from the server's lifespan or `on_close`.
    `on_signal` hears of each SIGINT and SIGTERM once the stop began; `on_close` runs last, with both still caught.
    """
    transport = stdio_server() if sys.platform == "win32" else _own_stdio(on_signal, max_line)
    async with transport as (inbox, outbox):
        try:
            await server.run(inbox, outbox, options)
        finally:
            with anyio.CancelScope(shield=True):
                await on_close()


@contextlib.asynccontextmanager
async def _own_stdio(on_signal: OnSignal, max_line: int) -> AsyncIterator[tuple[_Inbox, _Outbox]]:
    with _claimed(0, os.O_RDONLY) as fd_in, _claimed(1, os.O_WRONLY) as fd_out:
        outbox = _Outbox(fd_out)
        inbox = _Inbox(fd_in, outbox, max_line)
        outbox.on_broken = inbox.stop
        async with anyio.create_task_group() as tasks:
            await tasks.start(_watch_signals, inbox, on_signal)
            yield inbox, outbox
            tasks.cancel_scope.cancel()


async def _watch_signals(inbox: _Inbox, on_signal: OnSignal, *, task_status: TaskStatus[None]) -> None:
    with anyio.open_signal_receiver(*_STOP_SIGNALS) as received:
        task_status.started()
        async for number in received:
            if time.monotonic() - inbox.stopping_since > PATIENCE_S:
                logger.error("the clean-up is still running; %s ends it", number.name)
                os._exit(1)
            inbox.stop()
            if on_signal is not None:
                on_signal(number)


@contextlib.contextmanager
def _claimed(fd: int, mode: int) -> Iterator[int]:
    """Yield a private descriptor for what `fd` was, and point `fd` where it can do no harm."""
    saved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    wire = _reopened_terminal(fd, mode) or saved
    decoy = os.open(os.devnull, mode)
    try:
        os.dup2(decoy, fd)
        if fd == 1:
            with contextlib.suppress(OSError):
                os.dup2(2, fd)
        yield wire
    finally:
        # What was printed and not flushed must not reach the wire when the interpreter ends.
        if fd == 1 and sys.stdout is not None:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
        os.dup2(saved, fd)
        for private in {saved, wire, decoy}:
            os.close(private)


def _reopened_terminal(fd: int, mode: int) -> int | None:
    # A terminal reports itself writable with less room than PIPE_BUF, so only here non-blocking mode
    # is needed; opened by name it has a file description of its own, and its flags are ours alone.
    with contextlib.suppress(OSError):
        own = os.open(os.ttyname(fd), mode | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            return fcntl.fcntl(own, fcntl.F_DUPFD_CLOEXEC, 3)
        finally:
            os.close(own)
    return None


def run_stdio(
    server_factory: Callable[[], Server[Any]],
    *,
    options: Callable[[Server[Any]], InitializationOptions] | None = None,
    on_signal: OnSignal = None,
    on_close: OnClose = anyio.lowlevel.checkpoint,
    max_line: int = MAX_LINE,
) -> int:
    """Serve until the connection is over and return the exit code: 0 for any stop, 1 for a failure.

    The factory is called inside the event loop. Afterwards SIGINT and SIGTERM stay blocked, so that a
    late one cannot turn a clean end into a death by signal: exit next, best through `leave`.
    """

    async def close() -> None:
        try:
            await on_close()
        finally:
            if sys.platform != "win32":
                signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)

    async def serve() -> None:
        server = server_factory()
        chosen = options(server) if options is not None else server.create_initialization_options()
        await serve_stdio(server, chosen, on_signal=on_signal, on_close=close, max_line=max_line)

    try:
        with contextlib.suppress(KeyboardInterrupt):
            anyio.run(serve)
    except (Exception, SystemExit, BaseExceptionGroup):
        logger.exception("the server failed")
        return 1
    return 0


def leave(code: int) -> NoReturn:
    """End the process now, with stdio and logging flushed and without the interpreter's finalisation."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)
