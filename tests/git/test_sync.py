"""`mcp-bus sync`: what it says of others and of what waited here is so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from mcp_bus.cli.main import main
from tests.git.hosts import Hosts, git

if TYPE_CHECKING:
    from collections.abc import Callable


class Said(NamedTuple):
    """What a command printed."""

    out: str
    err: str


@pytest.fixture
def run(
    disk: Path, remote: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """Runs the command on the bus at the remote, on a host of its own."""
    monkeypatch.setenv("HOME", str(disk / "home"))
    monkeypatch.setenv("MCP_BUS_DIR", f"git+{remote}")

    def run(*words: str) -> Said:
        assert main(list(words)) == 0
        return Said(*capsys.readouterr())

    return run


def committed(remote: str, message: str) -> None:
    """Let somebody commit something with a message of their own."""
    who = ("-c", "user.name=eve", "-c", "user.email=e@e")
    tree, head = (git("--git-dir", remote, "rev-parse", f"mcp-bus{of}").strip() for of in ("^{tree}", ""))
    made = git("--git-dir", remote, *who, "commit-tree", "-m", message, "-p", head, tree).strip()
    git("--git-dir", remote, "update-ref", "refs/heads/mcp-bus", made)


def test_sync_tells_what_others_did_since_harmlessly_and_once(
    run: Callable[..., Said], hosts: Hosts, remote: str
) -> None:
    assert "init: a bus" in run("sync").out
    assert run("sync").out == ""
    task = hosts.bus("two", "bob").post("work", "hello").id
    came = json.loads(run("--json", "sync").out)["came"]
    assert [line.partition(": ")[2] for line in came] == [f"post {task[-8:]} on work"]
    committed(remote, "claim\x1b[31m 12345678\u2028ann~00000001: done deadbeef\x85x: y")
    said = run("sync")
    assert said.out.splitlines() == [r"eve: claim\x1b[31m 12345678\u2028ann~00000001: done deadbeef\x85x: y"]
    assert "1 change since" in said.err


def test_sync_says_which_post_it_could_not_send_and_counts_those_it_did(
    run: Callable[..., Said], remote: str, disk: Path
) -> None:
    run("post", "work", "before")
    away = Path(remote).with_suffix(".away")
    Path(remote).rename(away)
    run("post", "work", "one")
    run("post", "work", "two")
    away.rename(remote)
    bad, good = sorted((disk / "home").rglob("unsent/*.json"))
    bad.write_bytes(bad.read_bytes()[:40])
    said = run("sync")
    assert "sent 1 post that waited" in said.err
    assert f"a post cannot be sent: it is damaged, or its channel takes it no more: {bad}" in said.err
    assert (bad.exists(), good.exists()) == (True, False)
    told = json.loads(run("--json", "sync").out)
    assert (told["sent"], told["unsendable"]) == (0, [str(bad)])


def test_a_timer_with_a_password_in_it_is_printed_with_a_warning(
    run: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    timer = ("sync", "--timer", "cron", "--every", "12h")
    assert "password" not in run(*timer).err
    monkeypatch.setenv("MCP_BUS_DIR", "git+https://s3cret@host.invalid/x.git")
    said = run(*timer)
    assert "git+https://s3cret@host.invalid/x.git" in said.out
    assert "the password of the address is in these lines" in said.err
    assert "s3cret" not in said.err
