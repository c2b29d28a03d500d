"""While the remote does not answer: reading and posting go on, claiming does not, and nothing untrue is said."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from mcp_bus.errors import StoreUnavailable, Untrusted
from mcp_bus.model import State
from mcp_bus.recovery import sweep
from mcp_bus.stores.git.repo import Refused
from tests.crash.victim import ended, fork
from tests.fakes import VirtualSource
from tests.git.hosts import Hosts, bus_on, die, git, store_of

LATER_MS = 60_000


class Cable:
    """What leads to the remote, which can be pulled."""

    def __init__(self, remote: str) -> None:
        self._there, self._away = Path(remote), Path(f"{remote}.away")

    def pull(self) -> None:
        self._there.rename(self._away)

    def plug(self) -> None:
        self._away.rename(self._there)


@pytest.fixture
def cable(remote: str) -> Cable:
    return Cable(remote)


def test_posts_wait_here_are_seen_here_and_are_sent_by_whoever_comes_next(hosts: Hosts, cable: Cable) -> None:
    source = VirtualSource()
    ann, bob = hosts.bus("one", source=source), hosts.bus("two", "bob", source=source)
    before = ann.post("work", "before").id
    source.advance(LATER_MS)
    bob.store.ids()
    cable.pull()
    made = [ann.post("work", f"offline {n}").id for n in range(3)]
    assert store_of(ann).away.unsent == 3
    assert set(ann.store.ids()) == {before, *made}
    other = hosts.bus("one", "another of this host", source=source)
    assert set(other.store.ids()) == {before, *made}
    assert set(bob.store.ids()) == {before}
    cable.plug()
    source.advance(LATER_MS)
    assert set(bob.store.ids()) == {before}, "nobody has sent them yet"
    store_of(other).sync()
    source.advance(LATER_MS)
    assert set(bob.store.ids()) == {before, *made}
    assert store_of(ann).away.unsent == 0
    store_of(ann).sync()
    assert sorted(slot.id for slot in bob.store.scan("work", State.READY)) == sorted([before, *made])


def test_what_waits_here_goes_with_the_next_thing_that_is_pushed(hosts: Hosts, cable: Cable) -> None:
    source = VirtualSource()
    ann, bob = hosts.bus("one", source=source), hosts.bus("two", "bob", source=source)
    cable.pull()
    made = ann.post("work", "offline").id
    cable.plug()
    source.advance(LATER_MS)
    bob.post("work", "from elsewhere")  # So that it is decided on another head.
    claimed = ann.claim(["work"])
    assert claimed is not None
    source.advance(LATER_MS)
    assert made in bob.store.ids()
    assert store_of(ann).away.unsent == 0


def test_a_claim_needs_the_remote_and_says_so(hosts: Hosts, cable: Cable) -> None:
    ann = hosts.bus("one")
    task = ann.post("work", "x").id
    cable.pull()
    with pytest.raises(StoreUnavailable, match="failed"):
        ann.claim(["work"])
    assert ann.get(task).state is State.READY
    cable.plug()
    assert hosts.bus("two", "bob").claim(["work"]) is not None


def test_a_post_that_waits_survives_kill_9_and_comes_once(hosts: Hosts, cable: Cable) -> None:
    ann = hosts.bus("one")
    cable.pull()

    def posts() -> None:
        bus = bus_on(hosts.place / "one", hosts.remote)
        bus.post("work", "x", key="k")
        die()

    assert ended(fork(posts)) == -signal.SIGKILL
    again = ann.post("work", "x", key="k")
    assert not again.created
    cable.plug()
    store_of(ann).sync()
    assert hosts.bus("two", "bob").store.ids() == [again.id]


def test_a_key_that_was_used_elsewhere_meanwhile_is_one_task(hosts: Hosts, cable: Cable) -> None:
    ann, other = hosts.bus("one"), hosts.bus("two")
    cable.pull()
    ann.post("work", "x", key="k")
    cable.plug()
    kept = other.post("work", "x", key="k").id
    store_of(ann).sync()
    assert ann.store.ids() == other.store.ids() == [kept]
    assert store_of(ann).away.unsent == 0


def test_a_branch_that_was_rewritten_is_refused_and_nothing_is_forgotten(hosts: Hosts) -> None:
    ann = hosts.bus("one")
    old = git("--git-dir", hosts.remote, "rev-parse", "mcp-bus").strip()
    task = ann.post("work", "x").id
    git("--git-dir", hosts.remote, "update-ref", "refs/heads/mcp-bus", old)
    with pytest.raises(Untrusted, match="lost"):
        ann.get(task)
    with pytest.raises(Untrusted, match="lost"):
        hosts.bus("one", "another")
    assert hosts.bus("new", "who never saw it").store.ids() == []


def test_a_post_that_cannot_be_sent_stays_here_and_is_told(hosts: Hosts, cable: Cable) -> None:
    ann = hosts.bus("one")
    ann.post("work", "x")
    cable.pull()
    ann.post("work", "for a channel that is gone")
    [path] = (hosts.place / "one" / "unsent").iterdir()
    path.write_text(
        path.read_text().replace('"to": "work"', '"to": "elsewhere"').replace('"to":"work"', '"to":"elsewhere"')
    )
    cable.plug()
    later = hosts.bus("one", "later")
    store_of(later).sync()
    assert store_of(later).away.unsent == 1
    assert path.exists()
    assert len(later.store.ids()) == 1
    assert later.claim(["work"]) is not None
    assert path.exists()


def test_a_claim_that_came_second_and_then_lost_the_remote_is_none(hosts: Hosts, cable: Cable) -> None:
    ann, bob = hosts.bus("one"), hosts.bus("two", "bob")
    task = ann.post("work", "x").id
    repo = store_of(ann).repo

    def push(commit: str, expected: str) -> None:
        bob.post("work", "faster")
        cable.pull()
        raise Refused(commit + expected)

    repo.push = push  # type: ignore[method-assign]  # as the remote says it, and is gone
    with pytest.raises(StoreUnavailable):
        ann.claim(["work"])
    assert ann.get(task).state is State.READY


def test_a_post_to_a_new_channel_and_to_an_agent_that_was_never_here_waits_like_any_other(
    hosts: Hosts, cable: Cable
) -> None:
    source = VirtualSource()
    ann = hosts.bus("one", source=source)
    cable.pull()
    task = ann.post("brandnew", "x").id
    note = ann.mail.send("@never", "hello").id
    other = hosts.bus("one", "cid", source=source)
    assert {other.get(name).channel for name in (task, note)} == {"brandnew", "@never"}
    with pytest.raises(StoreUnavailable):
        ann.create_channel("with-rules", retention_days=3)
    assert "with-rules" not in ann.store.channels()
    cable.plug()
    source.advance(LATER_MS)
    store_of(other).sync()
    bob = hosts.bus("two", "bob", source=source)
    assert set(bob.store.ids()) == {task, note}
    assert bob.store.policy("@never").kind == "inbox"
    assert "with-rules" not in bob.store.channels()
    assert not (hosts.place / "one" / "unsent.channels").exists() or not list(
        (hosts.place / "one" / "unsent.channels").iterdir()
    )


def test_what_needs_the_remote_says_when_it_is_asked_again_and_never_to_make_another(
    hosts: Hosts, cable: Cable
) -> None:
    source = VirtualSource()
    ann = hosts.bus("one", source=source)
    ann.post("work", "x")
    task = ann.claim(["work"])
    assert task is not None
    cable.pull()
    with pytest.raises(
        StoreUnavailable, match="needs the git remote, which did not answer 0 s ago; nothing was changed"
    ):
        ann.ack(task.ticket, "mine")
    source.advance(20)
    with pytest.raises(StoreUnavailable, match="did not answer 20 s ago") as later:
        ann.ack(task.ticket, "mine")
    assert "asked again in 10 s; `mcp-bus sync` asks it at once" in (later.value.hint or "")
    assert "git init" not in (later.value.hint or "")
    cable.plug()
    source.advance(10)
    assert ann.ack(task.ticket, "mine").content == "mine"


def test_a_retry_with_another_body_is_refused_as_a_whole(hosts: Hosts, cable: Cable) -> None:
    source = VirtualSource()
    ann = hosts.bus("one", source=source)
    old = ann.post("work", "deploy A", max_attempts=1).id
    task = ann.claim(["work"])
    assert task is not None
    ann.nack(task, "no")
    cable.pull()
    with pytest.raises(StoreUnavailable):
        ann.retry(old, body="deploy B")
    assert store_of(ann).away.unsent == 0
    cable.plug()
    source.advance(LATER_MS)
    assert ann.retry(old, body="deploy B").id != old
    assert sorted(ann.get(name).state for name in ann.store.ids()) == [State.CANCELLED, State.READY]


def test_a_clock_that_was_set_back_does_not_keep_the_remote_away(hosts: Hosts, cable: Cable) -> None:
    source = VirtualSource()
    ann = hosts.bus("one", source=source)
    cable.pull()
    task = ann.post("work", "x").id
    cable.plug()
    source.advance(-86_400)
    store_of(ann).mend(source.now())
    source.advance(31)
    ann.post("work", "y")
    assert store_of(ann).away.unsent == 0
    assert task in hosts.bus("two", "bob", source=source).store.ids()


def test_a_post_whose_answer_was_lost_is_not_done_again_after_it_was_pruned(hosts: Hosts) -> None:
    source = VirtualSource()
    ann, bob = hosts.bus("one", source=source), hosts.bus("two", "bob", source=source)
    bob.create_channel("work", retention_days=1)
    source.advance(LATER_MS)
    repo = store_of(ann).repo
    real = repo.push

    def push(commit: str, expected: str) -> None:
        real(commit, expected)
        msg = "the connection broke"
        raise StoreUnavailable(msg)

    repo.push = push  # type: ignore[method-assign]  # the remote has it, and this host does not know
    task = ann.post("work", "deploy once").id
    repo.push = real  # type: ignore[method-assign]  # as above
    assert store_of(ann).away.unsent == 1
    claimed = bob.claim(["work"])
    assert claimed is not None
    bob.ack(claimed, "deployed")
    source.advance(3 * 86_400)
    sweep(bob)
    assert task not in bob.store.ids()
    store_of(ann).sync()
    assert store_of(ann).away.unsent == 0
    source.advance(LATER_MS)
    assert bob.claim(["work"]) is None
