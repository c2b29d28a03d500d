"""One session of an agent: its name from launch configuration or git, and a generation of its own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mcp_bus import names
from mcp_bus.errors import InvalidRequest
from mcp_bus.identity import git
from mcp_bus.model import Identity

if TYPE_CHECKING:
    from pathlib import Path

AGENT = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{1,160}\Z")
SESSION = re.compile(r"[0-9a-z]{1,16}\Z")


def context(cwd: Path) -> str:
    """Return the name git gives an agent: `host/owner/repo/branch`, as abq has it.

    Linked worktrees are told apart (`…/worktrees/branch`); without a remote it is
    `local/<directory>/<branch>`, outside git `local/<directory>`.
    """
    checkout = git.find(cwd)
    if checkout is None:
        return f"local/{cwd.name or 'root'}"
    base = checkout.remote or f"local/{checkout.home.name}"
    return f"{base}/worktrees/{checkout.branch}" if checkout.is_worktree else f"{base}/{checkout.branch}"


def check_agent(agent: str, *, is_program: bool) -> None:
    """Refuse what no agent may be called; a program may not speak as the human.

    Raises:
        InvalidRequest: the name has control characters, is too long, or is reserved.
    """
    if not AGENT.match(agent):
        msg = f"{agent[:80]!r} is not a name for an agent"
        raise InvalidRequest(msg, hint="use 1 to 160 printable characters")
    if agent in names.RESERVED - (set() if is_program else {names.HUMAN}) or agent[:1] in ("@", "#") or "~" in agent:
        msg = f"no agent may be called {agent!r}"
        raise InvalidRequest(
            msg, hint="reserved, or begins with @ or #, or has a ~; choose another name with --agent or MCP_BUS_AGENT"
        )


def identify(cwd: Path, *, agent: str = "", client: str = "", session: str, pid: int) -> Identity:
    """Return who this process is.

    Args:
        agent: the configured name; empty takes git's.
        client: the program that speaks, such as `claude-code`; part of the name unless one is
            configured.
        session: the generation, so that two sessions in one checkout differ.

    Raises:
        InvalidRequest: a configured name has control characters, is too long, or is reserved.
    """
    if agent:
        check_agent(agent, is_program=bool(client))
    if not SESSION.match(session):
        msg = f"{session[:40]!r} is not a session name"
        raise InvalidRequest(msg, hint="use 1 to 16 of a-z 0-9")
    word = re.sub(r"[^a-z0-9_.-]+", "-", client.lower()).strip("-")[:32]
    name = agent or (context(cwd)[:120] + (f"+{word}" if word else ""))
    name = name if AGENT.match(name) else ascii(name)[1:-1][:160]
    return Identity(name, session, names.holder(name, session), client=word, pwd=str(cwd)[:1000], pid=pid)
