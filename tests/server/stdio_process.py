"""A real server process on the stdio transport, and the raw client that drives it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 20.0
EXIT_S = 2.0
MIB = 1024 * 1024

DEMO = """
import contextlib, os, pathlib, signal, subprocess, sys
import anyio, anyio.to_thread
from mcp import types
from mcp.server.lowlevel import Server
from mcp_bus.server import stdio

journal = pathlib.Path(sys.argv[1])
mode = sys.argv[2:]
second_signal = anyio.Event()
signals = []


def note(text):
    with journal.open("a") as file:
        file.write(text + "\\n")


async def slow():
    note("slow began")
    try:
        await anyio.sleep_forever()
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.lowlevel.checkpoint()
            note("slow cleaned up")


def noise():
    print("stray print, flushed", flush=True)
    print("stray print")
    os.write(1, b"stray write\\n")
    subprocess.run(["sh", "-c", "cat; echo stray child"], check=True)
    return "quiet"


async def call(ctx, params):
    given = params.arguments or {}
    if params.name == "slow":
        await slow()
    if params.name == "shout":
        said = types.LoggingMessageNotificationParams(level="info", data="x" * 2**20)
        await ctx.session.send_notification(types.LoggingMessageNotification(params=said))
        await anyio.sleep_forever()
    if params.name == "note":
        note("noted")
    if params.name == "exit":
        sys.exit(7)
    if params.name == "hop":
        await anyio.to_thread.run_sync(int)
    text = {
        "echo": lambda: given["text"],
        "hop": lambda: "hopped",
        "size": lambda: str(len(given["text"])),
        "big": lambda: str(given["n"])[-1] * given["n"],
        "noise": noise,
        "note": lambda: "next",
        "surrogate": lambda: chr(0xD800),
    }[params.name]()
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)])


async def tools(ctx, params):
    schema = {"type": "object"}
    return types.ListToolsResult(tools=[types.Tool(name=n, input_schema=schema) for n in ("echo", "slow")])


@contextlib.asynccontextmanager
async def lifespan(server):
    note("open")
    yield None
    if "stuck" in mode:
        note("stuck")
        await anyio.sleep_forever()
    await anyio.lowlevel.checkpoint()
    note("lifespan closed")


async def on_close():
    if "linger" in mode:
        note("lingering")
        with anyio.fail_after(10):
            await second_signal.wait()
    await anyio.lowlevel.checkpoint()
    note("on_close done")


def on_signal(number):
    signals.append(number)
    note(number.name)
    if len(signals) == 2:
        second_signal.set()


def build():
    return Server("demo", version="1", lifespan=lifespan, on_list_tools=tools, on_call_tool=call,
                  on_subscriptions_listen=listen)


async def listen(ctx, params):
    note("listening")
    await anyio.sleep_forever()


if "patient" in mode:
    stdio.DRAIN_S = 60.0
if "impatient" in mode:
    stdio.PATIENCE_S = 0.0
if "sdk" in mode:
    stdio._own_stdio = lambda *_: stdio.stdio_server()
limit = 4096 if "short" in mode else stdio.MAX_LINE
code = stdio.run_stdio(build, on_signal=on_signal, on_close=on_close, max_line=limit)
if "farewell" in mode:
    os.write(1, b"the wire is fd 1 again\\n")
if "late" in mode:
    os.kill(os.getpid(), signal.SIGTERM)
stdio.leave(code)
"""


class Process:
    """The demo server and its raw client; every wait is bounded, every answer checked to be one line of JSON."""

    def __init__(
        self,
        folder: Path,
        *mode: str,
        stdin: int | IO[bytes] = subprocess.PIPE,
        stdout: int | IO[bytes] = subprocess.PIPE,
    ) -> None:
        script = folder / "demo.py"
        script.write_text(DEMO)
        self.journal = folder / "journal"
        self.journal.touch()
        self.errors = folder / "stderr"
        with self.errors.open("wb") as stderr:
            self.popen: subprocess.Popen[bytes] = subprocess.Popen(
                [sys.executable, str(script), str(self.journal), *mode],
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                bufsize=0,
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""},
            )
        self.fd_in = self.popen.stdin.fileno() if self.popen.stdin else -1
        self.fd_out = self.popen.stdout.fileno() if self.popen.stdout else -1
        self._unread = b""

    def send(self, *lines: bytes) -> None:
        data = memoryview(b"".join(line + b"\n" for line in lines))
        while data:
            assert select.select([], [self.fd_in], [], WAIT_S)[1], "the server does not read"
            data = data[os.write(self.fd_in, data[: select.PIPE_BUF]) :]

    def line(self, *, step: int = MIB) -> bytes:
        parts = [self._unread]
        while b"\n" not in parts[-1]:
            assert select.select([self.fd_out], [], [], WAIT_S)[0], "the server does not answer"
            chunk = os.read(self.fd_out, step)
            assert chunk, "the server has closed stdout"
            parts.append(chunk)
        line, _, self._unread = b"".join(parts).partition(b"\n")
        return line

    def answer(self, *, step: int = MIB) -> dict[str, Any]:
        value = json.loads(self.line(step=step))
        assert isinstance(value, dict)
        return value

    def open(self) -> None:
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
        self.send(request("hello", "initialize", hello))
        assert self.answer()["id"] == "hello"
        self.send(b'{"jsonrpc":"2.0","method":"notifications/initialized"}')

    def call(self, request_id: object, tool: str, **arguments: object) -> None:
        self.send(request(request_id, "tools/call", {"name": tool, "arguments": arguments}))

    def text(self, *, step: int = MIB) -> str:
        text = self.answer(step=step)["result"]["content"][0]["text"]
        assert isinstance(text, str)
        return text

    def noted(self, text: str) -> None:
        until(lambda: text in self.journal.read_text().splitlines(), f"no {text!r} in the journal")

    def wait(self, *, within: float = EXIT_S) -> int:
        begun = time.monotonic()
        code = self.popen.wait(WAIT_S)
        took = time.monotonic() - begun
        print(f"ended with {code} after {took * 1000:.1f} ms")
        assert took < within, f"the exit took {took:.2f} s"
        return code

    def ends_cleanly(self, *, within: float = EXIT_S) -> None:
        code = self.wait(within=within)
        assert code == 0, self.errors.read_text()
        assert self.journal.read_text().splitlines()[-2:] == ["lifespan closed", "on_close done"]
        assert self.errors.read_text() == ""

    def discard(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.popen.kill()
        self.popen.wait(WAIT_S)
        for stream in (self.popen.stdin, self.popen.stdout):
            with contextlib.suppress(OSError, AttributeError):
                stream.close()  # type: ignore[union-attr]  # what is no pipe is None


def request(request_id: object, method: str, params: dict[str, Any]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}).encode()


def until(met: Callable[[], bool], complaint: str) -> None:
    deadline = time.monotonic() + WAIT_S
    tick = threading.Event()
    while not met():
        assert time.monotonic() < deadline, complaint
        tick.wait(0.005)


def blocking(fd: int) -> bool:
    return not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK


@contextlib.contextmanager
def starting(folder: Path) -> Iterator[Callable[..., Process]]:
    with contextlib.ExitStack() as started:

        def start(*mode: str, **streams: int | IO[bytes]) -> Process:
            process = Process(folder, *mode, **streams)
            started.callback(process.discard)
            return process

        yield start


def close_stdin(process: Process) -> None:
    stdin: IO[bytes] | None = process.popen.stdin
    assert stdin is not None
    stdin.close()


def interrupt(process: Process) -> None:
    process.popen.send_signal(signal.SIGINT)


def hang_up(process: Process) -> None:
    process.popen.send_signal(signal.SIGHUP)


def terminate(process: Process) -> None:
    process.popen.send_signal(signal.SIGTERM)


def both_at_once(process: Process) -> None:
    process.popen.send_signal(signal.SIGINT)
    process.popen.send_signal(signal.SIGTERM)
