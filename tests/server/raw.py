"""A real server process and raw lines to it; every wait is bounded."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

from tests.server.support import WAIT_S, command, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

MODERN = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "raw", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
HELLO = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}


class Raw:
    """A server process, spoken to line by line in one era."""

    def __init__(
        self, place: Path, era: str = "legacy", *, agent: str = "ann", under: Sequence[str] = (), **variables: str
    ) -> None:
        """Start it, under a program such as `strace` if told."""
        self.era = era
        self.errors = place / f"stderr-{agent}"
        with self.errors.open("ab") as stderr:
            self.popen = subprocess.Popen(
                [*under, *command(place, agent=agent)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                bufsize=0,
                env=environment(place, **variables),
                cwd=place,
            )
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        self.stdin, self.stdout = self.popen.stdin, self.popen.stdout
        self._unread = b""

    def send(self, *lines: bytes) -> None:
        self.write(b"".join(line + b"\n" for line in lines))

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            assert select.select([], [self.stdin], [], WAIT_S)[1], "the server does not read"
            rest = rest[os.write(self.stdin.fileno(), rest[: select.PIPE_BUF]) :]

    def answer(self) -> dict[str, Any]:
        """Return the next answer; notifications are passed over."""
        return self._next(lambda value: "method" not in value)

    def told(self, method: str) -> dict[str, Any]:
        """Return the next notification of a kind; all else is passed over."""
        return self._next(lambda value: value.get("method") == method)

    def _next(self, is_wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        while True:
            parts = [self._unread]
            while b"\n" not in parts[-1]:
                assert select.select([self.stdout], [], [], WAIT_S)[0], "the server does not answer"
                chunk = os.read(self.stdout.fileno(), 1 << 20)
                assert chunk, f"the server has closed stdout: {self.errors.read_text()}"
                parts.append(chunk)
            line, _, self._unread = b"".join(parts).partition(b"\n")
            value = json.loads(line)
            assert isinstance(value, dict)
            if is_wanted(value):
                return value

    def request(self, request_id: object, method: str, **params: Any) -> bytes:
        if self.era == "auto":
            params["_meta"] = {**MODERN, **params.get("_meta", {})}
        return json.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}).encode()

    def open(self) -> Raw:
        """Do what opens a connection in this era."""
        if self.era == "legacy":
            self.send(self.request("hello", "initialize", **HELLO))
            assert "result" in self.answer()
            self.send(b'{"jsonrpc":"2.0","method":"notifications/initialized"}')
        return self

    def start(self, request_id: object, tool: str, /, **arguments: object) -> None:
        """Call a tool without waiting for its answer."""
        self.send(self.request(request_id, "tools/call", name=tool, arguments=arguments))

    def call(self, tool: str, /, **arguments: object) -> str:
        """Call a tool and return its text, be it an error."""
        self.start("call", tool, **arguments)
        answer = self.answer()
        assert answer["id"] == "call", answer
        return text_of(answer)

    def cancel(self, request_id: object) -> None:
        params = {"requestId": request_id, "reason": "timed out"}
        self.send(json.dumps({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}).encode())

    def ends(self, *, within: float = 3.0) -> int:
        """Wait for the end of the process; return its exit code."""
        begun = time.monotonic()
        code = self.popen.wait(WAIT_S)
        took = time.monotonic() - begun
        print(f"ended with {code} after {took * 1000:.0f} ms")
        assert took < within
        return code

    def discard(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.popen.kill()
        self.popen.wait(WAIT_S)
        for stream in (self.stdin, self.stdout):
            with contextlib.suppress(OSError):
                stream.close()


def text_of(answer: dict[str, Any]) -> str:
    text = answer["result"]["content"][0]["text"]
    assert isinstance(text, str)
    return text


@contextlib.contextmanager
def running(place: Path, era: str = "legacy", *, under: Sequence[str] = (), **variables: str) -> Iterator[Raw]:
    """Run a server that is connected; kill it in the end if it still runs."""
    server = Raw(place, era, under=under, **variables)
    try:
        yield server.open()
    finally:
        server.discard()


def until(met: Callable[[], object], complaint: str) -> float:
    """Wait until something is so; return how long it took."""
    begun, tick = time.monotonic(), threading.Event()
    while not met():
        assert time.monotonic() - begun < WAIT_S, complaint
        tick.wait(0.005)
    return time.monotonic() - begun


def ticket(text: str) -> dict[str, str]:
    """Return what a worker needs to speak of the task in an answer of `claim_next`."""
    match = re.search(r"^task (\w{8}) token ([0-9a-f]+) on", text, re.MULTILINE)
    assert match is not None, text
    return {"task": match[1], "token": match[2]}
