"""The sweep is killed at each of its steps, and the sweep after it too; the last one brings all to order (P10)."""

from __future__ import annotations

import contextlib
import json
import shutil
from typing import TYPE_CHECKING, NamedTuple

import pytest

from mcp_bus.errors import Conflict, Gone
from mcp_bus.recovery import sweep
from mcp_bus.stores import layout
from tests.crash import auditor
from tests.crash.test_kill_verbs import CHANNEL, drained
from tests.crash.victim import DAY, HOUR, IS_SOAK, Points, Steps, copy, cut_off, ended, fork, killed_at, open_at

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mcp_bus.bus import Bus
    from mcp_bus.model import Task
    from mcp_bus.stores.fsops import Fs

LATER = 20 * DAY


class Wreck(NamedTuple):
    """A bus on which everything a sweep mends is broken, and what must come of it."""

    root: Path
    states: dict[str, str]
    results: dict[str, str]
    pruned: list[str]


def claim(bus: Bus, lease_s: float) -> Task:
    task = bus.claim([CHANNEL], lease_s=lease_s)
    assert task is not None
    return task


def cut_ack(root: Path, bus: Bus, call: str, folder: str) -> tuple[str, str]:
    """Post, claim, and ack in a process that dies on the way; return id and answer."""
    bus.post(CHANNEL, folder)
    task, answer = claim(bus, LATER / 1000 + 3600), f"cut off in {folder}"

    def work(fs: Fs) -> None:
        with open_at(root, fs) as own:
            own.ack(task.ticket, answer)

    cut_off(call, folder, work)
    return task.id, answer


def cut_post(root: Path, key: str, call: str, folder: str) -> None:
    def work(fs: Fs) -> None:
        with open_at(root, fs) as bus:
            bus.post(CHANNEL, "cut off", key=key)

    cut_off(call, folder, work)


def wreck(root: Path) -> Wreck:
    """Break all there is to break."""
    layout.create(root, fs=Steps())
    states, results, pruned = dict[str, str](), dict[str, str](), list[str]()
    with open_at(root) as bus:
        bus.create_channel(CHANNEL, retention_days=14)
        for key in ("", "old"):
            ids = bus.post(CHANNEL, "to be pruned", key=key)
            task = claim(bus, 60)
            bus.renew(task)
            bus.ack(task, "long ago") if key else bus.cancel(ids.id)
            pruned.append(ids.id)
        held = [cut_ack(root, bus, "rename", "staged")]  # Staged, the lease stands.
        results |= dict(held)
        bus.post(CHANNEL, "lapses", backoff_s=0)
        states[claim(bus, 60).id] = "ready"
        bus.post(CHANNEL, "lapses for the last time", max_attempts=1)
        states[claim(bus, 60).id] = "dead"
        states[bus.post(CHANNEL, "due", delay_s=60).id] = "ready"
        states[bus.post(CHANNEL, "expires", ttl_s=60).id] = "expired"
    for key, call, folder in (("a", "link", "keys"), ("b", "link", "tasks"), ("c", "create", "tmp")):
        cut_post(root, key, call, folder)
    lay_foreign(root)
    return Wreck(root, states | dict.fromkeys(results, "done"), results, pruned)


def lay_foreign(root: Path) -> None:
    """Put a valid message under a strange name, and one that is none, where tasks wait."""
    message: dict[str, object] = {
        "id": "req_" + "0" * 10 + "ab" * 10,
        "version": "1.0.0",
        "type": "task",
        "to": CHANNEL,
    }
    message |= {"from": {"agent": "abq", "pid": 1, "pwd": ""}, "content": "x", "timestamp": "2026-01-01T00:00:00Z"}
    requests = root / "channels" / CHANNEL / "requests"
    (requests / "from afar.json").write_text(json.dumps(message))
    (requests / "no message.json").write_text("{")


def swept(root: Path, fs: Fs | None = None) -> None:
    with open_at(root, fs, agent="sweeper", offset=LATER) as bus:
        sweep(bus)


def swept_beside_others(root: Path) -> None:
    """Sweep; by a clock that is days ahead the drafts of other sweeps look abandoned, and are lost to them."""
    with contextlib.suppress(Conflict):
        swept(root)


def check(broken: Wreck, root: Path, said: str) -> None:
    """The last sweep was not cut off: everything is where it should be."""
    swept(root)
    audit = auditor.settled(root)
    for task_id, state in broken.states.items():
        assert audit.states[task_id] == state, f"{said}: {task_id} is {audit.states[task_id]}, not {state}"
    assert audit.results == broken.results, said
    assert [auditor.traces_of(root, task_id) for task_id in broken.pruned] == [[], []], said
    # The two posts past their uniqueness point, the message from afar, the lapsed one, the one that was due.
    assert audit.count() == {"ready": 5, "dead": 1, "expired": 1, "done": len(broken.results)}, said
    assert len(list((root / "quarantine").glob("*.json"))) >= 1, said
    with open_at(root, offset=LATER) as bus:
        for task_id in broken.pruned:
            with pytest.raises(Gone):
                bus.get(task_id)
        for key in "abc":
            bus.post(CHANNEL, "cut off", key=key)
        bus.post(CHANNEL, "to be pruned", key="old")
    assert auditor.settled(root).count()["ready"] == 5 + 2, f"{said}: c was cut off before it was a task, old is new"


@pytest.fixture
def broken(disk: Path) -> Wreck:
    return wreck(disk / "bus")


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_a_sweep_killed_at_any_step_is_finished_by_the_next(disk: Path, broken: Wreck, *, late: bool) -> None:
    steps = 0
    stride = 1 if IS_SOAK else 2
    for said, root in Points(broken.root, disk, swept, late=late, stride=stride):
        steps += 1
        check(broken, root, said)
    assert steps > 50 // stride


@pytest.mark.parametrize(("first", "stride"), [(1, 7), (4, 9)])
def test_a_sweep_killed_while_it_mends_after_a_killed_sweep_is_finished_by_the_next(
    disk: Path, broken: Wreck, first: int, stride: int
) -> None:
    points = 0
    for outer, once in Points(broken.root, disk, swept, stride=stride, first=first):
        scratch = disk / "deeper"
        for inner, root in Points(once, scratch, swept, stride=13, first=points % 13):
            points += 1
            check(broken, root, f"{outer}, then {inner}")
        shutil.rmtree(scratch, ignore_errors=True)
    assert points > 20


def test_a_sweep_killed_three_times_over_is_finished_by_the_next(disk: Path, broken: Wreck) -> None:
    for round_ in range(12):
        root, said = copy(broken.root, disk / f"round-{round_}"), []
        for depth in range(3):
            step = (5 + 11 * round_ + 17 * depth) % (60 - 15 * depth)
            said.append(str(killed_at(step, lambda fs, root=root: swept(root, fs))))  # type: ignore[misc]  # a default argument in a lambda
        check(broken, root, " then ".join(said))
        shutil.rmtree(root)


def test_sweeps_at_once_mend_everything_once(disk: Path, broken: Wreck) -> None:
    for round_ in range(6):
        root = copy(broken.root, disk / f"round-{round_}")
        pids = [fork(lambda root=root: swept_beside_others(root)) for _ in range(4)]  # type: ignore[misc]  # as above
        assert [ended(pid) for pid in pids] == [0] * 4
        check(broken, root, f"four sweeps at once, round {round_}")
        shutil.rmtree(root)


def restored(root: Path, fs: Fs | None = None) -> None:
    """Sweep as the first one does after the machine started."""
    with open_at(root, fs, agent="sweeper", offset=10_000) as bus:
        sweep(bus)


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_the_restore_after_a_start_killed_at_any_step_is_finished_by_the_next(disk: Path, *, late: bool) -> None:
    root = forgetful(disk / "bus", lambda path: shutil.rmtree(path / "boots", ignore_errors=True))
    for said, crashed in Points(root, disk, restored, late=late):
        restored(crashed)
        assert auditor.sound(crashed).count() == {"ready": 3, "scheduled": 1}, said
        drained(crashed, offset=6 * HOUR)
        assert auditor.settled(crashed).count() == {"done": 4}, said


def test_restores_at_once_give_each_task_one_place(disk: Path) -> None:
    root = forgetful(disk / "bus", lambda path: shutil.rmtree(path / "boots", ignore_errors=True), tasks=40)
    for round_ in range(5):
        crashed = copy(root, disk / f"round-{round_}")
        pids = [fork(lambda at=crashed: restored(at)) for _ in range(6)]  # type: ignore[misc]  # a default argument in a lambda
        assert [ended(pid) for pid in pids] == [0] * 6
        assert auditor.settled(crashed).count() == {"ready": 40, "scheduled": 1}, round_
        shutil.rmtree(crashed)


def forgetful(root: Path, boot: Callable[[Path], object], *, tasks: int = 3) -> Path:
    """Make a bus whose tasks lost their places, as a power cut may do to names that were not synced."""
    layout.create(root, fs=Steps())
    with open_at(root) as bus:
        for number in range(tasks):
            bus.post(CHANNEL, "x", key=f"k{number}" if number % 3 == 0 else "")
        bus.post(CHANNEL, "later", delay_s=3600)
    for part in ("requests", "delayed"):
        for path in (root / "channels" / CHANNEL / part).iterdir():
            path.unlink()
    boot(root)
    return root
