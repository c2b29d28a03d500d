"""serve and demo: the two verbs that load more than the standard library."""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError
from pathlib import Path
from typing import TYPE_CHECKING

from mcp_bus.cli.arguments import Verb
from mcp_bus.errors import InvalidRequest

if TYPE_CHECKING:
    from mcp_bus.cli.arguments import Call, Parser


PORT = 8931
MAX_PORT = 65_535


def declare_serve(parser: Parser) -> None:
    """Declare the options of `serve`."""
    parser.add_argument("--profile", metavar="NAME", help="tools to offer: worker, lead or full")
    parser.add_argument("--read-only", action="store_const", const=True, help="offer no tool that changes the bus")
    parser.add_argument("--pipes", action="store_const", const=True, help="offer a tool for pipes too")
    parser.add_argument(
        "--http",
        nargs="?",
        type=_port,
        const=PORT,
        metavar="PORT",
        help=f"over HTTP on this machine's loopback instead ({PORT}): to /mcp, or as the agent NAME to /mcp/NAME",
    )
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help="where the token is that HTTP needs, made if missing (~/.local/state/mcp-bus/http-token)",
    )


def serve(call: Call) -> int:
    """Speak MCP until the client leaves.  Does not return: stdout was the protocol's."""
    from mcp_bus.server.run import main

    if call.args.http is not None:
        return _http(call)
    if call.args.token_file:
        msg = "--token-file is for --http"
        raise InvalidRequest(msg, hint="stdin and stdout need no token")
    call.out.note(f"bus: {call.place()}")
    if sys.stdin is not None and sys.stdin.isatty():
        call.out.note(
            "this speaks MCP on stdin and stdout, which is for programs: an agent's client starts it.  Ctrl-D ends it;"
            " `mcp-bus help` lists what people type"
        )
    return main(call.config)


def _port(text: str) -> int:
    if text.isdecimal() and int(text) <= MAX_PORT:
        return int(text)
    msg = f"{text[:20]!r} is no port: a number up to {MAX_PORT}, 0 for any that is free"
    raise ArgumentTypeError(msg)


def _http(call: Call) -> int:
    """Serve over HTTP; say where, and what a client needs to come in."""
    from mcp_bus import config
    from mcp_bus.server.run import main_http
    from mcp_bus.server.token import ensure

    if call.config["claude_channel"]:
        msg = "Claude Code's channels need a server of its own, which it starts on stdin and stdout"
        raise InvalidRequest(msg, hint="unset MCP_BUS_CLAUDE_CHANNEL, or leave --http out")
    named = call.args.token_file
    path = Path(named or config.state(config.environment()) / "http-token")
    if named and not path.parent.is_dir():
        msg = f"the token file {named!r} cannot be made: {str(path.parent)!r} is no folder"
        raise InvalidRequest(msg, hint="make that folder, or name another file with --token-file")
    token = ensure(path)

    def ready(address: str) -> None:
        call.out.line(address)
        call.out.note(f"the token is in {path}; clients send it as: Authorization: Bearer TOKEN")
        call.out.note(f"each agent its own address: {address}/NAME; Ctrl-C ends it")
        call.out.flush()

    call.out.note(f"bus: {call.place()}")
    return main_http(call.config, call.args.http, token, ready)


def declare_demo(parser: Parser) -> None:
    """Declare the options of `demo`."""
    parser.add_argument("--keep", action="store_true", help="leave the bus there to look at")


def demo(call: Call) -> int:
    """Show a bus at work."""
    from mcp_bus.demo.script import main

    code: int = main(as_json=call.out.as_json, keep=call.args.keep)
    return code


VERBS = {
    "serve": Verb(declare_serve, serve, "mcp-bus serve --profile worker\nmcp-bus serve --http 8931"),
    "demo": Verb(declare_demo, demo, "mcp-bus demo --keep"),
}
