"""Each client's file parses, is in the table, and starts a server that lists its tools."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters

from mcp_bus.config import SETTINGS
from mcp_bus.server.tools import TOOLS
from tests.docs.executed import links

CONFIGS = Path(__file__).resolve().parents[1] / "client-configs"
FILES = sorted(path for path in CONFIGS.rglob("*") if path.is_file() and path.suffix in (".json", ".toml"))
# Where each kind of client keeps its servers.
PLACES = ("mcpServers", "mcp_servers", "mcp", "servers")
COMMANDS = Path(sys.executable).parent
LIMIT_S = 60


class Start(NamedTuple):
    """How a client starts the server."""

    command: str
    arguments: list[str]
    env: dict[str, str]


def start(path: Path) -> Start:
    """Read a client's file the way the client does."""
    text = path.read_text("utf-8")
    found: dict[str, Any] = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    (place,) = [name for name in PLACES if name in found]
    assert list(found[place]) == ["bus"]
    entry = found[place]["bus"]
    if isinstance(entry["command"], list):
        return Start(entry["command"][0], entry["command"][1:], entry["environment"])
    return Start(entry["command"], entry["args"], entry["env"])


def named(path: Path) -> str:
    return str(path.relative_to(CONFIGS))


def test_the_table_lists_the_files_and_its_links_lead_somewhere() -> None:
    listed = re.findall(r"^\| .*?\]\((\S+)\)", (CONFIGS / "README.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == [named(path) for path in FILES]
    assert list(links(CONFIGS / "README.md")) == []


@pytest.mark.parametrize("path", FILES, ids=named)
def test_a_file_names_its_agent_and_only_known_settings(path: Path) -> None:
    env = start(path).env
    assert env["MCP_BUS_AGENT"]
    assert set(env) <= {setting.env for setting in SETTINGS.values()}


@pytest.mark.parametrize("path", FILES, ids=named)
def test_its_command_starts_a_server_that_lists_the_tools(path: Path, tmp_path: Path) -> None:
    command, arguments, env = start(path)
    found = shutil.which(command, path=str(COMMANDS))
    if found is None:
        pytest.skip(f"{command} is not installed beside this Python")
    # As a client does it: its own few variables and those of the file, nothing else of this machine.
    given = {"HOME": str(tmp_path), "PATH": str(COMMANDS), **env}
    server = StdioServerParameters(command=found, args=arguments, env=given, cwd=str(tmp_path))

    async def run() -> list[str]:
        with anyio.fail_after(LIMIT_S):
            async with Client(server) as client:
                return [tool.name for tool in (await client.list_tools()).tools]

    assert anyio.run(run) == [tool.name for tool in TOOLS]
