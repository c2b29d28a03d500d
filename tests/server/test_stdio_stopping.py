"""The stdio transport's ends: descriptors of every kind and their flags, and every way to stop."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import tty
from typing import TYPE_CHECKING

import pytest

from tests.server.stdio_process import (
    MIB,
    WAIT_S,
    blocking,
    both_at_once,
    close_stdin,
    hang_up,
    interrupt,
    request,
    starting,
    terminate,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

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


# Descriptors of every kind, and their flags


@pytest.mark.parametrize("end", ["by the end of input", "by SIGKILL"])
def test_a_shared_terminal_is_never_left_non_blocking(end: str, start: Callable[..., Process]) -> None:
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    process = start(stdin=theirs, stdout=theirs)
    process.fd_in = process.fd_out = ours
    process.open()
    process.call(1, "big", n=MIB)
    assert len(process.text(step=1009)) == MIB
    assert blocking(theirs)
    if end == "by SIGKILL":
        process.popen.kill()
        process.popen.wait(WAIT_S)
    else:
        process.popen.terminate()
        process.ends_cleanly()
    assert blocking(theirs)
    os.close(ours)
    os.close(theirs)


def test_a_terminal_that_hangs_up_ends_the_server(start: Callable[..., Process]) -> None:
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    process = start(stdin=theirs, stdout=theirs)
    os.close(theirs)
    process.fd_in = process.fd_out = ours
    process.open()
    os.close(ours)
    process.ends_cleanly()


def test_a_socket_pair_serves_and_its_shared_end_stays_blocking(start: Callable[..., Process]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = start(stdin=theirs, stdout=theirs)
        process.fd_in = process.fd_out = ours.fileno()
        process.open()
        process.call(1, "big", n=MIB)
        assert len(process.text(step=1009)) == MIB
        assert blocking(theirs.fileno())
        ours.shutdown(socket.SHUT_WR)
        process.ends_cleanly()
        assert blocking(theirs.fileno())


def test_pipes_shared_with_the_parent_stay_blocking(start: Callable[..., Process]) -> None:
    (their_in, our_in), (our_out, their_out) = os.pipe(), os.pipe()
    process = start(stdin=their_in, stdout=their_out)
    process.fd_in, process.fd_out = our_in, our_out
    process.open()
    assert blocking(their_in)
    assert blocking(their_out)
    os.close(our_in)
    process.ends_cleanly()
    assert blocking(their_in)
    assert blocking(their_out)
    for fd in (their_in, our_out, their_out):
        os.close(fd)


def test_requests_in_a_file_are_answered_into_a_file(start: Callable[..., Process], tmp_path: Path) -> None:
    asked, answered = tmp_path / "asked", tmp_path / "answered"
    asked.write_bytes(request(1, "ping", {}) + b"\n\n" + request(2, "ping", {}))
    with asked.open("rb") as stdin, answered.open("wb") as stdout:
        start(stdin=stdin, stdout=stdout).ends_cleanly(within=WAIT_S)
    assert [json.loads(line)["id"] for line in answered.read_text().splitlines()] == [1, 2]


def test_the_null_device_as_input_is_an_end_of_input(start: Callable[..., Process]) -> None:
    start(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL).ends_cleanly(within=WAIT_S)


# Stopping


STOPS = [close_stdin, interrupt, terminate, hang_up, both_at_once]


@pytest.mark.parametrize("stop", STOPS)
def test_an_idle_server_ends_with_0_after_its_clean_up(stop: Callable[[Process], None], server: Process) -> None:
    stop(server)
    server.ends_cleanly()


@pytest.mark.parametrize("stop", STOPS)
def test_a_server_that_was_never_spoken_to_ends_with_0(
    stop: Callable[[Process], None], start: Callable[..., Process]
) -> None:
    process = start()
    process.noted("open")
    stop(process)
    process.ends_cleanly()


@pytest.mark.parametrize("stop", STOPS)
def test_a_running_handler_is_cancelled_cleans_up_and_is_answered(
    stop: Callable[[Process], None], server: Process
) -> None:
    server.call(1, "slow")
    server.noted("slow began")
    stop(server)
    assert server.answer()["error"]["code"] == -32000
    server.ends_cleanly()
    assert "slow cleaned up" in server.journal.read_text()


@pytest.mark.parametrize("tool", ["echo", "hop"])
def test_requests_before_the_end_of_input_are_still_answered(tool: str, start: Callable[..., Process]) -> None:
    server = start("patient")
    server.open()
    server.send(*(request(n, "tools/call", {"name": tool, "arguments": {"text": "x"}}) for n in range(20)))
    close_stdin(server)
    assert sorted(server.answer()["id"] for _ in range(20)) == list(range(20))
    server.ends_cleanly()


def test_an_open_subscription_does_not_delay_the_end(start: Callable[..., Process]) -> None:
    process = start("patient")
    envelope = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "raw", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    process.send(request(1, "subscriptions/listen", {"_meta": envelope, "notifications": {"toolsListChanged": True}}))
    process.noted("listening")
    close_stdin(process)
    process.ends_cleanly()


def test_a_cancelled_request_does_not_delay_the_end(start: Callable[..., Process]) -> None:
    process = start("patient")
    process.open()
    process.call(1, "slow")
    process.noted("slow began")
    process.send(b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}')
    close_stdin(process)
    process.ends_cleanly()


def test_a_second_signal_during_the_clean_up_does_not_break_it(start: Callable[..., Process]) -> None:
    process = start("linger")
    process.open()
    interrupt(process)
    process.noted("lingering")
    terminate(process)
    assert process.wait() == 0
    assert process.journal.read_text().splitlines()[-1] == "on_close done"


def test_a_signal_after_the_end_does_not_change_the_exit_code(start: Callable[..., Process]) -> None:
    process = start("late")
    process.open()
    interrupt(process)
    process.ends_cleanly()


def test_a_signal_that_finds_an_old_clean_up_ends_the_process_at_once(start: Callable[..., Process]) -> None:
    process = start("stuck", "impatient")
    process.open()
    interrupt(process)
    process.noted("stuck")
    terminate(process)
    assert process.wait() == 1


@pytest.mark.parametrize("stop", [interrupt, terminate])
def test_a_client_that_stopped_reading_cannot_hold_the_server(stop: Callable[[Process], None], server: Process) -> None:
    for n in range(20):
        server.call(n, "big", n=MIB)
    os.read(server.fd_out, 10)
    stop(server)
    server.ends_cleanly()


def test_a_client_that_closed_our_stdout_ends_the_server(server: Process) -> None:
    server.call(1, "slow")
    server.noted("slow began")
    assert server.popen.stdout is not None
    server.popen.stdout.close()
    server.call(2, "echo", text="into the void")
    server.ends_cleanly()
    assert "slow cleaned up" in server.journal.read_text()


def test_an_exit_inside_a_tool_ends_the_process_with_1(server: Process) -> None:
    server.call(1, "exit")
    assert server.wait() == 1
    assert "on_close done" in server.journal.read_text()
