"""Two clients, each with an MCP server of its own, hand each other a task; with the official SDK.

Run it: `python examples/mcp_client.py [BUS_DIRECTORY]`.  Without a directory it makes a temporary bus.

This is what an agent CLI does: it starts `mcp-bus serve` and calls its tools over stdin and stdout.
Answers are texts for a model, so a program that has to go by them reads ids and tokens with a pattern;
a program of your own is better off with the library.
"""

from __future__ import annotations

import re
import sys
import tempfile

import anyio
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.types import TextContent


def server(bus: str, agent: str) -> StdioServerParameters:
    """Return how a client starts the server; the environment says who it is."""
    return StdioServerParameters(
        command=sys.executable,
        args=["-m", "mcp_bus", "serve", "--quiet"],
        env={"MCP_BUS_DIR": bus, "MCP_BUS_AGENT": agent},
    )


async def call(client: Client, tool: str, **arguments: object) -> str:
    """Call a tool; return its text.

    Raises:
        RuntimeError: the tool refused; its text says why, and what next.
    """
    answer = await client.call_tool(tool, arguments)
    text = "\n".join(part.text for part in answer.content if isinstance(part, TextContent))
    if answer.is_error:
        raise RuntimeError(text)
    print(f"{tool}\n    " + text.replace("\n", "\n    "), flush=True)
    return text


def found(pattern: str, text: str) -> tuple[str, ...]:
    """Return the groups of a pattern that an answer must have.

    Raises:
        RuntimeError: it has not.
    """
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise RuntimeError(text)
    return match.groups()


async def main(bus: str) -> None:
    """Post as one agent, work as the other."""
    async with Client(server(bus, "ann")) as ann, Client(server(bus, "bob")) as bob:
        listed = await ann.list_tools()
        print("tools:", ", ".join(tool.name for tool in listed.tools))
        (task,) = found(
            r"^posted (\w+) on", await call(ann, "post_task", channel="review", body="look at src/app.py", title="app")
        )
        claimed = await call(bob, "claim_next", channels=["review"], wait_s=20)
        _, token = found(r"^task (\w+) token (\w+)", claimed)
        await call(bob, "submit_result", task=task, token=token, result="two nits, see line 40")
        await call(ann, "await_results", tasks=[task], wait_s=20)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        anyio.run(main, sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as scratch:
            anyio.run(main, f"{scratch}/bus")
