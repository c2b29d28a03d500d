"""Two hosts, each with a home of its own, run a plan together: over a path, and over a server on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mcp_bus import conductor
from mcp_bus.plan import Stage
from mcp_bus.plans import progress
from tests.git.hosts import Hosts, git

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mcp_bus.bus import Bus

ROOT = Path(__file__).parents[2]
WAIT_S = 60.0
PLAN = {
    "goal": "Check the release",
    "steps": [
        {"name": "gather", "capability": "shell", "body": "gather"},
        {"name": "lint", "capability": "python", "after": ["gather"], "body": "lint {{gather}}"},
        {"name": "build", "capability": "shell", "after": ["lint"], "body": "build {{lint}}"},
    ],
}


@contextmanager
def daemon(place: Path) -> Iterator[int]:
    """Serve a folder as `git daemon` does on this machine; give its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["daemon", "--reuseaddr", "--export-all", "--enable=receive-pack", "--listen=127.0.0.1", f"--port={port}"]
    words = ["git", *words, f"--base-path={place}"]
    served = subprocess.Popen(words, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        until(lambda: listens(port), "git daemon does not listen")
        yield port
    finally:
        os.killpg(served.pid, 15)
        served.wait()


def listens(port: int) -> bool:
    """Tell whether something answers on a port of this machine."""
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) == 0


def until(met: Callable[[], bool], complaint: str) -> None:
    """Wait until something is so."""
    end = time.monotonic() + WAIT_S
    while not met():
        assert time.monotonic() < end, complaint
        threading.Event().wait(0.05)


@pytest.mark.parametrize("kind", ["path", "file", "git"])
def test_a_plan_is_run_by_two_hosts(hosts: Hosts, kind: str) -> None:
    if kind == "git":
        with daemon(hosts.place) as port:
            run_together(hosts, f"git://127.0.0.1:{port}/remote.git")
    else:
        run_together(hosts, f"file://{hosts.remote}" if kind == "file" else hosts.remote)


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
        env |= {"MCP_BUS_AGENT": host, "MCP_BUS_GIT_FRESH_S": "0.1"}
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
