"""A real server process over HTTP, clients of it, and raw requests to it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from contextlib import asynccontextmanager, contextmanager
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import anyio
import httpx2
from mcp import types
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

from tests.server.support import WAIT_S, Desk, environment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

TOKEN = "only-for-this-test"  # noqa: S105  of a server that lives as long
JSON = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


class Answer(NamedTuple):
    """What came back for one raw request; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Http:
    """A server process, and where it is found."""

    def __init__(self, popen: subprocess.Popen[str], url: str) -> None:
        self.popen = popen
        self.url = url

    def raw(
        self, method: str = "POST", path: str = "/mcp", body: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request with nothing in it but this, and the token unless `Authorization` is given (None: none)."""
        sent = {"Authorization": f"Bearer {TOKEN}", **(headers or {})}
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        connection = HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        try:
            connection.request(method, path, data, {name: value for name, value in sent.items() if value})
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    @property
    def port(self) -> int:
        """Where it listens."""
        port = urlsplit(self.url).port
        assert port is not None
        return port

    def transport(self, agent: str = "") -> AbstractAsyncContextManager[Any]:
        """Return what the SDK's client reaches it by, as an agent of its own address."""
        return transport(f"{self.url}/{agent}" if agent else self.url)

    def desk(self, era: str, agent: str = "", client: str = "tester") -> AbstractAsyncContextManager[Desk]:
        """Connect to it with the SDK's client."""
        return reaching(f"{self.url}/{agent}" if agent else self.url, era, client)


@asynccontextmanager
async def transport(url: str) -> AsyncIterator[Any]:
    """Return what the SDK's client reaches an address by."""
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=WAIT_S) as http:
        yield streamable_http_client(url, http_client=http)


@asynccontextmanager
async def reaching(url: str, era: str, client: str = "tester") -> AsyncIterator[Desk]:
    """Connect to an address with the SDK's client; the whole conversation is bounded."""
    known = types.Implementation(name=client, version="1")
    with anyio.fail_after(2 * WAIT_S):
        async with transport(url) as reached, Client(reached, mode=era, client_info=known) as connected:
            assert (connected.protocol_version >= "2026") == (era == "auto")
            yield Desk(connected)


@contextmanager
def serving_http(place: Path, *options: str, **variables: str) -> Iterator[Http]:
    """Serve the bus of a folder on any free port; whoever is still there at the end is killed."""
    token = place / "token"
    if not token.exists():
        token.write_text(TOKEN + "\n")
        token.chmod(0o600)
    words = [sys.executable, "-m", "mcp_bus", "serve", "--bus", str(place / "bus"), "--http", "0"]
    words += ["--token-file", str(token), *options]
    with (place / "http-stderr").open("ab") as stderr:
        popen = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment(place, **variables), cwd=place
        )
    late = threading.Timer(WAIT_S, popen.kill)
    late.start()
    try:
        assert popen.stdout is not None
        url = popen.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), (url, (place / "http-stderr").read_text())
        late.cancel()
        yield Http(popen, url)
    finally:
        late.cancel()
        popen.kill()
        popen.wait(WAIT_S)
        assert popen.stdout is not None
        popen.stdout.close()


def hello(**more: Any) -> dict[str, Any]:
    """Return the first request of the handshake era."""
    params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
    return {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params | more}
