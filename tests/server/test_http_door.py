"""Over HTTP nobody comes in without the token, from elsewhere, in another name, or so often that others cannot."""

from __future__ import annotations

import json
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mcp_bus.model import State
from mcp_bus.server.connections import USUAL
from tests.server.http_process import JSON, TOKEN, hello, serving_http
from tests.server.support import WAIT_S, tasks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mcp_bus.bus import Bus
    from tests.server.http_process import Http

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def shut(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Http]:
    """A server whose bus stays unmade, because nobody comes in."""
    place = tmp_path_factory.mktemp("shut")
    with serving_http(place) as server:
        yield server
        assert not (place / "bus").exists()


@pytest.mark.parametrize(
    "said",
    ["", "Bearer", "Bearer ", "Bearer wrong", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN],
)
@pytest.mark.parametrize("path", ["/mcp", "/mcp/ann", "/", f"/mcp?token={TOKEN}"])
def test_without_the_token_nothing_is_answered(shut: Http, said: str, path: str) -> None:
    for method in ("POST", "GET", "DELETE", "OPTIONS"):
        answer = shut.raw(method, path, hello(), JSON | {"Authorization": said})
        assert answer.status == 401, answer
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:80",
        "127.0.0.1.evil.example:1",
        "localhost",
        "[::1]:1",
        "127.0.0.1:1@evil.example",
        "127.0.0.1:",
        "localhost.evil",
    ],
)
def test_another_host_is_refused(shut: Http, host: str) -> None:
    answer = shut.raw(body=hello(), headers=JSON | {"Host": host})
    assert answer.status == 421


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1.evil.example:1", "file://"])
def test_another_origin_is_refused(shut: Http, origin: str) -> None:
    answer = shut.raw(body=hello(), headers=JSON | {"Origin": origin})
    assert answer.status == 403


def test_a_browser_is_not_told_that_it_may(shut: Http) -> None:
    headers = {"Origin": f"http://localhost:{shut.port}", "Access-Control-Request-Method": "POST"}
    answer = shut.raw("OPTIONS", headers=headers)
    assert answer.status >= 400
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_a_body_that_is_too_large_is_refused_and_the_next_request_answered(shut: Http) -> None:
    assert shut.raw(body=b'{"x": "' + b"x" * 9_000_000 + b'"}', headers=JSON).status == 413
    assert shut.raw(body=hello(), headers=JSON).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/mcpx",
        "/other",
        "/mcp/human",
        "/mcp/@ann",
        "/mcp/a~b",
        "/mcp/%0a",
        "/mcp/" + "x" * 161,
        "/mcp/Human",
        "/mcp/human%20",
        "/mcp/ann%E2%80%8B",
    ],
)
def test_an_address_that_is_none_is_not_found(shut: Http, path: str) -> None:
    assert shut.raw(path=path, body=hello(), headers=JSON).status == 404


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b"null", b"1" * 5000, b"[" * 100_000])
def test_what_is_no_message_is_refused_and_the_next_request_answered(shut: Http, body: bytes) -> None:
    for headers in (JSON, JSON | {"MCP-Protocol-Version": "2026-07-28"}, {"Content-Type": "text/plain"}):
        assert 400 <= shut.raw(body=body, headers=headers).status < 500
    assert shut.raw(body=hello(), headers=JSON).status == 200


def opened(http: Http, agent: str) -> dict[str, str]:
    """Open a session of the handshake era; return the headers of its next requests."""
    answer = http.raw(path=f"/mcp/{agent}", body=hello(), headers=JSON)
    session = {"Mcp-Session-Id": answer.headers["mcp-session-id"], "MCP-Protocol-Version": "2025-06-18"}
    assert http.raw(path=f"/mcp/{agent}", headers=JSON | session, body=_note("notifications/initialized")).status == 202
    return JSON | session


def test_a_session_is_no_other_address_s(http: Http, bob: Bus) -> None:
    session = opened(http, "ann")
    assert http.raw(path="/mcp/ann", headers=session, body=_call("post_task", channel="work", body="x")).status == 200
    (task,) = tasks(bob).values()
    assert http.raw(path="/mcp/ann", headers=session, body=_call("claim_next", channels=["work"])).status == 200
    assert bob.get(task.id).state is State.LEASED
    for path in ("/mcp/carl", "/mcp"):
        assert http.raw(path=path, headers=session, body=_call("claim_next")).status == 404
        assert http.raw("DELETE", path, headers=session).status == 404
    for refused in ({"Host": "evil.example"}, {"Authorization": "Bearer wrong"}, {"Origin": "https://evil.example"}):
        assert http.raw("DELETE", "/mcp/ann", headers=session | refused).status >= 400
    answer = http.raw(path="/mcp/ann/", headers=session, body=_call("claim_next"))
    assert b"you already hold" in answer.body, "it is still there, whoever else said goodbye in its name"
    assert http.raw("DELETE", "/mcp/ann", headers=session).status == 200


async def test_who_hung_up_without_a_word_is_handed_nothing(http: Http, bob: Bus) -> None:
    session = await anyio.to_thread.run_sync(opened, http, "ann")
    body = json.dumps(_call("claim_next", channels=["work"], wait_s=40)).encode()
    head = "".join(f"{name}: {value}\r\n" for name, value in session.items())
    with socket.create_connection(("127.0.0.1", http.port)) as line:
        line.sendall(
            f"POST /mcp/ann HTTP/1.1\r\nHost: 127.0.0.1:{http.port}\r\nAuthorization: Bearer {TOKEN}\r\n{head}"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        line.settimeout(WAIT_S)
        assert b" 200 " in line.recv(4096), "it waits"
    answer = await anyio.to_thread.run_sync(
        partial(http.raw, path="/mcp/ann", headers=session, body=_call("list_channels"))
    )
    assert answer.status == 200
    task = bob.post("work", "x").id
    carl = await anyio.to_thread.run_sync(opened, http, "carl")
    claim = partial(http.raw, path="/mcp/carl", headers=carl, body=_call("claim_next", channels=["work"], wait_s=5))
    assert task[-8:].encode() in (await anyio.to_thread.run_sync(claim)).body


def _note(method: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method}


def _call(tool: str, **arguments: object) -> dict[str, Any]:
    params = {"name": tool, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params}


async def test_who_connects_and_says_nothing_keeps_nobody_out(http: Http) -> None:
    silent = [socket.create_connection(("127.0.0.1", http.port)) for _ in range(USUAL.strangers + 50)]
    try:
        async with http.desk("auto", "ann") as ann:
            await ann.post()
        silent[0].settimeout(USUAL.silent_s / 2)
        assert silent[0].recv(1) == b"", "the oldest had to go, before its time was over"
    finally:
        for one in silent:
            one.close()


def test_only_this_machine_can_come(shut: Http) -> None:
    with socket.socket() as elsewhere:
        elsewhere.settimeout(WAIT_S)
        assert elsewhere.connect_ex(("127.0.0.2", shut.port)) != 0, "it listens on one address only"
