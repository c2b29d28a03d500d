"""What more a client can be given than a server: hooks, a block of instructions, a skill; and in which files."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from mcp_bus.clients import blocks, hooking
from mcp_bus.clients.files import MAX_INSTRUCTIONS, NoFile, contents
from mcp_bus.clients.known import CLIENTS, USER, claude_home, codex_home
from mcp_bus.clients.parts import AGENTS_MD, HOOKS, SKILL, Whole, given

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mcp_bus.clients.known import Client, Home, Server
    from mcp_bus.clients.parts import Part

KINDS = (HOOKS, AGENTS_MD, SKILL)
COMMON = "AGENTS.md"
_IMPORT = re.compile(r"(?<![\w`/])@(?:\.{1,2}/)*AGENTS\.md(?![\w/.]*\w)")

_CODE = re.compile(r"(`+)[^`]+\1(?!`)")


class Places(NamedTuple):
    """Where a client keeps something: a person's file, and that of a project, from its root."""

    user: Callable[[Home], Path]
    project: str


_HOOKS = {
    "claude-code": Places(lambda home: claude_home(home) / "settings.json", ".claude/settings.json"),
    "codex": Places(lambda home: codex_home(home) / "hooks.json", ".codex/hooks.json"),
    "gemini-cli": Places(CLIENTS["gemini-cli"].user, CLIENTS["gemini-cli"].project),
    "cursor": Places(lambda home: home.home / ".cursor" / "hooks.json", ".cursor/hooks.json"),
    "opencode": Places(lambda home: home.config("opencode", "plugins", "mcp-bus.js"), ".opencode/plugins/mcp-bus.js"),
}
_FILE = "skills/mcp-bus/SKILL.md"
_SKILLS = {
    "claude-code": Places(lambda home: claude_home(home) / _FILE, f".claude/{_FILE}"),
    "codex": Places(lambda home: codex_home(home) / _FILE, f".codex/{_FILE}"),
    "gemini-cli": Places(lambda home: home.home / ".gemini" / _FILE, f".gemini/{_FILE}"),
    "cursor": Places(lambda home: home.home / ".cursor" / _FILE, f".cursor/{_FILE}"),
    "opencode": Places(lambda home: home.config("opencode") / _FILE, f".opencode/{_FILE}"),
}
# What a client reads in a project; those that are not named here read AGENTS.md, or nothing.
_OWN = {"claude-code": ("CLAUDE.md", ".claude/CLAUDE.md"), "gemini-cli": ("GEMINI.md",), "qwen": ("QWEN.md",)}
_DEAF = frozenset({"claude-desktop"})


def skill() -> str:
    """Return the skill."""
    return given("skill.md")


def places(client: Client, kind: str, home: Home, scope: str, root: Path) -> list[Path]:
    """Return the files in which a client's hooks, block or skill may be, first the one for a new one; empty for none.

    Args:
        root: the folder one is in; for a block, the top of the project.
    """
    if kind == AGENTS_MD:
        return _instructions(client, root)
    found = (_HOOKS if kind == HOOKS else _SKILLS).get(client.name)
    return [] if found is None else [found.user(home) if scope == USER else root / found.project]


def part(client: Client, kind: str, server: Server) -> Part:
    """Return what goes there, for a server as the client starts it."""
    if kind == HOOKS:
        return hooking.part(client.name, hooking.words_of(server))
    return blocks.Block(blocks.text()) if kind == AGENTS_MD else Whole(SKILL, skill())


def _instructions(client: Client, top: Path) -> list[Path]:
    common, own = top / COMMON, [top / name for name in _OWN.get(client.name, ())]
    if not own:
        return [] if client.name in _DEAF else [common]
    known = next((path for path in own if path.exists()), None)
    # Claude Code reads AGENTS.md as long as it has no file of its own: to make one would hide the other from it.
    takes_common = client.name == "claude-code" if known is None else _imports(_said(known))
    first = common if takes_common else known or own[0]
    return [first, *(path for path in (*own, common) if path != first)]


def _imports(text: str) -> bool:
    """Tell whether instructions import the common ones; what is said in code does not."""
    return any(_IMPORT.search(_CODE.sub("``", line)) for _, line in blocks.prose(text))


def _said(path: Path) -> str:
    with suppress(OSError, NoFile):
        return contents(path, MAX_INSTRUCTIONS).decode(errors="replace")
    return ""
