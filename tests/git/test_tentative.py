"""Claims while the remote does not answer, where the operator allows them: one of a host, and the push decides."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from mcp_bus import lifecycle
from mcp_bus.bus import Bus
from mcp_bus.errors import Conflict, LeaseLost, StoreUnavailable
from mcp_bus.model import Lease, State
from tests.crash.victim import ended, fork
from tests.fakes import VirtualSource
from tests.git.hosts import Hosts, bus_on, die, dies_at_push, git, store_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mcp_bus.model import Slot, Task

LATER_S = 60.0


class Host:
    """The host whose cable can be pulled; the other hosts go on."""

    def __init__(self, hosts: Hosts, disk: Path, source: VirtualSource) -> None:
        self._cable, self._remote, self._place = disk / "cable.git", hosts.remote, hosts.place / "one"
        self._open, self.source = list[Bus](), source
        self.plug()

    def bus(self, agent: str = "ann") -> Bus:
        made = bus_on(self._place, str(self._cable), agent, source=self.source, tentative=True)
        self._open.append(made)
        return made

    def pull(self) -> None:
        self._cable.unlink()

    def plug(self) -> None:
        self._cable.symlink_to(self._remote)
        self.source.advance(LATER_S)

    def close(self) -> None:
        for bus in self._open:
            bus.close()


@pytest.fixture
def one(hosts: Hosts, disk: Path) -> Iterator[Host]:
    made = Host(hosts, disk, VirtualSource())
    yield made
    made.close()


@pytest.fixture
def bob(hosts: Hosts, one: Host) -> Bus:
    return hosts.bus("two", "bob", source=one.source)


@pytest.fixture
def held(one: Host) -> tuple[Bus, Task]:
    """A task that was claimed with the cable pulled, and who did."""
    ann = one.bus()
    ann.post("work", "x")
    one.pull()
    claimed = ann.claim(["work"])
    assert claimed is not None
    return ann, claimed


def test_one_process_of_the_host_has_it_and_the_remote_takes_it_later(
    one: Host, held: tuple[Bus, Task], bob: Bus
) -> None:
    ann, task = held
    assert store_of(ann).away.tentative == (task.id,)
    other = one.bus("cid")
    assert other.get(task.id).state is State.LEASED
    assert other.claim(["work"]) is None
    with pytest.raises(StoreUnavailable):
        ann.ack(task.ticket, "finished without the remote")
    assert bob.get(task.id).state is State.READY, "nobody there knows"
    one.plug()
    assert ann.ack(task.ticket, "finished").content == "finished"
    assert store_of(ann).away.tentative == ()
    one.source.advance(LATER_S)
    kept = bob.get(task.id).result
    assert kept is not None
    assert (kept.content, kept.sender.agent) == ("finished", "ann")


def test_who_pushed_first_has_it_and_the_other_one_is_told(one: Host, held: tuple[Bus, Task], bob: Bus) -> None:
    ann, task = held
    theirs = bob.claim(["work"])
    assert theirs is not None
    one.plug()
    with pytest.raises(LeaseLost, match="was tentative, and it was lost: it is leased by 'bob~00000001'"):
        ann.renew(task.ticket)
    with pytest.raises(LeaseLost, match="was tentative, and it was lost"):
        one.bus("ann").renew(task.ticket)
    assert store_of(ann).away.lost == (task.id,)
    assert store_of(ann).away.tentative == ()
    bob.ack(theirs, "theirs")
    with pytest.raises(LeaseLost):
        ann.ack(task.ticket, "mine")
    one.source.advance(LATER_S)
    kept = ann.get(task.id).result
    assert kept is not None
    assert kept.content == "theirs"


def test_two_processes_that_saw_it_ready_at_once_do_not_both_get_it(one: Host) -> None:
    ann, cid = one.bus(), one.bus("cid")
    task = ann.post("work", "x").id
    one.source.advance(LATER_S)
    [ready] = cid.store.scan("work", State.READY)
    one.pull()
    shared = store_of(cid).shared
    real = shared.tentatively

    def late(error: StoreUnavailable, old: Slot, new: Slot) -> None:
        assert ann.claim(["work"]) is not None
        real(error, old, new)

    shared.tentatively = late  # type: ignore[method-assign]  # between its look and its claim somebody is faster
    lease = Lease("cid~00000001", "0123456789ab", one.source.now() + 60_000)
    with pytest.raises(Conflict):
        cid.store.swap(ready, lifecycle.claim(ready, lease))
    assert one.bus("dan").get(task).lease.holder == "ann~00000001"
    assert cid.get(task).lease.holder == "ann~00000001"


def test_it_is_kept_by_renewing_it_and_ready_again_when_nobody_does(one: Host, held: tuple[Bus, Task]) -> None:
    ann, task = held
    one.source.advance(LATER_S)
    renewed = ann.renew(task.ticket, lease_s=600)
    assert renewed.lease.expires == one.source.now() + 600_000
    assert one.bus("cid").get(task.id).lease.expires == renewed.lease.expires
    one.source.advance(601)
    late = one.bus("late")
    assert late.get(task.id).state is State.READY
    assert store_of(late).away.tentative == ()


def test_it_can_be_given_back_without_the_remote(one: Host, held: tuple[Bus, Task], bob: Bus) -> None:
    ann, task = held
    ann.release(task.ticket, "not for me")
    assert store_of(ann).away.tentative == ()
    assert one.bus("cid").claim(["work"]) is not None
    assert bob.get(task.id).history == ()


def test_it_outlives_kill_9_of_its_claimant(one: Host) -> None:
    ann = one.bus()
    task = ann.post("work", "x").id
    one.pull()

    def claims() -> None:
        assert one.bus("cid").claim(["work"]) is not None
        die()

    assert ended(fork(claims)) == -signal.SIGKILL
    other = one.bus("dan")
    assert other.get(task).lease.holder == "cid~00000001"
    assert other.claim(["work"]) is None


def test_a_claim_that_was_pushed_by_one_who_was_killed_then_is_not_told_as_lost(
    one: Host, held: tuple[Bus, Task]
) -> None:
    ann, task = held
    one.plug()

    def syncs() -> None:
        other = one.bus("cid")
        dies_at_push(store_of(other).repo, 0, late=True)
        store_of(other).sync()

    assert ended(fork(syncs)) == -signal.SIGKILL
    ann.renew(task.ticket)
    assert store_of(ann).away.lost == ()
    assert store_of(ann).away.tentative == ()
    ann.ack(task.ticket, "done")


def test_what_was_posted_and_claimed_without_the_remote_goes_as_one_commit(one: Host, hosts: Hosts) -> None:
    ann = one.bus()
    one.pull()
    task = ann.post("work", "posted offline").id
    assert ann.claim(["work"]) is not None
    assert store_of(ann).away.unsent == 1
    one.plug()
    store_of(ann).sync()
    said = git("--git-dir", hosts.remote, "log", "-1", "--format=%s", "mcp-bus").strip()
    assert said == "sync: 1 post and 1 claim made while the remote did not answer"
    assert hosts.bus("two", "bob", source=one.source).get(task).lease.holder == "ann~00000001"


def test_a_renewal_made_while_the_claim_is_pushed_is_kept(one: Host, held: tuple[Bus, Task]) -> None:
    ann, task = held
    cid = one.bus("cid")
    one.plug()
    repo = store_of(cid).repo
    real, ends = repo.push, list[int]()

    def push(commit: str, expected: str) -> None:
        store_of(ann).shared.trouble = StoreUnavailable("not seen yet that it is back")
        store_of(ann).shared._again_at = one.source.now() + 20_000
        ends.append(ann.renew(task.ticket, lease_s=900).lease.expires)
        real(commit, expected)

    repo.push = push  # type: ignore[method-assign]  # in the middle of it the worker says that it goes on
    store_of(cid).sync()
    repo.push = real  # type: ignore[method-assign]  # as above
    one.source.advance(LATER_S)
    assert ann.get(task.id).lease.expires == ends[0]
    store_of(cid).sync()
    assert one.bus("dan").get(task.id).lease.expires == ends[0]
    assert store_of(ann).away.tentative == ()


def test_a_claim_that_ran_out_while_the_remote_was_away_is_not_pushed(
    one: Host, held: tuple[Bus, Task], bob: Bus
) -> None:
    ann, task = held
    one.source.advance(task.lease.expires - one.source.now())
    one.plug()
    store_of(ann).sync()
    assert store_of(ann).away.lost == (task.id,)
    assert bob.get(task.id).state is State.READY
