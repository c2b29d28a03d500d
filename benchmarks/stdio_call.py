"""What a tool call over stdio costs, and how a server ends: our transport, the SDK's, and `MCPServer.run()`.

Run `python -m benchmarks.stdio_call`. Every figure is taken on all servers in turn within one run, by a raw
client on plain pipes, so the ratios hold even where the machine is noisy; the milliseconds do not travel.
"""

from __future__ import annotations

import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROUNDS = 30
CALLS = 100
BURST = 2000
STARTS = 9
IDLE_S = 5.0
KILL_S = 2.0

LOW_LEVEL = """
import sys
import anyio
from mcp import types
from mcp.server.lowlevel import Server

async def call(ctx, params):
    return types.CallToolResult(content=[types.TextContent(type="text", text=params.arguments["text"])])

async def tools(ctx, params):
    return types.ListToolsResult(tools=[types.Tool(name="echo", input_schema={"type": "object"})])

def build():
    return Server("bench", version="1", on_list_tools=tools, on_call_tool=call)
"""
OURS = LOW_LEVEL + "from mcp_bus.server.stdio import leave, run_stdio\n"
SERVERS = {
    "ours": OURS + "leave(run_stdio(build))\n",
    "ours, sys.exit": OURS + "sys.exit(run_stdio(build))\n",
    "SDK stdio, low-level": LOW_LEVEL
    + """
from mcp.server.stdio import stdio_server

async def main():
    server = build()
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())

anyio.run(main)
""",
    "MCPServer.run()": """
from mcp.server import MCPServer

server = MCPServer("bench", version="1", log_level="WARNING")

@server.tool()
async def echo(text: str) -> str:
    return text

server.run()
""",
}


def _line(request_id: int, method: str, params: dict[str, Any]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}).encode() + b"\n"


_HELLO = _line(
    0,
    "initialize",
    {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}},
)
_CALL = _line(1, "tools/call", {"name": "echo", "arguments": {"text": "x" * 300}})


class _Server:
    """A server process and its raw client."""

    def __init__(self, script: Path) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        self.stdin = cast("IO[bytes]", self.popen.stdin)
        self.stdout = cast("IO[bytes]", self.popen.stdout)

    def ask(self, line: bytes) -> None:
        os.write(self.stdin.fileno(), line)
        while not os.read(self.stdout.fileno(), 65536).endswith(b"\n"):
            pass

    def open(self) -> None:
        self.ask(_HELLO)
        os.write(self.stdin.fileno(), b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')

    def burst(self, calls: int) -> float:
        begun = time.perf_counter()
        sent = answered = 0
        while answered < calls:
            # At most 50 in flight: enough to keep the server busy, too few to fill a pipe.
            for _ in range(min(calls - sent, 50 - (sent - answered))):
                os.write(self.stdin.fileno(), _CALL)
                sent += 1
            answered += os.read(self.stdout.fileno(), 65536).count(b"\n")
        return calls / (time.perf_counter() - begun)

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.popen.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self, stop: Callable[[_Server], None]) -> tuple[float, str]:
        # `Popen.wait` with a timeout looks only every now and then; a pidfd tells at once.
        watch = os.pidfd_open(self.popen.pid)
        begun = time.perf_counter()
        stop(self)
        ended, _, _ = select.select([watch], [], [], KILL_S)
        took = time.perf_counter() - begun
        os.close(watch)
        if not ended:
            self.popen.kill()
        code = str(self.popen.wait()) if ended else "killed"
        self.stdin.close()
        self.stdout.close()
        return took, code


def _close(server: _Server) -> None:
    server.stdin.close()


def _terminate(server: _Server) -> None:
    server.popen.send_signal(signal.SIGTERM)


def _interrupt(server: _Server) -> None:
    server.popen.send_signal(signal.SIGINT)


_STOPS: dict[str, Callable[[_Server], None]] = {"EOF": _close, "SIGTERM": _terminate, "SIGINT": _interrupt}


def _measure_calls(scripts: dict[str, Path]) -> dict[str, list[str]]:
    servers = {name: _Server(script) for name, script in scripts.items()}
    times: dict[str, list[float]] = {name: [] for name in servers}
    rates: dict[str, list[float]] = {name: [] for name in servers}
    for server in servers.values():
        server.open()
        server.burst(CALLS)
    for _ in range(ROUNDS):
        for name, server in servers.items():
            for _ in range(CALLS):
                begun = time.perf_counter()
                server.ask(_CALL)
                times[name].append(time.perf_counter() - begun)
    for _ in range(3):
        for name, server in servers.items():
            rates[name].append(server.burst(BURST))
    cpu = {name: server.cpu_s() for name, server in servers.items()}
    time.sleep(IDLE_S)
    rows = {}
    for name, server in servers.items():
        idle = server.cpu_s() - cpu[name]
        server.end(_close)
        p95 = statistics.quantiles(times[name], n=20)[-1]
        p50 = statistics.median(times[name])
        rows[name] = [f"{p50 * 1e3:.3f}", f"{p95 * 1e3:.3f}", f"{max(rates[name]):.0f}", f"{idle:.2f}"]
    best = statistics.median(times["ours"])
    for name, row in rows.items():
        row.insert(2, f"{statistics.median(times[name]) / best:.2f}")
    return rows


def _measure_ends(scripts: dict[str, Path]) -> dict[str, list[str]]:
    starts: dict[str, list[float]] = {name: [] for name in scripts}
    ends: dict[tuple[str, str], list[tuple[float, str]]] = {}
    for _ in range(STARTS):
        for stop, act in _STOPS.items():
            for name, script in scripts.items():
                begun = time.perf_counter()
                server = _Server(script)
                server.open()
                starts[name].append(time.perf_counter() - begun)
                ends.setdefault((name, stop), []).append(server.end(act))
    rows = {}
    for name in scripts:
        rows[name] = [f"{statistics.median(starts[name]) * 1e3:.0f}"]
        for stop in _STOPS:
            taken = [took for took, _ in ends[name, stop]]
            codes = "/".join(sorted({code for _, code in ends[name, stop]}))
            rows[name].append(f"{statistics.median(taken) * 1e3:.1f} (max {max(taken) * 1e3:.0f}), {codes}")
    return rows


def _table(title: str, head: Iterable[str], rows: dict[str, list[str]]) -> None:
    lines = [[title, *head], *([name, *row] for name, row in rows.items())]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print()


def main() -> None:
    """Print the two tables."""
    with tempfile.TemporaryDirectory() as folder:
        scripts = {}
        for number, (name, source) in enumerate(SERVERS.items()):
            scripts[name] = Path(folder, f"server_{number}.py")
            scripts[name].write_text(source, encoding="utf-8")
        os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
        calling = {name: script for name, script in scripts.items() if name != "ours, sys.exit"}
        head = ["p50 ms", "p95 ms", "p50 : ours", "pipelined/s", f"CPU s in {IDLE_S:.0f} s idle"]
        _table("one call", head, _measure_calls(calling))
        head = ["first answer ms", *(f"{stop} ms, exit code" for stop in _STOPS)]
        _table("start and end", head, _measure_ends(scripts))


if __name__ == "__main__":
    main()
