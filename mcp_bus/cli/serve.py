"""serve and demo: the two verbs that load more than the standard library."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from mcp_bus.cli.arguments import Verb

if TYPE_CHECKING:
    from mcp_bus.cli.arguments import Call, Parser


def declare_serve(parser: Parser) -> None:
    """Declare the options of `serve`."""
    parser.add_argument("--profile", metavar="NAME", help="tools to offer: worker, lead or full")
    parser.add_argument("--read-only", action="store_const", const=True, help="offer no tool that changes the bus")
    parser.add_argument("--pipes", action="store_const", const=True, help="offer a tool for pipes too")


def serve(call: Call) -> int:
    """Speak MCP until the client leaves.  Does not return: stdout was the protocol's."""
    from mcp_bus.server.run import main

    call.out.note(f"bus: {call.place()}")
    if sys.stdin is not None and sys.stdin.isatty():
        call.out.note(
            "this speaks MCP on stdin and stdout, which is for programs: an agent's client starts it.  Ctrl-D ends it;"
            " `mcp-bus help` lists what people type"
        )
    return main(call.config)


def declare_demo(parser: Parser) -> None:
    """Declare the options of `demo`."""
    parser.add_argument("--keep", action="store_true", help="leave the bus there to look at")


def demo(call: Call) -> int:
    """Show a bus at work."""
    from mcp_bus.demo.script import main

    code: int = main(as_json=call.out.as_json, keep=call.args.keep)
    return code


VERBS = {
    "serve": Verb(declare_serve, serve, "mcp-bus serve --profile worker"),
    "demo": Verb(declare_demo, demo, "mcp-bus demo --keep"),
}
