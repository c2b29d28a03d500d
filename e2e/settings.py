"""How each agent CLI is told of the bus, the model and the hooks: settings in its home, options, environment."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

ROOT = Path(__file__).resolve().parents[1]
PROMPT = "Do what the script says."


class Place(NamedTuple):
    """Where one run of a client happens, and what it is told.

    Attributes:
        project: the folder the client works in.
        home: its home, empty before.
        bus: the bus directory.
        model: the address of the scripted model.
        agent: a name for the server alone; empty for none.
        hooks: the events of the client for which hooks are set.
        record: where what the client and the server say is kept; None for nowhere.
        is_asking: whether the client is left to ask a person, who is not there, before it calls a tool.
        limit_s: after how many seconds it is to give up a call; 0 for its own limit.
        is_shown: whether it is told to show all tools of the bus at once.
        install: options of `mcp-bus install`, which then puts in the server, and what they say.
    """

    project: Path
    home: Path
    bus: Path
    model: str
    agent: str = ""
    hooks: Collection[str] = ()
    record: Path | None = None
    is_asking: bool = False
    limit_s: int = 0
    is_shown: bool = False
    install: Sequence[str] = ()

    @property
    def serve(self) -> list[str]:
        """The command that starts the server."""
        recorder = [sys.executable, str(ROOT / "e2e" / "record.py"), str(self.record)] if self.record else []
        return [*recorder, sys.executable, "-m", "mcp_bus", "serve"]

    def server(self) -> dict[str, str]:
        """Return the environment of the server."""
        # Not every client lets its servers inherit where this program is.
        told = {"MCP_BUS_DIR": str(self.bus), "PYTHONPATH": str(ROOT)}
        return told | ({"MCP_BUS_AGENT": self.agent} if self.agent else {})

    def write(self, name: str, text: str) -> Path:
        """Write a file below the home."""
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        return path


def _page() -> str:
    return (ROOT / "docs" / "waking.md").read_text("utf-8")


def _hooks(client: str, events: Collection[str]) -> dict[str, Any]:
    """Return a client's settings of hooks as the page shows them, for these events, which start this very program."""
    blocks = re.findall(r"```json\n(.*?)```", _page(), re.DOTALL)
    (shown,) = [block for block in blocks if f"mcp-bus hook {client} " in block]
    mine = json.loads(shown.replace("mcp-bus hook", f"{shlex.join([sys.executable, '-m', 'mcp_bus'])} hook"))
    return {"hooks": {event: mine["hooks"][event] for event in events}}


def claude(place: Place) -> tuple[list[str], dict[str, str]]:
    """Return the options and the environment of Claude Code."""
    server: dict[str, Any] = {
        "type": "stdio",
        "command": place.serve[0],
        "args": place.serve[1:],
        "env": place.server(),
    }
    server |= {"timeout": place.limit_s * 1000} if place.limit_s else {}
    server |= {"alwaysLoad": True} if place.is_shown else {}
    config = place.write("mcp.json", json.dumps({"mcpServers": {"bus": server}}))
    settings = place.write("settings.json", json.dumps(_hooks("claude-code", place.hooks)))
    words = ["-p", PROMPT]
    words += [] if place.install else ["--mcp-config", str(config), "--strict-mcp-config"]
    words += [] if place.is_asking else ["--allowedTools", "mcp__bus"]
    env = {
        "ANTHROPIC_BASE_URL": place.model,
        "ANTHROPIC_API_KEY": "none",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "ENABLE_TOOL_SEARCH": "false",
    }
    return [*words, "--settings", str(settings), "--output-format", "json"], env


def codex(place: Place) -> tuple[list[str], dict[str, str]]:
    """Return the options and the environment of Codex."""
    env = ", ".join(f"{name} = {json.dumps(value)}" for name, value in place.server().items())
    more = "" if place.is_asking else 'default_tools_approval_mode = "approve"\n'
    more += f"tool_timeout_sec = {place.limit_s}\n" if place.limit_s else ""
    place.write(
        ".codex/config.toml",
        f"""\
model = "gpt-5"
model_provider = "scripted"
[model_providers.scripted]
name = "scripted"
base_url = "{place.model}/v1"
wire_api = "responses"
env_key = "SCRIPTED_KEY"
[mcp_servers.bus]
command = {json.dumps(place.serve[0])}
args = {json.dumps(place.serve[1:])}
env = {{ {env} }}
required = true
{more}""",
    )
    words = ["exec", "--skip-git-repo-check", "--json"]
    if place.hooks:
        place.write(".codex/hooks.json", json.dumps(_hooks("codex", place.hooks)))
    if place.hooks or place.install:
        words.append("--dangerously-bypass-hook-trust")  # A person would trust them once, in the program.
    return [*words, PROMPT], {"SCRIPTED_KEY": "none", "CODEX_HOME": str(place.home / ".codex")}


def gemini(place: Place) -> tuple[list[str], dict[str, str]]:
    """Return the options and the environment of Gemini CLI."""
    server = {"command": place.serve[0], "args": place.serve[1:], "env": place.server(), "trust": not place.is_asking}
    server |= {"timeout": place.limit_s * 1000} if place.limit_s else {}
    settings = {
        "security": {"auth": {"selectedType": "gemini-api-key"}, "folderTrust": {"enabled": False}},
        "general": {"disableAutoUpdate": True},
        "privacy": {"usageStatisticsEnabled": False},
        "mcpServers": {"bus": server},
    }
    place.write(".gemini/settings.json", json.dumps(settings | _hooks("gemini-cli", place.hooks)))
    env = {"GEMINI_API_KEY": "none", "GOOGLE_GEMINI_BASE_URL": place.model, "GEMINI_CLI_NO_RELAUNCH": "true"}
    return ["-p", PROMPT, "--approval-mode", "default", "-o", "json", "-m", "gemini-2.5-pro"], env


def opencode(place: Place) -> tuple[list[str], dict[str, str]]:
    """Return the options and the environment of opencode."""
    options = {"baseURL": f"{place.model}/v1", "apiKey": "none"}
    provider = {"npm": "@ai-sdk/openai-compatible", "name": "scripted", "options": options, "models": {"scripted": {}}}
    server = {"type": "local", "command": place.serve, "environment": place.server(), "enabled": True}
    server |= {"timeout": place.limit_s * 1000} if place.limit_s else {}
    config = {
        "model": "scripted/scripted",
        "autoupdate": False,
        "provider": {"scripted": provider},
        "mcp": {"bus": server},
    }
    config |= {} if place.is_asking else {"permission": {"*": "allow"}}
    place.write(".config/opencode/opencode.json", json.dumps(config))
    if place.hooks:
        place.write(".config/opencode/plugins/mcp-bus.js", plugin())
    return ["run", "--format", "json", PROMPT], {
        "OPENCODE_DISABLE_MODELS_FETCH": "1",
        "OPENCODE_DISABLE_AUTOUPDATE": "1",
    }


def copilot(place: Place) -> tuple[list[str], dict[str, str]]:
    """Return the options and the environment of Copilot CLI."""
    server: dict[str, Any] = {
        "type": "local",
        "command": place.serve[0],
        "args": place.serve[1:],
        "env": place.server(),
        "tools": ["*"],
    }
    server |= {"timeout": place.limit_s * 1000} if place.limit_s else {}
    place.write(".copilot/mcp-config.json", json.dumps({"mcpServers": {"bus": server}}))
    words = ["-p", PROMPT, *([] if place.is_asking else ["--allow-all-tools"])]
    env = {"COPILOT_OFFLINE": "true", "COPILOT_PROVIDER_BASE_URL": f"{place.model}/v1", "COPILOT_MODEL": "scripted"}
    return words, env | {"COPILOT_AUTO_UPDATE": "false"}


def qwen(place: Place) -> tuple[list[str], dict[str, str]]:
    """Return the options and the environment of Qwen Code."""
    server: dict[str, Any] = {
        "command": place.serve[0],
        "args": place.serve[1:],
        "env": place.server(),
        "trust": not place.is_asking,
    }
    server |= {"timeout": place.limit_s * 1000} if place.limit_s else {}
    server |= {"alwaysLoadTools": True} if place.is_shown else {}
    settings = {
        "security": {"auth": {"selectedType": "openai"}, "folderTrust": {"enabled": False}},
        "general": {"disableAutoUpdate": True},
        "privacy": {"usageStatisticsEnabled": False},
        "mcpServers": {"bus": server},
    }
    place.write(".qwen/settings.json", json.dumps(settings))
    words = ["-p", PROMPT, "--approval-mode", "default"]
    return words, {"OPENAI_BASE_URL": f"{place.model}/v1", "OPENAI_API_KEY": "none", "OPENAI_MODEL": "scripted"}


def plugin() -> str:
    """Return the plugin for opencode as the page shows it, which starts this very program."""
    (code,) = re.findall(r"```text\n(// .*?mcp-bus\.js\n.*?)```", _page(), re.DOTALL)
    mine = json.dumps([sys.executable, "-m", "mcp_bus"])[1:-1]
    made: str = code.replace('"mcp-bus"', mine)
    assert made != code
    return made
