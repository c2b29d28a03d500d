"""Which settings there are: what each is called, is for, and can be."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from mcp_bus.draft import check_words
from mcp_bus.names import check_channel

PROFILES = ("worker", "lead", "full")
# What a project may not decide for whoever works on it: who they are, whether their work is kept, what they open up.
PERSONAL = (
    "agent", "durability", "git_fresh_s", "git_tentative", "git_timeout_s", "pipes", "post_eval", "session",
    "shared_profile", "skills_repo",
)  # fmt: skip


class Setting(NamedTuple):
    """One setting: its environment variable, default, and what it is for."""

    env: str
    default: Any
    about: str


SETTINGS: dict[str, Setting] = {
    "bus": Setting("MCP_BUS_DIR", "", "the bus directory"),
    "agent": Setting("MCP_BUS_AGENT", "", "this agent's name; git context if empty"),
    "session": Setting("MCP_BUS_SESSION", "", "this session's generation; random if empty"),
    "capabilities": Setting("MCP_BUS_CAPABILITIES", (), "what this worker can do"),
    "channels": Setting("MCP_BUS_CHANNELS", (), "channels to claim from; all if empty"),
    "durability": Setting("MCP_BUS_DURABILITY", "full", "full: fsync before acknowledging; none: survive kill -9 only"),
    "profile": Setting("MCP_BUS_PROFILE", "full", "tools to offer: worker, lead or full"),
    "claude_channel": Setting(
        "MCP_BUS_CLAUDE_CHANNEL", default=False, about="push to Claude Code's channels; speaks the handshake era only"
    ),
    "read_only": Setting("MCP_BUS_READ_ONLY", default=False, about="offer no tool that changes the bus"),
    "post_eval": Setting("MCP_BUS_ALLOW_EVAL", default=False, about="post type eval: text that a receiver might run"),
    "pipes": Setting("MCP_BUS_PIPES", default=False, about="offer a tool for pipes, which stream and keep nothing"),
    "shared_profile": Setting("MCP_BUS_SHARED_PROFILE", default=False, about="offer a tool for the user's profile"),
    "wait_s": Setting("MCP_BUS_WAIT_S", 25.0, "how long a waiting tool waits unless told"),
    "max_wait_s": Setting("MCP_BUS_MAX_WAIT_S", 50.0, "how long a waiting tool may wait"),
    "given_up_s": Setting("MCP_BUS_GIVEN_UP_S", 45.0, "a call this long may be given up though it was answered"),
    "git_fresh_s": Setting("MCP_BUS_GIT_FRESH_S", 0.0, "how old what is known of a git remote may be; 0: by its kind"),
    "git_timeout_s": Setting("MCP_BUS_GIT_TIMEOUT_S", 60.0, "how long a git remote may take to answer"),
    "git_tentative": Setting("MCP_BUS_GIT_TENTATIVE", default=False, about="claim also while a git remote is away"),
    "skills_repo": Setting(
        "MCP_BUS_SKILLS_REPO", "", "the git remote that `mcp-bus skills sync` shares skills through"
    ),
    "no_color": Setting("NO_COLOR", "", "any text: no colour, also on a terminal"),
    "log_level": Setting("MCP_BUS_LOG_LEVEL", "warning", "debug, info, warning or error; to stderr"),
}
CHOICES = {
    "durability": ("full", "none"),
    "profile": PROFILES,
    "log_level": ("debug", "info", "warning", "error"),
}


def parsed(name: str, value: Any) -> Any:  # noqa: ANN401  settings have several types
    """Return a setting's value, from what a file, the environment or code says.

    Raises:
        ValueError, TypeError, InvalidRequest: it cannot be that.
    """
    default = SETTINGS[name].default
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
        word = str(value).lower()
        if word not in ("1", "true", "yes", "on", "0", "false", "no", "off"):
            msg = "it is yes or no"
            raise ValueError(msg)
        return word in ("1", "true", "yes", "on")
    if isinstance(default, float):
        number = float(value) if str(value).replace(".", "", 1).isdigit() else -1.0
        if not 0 <= number <= 86_400:
            msg = "it is a number of seconds up to 86400"
            raise ValueError(msg)
        return number
    if isinstance(default, tuple):
        words = value.replace(",", " ").split() if isinstance(value, str) else list(value)
        return tuple(check_channel(w) for w in words) if name == "channels" else check_words(name, words)
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str) or (name in CHOICES and text not in CHOICES[name]):
        msg = "it is one of " + ", ".join(CHOICES.get(name, ("text",)))
        raise ValueError(msg)
    return text
