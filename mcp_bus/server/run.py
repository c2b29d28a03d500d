"""`mcp-bus serve`: one MCP connection over stdio, until it ends or is told to."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mcp.server.lowlevel import NotificationOptions

from mcp_bus.server.app import build
from mcp_bus.server.stdio import leave, run_stdio

if TYPE_CHECKING:
    from typing import NoReturn

    from mcp_bus.config import Config


def main(config: Config) -> NoReturn:
    """Serve over stdin and stdout, then end the process: code 0 for any stop, with all leases given back."""
    # Before the SDK does it: stderr, one line each.
    logging.basicConfig(level=config["log_level"].upper(), format="mcp-bus: %(levelname)s %(name)s: %(message)s")
    code = run_stdio(
        lambda: build(config), options=lambda server: server.create_initialization_options(NotificationOptions())
    )
    leave(code)
