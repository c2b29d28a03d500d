"""Two hosts, each with a home of its own, run a plan together: over a path, and over servers on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mcp_bus import conductor
from mcp_bus.plan import Stage
from mcp_bus.plans import progress
from tests.git.hosts import Hosts, git
from tests.git.servers import daemon, sshd, until

if TYPE_CHECKING:
    from mcp_bus.bus import Bus

ROOT = Path(__file__).parents[2]
PLAN = {
    "goal": "Check the release",
    "steps": [
        {"name": "gather", "capability": "shell", "body": "gather"},
        {"name": "lint", "capability": "python", "after": ["gather"], "body": "lint {{gather}}"},
        {"name": "build", "capability": "shell", "after": ["lint"], "body": "build {{lint}}"},
    ],
}


@pytest.mark.parametrize("kind", ["path", "git", "ssh"])
def test_a_plan_is_run_by_two_hosts(hosts: Hosts, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        address = hosts.remote
        if kind == "git":
            address = f"git://127.0.0.1:{stack.enter_context(daemon(hosts.place))}/remote.git"
        if kind == "ssh":
            served = stack.enter_context(sshd(hosts.place / "sshd"))
            address = served.address(hosts.remote)
            monkeypatch.setenv("GIT_SSH_COMMAND", served.command(is_shared=True))
        run_together(hosts, address)


def settled(bus: Bus, plan_id: str) -> bool:
    """Move a plan on; tell whether all of it is done."""
    conductor.advance(bus, plan_id)
    nodes = progress(bus, plan_id)[1].nodes
    return len(nodes) == len(PLAN["steps"]) and all(node.stage is Stage.DONE for node in nodes.values())


def run_together(hosts: Hosts, address: str) -> None:
    """Let a worker on each host do the steps that it is able to; the plan is posted on a third."""

    def works(host: str, capability: str) -> subprocess.Popen[bytes]:
        home = hosts.place / f"home-{host}"
        home.mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MCP_BUS", "XDG_"))}
        env = kept | {"HOME": str(home), "MCP_BUS_DIR": f"git+{address}", "PYTHONPATH": str(ROOT)}
        env |= {"MCP_BUS_AGENT": host, "MCP_BUS_GIT_FRESH_S": "0.3"}
        words = ["worker", "run", "--capability", capability, "--idle", "60s", "--stdin", "body", "--", "cat"]
        return subprocess.Popen([sys.executable, "-m", "mcp_bus", *words], env=env, cwd=home, stderr=subprocess.PIPE)

    bus = hosts.bus("planner", "planner")
    made = conductor.post(bus, PLAN)
    workers = [works("desktop", "python"), works("laptop", "shell")]
    try:
        until(lambda: settled(bus, made.id), "the plan does not come to its end")
    finally:
        for worker in workers:
            worker.terminate()
            worker.communicate()
    nodes = progress(bus, made.id)[1].nodes
    assert {name: node.by for name, node in nodes.items()} == {"gather": "laptop", "lint": "desktop", "build": "laptop"}
    said = git("--git-dir", hosts.remote, "log", "--format=%s", "mcp-bus")
    assert said.count("done ") == 3
