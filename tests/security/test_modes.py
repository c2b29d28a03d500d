"""Whose a bus is: private to its user, or shared with a group, between real users and under any umask (rule F6)."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus import conductor, fsck, open_bus
from mcp_bus.cli.main import main
from mcp_bus.clock import System
from mcp_bus.errors import BusError, LeaseLost, StoreUnavailable, Untrusted
from mcp_bus.fsck import Means
from mcp_bus.model import State, Ticket
from mcp_bus.pipes import Pipes
from mcp_bus.recovery import sweep
from mcp_bus.stores import layout, modes
from mcp_bus.stores.tree import Tree
from tests.crash.victim import Faulty, Recorder, Signal, Steps, ended, open_at
from tests.security.people import ALICE, BOB, EVE, GROUP, acting, needs_root, wrong

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mcp_bus.bus import Bus
    from mcp_bus.stores.fsops import Fs

pytestmark = needs_root
UMASKS = (0o077, 0o022, 0o000)
LATER = 600_000
NEXT_MONTH = 40 * 24 * 3_600_000


@pytest.fixture(scope="module", autouse=True)
def _loaded(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Import now, as root, what other users could not find: Python itself may be where they may not go."""
    root = tmp_path_factory.mktemp("loaded") / "bus"
    layout.create(root)
    private_verbs(root, "alice")
    others_verbs(root)
    answers(root)
    with open_bus(root, create=False) as bus, pytest.raises(LeaseLost):
        bus.ack(Ticket(bus.post("work", "x").id, "ab12"), "x")


@pytest.fixture
def shared(place: Path) -> Path:
    """A bus that alice made for the group."""
    ALICE.does(lambda: layout.create(place / "bus", fs=Steps(), group=GROUP), 0o077)
    return place / "bus"


def claimed(bus: Bus, channel: str = "work") -> Any:
    task = bus.claim([channel])
    assert task is not None
    return task


def private_verbs(root: Path, agent: str) -> None:
    """Do what makes every kind of file and folder."""
    with acting(root, agent) as bus:
        bus.roster.arrive()
        bus.create_channel("work", backoff_s=0, outputs=True, retention_days=1)
        for number in range(4):
            bus.post("work", f"task {number} of {agent}", key=f"{number} of {agent}")
        bus.ack(claimed(bus), "done")
        bus.nack(bus.renew(claimed(bus), progress="half of it"), "no", final=True)
        bus.nack(claimed(bus), "again")
        bus.post("later", "x", delay_s=3600)
        bus.mail.send("@bob", "hello")
        conductor.post(bus, {"goal": "g", "steps": [{"name": "one", "channel": "plans", "body": "do it"}]})
        (root / "channels" / "work" / "requests" / "no message.json").write_text("{")
        Pipes(root, bus.source).make(f"of-{agent}")
    with acting(root, agent, LATER) as bus:
        sweep(bus)


# --- private --------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", UMASKS, ids=oct)
def test_a_bus_is_private_unless_told_otherwise_whatever_the_umask(place: Path, umask: int) -> None:
    def act() -> None:
        layout.create(place / "bus", fs=Steps())
        private_verbs(place / "bus", "alice")
        assert fsck.check(place / "bus").is_clean

    ALICE.does(act, umask)
    (place / "bus" / "channels" / "work" / "requests" / "no message.json").unlink(missing_ok=True)
    aside = [path for path in (place / "bus" / "quarantine").iterdir() if path.suffix != ".json"]
    assert len(aside) == 1
    aside[0].unlink()  # It has the mode that its maker gave it, in a folder that nobody else can enter.
    assert wrong(place / "bus", group=None) == []
    for other in (BOB, EVE):
        other.does(lambda: refused(place / "bus", Untrusted, "belongs to user"))


def refused(root: Path, kind: type[BusError], why: str) -> None:
    """Assert that this user gets nowhere, with the program or without it."""
    for verb in (lambda: open_bus(root, create=False), lambda: layout.create(root), lambda: fsck.check(root)):
        with pytest.raises(kind, match=why) as refusal:
            verb()
        assert refusal.value.hint
    for path in (root, root / "tasks"):
        with pytest.raises(PermissionError):
            os.listdir(path)  # noqa: PTH208  the shortest way to try it
    with pytest.raises(PermissionError):
        (root / "bus.json").read_text()
    with pytest.raises(PermissionError):
        (root / "tasks" / "mine.json").write_text("{}")


def test_a_private_bus_costs_no_call_for_its_modes(place: Path) -> None:
    fs = Recorder()
    layout.create(place / "bus", fs=fs)
    with open_at(place / "bus", fs, durable=False) as bus:
        bus.post("work", "x")
        bus.ack(claimed(bus), "done")
    assert "chmod" not in {op.call for op in fs.trace}


@pytest.mark.parametrize("mode", [0o777, 0o702, 0o775, 0o755], ids=oct)
def test_what_everyone_may_write_is_refused_and_what_a_group_or_readers_may_use_is_told(
    place: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    root = place / "bus"
    layout.create(root)
    root.chmod(mode)
    monkeypatch.setenv("MCP_BUS_DIR", str(root))
    monkeypatch.setattr("mcp_bus.clients.probe.ask", lambda *_: pytest.skip("no server is needed"))
    monkeypatch.setattr("mcp_bus.cli.checkups.program", lambda _: iter(()))
    if not mode & 0o002:
        assert main(("post", "work", "x")) == 0
        assert main(("doctor",)) == 0
        assert f"(mode {mode:o})" in capfd.readouterr().out
        return
    assert main(("post", "work", "x")) == 1
    said = capfd.readouterr().err
    assert "everyone on this machine may write" in said
    assert "chmod o-w" in said
    assert main(("doctor",)) == 1
    assert main(("doctor", "--fix")) == 0
    assert main(("post", "work", "x")) == 0
    assert root.stat().st_mode & 0o002 == 0


def test_a_folder_is_shared_only_with_the_setgid_bit_and_all_rights_of_its_group(place: Path) -> None:
    # A folder below one with the setgid bit inherits it, and is no less private for that.
    for mode in (0o700, 0o2700, 0o770, 0o775, 0o2750, 0o2770, 0o2775):
        place.chmod(mode)
        assert modes.of(place.stat()).is_shared is (mode in (0o2770, 0o2775)), oct(mode)


def test_root_is_kept_from_anothers_private_bus_and_locks_nobody_out_of_a_shared_one(place: Path, shared: Path) -> None:
    ALICE.does(lambda: layout.create(place / "own"))
    with pytest.raises(Untrusted, match="belongs to user"):
        open_bus(place / "own")
    with acting(shared, "root") as bus:
        bus.post("work", "of root")
    assert wrong(shared, group=GROUP) == []

    def act() -> None:
        with acting(shared, "bob") as bus:
            bus.ack(claimed(bus), "done")

    BOB.does(act)


# --- shared ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", UMASKS, ids=oct)
def test_two_users_of_a_group_do_everything_to_each_others_tasks_whatever_their_umasks(place: Path, umask: int) -> None:
    root = place / "bus"
    ALICE.does(lambda: layout.create(root, fs=Steps(), group=GROUP), umask)
    ALICE.does(lambda: private_verbs(root, "alice"), umask)
    BOB.does(lambda: others_verbs(root), umask)
    ALICE.does(lambda: answers(root), umask)
    for path in (root / "quarantine").glob("*"):
        if path.suffix != ".json":
            path.unlink()  # A stranger's bytes have the mode that they came with.
    assert wrong(root, group=GROUP) == []
    EVE.does(lambda: refused(root, Untrusted, f"shared with group {GROUP}"))


def others_verbs(root: Path) -> None:
    """Do as bob, to what alice left: claim, renew, finish, cancel, undo, retry, read, steps of plans, sweep, forget."""
    with acting(root, "bob") as bus:
        assert bus.store.records.touch("agents", "alice~0a0b0c0d"), "that a session is there, another user may note"
        assert bus.post("work", "task 0 of alice", key="0 of bob").created
        task = claimed(bus)
        assert "alice" in task.body.content
        bus.ack(bus.renew(task, lease_s=60), "done by bob")
        dead = next(bus.store.scan("work", State.DEAD)).id
        bus.discard(dead)
        bus.undo(dead)
        bus.retry(dead)
        bus.cancel(dead)
        bus.requeue(next(bus.store.scan("later", State.SCHEDULED)).id)
        bus.nack(claimed(bus, "later"), "not mine")
        (message,) = bus.mail.read()
        assert message.body.content == "hello"
        bus.mail.ack()
        bus.mail.send("@alice", "hello yourself")
        bus.ack(claimed(bus, "plans"), "a step of alice's plan")
        sweep(bus)
        assert [plan for plan in bus.store.records.names("plans") if conductor.advance(bus, plan)[1].over]
        pipes = Pipes(root, bus.source)
        end = pipes.reading("of-alice")
        writing = pipes.writing("of-alice")
        assert writing is not None
        assert writing.put(b"x")
        os.close(writing.fd)
        os.close(end.fd)
    with acting(root, "alice") as bus:  # An agent may run as either user.
        assert not bus.post("work", "task 1 of alice", key="1 of alice").created
    with acting(root, "bob", NEXT_MONTH) as bus:
        assert any("pruned" in line for line in sweep(bus))
    report = fsck.check(root)
    assert report.is_clean, report.anomalies


def answers(root: Path) -> None:
    with acting(root, "alice") as bus:
        assert [message.body.content for message in bus.mail.read()] == ["hello yourself"]
        bus.mail.ack()
        sweep(bus)


def at_each_step(work: Callable[[Fs], object], check: Callable[[], object], limit: int = 60) -> Iterator[int]:
    """Kill alice before each step of something, one run after another; give the step, until none is left."""
    for step in range(limit):
        pid = ALICE.start(partial(work, Signal(step, signal.SIGKILL)), 0o077)
        if ended(pid) == 0:
            return
        check()
        yield step
    pytest.fail("it never came to its end")


def test_what_one_user_left_when_killed_the_other_carries_on(shared: Path) -> None:
    with acting(shared, "root") as bus:
        bus.create_channel("work", backoff_s=0)

    def ack(fs: Fs) -> None:
        with acting(shared, "alice") as bus:
            bus.post("work", "x")
        with open_at(shared, fs, agent="alice", durable=False) as bus:
            bus.nack(claimed(bus), "not this time")  # Its line is written in place, not by way of tmp/.
            bus.ack(claimed(bus), "done by alice")

    def carry_on() -> None:
        with acting(shared, "bob", LATER) as bus:
            sweep(bus)
            while (task := bus.claim(["work"])) is not None:
                bus.ack(task, "done by bob")
            counts = bus.store.count("work")
            assert counts[State.DONE] == len(bus.store.ids()), counts
            assert all(bus.get(task_id).result is not None for task_id in bus.store.ids())

    steps = list(at_each_step(ack, lambda: BOB.does(carry_on, 0o077)))
    assert len(steps) >= 12
    assert [line for line in wrong(shared, group=GROUP) if "/attempts/" not in line] == []
    ALICE.does(partial(fsck.repair, shared, Means(Steps(), System(), lambda _looked: None)))
    assert wrong(shared, group=GROUP) == [], "what a kill left between a file and its mode, its owner mends"


def test_who_is_killed_while_making_a_file_that_all_append_to_stops_nobody_else(shared: Path) -> None:
    def append(fs: Fs) -> None:
        tree = Tree(shared, fs, System())
        fs.append("day.txt", tree.fd("tombstones"), b"a line\n")
        tree.close()

    def other() -> None:
        append(Steps())
        path = shared / "tombstones" / "day.txt"
        assert path.read_text().endswith("a line\n")
        assert [found.name for found in path.parent.iterdir()] == ["day.txt"]
        path.unlink()

    assert len(list(at_each_step(append, partial(BOB.does, other, 0o077)))) >= 4


def test_a_mode_that_cannot_be_set_is_told_and_leaves_nothing_behind(shared: Path) -> None:
    for fs in (Recorder(), Recorder()):  # The second makes no channel.
        with open_at(shared, fs, durable=False) as bus:
            bus.post("work", "x")
    steps = [number for number, op in enumerate(fs.trace) if op.call == "chmod" and op.path.startswith("tmp/")]
    before = {path.name for path in (shared / "tasks").iterdir()}
    assert steps
    for step in steps:
        with open_at(shared, Faulty(step, errno.EIO), durable=False) as bus, pytest.raises(StoreUnavailable):
            bus.post("work", "y")
    assert {path.name for path in (shared / "tasks").iterdir()} == before
    assert list((shared / "tmp").iterdir()) == []


def test_a_file_gets_its_mode_before_it_gets_a_name_that_means_something(shared: Path) -> None:
    fs = Recorder()
    with open_at(shared, fs, durable=False) as bus:
        bus.post("work", "x", key="k")
        bus.ack(claimed(bus), "done")
    made, fitted = set[str](), set[str]()
    for op in fs.trace:
        if op.call == "create":
            made.add(op.path)
        elif op.call == "chmod":
            fitted.add(op.path)
        elif op.call in ("link", "rename") and op.path in made:
            assert op.path in fitted, f"{op} before its mode"
    assert len(made) >= 3


def test_the_server_as_a_process_under_another_umask_locks_nobody_out(shared: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "mcp_bus", "serve"]
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
    call = {"name": "post_task", "arguments": {"channel": "work", "body": "from a server"}}
    requests: list[dict[str, Any]] = [
        {"id": 0, "method": "initialize", "params": hello},
        {"method": "notifications/initialized"},
        {"id": 1, "method": "tools/call", "params": call},
    ]
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "MCP_BUS_DIR": str(shared), "MCP_BUS_AGENT": "ann"}
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True, umask=0o077, cwd=tmp_path
    ) as server:  # fmt: skip
        assert server.stdin is not None
        assert server.stdout is not None
        for request in requests:
            server.stdin.write(json.dumps({"jsonrpc": "2.0", **request}) + "\n")
            server.stdin.flush()
            if "id" in request:
                assert "result" in json.loads(server.stdout.readline())
        server.stdin.close()
        assert server.wait(30) == 0
    assert wrong(shared, group=GROUP) == []

    def act() -> None:
        with acting(shared, "bob") as bus:
            task = claimed(bus)
            bus.ack(task, "done")
            assert task.body.content == "from a server"

    BOB.does(act, 0o077)
