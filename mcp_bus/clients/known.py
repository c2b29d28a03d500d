"""The clients: what each is called, where it keeps its servers, and in which words.

`tried` names the version with which an entry of this form was taken by the client itself; where it is empty the form
is from the client's documentation.
"""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from mcp_bus.clients.texts import JSON, TOML, YAML
from mcp_bus.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NAME = "bus"
USER, PROJECT = "user", "project"
# A tool of ours waits for 50 s at most; clients that give up earlier, or as early, are told to wait for so long.
WAIT_S = 120


class Server(NamedTuple):
    """How the server is started: an absolute path, its arguments, and its part of the environment."""

    command: str
    args: tuple[str, ...]
    env: Mapping[str, str]

    def plain(self) -> dict[str, Any]:
        """Return it in the words that most clients use."""
        return {"command": self.command, "args": list(self.args), "env": dict(self.env)}


class Home(NamedTuple):
    """Where a person's settings lie."""

    home: Path
    environment: Mapping[str, str]
    platform: str

    def config(self, *parts: str) -> Path:
        """Return a place below the folder of settings: `~/.config`, or what XDG_CONFIG_HOME says."""
        said = self.environment.get("XDG_CONFIG_HOME", "")
        return (Path(said) if Path(said).is_absolute() else self.home / ".config").joinpath(*parts)

    def application(self, *parts: str) -> Path:
        """Return a place below the folder in which this system's programs with windows keep settings."""
        if self.platform == "darwin":
            return (self.home / "Library" / "Application Support").joinpath(*parts)
        if self.platform == "win32":
            return Path(self.environment.get("APPDATA") or self.home / "AppData" / "Roaming").joinpath(*parts)
        return self.config(*parts)


class Client(NamedTuple):
    """A client.

    Attributes:
        title: what it calls itself.
        user: where the settings of a person lie.
        project: where those of a project lie, from its root; empty if there are none.
        path: which table of the settings has the servers.
        entry: the entry of a server.
        command: its program, if it is one for a terminal; by it the client is found.
        traces: folders of a home that are there if it was ever used.
        form: JSON (comments and trailing commas are read, too), TOML or YAML.
        agent: the name under which it speaks on the bus.
        again: what makes it see a change.
        own: the words of its own command that adds a server to a person's settings, and of the one that removes it.
        link: makes the address that, when it is opened, has the client ask whether to add the entry.
        tried: see above.
    """

    name: str
    title: str
    user: Callable[[Home], Path]
    project: str
    path: tuple[str, ...]
    entry: Callable[[Server], dict[str, Any]]
    command: str = ""
    traces: tuple[str, ...] = ()
    form: str = JSON
    again: str = "start it anew"
    own: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    link: Callable[[dict[str, Any]], str] | None = None
    tried: str = ""

    def at_home(self, home: Home) -> Path:
        """Return the file of a person's settings."""
        return _commented(self.user(home))

    def place(self, home: Home, scope: str, root: Path) -> Path:
        """Return the file of settings for a scope.

        Raises:
            InvalidRequest: it has no settings of that scope.
        """
        if scope == USER:
            return self.at_home(home)
        if not self.project:
            msg = "it keeps no settings in a project"
            raise InvalidRequest(msg, hint="leave --scope project out for it")
        return _commented(root / self.project)


def _commented(path: Path) -> Path:
    """Return the file that is there: opencode reads its settings from one that may have comments, too, and obeys it."""
    other = path.with_suffix(".jsonc")
    return other if path.name == "opencode.json" and other.exists() else path


def _claude_code(server: Server) -> dict[str, Any]:
    # Its search for tools would hide most of ours otherwise.
    return {"type": "stdio", **server.plain(), "alwaysLoad": True}


def _codex(server: Server) -> dict[str, Any]:
    # Without `required` its first turn begins before the server is there, and has no tools of it.
    return {**server.plain(), "required": True, "tool_timeout_sec": WAIT_S}


def _waiting(server: Server) -> dict[str, Any]:
    return {**server.plain(), "timeout": WAIT_S * 1000}


def _qwen(server: Server) -> dict[str, Any]:
    # It hides all tools behind a search otherwise.
    return {**_waiting(server), "alwaysLoadTools": True}


def _opencode(server: Server) -> dict[str, Any]:
    return {
        "type": "local",
        "command": [server.command, *server.args],
        "environment": dict(server.env),
        "enabled": True,
        "timeout": WAIT_S * 1000,
    }


def _copilot(server: Server) -> dict[str, Any]:
    return {"type": "local", **server.plain(), "tools": ["*"], "timeout": WAIT_S * 1000}


def _stdio(server: Server) -> dict[str, Any]:
    return {"type": "stdio", **server.plain()}


def _cline(server: Server) -> dict[str, Any]:
    return {**server.plain(), "timeout": WAIT_S, "disabled": False}


def _goose(server: Server) -> dict[str, Any]:
    return {
        "enabled": True,
        "type": "stdio",
        "name": NAME,
        "cmd": server.command,
        "args": list(server.args),
        "envs": dict(server.env),
        "timeout": 300,
    }


def _cursor_link(entry: dict[str, Any]) -> str:
    config = b64encode(json.dumps(entry, separators=(",", ":")).encode()).decode()
    return f"cursor://anysphere.cursor-deeplink/mcp/install?name={NAME}&config={quote(config, safe='')}"


def _vscode_link(entry: dict[str, Any]) -> str:
    return "vscode:mcp/install?" + quote(json.dumps({"name": NAME, **entry}, separators=(",", ":")), safe="")


def claude_home(home: Home) -> Path:
    """Return the folder in which Claude Code keeps what is a person's."""
    said = home.environment.get("CLAUDE_CONFIG_DIR", "")
    return Path(said) if said else home.home / ".claude"


def _claude_settings(home: Home) -> Path:
    # Beside its folder, or in it if a person says where that is.
    return (claude_home(home) if home.environment.get("CLAUDE_CONFIG_DIR") else home.home) / ".claude.json"


def codex_home(home: Home) -> Path:
    """Return the folder of a person's settings of Codex."""
    said = home.environment.get("CODEX_HOME", "")
    return Path(said) if said else home.home / ".codex"


CLIENTS = {
    client.name: client
    for client in (
        Client(
            "claude-code", "Claude Code", _claude_settings, ".mcp.json", ("mcpServers",),
            _claude_code, "claude", (".claude",), again="begin a new session",
            own=(("mcp", "add-json", "--scope", "user", NAME), ("mcp", "remove", "--scope", "user", NAME)),
        ),
        Client(
            "claude-desktop", "Claude Desktop",
            lambda home: home.application("Claude", "claude_desktop_config.json"), "", ("mcpServers",), Server.plain,
        ),
        Client(
            "codex", "Codex", lambda home: codex_home(home) / "config.toml", ".codex/config.toml", ("mcp_servers",),
            _codex, "codex", (".codex",), TOML, "begin a new session",
        ),
        Client(
            "cursor", "Cursor", lambda home: home.home / ".cursor" / "mcp.json", ".cursor/mcp.json", ("mcpServers",),
            Server.plain, "cursor", (".cursor",), link=_cursor_link,
        ),
        Client(
            "vscode", "VS Code", lambda home: home.application("Code", "User", "mcp.json"), ".vscode/mcp.json",
            ("servers",), _stdio, "code", link=_vscode_link,
        ),
        Client(
            "gemini-cli", "Gemini CLI", lambda home: home.home / ".gemini" / "settings.json", ".gemini/settings.json",
            ("mcpServers",), _waiting, "gemini", (".gemini",), again="begin a new session",
        ),
        Client(
            "qwen", "Qwen Code", lambda home: home.home / ".qwen" / "settings.json", ".qwen/settings.json",
            ("mcpServers",), _qwen, "qwen", (".qwen",), again="begin a new session",
        ),
        Client(
            "opencode", "opencode", lambda home: home.config("opencode", "opencode.json"), "opencode.json", ("mcp",),
            _opencode, "opencode",
        ),
        Client(
            "copilot", "Copilot CLI", lambda home: home.home / ".copilot" / "mcp-config.json", ".github/mcp.json",
            ("mcpServers",), _copilot, "copilot", (".copilot",),
        ),
        Client(
            "windsurf", "Windsurf", lambda home: home.home / ".codeium" / "windsurf" / "mcp_config.json", "",
            ("mcpServers",), Server.plain, "windsurf", (".codeium/windsurf",),
        ),
        Client(
            "zed", "Zed", lambda home: home.config("zed", "settings.json"), "",
            ("context_servers",), Server.plain, "zed",
        ),
        Client(
            "cline", "Cline",
            lambda home: home.application(
                "Code", "User", "globalStorage", "saoudrizwan.claude-dev", "settings", "cline_mcp_settings.json"
            ),
            "", ("mcpServers",), _cline,
        ),
        Client(
            "goose", "Goose", lambda home: home.config("goose", "config.yaml"), "", ("extensions",), _goose, "goose",
            (), YAML,
        ),
        Client(
            "amp", "Amp", lambda home: home.config("amp", "settings.json"), "", ("amp.mcpServers",),
            Server.plain, "amp",
        ),
    )
}  # fmt: skip
