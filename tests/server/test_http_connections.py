"""Nobody without the token keeps a connection, whatever they send or leave out; so nobody keeps its owner out."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest

from mcp_bus.server import http as serving
from mcp_bus.server.connections import USUAL, Limits
from tests.server.http_process import JSON, TOKEN, hello
from tests.server.support import WAIT_S, settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from anyio.abc import SocketStream

pytestmark = pytest.mark.anyio
# Nothing ends for want of time within a test but what is set to.
PATIENT = Limits(strangers=100, silent_s=10 * WAIT_S, body_s=10 * WAIT_S, linger_s=10 * WAIT_S)
SOON_S = 0.3
GET = "GET /mcp HTTP/1.1\r\nHost: {host}\r\n"
POST = "POST /mcp HTTP/1.1\r\nHost: {host}\r\n"
MINE = f"Authorization: Bearer {TOKEN}\r\n"


class Place:
    """A server in this process, and who talks to it byte by byte."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.lines: list[SocketStream] = []

    async def says(self, text: str = "") -> SocketStream:
        """Connect, and say something."""
        line = await anyio.connect_tcp("127.0.0.1", self._port)
        self.lines.append(line)
        if text:
            await line.send(text.format(host=f"127.0.0.1:{self._port}").encode())
        return line

    async def close(self) -> None:
        """Hang up on all of them."""
        for line in self.lines:
            await line.aclose()


@asynccontextmanager
async def placed(place: Path, limits: Limits) -> AsyncIterator[Place]:
    """Serve the bus of a folder with limits of its own; all of it is bounded."""
    listening, ready = serving.listen(0), anyio.Event()
    serve = partial(serving.serve, settings(place), TOKEN, listening, ready=ready.set, limits=limits)
    with anyio.fail_after(WAIT_S):
        async with anyio.create_task_group() as group:
            group.start_soon(serve)
            await ready.wait()
            here = Place(listening.getsockname()[1])
            try:
                yield here
            finally:
                await here.close()
                group.cancel_scope.cancel()


async def said(line: SocketStream, until: bytes) -> bytes:
    """Return what came, once this is in it."""
    found = b""
    while until not in found:
        found += await line.receive()
    return found


async def ended(line: SocketStream) -> bytes:
    """Return what still came, once the connection has ended."""
    found = b""
    try:
        while True:
            found += await line.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return found


async def trickle(line: SocketStream, byte: bytes) -> None:
    """Send a byte again and again, until the connection has ended."""
    try:
        while True:
            await line.send(byte)
            await anyio.sleep(SOON_S / 20)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        return


@pytest.mark.parametrize("rest", ["", "G", GET + "\r\n"], ids=["nothing", "a byte", "another"])
@pytest.mark.parametrize("head", [GET, POST + "Content-Length: 1\r\n"], ids=["GET", "POST"])
@pytest.mark.parametrize(
    ("more", "status"),
    [("", b" 401 "), (MINE.replace("\r\n", "x\r\n"), b" 401 "), (MINE + "Mcp-Session-Id: of-nobody\r\n", b" 404 ")],
    ids=["no token", "wrong token", "not found"],
)
async def test_who_is_refused_is_told_why_and_hung_up_on(
    place: Path, head: str, more: str, rest: str, status: bytes
) -> None:
    head = head.replace("/mcp ", "/none ") if status == b" 404 " else head
    async with placed(place, PATIENT) as here:
        line = await here.says(head + more + "\r\n" + ("x" if "POST" in head else "") + rest)
        told = await ended(line)
        assert told.startswith(b"HTTP/1.1" + status)
        assert told.count(b"HTTP/1.1") == 1
        assert b"\r\nconnection: close\r\n" in told.lower()


async def test_who_comes_to_another_name_is_hung_up_on(place: Path) -> None:
    async with placed(place, PATIENT) as here:
        told = await ended(await here.says(f"GET /mcp HTTP/1.1\r\nHost: evil.example\r\n{MINE}\r\n"))
        assert told.startswith(b"HTTP/1.1 421 ")
        assert b"\r\nconnection: close\r\n" in told.lower()


@pytest.mark.parametrize("byte", [b"", b"x"], ids=["silent", "trickling"])
async def test_who_is_refused_and_does_not_end_its_body_is_hung_up_on_soon(place: Path, byte: bytes) -> None:
    async with placed(place, PATIENT._replace(linger_s=SOON_S)) as here, anyio.create_task_group() as group:
        line = await here.says(POST + "Content-Length: 1000000\r\n\r\n")
        if byte:
            group.start_soon(trickle, line, byte)
        assert (await ended(line)).startswith(b"HTTP/1.1 401 ")


async def test_who_is_refused_can_read_why_however_much_it_was_about_to_say(place: Path) -> None:
    async with placed(place, PATIENT) as here:
        line = await here.says(POST + "Content-Length: 9000000\r\n\r\n")
        assert b"Authorization: Bearer TOKEN\n" in await said(line, b"TOKEN\n")
        for _ in range(9):
            await line.send(b"x" * 1_000_000)
        assert await ended(line) == b""


@pytest.mark.parametrize("byte", [b"", b"a"], ids=["silent", "trickling"])
@pytest.mark.parametrize("start", ["", "G", GET], ids=["nothing", "a byte", "half a head"])
async def test_a_first_request_has_to_come_soon(place: Path, start: str, byte: bytes) -> None:
    async with placed(place, PATIENT._replace(silent_s=SOON_S)) as here, anyio.create_task_group() as group:
        line = await here.says(start)
        if byte:
            group.start_soon(trickle, line, byte)
        await ended(line)


@pytest.mark.parametrize("byte", [b"G", b"\r"], ids=["a byte", "an empty line"])
async def test_after_an_answer_the_next_request_has_to_come_soon_too(place: Path, byte: bytes) -> None:
    async with placed(place, PATIENT._replace(silent_s=SOON_S)) as here:
        line = await here.says(POST + MINE + "Content-Length: 0\r\n\r\n")
        assert (await said(line, b"\r\n\r\n")).startswith(b"HTTP/1.1 4")
        await line.send(byte)
        await ended(line)


@pytest.mark.parametrize("byte", [b"", b" "], ids=["silent", "trickling"])
async def test_a_body_has_to_come_soon_also_of_who_has_the_token(place: Path, byte: bytes) -> None:
    kind = "".join(f"{name}: {value}\r\n" for name, value in JSON.items())
    async with placed(place, PATIENT._replace(body_s=SOON_S)) as here, anyio.create_task_group() as group:
        line = await here.says(POST + MINE + kind + "Content-Length: 1000000\r\n\r\n")
        if byte:
            group.start_soon(trickle, line, byte)
        await ended(line)


async def test_the_body_of_a_request_that_came_with_the_last_one_has_to_come_soon_too(place: Path) -> None:
    async with placed(place, PATIENT._replace(body_s=SOON_S)) as here:
        line = await here.says(POST + MINE + "Content-Length: 0\r\n\r\n" + POST + MINE + "Content-Length: 9\r\n\r\n")
        assert (await ended(line)).startswith(b"HTTP/1.1 4")


async def test_an_answer_may_take_longer_than_a_question(place: Path) -> None:
    kind = "".join(f"{name}: {value}\r\n" for name, value in JSON.items())
    body, limits = json.dumps(hello()), PATIENT._replace(silent_s=SOON_S, body_s=SOON_S)
    async with placed(place, limits) as here:
        head = POST + MINE + kind + f"Content-Length: {len(body)}\r\n\r\n"
        line = await here.says(head)
        await line.send(body.encode())
        opened = await said(line, b"\r\n\r\n")
        session = next(row for row in opened.decode().split("\r\n") if row.lower().startswith("mcp-session-id"))
        stream = await here.says(f"{GET}{MINE}{kind}{session}\r\nMCP-Protocol-Version: 2025-06-18\r\n\r\n")
        assert (await said(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        silent = await here.says()
        await ended(silent)  # By now the time for a question is over.
        with anyio.move_on_after(SOON_S / 2) as waiting:
            await ended(stream)
        assert waiting.cancelled_caught, "it is still open"


async def test_the_oldest_strangers_go_where_there_are_many_and_nobody_who_was_let_in(place: Path) -> None:
    async with placed(place, PATIENT._replace(strangers=3)) as here:
        known = await here.says(POST + MINE + "Content-Length: 5\r\n\r\n")
        honest = await here.says(POST + MINE + "Content-Length: 0\r\n\r\n")
        assert (await said(honest, b"\r\n\r\n")).startswith(b"HTTP/1.1 4")
        strangers = [await here.says(), await here.says("G"), await here.says(POST + "Content-Length: 9\r\n\r\n")]
        strangers += [await here.says() for _ in range(3)]
        for line in strangers[:3]:
            await ended(line)
        for line in strangers[3:]:
            with anyio.move_on_after(0.01) as waiting:
                await ended(line)
            assert waiting.cancelled_caught, "it is one of the newest"
        await known.send(b"{}{}{")
        assert (await said(known, b"\r\n\r\n")).startswith(b"HTTP/1.1 4"), "it was let in, and is answered"


def test_a_stranger_has_as_long_as_was_decided() -> None:
    assert Limits(strangers=200, silent_s=10, body_s=60, linger_s=2) == USUAL
