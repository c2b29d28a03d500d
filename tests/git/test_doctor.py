"""doctor of a bus at a git remote: what keeps this host from it, and what is not there yet."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus.cli.main import main
from tests.git.hosts import bare, git

if TYPE_CHECKING:
    from collections.abc import Callable

Found = dict[str, dict[str, Any]]


@pytest.fixture
def doctor(
    disk: Path, remote: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Found]:
    """Runs doctor on the bus at the remote, or at another address: its findings by what they are about."""
    monkeypatch.setenv("HOME", str(disk / "home"))
    monkeypatch.setattr("mcp_bus.cli.checkups.program", lambda _: iter(()))
    monkeypatch.setattr("mcp_bus.cli.install.found_here", lambda _: [])

    def run(*words: str, code: int = 0, at: str = remote) -> Found:
        monkeypatch.setenv("MCP_BUS_DIR", f"git+{at}")
        capsys.readouterr()
        assert main([*words, "--json", "doctor"]) == code
        return {item["about"]: item for item in json.loads(capsys.readouterr().out)["findings"]}

    return run


def test_of_a_remote_that_is_well_it_says_what_was_seen_and_changes_nothing_there(
    doctor: Callable[..., Found], remote: str
) -> None:
    before = git("--git-dir", remote, "for-each-ref")
    found = doctor()
    assert {item["level"] for item in found.values()} == {"good"}
    assert found["git"]["said"].startswith("git version 2.")
    assert found["remote"]["said"].startswith(f"git+{remote} answers after ")
    assert found["age"]["said"].endswith("of 0 s ago")
    assert "packs: " in found["clone"]["said"]
    assert "lets this user push" in found["pushing"]["said"]
    assert "listings" not in found, "nobody shares the folder of this host"
    assert git("--git-dir", remote, "for-each-ref") == before


def test_a_remote_that_does_not_answer_is_broken_and_what_waits_for_it_is_told(
    doctor: Callable[..., Found], remote: str, disk: Path
) -> None:
    doctor()
    Path(remote).rename(disk / "away")
    assert main(["--quiet", "post", "work", "later"]) == 0
    found = doctor(code=1)
    assert (found["remote"]["level"], found["unsent"]["level"]) == ("bad", "warning")
    assert "does not appear to be a git repository" in found["remote"]["said"]
    assert found["unsent"]["said"].startswith("1 of this host")
    assert found["unsent"]["fix"] == "mcp-bus sync"
    assert "pushing" not in found
    (disk / "away").rename(remote)
    assert doctor()["remote"]["level"] == "good", "it is asked though it did not answer a moment ago"


def test_a_branch_that_was_rewritten_needs_a_person_and_nothing_of_it_is_taken(
    doctor: Callable[..., Found], remote: str, hosts: Any
) -> None:
    hosts.bus("one").post("work", "x")
    doctor()
    git("--git-dir", remote, "update-ref", "refs/heads/mcp-bus", "mcp-bus~1")
    found = doctor("--bus", f"git+{remote}", code=6)
    assert found["remote"]["level"] == "person"
    assert re.search("`mcp-bus --bus [^ ]+ sync --accept-rewritten`", found["remote"]["fix"])
    assert "clone" not in found
    assert doctor(code=6)["remote"]["level"] == "person", "looking accepts nothing"


@pytest.mark.parametrize("may", ["fetch", "nothing"])
def test_who_may_not_push_is_told_to_look_at_the_credentials(
    doctor: Callable[..., Found], remote: str, disk: Path, monkeypatch: pytest.MonkeyPatch, may: str
) -> None:
    ssh = disk / "ssh"
    refused = "*" if may == "nothing" else "*receive-pack*"
    ssh.write_text(
        f'#!/bin/sh\nfor word; do :; done\ncase "$word" in {refused})\n'
        'echo "git@host: Permission denied (publickey)." >&2; exit 255;; esac\nexec sh -c "$word"\n'
    )
    ssh.chmod(0o700)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    monkeypatch.setenv("GIT_SSH_VARIANT", "simple")
    found = doctor(code=1, at=f"ssh://host{remote}")
    bad = found["pushing" if may == "fetch" else "remote"]
    assert bad["level"] == "bad"
    assert "Permission denied" in bad["said"]
    assert "check your credentials" in bad["fix"]
    assert (found["remote"]["level"] == "good") == (may == "fetch")


def test_a_directory_that_is_not_writable_is_no_remote_to_push_to(
    doctor: Callable[..., Found], remote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.access
    closed = Path(remote, "objects")
    monkeypatch.setattr("mcp_bus.cli.checkremote.os.access", lambda path, mode: path != closed and real(path, mode))
    found = doctor(code=1)["pushing"]
    assert (found["level"], found["fix"]) == ("bad", f"ls -ld {closed}")


def test_a_commit_from_the_future_tells_that_clocks_differ(
    doctor: Callable[..., Found], remote: str, disk: Path
) -> None:
    late = f"committer a <a@b> {int(time.time()) + 600} +0000"
    head = git("--git-dir", remote, "cat-file", "-p", "mcp-bus")
    (disk / "commit").write_text(re.sub("(?m)^committer .*$", late, head))
    made = git("--git-dir", remote, "hash-object", "-t", "commit", "-w", str(disk / "commit")).strip()
    git("--git-dir", remote, "update-ref", "refs/heads/mcp-bus", made)
    found = doctor()["commits"]
    assert (found["level"], bool(re.search("(9|10) min in the future", found["said"]))) == ("warning", True)
    assert found["fix"]


def test_where_nobody_made_a_bus_yet_it_says_how_and_makes_none(doctor: Callable[..., Found], disk: Path) -> None:
    empty = bare(disk / "empty.git")
    found = doctor(at=empty)
    assert (found["branch"]["level"], found["branch"]["fix"]) == ("warning", "mcp-bus init")
    assert git("--git-dir", empty, "for-each-ref") == ""


@pytest.mark.parametrize(("says", "said"), [("git version 2.35.9", "2.36 or newer is needed"), ("", "not on PATH")])
def test_a_git_that_is_too_old_or_missing_is_told_before_anything_is_asked(
    doctor: Callable[..., Found], disk: Path, monkeypatch: pytest.MonkeyPatch, says: str, said: str
) -> None:
    monkeypatch.setenv("PATH", str(disk / "bin"))
    if says:
        (disk / "bin").mkdir()
        (disk / "bin" / "git").write_text(f"#!{sys.executable}\nprint({says!r})\n")
        (disk / "bin" / "git").chmod(0o700)
    found = doctor(code=1)
    assert (found["git"]["level"], said in found["git"]["said"]) == ("bad", True)
    assert "remote" not in found
