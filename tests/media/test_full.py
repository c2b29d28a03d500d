"""A disk that is full, out of inodes or suddenly read-only: a clear error, no false word, and then it goes on (P14)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mcp_bus.cli.codes import ERROR
from mcp_bus.config import open_bus
from mcp_bus.errors import StoreUnavailable
from mcp_bus.recovery import sweep
from mcp_bus.stores import layout
from mcp_bus.stores.file import FileStore
from mcp_bus.stores.fsops import Fs
from tests.crash import auditor
from tests.crash.test_kill_verbs import CHANNEL, VERBS, check, repeat, worked_off
from tests.crash.victim import Steps, copy, open_at, refusal
from tests.media.mounts import MIB

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.media.mounts import Medium

# How much of what a verb needs is free: it must fail at each of its calls that takes some.
FREE = range(6)
# What is set aside for a bus before the disk is filled up again.
ROOM = {"blocks": 300, "inodes": 120}
MOST = 10_000


class Ballast:
    """Takes all that is free on a file system, and gives some of it back."""

    def __init__(self, medium: Medium, kind: str) -> None:
        self._at = medium.point / "ballast"
        self._at.mkdir()
        self._kind = kind
        self._block = os.statvfs(medium.point).f_frsize
        self._count = 0

    def fill(self) -> None:
        take = self._blocks if self._kind == "blocks" else self._inodes
        for _ in range(2):  # What a commit of the journal makes free is taken as well.
            take()
            self._commit()

    def free(self, count: int) -> None:
        """Give back so many blocks or inodes."""
        if self._kind == "blocks":
            file = self._at / "blocks"
            os.truncate(file, max(0, file.stat().st_size - count * self._block))
        for _ in range(count if self._kind == "inodes" else 0):
            self._count -= 1
            (self._at / str(self._count)).unlink()
        self._commit()

    def _blocks(self) -> None:
        fd = os.open(self._at / "blocks", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            for size in (256 * self._block, self._block):
                _take(fd, size)
        finally:
            os.close(fd)

    def _inodes(self) -> None:
        with suppress(OSError):
            while self._count < MOST:
                (self._at / str(self._count)).touch(exist_ok=False)
                self._count += 1

    def _commit(self) -> None:
        fd = os.open(self._at, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _take(fd: int, size: int) -> None:
    with suppress(OSError):
        while os.write(fd, b"\0" * size):
            pass


@pytest.fixture(params=["blocks", "inodes"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def medium(mount: Callable[..., Medium], kind: str) -> Medium:
    # No blocks are kept back for root, who runs this.
    options = ("-m", "0", *(("-N", "256") if kind == "inodes" else ()))
    return mount("ext4", *options, size=16 * MIB)


@pytest.fixture
def ballast(medium: Medium, kind: str) -> Ballast:
    return Ballast(medium, kind)


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_on_a_full_disk_is_done_or_refused_and_done_once_when_there_is_room(
    tmp_path: Path, medium: Medium, ballast: Ballast, kind: str, name: str
) -> None:
    verb, said = VERBS[name], list[str]()
    layout.create(tmp_path / "start", fs=Steps())
    with open_at(tmp_path / "start") as bus:
        ticket = verb.prepare(bus)
    for free in FREE:
        ballast.fill()
        ballast.free(ROOM[kind])
        root = copy(tmp_path / "start", medium.point / "bus")
        ballast.fill()
        ballast.free(free)
        with open_at(root, Fs()) as bus:
            error = refusal(lambda bus=bus: verb.request(bus, ticket))  # type: ignore[misc]  # a default argument in a lambda
        said.append("refused" if error else "done")
        where = f"{name} with {free} {kind} free: {error!r}"
        assert error is None or (isinstance(error, StoreUnavailable) and "full" in str(error) and error.hint), where
        ballast.free(ROOM[kind])
        repeat(verb, root, ticket, offset=0, said=where)
        worked_off(root)
        check(verb, root, ticket, where)
        shutil.rmtree(root)
    assert (said[0] == "done") is (name in FREE_OF_CHARGE), said
    print(f"{name}: {' '.join(said)}")


# Moves that are one rename, without a line of history, go on when nothing at all is free.
FREE_OF_CHARGE = {"claim", "renew", "reprioritise"}


@pytest.fixture
def busy(medium: Medium) -> Path:
    """A bus with a task that is held, one whose lease lapsed, one that is due, one that expired and one that waits."""
    root = medium.point / "bus"
    layout.create(root)
    with open_at(root) as bus:
        bus.create_channel(CHANNEL, backoff_s=0)
        bus.post(CHANNEL, "held")
        bus.claim([CHANNEL], lease_s=7000)
        bus.post(CHANNEL, "lapsed")
        bus.claim([CHANNEL], lease_s=60)
        bus.post(CHANNEL, "due", delay_s=60)
        bus.post(CHANNEL, "expired", ttl_s=60)
        bus.post(CHANNEL, "waits", priority=1)
    return root


def test_a_worker_on_a_full_disk_keeps_its_task_and_delivers_when_there_is_room(busy: Path, ballast: Ballast) -> None:
    with open_bus(busy, agent="worker", create=False) as bus:  # It sweeps by itself, as every program does.
        ballast.fill()
        task = bus.claim([CHANNEL])
        assert task is not None, "a claim needs no room"
        for _ in range(3):
            with pytest.raises(StoreUnavailable, match="is full") as refusal:
                bus.ack(task, "the result " * 1000)
            assert refusal.value.hint == "free some space, then repeat the call"
            bus.renew(task)
        with pytest.raises(StoreUnavailable, match="is full"):
            bus.mail.send("@bob", "x")
        assert auditor.sound(busy).results == {}
        ballast.free(60)
        bus.ack(task, "the result " * 1000)
    worked_off(busy)
    assert auditor.settled(busy).results[task.id] == "the result " * 1000


@pytest.mark.parametrize("kind", ["blocks"], indirect=True)
def test_a_text_that_fits_only_in_part_is_refused_whole(busy: Path, ballast: Ballast) -> None:
    text = "a long text " * 5000
    with open_at(busy, Fs()) as bus:
        task = bus.claim([CHANNEL])
        assert task is not None
        for free in (8, 16, 32):
            ballast.fill()
            ballast.free(free)
            before = auditor.sound(busy).names
            with pytest.raises(StoreUnavailable, match="is full"):
                bus.post(CHANNEL, text)
            with pytest.raises(StoreUnavailable, match="is full"):
                bus.ack(task, text)
            audit = auditor.settled(busy)
            assert (audit.names, audit.results) == (before, {}), "not a part of it is left"
        ballast.free(200)
        bus.ack(task, text)
    assert auditor.sound(busy).results == {task.id: text}


def test_a_sweep_on_a_full_disk_does_what_needs_no_room_and_the_next_one_the_rest(busy: Path, ballast: Ballast) -> None:
    ballast.fill()
    with open_at(busy, Fs(), offset=600_000) as bus:
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="is full"):
                sweep(bus)
        counted = auditor.sound(busy).count()
        assert counted["ready"] >= 2, "the one that was due is ready"
        assert sum(counted.values()) == 5
        ballast.free(60)
        sweep(bus)
    assert auditor.sound(busy).count() == {"leased": 1, "ready": 3, "expired": 1}
    worked_off(busy)
    assert auditor.settled(busy).count() == {"done": 4, "expired": 1}


def test_the_command_line_says_that_the_disk_is_full(busy: Path, ballast: Ballast) -> None:
    ballast.fill()
    done = subprocess.run(
        [sys.executable, "-m", "mcp_bus", "--bus", busy, "post", CHANNEL, "x"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == ERROR
    assert "the disk that holds the bus is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert auditor.sound(busy).count().total() == 5


def fails_itself(medium: Medium) -> None:
    """Let the kernel find an error: it makes the file system read-only whoever has it open."""
    Path(f"/sys/fs/ext4/{medium.device}/trigger_fs_error").write_text("1\n", encoding="ascii")


# How a file system becomes read-only under an open bus, and how it becomes well again.
READ_ONLY: dict[str, tuple[Callable[[Medium], None], Callable[[Medium], None]]] = {
    "by an operator": (lambda medium: medium.remount("ro"), lambda medium: medium.remount("rw")),
    "by an error of its own": (fails_itself, lambda medium: medium.reboot()),
}


@pytest.mark.parametrize("how", READ_ONLY)
def test_a_bus_that_becomes_read_only_while_open_refuses_shows_and_then_goes_on(
    mount: Callable[..., Medium], how: str
) -> None:
    medium, (break_, mend) = mount("ext4", size=16 * MIB, how="loop,errors=remount-ro"), READ_ONLY[how]
    root = medium.point / "bus"
    layout.create(root)
    with open_bus(root, agent="worker", create=False) as bus:
        waits = bus.post(CHANNEL, "x", key="k")
        held = bus.claim([CHANNEL])
        assert held is not None
        bus.post(CHANNEL, "y")
        assert isinstance(bus.store, FileStore)
        bus.store.journal.close()  # It would be closed a second later; until then no operator could do this.
        break_(medium)
        for verb in (
            lambda: bus.post(CHANNEL, "z"),
            lambda: bus.post("new", "z"),
            lambda: bus.claim([CHANNEL]),
            lambda: bus.renew(held, lease_s=3000),
            lambda: bus.ack(held, "done"),
            lambda: bus.nack(held, "no"),
            lambda: bus.cancel(waits.id),
            lambda: bus.mail.send("@bob", "x"),
            lambda: sweep(bus),
        ):
            with pytest.raises(StoreUnavailable, match="read-only") as refusal:
                verb()
            assert refusal.value.hint
        assert bus.get(waits.id).state == "leased", "it can still be read"
    mend(medium)
    with open_bus(root, agent="worker", create=False) as bus:
        assert bus.ack(held.ticket, "done").content == "done"
        assert bus.post(CHANNEL, "x", key="k").id == waits.id
    worked_off(root)
    assert auditor.settled(root).count() == {"done": 2}
