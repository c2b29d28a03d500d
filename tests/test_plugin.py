"""What is published beside the program says the same as it: the plugin for Claude Code, the registry's entry.

The bundle for Claude Desktop has `test_bundle.py`.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from mcp_bus.clients import extras
from mcp_bus.clients.known import CLIENTS, NAME, Server
from mcp_bus.server.tools import TOOLS
from mcp_bus.settings import SETTINGS

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "plugin"
TEXTS = sorted(path for folder in ("commands", "skills") for path in (PLUGIN / folder).rglob("*.md"))


def load(name: str) -> Any:
    return json.loads((ROOT / name).read_text("utf-8"))


def test_versions_agree_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    server = load("server.json")
    published = [server["version"], server["packages"][0]["version"], load("mcpb/manifest.json")["version"]]
    assert {load("plugin/.claude-plugin/plugin.json")["version"], *published} == {version}


def test_the_registry_s_entry_is_within_its_limits_and_the_readme_has_its_mark() -> None:
    server = load("server.json")
    assert len(server["description"]) <= 100
    assert f"<!-- mcp-name: {server['name']} -->" in (ROOT / "README.md").read_text("utf-8")
    (package,) = server["packages"]
    known = {setting.env for setting in SETTINGS.values()}
    assert {variable["name"] for variable in package["environmentVariables"]} <= known


def test_the_plugin_starts_the_server_as_install_does() -> None:
    mine = load("plugin/.claude-plugin/plugin.json")["mcpServers"][NAME]
    server = Server("mcp-bus", ("serve",), {"MCP_BUS_AGENT": "claude-code"})
    assert mine == CLIENTS["claude-code"].entry(server)


def test_its_hooks_are_those_of_the_docs_under_the_name_of_its_server() -> None:
    page = (ROOT / "docs" / "waking.md").read_text("utf-8")
    blocks = [block for block in re.findall(r"```json\n(.*?)```", page, re.DOTALL) if "hook claude-code " in block]
    agent = load("plugin/.claude-plugin/plugin.json")["mcpServers"]["bus"]["env"]["MCP_BUS_AGENT"]
    named = blocks[0].replace("mcp-bus hook", f"mcp-bus --agent {agent} hook")
    assert load("plugin/hooks/hooks.json") == {"hooks": json.loads(named)["hooks"]}


def test_its_skill_is_the_one_that_install_copies() -> None:
    (mine,) = (PLUGIN / "skills").rglob("SKILL.md")
    assert mine.read_text("utf-8") == extras.skill()
    assert f"\nname: {mine.parent.name}\n" in extras.skill(), "some clients want the name of the folder"


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_its_texts_name_only_tools_that_there_are(path: Path) -> None:
    text = path.read_text("utf-8")
    head, _, body = text.removeprefix("---\n").partition("\n---\n")
    assert re.search(r"^description: \S", head, re.MULTILINE)
    tools = {tool.name for tool in TOOLS}
    verbs = {tool.partition("_")[0] for tool in tools}
    named = {word for word in re.findall(r"\b[a-z]+_[a-z]+\b", body) if word.partition("_")[0] in verbs}
    assert named
    assert named <= tools


def test_the_market_leads_to_the_plugin_and_its_readme_says_what_it_is() -> None:
    (plugin,) = load(".claude-plugin/marketplace.json")["plugins"]
    assert (ROOT / plugin["source"] / ".claude-plugin" / "plugin.json").is_file()
    assert plugin["name"] == load("plugin/.claude-plugin/plugin.json")["name"]
    assert len((PLUGIN / "README.md").read_text("utf-8").split()) >= 40
