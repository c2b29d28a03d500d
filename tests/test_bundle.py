"""The bundle for Claude Desktop: what it says of itself is so, and what is in it is enough to start the server."""

from __future__ import annotations

import json
import sys
import tomllib
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import anyio
import pytest
from mcp.client.client import Client as McpClient
from mcp.client.stdio import StdioServerParameters
from packaging.requirements import Requirement

from mcp_bus.server.tools import TOOLS
from mcp_bus.settings import SETTINGS
from tools import bundle

if TYPE_CHECKING:
    from pathlib import Path

LIMIT_S = 60


def filled(value: Any, variables: dict[str, str]) -> Any:
    """Put variables into every text of a value, as a program that installs bundles does."""
    if isinstance(value, dict):
        return {name: filled(item, variables) for name, item in value.items()}
    if isinstance(value, list):
        return [filled(item, variables) for item in value]
    for name, text in variables.items():
        value = value.replace(f"${{{name}}}", text)
    return value


def configured(folder: Path, **settings: str) -> dict[str, Any]:
    """Return how an unpacked bundle is started by somebody who made these settings and left the rest."""
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    config = {name: item.get("default") for name, item in manifest["user_config"].items()} | settings
    variables = {f"user_config.{name}": text for name, text in config.items() if text is not None}
    made: dict[str, Any] = filled(manifest["server"]["mcp_config"], {"__dirname": str(folder)} | variables)
    return made


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """The bundle as it is after it was installed."""
    with ZipFile(bundle.build(tmp_path / "dist")) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "bundle")
    return tmp_path / "bundle"


def test_the_manifest_is_what_the_program_is() -> None:
    assert bundle.MANIFEST.read_text("utf-8") == bundle.text(bundle.manifest()), "make bundle renews it"
    manifest = bundle.manifest()
    assert [tool["name"] for tool in manifest["tools"]] == [tool.name for tool in TOOLS]
    assert set(manifest["server"]["mcp_config"]["env"]) <= {setting.env for setting in SETTINGS.values()}


def test_the_same_tree_makes_the_same_bytes_with_nothing_of_this_machine_in_them(tmp_path: Path) -> None:
    first, second = bundle.build(tmp_path / "a"), bundle.build(tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    with ZipFile(first) as archive:
        names = archive.namelist()
        assert str(bundle.ROOT).encode() not in b"".join(archive.read(name) for name in names)
    assert len(names) == len(set(names))
    assert not [name for name in names if "__pycache__" in name or name.startswith(("/", "tests/", "."))]


def test_every_setting_is_used_and_none_has_to_be_made(unpacked: Path) -> None:
    left = configured(unpacked)
    assert left["env"] == {"MCP_BUS_DIR": "", "MCP_BUS_AGENT": "claude-desktop"}
    made = configured(unpacked, directory="/a bus", agent="ann")
    assert made["env"] == {"MCP_BUS_DIR": "/a bus", "MCP_BUS_AGENT": "ann"}
    assert "${" not in json.dumps([left, made])


def test_it_pins_what_it_needs_to_versions_that_were_tested(unpacked: Path) -> None:
    project = tomllib.loads((unpacked / "pyproject.toml").read_text("utf-8"))
    pinned = {Requirement(text).name: Requirement(text) for text in project["tool"]["uv"]["constraint-dependencies"]}
    for text in project["project"]["dependencies"]:
        needed = Requirement(text)
        (exact,) = pinned[needed.name].specifier
        assert exact.operator == "=="
        assert exact.version in needed.specifier
    lines = (bundle.ROOT / "requirements.txt").read_text("utf-8").splitlines()
    assert len(pinned) == sum(line[0].isalnum() for line in lines)


@pytest.mark.parametrize("settings", [{}, {"directory": "a bus", "agent": "ann"}], ids=["as it is", "set"])
def test_what_is_unpacked_starts_a_server_that_lists_its_tools(unpacked: Path, settings: dict[str, str]) -> None:
    home = unpacked.parent
    if settings:
        settings = settings | {"directory": str(home / settings["directory"])}
    made = configured(unpacked, **settings)
    assert made["command"] == "uv"
    run, flag, folder, script = made["args"]
    assert (run, flag) == ("run", "--directory")
    # This Python has the libraries already; with uv itself it is an end-to-end test.
    server = StdioServerParameters(
        command=sys.executable, args=[script], cwd=folder, env={"HOME": str(home)} | made["env"]
    )

    async def talk() -> tuple[list[str], str]:
        with anyio.fail_after(LIMIT_S):
            async with McpClient(server) as client:
                tools = [tool.name for tool in (await client.list_tools()).tools]
                sent = await client.call_tool("send_message", {"to": "@bob", "body": "hello"})
                return tools, str(sent.content)

    tools, said = anyio.run(talk)
    assert (unpacked / "mcp_bus" / "__pycache__").is_dir(), "it was this copy that ran"
    assert tools == [tool.name for tool in TOOLS]
    assert "queued" in said
    bus = home / "a bus" if settings else home / ".mcp-bus"
    (letter,) = [json.loads(path.read_text()) for path in (bus / "tasks").iterdir()]
    assert letter["from"]["agent"] == settings.get("agent", "claude-desktop")
