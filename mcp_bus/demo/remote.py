"""The demo's chapter on machines: two hosts meet at a git remote, race for a task, and one of them goes offline."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from mcp_bus.config import environment
from mcp_bus.demo.stage import ANSWER_S, check
from mcp_bus.stores.fsops import Fs

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus.demo.stage import Story

HOSTS = ("laptop", "desktop")
NOTHING = 4


class _Host:
    """A machine: a home of its own, and with it a clone of its own; its agent is called as it is."""

    def __init__(self, place: Path, remote: Path, name: str) -> None:
        home = _made(place, name)
        self.name = name
        self._place, self._env = home, environment() | {"HOME": str(home), "XDG_DATA_HOME": str(home / "data")}
        self._start = [sys.executable, "-m", "mcp_bus", "--bus", f"git+{remote}", "--agent", name, "--json"]

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a verb."""
        return subprocess.Popen(  # noqa: S603  our own module
            [*self._start, *words],
            cwd=self._place, env=self._env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
        )  # fmt: skip

    def run(self, *words: str) -> Any:  # noqa: ANN401  JSON
        """Run a verb that must succeed; return what it printed."""
        out, err, code = told(self.start(*words))
        check(code == 0, f"{self.name}: mcp-bus {' '.join(words)} ended with {code}: {err}")
        return json.loads(out)


def told(process: subprocess.Popen[str]) -> tuple[str, str, int]:
    """Wait for a verb; return stdout, stderr and exit code."""
    try:
        out, err = process.communicate(timeout=ANSWER_S)
    finally:
        process.kill()
    return out, err, process.returncode


def play(root: Path, story: Story) -> None:
    """Let two hosts work on a bus that neither of them has but as a clone."""
    if shutil.which("git") is None:
        story.step("two machines meet at a git remote: skipped", ["git is not installed"], skipped="git")
        return
    place = _made(root.parent, "machines")
    remote = place / "remote.git"
    _git("init", "--quiet", "--bare", str(remote))
    laptop, desktop = (_Host(place, remote, name) for name in HOSTS)
    check(laptop.run("init")["created"], "the laptop made the bus at the remote")
    task = laptop.run("post", "ship", "tag the release")["id"]
    winner, loser = _race(laptop, desktop)
    ticket = winner[1]["ticket"]
    winner[0].run("submit", task, "--token", ticket["token"], "--done", f"tagged by {winner[0].name}")
    result = loser.run("show", task)["result"]["content"]
    check(result == f"tagged by {winner[0].name}", "the other machine reads the result")
    laptop.run("send", "@desktop", "note", "pull the latest skills")
    [note] = desktop.run("inbox", "--ack")["messages"]
    waited = _offline(remote, laptop)
    log = _git("--git-dir", str(remote), "log", "--reverse", "--format=%s", "mcp-bus").splitlines()
    check(any(line.startswith(f"claim {task[-8:]} on ship by {winner[0].name}") for line in log), "git tells who")
    lines = [
        f"laptop posts {task[-8:]}; both claim it at once: {winner[0].name} has it, {loser.name} is told so",
        f"laptop -> desktop: {note['body']!r}, read and acked",
        f"the remote is away: {waited[-8:]} waits on the laptop, is said to wait, and is sent by `mcp-bus sync`",
        "the history of the branch:",
        *(f"    {line}" for line in log if not line.startswith("agents")),
    ]
    story.step("two machines meet at a git remote: the push decides", lines, task=task, owner=winner[0].name, log=log)


def _race(laptop: _Host, desktop: _Host) -> tuple[tuple[_Host, Any], _Host]:
    """Let both claim at the same moment; return who has it, with what it was told, and who has not."""
    asked = [(host, host.start("claim", "ship")) for host in (laptop, desktop)]
    answers = [(host, *told(process)) for host, process in asked]
    check(sorted(code for *_, code in answers) == [0, NOTHING], f"one of two has the task: {answers}")
    [(winner, out)] = [(host, out) for host, out, _, code in answers if code == 0]
    return (winner, json.loads(out)), desktop if winner is laptop else laptop


def _offline(remote: Path, host: _Host) -> str:
    """Post while the remote is away; return the task, which is there once it is back."""
    _moved(remote, "remote.git", "away.git")
    out, err, code = told(host.start("post", "ship", "write the notes"))
    check(code == 0 and "1 post of this host is not at the remote yet" in err, f"it is said that it waits: {err}")
    _moved(remote, "away.git", "remote.git")
    check(host.run("sync")["sent"] == 1, "it is sent")
    task: str = json.loads(out)["id"]
    return task


def _made(place: Path, name: str) -> Path:
    fs = Fs()
    with fs.folder(place) as at:
        fs.mkdir(name, at)
    return place / name


def _moved(remote: Path, old: str, new: str) -> None:
    fs = Fs()
    with fs.folder(remote.parent) as at:
        fs.rename(old, at, new, at)


def _git(*words: str) -> str:
    done = subprocess.run(  # noqa: S603  words of ours
        ["git", *words],  # noqa: S607  wherever PATH has it
        capture_output=True, encoding="utf-8", timeout=ANSWER_S, check=True, env=environment(),
    )  # fmt: skip
    return done.stdout
