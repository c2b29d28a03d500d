"""`python -m mcp_bus` is `mcp-bus`."""

from mcp_bus.cli.main import run

run()
