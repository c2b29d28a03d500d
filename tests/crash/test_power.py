"""After a power cut at any call, whatever the disk then holds: what was acknowledged is there (P1, P7, P8)."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, NamedTuple

import pytest

from mcp_bus.model import State
from mcp_bus.recovery import sweep
from mcp_bus.stores import layout
from tests.crash import auditor
from tests.crash.power import Disk, Trace
from tests.crash.test_kill_verbs import ANSWER, CHANNEL, drained
from tests.crash.victim import HOUR, IS_SOAK, Recorder, Steps, open_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mcp_bus.bus import Bus
    from mcp_bus.model import Task


class Said(NamedTuple):
    """Something a caller was told, after how many calls, and the states it may be in from then on; "" is pruned."""

    calls: int
    task_id: str
    states: frozenset[str]
    result: str = ""
    key: str = ""


class Story:
    """A traced run: what was done, and what was acknowledged when."""

    def __init__(self, root: Path) -> None:
        layout.create(root, fs=Steps())
        with open_at(root) as bus:
            bus.create_channel(CHANNEL, backoff_s=0)
            task = self.post_and_claim(bus, "before")  # Makes the day's folder in the archive, and the rest.
            bus.ack(task, "before")
        self.before = task.id
        self.start = Disk.of(root)
        self.fs = Recorder()
        self.said: list[Said] = []
        self.root = root

    @staticmethod
    def post_and_claim(bus: Bus, text: str) -> Task:
        bus.post(CHANNEL, text)
        task = bus.claim([CHANNEL])
        assert task is not None
        return task

    def tell(self, task_id: str, *states: str, result: str = "", key: str = "") -> None:
        self.said.append(Said(len(self.fs.trace), task_id, frozenset(states), result, key))

    def trace(self) -> Trace:
        return Trace(self.start, self.fs.trace)


OPEN = ("ready", "scheduled", "leased", "done")


def post(story: Story, bus: Bus) -> None:
    story.tell(bus.post(CHANNEL, "x").id, *OPEN)


def keyed_post(story: Story, bus: Bus) -> None:
    story.tell(bus.post(CHANNEL, "x", key="k").id, *OPEN, key="k")
    story.tell(bus.post(CHANNEL, "x", key="k").id, *OPEN, key="k")


def delayed_post(story: Story, bus: Bus) -> None:
    story.tell(bus.post(CHANNEL, "x", delay_s=5).id, *OPEN)


def ack(story: Story, bus: Bus) -> None:
    posted = bus.post(CHANNEL, "x", key="k")
    story.tell(posted.id, *OPEN)
    task = bus.claim([CHANNEL])
    assert task is not None
    bus.ack(task, ANSWER)
    story.tell(posted.id, "done", result=ANSWER)
    bus.close()


def second_attempt(story: Story, bus: Bus) -> None:
    posted = bus.post(CHANNEL, "x")
    story.tell(posted.id, *OPEN)
    for _ in range(2):
        taken = bus.claim([CHANNEL])
        assert taken is not None
        task = bus.renew(taken, lease_s=600)
        if task.slot.attempt == 1:
            bus.nack(task, "again")
    bus.ack(task, ANSWER)
    story.tell(posted.id, "done", result=ANSWER)
    bus.close()


def two_acks(story: Story, bus: Bus) -> None:
    for _ in range(2):
        bus.post(CHANNEL, "x")
    for _ in range(2):
        task = bus.claim([CHANNEL])
        assert task is not None
        bus.ack(task, ANSWER)
        story.tell(task.id, "done", result=ANSWER)
    bus.close()


def cancel(story: Story, bus: Bus) -> None:
    posted = bus.post(CHANNEL, "x")
    bus.cancel(posted.id)
    story.tell(posted.id, "cancelled")


def dead_and_back(story: Story, bus: Bus) -> None:
    posted = bus.post(CHANNEL, "x", max_attempts=1)
    task = bus.claim([CHANNEL])
    assert task is not None
    bus.nack(task, "no")
    bus.retry(posted.id)
    story.tell(posted.id, *OPEN)


def new_channel(story: Story, bus: Bus) -> None:
    story.tell(bus.post("new", "x").id, *OPEN)
    task = bus.claim(["new"])
    assert task is not None
    bus.ack(task, ANSWER)
    story.tell(task.id, "done", result=ANSWER)
    bus.close()


def prune(story: Story, bus: Bus) -> None:
    story.tell(story.before, "", "done", "pruning")
    (slot,) = bus.store.scan(CHANNEL, State.DONE)
    bus.store.swap(slot, None)


STORIES: dict[str, Callable[[Story, Bus], None]] = {
    "post": post, "keyed post": keyed_post, "delayed post": delayed_post, "ack": ack, "second attempt": second_attempt,
    "two acks": two_acks, "cancel": cancel, "dead and back": dead_and_back,
    "new channel": new_channel, "prune": prune,
}  # fmt: skip


def told(root: Path, name: str) -> Story:
    story = Story(root)
    with open_at(root, story.fs) as bus:
        STORIES[name](story, bus)
    return story


def crashes(story: Story, model: str, limit: int) -> Iterator[tuple[str, list[Said], Disk]]:
    """Give each disk once, with what had been said for certain by then."""
    trace, seen = story.trace(), set[object]()
    disks = trace.journalled() if model == "journalled" else trace.pessimistic(limit=limit)
    for calls, disk in disks:
        if model == "journalled":
            held = [said for said in story.said if trace.last_sync(said.calls) <= calls]
        else:
            held = [said for said in story.said if said.calls <= calls]
        key = (disk.key(), tuple(held))
        if key not in seen:
            seen.add(key)
            yield f"{model}, after {calls} of {len(trace.ops)} calls: {sorted(disk.names)}", held, disk


def rash(root: Path) -> None:
    """Work on at once after the start, as fast as one can."""
    with open_at(root, agent="bob") as bus:
        sweep(bus)
        while (task := bus.claim()) is not None:
            bus.ack(task, "eve's answer")


def patient(root: Path) -> None:
    """Let the sweep have its time first."""
    with open_at(root, agent="bob", offset=10_000) as bus:
        sweep(bus)
        sweep(bus)


def check(root: Path, held: list[Said], said: str) -> None:
    """All that was acknowledged is so, before and after everything that is left is worked off."""
    audit = auditor.look(root)
    known = {fact.task_id for fact in held if "" not in fact.states}
    # A post cut off before it was acknowledged may have left its key or its place alone; a prune anything.
    loose = {fact.task_id for fact in held} - known
    for problem in audit.problems:
        about = set(problem.split())
        is_unsaid = problem.startswith("the key") or ("no identity" in problem and not about & known)
        assert is_unsaid or about & loose, f"{problem}: {said}"
    for fact in held:
        last = [other for other in held if other.task_id == fact.task_id][-1]
        assert audit.states.get(fact.task_id, "") in last.states, f"{fact.task_id} is {audit.states}: {said}"
    keyed = {fact.task_id for fact in held if fact.key}
    if keyed or list((root / "keys").iterdir()):
        with open_at(root) as bus:  # Its client had no answer, or wants it once more.
            assert {bus.post(CHANNEL, "x", key="k").id} == keyed or not keyed, f"the key was forgotten: {said}"
    drained(root, offset=6 * HOUR)
    audit = auditor.settled(root) if known == {fact.task_id for fact in held} else auditor.look(root)
    for fact in held:
        assert fact.task_id in audit.states or "" in fact.states, said
        if fact.result:
            assert audit.results[fact.task_id] == fact.result, said
    assert set(audit.results.values()) <= {ANSWER, "eve's answer", "before"}, said
    assert set(audit.states.values()) <= {"done", "cancelled", "dead"}, said
    assert not audit.leftovers, said


@pytest.mark.parametrize("then", [patient, rash])
@pytest.mark.parametrize("model", ["journalled", "pessimistic"])
@pytest.mark.parametrize("name", STORIES)
def test_what_was_acknowledged_survives_a_power_cut_at_any_call(
    disk: Path, name: str, model: str, then: Callable[[Path], None]
) -> None:
    story, count = told(disk / "bus", name), 0
    for said, held, image in crashes(story, model, limit=64):
        count += 1
        # Of the many disks of this model a run of the tests recovers every other one in each way.
        if model == "pessimistic" and not IS_SOAK and (count + (then is rash)) % 2:
            continue
        root = image.write_to(disk / "after")
        then(root)
        check(root, held, said)
        shutil.rmtree(root)
    print(f"{count} disks")
    assert count >= 5


@pytest.mark.parametrize("model", ["journalled", "pessimistic"])
def test_a_power_cut_during_the_recovery_from_a_power_cut_loses_nothing_either(disk: Path, model: str) -> None:
    story, count = told(disk / "bus", "ack"), 0
    for number, (said, held, image) in enumerate(crashes(story, "pessimistic", limit=64)):
        if number % 2:
            continue
        root, fs = image.write_to(disk / "after"), Recorder()
        start = Disk.of(root)
        with open_at(root, fs, offset=10_000) as bus:
            sweep(bus)
        shutil.rmtree(root)
        trace = Trace(start, fs.trace)
        again = trace.journalled() if model == "journalled" else trace.pessimistic(limit=4)
        for calls, second in list(again)[:: 2 if model == "journalled" else 3]:
            count += 1
            root = second.write_to(disk / "again")
            patient(root)
            check(root, held, f"{said}\nthen {calls} calls of recovery: {sorted(second.names)}")
            shutil.rmtree(root)
    print(f"{count} disks")
    assert count > 30
