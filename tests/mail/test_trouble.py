"""What goes wrong with one message, one record or one writer costs nobody else anything, and nothing false is said."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus import InvalidRequest, cursors, names, sweep, topics
from mcp_bus.errors import StoreUnavailable
from mcp_bus.model import Attempt, Lease, Outcome, State
from mcp_bus.stores.contract import body
from tests.fakes import swept
from tests.mail.conftest import here
from tests.mail.test_mail import texts, told
from tests.mail.test_topics import states

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mcp_bus import Bus
    from tests.fakes import VirtualSource


@pytest.fixture
def ann(ann: Bus) -> Bus:
    ann.create_channel("news", kind="topic")
    return ann


@pytest.fixture
def bob(bob: Bus) -> Bus:
    bob.mail.topics.subscribe("news")
    return bob


# --- records that are none ------------------------------------------------------------------------

RECORDS: dict[str, dict[str, Any]] = {
    "a pid that is too great": {"pid": 10**30, "started": 0},
    "a pid of a group": {"pid": 0, "started": 0},
    "a pid below zero": {"pid": -1, "started": 0},
    "a time that is too great": {"since": 10**40},
    "a holder of another": {"agent": "mallory"},
}


@pytest.mark.parametrize("what", RECORDS)
def test_a_session_record_that_is_none_stops_nobody_and_counts_for_nobody(file_bus: Bus, root: Path, what: str) -> None:
    bus = here(file_bus)
    (known,) = (root / "agents").glob("ann*")
    data = json.loads(known.read_bytes()) | {"agent": "evil", "session": "x", "holder": "evil~x"} | RECORDS[what]
    (root / "agents" / "evil~x.1.json").write_text(json.dumps(data))
    bus.post("work", "x")
    assert bus.claim() is not None
    sweep(bus)
    assert [seen.presence.agent for seen in bus.roster.all() if seen.is_live] == ["ann"]


@pytest.mark.parametrize("number", [10**12 - 2, 10**12 - 1, 10**12, 999_999_999_999_999])
def test_a_revision_that_no_writer_gets_to_is_nobodys(file_bus: Bus, root: Path, number: int) -> None:
    ann = here(file_bus)
    ann.mail.topics.subscribe("news")
    (root / "cursors" / "news" / f"ann.{number}.json").write_text('{"agent":"ann","watermark":"","match":{}}')
    ann.mail.topics.subscribe("news", {"a": "b"})
    assert dict(ann.mail.topics.subscribed()["news"].match) == {"a": "b"}


@pytest.mark.parametrize("how", ["file", "symlink"])
def test_what_is_in_place_of_the_cursors_is_put_aside(file_bus: Bus, root: Path, how: str) -> None:
    ann, place = here(file_bus), root / "cursors"
    if how == "file":
        place.write_text("x")
    else:
        place.symlink_to(root / "tasks")
    ann.mail.topics.subscribe("news")
    assert list(ann.mail.topics.subscribed()) == ["news"]
    assert len(list((root / "quarantine").glob("*.reason.json"))) == 1


def test_a_mark_from_the_future_hides_nothing(file_bus: Bus, root: Path, source: VirtualSource) -> None:
    ann = here(file_bus)
    ann.mail.topics.subscribe("news")
    made = body(0, "news")._replace(id=f"req_{source.now():012x}{1:020x}")
    ann.store.add(made)
    (cursor,) = (root / "cursors" / "news").iterdir()
    data = json.loads(cursor.read_bytes()) | {"offered": {made.id: [10**30, "x~1", "y"]}}
    cursor.write_text(json.dumps(data))
    source.advance(1)
    assert len(here(type(ann)(ann.store, ann.identity, source)).mail.read()) == 1


# --- half done ------------------------------------------------------------------------------------


def test_messages_that_were_offered_are_shown_though_a_topic_cannot_be_read_and_only_those_are_acked(
    ann: Bus, bob: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in "12":
        ann.mail.send("bob", text)
    ann.mail.send("news", "3")

    def full(*_: object, **__: object) -> int:
        msg = "the disk is full"
        raise StoreUnavailable(msg)

    monkeypatch.setattr(bob.store.records, "write", full)
    assert sorted(texts(bob)) == ["1", "2"]
    with pytest.raises(StoreUnavailable):
        bob.mail.read()
    monkeypatch.undo()
    assert all(done.is_new for done in bob.mail.ack())
    assert texts(bob) == ["3"]


def test_a_disk_that_fills_while_offers_are_made_loses_sight_of_none(
    ann: Bus, bob: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in "123":
        ann.mail.send("bob", text)
    swap, count = bob.store.swap, iter(range(9))

    def twice(*given: object) -> None:
        if next(count) >= 2:
            msg = "the disk is full"
            raise StoreUnavailable(msg)
        swap(*given)  # type: ignore[arg-type]  # as it was given

    monkeypatch.setattr(bob.store, "swap", twice)
    assert len(bob.mail.read()) == 2
    monkeypatch.undo()
    assert len(bob.mail.offered()) == 2
    assert len(bob.mail.read()) == 1


def test_an_ack_of_several_is_made_for_all_or_none(ann: Bus, bob: Bus) -> None:
    mine, others = ann.mail.send("bob", "x").id, ann.mail.send("@carl", "y").id
    bob.mail.read()
    with pytest.raises(InvalidRequest):
        bob.mail.ack([mine, others])
    assert told(ann, mine)[0] == "offered"


def test_who_unsubscribed_can_still_ack_the_rest(ann: Bus, bob: Bus) -> None:
    ann.mail.send("news", "x")
    direct = ann.mail.send("bob", "y").id
    assert len(bob.mail.read()) == 2
    bob.mail.topics.unsubscribe("news")
    assert [(done.id, done.is_new) for done in bob.mail.ack()] == [(direct, True)]


def test_of_two_sessions_that_ack_one_message_of_a_topic_one_is_told_it_was_the_first(
    ann: Bus, bob: Bus, open_bus_as: Callable[..., Bus]
) -> None:
    twin = here(open_bus_as("bob", "3"))
    sent = ann.mail.send("news", "x").id
    assert [bus.mail.ack([sent])[0].is_new for bus in (bob, twin)] == [True, False]


# --- a trace that is true -------------------------------------------------------------------------


def test_an_ack_that_was_cut_off_is_not_in_the_trace(ann: Bus, bob: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its line of history is written before the rename that makes it true."""
    sent = ann.mail.send("bob", "x").id
    bob.mail.read()
    task = ann.get(sent)
    line = Attempt(1, Outcome.ACKED, 5, "bob~2", token=task.lease.token)
    monkeypatch.setattr(ann, "get", lambda _: task._replace(history=(*task.history, line)))
    assert told(ann, sent) == ("offered", ["queued", "offered"])


def test_what_an_ack_takes_for_itself_is_no_offer_while_it_is_under_way(ann: Bus, bob: Bus) -> None:
    sent = ann.mail.send("bob", "x").id
    slot = ann.get(sent).slot
    taken = slot._replace(state=State.LEASED, attempt=1, lease=Lease("bob~2", "abcd", ann.source.now() + 60_000))
    bob.store.swap(slot, taken)
    assert told(ann, sent) == ("queued", ["queued"])


def test_a_message_that_expired_unread_is_never_said_to_be_acked(ann: Bus, bob: Bus, source: VirtualSource) -> None:
    expired = ann.mail.send("news", "old", ttl_s=5).id
    source.advance(cursors.SETTLE / 1000 + 6)
    swept(ann)
    for number in range(3 * cursors.KEEP):
        ann.store.add(body(number, "news")._replace(id=f"req_{source.now():012x}{number:020x}"))
    source.advance(cursors.SETTLE / 1000 + 1)
    bob.mail.read(limit=1000)
    bob.mail.ack()
    assert states(ann, expired) == {"bob": "expired"}


def test_what_was_passed_long_ago_is_not_said_to_be_more_than_that(ann: Bus, bob: Bus, source: VirtualSource) -> None:
    ids = [f"req_{source.now():012x}{number:020x}" for number in range(3 * cursors.KEEP)]
    for name in ids:
        ann.store.add(body(0, "news")._replace(id=name))
    source.advance(cursors.SETTLE / 1000 + 1)
    bob.mail.read(limit=1000)
    bob.mail.ack()
    assert states(ann, ids[0]) == {"bob": "passed"}
    assert states(ann, ids[-1]) == {"bob": "acked"}
    assert texts(bob) == []


def test_a_topics_message_that_is_superseded_is_not_said_to_be_unread_and_cannot_be_acked_any_more(
    ann: Bus, bob: Bus
) -> None:
    old = ann.mail.send("news", "old").id
    bob.mail.read()
    assert ann.mail.send("news", "new", supersedes=old).superseded == "is taken back where it was not read"
    (done,) = bob.mail.ack([old])
    assert not done.is_new
    assert "superseded" in done.note


# --- who is who -----------------------------------------------------------------------------------


def test_no_agents_name_gives_it_the_inbox_of_another() -> None:
    theirs = names.inbox("github.com/acme/app/main")
    for name in (theirs[1:], theirs[1:].replace("+", "-"), theirs):
        assert names.inbox(name) != theirs


def test_an_answer_goes_to_the_agent_who_wrote_whatever_its_name_looks_like(ann: Bus, bob: Bus) -> None:
    asked = body(0, "@ann", content="how?")
    ann.mail.send("@ann", "makes the inbox")
    ann.store.add(asked._replace(sender=asked.sender._replace(agent="bob~2")))
    sent = ann.mail.send("", "so", reply_to=asked.id)
    assert (sent.to.kind, sent.to.agent) == ("agent", "bob~2")
    assert texts(bob) == []


@pytest.mark.parametrize("channel", ["broadcast", "human"])
def test_what_is_reserved_is_no_queue(ann: Bus, channel: str) -> None:
    with pytest.raises(InvalidRequest):
        ann.post(channel, "all stop")
    with pytest.raises(InvalidRequest):
        ann.create_channel(channel)
    assert ann.mail.send("broadcast", "x").to.kind == "topic"
    assert ann.claim() is None


@pytest.mark.parametrize("option", ["max_attempts", "backoff_s", "requires"])
def test_what_only_tasks_have_a_message_is_refused(ann: Bus, bob: Bus, option: str) -> None:
    value: dict[str, Any] = {option: ["x"] if option == "requires" else 1}
    with pytest.raises(InvalidRequest, match=option):
        ann.mail.send("bob", "x", **value)
    assert texts(bob) == []


def test_a_task_is_not_superseded_by_a_message(ann: Bus, bob: Bus) -> None:
    task = ann.post("work", "x").id
    assert bob.claim(["work"]) is not None
    with pytest.raises(InvalidRequest, match="not a message"):
        ann.mail.send("bob", "y", supersedes=task)
    assert ann.get(task).state is State.LEASED


def test_what_waits_for_its_time_counts_for_the_bound_of_an_inbox(
    ann: Bus, bob: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mcp_bus import outbox
    from mcp_bus.errors import Overloaded

    monkeypatch.setattr(outbox, "MAX_UNREAD", 3)
    for _ in range(3):
        ann.mail.send("bob", "x", delay_s=60)
    with pytest.raises(Overloaded):
        ann.mail.send("bob", "x", delay_s=60)
    assert bob.mail.unread().messages == 0


def test_the_urgent_comes_first_from_wherever_it_is(ann: Bus, bob: Bus) -> None:
    for number in range(12):
        ann.mail.send("bob", str(number), priority=-5)
    ann.mail.send("news", "fire", priority=9)
    assert texts(bob, limit=5)[0] == "fire"


def test_a_message_that_expired_is_not_counted_as_waiting(ann: Bus, bob: Bus, source: VirtualSource) -> None:
    ann.mail.send("bob", "x", ttl_s=5)
    source.advance(6)
    assert bob.mail.unread() == (0, 0)


def test_ids_of_another_form_hide_no_later_message(ann: Bus, bob: Bus, source: VirtualSource) -> None:
    for number in range(3 * cursors.KEEP):
        ann.store.add(body(0, "news", content="short")._replace(id=f"req_{0x97B00000 + number:08x}"))
    source.advance(cursors.SETTLE / 1000 + 1)
    assert len(bob.mail.read(limit=1000)) == 3 * cursors.KEEP
    bob.mail.ack()
    sent = ann.mail.send("news", "after")
    assert states(ann, sent.id) == {"bob": "queued"}
    assert texts(bob) == ["after"]


def test_a_late_keyed_message_is_sent_again_once_and_the_first_superseded_stays_so(
    ann: Bus, bob: Bus, source: VirtualSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = ann.mail.send("news", "old").id
    add, slow = ann.store.add, [cursors.SETTLE / 1000]

    def slowly(made: object) -> object:
        source.advance(slow.pop() if slow else 0)
        return add(made)  # type: ignore[arg-type]  # a double of any signature

    monkeypatch.setattr(ann.store, "add", slowly)
    sent = ann.mail.send("news", "new", key="k", supersedes=old)
    assert source.now() - cursors.time_of(sent.id) < topics.Topics.LATE
    again = ann.mail.send("news", "new", key="k", supersedes=old)
    assert not again.created
    assert texts(bob) == ["new"]
    assert ann.get(old).state is State.CANCELLED


# --- much ------------------------------------------------------------------------------------------


def test_a_cursor_of_many_thousand_messages_stays_small_and_the_subscription_is_kept(
    ann: Bus, bob: Bus, source: VirtualSource
) -> None:
    ids = [f"req_{source.now():012x}{number:020x}" for number in range(4000)]
    for name in ids:
        ann.store.add(body(0, "news", content="")._replace(id=name))
    source.advance(cursors.SETTLE / 1000 + 1)
    assert len(bob.mail.read(limit=5000)) == 4000
    bob.mail.ack(ids[1:])
    record = bob.store.records.read("cursors/news", "bob")
    assert record is not None
    assert len(json.dumps(dict(record.data))) < 50 * len(ids)
    assert list(bob.mail.topics.subscribed()) == ["news"]
    assert cursors.unread(bob.mail.topics.subscribed()["news"], ids) == ids[:1]


# --- twins and offers -----------------------------------------------------------------------------


def test_a_twin_that_was_there_is_shown_what_the_other_was_offered_and_has_not_acked(
    ann: Bus, bob: Bus, open_bus_as: Callable[..., Bus], source: VirtualSource
) -> None:
    twin = here(open_bus_as("bob", "3"))
    source.advance(1)
    ann.mail.send("news", "x")
    assert (texts(bob), texts(twin)) == (["x"], ["x"])


def test_what_another_session_was_shown_is_not_taken_back_with_what_this_one_was(
    ann: Bus, bob: Bus, open_bus_as: Callable[..., Bus], source: VirtualSource
) -> None:
    sent = ann.mail.send("news", "x").id
    source.advance(1)
    assert texts(bob) == ["x"]
    twin = here(open_bus_as("bob", "3"))
    twin.mail.topics._shown[sent] = ("news", 0)
    twin.mail.give_back("its answer was lost", [sent])
    assert states(ann, sent) == {"bob": "offered"}


def test_another_filter_is_asked_anew(ann: Bus, bob: Bus) -> None:
    bob.mail.topics.subscribe("news", {"signal": "a"})
    ann.mail.send("news", {"signal": "b"})
    assert bob.mail.unread().messages == 0
    bob.mail.topics.subscribe("news", {"signal": "b"})
    assert bob.mail.unread().messages == 1
