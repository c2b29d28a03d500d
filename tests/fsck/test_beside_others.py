"""fsck beside live processes, repairs that are killed at each step, and repairs at once."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from typing import TYPE_CHECKING

import pytest

from mcp_bus.clock import System
from mcp_bus.errors import Conflict, StoreUnavailable
from mcp_bus.fsck import Anomaly, Level, Means, check, fixes, repair
from mcp_bus.fsck.survey import Surveyor
from mcp_bus.recovery import sweep
from mcp_bus.stores.tree import Tree
from tests.crash import auditor
from tests.crash.victim import IS_SOAK, Faulty, Points, Recorder, Steps, copy, ended, fork, killed_at, open_at
from tests.fsck import hurt_rest, hurt_tasks
from tests.fsck.box import LATER, OTHER, WORK, Box, quiet, snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus.stores.fsops import Fs

LIVE_S = 6.0
WORKERS = 3


def worked(root: Path, agent: str, until: float) -> None:
    """Post, claim, finish, fail, release, cancel, send and prune as fast as it goes."""
    count = 0
    with open_at(root, Steps(durable=True), agent=agent) as bus:
        bus.roster.arrive(serves=[WORK])
        while time.monotonic() < until:
            count += 1
            posted = bus.post(WORK, f"{agent} {count}", key=f"{agent} {count}" if count % 2 else "")
            if count % 7 == 0:
                bus.cancel(posted.id)
            if count % 10 == 1:
                bus.mail.send("@bob", "hello")
            task = bus.claim([WORK])
            if task is not None:
                act = (bus.ack, bus.nack, bus.release)[count % 3]
                act(task, "x")
            if count % 20 == 0:
                sweep(bus)
        bus.roster.leave()


def test_a_healthy_bus_in_use_gives_no_false_alarm(disk: Path) -> None:
    box = Box.made(disk / "bus")
    until = time.monotonic() + LIVE_S
    pids = [fork(lambda name=name: worked(box.root, name, until)) for name in ("cat", "dan", "eve")[:WORKERS]]  # type: ignore[misc]  # a default argument in a lambda
    alarms, looks = list[object](), 0
    while time.monotonic() < until:
        report = check(box.root, source=System())
        looks += 1
        alarms += [item for item in report.anomalies if item.level is not Level.NOTE]
    assert [ended(pid) for pid in pids] == [0] * len(pids)
    assert alarms == []
    assert looks > 3
    assert check(box.root, source=System(LATER)).is_clean


def test_a_repair_beside_live_processes_takes_nothing_from_them(disk: Path) -> None:
    box = Box.made(disk / "bus")
    until = time.monotonic() + LIVE_S / 2
    pids = [fork(lambda name=name: worked(box.root, name, until)) for name in ("cat", "dan")]  # type: ignore[misc]  # a default argument in a lambda
    while time.monotonic() < until:
        repair(box.root, Means(Steps(), System(), quiet))
    assert [ended(pid) for pid in pids] == [0] * len(pids)
    box.repair()
    assert {*box.ids.values()} <= {*auditor.settled(box.root).states}


def wreck(root: Path) -> Box:
    """Do nearly everything at once that a repair mends."""
    box = Box.made(root)
    with open_at(root, durable=False) as bus:
        for name in ("copied", "moved", "orphan", "torn", "strange"):
            box.ids[name] = bus.post(WORK, name, key=name).id
    box.place("moved").rename(root / "channels" / OTHER / "requests" / box.place("moved").name)
    box.place("orphan").unlink()
    data = box.place("copied").read_bytes()
    box.place("copied").unlink()
    (root / "channels" / WORK / "requests" / f"{box.ids['copied']}.json").write_bytes(data)
    box.place("torn").write_bytes(b"{")
    data = box.place("strange").read_bytes().replace(b"strange", b"another")
    path = box.place("strange")
    path.unlink()
    path.write_bytes(data)
    hurt_tasks.two_states(box)
    shutil.copyfile(box.identity("cancelled"), root / "channels" / WORK / "requests" / box.identity("cancelled").name)
    hurt_rest.early_result(box)
    hurt_rest.no_key(box)
    hurt_tasks.cut_post(box)
    hurt_tasks.shared(box)
    hurt_tasks.missing_folder(box)
    hurt_tasks.in_the_way(box)
    box.identity("scheduled").unlink()
    return box


def expected(box: Box) -> dict[str, str]:
    made = dict.fromkeys(("ready", "copied", "moved", "orphan", "strange", "keyed"), "ready")
    made |= {name: name for name in ("cancelled", "done", "dead", "leased", "scheduled")}
    return {box.ids[name]: state for name, state in made.items()} | {hurt_tasks.NEW: "ready"}


def mended(root: Path, fs: Fs | None = None) -> None:
    repair(root, Means(fs or Steps(), System(LATER), quiet))


def sound(box: Box, root: Path, said: str) -> None:
    audit = auditor.sound(root)
    assert audit.states == expected(box), said
    assert audit.results == {box.ids["done"]: "the answer"}, said
    assert check(root, source=System(LATER)).is_clean, said


def test_a_wreck_is_mended_in_one_go(disk: Path) -> None:
    box = wreck(disk / "bus")
    assert len({item.kind for item in box.check().anomalies}) > 12
    mended(box.root)
    sound(box, box.root, "in one go")


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_a_repair_killed_at_any_step_is_finished_by_the_next(disk: Path, *, late: bool) -> None:
    box, steps = wreck(disk / "bus"), 0
    # Before a step is as after the one before it, but for what is kept open: a run of the tests tries every other one.
    stride = 1 if IS_SOAK else 2
    for said, root in Points(box.root, disk / "cut", mended, late=late, stride=stride):
        steps += 1
        mended(root)
        sound(box, root, said)
    assert steps > 60 // stride


def test_a_repair_killed_twice_is_finished_by_the_third(disk: Path) -> None:
    box = wreck(disk / "bus")
    for round_ in range(20):
        root, said = copy(box.root, disk / f"round-{round_}"), []
        for depth in range(2):
            step = (5 * round_ + 23 * depth) % 70
            said.append(str(killed_at(step, lambda fs, root=root: mended(root, fs))))  # type: ignore[misc]  # a default argument in a lambda
        mended(root)
        sound(box, root, " then ".join(said))
        shutil.rmtree(root)


def test_repairs_at_once_mend_everything_once(disk: Path) -> None:
    box = wreck(disk / "bus")
    for round_ in range(8):
        root = copy(box.root, disk / f"round-{round_}")
        pids = [fork(lambda root=root: mended(root)) for _ in range(3)]  # type: ignore[misc]  # a default argument in a lambda
        assert [ended(pid) for pid in pids] == [0] * 3
        mended(root)
        sound(box, root, f"three at once, round {round_}")
        shutil.rmtree(root)


def test_looking_makes_no_changing_call(disk: Path) -> None:
    box, fs = wreck(disk / "bus"), Recorder()
    before = snapshot(box.root)
    report = check(box.root, fs=fs, source=System(LATER))
    assert (fs.trace, snapshot(box.root)) == ([], before)
    assert not report.is_clean


def test_a_read_only_medium_is_looked_at_and_not_repaired(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = wreck(disk / "bus")
    before = snapshot(box.root)
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, how, **at: not how & os.W_OK and real(path, how, **at))
    assert not box.check().is_clean
    with pytest.raises(StoreUnavailable, match="read-only"):
        box.repair()
    assert snapshot(box.root) == before


def test_a_medium_that_fails_in_the_middle_is_told_and_gone_on_with_later(disk: Path) -> None:
    box = wreck(disk / "bus")
    for step in range(0, 60, 7):
        root = copy(box.root, disk / f"step-{step}")
        with pytest.raises(StoreUnavailable):
            repair(root, Means(Faulty(step, errno.EIO, sticky=True), System(LATER), quiet))
        mended(root)
        sound(box, root, f"failed at step {step}")
        shutil.rmtree(root)


def test_what_is_no_bus_is_refused(disk: Path) -> None:
    for path in (disk, disk / "nowhere"):
        with pytest.raises(StoreUnavailable, match=r"no bus|not a bus"):
            check(path)


def mender(root: Path) -> tuple[Tree, fixes.Mender]:
    tree = Tree(root, Steps(), System(LATER))
    return tree, fixes.Mender(Surveyor(tree, System(LATER), quiet), System(LATER), set())


def test_what_somebody_else_put_right_meanwhile_is_left_alone(disk: Path) -> None:
    box = wreck(disk / "bus")
    stale = box.check().anomalies
    mended(box.root)
    before = snapshot(box.root)
    tree, late = mender(box.root)
    said = list[str]()
    for item in stale:
        with contextlib.suppress(OSError, Conflict):
            said.append(late.mend(item))
    tree.close()
    assert {*said} == {""}
    assert snapshot(box.root).keys() == before.keys()
    sound(box, box.root, "after the second one, who came late")


def test_files_that_differ_are_not_made_one(disk: Path) -> None:
    box = Box.made(disk / "bus")
    place = hurt_tasks.other_body(box)
    before = snapshot(box.root)
    tree, late = mender(box.root)
    path = str(place.relative_to(box.root))
    assert late.mend(Anomaly("split", path, box.ids["ready"], other=f"tasks/{place.name}")) == ""
    tree.close()
    assert snapshot(box.root) == before


def test_a_done_task_gets_the_very_name_back_that_its_result_says(disk: Path) -> None:
    box = Box.made(disk / "bus")
    place = box.place("done")
    hurt_tasks.nameless(box)
    box.repair()
    assert box.place("done") == place


def test_nothing_is_written_over_by_a_task_that_goes_to_its_channel(disk: Path) -> None:
    box = Box.made(disk / "bus")
    target = box.place("dead")
    hurt_tasks.moved(box)
    [item] = [item for item in box.check().anomalies if item.kind == "wrong-channel"]
    target.write_text("somebody's")
    tree, late = mender(box.root)
    assert late.mend(item) == ""
    tree.close()
    assert target.read_text() == "somebody's"
