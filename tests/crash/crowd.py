"""Many processes on one bus, each of which writes down outside the bus what it was told."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from mcp_bus.errors import BusError, Conflict, LeaseLost
from mcp_bus.recovery import sweep
from mcp_bus.stores.fsops import Fs
from tests.crash import auditor
from tests.crash.victim import ended, fork, open_at
from tests.tally import TASKS, tried

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from mcp_bus.bus import Bus
    from mcp_bus.model import Task

PATIENCE_S = 60.0


class Entry(NamedTuple):
    """One line of a log: who was told what about which task, and when by the clock all processes share."""

    at: int
    pid: int
    event: str
    task_id: str
    more: Any


class Log:
    """A file of lines; one write a line, so that processes share it and a kill loses none."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, event: str, task_id: str, more: object = None) -> None:
        line = json.dumps([time.monotonic_ns(), os.getpid(), event, task_id, more]) + "\n"
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(fd, line.encode())
        os.close(fd)

    def entries(self) -> list[Entry]:
        return sorted(Entry(*json.loads(line)) for line in self.path.read_text().splitlines())

    def of(self, event: str) -> dict[str, list[Entry]]:
        found = defaultdict[str, list[Entry]](list)
        for entry in self.entries():
            if entry.event == event:
                found[entry.task_id].append(entry)
        return found


def together(jobs: Sequence[Callable[[], object]]) -> None:
    """Run jobs in processes that all start at the same moment; each must come to a good end."""
    gate, opener = os.pipe()

    def wait_and(job: Callable[[], object]) -> None:
        os.close(opener)
        os.read(gate, 1)  # Comes back when the last writing end is closed.
        job()

    pids = [fork(lambda job=job: wait_and(job)) for job in jobs]  # type: ignore[misc]  # a default argument in a lambda
    os.close(gate)
    os.close(opener)
    assert [ended(pid) for pid in pids] == [0] * len(pids)


def quick(root: Path, agent: str, *, offset: int = 0) -> Bus:
    """Open a bus that does not sync: kills and races are not about that."""
    return open_at(root, Fs(), agent=agent, offset=offset, durable=False)


def in_time() -> Callable[[], None]:
    """Return a check that fails when a wait has gone on for too long."""
    end = time.monotonic() + PATIENCE_S

    def check() -> None:
        assert time.monotonic() < end, "it takes too long"
        os.sched_yield()

    return check


def one(bus: Bus, log: Log, *, lease_s: float = 60) -> bool:
    """Claim and ack one task, if there is one."""
    task = bus.claim(lease_s=lease_s)
    if task is None:
        return False
    log.write("claim", task.id, [task.slot.attempt, task.lease.token, task.body.content])
    finish(bus, log, task)
    return True


def finish(bus: Bus, log: Log, task: Task) -> None:
    answer = f"{os.getpid()}, attempt {task.slot.attempt} of {task.id}"
    log.write("try", task.id, answer)
    try:
        log.write("ack", task.id, bus.ack(task.ticket, answer).content)
    except LeaseLost:
        log.write("lost", task.id, answer)


def work_until(root: Path, log: Log, total: int, *, lease_s: float = 60) -> None:
    """Work until so many results are there."""
    responses, check = root / "channels" / "work" / "responses", in_time()
    with quick(root, f"worker-{os.getpid()}") as bus:
        while one(bus, log, lease_s=lease_s) or len(list(responses.iterdir())) < total:
            check()


def sweep_until(root: Path, total: int, *, offset: int) -> None:
    """Sweep, by a clock that is ahead, until so many results are there."""
    responses, check = root / "channels" / "work" / "responses", in_time()
    with quick(root, f"sweeper-{os.getpid()}", offset=offset) as bus:
        while len(list(responses.iterdir())) < total:
            with contextlib.suppress(Conflict):  # Something moved between look and write: the next round sees it.
                sweep(bus)
            check()


def all_finished_once(root: Path, log: Log, ids: set[str]) -> auditor.Audit:
    """Check a history: each task acknowledged to one worker, whose answer is the result."""
    audit, acks = auditor.sound(root), log.of("ack")
    tried(TASKS, len(ids))
    assert audit.states == dict.fromkeys(ids, "done")
    assert set(acks) == ids, f"{len(ids - set(acks))} tasks finished and nobody was told so"
    for task_id, told in acks.items():
        assert [entry.more for entry in told] == [audit.results[task_id]]
    return audit


def hand_overs(log: Log) -> dict[str, list[int]]:
    """Return the attempts of each task in the order they were handed out."""
    return {task_id: [entry.more[0] for entry in told] for task_id, told in log.of("claim").items()}


def disjoint(log: Log) -> None:
    """Check that nobody was handed a task after its last holder had finished it.

    Attempts tell the order, not the times in the log: a worker may be held up between a claim and its line.
    """
    claims = hand_overs(log)
    for task_id, told in log.of("ack").items():
        (done,) = told
        finished = int(done.more.partition("attempt ")[2].split()[0])
        late = [attempt for attempt in claims[task_id] if attempt > finished]
        assert not late, f"{task_id} was finished by attempt {finished} and handed out again: {late}"


def refused(call: Callable[[], object]) -> bool:
    """Make a call; tell whether the bus refused it."""
    try:
        call()
    except BusError:
        return True
    return False
