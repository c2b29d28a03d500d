"""What the tests of the server share: settings, clients of both eras, and what every answer owes its reader."""

from __future__ import annotations

import os
import re
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
import pytest
from mcp import types
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.shared.exceptions import MCPError

from mcp_bus import config
from mcp_bus.server.app import build
from mcp_bus.server.words import MAX_ANSWER
from tests.hidden import acting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from mcp.server.lowlevel import Server

    from mcp_bus.bus import Bus
    from mcp_bus.config import Config
    from mcp_bus.model import Task

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 20.0
BLOCK = re.compile(
    r"^--- text of another agent, until ([0-9a-f]{12}) ---\n(.*?)\n--- \1 ---$", re.MULTILINE | re.DOTALL
)
_CLAIMED = re.compile(
    r"^task (?P<task>\w{8}) token (?P<token>[0-9a-f]+) on (\S+), attempt (?P<attempt>\d+) of", re.MULTILINE
)


class Claim(NamedTuple):
    """What a model remembers of an answer of `claim_next`."""

    task: str
    token: str
    attempt: int
    text: str

    @property
    def mine(self) -> dict[str, str]:
        """The arguments with which a worker speaks of it."""
        return {"task": self.task, "token": self.token}


class Desk:
    """A client as a model uses it; every answer is checked for what all answers owe."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def call(self, tool: str, /, **arguments: object) -> str:
        """Call a tool that must do it."""
        answer = await self.client.call_tool(tool, arguments)
        text = checked(answer)
        assert not answer.is_error, text
        return text

    async def refused(self, tool: str, /, **arguments: object) -> str:
        """Call a tool that must refuse, and say what and what next."""
        answer = await self.client.call_tool(tool, arguments)
        text = checked(answer)
        assert answer.is_error, text
        return text

    async def post(self, channel: str = "review", body: object = "look at it", **more: object) -> str:
        """Post a task; return its short id."""
        text = await self.call("post_task", channel=channel, body=body, **more)
        return found(r"posted (?:under that key: )?(\w{8}) on", text)

    async def claim(self, *channels: str, **more: object) -> Claim:
        """Claim a task that must be there."""
        return claim_in(await self.call("claim_next", channels=list(channels), **more))


def checked(answer: types.CallToolResult) -> str:
    """Return an answer's one text: short, ending in what to do next, with nothing in it that acts on a reader."""
    assert answer.structured_content is None
    (content,) = answer.content
    assert isinstance(content, types.TextContent)
    text = content.text
    assert len(text) <= MAX_ANSWER, f"{len(text)} characters: {text[:200]}"
    assert text.rpartition("\n")[2].startswith("next: "), text
    assert not acting(text)
    return text


def claim_in(text: str) -> Claim:
    match = _CLAIMED.search(text)
    assert match is not None, text
    return Claim(match["task"], match["token"], int(match["attempt"]), text)


def found(pattern: str, text: str) -> str:
    """Return the first group of a pattern that must be there."""
    match = re.search(pattern, text, re.MULTILINE)
    assert match is not None, f"no {pattern!r} in {text}"
    return str(match[1])


def settings(place: Path, **flags: Any) -> Config:
    """Return settings for a bus in a folder; nothing from this machine enters them, and nothing waits unasked."""
    flags = {"bus": place / "bus", "agent": "ann", "wait_s": 0.0, "durability": "none", **flags}
    return config.load(flags, env={"HOME": str(place)}, cwd=place)


def open_bus(place: Path, **flags: Any) -> Bus:
    """Open the bus as someone beside the server, in this process."""
    return config.open_from(settings(place, **{"agent": "bob", **flags}), create=True)


@asynccontextmanager
async def desk(place: Path, era: str, **flags: Any) -> AsyncIterator[Desk]:
    """Connect to a server in this process."""
    async with serving(build(settings(place, **flags)), era) as client:
        yield client


@asynccontextmanager
async def serving(server: Server[Any] | StdioServerParameters, era: str) -> AsyncIterator[Desk]:
    """Connect to a server; the whole conversation is bounded."""
    with anyio.fail_after(2 * WAIT_S):
        async with Client(server, mode=era) as client:
            assert (client.protocol_version >= "2026") == (era == "auto")
            yield Desk(client)


def command(place: Path, *, agent: str = "ann", options: tuple[str, ...] = ()) -> list[str]:
    """Return the command that serves the bus of a folder."""
    return [sys.executable, "-m", "mcp_bus", "serve", "--bus", str(place / "bus"), "--agent", agent, *options]


def environment(place: Path, **variables: str) -> dict[str, str]:
    """Return an environment in which only this test's settings count."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MCP_BUS", "XDG_"))}
    quiet = {"MCP_BUS_WAIT_S": "0", "MCP_BUS_DURABILITY": "none", "PYTHONPATH": str(ROOT), "HOME": str(place)}
    return kept | quiet | variables


def process(place: Path, agent: str = "ann", **variables: str) -> StdioServerParameters:
    """Return how a client starts the server as a process of its own."""
    program, *arguments = command(place, agent=agent)
    return StdioServerParameters(command=program, args=arguments, env=environment(place, **variables), cwd=str(place))


async def until(met: Callable[[], object], complaint: str, *, within: float = WAIT_S) -> float:
    """Wait until something is so; return how long it took."""
    start = anyio.current_time()
    while not met():
        assert anyio.current_time() - start < within, complaint
        await anyio.sleep(0.005)
    return anyio.current_time() - start


def tasks(bus: Bus) -> dict[str, Task]:
    """Return every task by its short id: what is on the bus, whatever an answer says."""
    return {task_id[-8:]: bus.get(task_id) for task_id in bus.store.ids()}


def snapshot(place: Path) -> dict[str, bytes]:
    """Return every file of the bus that is not only for people, to see that nothing changed."""
    bus = place / "bus"
    kept = (path for path in bus.rglob("*") if path.is_file() and path.name != "manifest.json")
    return {str(path.relative_to(bus)): path.read_bytes() for path in kept if "journal" not in path.parts}


async def protocol_error(client: Client, uri: str) -> MCPError:
    """Read a resource that must be refused; return the error."""
    with pytest.raises(MCPError) as caught:
        await client.read_resource(uri)
    return caught.value
