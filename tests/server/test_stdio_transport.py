"""The stdio transport, driven from outside: both eras, bad input, and output that a client takes slowly."""

from __future__ import annotations

import json
import os
import pty
import sys
import tty
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters

from tests.server.stdio_process import DEMO, MIB, ROOT, WAIT_S, request, starting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.server.stdio_process import Process


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    with starting(tmp_path) as starter:
        yield starter


@pytest.fixture
def server(start: Callable[..., Process]) -> Process:
    process = start()
    process.open()
    return process


# Both eras


async def talk(parameters: StdioServerParameters, era: str) -> None:
    with anyio.fail_after(WAIT_S):
        async with Client(parameters, mode=era) as client:
            assert (client.protocol_version >= "2026") == (era == "auto")
            assert [tool.name for tool in (await client.list_tools()).tools] == ["echo", "slow"]
            with pytest.raises(Exception, match=r"[Tt]imed out"):
                await client.call_tool("slow", {}, read_timeout_seconds=0.05)
            answer = await client.call_tool("echo", {"text": "still here"})
            assert answer.content[0].text == "still here"  # type: ignore[union-attr]  # the demo sends text only


@pytest.mark.parametrize("transport", ["own", "sdk"])
@pytest.mark.parametrize("era", ["legacy", "auto"])
def test_a_client_of_either_era_lists_calls_times_out_and_leaves(era: str, transport: str, tmp_path: Path) -> None:
    script, journal = tmp_path / "demo.py", tmp_path / "journal"
    script.write_text(DEMO)
    parameters = StdioServerParameters(
        command=sys.executable, args=[str(script), str(journal), transport], env={"PYTHONPATH": str(ROOT)}
    )

    anyio.run(talk, parameters, era)
    notes = journal.read_text().splitlines()
    assert notes == ["open", "slow began", "slow cleaned up", "lifespan closed", "on_close done"]


# Bad input: named as a sentence, then the line, then the code and id of the answer


ABUSE: dict[str, tuple[bytes, int, object]] = {
    "text that is not JSON": (b"hello?", -32700, None),
    "JSON that breaks off": (b'{"jsonrpc":"2.0","id":1,"method":', -32700, None),
    "JSON nested without end": (b"[" * 200_000, -32700, None),
    "bytes that are not UTF-8, in a request": (
        b'{"jsonrpc":"2.0","id":5,"method":"ping","params":{"x":"\xff"}}',
        -32700,
        5,
    ),
    "bytes that are nothing at all": (b"\x00\xff\xfe\x80", -32700, None),
    "a batch": (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600, None),
    "a bare number": (b"42", -32600, None),
    "a request without a version": (b'{"id":"a","method":"ping"}', -32600, "a"),
    "a request whose id is a list": (b'{"jsonrpc":"2.0","id":[1],"method":"ping"}', -32600, None),
    "a request whose id is null": (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600, None),
    "a request whose id is true": (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', -32600, None),
    "a request whose params are text": (b'{"jsonrpc":"2.0","id":6,"method":"ping","params":"x"}', -32600, 6),
    "half a surrogate pair": (b'{"jsonrpc":"2.0","id":7,"method":"ping","params":{"x":"\\ud800"}}', -32600, 7),
}


@pytest.mark.parametrize("name", ABUSE)
def test_a_bad_line_is_answered_and_the_next_one_is_served(name: str, server: Process) -> None:
    line, code, request_id = ABUSE[name]
    server.send(line)
    answer = server.answer()
    assert (answer["error"]["code"], answer["id"]) == (code, request_id)
    server.call(9, "echo", text="alive")
    assert server.text() == "alive"


IGNORED = {
    "an empty line": b"",
    "a line of blanks": b" \t \r",
    "an answer nobody asked for": b'{"jsonrpc":"2.0","id":77,"result":{}}',
    "an error without an id": b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"yours"}}',
    "a cancellation of a list": b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":[]}}',
    "a notification that mentions an id": b'{"jsonrpc":"2.0","method":"notifications/x","params":{"id":1}}',
    "a notification nobody knows": b'{"jsonrpc":"2.0","method":"notifications/unheard"}',
}


@pytest.mark.parametrize("name", IGNORED)
def test_a_harmless_line_is_passed_over_in_silence(name: str, server: Process) -> None:
    server.send(IGNORED[name])
    server.call(9, "echo", text="alive")
    assert server.text() == "alive"


def test_a_bad_first_line_does_not_decide_the_era(start: Callable[..., Process]) -> None:
    process = start()
    process.send(b"garbage")
    assert process.answer()["error"]["code"] == -32700
    process.open()


def test_windows_line_ends_are_tolerated(server: Process) -> None:
    server.send(request(1, "ping", {}) + b"\r")
    assert server.answer()["result"] == {}


def test_a_line_over_the_limit_is_refused_once_and_the_server_lives_on(start: Callable[..., Process]) -> None:
    process = start("short")
    process.open()
    process.call(1, "size", text="x" * (8 * MIB))
    answer = process.answer()
    assert (answer["error"]["code"], answer["id"]) == (-32600, None)
    process.call(2, "echo", text="alive")
    assert process.text() == "alive"


def test_a_request_that_arrives_byte_by_byte_is_served(server: Process) -> None:
    for byte in request(1, "ping", {}) + b"\n":
        os.write(server.fd_in, bytes([byte]))
    assert server.answer()["id"] == 1


def test_requests_that_arrive_in_one_piece_are_all_answered(server: Process) -> None:
    server.send(*(request(n, "tools/call", {"name": "echo", "arguments": {"text": str(n)}}) for n in range(300)))
    answers = [server.answer() for _ in range(300)]
    assert sorted(answer["id"] for answer in answers) == list(range(300))
    assert all(answer["result"]["content"][0]["text"] == str(answer["id"]) for answer in answers)


def test_a_request_of_20_mb_is_served(server: Process) -> None:
    server.call(1, "size", text="x" * 20_000_000)
    assert server.text() == "20000000"


# Output


def test_answers_of_a_mebibyte_reach_a_slow_reader_whole(server: Process) -> None:
    sizes = [MIB + n for n in range(3)]
    for size in sizes:
        server.call(size, "big", n=size)
    answers = {answer["id"]: answer for answer in (server.answer(step=1009) for _ in sizes)}
    for size in sizes:
        assert answers[size]["result"]["content"][0]["text"] == str(size)[-1] * size


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_a_client_that_does_not_read_does_not_make_memory_grow(server: Process) -> None:
    def peak_mib() -> int:
        status = Path(f"/proc/{server.popen.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) // 1024

    before, calls = peak_mib(), 200
    for n in range(calls):
        server.call(n, "big", n=MIB)
    answers = [server.answer(step=64 * 1024) for _ in range(calls)]
    assert sorted(answer["id"] for answer in answers) == list(range(calls))
    grown = peak_mib() - before
    print(f"the peak grew by {grown} MiB for {calls} answers of 1 MiB")
    assert grown < calls / 2


@pytest.mark.parametrize("wire", ["pipes", "a terminal"])
def test_a_cancelled_handler_finishes_its_frame_and_others_run_while_it_waits(
    wire: str, start: Callable[..., Process]
) -> None:
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    process = start() if wire == "pipes" else start(stdin=theirs, stdout=theirs)
    if wire == "a terminal":
        process.fd_in = process.fd_out = ours
    process.open()
    process.call(1, "shout")
    first = os.read(process.fd_out, 10)
    process.send(b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}')
    process.call(2, "note")
    process.noted("noted")
    assert json.loads(first + process.line())["method"] == "notifications/message"
    assert process.text() == "next"
    os.close(ours)
    os.close(theirs)


def test_an_answer_that_cannot_be_encoded_costs_one_error(server: Process) -> None:
    server.call(1, "surrogate")
    assert "error" in server.answer()
    server.call(2, "echo", text="alive")
    assert server.text() == "alive"


def test_stray_prints_writes_and_children_go_to_stderr(start: Callable[..., Process]) -> None:
    process = start("farewell")
    process.open()
    process.call(1, "noise")
    assert process.text() == "quiet"
    process.popen.stdin.close()  # type: ignore[union-attr]  # it is a pipe
    assert process.line() == b"the wire is fd 1 again"
    assert process.wait() == 0
    assert os.read(process.fd_out, 100) == b""
    stray = process.errors.read_text().splitlines()
    assert sorted(stray) == ["stray child", "stray print", "stray print, flushed", "stray write"]
