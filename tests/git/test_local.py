"""What is of one host alone is never in the repository: nothing puts it there, and nothing has to be ignored."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mcp_bus.hooks import telling
from mcp_bus.hooks.forms import START, Event
from tests.git.hosts import Hosts, git, store_of

ROOT = Path(__file__).parents[2]
SHARED = {
    ".gitkeep", "PROTOCOL.md", "agents", "bus.json", "channels", "cursors", "keys", "quarantine", "registry.json",
    "rejected", "tasks", "tombstones",
}  # fmt: skip


def test_sessions_logs_runs_journals_and_what_hooks_have_told_stay_here(hosts: Hosts) -> None:
    home = hosts.place / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MCP_BUS", "XDG_"))}
    env = kept | {"HOME": str(home), "MCP_BUS_DIR": f"git+{hosts.remote}", "PYTHONPATH": str(ROOT)}

    def run(*words: str) -> None:
        subprocess.run([sys.executable, "-m", "mcp_bus", *words], env=env, cwd=home, check=True, capture_output=True)

    run("--agent", "ann", "post", "work", "echo it")
    run("--agent", "bob", "worker", "run", "work", "--tasks", "1", "--capability", "x", "--", "cat")
    run("--agent", "ann", "channel", "create", "news", "kind=topic")
    run("--agent", "bob", "subscribe", "news")
    run("--agent", "ann", "send", "#news", "hello")
    run("--agent", "bob", "inbox", "--ack")
    bus = hosts.bus("two", "bob")
    bus.mail.send("@bob", "x")
    telling.speak(bus, Event(START, "context"), "client", session="", remembers=True)
    bus.roster.arrive((), ())
    store_of(bus).mend(bus.source.now())
    shared = git("--git-dir", hosts.remote, "ls-tree", "-r", "--name-only", "mcp-bus").splitlines()
    assert {path.split("/")[0] for path in shared} <= SHARED
    assert [path for path in shared if "journal" in path or "/runs/" in path or path.endswith((".log", ".lock"))] == []
    [here] = (home / ".local" / "share" / "mcp-bus" / "git").iterdir()
    assert {"journal", "runs", "repo.git", "git.json"} <= {path.name for path in here.iterdir()}
    assert list((here / "journal").glob("*.jsonl"))
    told = hosts.place / "two" / "told"
    assert list(told.iterdir()), "what a hook has told is kept on its host"
