"""Real processes die at a call: the command line and the server, as clients start them (P1, P3, P7).

What forks do thousands of times is done here with the whole program: `strace` sends SIGKILL as a call begins.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus.stores import layout
from tests.crash.test_kill_verbs import ANSWER, CHANNEL, VERBS, check, drained, repeat
from tests.crash.test_outside import LIMIT_S, lacks
from tests.crash.victim import HOUR, IS_SOAK, Steps, copy, open_at
from tests.server.raw import running
from tests.server.support import environment
from tests.tally import KILLS, tried

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mcp_bus.model import Ticket

# What changes a name or makes bytes durable, and the end, after which nobody is told the exit code.
CALLS = ("linkat", "renameat", "renameat2", "unlinkat", "mkdirat", "fsync", "exit_group")
_CALL = re.compile(r"^\d+\s+(\w+)\(", re.MULTILINE)

COMMANDS: dict[str, Callable[[Ticket], tuple[str, ...]]] = {
    "keyed post": lambda _: ("post", CHANNEL, "x", "--key", "k"),
    "claim": lambda _: ("claim", CHANNEL),
    "ack": lambda task: ("submit", task.id, "--token", task.token, "--done", ANSWER),
    "nack": lambda task: ("submit", task.id, "--token", task.token, "--failed", "no"),
    "cancel of a leased one": lambda task: ("cancel", task.id),
}
TOOLS: dict[str, Callable[[Ticket], tuple[str, dict[str, Any]]]] = {
    "keyed post": lambda _: ("post_task", {"channel": CHANNEL, "body": "x", "key": "k"}),
    "claim": lambda _: ("claim_next", {"channels": [CHANNEL], "wait_s": 0}),
    "ack": lambda task: (
        "submit_result", {"task": task.id, "token": task.token, "status": "done", "result": ANSWER},
    ),
}  # fmt: skip
DURABLE = {"MCP_BUS_DURABILITY": "full"}
# A server takes a second to start, so not every call of it is tried.
STRIDE = 6 if IS_SOAK else 11


@pytest.fixture(autouse=True)
def tracing() -> None:
    if lacks():
        pytest.skip(lacks())


def strace(log: Path, *more: str) -> list[str]:
    return ["strace", "-f", "-qq", "-e", f"trace={','.join(CALLS)}", "-e", "signal=none", *more, "-o", str(log)]


def killing(log: Path, call: str, number: int) -> list[str]:
    return strace(log, "-e", f"inject={call}:signal=SIGKILL:when={number}")


def points(log: Path) -> Iterator[tuple[str, int]]:
    """Return each call that a run made: its name, and which one of that name it was."""
    seen = Counter[str]()
    for call in _CALL.findall(log.read_text()):
        seen[call] += 1
        yield call, seen[call]


def start_of(name: str, place: Path) -> tuple[Path, Ticket]:
    """Make a bus on which a verb can be asked for."""
    layout.create(place / "bus", fs=Steps())
    with open_at(place / "bus") as bus:
        return place / "bus", VERBS[name].prepare(bus)


def recovered(name: str, root: Path, ticket: Ticket, said: str) -> None:
    """Ask again, as a client does that got no answer, work everything off, and count."""
    tried(KILLS)
    repeat(VERBS[name], root, ticket, offset=0, said=said)
    drained(root, offset=6 * HOUR)
    check(VERBS[name], root, ticket, said)


def commanded(place: Path, under: list[str], words: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Run a verb in a folder where the bus is."""
    return subprocess.run(
        [*under, sys.executable, "-m", "mcp_bus", "--bus", "bus", "--agent", "ann", *words],
        cwd=place, env=environment(place, **DURABLE), capture_output=True, text=True, check=False,
        timeout=LIMIT_S, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_line_killed_at_any_call_and_asked_again_does_it_once(disk: Path, name: str) -> None:
    (disk / "start").mkdir()
    start, ticket = start_of(name, disk / "start")
    words, log = COMMANDS[name](ticket), disk / "log"
    (disk / "whole").mkdir()
    copy(start, disk / "whole" / "bus")
    done = commanded(disk / "whole", strace(log), words)
    assert done.returncode == 0, done.stderr
    found = list(points(log))
    assert found[-1] == ("exit_group", 1)
    assert len(found) > 3
    for call, number in found:
        place = disk / f"{call}-{number}"
        place.mkdir()
        root = copy(start, place / "bus")
        killed = commanded(place, killing(log, call, number), words)
        said = f"{call} {number}: {killed.stdout}{killed.stderr}"
        assert killed.returncode == -signal.SIGKILL, f"it did not die at {said}"
        assert list(points(log))[-1] == (call, number), f"it died elsewhere than at {said}"
        recovered(name, root, ticket, said)


@pytest.mark.parametrize("name", TOOLS)
def test_a_server_killed_at_a_call_and_asked_again_does_it_once(disk: Path, name: str) -> None:
    (disk / "start").mkdir()
    start, ticket = start_of(name, disk / "start")
    (tool, arguments), log = TOOLS[name](ticket), disk / "log"
    (disk / "whole").mkdir()
    copy(start, disk / "whole" / "bus")
    with running(disk / "whole", under=strace(log), **DURABLE) as server:
        before = len(list(points(log)))
        server.call(tool, **arguments)
        found = list(points(log))[before:]
    assert len(found) > 4
    for call, number in found[::STRIDE]:
        place = disk / f"{call}-{number}"
        place.mkdir()
        root = copy(start, place / "bus")
        with running(place, under=killing(log, call, number), **DURABLE) as server:
            server.start("call", tool, **arguments)
            code = server.popen.wait(LIMIT_S)
            answered = server.stdout.read()
        said = f"{call} {number}: {answered!r}"
        assert code == -signal.SIGKILL, f"it did not die at {said}"
        assert list(points(log))[-1] == (call, number), f"it died elsewhere than at {said}"
        assert b'"call"' not in answered, f"an answer before all was done: {said}"
        recovered(name, root, ticket, said)
