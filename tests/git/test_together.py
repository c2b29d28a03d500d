"""Several verbs as one commit: all of it is there or nothing, and it is decided again if somebody was faster."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from mcp_bus import conductor
from mcp_bus.errors import BusError, StoreUnavailable
from mcp_bus.model import State
from mcp_bus.recovery import sweep
from tests.crash.victim import ended, fork
from tests.fakes import VirtualSource
from tests.git.hosts import Hosts, bus_on, dies_at_push, git, store_of

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus.bus import Bus

HOUR_S = 3600.0
STEPS = [{"name": name, "channel": "work", "body": "x"} for name in "ab"]
PLAN = {"goal": "two at once", "steps": STEPS}


def commits(remote: str) -> list[str]:
    """Return the messages of what was pushed, newest first."""
    return git("--git-dir", remote, "log", "--format=%B%x00", "mcp-bus").split("\0")


def lapsed(hosts: Hosts, source: VirtualSource) -> tuple[Bus, set[str]]:
    """Return a bus with three leases that ended long ago, and their tasks."""
    ann = hosts.bus("one", source=source)
    made = {ann.post("work", f"task {n}").id for n in range(3)}
    for _ in made:
        assert ann.claim(["work"]) is not None
    source.advance(HOUR_S)
    return ann, made


def test_a_sweep_is_one_commit_that_tells_what_it_did(hosts: Hosts) -> None:
    ann, made = lapsed(hosts, VirtualSource())
    before = len(commits(hosts.remote))
    sweep(ann)
    told = commits(hosts.remote)
    assert len(told) == before + 1
    assert told[0].startswith("sweep: 3 things done\n")
    assert all(f"{name} came back from ann~00000001" in told[0] for name in made)
    assert {slot.id for slot in ann.store.scan("work", State.SCHEDULED)} == made


def test_what_was_done_together_is_decided_again_when_somebody_was_faster(hosts: Hosts) -> None:
    source = VirtualSource()
    ann, made = lapsed(hosts, source)
    bob, store = hosts.bus("two", "bob", source=source), store_of(ann)
    gone, real = min(made), store.repo.push

    def push(commit: str, expected: str) -> None:
        store.repo.push = real  # type: ignore[method-assign]  # only the first one comes second
        bob.cancel(gone, "not wanted")
        real(commit, expected)

    store.repo.push = push  # type: ignore[method-assign]  # as above
    done = sweep(ann)
    assert len([line for line in done if "came back" in line]) == 2
    assert bob.get(gone).state is State.CANCELLED
    journal = (hosts.place / "one" / "journal").iterdir()
    lines = [line for path in journal for line in path.read_text().splitlines() if "lapsed" in line]
    assert len(lines) == 2, "the journal tells what was pushed, not what was tried"


def test_a_plan_is_posted_with_its_first_steps_as_one_commit(hosts: Hosts) -> None:
    ann = hosts.bus("one")
    before = len(commits(hosts.remote))
    plan = conductor.post(ann, PLAN)
    assert len(commits(hosts.remote)) == before + 1
    assert commits(hosts.remote)[0].strip() == f"plan {plan.id[-8:]} of 2 steps by ann"
    assert len(list(hosts.bus("two", "bob").store.scan("work", State.READY))) == 2


def test_a_plan_that_was_cut_off_by_kill_9_is_not_there_at_all(hosts: Hosts) -> None:
    def posts() -> None:
        bus = bus_on(hosts.place / "one", hosts.remote)
        dies_at_push(store_of(bus).repo, 0, late=False)
        conductor.post(bus, PLAN, key="k")

    assert ended(fork(posts)) == -signal.SIGKILL
    ann = hosts.bus("one")
    assert (ann.store.ids(), ann.store.records.names("plans")) == ([], [])
    conductor.post(ann, PLAN, key="k")
    assert len(ann.store.ids()) == 2


def test_without_the_remote_nothing_of_it_is_done(hosts: Hosts, disk: Path) -> None:
    ann, made = lapsed(hosts, VirtualSource())
    (disk / "remote.git").rename(disk / "away.git")
    with pytest.raises(StoreUnavailable):
        sweep(ann)
    assert {slot.id for slot in ann.store.scan("work", State.LEASED)} == made
    with pytest.raises(StoreUnavailable):
        conductor.post(ann, PLAN)
    assert ann.store.records.names("plans") == []


def test_what_others_push_in_between_is_no_part_of_what_is_decided(hosts: Hosts) -> None:
    ann, bob = hosts.bus("one"), hosts.bus("two", "bob")
    first, second = ann.post("work", "first").id, ann.post("work", "second").id
    looks = list[int]()

    def work() -> int:
        ann.cancel(first, "not wanted")
        if not looks:
            bob.post("work", "third")
        looks.append(len(ann.store.ids()))
        ann.cancel(second, "not wanted either")
        return len(looks)

    assert ann.store.together(lambda count: f"at try {count}", work) == 2
    assert looks == [2, 3], "at first as it was when it began, then with what the other one had pushed"
    assert {bob.get(name).state for name in (first, second)} == {State.CANCELLED}
    assert commits(hosts.remote)[0].strip() == "at try 2"


def test_old_tasks_leave_the_tree_in_one_commit_and_stay_in_the_history(hosts: Hosts) -> None:
    source = VirtualSource()
    ann = hosts.bus("one", source=source)
    ann.create_channel("old", retention_days=1)
    made = {ann.post("old", f"task {n}").id for n in range(3)}
    while (task := ann.claim(["old"])) is not None:
        ann.ack(task, "done")
    source.advance(3 * 24 * HOUR_S)
    before = len(commits(hosts.remote))
    sweep(ann)
    assert len(commits(hosts.remote)) == before + 1
    shared = git("--git-dir", hosts.remote, "ls-tree", "-r", "--name-only", "mcp-bus")
    assert [name for name in made if f"{name}." in shared] == []
    assert all(f"pruned {name}" in commits(hosts.remote)[0] for name in made)
    story = git("--git-dir", hosts.remote, "log", "--format=%s", "mcp-bus")
    assert all(f"done {name[-8:]} on old by ann" in story for name in made), "the history is as it was"


def test_what_fails_in_the_middle_is_not_done_at_all_and_no_journal_tells_of_it(hosts: Hosts) -> None:
    ann = hosts.bus("one")
    first = ann.post("work", "first").id
    before = commits(hosts.remote)

    def work() -> int:
        ann.cancel(first, "not wanted")
        ann.cancel("0" * 12, "there is none")
        return 1

    with pytest.raises(BusError):
        ann.store.together(str, work)
    assert ann.get(first).state is State.READY
    assert commits(hosts.remote) == before
    lines = [line for path in (hosts.place / "one" / "journal").iterdir() for line in path.read_text().splitlines()]
    assert [line for line in lines if '"cancelled"' in line] == []
