"""On a signed channel processes are killed at each call, and the power fails: nothing is lost or without signature."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from mcp_bus.bus import Bus
from mcp_bus.clock import System
from mcp_bus.errors import LeaseLost
from mcp_bus.model import State
from mcp_bus.recovery import sweep
from mcp_bus.signing.guard import Guard
from mcp_bus.stores import layout
from mcp_bus.stores.file import FileStore
from tests.crash.power import Disk, Trace
from tests.crash.victim import HOUR, Points, Recorder, Steps, identity
from tests.fakes import RecordingFs
from tests.security.conftest import CHANNEL, World

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus.stores.fsops import Fs


class Rig:
    """A bus with a signed channel, and its user; copies of the bus count as the bus."""

    def __init__(self, disk: Path) -> None:
        self.start, self.home, self.scratch = disk / "start", disk / "home", disk / "scratch"
        layout.create(self.start, fs=Steps())
        with self.open(self.start, Steps(), "planner") as bus:
            for agent in ("planner", "worker"):
                bus.store.guard.make(agent)  # type: ignore[union-attr]  # it is the real one
            bus.create_channel(CHANNEL, signed=True, backoff_s=0)
            bus.post(CHANNEL, "before")
        with self.open(self.start, Steps(), "worker") as bus:
            bus.ack(bus.claim([CHANNEL]) or pytest.fail("nothing to claim"), "before")

    def open(self, root: Path, fs: Fs, agent: str, *, offset: int = 0, durable: bool = True) -> Bus:
        source = System(offset)

        def keys(bus: str) -> Guard:
            return Guard(self.home, bus, self.start, source)

        return Bus(FileStore(root, fs=fs, source=source, durable=durable, keys=keys), identity(agent), source)

    def forget(self) -> None:
        """Forget which tasks were finished."""
        shutil.rmtree(next(self.home.glob("trust/bus_*")) / "over", ignore_errors=True)

    def drain(self, root: Path, *, offset: int = 0) -> list[str]:
        """Sweep, work everything off, and return what was handed out."""
        got = list[str]()
        with self.open(root, Steps(), "worker", offset=offset) as bus:
            sweep(bus)
            while (task := bus.claim([CHANNEL])) is not None:
                assert task.verified.startswith("planner (")
                got.append(task.body.content)
                bus.ack(task, "drained")
        return got

    def check(self, root: Path, *, most: int) -> dict[str, str]:
        """Assert that nothing was put aside, all that is done is verified; return results by content."""
        assert list((root / "quarantine").iterdir()) == []
        made = dict[str, str]()
        with self.open(root, Steps(), "planner", offset=3 * HOUR) as bus:
            ids = bus.store.ids()
            for task_id in ids:
                task = bus.get(task_id)
                assert task.state is State.DONE
                assert task.proof is not None
                assert not task.proof.doubt
                assert task.result is not None
                made[task.body.content] = task.result.content
            assert len(ids) <= most
            sweep(bus)
            sealed = {path.name.split(".")[0] for path in (root / "signatures").iterdir()}
            assert sealed == set(ids), "signatures of nothing are gone after a while"
        return made


@pytest.fixture
def rig(disk: Path) -> Rig:
    return Rig(disk)


def _post(rig: Rig, root: Path, fs: Fs) -> None:
    with rig.open(root, fs, "planner") as bus:
        bus.post(CHANNEL, "x", key="k")


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_a_post_that_is_killed_anywhere_is_made_once_by_its_repetition(rig: Rig, *, late: bool) -> None:
    count = 0
    for at, root in Points(rig.start, rig.scratch, lambda *a: _post(rig, *a), late=late):
        count += 1
        _post(rig, root, Steps())
        assert rig.drain(root, offset=10_000) == ["x"], at
        assert rig.drain(root, offset=2 * HOUR) == [], at
        assert rig.check(root, most=2) == {"before": "before", "x": "drained"}, at
    assert count >= 10


@pytest.mark.parametrize(("back", "late"), [(0, False), (0, True), (10_000, False), (3 * HOUR, False)])
def test_a_result_that_is_killed_anywhere_is_there_once_and_verified(rig: Rig, back: int, *, late: bool) -> None:
    with rig.open(rig.start, Steps(), "planner") as bus:
        bus.post(CHANNEL, "x")
    with rig.open(rig.start, Steps(), "worker") as bus:
        ticket = (bus.claim([CHANNEL], lease_s=3600) or pytest.fail("nothing to claim")).ticket

    def work(root: Path, fs: Fs) -> None:
        with rig.open(root, fs, "worker") as bus:
            bus.ack(ticket, "answer")

    count = 0
    for at, root in Points(rig.start, rig.scratch, work, late=late):
        count += 1
        rig.forget()  # Each copy is another bus, which has not seen what became of the one before.
        if back:
            with rig.open(root, Steps(), "planner", offset=back) as bus:
                sweep(bus)
        with rig.open(root, Steps(), "worker", offset=back) as bus:
            try:
                assert bus.ack(ticket, "answer").content == "answer", at
            except LeaseLost:
                assert back, at
        rig.drain(root, offset=back + 2 * HOUR)
        assert rig.check(root, most=2)["x"] in ("answer", "drained"), at
    assert count >= 10


@pytest.mark.parametrize("model", ["journalled", "pessimistic"])
@pytest.mark.parametrize("what", ["post", "ack"])
def test_after_a_power_cut_what_is_there_is_signed_and_what_was_acknowledged_is_there(
    rig: Rig, disk: Path, what: str, model: str
) -> None:
    if what == "ack":
        with rig.open(rig.start, Steps(), "planner") as bus:
            bus.post(CHANNEL, "x")
    start, fs = Disk.of(rig.start), Recorder()
    with rig.open(rig.start, fs, "planner" if what == "post" else "worker") as bus:
        if what == "post":
            bus.post(CHANNEL, "x")
        else:
            bus.ack(bus.claim([CHANNEL]) or pytest.fail("nothing to claim"), "answer")
        told = len(fs.trace)
    trace, seen = Trace(start, fs.trace), set[object]()
    for calls, image in trace.journalled() if model == "journalled" else trace.pessimistic(limit=64):
        is_held = (trace.last_sync(told) if model == "journalled" else told) <= calls
        if (image.key(), is_held) in seen:
            continue
        seen.add((image.key(), is_held))
        root = image.write_to(disk / "after")
        rig.forget()  # What is remembered in the private folder was written after all of this.
        rig.drain(root, offset=10_000)
        rig.drain(root, offset=2 * HOUR)
        results = rig.check(root, most=2)
        assert results.keys() == {"before", "x"} if is_held or what == "ack" else results.keys() <= {"before", "x"}
        assert not (is_held and what == "ack") or results["x"] == "answer"
        shutil.rmtree(root)
    assert len(seen) >= 5


@pytest.fixture
def recorded() -> RecordingFs:
    return RecordingFs()


def test_the_signature_is_durable_before_what_it_is_of_has_a_name(world: World, recorded: RecordingFs) -> None:
    bus = world.bus(fs=recorded)
    bus.store.durable = bus.store.tree.sync = True  # type: ignore[misc,attr-defined]  # as a user's would be
    bus.post(CHANNEL, "warm")
    recorded.calls.clear()
    i = bus.post(CHANNEL, "x").id
    calls = [call for call in recorded.calls if " journal" not in call]
    assert calls[:3] == [f"create signatures/{i}.jws", f"fsync signatures/{i}.jws", "fsync signatures"]
    assert calls[3].startswith(f"create tmp/{i}.")
    worker = world.bus("worker", fs=recorded)
    worker.store.durable = worker.store.tree.sync = True  # type: ignore[misc,attr-defined]  # as above
    task = worker.claim([CHANNEL]) or pytest.fail("nothing to claim")
    recorded.calls.clear()
    worker.ack(task, "y")
    calls = [call for call in recorded.calls if " journal" not in call]
    assert [call.split("/")[0] for call in calls[:4]] == [
        "create signatures", "fsync signatures", "fsync signatures", "create tmp",
    ]  # fmt: skip
    said = json.loads((world.root / "channels" / CHANNEL / "responses" / f"{task.id}.json").read_text())
    assert said["result"] == "y"
