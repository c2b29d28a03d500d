"""The agent CLIs: which version, how they are had, and how each is told of the bus, the model and the hooks."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from e2e import npm

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[1]
RUN_S = 120
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


def _claude(place: Place) -> tuple[list[str], dict[str, str]]:
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
    words = ["-p", PROMPT, "--mcp-config", str(config), "--strict-mcp-config"]
    words += [] if place.is_asking else ["--allowedTools", "mcp__bus"]
    env = {
        "ANTHROPIC_BASE_URL": place.model,
        "ANTHROPIC_API_KEY": "none",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "ENABLE_TOOL_SEARCH": "false",
    }
    return [*words, "--settings", str(settings), "--output-format", "json"], env


def _codex(place: Place) -> tuple[list[str], dict[str, str]]:
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
        words.append("--dangerously-bypass-hook-trust")  # A person would trust them once, in the program.
    return [*words, PROMPT], {"SCRIPTED_KEY": "none", "CODEX_HOME": str(place.home / ".codex")}


def _gemini(place: Place) -> tuple[list[str], dict[str, str]]:
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
    mode = "default" if place.is_asking else "yolo"
    return ["-p", PROMPT, "--approval-mode", mode, "-o", "json", "-m", "gemini-2.5-pro"], env


def _opencode(place: Place) -> tuple[list[str], dict[str, str]]:
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


def plugin() -> str:
    """Return the plugin for opencode as the page shows it, which starts this very program."""
    (code,) = re.findall(r"```text\n(// .*?mcp-bus\.js\n.*?)```", _page(), re.DOTALL)
    mine = json.dumps([sys.executable, "-m", "mcp_bus"])[1:-1]
    made: str = code.replace('"mcp-bus"', mine)
    assert made != code
    return made


class Client(NamedTuple):
    """An agent CLI.

    Attributes:
        name: also the word that `mcp-bus hook` knows it by.
        eras: the revisions of the protocol that it can speak, and the environment that makes it; first its own choice.
        most: the bytes that the tools of the bus may take in its requests: ours, and what it adds.
    """

    name: str
    package: str
    version: str
    command: str
    setup: Callable[[Place], tuple[list[str], dict[str, str]]]
    eras: Mapping[str, Mapping[str, str]]
    most: int

    def __str__(self) -> str:
        """Return it as people would name it."""
        return f"{self.name} {self.version}"


MODERN, OLD = "2026-07-28", {"MCP_PROTOCOL_NEGOTIATION": "legacy"}
CLIENTS = (
    Client(
        "claude-code", "@anthropic-ai/claude-code", "2.1.331", "claude", _claude, {MODERN: {}, "2025-11-25": OLD}, 5750
    ),
    Client("codex", "@openai/codex", "0.169.0", "codex", _codex, {"2025-06-18": {}}, 6600),
    Client("gemini-cli", "@google/gemini-cli", "0.61.0", "gemini", _gemini, {"2025-06-18": {}}, 9000),
    Client("opencode", "opencode-ai", "1.18.33", "opencode", _opencode, {"2025-11-25": {}}, 6050),
)


def install(client: Client) -> Path:
    """Return the client's command, from the cache or from npm.

    Raises:
        MissingProgram: it cannot be had here, or is another version than it says.
    """
    command = npm.fetch(client.name, client.package, client.version, client.command)
    done = _run([str(command), "--version"], npm.cache(), plain(npm.cache()), RUN_S)
    if client.version not in done.stdout:
        msg = f"{client.command} --version says {done.stdout.strip()[:80]!r} {done.stderr.strip()[:200]!r}"
        raise npm.MissingProgram(msg)
    return command


def plain(home: Path) -> dict[str, str]:
    """Return an environment in which nobody's settings and credentials count."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return kept | {"HOME": str(home), "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "CI": "1"}


def run(
    client: Client, command: Path, place: Place, more: Sequence[str] = (), told: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a client once, without a terminal, until it is done.

    Args:
        more: options of its own.
        told: more of its environment.
    """
    words, env = client.setup(place)
    # Hooks inherit the bus; the server is told of it in the client's settings, as users do.
    env = plain(place.home) | env | {"MCP_BUS_DIR": str(place.bus)} | dict(told or {})
    return _run([str(command), *words, *more], place.project, env, RUN_S)


def work(client: Client, command: Path, place: Place) -> subprocess.CompletedProcess[str]:
    """Let a worker give one task of the channel `work` to a client, by the preset of its name, and end."""
    words, env = client.setup(place)
    # The preset has these already: the prompt, and the format of the output.
    said = {PROMPT, "-p", "-o", "--output-format", "json", "exec", "--skip-git-repo-check", "--json", "run", "--format"}
    env = plain(place.home) | env | {"MCP_BUS_DIR": str(place.bus)}
    env["PATH"] = os.pathsep.join([str(command.parent), env["PATH"]])
    options = ["--preset", client.command, "--tasks", "1"]
    told = [sys.executable, "-m", "mcp_bus", "--agent", "worker", "worker", "run", "work", *options]
    more = [word for word in words if word not in said]
    return _run([*told, *(["--", *more] if more else [])], place.project, env, RUN_S)


def example(client: Client, command: Path, place: Place, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a program of `examples/`, by its path and options, in the project; the client and mcp-bus are on PATH."""
    _, env = client.setup(place)
    env = plain(place.home) | env | {"MCP_BUS_DIR": str(place.bus)}
    env["PATH"] = os.pathsep.join([str(command.parent), str(Path(sys.executable).parent), env["PATH"]])
    return _run([str(ROOT / "examples" / words[0]), *words[1:]], place.project, env, RUN_S)


def talk(command: Path, place: Place, messages: Sequence[str], more: Sequence[str] = ()) -> list[str]:
    """Say several things to one Claude Code, each when the one before is answered; return what it printed, by lines."""
    words, env = _claude(place)
    words = [word for word in words[: words.index("--output-format")] if word != PROMPT]
    words += ["--input-format", "stream-json", "--output-format", "stream-json", "--verbose", *more]
    env = plain(place.home) | env | {"MCP_BUS_DIR": str(place.bus)}
    lines: list[str] = []
    with subprocess.Popen(
        [str(command), *words], cwd=place.project, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        late = threading.Timer(RUN_S, _kill, [process])
        late.start()
        try:
            for message in messages:
                lines += _said(process, message)
            process.communicate(timeout=RUN_S)
        finally:
            late.cancel()
            _kill(process)
    return lines


def _said(process: subprocess.Popen[str], message: str) -> list[str]:
    """Say something, and return what is printed until it was answered."""
    assert process.stdin
    assert process.stdout
    said = {"type": "user", "message": {"role": "user", "content": message}}
    print(json.dumps(said), file=process.stdin, flush=True)
    lines = list[str]()
    while line := process.stdout.readline():
        lines.append(line)
        if json.loads(line).get("type") == "result":
            break
    return lines


def _run(words: list[str], cwd: Path, env: dict[str, str], limit_s: float) -> subprocess.CompletedProcess[str]:
    """Run a program in a process group of its own; what it left running, or all of it when it is late, is killed."""
    with subprocess.Popen(
        words, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        errors="replace", start_new_session=True,
    ) as process:  # fmt: skip
        try:
            out, err = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            _kill(process)
            out, err = process.communicate(timeout=30)
            err += f"\n{words[0]} did not end within {limit_s} s"
        finally:
            _kill(process)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def _kill(process: subprocess.Popen[str]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
