"""pipe: bytes streamed between two agents that are there at the same time."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from mcp_bus.cli.arguments import Verb, seconds
from mcp_bus.cli.codes import OK
from mcp_bus.cli.output import clean
from mcp_bus.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mcp_bus.cli.arguments import Call, Parser

ACTIONS = ("open", "write", "read", "list", "rm")


def declare(parser: Parser) -> None:
    """Declare the options of `pipe`."""
    parser.add_argument("action", metavar="ACTION|NAME", help=f"{', '.join(ACTIONS)}; or a name alone")
    parser.add_argument("name", nargs="?", default="", metavar="NAME", help="the pipe; made if it is new")
    parser.add_argument("--timeout", type=seconds, default=30.0, metavar="TIME", help="wait for the other end (30)")
    parser.add_argument("--idle", type=seconds, default=300.0, metavar="TIME", help="wait for more, or for room (5m)")


def pipe(call: Call) -> int:
    """Open, write or read a pipe; a name alone writes what stdin brings, or reads if that is a terminal."""
    from mcp_bus.pipes import Pipes

    args = call.args
    action, name = args.action, args.name
    if action not in ACTIONS and not name:
        is_reader = sys.stdin is None or sys.stdin.isatty()
        action, name = "read" if is_reader else "write", action
    if action not in ACTIONS or (action == "list") == bool(name):
        msg = f"pipe {action[:40]} takes {'no name' if action == 'list' else 'a name'}"
        raise InvalidRequest(msg, hint=f"mcp-bus pipe {'|'.join(ACTIONS)} NAME")
    with call.bus(create=True) as bus:
        pipes = Pipes(call.config.path, bus.source)
    if action == "list":
        found = pipes.names()
        if call.out.as_json:
            call.out.json({"pipes": found})
            return OK
        for item in found:
            call.out.line(clean(item))
    elif action == "rm":
        pipes.remove(name)
    elif action == "open":
        is_new = pipes.make(name)
        call.out.line(clean(str(call.config.path / "pipes" / name)))
        call.out.note("made a pipe" if is_new else "there was that pipe already")
    elif action == "read":
        for data in pipes.read(name, open_s=args.timeout, idle_s=args.idle):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
    else:
        done = pipes.write(name, _stdin(), open_s=args.timeout, idle_s=args.idle)
        call.out.note(f"{done} bytes were handed over")
    return OK


def _stdin() -> Iterator[bytes]:
    while data := os.read(sys.stdin.fileno(), 64 * 1024):
        yield data


VERBS = {
    "pipe": Verb(
        declare,
        pipe,
        "mcp-bus pipe read build-log --timeout 2m | grep error\nmake 2>&1 | mcp-bus pipe write build-log",
    )
}
