"""What a person sees of a bus at a git remote: what was put aside, whose leases ran out, what happened."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus import clock
from mcp_bus.cli.main import main
from mcp_bus.errors import LeaseLost
from mcp_bus.stores.git.store import SKEW_MS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.git.hosts import Hosts

    Run = Callable[..., tuple[str, str]]


@pytest.fixture
def run(hosts: Hosts, disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a verb as a person on a third host does: what it says on stdout and stderr."""
    for name, value in (("HOME", str(disk / "home")), ("MCP_BUS_DIR", f"git+{hosts.remote}")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr("mcp_bus.cli.checkups.program", lambda _: iter(()))
    monkeypatch.setattr("mcp_bus.cli.install.found_here", lambda _: [])

    def made(*words: str, code: int = 0) -> tuple[str, str]:
        capsys.readouterr()
        assert main(words) == code
        out, err = capsys.readouterr()
        return out, err

    return made


def pasted(command: str) -> str:
    """Return what a command prints in a shell."""
    return subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout  # noqa: S602  as a person


def test_a_late_result_on_the_branch_is_counted_and_the_next_step_shows_it(hosts: Hosts, run: Run) -> None:
    ann, bob = hosts.bus("one"), hosts.bus("two", "bob")
    task = ann.post("work", "x")
    assert json.loads(run("status", "--json")[0])["rejected"]["count"] == 0
    held = bob.claim()
    assert held is not None
    ann.requeue(task.id)
    with pytest.raises(LeaseLost):
        bob.ack(held.ticket, "too late")
    told = json.loads(run("status", "--json")[0])["rejected"]
    assert (told["count"], told["path"]) == (1, "refs/mcp-bus/seen:rejected")
    assert f"next: {told['look']}" in run("status")[0]
    found: dict[str, Any] = {item["about"]: item for item in json.loads(run("doctor", "--json", code=6)[0])["findings"]}
    assert (found["rejected"]["level"], found["rejected"]["fix"]) == ("person", told["look"])
    assert found["quarantine"]["said"] == "empty"
    assert task.id in pasted(told["look"])


def test_a_lease_that_ran_out_is_taken_back_once_clocks_may_differ_no_more(
    hosts: Hosts, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = hosts.bus("one")
    task, now = ann.post("work", "x"), clock.System().now
    ann.claim(lease_s=60)
    monkeypatch.setattr(clock.System, "now", lambda _: now() + 60_000 + SKEW_MS - 40_000)
    said = rf"the lease of {task.id[-8:]} ran out; it is taken back in [34]\d s, because clocks of hosts differ"
    assert re.search(said, run("status")[0])
    monkeypatch.setattr(clock.System, "now", lambda _: now() + 60_000 + SKEW_MS + 60_000)
    assert "ran out; the next claim or sweep brings them back" in run("status")[0]


def test_a_log_says_that_it_is_of_this_host_and_where_all_of_it_is(hosts: Hosts, run: Run) -> None:
    task = hosts.bus("one").post("work", "x")
    out, err = run("log")
    assert task.id[-8:] not in out
    assert "what was done through this host" in err
    (command,) = (line.removeprefix("  next: ") for line in err.splitlines() if line.startswith("  next: git "))
    assert f"post {task.id[-8:]} on work" in pasted(command)
