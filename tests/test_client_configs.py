"""Each client's file is what `install` would write, is in the table, and starts a server that lists its tools."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.client.client import Client as McpClient
from mcp.client.stdio import StdioServerParameters

from mcp_bus.clients import texts
from mcp_bus.clients.known import CLIENTS, NAME, Client
from mcp_bus.server.tools import TOOLS
from mcp_bus.settings import SETTINGS
from tests.docs.executed import links
from tools import client_configs

CONFIGS = client_configs.FOLDER
COMMANDS = Path(sys.executable).parent
LIMIT_S = 60
each = pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)


def start(client: Client) -> tuple[list[str], dict[str, str]]:
    """Read a client's file the way the client does: the words of a command, and its environment."""
    found = texts.read(client_configs.place(client).read_text("utf-8"), client.form)
    entry: Any = texts.entry(found, (*client.path, NAME))
    command = entry.get("command", entry.get("cmd"))
    words = command if isinstance(command, list) else [command, *entry["args"]]
    return words, entry.get("env") or entry.get("environment") or entry.get("envs")


def test_the_table_lists_the_files_and_its_links_lead_somewhere() -> None:
    listed = re.findall(r"^\| .*?\]\((\S+)\)", (CONFIGS / "README.md").read_text("utf-8"), re.MULTILINE)
    files = [path for path in CONFIGS.rglob("*") if path.is_file() and path.name != "README.md"]
    assert sorted(listed) == sorted(str(path.relative_to(CONFIGS)) for path in files)
    assert {client_configs.place(client) for client in CLIENTS.values()} == set(files)
    assert list(links(CONFIGS / "README.md")) == []


@each
def test_a_file_is_what_install_would_write(client: Client) -> None:
    assert client_configs.place(client).read_text("utf-8") == client_configs.text(client), (
        "python -m tools.client_configs writes them anew"
    )


@each
def test_a_file_names_its_agent_and_only_known_settings(client: Client) -> None:
    _, env = start(client)
    assert env["MCP_BUS_AGENT"] == client.name
    assert set(env) <= {setting.env for setting in SETTINGS.values()}


@pytest.mark.parametrize("words", sorted({tuple(start(client)[0]) for client in CLIENTS.values()}), ids=" ".join)
def test_its_command_starts_a_server_that_lists_the_tools(words: tuple[str, ...], tmp_path: Path) -> None:
    command, *arguments = words
    found = shutil.which(command, path=str(COMMANDS))
    if found is None:
        pytest.skip(f"{command} is not installed beside this Python")
    # As a client does it: its own few variables and those of the file, nothing else of this machine.
    given = {"HOME": str(tmp_path), "PATH": str(COMMANDS), "MCP_BUS_AGENT": "tester"}
    server = StdioServerParameters(command=found, args=arguments, env=given, cwd=str(tmp_path))

    async def run() -> list[str]:
        with anyio.fail_after(LIMIT_S):
            async with McpClient(server) as client:
                return [tool.name for tool in (await client.list_tools()).tools]

    assert anyio.run(run) == [tool.name for tool in TOOLS]
