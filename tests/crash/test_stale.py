"""A worker is stopped at each step between claim and ack, and comes back when its lease is long gone (P5)."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from mcp_bus.errors import LeaseLost
from mcp_bus.recovery import sweep
from mcp_bus.stores import layout
from tests.crash import auditor
from tests.crash.test_kill_verbs import CHANNEL
from tests.crash.victim import HOUR, DieAfter, Signal, Steps, copy, cut_off, ended, fork, open_at
from tests.tally import STOPS, tried

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.crash.victim import Op

FIRST, SECOND = "of the first worker", "of the second worker"
DONE, LOST, NOTHING = 0, 3, 4


def work(root: Path, step: int) -> int:
    """Claim and ack; stop at a step."""
    with open_at(root, Signal(step, signal.SIGSTOP), agent="first") as bus:
        task = bus.claim([CHANNEL], lease_s=60)
        if task is None:
            return NOTHING
        try:
            bus.ack(task, FIRST)
        except LeaseLost:
            return LOST
    return DONE


def stopped(start: Path, scratch: Path) -> Iterator[tuple[int, int, Path]]:
    """Give a stopped worker for each step: step, pid, and its copy of the bus."""
    for step in range(200):
        root = copy(start, scratch / f"step-{step}")
        pid = fork(lambda root=root, step=step: work(root, step))  # type: ignore[misc]  # defaults in a lambda
        _, status = os.waitpid(pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            assert os.waitstatus_to_exitcode(status) == DONE
            assert step > 8, "there are more steps than that between claim and ack"
            return
        tried(STOPS)
        yield step, pid, root


@pytest.fixture
def start(disk: Path) -> Path:
    root = disk / "bus"
    layout.create(root, fs=Steps())
    with open_at(root) as bus:
        bus.post(CHANNEL, "x", backoff_s=0)
    return root


def second(root: Path) -> bool:
    """Two hours later: sweep, and finish the task if it is there to be had."""
    with open_at(root, agent="second", offset=2 * HOUR) as bus:
        sweep(bus)
        task = bus.claim([CHANNEL])
        if task is None:
            return False
        bus.ack(task, SECOND)
        return True


def test_a_worker_stopped_at_any_step_cannot_publish_after_another_did(disk: Path, start: Path) -> None:
    seen = set()
    for step, pid, root in stopped(start, disk):
        was_second = second(root)
        before = auditor.look(root)
        os.kill(pid, signal.SIGCONT)
        code = ended(pid)
        audit = auditor.sound(root)
        seen.add((was_second, code))
        task_id = next(iter(audit.states))
        assert audit.states == {task_id: "done"}, step
        if was_second:
            assert code in {LOST, NOTHING}, f"step {step}: the first worker was told it had finished"
            assert before.results == audit.results == {task_id: SECOND}, step
        else:
            assert code == DONE, f"step {step}: its result was carried on for it"
            assert audit.results == {task_id: FIRST}, step
        if code == LOST:
            kept = [auditor.load(path)["result"] for path in (root / "rejected").iterdir()]
            assert set(kept) == {FIRST}, f"step {step}: the late result is kept for a person"
    assert seen == {(True, LOST), (True, NOTHING), (False, DONE)}


@pytest.mark.parametrize("is_taken", [True, False], ids=["another holds it", "nobody has it"])
def test_a_worker_stopped_at_any_step_cannot_publish_once_its_lease_lapsed(
    disk: Path, start: Path, *, is_taken: bool
) -> None:
    lost = 0
    for step, pid, root in stopped(start, disk):
        with open_at(root, agent="second", offset=2 * HOUR) as bus:
            sweep(bus)
            task = bus.claim([CHANNEL]) if is_taken else None
        before = auditor.look(root)
        os.kill(pid, signal.SIGCONT)
        code = ended(pid)
        audit = auditor.sound(root)
        if code == LOST:
            lost += 1
            assert audit.results == {}, f"step {step}: published under a lease that was lost"
            assert audit.names == before.names, f"step {step}: moved a task it does not hold"
            assert list((root / "rejected").iterdir()), step
        if task is not None:
            with open_at(root, agent="second", offset=2 * HOUR) as bus:
                bus.ack(task.ticket, SECOND)
            assert list(auditor.settled(root).results.values()) == [SECOND], step
    assert lost >= 4


def test_a_worker_that_comes_back_before_its_lease_lapsed_finishes(disk: Path, start: Path) -> None:
    for step, pid, root in stopped(start, disk):
        with open_at(root, agent="second") as bus:
            sweep(bus)
        os.kill(pid, signal.SIGCONT)
        assert ended(pid) == DONE, step
        audit = auditor.sound(root)
        assert list(audit.results.values()) == [FIRST], step
        assert list((root / "rejected").iterdir()) == [], step


@pytest.mark.parametrize("verb", ["renew", "nack", "release", "block"])
def test_a_stale_worker_changes_nothing_by_any_verb(start: Path, verb: str) -> None:
    with open_at(start, agent="first") as bus:
        task = bus.claim([CHANNEL], lease_s=60)
        assert task is not None
        with open_at(start, agent="sweeper", offset=HOUR) as later:
            sweep(later)
            other = later.claim([CHANNEL])
        assert other is not None
        before = auditor.look(start).names
        with pytest.raises(LeaseLost):
            getattr(bus, verb)(task, *(() if verb == "renew" else ("why",)))
        assert auditor.look(start).names == before
        with open_at(start, agent="sweeper") as later:
            later.ack(other.ticket, SECOND)
    assert auditor.settled(start).results == {task.id: SECOND}


def test_a_lease_with_a_staged_result_does_not_lapse_though_its_worker_died(start: Path) -> None:
    with open_at(start, agent="first") as bus:
        task = bus.claim([CHANNEL], lease_s=60)
    assert task is not None
    cut_off("rename", "staged", lambda fs: open_at(start, fs, agent="first").ack(task, FIRST))
    with open_at(start, agent="sweeper", offset=2 * HOUR) as bus:
        sweep(bus, thorough=False)
        assert bus.get(task.id).state == "leased", "its result is on its way"
        sweep(bus)
    assert auditor.settled(start).results == {task.id: FIRST}


class LapseThenDie(DieAfter):
    """Loses the lease just before the result is staged, and dies just after."""

    def __init__(self, root: Path) -> None:
        super().__init__("rename", "staged")
        self._root = root

    def before(self, number: int, op: Op) -> None:
        del number
        if op.to.startswith("staged/"):
            with open_at(self._root, agent="sweeper", offset=120_000) as bus:
                sweep(bus)


def test_a_late_result_whose_worker_died_before_putting_it_aside_is_put_aside_by_the_sweep(start: Path) -> None:
    with open_at(start, agent="first") as bus:
        task = bus.claim([CHANNEL], lease_s=60)
    assert task is not None
    with open_at(start, LapseThenDie(start), agent="first") as bus:
        assert ended(fork(lambda: bus.ack(task, FIRST))) == -signal.SIGKILL
    assert len(auditor.look(start).leftovers) == 1
    with open_at(start, agent="sweeper", offset=4 * HOUR) as bus:
        sweep(bus)
    audit = auditor.settled(start)
    assert (audit.states, audit.results) == ({task.id: "ready"}, {})
    assert [auditor.load(path)["result"] for path in (start / "rejected").iterdir()] == [FIRST]
