"""The tool `pipe`: bytes to or from somebody who is there, a part of the stream with each call."""

from __future__ import annotations

import base64
import binascii
import codecs
from typing import TYPE_CHECKING, NamedTuple

import anyio
from mcp.shared.dispatcher import coerce_request_id

from mcp_bus.errors import InvalidRequest
from mcp_bus.model import MAX_CONTENT
from mcp_bus.pipes import LOOK_S, NobodyThere, Pipes, ReadingEnd, WritingEnd
from mcp_bus.server.waker import PROGRESS_S
from mcp_bus.server.words import fitting, quoted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mcp_bus.server import args
    from mcp_bus.server.call import Call
    from mcp_bus.server.ends import End

# Bytes that one answer shows, and how many of them if they are shown in base64.
SHOWN, SHOWN_BASE64 = 6000, 4500
# Characters of `data` that are handed over at once: never more bytes than a pipe takes whole.
STEP, STEP_BASE64 = 1000, 4000


class _Wait:
    """How long a call waits, and telling its caller so meanwhile."""

    def __init__(self, call: Call, wait_s: float | None, what: str) -> None:
        self._call = call
        self._what = what
        self._start = anyio.current_time()
        self._wait_s = call.wait_s(wait_s)

    @property
    def waited_s(self) -> float:
        """Seconds since it began."""
        return anyio.current_time() - self._start

    async def until(self, ready: Callable[[], Awaitable[object]]) -> bool:
        """Wait for something; False when time is up."""
        while (left := self._wait_s - self.waited_s) > 0:
            with anyio.move_on_after(min(left, PROGRESS_S)):
                await ready()
                return True
            await self._call.progress(self.waited_s, self._wait_s, self._what)
        return False


async def pipe(call: Call, given: args.Pipe) -> str:
    """Read from a pipe, write to one, or close one."""
    if given.data and given.action != "write":
        msg = "data goes with action 'write' only"
        raise InvalidRequest(msg, hint="leave it out")
    if given.action == "close":
        return _closed(call.session.ends.close(given.name))
    return await (_read if given.action == "read" else _write)(call, given)


def _closed(end: End) -> str:
    if isinstance(end.pipe, WritingEnd):
        said = f"closed: the reader of {end.name} comes to its end after {end.total} bytes"
    else:
        lost = f"; {len(end.kept)} bytes that were not shown are lost" if end.kept else ""
        said = f"closed: a writer of {end.name} is told that nobody reads{lost}"
    return f"{said}\nnext: go on with your work"


# --- reading --------------------------------------------------------------------------------------------------


async def _read(call: Call, given: args.Pipe) -> str:
    wait = _Wait(call, given.wait_s, f"waiting for bytes from {given.name}")
    pipes = Pipes(call.session.config.path, call.bus.source)
    ends = call.session.ends
    end = ends.find(given.name, ReadingEnd, pipes)
    if end is None:
        ends.check_room()
        end = ends.add(given.name, pipes.reading(given.name))
    with end.busy():
        while (part := _part(end, is_binary=given.base64)) is None:
            if not await wait.until(lambda: anyio.wait_readable(end.pipe.fd)):
                break
        # What was taken out of the pipe by a call that was cancelled is for the next.
        await anyio.lowlevel.checkpoint()
    if part is None:
        return _nothing(end, wait.waited_s)
    # A quick answer arrives; one that took long may cross its cancellation.
    request = call.request_id if wait.waited_s >= call.session.config["given_up_s"] else None
    end.show(part.size, None if request is None else coerce_request_id(request))
    return _shown(call, end, part)


class _Part(NamedTuple):
    """What an answer shows: text, of how many bytes, and how it is to be read."""

    text: str
    size: int
    form: str


def _part(end: End, *, is_binary: bool) -> _Part | None:
    """Take what is there, as much as one answer shows; None if there is nothing to say yet."""
    assert isinstance(end.pipe, ReadingEnd)
    end.fill(SHOWN)
    text = None if is_binary else _text(end.kept, is_all=end.pipe.is_over)
    if text is None and end.kept:
        part = end.kept[:SHOWN_BASE64]
        return _Part(base64.b64encode(part).decode(), len(part), "in base64")
    if text:
        _, count = fitting(text, 0, SHOWN)
        return _Part(text[:count], len(text[:count].encode()), "as text")
    return _Part("", 0, "") if end.pipe.is_over else None


def _text(data: bytes, *, is_all: bool) -> str | None:
    """Return bytes as text, but for a character at their end that is not whole yet; None if they are no text."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(data, final=is_all)
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _nothing(end: End, waited_s: float) -> str:
    name = end.name
    if end.is_alone:
        other = f'mcp-bus pipe write {name}, or another agent\'s pipe(action="write", name="{name}")'
        return (
            f"nothing yet from {name}: nobody writes to it; waited {waited_s:.0f} s\n"
            f"next: see that the other end is started ({other}), then read again"
        )
    return (
        f"nothing more yet from {name}: its writer is there and silent; waited {waited_s:.0f} s\n"
        "next: read again, or close it"
    )


def _shown(call: Call, end: End, part: _Part) -> str:
    name, lines = end.name, list[str]()
    if part.size:
        lines.append(f"{part.size} bytes from {name}, {part.form}; {end.total} so far")
        lines.append(quoted(part.text, call.bus.source.token(6), limit=SHOWN))
    if end.is_spent:
        lines.append(f"{name} has ended: its writer closed it, or went away, after {end.total} bytes")
        return "\n".join([*lines, "next: use it; reading that pipe again waits for another writer"])
    return "\n".join([*lines, f'next: pipe(action="read", name="{name}") for more, or close it'])


# --- writing --------------------------------------------------------------------------------------------------


async def _write(call: Call, given: args.Pipe) -> str:
    wait = _Wait(call, given.wait_s, f"waiting for the reader of {given.name}")
    _check_data(given)
    end = await _opened(call, given.name, wait)
    if end is None:
        return _unread(given.name, wait.waited_s)
    assert isinstance(end.pipe, WritingEnd)
    step, done = STEP_BASE64 if given.base64 else STEP, 0
    with end.busy():
        while part := given.data[done : done + step]:
            data = base64.b64decode(part) if given.base64 else part.encode()
            try:
                is_taken = end.pipe.put(data)
            except BrokenPipeError:
                call.session.ends.drop(given.name)
                raise _gone(end, done) from None
            if is_taken:
                done, end.total = done + len(part), end.total + len(data)
            elif not await wait.until(lambda: anyio.wait_writable(end.pipe.fd)):
                break
    return _taken(end, done, len(given.data), wait.waited_s)


def _check_data(given: args.Pipe) -> None:
    if not 0 < len(given.data) <= MAX_CONTENT:
        msg = f"data has {len(given.data)} characters"
        raise InvalidRequest(msg, hint=f"give 1 to {MAX_CONTENT}, and the rest in further calls")
    try:
        if given.base64:
            base64.b64decode(given.data, validate=True)
    except (binascii.Error, ValueError):
        msg = "data is not base64"
        raise InvalidRequest(msg, hint="encode it anew, without blanks or line ends; or leave base64 out") from None


async def _opened(call: Call, name: str, wait: _Wait) -> End | None:
    """Return the writing end, once somebody reads; None if nobody came."""
    pipes, ends = Pipes(call.session.config.path, call.bus.source), call.session.ends
    if (known := ends.find(name, WritingEnd, pipes)) is not None:
        return known
    ends.check_room()
    pipes.make(name)
    opened = [pipes.writing(name)]

    async def comes() -> None:
        # Opening a pipe for reading tells nobody: it has to be looked for.
        while opened[0] is None:
            await anyio.sleep(LOOK_S)
            opened[0] = pipes.writing(name)

    if opened[0] is None:
        await wait.until(comes)
    return ends.add(name, opened[0]) if opened[0] is not None else None


def _gone(end: End, done: int) -> NobodyThere:
    msg = (
        f"the reader of {end.name!r} went away: {end.total} bytes were handed over, with the first {done} characters "
        "of this data, and not all may have been read"
    )
    return NobodyThere(msg, hint="that stream is over; start both ends anew, or hand it over as a task, which waits")


def _unread(name: str, waited_s: float) -> str:
    other = f'mcp-bus pipe read {name}, or another agent\'s pipe(action="read", name="{name}")'
    return (
        f"{name} took nothing: nobody reads it; waited {waited_s:.0f} s\n"
        f"next: see that the other end is started ({other}), then write again"
    )


def _taken(end: End, done: int, size: int, waited_s: float) -> str:
    so_far = f"{end.total} bytes so far"
    if done == size:
        return (
            f"{end.name} took all {size} characters; {so_far}\n"
            f'next: write more, or pipe(action="close", name="{end.name}") to end the stream'
        )
    return (
        f"{end.name} took the first {done} of {size} characters of data, {so_far}: its reader is slow; "
        f"waited {waited_s:.0f} s\nnext: write the rest, data from character {done} on"
    )
