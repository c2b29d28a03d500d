"""What is said on a topic reaches every subscriber, also one that was away, and each session that was there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_bus import InvalidRequest, NotFound, cursors, topics
from mcp_bus.model import State
from mcp_bus.stores.contract import body
from mcp_bus.traces import trace
from tests.fakes import swept
from tests.mail.conftest import here
from tests.mail.test_mail import texts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mcp_bus import Bus
    from tests.fakes import VirtualSource

LEASE_S = 300


@pytest.fixture
def ann(ann: Bus) -> Bus:
    ann.create_channel("news", kind="topic")
    return ann


def test_broadcast_can_be_left_before_anyone_sent_to_it(open_bus_as: Callable[..., Bus]) -> None:
    ann, bob = open_bus_as("ann", "1"), open_bus_as("bob", "2")
    bob.mail.topics.unsubscribe("broadcast")
    ann.mail.send("broadcast", "hello")
    assert bob.mail.read() == []
    with pytest.raises(NotFound):
        bob.mail.topics.unsubscribe("broadcast")


def states(bus: Bus, message: str) -> dict[str, str]:
    return {reader.agent: reader.state for reader in trace(bus, message).readers}


def test_each_subscriber_reads_each_message_once(ann: Bus, bob: Bus, open_bus_as: Callable[..., Bus]) -> None:
    cat = here(open_bus_as("cat", "3"))
    for reader in (bob, cat):
        reader.mail.topics.subscribe("news")
    sent = ann.mail.send("news", "extra")
    assert (sent.to.kind, sent.live) == ("topic", 2)
    assert (texts(bob), texts(cat)) == (["extra"], ["extra"])
    assert [done.is_new for done in bob.mail.ack()] == [True]
    assert (texts(bob), texts(cat)) == ([], [])
    assert states(ann, sent.id) == {"bob": "acked", "cat": "offered"}
    assert ann.get(sent.id).state is State.READY, "it stays for those who come later"


def test_a_late_subscriber_reads_all_that_is_retained(ann: Bus, bob: Bus, source: VirtualSource) -> None:
    ann.mail.send("news", "old", ttl_s=5)
    ann.mail.send("news", "kept")
    source.advance(6)
    bob.mail.topics.subscribe("news")
    assert texts(bob) == ["kept"]


def test_a_session_that_starts_anew_goes_on_where_the_last_one_ended(
    ann: Bus, bob: Bus, open_bus_as: Callable[..., Bus], source: VirtualSource
) -> None:
    bob.mail.topics.subscribe("news")
    for text in "123":
        ann.mail.send("news", text)
    assert texts(bob, limit=2) == ["1", "2"]
    bob.mail.ack()
    bob.roster.leave()
    ann.mail.send("news", "4")
    source.advance(1)
    assert texts(here(open_bus_as("bob", "3"))) == ["3", "4"]


def test_what_was_offered_and_not_acked_comes_back_to_the_same_session_and_to_the_next(
    ann: Bus, bob: Bus, open_bus_as: Callable[..., Bus], source: VirtualSource
) -> None:
    bob.mail.topics.subscribe("news")
    sent = ann.mail.send("news", "x")
    assert texts(bob) == ["x"]
    source.advance(1)
    later = here(open_bus_as("bob", "3"))
    assert (texts(bob), texts(later)) == ([], [])
    source.advance(LEASE_S)
    (again,) = bob.mail.read()
    assert again.offers == 2
    source.advance(LEASE_S + 1)
    assert texts(later) == ["x"]
    assert states(ann, sent.id) == {"bob": "offered"}


def test_every_session_that_was_there_sees_a_message_though_its_twin_acked_it(
    ann: Bus, bob: Bus, open_bus_as: Callable[..., Bus], source: VirtualSource
) -> None:
    twin = here(open_bus_as("bob", "3"))
    source.advance(1)
    ann.mail.send("broadcast", "stop")
    assert texts(bob) == ["stop"]
    bob.mail.ack()
    assert twin.mail.unread().messages == 1
    assert texts(twin) == ["stop"]
    assert texts(twin) == []
    source.advance(1)
    assert texts(here(open_bus_as("bob", "4"))) == [], "one that came later goes by what its agent read"


def test_everyone_reads_broadcast_but_who_said_otherwise_and_not_its_sender(ann: Bus, bob: Bus) -> None:
    sent = ann.mail.send("broadcast", "hear")
    assert states(ann, sent.id) == {"bob": "queued"}
    assert (texts(ann), texts(bob)) == ([], ["hear"])
    bob.mail.ack()
    bob.mail.topics.unsubscribe("broadcast")
    sent = ann.mail.send("broadcast", "again")
    assert (texts(bob), states(ann, sent.id)) == ([], {})
    bob.mail.topics.subscribe("broadcast")
    assert texts(bob) == ["again"]


def test_a_dead_agent_does_not_make_a_broadcast_fail(ann: Bus, bob: Bus, source: VirtualSource) -> None:
    source.advance(3600)
    ann.roster.beat()
    sent = ann.mail.send("broadcast", "hear")
    assert sent.live == 0
    assert states(ann, sent.id) == {}
    assert texts(bob) == ["hear"], "it was only silent"


def test_a_filter_lets_through_what_has_its_fields_and_passes_over_the_rest_for_good(ann: Bus, bob: Bus) -> None:
    bob.mail.topics.subscribe("news", {"signal": "build_complete"})
    noise = ann.mail.send("news", {"signal": "build_started"}).id
    ann.mail.send("news", "no JSON at all")
    ann.mail.send("news", {"signal": "build_complete", "version": "0.4.0"})
    assert bob.mail.unread().messages == 1
    assert texts(bob) == ['{"signal":"build_complete","version":"0.4.0"}']
    assert states(ann, noise) == {"bob": "not asked for"}
    bob.mail.ack()
    assert bob.mail.unread().messages == 0
    bob.mail.topics.subscribe("news", {"from": "ann", "type": "status"})
    ann.mail.send("news", "x", type="status")
    assert texts(bob) == ["x"]


@pytest.mark.parametrize("match", [{"a": ""}, {"": "b"}, {"a": "x" * 201}, {str(n): "x" for n in range(9)}, {"a": 1}])
def test_a_filter_that_is_none_is_refused_and_nothing_is_subscribed(bob: Bus, match: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        bob.mail.topics.subscribe("other", match)
    assert bob.mail.topics.subscribed() == {}
    assert "other" not in bob.store.channels()


def test_a_queue_cannot_be_subscribed_to_nor_a_topic_claimed_from_nor_either_made_the_other(ann: Bus, bob: Bus) -> None:
    ann.create_channel("review")
    for refused in (
        lambda: bob.mail.topics.subscribe("review"),
        lambda: bob.claim(["news"]),
        lambda: ann.create_channel("review", kind="topic"),
        lambda: ann.create_channel("news", kind="queue"),
        lambda: ann.create_channel("box", kind="inbox"),
    ):
        with pytest.raises(InvalidRequest):
            refused()
    assert bob.mail.topics.subscribed() == {}
    assert (ann.store.policy("review").kind, ann.store.policy("news").kind) == ("queue", "topic")
    assert ann.store.channels() == ["news", "review"]


def test_a_topic_is_not_work(ann: Bus, bob: Bus) -> None:
    ann.mail.send("news", "x")
    assert bob.claim() is None


def test_who_is_not_subscribed_can_neither_unsubscribe_nor_ack(ann: Bus, bob: Bus) -> None:
    sent = ann.mail.send("news", "x")
    with pytest.raises(NotFound):
        bob.mail.topics.unsubscribe("news")
    with pytest.raises(InvalidRequest):
        bob.mail.ack([sent.id])
    assert states(ann, sent.id) == {}


def test_a_message_that_becomes_visible_late_is_not_missed(ann: Bus, bob: Bus, source: VirtualSource) -> None:
    bob.mail.topics.subscribe("news")
    late = body(0, "news", content="late")._replace(id=f"req_{source.now():012x}{1:020x}")
    source.advance(1)
    ann.mail.send("news", "young")
    assert texts(bob) == ["young"]
    bob.mail.ack()
    ann.store.add(late)
    assert texts(bob) == ["late"]


def test_a_sender_that_took_too_long_to_make_its_message_visible_sends_it_again(
    ann: Bus, bob: Bus, source: VirtualSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob.mail.topics.subscribe("news")
    add, slow = ann.store.add, [cursors.SETTLE / 1000]

    def slowly(made: object) -> object:
        source.advance(slow.pop() if slow else 0)
        return add(made)  # type: ignore[arg-type]  # a double of any signature

    monkeypatch.setattr(ann.store, "add", slowly)
    sent = ann.mail.send("news", "x")
    assert source.now() - cursors.time_of(sent.id) < topics.Topics.LATE
    assert texts(bob) == ["x"]


def test_a_superseded_message_of_a_topic_is_gone_for_who_has_not_read_it(ann: Bus, bob: Bus) -> None:
    bob.mail.topics.subscribe("news")
    old = ann.mail.send("news", "old").id
    ann.mail.send("news", "new", supersedes=old)
    assert texts(bob) == ["new"]
    assert states(ann, old) == {"bob": "superseded"}


def test_old_messages_of_a_topic_expire_and_are_pruned(ann: Bus, source: VirtualSource) -> None:
    ann.create_channel("news", retention_days=1)
    sent = ann.mail.send("news", "x").id
    source.advance(86_401)
    swept(ann)
    assert ann.get(sent).state is State.EXPIRED
    source.advance(2 * 86_400)
    swept(ann)
    with pytest.raises(NotFound, match="pruned"):
        ann.get(sent)


def test_a_cursor_that_is_damaged_or_from_the_future_hides_nothing(
    file_bus: Bus, root: Path, source: VirtualSource
) -> None:
    ann = here(file_bus)
    ann.create_channel("news", kind="topic")
    ann.mail.topics.subscribe("news")
    ann.store.add(body(0, "news", content="x")._replace(id=f"req_{source.now():012x}{1:020x}"))
    assert texts(ann) == ["x"]
    ann.mail.ack()
    cursor = max((root / "cursors" / "news").iterdir())
    number = int(cursor.name.split(".")[1])
    for data in (b"{}", b'{"agent":"ann","watermark":"req_ffffffffffff00000000000000000000","match":{}}', b"torn"):
        number += 1
        (cursor.parent / f"ann.{number}.json").write_bytes(data)
        fresh = here(type(ann)(ann.store, ann.identity, source))
        expected = [] if data == b"torn" else ["x"]  # What is no document is put aside: the one before counts.
        source.advance(LEASE_S + 1)
        assert texts(fresh) == expected, data
        if data == b"torn":
            assert not (cursor.parent / f"ann.{number}.json").exists()


def test_what_a_session_was_shown_and_could_not_see_is_unread_again_and_the_rest_is_not(
    ann: Bus, bob: Bus, source: VirtualSource
) -> None:
    bob.mail.topics.subscribe("news")
    first = ann.mail.send("news", "1").id
    assert texts(bob) == ["1"]
    source.advance(1)
    lost = [ann.mail.send("news", "2").id, ann.mail.send("bob", "3").id]
    assert sorted(texts(bob)) == ["2", "3"]
    assert bob.mail.give_back("its answer was lost", lost) == 2
    assert sorted(texts(bob)) == ["2", "3"]
    assert states(ann, first) == {"bob": "offered"}
