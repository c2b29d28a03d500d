"""When the disk or the bus fails, each call says so, nothing is half done, and service goes on when it is over."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import mcp_bus.stores.file
from mcp_bus.model import State
from mcp_bus.stores import layout
from mcp_bus.stores.fsops import Fs
from tests.server.support import WAIT_S, Desk, desk, open_bus, process, serving, settings, snapshot, tasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp.client.stdio import StdioServerParameters

    from mcp_bus.bus import Bus
    from tests.server.support import Claim

pytestmark = pytest.mark.anyio

STRANGER = 12345
IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
# A root that permissions apply to: it loses CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH for good.
PR_CAPBSET_DROP = 24
DROP = f"""
import ctypes, os, sys
for capability in (1, 2):
    if ctypes.CDLL(None).prctl({PR_CAPBSET_DROP}, capability, 0, 0, 0):
        sys.exit("this process may not drop capabilities")
os.execv(sys.argv[1], sys.argv[1:])
"""

WRITES: dict[str, dict[str, Any]] = {
    "post_task": {"channel": "review", "body": "x"},
    "heartbeat": {"task": "{task}", "token": "{token}", "progress": "busy"},
    "submit_result": {"task": "{task}", "token": "{token}", "result": "fine"},
    "control_task": {"task": "{task}", "action": "cancel"},
}
READS: dict[str, dict[str, Any]] = {
    "list_channels": {},
    "get_task": {"task": "{task}"},
    "find_tasks": {"text": "look"},
    "await_results": {"tasks": ["{task}"]},
}


def of(claim: Claim, arguments: dict[str, Any]) -> dict[str, Any]:
    def fill(value: Any) -> Any:
        if isinstance(value, list):
            return [fill(item) for item in value]
        return {"{task}": claim.task, "{token}": claim.token}.get(value, value)

    return {name: fill(value) for name, value in arguments.items()}


# Deleted and made again


async def test_a_deleted_bus_is_said_to_be_gone_and_not_made_again(place: Path, era: str) -> None:
    async with desk(place, era) as ann:
        await ann.post()
        claim = await ann.claim()
        shutil.rmtree(place / "bus")
        for tool, arguments in {**WRITES, **READS, "claim_next": {}}.items():
            text = await ann.refused(tool, **of(claim, arguments))
            assert "no bus" in text or "not a bus" in text, (tool, text)
            assert "next: run `mcp-bus init`" in text
        assert not (place / "bus").exists()
        layout.create(place / "bus")
        await ann.post()
        assert (await ann.claim()).attempt == 1


@pytest.mark.parametrize("how", ["deleted", "moved"])
async def test_a_bus_that_was_made_anew_is_used_at_the_next_call(place: Path, era: str, how: str) -> None:
    async with desk(place, era) as ann:
        await ann.post("old")
        await ann.claim()
        if how == "deleted":
            shutil.rmtree(place / "bus")
        else:
            (place / "bus").rename(place / "aside")
        with open_bus(place) as bob:
            task = bob.post("new", "fresh").id[-8:]
            assert "new: 1 ready" in await ann.call("list_channels")
            claim = await ann.claim()
            assert claim.task == task
            assert "already hold" not in claim.text
            await ann.call("submit_result", **claim.mine, result="x")
            assert tasks(bob)[task].state is State.DONE
    if how == "moved":
        assert not list((place / "aside").glob("channels/new"))


async def test_nothing_is_written_to_a_bus_that_was_moved_away(place: Path, era: str) -> None:
    """Neither by a call, nor by one that waits, nor at the end of the session."""
    async with desk(place, era) as ann, anyio.create_task_group() as group:
        await ann.post("quick")
        claim = await ann.claim()
        await ann.call("send_message", to="@bob", body="x")

        async def wait() -> None:
            text = await ann.refused("claim_next", wait_s=20)
            assert "no bus" in text or "not a bus" in text

        group.start_soon(wait)
        await ann.call("list_channels")
        (place / "bus").rename(place / "aside")
        before = [(path, path.lstat().st_mtime_ns) for path in sorted((place / "aside").rglob("*"))]
        for _ in range(2):
            for tool, arguments in {**WRITES, **READS, "send_message": {"to": "@bob", "body": "y"}}.items():
                text = await ann.refused(tool, **of(claim, arguments))
                assert "no bus" in text or "not a bus" in text, (tool, text)
                assert "next: run `mcp-bus init`" in text
    assert [(path, path.lstat().st_mtime_ns) for path in sorted((place / "aside").rglob("*"))] == before
    assert not (place / "bus").exists()


@pytest.mark.parametrize("work", ["renew", "tend", "end"])
async def test_the_background_writes_nothing_to_a_bus_that_was_moved_away(
    place: Path, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    from mcp_bus import presence
    from mcp_bus.server import session

    monkeypatch.setattr(presence, "BEAT_S", 0.0)
    ann = session.Session(settings(place))
    bus = ann.bus()
    bus.post("review", "x")
    # Shorter than the channel's, so that it is due at once.
    assert bus.claim(lease_s=60) is not None
    (place / "bus").rename(place / "aside")
    before = [(path, path.lstat().st_mtime_ns) for path in sorted((place / "aside").rglob("*"))]
    getattr(ann, work)()
    assert [(path, path.lstat().st_mtime_ns) for path in sorted((place / "aside").rglob("*"))] == before
    ann.end()


async def test_a_wait_ends_with_an_error_when_the_bus_is_deleted(place: Path, era: str) -> None:
    async with desk(place, era) as ann:
        task = await ann.post("other")
        waits: dict[str, dict[str, Any]] = {"claim_next": {"channels": ["review"]}, "await_results": {"tasks": [task]}}

        async def wait(tool: str) -> None:
            with anyio.fail_after(5):
                assert "bus" in await ann.refused(tool, **waits[tool], wait_s=20)

        async with anyio.create_task_group() as group:
            for tool in waits:
                group.start_soon(wait, tool)
            await ann.call("list_channels")
            shutil.rmtree(place / "bus")
        assert "no bus" in await ann.refused("list_channels")


# Full


class FullFs(Fs):
    """A disk that is full as long as `is_full` is set."""

    is_full = False

    def _check(self, name: str) -> None:
        if FullFs.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)

    def open_new(self, name: str, at: int) -> int:
        self._check(name)
        return super().open_new(name, at)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        self._check("")
        return super().write(fd, data)

    def mkdir(self, name: str, at: int) -> None:
        self._check(name)
        super().mkdir(name, at)

    def link(self, src: str, src_at: int, dst: str, dst_at: int) -> None:
        self._check(dst)
        super().link(src, src_at, dst, dst_at)


@pytest.fixture
def fills_up(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    monkeypatch.setattr(mcp_bus.stores.file, "Fs", FullFs)
    monkeypatch.setattr(FullFs, "is_full", False)

    def fill(*, full: bool = True) -> None:
        FullFs.is_full = full

    return fill


async def test_a_full_disk_refuses_writes_serves_reads_and_loses_nothing(
    place: Path, era: str, bob: Bus, fills_up: Callable[..., None]
) -> None:
    async with desk(place, era) as ann:
        await ann.post("review", "look")
        claim = await ann.claim()
        fills_up()
        for tool, arguments in WRITES.items():
            if tool == "control_task":
                continue
            text = await ann.refused(tool, **of(claim, arguments))
            assert text.startswith("the disk that holds the bus is full"), (tool, text)
            assert text.endswith("next: free some space, then repeat the call")
        for tool, arguments in READS.items():
            await ann.call(tool, **of(claim, arguments))
        assert list(tasks(bob)) == [claim.task]
        assert tasks(bob)[claim.task].slot[2:5] == (State.LEASED, 0, 1)
        fills_up(full=False)
        await ann.call("submit_result", **claim.mine, result="fine")
        assert len(await ann.post()) == 8


async def test_a_disk_that_fails_in_the_background_does_not_end_the_session(
    place: Path, bob: Bus, fills_up: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mcp_bus.server import session

    monkeypatch.setattr(session, "TEND_S", 0.05)
    bob.create_channel("quick", lease_s=1, max_lease_s=60)
    async with desk(place, "auto") as ann:
        await ann.post("quick")
        claim = await ann.claim()
        fills_up()
        await anyio.sleep(0.6)
        await ann.call("get_task", task=claim.task)
        fills_up(full=False)
        await ann.call("submit_result", **claim.mine, result="fine")


# Places that cannot be used


async def test_a_place_that_cannot_be_made_is_refused_in_words(place: Path, era: str) -> None:
    (place / "file").write_text("")
    for spot in (place / "file" / "bus", Path("/proc/nowhere/bus"), place / "file"):
        async with desk(place, era, bus=str(spot)) as ann:
            for tool in ("list_channels", "claim_next"):
                await ann.refused(tool)
    assert (place / "file").read_text() == ""


@pytest.mark.parametrize("content", [b'{"format": 99}', b"\x00\xff", b"[]", b""])
async def test_a_bus_of_another_format_is_refused_and_left_alone(place: Path, era: str, content: bytes) -> None:
    layout.create(place / "bus")
    (place / "bus" / "bus.json").write_bytes(content)
    async with desk(place, era) as ann:
        text = await ann.refused("post_task", channel="x", body="y")
        assert "bus" in text
    assert (place / "bus" / "bus.json").read_bytes() == content
    assert not list((place / "bus" / "channels").iterdir())


@pytest.mark.skipif(not IS_ROOT, reason="only root can give a directory to somebody else")
async def test_a_bus_of_somebody_else_is_not_touched(place: Path, era: str) -> None:
    layout.create(place / "bus")
    os.chown(place / "bus", STRANGER, STRANGER)
    async with desk(place, era) as ann:
        text = await ann.refused("post_task", channel="x", body="y")
        assert f"belongs to user {STRANGER}, and this is user root (0)" in text
        assert "next: run as its owner" in text
    assert not list((place / "bus" / "channels").iterdir())


def unprivileged(place: Path) -> StdioServerParameters:
    """Return how to start a server that permissions apply to; without one the test says nothing, so it is skipped."""
    server = process(place)
    if not IS_ROOT:
        return server
    locked = place / "locked"
    locked.touch(mode=0o400)
    tried = subprocess.run(
        [sys.executable, "-c", DROP, sys.executable, "-c", f"open({str(locked)!r}, 'a')"],
        check=False,
        capture_output=True,
        timeout=WAIT_S,
    )
    if b"PermissionError" not in tried.stderr:
        pytest.skip(f"as root, permissions can be tested only without capabilities: {tried.stderr.decode()[-200:]}")
    return server.model_copy(update={"args": ["-c", DROP, server.command, *server.args]})


def locked(folder: Path) -> None:
    """Take the right to write away from everyone."""
    for path in [*sorted(folder.rglob("*"), reverse=True), folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)


async def test_a_read_only_bus_is_read_and_refuses_writes_in_words(place: Path, era: str) -> None:
    with open_bus(place) as bob:
        posted = bob.post("review", "look at it")
        before = {path: path.stat().st_mtime_ns for path in (place / "bus").rglob("*")}
    locked(place / "bus")
    async with serving(unprivileged(place), era) as ann:
        assert "review: 1 ready" in await ann.call("list_channels")
        assert "look at it" in await ann.call("get_task", task=posted.id)
        assert posted.id[-8:] in await ann.call("find_tasks", text="look")
        assert (await ann.call("await_results", tasks=[posted.id], wait_s=0.1)).startswith("0 of 1 ended")
        await refuses_writes(ann, posted.id)
    assert {path: path.stat().st_mtime_ns for path in (place / "bus").rglob("*")} == before


async def test_a_read_only_server_changes_not_a_byte_of_the_bus(place: Path, era: str, bob: Bus) -> None:
    bob.post("review", "due", delay_s=0.01)
    task = bob.post("review", "x").id
    manifest = place / "bus" / "manifest.json"
    async with desk(place, era, read_only=True) as ann:
        before = snapshot(place)
        assert "review:" in await ann.call("list_channels")
        await ann.call("await_results", tasks=[task], wait_s=0.1)
        await ann.call("get_task", task=task)
        assert snapshot(place) == before
        assert not manifest.exists()


async def test_a_read_only_server_makes_no_bus(place: Path, era: str) -> None:
    async with desk(place, era, read_only=True) as ann:
        assert "not a bus" in await ann.refused("list_channels") or not (place / "bus").exists()
    assert not (place / "bus").exists()


async def refuses_writes(ann: Desk, task: str) -> None:
    calls: dict[str, dict[str, Any]] = {
        "post_task": {"channel": "review", "body": "x"},
        "claim_next": {},
        "control_task": {"task": task, "action": "cancel"},
    }
    for tool, arguments in calls.items():
        text = await ann.refused(tool, **arguments)
        assert text.startswith("the bus may not be written by this user"), (tool, text)
        assert "next: check its owner and mode" in text


async def test_a_bus_behind_a_closed_door_is_refused_in_words(place: Path, era: str) -> None:
    """Neither what is there can be read, nor can it be told whether anything is there."""
    door = place / "closed"
    door.mkdir()
    layout.create(door / "bus")
    parameters = unprivileged(place)
    parameters.args[parameters.args.index("--bus") + 1] = str(door / "bus")
    door.chmod(0o000)
    async with serving(parameters, era) as ann:
        for tool in ("list_channels", "claim_next"):
            text = await ann.refused(tool)
            assert "Permission denied" in text, text
            assert "next: name another place" in text
    door.chmod(0o700)
