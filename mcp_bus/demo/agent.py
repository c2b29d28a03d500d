"""A stand-in for an agent CLI: a process that starts its own stdio MCP server and calls its tools.

It does what it is told by lines of JSON on stdin, one call at a time, and answers with lines of JSON
on stdout.  Run as `python -m mcp_bus.demo.agent BUS NAME ERA`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.types import Implementation, TextContent


def children(pid: int) -> list[int]:
    """Return the process ids of a process's children."""
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    if listed.exists():
        return [int(word) for word in listed.read_text(encoding="ascii").split()]
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)  # noqa: S603, S607  our own pid
    return [int(word) for word in found.stdout.split()]


def _say(**fields: Any) -> None:  # noqa: ANN401  JSON
    print(json.dumps(fields), flush=True)


async def serve(bus: str, name: str, era: str) -> None:
    """Connect to a server of its own and do what stdin says until it ends."""
    import os  # noqa: PLC0415  its own id only

    params = StdioServerParameters(
        command=sys.executable, args=["-m", "mcp_bus", "serve", "--bus", bus, "--agent", name, "--quiet"]
    )
    info = Implementation(name=name, version="1")
    mode: Any = "legacy" if era == "legacy" else "auto"
    async with Client(params, client_info=info, mode=mode) as client:
        listed = (await client.list_tools()).tools
        seen = [{"name": t.name, "description": t.description, "input_schema": t.input_schema} for t in listed]
        _say(
            pid=os.getpid(),
            server=children(os.getpid()),
            protocol=client.protocol_version,
            tools=[tool.name for tool in listed],
            bytes=len(json.dumps(seen, separators=(",", ":"), ensure_ascii=False).encode()),
        )
        stdin = anyio.wrap_file(sys.stdin)
        async for line in stdin:
            asked = json.loads(line)
            answer = await client.call_tool(asked["tool"], asked["args"])
            text = "".join(part.text for part in answer.content if isinstance(part, TextContent))
            _say(text=text, failed=bool(answer.is_error))


if __name__ == "__main__":
    anyio.run(serve, sys.argv[1], sys.argv[2], sys.argv[3])
