"""Processes race for tasks on a disk; what each was told is checked against what the others were (P3, P4, P9, P11)."""

from __future__ import annotations

import os
import random
import signal
import threading
from itertools import islice
from typing import TYPE_CHECKING

import pytest

from mcp_bus.errors import Gone
from mcp_bus.model import State
from mcp_bus.recovery import sweep
from mcp_bus.stores import layout
from tests.crash import auditor
from tests.crash.crowd import (
    Log,
    all_finished_once,
    disjoint,
    finish,
    hand_overs,
    in_time,
    quick,
    refused,
    sweep_until,
    together,
    work_until,
)
from tests.crash.victim import HOUR, Signal, Steps, copy, cut_off, ended, fork, open_at

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from mcp_bus.bus import Bus
    from mcp_bus.model import Ticket
    from tests.crash.victim import Op

CHANNEL = "work"
PROCESSES = 8


def racing(place: Path) -> Path:
    """Make a bus to race on."""
    layout.create(place / "bus")
    with quick(place / "bus", "ann") as bus:
        bus.create_channel(CHANNEL, backoff_s=0, max_attempts=1000)
    return place / "bus"


@pytest.fixture
def root(disk: Path) -> Path:
    return racing(disk)


@pytest.fixture
def log(disk: Path) -> Log:
    return Log(disk / "log")


def post(root: Path, count: int, **options: object) -> list[str]:
    with quick(root, "ann") as bus:
        return [bus.post(CHANNEL, f"task {number}", **options).id for number in range(count)]  # type: ignore[arg-type]  # options of a test


def test_eight_processes_post_and_work_and_each_task_is_done_once(root: Path, log: Log) -> None:
    worked_on(root, log, 250)


def worked_on(root: Path, log: Log, each: int) -> None:
    """Let eight processes post so many tasks each and work on all of them; check what each was told."""
    total = each * PROCESSES

    def job() -> None:
        with quick(root, "poster") as bus:
            for number in range(each):
                log.write("post", bus.post(CHANNEL, number).id)
        work_until(root, log, total)

    together([job] * PROCESSES)
    posted = set(log.of("post"))
    assert len(posted) == total
    all_finished_once(root, log, posted)
    assert set(map(tuple, hand_overs(log).values())) == {(1,)}, "no lease lapsed, so each was handed out once"
    assert not log.of("lost")
    auditor.settled(root)


def test_leases_that_lapse_all_the_time_still_give_each_task_one_result(root: Path, log: Log) -> None:
    lapsing(root, log, 300)


def lapsing(root: Path, log: Log, count: int) -> None:
    """Let workers finish so many tasks while others take each lease away at once; check what each was told."""
    ids = post(root, count)
    workers = [lambda: work_until(root, log, len(ids))] * 5
    # By this clock every lease has just lapsed, and every staged result was left for too long.
    sweepers = [lambda: sweep_until(root, len(ids), offset=61_000)] * 3
    together([*workers, *sweepers])
    all_finished_once(root, log, set(ids))
    disjoint(log)
    for attempts in hand_overs(log).values():
        assert len(attempts) == len(set(attempts)), "one attempt went to two workers"
    with quick(root, "eve", offset=2 * HOUR) as bus:
        sweep(bus)
    auditor.settled(root)


def test_one_key_posted_by_eight_processes_is_one_task(root: Path, log: Log) -> None:
    keys = 120

    def job() -> None:
        with quick(root, "poster") as bus:
            for number in range(keys):
                log.write("post", str(number), bus.post(CHANNEL, number, key=f"k{number}").id)

    together([job] * PROCESSES + [lambda: sweep_while(root, log, keys * PROCESSES)])
    told = log.of("post")
    assert {len({entry.more for entry in entries}) for entries in told.values()} == {1}
    assert auditor.sound(root).count() == {"ready": keys}


def sweep_while(root: Path, log: Log, lines: int) -> None:
    check = in_time()
    with quick(root, "sweeper", offset=10_000) as bus:
        while not log.path.exists() or len(log.path.read_bytes().splitlines()) < lines:
            bus.store.mend(bus.source.now())
            check()


def test_posters_who_all_find_a_key_without_a_task_give_it_one_place(root: Path, log: Log) -> None:
    keys = 60
    with quick(root, "poster") as bus:
        for number in range(keys):
            bus.post(CHANNEL, number, key=f"k{number}")
    for folder in ("tasks", f"channels/{CHANNEL}/requests"):  # As a power cut may leave it.
        for path in (root / folder).iterdir():
            path.unlink()

    def job() -> None:
        with quick(root, "poster") as bus:
            for number in range(keys):
                log.write("post", str(number), bus.post(CHANNEL, number, key=f"k{number}").id)

    together([job] * PROCESSES)
    assert {len({entry.more for entry in entries}) for entries in log.of("post").values()} == {1}
    assert auditor.sound(root).count() == {"ready": keys}


def test_readers_who_all_find_a_task_without_a_place_give_it_one(root: Path) -> None:
    ids = post(root, 60)
    for path in (root / "channels" / CHANNEL / "requests").iterdir():
        path.unlink()

    def job() -> None:
        with quick(root, "reader") as bus:
            for task_id in ids:
                assert bus.get(task_id).state == "ready"

    together([job] * 6)
    assert auditor.sound(root).count() == {"ready": len(ids)}


def tickets(root: Path, count: int) -> list[Ticket]:
    post(root, count)
    with quick(root, "holder") as bus:
        made = [bus.claim([CHANNEL], lease_s=60) for _ in range(count)]
    return [task.ticket for task in made if task is not None]


def test_of_a_cancel_and_an_ack_at_once_exactly_one_is_told_it_won(root: Path, log: Log) -> None:
    held = tickets(root, 250)

    def ack() -> None:
        with quick(root, "holder") as bus:
            for ticket in held:
                log.write("refused ack" if refused(lambda t=ticket: bus.ack(t, "x")) else "ack", ticket.id)  # type: ignore[misc]  # a default argument in a lambda

    def cancel() -> None:
        with quick(root, "boss") as bus:
            for ticket in held:
                won = not refused(lambda t=ticket: bus.cancel(t.id))  # type: ignore[misc]  # as above
                log.write("cancel" if won else "refused cancel", ticket.id)

    together([ack, cancel])
    states = auditor.settled(root).states
    assert set(log.of("ack")) == {task_id for task_id, state in states.items() if state == "done"}
    assert set(log.of("cancel")) == {task_id for task_id, state in states.items() if state == "cancelled"}
    assert len(states) == len(held)


def test_of_a_renewal_and_a_lapse_at_once_exactly_one_happens(root: Path, log: Log) -> None:
    held = tickets(root, 250)

    def renew() -> None:
        with quick(root, "holder") as bus:
            for ticket in held:
                log.write("lost" if refused(lambda t=ticket: bus.renew(t, lease_s=7200)) else "kept", ticket.id)  # type: ignore[misc]  # a default argument in a lambda

    def lapse() -> None:
        with quick(root, "sweeper", offset=61_000) as bus:
            for _ in range(40):
                sweep(bus, thorough=False)

    together([renew, lapse, lapse])
    states = auditor.sound(root).states
    assert set(log.of("kept")) == {task_id for task_id, state in states.items() if state == "leased"}
    assert set(log.of("lost")) == {task_id for task_id, state in states.items() if state == "ready"}
    assert len(states) == len(held)


def doomed(root: Path, log: Log, step: int) -> None:
    """Work until killed at a step, or by a task that kills whoever takes it."""
    with open_at(root, Signal(step, signal.SIGKILL), agent=f"worker-{os.getpid()}", durable=False) as bus:
        while (task := bus.claim([CHANNEL], lease_s=60)) is not None:
            log.write("claim", task.id, [task.slot.attempt, task.lease.token, task.body.content])
            if "poison" in task.body.title:
                os.kill(os.getpid(), signal.SIGKILL)
            finish(bus, log, task)


def test_workers_killed_at_random_leave_every_task_done_or_dead_within_its_budget(root: Path, log: Log) -> None:
    poisoned(root, log, seed=11)


def poisoned(root: Path, log: Log, *, seed: int, good: int = 120, poison: int = 20) -> int:
    """Let workers die at random and by what they are given; return how many tasks killed whoever took them."""
    chance = random.Random(seed)  # noqa: S311  repeatable, not secret
    steps = iter(lambda: chance.randrange(4, 90), 0)
    useful = post(root, good, max_attempts=50)
    deadly = post(root, poison, title="poison", max_attempts=3, priority=1)
    for _ in range(3 * (good + poison)):
        pids = [fork(lambda n=step: doomed(root, log, n)) for step in islice(steps, 4)]  # type: ignore[misc]  # a default argument in a lambda
        assert {ended(pid) for pid in pids} <= {0, -signal.SIGKILL}
        with quick(root, "sweeper", offset=61_000) as bus:
            sweep(bus)
            if not any(bus.store.count(CHANNEL)[state] for state in ("ready", "leased", "scheduled")):  # type: ignore[index]  # states are words
                break
    audit = auditor.sound(root)
    assert {task_id: audit.states[task_id] for task_id in useful} == dict.fromkeys(useful, "done")
    assert {task_id: audit.states[task_id] for task_id in deadly} == dict.fromkeys(deadly, "dead")
    counts = hand_overs(log)
    assert {len(counts[task_id]) for task_id in deadly} <= {2, 3}, "a hand-over may die before it is written down"
    assert max(audit.attempts(task_id) for task_id in deadly) == 3
    for task_id, told in log.of("ack").items():
        assert audit.results[task_id] == told[0].more, "an acknowledged result is the result"
    assert all(len(set(attempts)) == len(attempts) for attempts in counts.values())
    return len(deadly)


def test_menders_of_one_cut_off_post_finish_it_once(disk: Path, root: Path) -> None:
    for key, call, folder in (("a", "link", "keys"), ("b", "link", "tasks")):
        cut_off(call, folder, lambda fs, key=key: open_at(root, fs).post(CHANNEL, "x", key=key))  # type: ignore[misc]  # a default argument in a lambda
    for round_ in range(15):
        at = copy(root, disk / f"round-{round_}")
        together([lambda at=at: quick(at, "mender", offset=10_000).store.mend(0)] * 6)  # type: ignore[misc]  # as above
        assert auditor.settled(at).count() == {"ready": 2}, round_


class Meeting(Steps):
    """Waits for its double before and after both make a draft of the task, and before either gives its own up."""

    def __init__(self, barriers: Mapping[str, threading.Barrier]) -> None:
        super().__init__()
        self._barriers = dict(barriers)

    def _meet(self, where: str) -> None:
        barrier = self._barriers.pop(where, None)
        if barrier is not None:
            barrier.wait(timeout=30)

    def before(self, number: int, op: Op) -> None:
        del number
        if (op.to or op.path).startswith("tmp/"):
            self._meet(f"before {op.call}")

    def after(self, number: int, op: Op) -> None:
        del number
        if op.to.startswith("tmp/"):
            self._meet(f"after {op.call}")


def test_two_menders_who_both_step_back_do_not_leave_the_task_without_a_place(root: Path) -> None:
    (task_id,) = post(root, 1)
    for path in (root / "channels" / CHANNEL / "requests").iterdir():
        path.unlink()
    barriers = {where: threading.Barrier(2) for where in ("before link", "after link", "before unlink")}

    def restore() -> None:
        with open_at(root, Meeting(barriers)) as bus:
            bus.store.mend(bus.source.now())

    for path in (root / "boots").glob("*"):
        path.unlink()
    threads = [threading.Thread(target=restore) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(barrier.broken for barrier in barriers.values())
    assert auditor.settled(root).states == {task_id: "ready"}


class Interrupted(Steps):
    """Lets someone else do something before a step."""

    def __init__(self, step: int, other: Callable[[], object]) -> None:
        super().__init__()
        self._step = step
        self._other = other

    def before(self, number: int, op: Op) -> None:
        del op
        if number == self._step:
            self._other()


def test_a_key_posted_again_while_its_task_is_pruned_is_the_old_task_or_a_new_one(disk: Path, root: Path) -> None:
    with quick(root, "ann") as bus:
        old = bus.post(CHANNEL, "x", key="k").id
        bus.cancel(old)
        (slot,) = bus.store.scan(CHANNEL, State.CANCELLED)

    def repost(at: Path, told: list[str]) -> None:
        with quick(at, "ann") as bus:
            told.append(bus.post(CHANNEL, "x", key="k").id)

    for step in range(30):
        at, told = copy(root, disk / f"step-{step}"), list[str]()
        with open_at(at, Interrupted(step, lambda at=at, told=told: repost(at, told))) as bus:  # type: ignore[misc]  # defaults in a lambda
            bus.store.swap(slot, None)
        states = auditor.settled(at).states
        assert old not in states, step
        if not told:
            assert step > 4
            return
        assert set(told) == set(states) or (told == [old] and not states), f"step {step}: {told}, {states}"
    pytest.fail("thirty steps and no end")


VERBS: dict[str, Callable[[Bus, str], object]] = {
    "undo": lambda bus, name: bus.undo(name),
    "retry": lambda bus, name: bus.retry(name),
}


@pytest.mark.parametrize("how", ["cancelled", "discarded"])
@pytest.mark.parametrize("verb", VERBS)
def test_who_brings_a_task_back_while_it_is_pruned_has_it_or_is_told_that_it_is_gone(
    disk: Path, root: Path, verb: str, how: str
) -> None:
    with quick(root, "ann") as bus:
        old = bus.post(CHANNEL, "x", key="k", max_attempts=1).id
        if how == "discarded":
            task = bus.claim()
            assert task is not None
            bus.nack(task, "no")
            bus.discard(old)
        else:
            bus.cancel(old)
        slot = bus.get(old).slot

    def bring_back(at: Path, told: list[str]) -> None:
        with quick(at, "boss") as boss:
            told.append("refused" if refused(lambda: VERBS[verb](boss, old)) else "back")

    said = set[str]()
    for step in range(30):
        at, told = copy(root, disk / f"step-{step}"), list[str]()
        with open_at(at, Interrupted(step, lambda at=at, told=told: bring_back(at, told))) as bus:  # type: ignore[misc]  # defaults in a lambda
            pruned = not refused(lambda bus=bus: bus.store.swap(slot, None))  # type: ignore[misc]  # as above
        states = auditor.settled(at).states
        if not told:
            assert said == {"refused", "back"}
            return
        said.update(told)
        assert pruned is (told == ["refused"]), f"step {step}: both were told that they won, or neither"
        assert bool(states) is (told == ["back"]), f"step {step}: {told}, {states}"
    pytest.fail("thirty steps and no end")


def test_a_prune_that_was_killed_is_gone_on_with_and_nobody_brings_the_task_back_meanwhile(root: Path) -> None:
    with quick(root, "ann") as bus:
        old = bus.post(CHANNEL, "x", key="k").id
        bus.cancel(old)
        slot = bus.get(old).slot
    cut_off("rename", f"channels/{CHANNEL}/pruning", lambda fs: open_at(root, fs).store.swap(slot, None))
    with quick(root, "ann") as bus:
        for verb in (bus.get, bus.undo, bus.retry):
            with pytest.raises(Gone, match="cancelled on"):
                verb(old)
        bus.store.mend(bus.source.now())
        assert auditor.look(root).states == {old: "pruning"}, "its own process may still go on"
        assert bus.store.mend(bus.source.now() + 10_000) == [f"pruned {old}"]
        assert auditor.settled(root).states == {}
        assert bus.post(CHANNEL, "x", key="k").created
