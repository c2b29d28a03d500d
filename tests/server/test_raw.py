"""A real process under abuse: whatever comes in, the next good request is served."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus.model import State
from tests.fakes import ERAS
from tests.server.raw import Raw, running, text_of, ticket, until
from tests.server.support import open_bus, tasks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module", params=ERAS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Raw]:
    """One process for all the abuse, as a long session would have it."""
    with running(tmp_path_factory.mktemp("abuse"), request.param, MCP_BUS_MAX_WAIT_S="0.1") as process:
        yield process


def alive(server: Raw) -> None:
    assert "next: " in server.call("list_channels")


REFUSED: dict[str, tuple[bytes, int, object]] = {
    "garbage": (b"hello?", -32700, None),
    "bytes that are no text": (b"\x00\xff\xfe", -32700, None),
    "JSON that breaks off": (b'{"jsonrpc":"2.0","id":1,"method":', -32700, None),
    "JSON nested without end": (b"[" * 100_000, -32700, None),
    "a batch": (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600, None),
    "an id that is null": (b'{"jsonrpc":"2.0","id":null,"method":"tools/list"}', -32600, None),
    "half a surrogate pair": (
        b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"get_task","arguments":{"task":"\\ud800"}}}',
        -32600,
        7,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_line_costs_an_error_and_the_next_request_is_served(name: str, server: Raw) -> None:
    line, code, request_id = REFUSED[name]
    server.send(line)
    answer = server.answer()
    assert (answer["error"]["code"], answer["id"]) == (code, request_id)
    alive(server)


def test_an_unknown_method_is_said_to_be_unknown(server: Raw) -> None:
    server.send(server.request(1, "tools/explode"))
    assert server.answer()["error"]["code"] == -32601
    alive(server)


@pytest.mark.parametrize("arguments", [[1], "text", 7])
def test_arguments_that_are_no_object_are_an_error_of_the_protocol(arguments: object, server: Raw) -> None:
    server.send(server.request(1, "tools/call", name="list_channels", arguments=arguments))
    assert server.answer()["error"]["code"] == -32602
    alive(server)


def test_arguments_that_are_null_or_missing_are_none(server: Raw) -> None:
    server.send(server.request(1, "tools/call", name="list_channels", arguments=None))
    server.send(server.request(2, "tools/call", name="list_channels"))
    assert all("result" in server.answer() for _ in range(2))


NOT_NUMBERS: dict[str, dict[str, Any]] = {
    "claim_next": {"wait_s": "NUMBER"},
    "await_results": {"tasks": ["ffffffff"], "wait_s": "NUMBER"},
    "post_task": {"channel": "x", "body": "y", "options": {"ttl_s": "NUMBER"}},
    "submit_result": {"task": "ffffffff", "token": "abcdef", "status": "failed", "retry_in_s": "NUMBER"},
}


@pytest.mark.parametrize("number", [b"NaN", b"-Infinity", b"1e999", b"-1e999"])
@pytest.mark.parametrize("tool", NOT_NUMBERS)
def test_a_number_that_is_none_is_refused_or_capped(tool: str, number: bytes, server: Raw) -> None:
    line = server.request("odd", "tools/call", name=tool, arguments=NOT_NUMBERS[tool])
    server.send(line.replace(b'"NUMBER"', number))
    answer = server.answer()
    assert answer["id"] == "odd"
    if "result" in answer and not (tool == "claim_next" and number == b"1e999"):
        assert answer["result"]["isError"], answer
    alive(server)


def test_a_request_in_halves_is_one_request(server: Raw) -> None:
    line = server.request(1, "tools/list") + b"\n"
    server.write(line[:40])
    server.write(line[40:])
    assert server.answer()["id"] == 1


def test_an_id_used_twice_at_once_is_answered_twice(server: Raw) -> None:
    for _ in range(2):
        server.start(5, "list_channels")
    assert [server.answer()["id"] for _ in range(2)] == [5, 5]
    alive(server)


def test_a_body_of_20_mb_is_refused_in_words(server: Raw) -> None:
    text = server.call("post_task", channel="big", body="x" * 20_000_000)
    assert text.startswith("the body has 20000000 bytes, the limit is 262144\nnext: put large data in a file")
    alive(server)


def test_a_cancellation_of_nothing_is_passed_over(server: Raw) -> None:
    odd: list[object] = [99, "call", None, [], True]
    for request_id in odd:
        server.cancel(request_id)
    alive(server)


def test_a_request_before_initialize_is_refused_and_the_handshake_still_works(place: Path) -> None:
    server = Raw(place)
    try:
        server.start(1, "list_channels")
        assert server.answer()["error"]["code"] == -32602
        assert not (place / "bus").exists()
        alive(server.open())
    finally:
        server.discard()


def test_the_other_eras_words_are_refused_and_nothing_breaks(place: Path) -> None:
    with running(place, "auto") as server:
        alive(server)
        server.send(b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}')
        assert "error" in server.answer()
        alive(server)


def test_a_modern_client_without_a_name_is_served(place: Path) -> None:
    with running(place, "auto") as server:
        params = {
            "name": "list_channels",
            "arguments": {},
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        }
        server.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode())
        answer = server.answer()
        assert "error" in answer or not answer["result"].get("isError"), answer
        alive(server)


STRAY = [name for name in ("SIGPIPE", "SIGCHLD", "SIGWINCH", "SIGURG", "SIGCONT") if hasattr(signal, name)]


def test_stray_signals_change_nothing(place: Path) -> None:
    with running(place) as server:
        server.start(1, "claim_next", wait_s=30)
        with open_bus(place) as bob:
            until((place / "bus" / "bus.json").exists, "no bus was made")
            for name in STRAY:
                server.popen.send_signal(getattr(signal, name))
            server.popen.send_signal(signal.SIGSTOP)
            server.popen.send_signal(signal.SIGCONT)
            bob.post("review", "x")
        answer = server.answer()
        assert answer["id"] == 1
        assert ticket(text_of(answer))
        alive(server)


@pytest.mark.parametrize("era", ERAS)
def test_a_client_that_closes_our_stdout_ends_the_session_and_frees_its_tasks(place: Path, era: str) -> None:
    with open_bus(place) as bob, running(place, era) as server:
        bob.post("review", "x")
        held = ticket(server.call("claim_next"))["task"]
        server.stdout.close()
        server.start(2, "list_channels")
        assert server.ends() == 0
        assert (tasks(bob)[held].state, tasks(bob)[held].slot.attempt) == (State.READY, 0)


def test_the_log_goes_to_stderr_one_line_each_and_stdout_is_the_protocols(place: Path) -> None:
    with running(place, MCP_BUS_LOG_LEVEL="debug") as server:
        server.call("post_task", channel="x", body="y")
        server.stdin.close()
        assert server.ends() == 0
        assert server.stdout.read() in (b"", None)
        lines = server.errors.read_text().splitlines()
    assert lines
    assert all(line.startswith(("mcp-bus: ", "bus: ")) for line in lines), lines
