"""A bus at a git remote from the command line: what a person on each of two hosts sees."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus.cli import timers
from mcp_bus.cli.arguments import Call
from mcp_bus.cli.output import Out
from mcp_bus.config import load
from tests.git.hosts import bare, git
from tests.git.test_hostile import pushed

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]


@pytest.fixture
def at(disk: Path) -> Callable[..., Any]:
    """Runs the command as a person on a host does: `at("one", "post", …)`; with `code`, its answer as JSON."""
    address = f"git+{bare(disk / 'remote.git')}"

    def run(host: str, *words: str, code: int = 0) -> Any:
        home = disk / host
        home.mkdir(exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MCP_BUS", "XDG_", "GIT_"))}
        env = kept | {"HOME": str(home), "MCP_BUS_DIR": address, "MCP_BUS_AGENT": host, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-m", "mcp_bus", *words], env=env, cwd=home, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout) if "--json" in words else done

    run.remote = disk / "remote.git"  # type: ignore[attr-defined]  # where tests look
    return run


def test_two_hosts_hand_each_other_a_task_and_the_log_tells_it(at: Callable[..., Any]) -> None:
    missing = at("ann", "ls", code=1)
    assert "there is no bus on the branch 'mcp-bus'" in missing.stderr
    assert "`mcp-bus init`" in missing.stderr
    address = f"git+{at.remote}"  # type: ignore[attr-defined]  # as above
    named = at("ann", "ls", "--bus", address, code=1).stderr
    assert f"next: `mcp-bus --bus {address} init`" in named.replace("'", "")
    made = at("ann", "init", address)
    assert (made.stdout, "never reached" in made.stderr) == (f"made a bus at {address}\n", False)
    assert sorted(path.name for path in (at.remote.parent / "ann").iterdir()) == [".local"], "no folder of that name"  # type: ignore[attr-defined]  # as above
    assert "each name the place" in at("ann", "init", address, "--here", code=2).stderr
    assert at("bob", "init", "--json")["created"] is False
    task = at("ann", "post", "review", "look at app.py", "--json")["id"]
    claimed = at("bob", "claim", "review", "--json")
    assert claimed["id"] == task
    at("bob", "submit", task, "--token", claimed["ticket"]["token"], "--done", "looks good")
    waited = at("ann", "wait", task)
    assert "looks good" in waited.stdout
    assert "as of 0 s ago" in waited.stderr
    told = git("--git-dir", str(at.remote), "log", "--reverse", "--format=%cn: %s", "mcp-bus").splitlines()  # type: ignore[attr-defined]  # as above
    story = [line.partition(": ")[2] for line in told if not line.partition(": ")[2].startswith("agents")]
    short = task[-8:]
    assert story[0] == "init: a bus"
    assert story[2] == f"post {short} on review"
    assert story[3].startswith(f"claim {short} on review by bob~")
    assert story[4] == f"done {short} on review by bob"


def test_what_is_not_sent_is_said_until_it_is(at: Callable[..., Any]) -> None:
    at("ann", "init")
    at("ann", "post", "review", "first")
    away = at.remote.with_suffix(".away")  # type: ignore[attr-defined]  # as above
    at.remote.rename(away)  # type: ignore[attr-defined]  # as above
    said = at("ann", "post", "review", "second")
    assert "1 post of this host is not at the remote yet" in said.stderr
    assert "next: mcp-bus sync" in said.stderr
    assert "does not answer" in at("ann", "ls").stderr
    assert "does not appear to be a git repository" in at("ann", "claim", "review", code=1).stderr
    assert at("ann", "sync", code=1).stderr.count("does not appear to be a git repository") >= 1
    away.rename(at.remote)  # type: ignore[attr-defined]  # as above
    assert at("ann", "sync", "--json")["sent"] == 1
    assert "not at the remote" not in at("ann", "ls").stderr
    assert len(at("bob", "find", "--json")["tasks"]) == 2


def test_fsck_looks_at_what_is_shared_and_a_repair_is_a_commit(at: Callable[..., Any], disk: Path) -> None:
    at("ann", "init")
    task = at("ann", "post", "review", "x", "--json")["id"]
    (disk / "plan.json").write_text('{"goal": "x", "steps": [{"name": "a", "channel": "review", "body": "y"}]}')
    at("ann", "plan", "run", str(disk / "plan.json"), "--no-wait")
    assert at("bob", "fsck", "--json")["anomalies"] == []
    there = disk / "evil"
    git("clone", "--quiet", "--branch", "mcp-bus", str(at.remote), str(there))  # type: ignore[attr-defined]  # as above
    for name in ("user.email", "user.name"):
        git("config", name, "e", where=there)
    (there / "channels" / "review" / "requests" / f"{task}.json").write_text("{")
    pushed(there)
    found = {item["kind"] for item in at("bob", "fsck", "--json", code=1)["anomalies"]}
    assert "bad-body" in found
    repaired = at("bob", "fsck", "--repair", "--json")
    assert {item["kind"] for item in repaired["anomalies"]} == {"quarantine"}
    assert git("--git-dir", str(at.remote), "log", "-1", "--format=%s", "mcp-bus").strip() == "fsck --repair"  # type: ignore[attr-defined]  # as above
    assert at("ann", "claim", "review", "--json")["id"] == task


def test_sync_of_a_bus_of_files_says_what_it_is_for(tmp_path: Path) -> None:
    env = os.environ | {"HOME": str(tmp_path), "MCP_BUS_DIR": str(tmp_path / "bus"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "mcp_bus", "sync"], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "is at no git remote" in done.stderr) == (2, True)


def test_a_hint_that_names_a_bus_is_not_given_another(tmp_path: Path) -> None:
    config = load({"bus": tmp_path / "bus"}, env={"HOME": str(tmp_path)}, cwd=tmp_path)
    call = Call(Namespace(), config, Out())
    hint = "`mcp-bus --bus git+REMOTE init` makes one; `mcp-bus ls` lists"
    assert call.aimed(hint) == hint.replace("`mcp-bus ls", f"`mcp-bus --bus {shlex.quote(str(tmp_path / 'bus'))} ls")


def test_a_hint_names_a_bus_at_a_remote_by_its_address_unless_a_password_is_in_it(tmp_path: Path) -> None:
    def aimed(address: str) -> str:
        config = load({"bus": address}, env={"HOME": str(tmp_path)}, cwd=tmp_path)
        return Call(Namespace(), config, Out()).again()

    assert aimed("git+ssh://git@host/bus.git") == "mcp-bus --bus git+ssh://git@host/bus.git".replace(
        "git+ssh://git@host/bus.git", shlex.quote("git+ssh://git@host/bus.git")
    )
    assert re.search(r"/mcp-bus/git/bus-[0-9a-f]{12}\Z", aimed("git+https://me:geheim@host/bus.git"))


def test_a_rewritten_branch_is_refused_until_a_person_takes_it(at: Callable[..., Any]) -> None:
    at("ann", "init")
    at("ann", "post", "review", "first")
    remote = str(at.remote)  # type: ignore[attr-defined]  # as above
    old = git("--git-dir", remote, "rev-parse", "mcp-bus").strip()
    at("ann", "post", "review", "second")
    git("--git-dir", remote, "update-ref", "refs/heads/mcp-bus", old)
    refused = at("ann", "sync", code=1)
    assert "lost" in refused.stderr
    assert "--accept-rewritten" in refused.stderr
    at("ann", "sync", "--accept-rewritten")
    assert [task["title"] for task in at("ann", "find", "--json")["tasks"]] == [""]
    assert at("ann", "ls", "--json")["channels"][0]["counts"]["ready"] == 1


@pytest.mark.parametrize(
    ("every_s", "when"),
    [
        (60, "OnCalendar=*:0/1\nPersistent=true"),
        (900, "OnCalendar=*:0/15\nPersistent=true"),
        (3600, "OnCalendar=0/1:07\nPersistent=true"),
        (86_400, "OnCalendar=03:07\nPersistent=true"),
        (90, "OnBootSec=60\nOnUnitActiveSec=90"),
        (172_800, "OnBootSec=60\nOnUnitActiveSec=172800"),
    ],
)
def test_a_timer_of_systemd_makes_up_for_what_was_missed_where_it_can(every_s: float, when: str) -> None:
    assert f"[Timer]\n{when}\n\n[Install]" in timers.systemd(["mcp-bus", "sync"], every_s, "sync")


def test_timers_are_printed_as_their_programs_read_them(at: Callable[..., Any], tmp_path: Path) -> None:
    at("ann", "init")
    line = at("ann", "sync", "--timer", "cron", "--every", "12h").stdout.strip()
    assert line.startswith("7 */12 * * * ")
    words = shlex.split(line.partition("* * * ")[2])
    bare_env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, env=bare_env, check=False)
    assert words[-1] == "--quiet"
    assert done.returncode == 0, "the command works with nothing but a home"
    units = at("ann", "sync", "--timer", "systemd", "--every", "12h").stdout
    assert "[Timer]\nOnCalendar=0/12:07\nPersistent=true\n" in units
    [start] = [line for line in units.splitlines() if line.startswith("ExecStart=")]
    assert shlex.split(start.removeprefix("ExecStart="))[-2:] == ["sync", "--quiet"]
    assert at("ann", "sync", "--timer", "cron", "--every", "7m", code=2).stderr.count("cron has no word") == 1
    assert "once a minute at most" in at("ann", "sync", "--timer", "systemd", "--every", "30s", code=2).stderr
    assert "--timer needs --every" in at("ann", "sync", "--timer", "cron", code=2).stderr
