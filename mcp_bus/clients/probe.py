"""Starting a server the way a client does, once, to see that it answers."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus.errors import BusError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mcp_bus.clients.known import Server

LIMIT_S = 30.0
_ASKED = (
    {
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "mcp-bus-install", "version": "0"},
        },
    },
    {"method": "notifications/initialized"},
    {"id": 2, "method": "tools/list"},
)


class Answer(NamedTuple):
    """What a server answered: the names of its tools, and after how many seconds."""

    tools: tuple[str, ...]
    took_s: float


class NoAnswer(BusError):
    """A server does not start, or does not answer."""

    code = "no_answer"


def ask(server: Server, environment: Mapping[str, str]) -> Answer:
    """Start a server, and ask which tools it has.  Its bus is one of its own, which goes with it.

    Raises:
        NoAnswer: it did not answer; says what it wrote instead.
    """
    with tempfile.TemporaryDirectory(prefix="mcp-bus-") as folder:
        return _ask(server, {**environment, **server.env, "MCP_BUS_DIR": folder})


def _ask(server: Server, environment: Mapping[str, str]) -> Answer:
    words = "".join(json.dumps({"jsonrpc": "2.0", **item}) + "\n" for item in _ASKED)
    start = time.monotonic()
    try:
        with subprocess.Popen(  # noqa: S603  it is our own program
            [server.command, *server.args],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            try:
                out, err = process.communicate(words.encode(), timeout=LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                msg = f"the server did not answer within {LIMIT_S:g} s"
                raise NoAnswer(msg, hint=f"start it by hand: {server.command} {' '.join(server.args)}") from None
    except OSError as error:
        msg = f"the server cannot be started: {error.strerror}: {server.command!r}"
        raise NoAnswer(msg, hint="install mcp-bus anew") from None
    tools = _tools(out)
    if tools is None:
        said = " ".join(err.decode(errors="replace").split())[-300:] or "nothing"
        msg = f"the server ended with code {process.returncode} and said: {said}"
        raise NoAnswer(msg, hint=f"start it by hand: {server.command} {' '.join(server.args)}")
    return Answer(tools, time.monotonic() - start)


def _tools(out: bytes) -> tuple[str, ...] | None:
    for line in out.splitlines():
        try:
            found = json.loads(line)
            if found.get("id") == 2:
                return tuple(str(tool["name"]) for tool in found["result"]["tools"])
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
    return None
