"""What a start costs: of a server, from spawn to its first answer, and of a verb of the command line."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from benchmarks import table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).resolve().parents[1]
BARE = """
from mcp.server import MCPServer

server = MCPServer("bench", version="1", log_level="WARNING")

@server.tool()
async def echo(text: str) -> str:
    return text

server.run()
"""
# The same as `mcp-bus serve`, for a tree whose command line has no such verb.
SERVE = "from mcp_bus import config; from mcp_bus.server.run import main; main(config.load({'bus': %r}))"


def environment(scratch: Path, **more: str) -> dict[str, str]:
    """Return an environment in which compiled code is kept, and no setting of this machine counts."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MCP_BUS_", "PYTHON"))}
    paths = os.pathsep.join([str(ROOT), *filter(None, [more.pop("PYTHONPATH", "")])])
    compiled = {"PYTHONPYCACHEPREFIX": str(scratch / "compiled"), "PYTHONPATH": paths}
    return kept | compiled | {"HOME": str(scratch)} | more


def serving(bus: Path, env: Mapping[str, str]) -> list[str]:
    """Return the command that serves a bus."""
    verb = [sys.executable, "-m", "mcp_bus", "serve", "--bus", str(bus)]
    there = subprocess.run([*verb, "--help"], env=env, capture_output=True, check=False).returncode == 0
    return verb if there else [sys.executable, "-c", SERVE % str(bus)]


def line(request: int | None, method: str, params: dict[str, Any]) -> bytes:
    """Return one message of the protocol."""
    message = {"jsonrpc": "2.0", "method": method, "params": params} | ({} if request is None else {"id": request})
    return json.dumps(message).encode() + b"\n"


HELLO = line(
    0,
    "initialize",
    {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}},
)
READY = line(None, "notifications/initialized", {})


class Server:
    """A server process and its raw client on plain pipes."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], cwd: Path) -> None:
        """Spawn it and shake hands; `start_ms` is the time from spawn to the initialize answer."""
        begun = time.perf_counter()
        self.popen = subprocess.Popen(
            command,
            env=env,
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        self._in = cast("IO[bytes]", self.popen.stdin)
        self._out = cast("IO[bytes]", self.popen.stdout)
        self._rest = b""
        self.ask(HELLO)
        self.start_ms = (time.perf_counter() - begun) * 1000
        self.send(READY)

    def send(self, data: bytes) -> None:
        """Write, whatever it takes."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._in.fileno(), rest) :]

    def lines(self) -> list[bytes]:
        """Wait for answers; return those that are complete."""
        chunk = os.read(self._out.fileno(), 1 << 16)
        if not chunk:
            msg = f"the server ended: {self.popen.args!r}"
            raise RuntimeError(msg)
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        return whole

    def ask(self, data: bytes) -> bytes:
        """Send one request and wait for its answer; notifications are passed over."""
        self.send(data)
        while True:
            for answer in self.lines():
                if b'"id"' in answer:
                    return answer

    def resident_mb(self) -> float:
        """Return the memory that is its own or shared with nobody else to pay."""
        for entry in Path(f"/proc/{self.popen.pid}/status").read_text(encoding="ascii").splitlines():
            if entry.startswith("VmRSS:"):
                return int(entry.split()[1]) / 1024
        return float("nan")

    def cpu_s(self) -> float:
        """Return how long all its threads have run, to the nanosecond."""
        tasks = Path(f"/proc/{self.popen.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text(encoding="ascii").split()[0]) for task in tasks) / 1e9

    def end(self) -> None:
        """Close its stdin, and wait for the end."""
        self._in.close()
        try:
            self.popen.wait(10)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        self._out.close()


def servers(scratch: Path, *, starts: int, idle_s: float) -> tuple[table.Table, list[table.Goal]]:
    """Start ours and a bare server in turn; then look at both while nothing happens."""
    env = environment(scratch)
    script = scratch / "bare.py"
    script.write_text(BARE, encoding="utf-8")
    commands = {"mcp-bus": serving(scratch / "served", env), "bare MCPServer": [sys.executable, str(script)]}
    times: dict[str, list[float]] = {name: [] for name in commands}
    chance = random.Random(3)
    for turn in range(starts + 1):
        for name in chance.sample(list(commands), len(commands)):
            server = Server(commands[name], env, scratch)
            if turn:  # The first one compiles.
                times[name].append(server.start_ms)
            server.end()
    alive = {name: Server(command, env, scratch) for name, command in commands.items()}
    alive["mcp-bus"].ask(call("claim_next", {"channels": ["work"], "wait_s": 0}))
    alive["bare MCPServer"].ask(call("echo", {"text": "x"}))
    memory = {name: server.resident_mb() for name, server in alive.items()}
    before = {name: server.cpu_s() for name, server in alive.items()}
    threading.Event().wait(idle_s)
    idle = {name: (server.cpu_s() - before[name]) / idle_s * 100 for name, server in alive.items()}
    for server in alive.values():
        server.end()
    bare = "bare MCPServer"
    rows = [
        (
            name,
            table.number(table.median(times[name])),
            table.spread(times[name]),
            table.number(table.ratio(times[name], times[bare])),
            table.number(memory[name]),
            table.number(memory[name] / memory[bare]),
            f"{idle[name]:.3f}",
        )
        for name in commands
    ]
    head = ("", "start ms", "of starts", "of bare", "RSS MB", "of bare", "idle CPU %")
    notes = ("Start: from spawn to the answer to initialize. Memory: after one call. Idle: ours tends its bus.",)
    goals = [
        table.Goal("start of a bare MCPServer's", 1.0, table.ratio(times["mcp-bus"], times[bare])),
        table.Goal("memory of a bare MCPServer's", 1.15, memory["mcp-bus"] / memory[bare]),
        table.Goal("idle CPU", 0.1, idle["mcp-bus"], unit=" %"),
    ]
    return table.Table("A server over stdio", head, rows, notes), goals


def call(tool: str, arguments: dict[str, Any], request: int = 1) -> bytes:
    """Return a tool call."""
    return line(request, "tools/call", {"name": tool, "arguments": arguments})


# Verbs that abq has too, in the order in which they find something to do.
ABQ_VERBS = (
    "init",
    "channel list",
    "send work command hello",
    "recv work",
    "status",
    "ls work",
    "check",
    "gc",
    "version",
)


def verbs(scratch: Path, *, runs: int, abq: Path | None) -> tuple[table.Table, list[table.Goal]]:
    """Run verbs of the command line as whole processes, beside an empty Python and abq's same verbs."""
    env = environment(scratch)
    ours = [sys.executable, "-m", "mcp_bus", "--bus", str(scratch / "verbs")]
    _run([*ours, "init"], env, scratch)
    commands: dict[str, tuple[list[str], dict[str, str]]] = {
        "python -c pass": ([sys.executable, "-c", "pass"], env),
        "mcp-bus status": ([*ours, "status"], env),
        "mcp-bus post": ([*ours, "post", "work", "look at src/app.py"], env),
    }
    for name, program, more in _abqs(abq):
        given = environment(scratch, **more, ABQ_HOME=str(scratch / name))
        _run([*program, "init"], given, scratch)
        _run([*program, "channel", "create", "work"], given, scratch)
        commands |= {f"{name} {words}": ([*program, *words.split()], given) for words in ABQ_VERBS}
    times: dict[str, list[float]] = {name: [] for name in commands}
    codes: dict[str, set[int]] = {name: set() for name in commands}
    chance = random.Random(4)
    for turn in range(runs + 1):
        for name in chance.sample(list(commands), len(commands)):
            command, given = commands[name]
            begun = time.perf_counter()
            code = _run(command, given, scratch)
            codes[name].add(code)
            if turn and not code:
                times[name].append((time.perf_counter() - begun) * 1000)
    empty = times["python -c pass"]
    rows = [
        (
            name,
            table.number(table.median(seen)) if seen else "failed",
            table.spread(seen),
            table.number(table.ratio(seen, empty)),
            "/".join(map(str, sorted(codes[name]))),
        )
        for name, seen in times.items()
    ]
    goals = [
        table.Goal(f"{words}, of abq's own", 1.2, table.ratio(times[f"ours {words}"], times[f"abq {words}"]))
        for words in ABQ_VERBS
        if times.get(f"abq {words}")
    ]
    head = ("whole process", "ms", "of runs", "of python -c pass", "exit code")
    return table.Table("A verb of the command line", head, rows), goals


def _abqs(abq: Path | None) -> list[tuple[str, list[str], dict[str, str]]]:
    """Return abq's program and ours that stands in for it: a name, its words and what its environment has."""
    if abq is None:
        return []
    theirs = ("abq", [sys.executable, "-m", "abq.cli"], {"PYTHONPATH": str(abq)})
    return [theirs, ("ours", [sys.executable, "-m", "mcp_bus", "abq"], {})]


def _run(command: Sequence[str], env: Mapping[str, str], cwd: Path) -> int:
    return subprocess.run(
        command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, check=False
    ).returncode
