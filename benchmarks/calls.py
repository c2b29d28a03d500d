"""Calls to the server over stdio: one at a time, many in flight, and a thousand that wait."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from benchmarks import table
from benchmarks.startup import BARE, Server, call, environment, serving

if TYPE_CHECKING:
    from pathlib import Path

# Enough in flight to keep a server busy, too few to fill a pipe.
IN_FLIGHT = 50
WAITING = 1000
EMPTY = {"channels": ["empty"], "wait_s": 0}


def measure(scratch: Path, *, calls: int, rounds: int) -> tuple[table.Table, list[table.Goal]]:
    """Call `claim_next` where nothing waits, beside a bare server's echo, round by round."""
    env = environment(scratch)
    script = scratch / "echo.py"
    script.write_text(BARE, encoding="utf-8")
    servers: dict[str, tuple[Server, str, dict[str, Any]]] = {
        "claim_next, empty channel": (Server(serving(scratch / "called", env), env, scratch), "claim_next", EMPTY),
        "bare MCPServer, echo": (Server([sys.executable, str(script)], env, scratch), "echo", {"text": "x" * 300}),
    }
    ours = servers["claim_next, empty channel"][0]
    ours.ask(call("post_task", {"channel": "empty", "body": "x", "key": "made"}))
    ours.ask(call("claim_next", EMPTY))  # Held from here on, so that the channel is there and empty.
    times: dict[str, list[float]] = {name: [] for name in servers}
    rates: dict[str, list[float]] = {name: [] for name in servers}
    for turn in range(rounds + 1):
        for name, (server, tool, arguments) in servers.items():
            line = call(tool, arguments)
            took = [_timed(server, line) for _ in range(calls)]
            rate = _burst(server, line, calls * 5)
            if turn:
                times[name] += took
                rates[name].append(rate)
    grown, answered = _waiting(ours)
    for server, _, _ in servers.values():
        server.end()
    rows = [
        (
            name,
            f"{table.median(times[name]):.3f}",
            f"{table.p95(times[name]):.3f}",
            table.number(table.median(rates[name])),
            table.spread(rates[name]),
        )
        for name in servers
    ]
    own = "claim_next, empty channel"
    head = ("one call", "p50 ms", "p95 ms", f"calls/s, {IN_FLIGHT} in flight", "of rounds")
    notes = (f"{WAITING:,} claim_next that wait take {grown:.1f} MB more; {answered:,} were answered in the end.",)
    goals = [
        table.Goal("claim_next, empty channel, p50", 0.5, table.median(times[own]), unit=" ms"),
        table.Goal("calls/s, many in flight", 5000, table.median(rates[own]), at_least=True),
        table.Goal(f"{WAITING:,} waiting calls", 20, grown, unit=" MB"),
    ]
    return table.Table("A call over stdio", head, rows, notes), goals


def _timed(server: Server, line: bytes) -> float:
    begun = time.perf_counter()
    server.ask(line)
    return (time.perf_counter() - begun) * 1000


def _burst(server: Server, line: bytes, calls: int) -> float:
    begun = time.perf_counter()
    sent = answered = 0
    while answered < calls:
        for _ in range(min(calls - sent, IN_FLIGHT - (sent - answered))):
            server.send(line)
            sent += 1
        answered += sum(b'"id"' in each for each in server.lines())
    return calls / (time.perf_counter() - begun)


def _waiting(server: Server) -> tuple[float, int]:
    """Let a thousand calls wait; return how much memory that took, and how many were answered."""
    before, peak = server.resident_mb(), 0.0
    for request in range(WAITING):
        server.send(call("claim_next", {"channels": ["empty"], "wait_s": 3}, 1000 + request))
    waited: set[int] = set()
    end = time.monotonic() + 30
    while len(waited) < WAITING and time.monotonic() < end:
        # They all wait before the first one is answered.
        peak = peak or _when_all_wait(server)
        for each in server.lines():
            number = json.loads(each).get("id")
            if isinstance(number, int) and number >= 1000:
                waited.add(number)
    return peak - before, len(waited)


def _when_all_wait(server: Server) -> float:
    # An answer to a call sent after all of them says that they were all taken in.
    server.ask(call("claim_next", EMPTY))
    return server.resident_mb()
