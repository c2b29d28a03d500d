"""What real processes open, change and start, seen by strace, on a bus full of traps: nothing outside (P17, P19)."""

from __future__ import annotations

import functools
import json
import os
import select
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus.identity.process import host
from mcp_bus.model import day_of
from mcp_bus.stores import layout
from tests.crash.outside import STRACE, Calls, Canaries, calls_in, plant, swapping
from tests.crash.victim import ended, fork, open_at
from tests.server.support import command, environment

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parents[2]
LIMIT_S = 90
# What else than the bus may be read, and why.
READABLE = {
    "Python and its libraries": (sys.prefix, sys.base_prefix, *sysconfig.get_paths().values()),
    "mcp-bus itself": (str(REPOSITORY),),
    "shared libraries, and data of the C library": (
        "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/etc/ld.so.preload",
    ),
    "names of locales": ("/usr/share/locale", "/etc/locale.alias"),
    "the time zone": ("/usr/share/zoneinfo", "/etc/localtime"),
    "who this user is, and the names of groups": ("/etc/passwd", "/etc/group", "/etc/nsswitch.conf"),
    "what kind of file a name stands for, and how OpenSSL is set up": ("/etc/mime.types", "/etc/ssl", "/usr/lib/ssl"),
    "which processes run, the start of the machine, and what is mounted": ("/proc",),
    "how many processors there are, and what a group may use": ("/sys/devices/system/cpu", "/sys/fs/cgroup"),
    "chance, and nothing": ("/dev/urandom", "/dev/random", "/dev/null"),
}  # fmt: skip
WRITABLE = {"nothing": ("/dev/null",)}


@functools.cache
def lacks() -> str:
    """Say why processes cannot be traced here; empty if they can."""
    if shutil.which("strace") is None:
        return "there is no strace here"
    done = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False)
    return f"strace may not trace here: {done.stderr.strip()}" if done.returncode else ""


class Scene:
    """A bus among traps, a home, a working directory, and the canaries."""

    def __init__(self, place: Path) -> None:
        self.place, self.root = place, place / "bus"
        self.work = place / "work"
        self.work.mkdir()
        layout.create(self.root)
        with open_at(self.root, agent="ann", durable=False) as bus:
            self.ready = bus.post("work", "x", key="k").id
            bus.post("work", "y")
            held = bus.claim(["work"])
            assert held is not None
            self.done = bus.post("work", "z", priority=9).id
            task = bus.claim(["work"])
            assert task is not None
            bus.ack(task, "done")
            bus.post("old", "x")
            bus.mail.send("@bob", "hello")
        self.canaries = Canaries(place / "outside")
        now = int(time.time() * 1000)
        self.traps = plant(self.root, self.canaries, f"{host()}-{day_of(now)}.jsonl", day_of(now))
        self.calls = Calls()

    def variables(self) -> dict[str, str]:
        return environment(self.place, PYTHONDONTWRITEBYTECODE="1", HOME=str(self.place / "home"))

    def traced(self, *words: str) -> str:
        """Run the command line under strace; return what it said on stderr."""
        log = self.place / "log"
        done = subprocess.run(
            [*STRACE, str(log), sys.executable, "-m", "mcp_bus", *words],
            cwd=self.work, env=self.variables(), capture_output=True, text=True, check=False, timeout=LIMIT_S,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self.heard(log, words)
        return done.stderr

    def heard(self, log: Path, words: tuple[str, ...]) -> None:
        """Check what one program did."""
        calls = calls_in(log, self.work)
        bad = self.strangers(calls)
        assert not bad, f"{' '.join(words)}:\n" + "\n".join(bad)
        assert calls.read, "the log was not understood"
        self.calls.read |= calls.read
        self.calls.changed |= calls.changed

    def strangers(self, calls: Calls) -> list[str]:
        """Return what was touched and should not have been."""
        ours = (str(self.root),)
        readable = [*ours, str(self.work), str(self.place / "home"), *(p for paths in READABLE.values() for p in paths)]
        writable = [*ours, *(p for paths in WRITABLE.values() for p in paths)]
        # A descriptor that is no file has a name such as pipe:[1234].
        bad = [f"read {path}" for path in calls.read if path[:1] == "/" and not is_under(path, readable)]
        bad += [f"opened for writing {path}" for path in calls.written if not is_under(path, writable)]
        bad += [f"changed {path}" for path in calls.changed if not is_under(path, ours)]
        bad += [f"started {words}" for words in calls.executed[1:]]
        return bad + [f"went to the network: {words}" for words in calls.reached]


def is_under(path: str, places: list[str] | tuple[str, ...]) -> bool:
    return any(path == place or path.startswith(place.rstrip("/") + "/") for place in places)


@pytest.fixture
def scene(disk: Path) -> Scene:
    if lacks():
        pytest.skip(lacks())
    return Scene(disk)


def verbs(scene: Scene) -> Iterator[tuple[str, ...]]:
    bus = ("--bus", str(scene.root), "--agent", "ann")
    yield from (
        (*bus, "post", "work", "new"),
        (*bus, "post", "fresh", "new", "--key", "../../outside/secret"),
        (*bus, "claim", "work"),
        (*bus, "ls"),
        (*bus, "ls", "work"),
        (*bus, "find", "trap"),
        (*bus, "show", scene.done),
        (*bus, "show", "req_" + "a" * 32),
        (*bus, "show", "../../outside/secret"),
        (*bus, "status"),
        (*bus, "log"),
        (*bus, "export"),
        (*bus, "agents"),
        (*bus, "send", "@bob", "hi"),
        ("--bus", str(scene.root), "--agent", "bob", "inbox"),
        (*bus, "subscribe", "news"),
        (*bus, "channel", "create", "other"),
        (*bus, "cancel", scene.ready),
        (*bus, "sweep"),
        (*bus, "wait", scene.done, "--timeout", "1s"),
        (*bus, "config"),
    )


def test_no_verb_leaves_a_bus_full_of_traps(scene: Scene) -> None:
    for words in verbs(scene):
        said = scene.traced(*words)
        assert "this is a bug" not in said, f"{words}: {said}"
        assert "Traceback" not in said, f"{words}: {said}"
    assert scene.canaries.changed() == []
    assert scene.traps > 100
    assert any(path.startswith(str(scene.root)) for path in scene.calls.read)
    assert any(path.startswith(str(scene.root)) for path in scene.calls.changed)


def asked(scene: Scene, log: Path, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Start the server under strace, ask it one thing after another, and return its answers."""
    popen = subprocess.Popen(
        [*STRACE, str(log), *command(scene.place)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=scene.work, env=scene.variables(),
        bufsize=0,
    )  # fmt: skip
    assert popen.stdin is not None
    assert popen.stdout is not None
    answers, rest = list[dict[str, Any]](), b""
    try:
        for request in requests:
            popen.stdin.write(json.dumps({"jsonrpc": "2.0", **request}).encode() + b"\n")
            while "id" in request and not any(answer.get("id") == request["id"] for answer in answers):
                assert select.select([popen.stdout], [], [], LIMIT_S)[0], f"no answer to {request}"
                *lines, rest = (rest + os.read(popen.stdout.fileno(), 1 << 20)).split(b"\n")
                assert popen.poll() is None, "the server ended"
                answers += [json.loads(line) for line in lines]
        popen.stdin.close()
        assert popen.wait(LIMIT_S) == 0
    finally:
        popen.kill()
        popen.wait()
        popen.stdout.close()
    return answers


def tool(number: int, name: str, **arguments: object) -> dict[str, Any]:
    return {"id": number, "method": "tools/call", "params": {"name": name, "arguments": arguments}}


def requests(scene: Scene) -> list[dict[str, Any]]:
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
    return [
        {"id": 0, "method": "initialize", "params": hello},
        {"method": "notifications/initialized"},
        {"id": 1, "method": "tools/list"},
        {"id": 2, "method": "resources/list"},
        tool(3, "post_task", channel="work", body="new"),
        tool(4, "post_task", channel="../../outside", body="new"),
        tool(5, "claim_next", channels=["work"]),
        tool(6, "list_channels"),
        tool(7, "get_task", task=scene.done),
        tool(8, "get_task", task="req_" + "a" * 32),
        tool(9, "find_tasks", text="trap"),
        tool(10, "send_message", to="@bob", body="hi"),
        tool(11, "read_inbox"),
        tool(12, "control_task", task=scene.ready, action="cancel"),
        {"id": 13, "method": "resources/read", "params": {"uri": "bus://tasks/../../outside/secret"}},
    ]


def test_no_tool_leaves_a_bus_full_of_traps(scene: Scene) -> None:
    log = scene.place / "log"
    answers = asked(scene, log, requests(scene))
    scene.heard(log, ("serve",))
    assert scene.canaries.changed() == []
    assert not [answer for answer in answers if "a trap" in json.dumps(answer)], "what is outside was shown"
    done = [a["id"] for a in answers if "result" in a and not a["result"].get("isError")]
    assert {3, 5, 6, 7} <= set(done), "what belongs to the bus works among the traps"


def test_nothing_leaves_a_bus_whose_folders_become_symlinks_while_it_is_used(scene: Scene) -> None:
    stop = scene.place / "stop"
    pid = fork(lambda: swapping(scene.root, scene.canaries.folder, stop))
    try:
        for words in list(verbs(scene))[::2]:
            said = scene.traced(*words)
            assert "this is a bug" not in said, f"{words}: {said}"
    finally:
        stop.touch()
        assert ended(pid) == 0, "nobody swapped anything, or not until the end"
    assert scene.canaries.changed() == []


def test_an_open_or_a_change_outside_is_seen(scene: Scene) -> None:
    outside = scene.canaries.folder
    for code in (
        f"open({str(outside / 'secret')!r})",
        f"open({str(scene.root / 'manifest.json')!r})",
        f"open({str(outside / 'new')!r}, 'w')",
        f"import os; os.rename({str(outside / 'new')!r}, {str(scene.root / 'new')!r})",
        f"import os; os.utime({str(outside / 'append')!r})",
        f"import os; os.mkdir('x', dir_fd=os.open({str(outside)!r}, os.O_RDONLY))",
        "import os; os.system('true')",
        "import socket; socket.socket().connect_ex(('127.0.0.1', 9))",
    ):
        log = scene.place / "log"
        subprocess.run([*STRACE, str(log), sys.executable, "-c", code], cwd=scene.work, check=True, timeout=LIMIT_S)
        assert scene.strangers(calls_in(log, scene.work)), code
