"""What an attacker and a stranger found: names, ends, floods, and sessions that are no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_bus import Conflict, InvalidRequest, NotFound, Overloaded, bidding, outbox
from mcp_bus.mail import Mail
from mcp_bus.model import Policy, State
from mcp_bus.recovery import sweep
from mcp_bus.traces import trace
from tests.mail.conftest import here

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus import Bus
    from tests.fakes import VirtualSource


@pytest.fixture
def ann(ann: Bus) -> Bus:
    ann.create_channel("jobs", kind="topic")
    return ann


def state(bus: Bus, message: str) -> str:
    (reader,) = trace(bus, message).readers
    return reader.state


# --- names ----------------------------------------------------------------------------------------


def test_the_human_is_the_human_whatever_a_channel_is_called(ann: Bus) -> None:
    with pytest.raises(InvalidRequest, match="'human' is an agent"):
        ann.mail.topics.subscribe("human")
    assert "human" not in ann.store.channels()
    ann.store.declare("human", Policy("topic"))  # As an earlier version let it happen.
    for name in ("human", "@human", "#human"):
        assert ann.mail.send(name, "help").to.channel == "@human"


@pytest.mark.parametrize("verb", ["post", "subscribe"])
def test_no_channel_is_made_by_the_way_that_is_called_like_an_agent(ann: Bus, bob: Bus, verb: str) -> None:
    calls: dict[str, Callable[[], object]] = {
        "post": lambda: ann.post("bob", "hello"),
        "subscribe": lambda: ann.mail.topics.subscribe("bob"),
    }
    with pytest.raises(InvalidRequest, match="'bob' is an agent"):
        calls[verb]()
    assert "bob" not in ann.store.channels()
    assert ann.mail.send("bob", "hello").to.agent == bob.identity.agent


def test_a_channel_that_was_there_before_an_agent_of_its_name_stays(ann: Bus, open_bus_as: Callable[..., Bus]) -> None:
    ann.post("cat", "x")
    here(open_bus_as("cat", "3"))
    assert ann.post("cat", "y").created


@pytest.mark.parametrize("name", ["@zed~zz", "@human~x", "@#x", "@@x"])
def test_a_message_to_a_name_that_no_agent_can_have_is_refused(ann: Bus, name: str) -> None:
    before = ann.store.channels()
    with pytest.raises(InvalidRequest):
        ann.mail.send(name, "hello")
    assert ann.store.channels() == before


@pytest.mark.parametrize("name", ["bob~7f3a", "@bob~7f3a"])
def test_a_session_that_an_agent_does_not_have_is_not_written_to(ann: Bus, bob: Bus, name: str) -> None:
    assert bob.roster.all()
    with pytest.raises(NotFound, match="'bob' has no session '7f3a'"):
        ann.mail.send(name, "hello")


def test_what_stands_for_the_sender_of_a_message_needs_one(ann: Bus) -> None:
    with pytest.raises(NotFound) as caught:
        ann.mail.send("-", "hello")
    assert "reply_to" in caught.value.hint


# --- ends -----------------------------------------------------------------------------------------


def test_what_was_acked_or_shown_before_its_ttl_passed_is_not_called_expired(
    ann: Bus, bob: Bus, source: VirtualSource
) -> None:
    acked, shown = ann.mail.send("bob", "1", ttl_s=10).id, ann.mail.send("bob", "2", ttl_s=10).id
    bob.mail.read()
    bob.mail.ack([acked])
    source.advance(11)
    assert (state(ann, acked), state(ann, shown)) == ("acked", "offered")
    assert [item.is_new for item in bob.mail.ack([shown])] == [True]
    assert state(ann, shown) == "acked"


def test_what_expired_before_it_was_shown_cannot_be_acked(ann: Bus, bob: Bus, source: VirtualSource) -> None:
    message = ann.mail.send("bob", "1", ttl_s=10).id
    source.advance(11)
    (done,) = bob.mail.ack([message])
    assert (done.is_new, done.note) == (False, "its ttl passed before it was shown")
    assert state(ann, message) == "expired"


def test_what_has_expired_is_not_counted_as_newer(ann: Bus, bob: Bus, source: VirtualSource) -> None:
    ann.mail.send("bob", "one")
    ann.mail.send("bob", "two", ttl_s=1)
    source.advance(2)
    assert [(item.body.content, item.newer) for item in bob.mail.read()] == [("one", 0)]


# --- sessions that are no more ----------------------------------------------------------------------


def test_what_an_ended_session_was_shown_is_unread_again_at_once(
    ann: Bus, open_bus_as: Callable[..., Bus], source: VirtualSource
) -> None:
    bob = here(open_bus_as("bob", "2"))
    bob.mail.topics.subscribe("jobs")
    note, news = ann.mail.send("bob", "urgent", priority=5).id, ann.mail.send("jobs", "news").id
    assert len(bob.mail.read()) == 2
    source.advance(1)
    twin = here(open_bus_as("bob", "9"))
    sweep(ann)
    assert twin.mail.read() == [], "it is there, and may ack yet"
    bob.roster.leave()  # As a killed one is seen: its process has ended.
    done = sweep(ann)
    assert sum("unread again" in line for line in done) == 2
    assert {item.body.id for item in twin.mail.read()} == {note, news}
    assert all(item.is_new for item in twin.mail.ack([note, news]))
    assert not any("unread again" in line for line in sweep(ann))


def test_what_a_silent_session_was_shown_is_waited_for(ann: Bus, bob: Bus, source: VirtualSource) -> None:
    ann.mail.send("bob", "hello")
    bob.mail.read()
    source.advance(300)
    sweep(ann)
    assert bob.mail.unread().messages == 0
    source.advance(301)
    sweep(ann)
    assert bob.mail.unread().messages == 1


def test_a_message_to_a_session_that_is_silent_for_ten_minutes_is_undeliverable_and_not_before(
    ann: Bus, bob: Bus, source: VirtualSource
) -> None:
    message = ann.mail.send(f"bob~{bob.identity.session}", "hello").id
    source.advance(590)
    sweep(ann)
    assert state(ann, message) == "queued"
    source.advance(20)
    sweep(ann)
    assert state(ann, message) == "undeliverable"


# --- topics ---------------------------------------------------------------------------------------


def test_a_message_that_cannot_be_read_yet_is_not_passed_over_by_a_filter(
    ann: Bus, bob: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob.mail.topics.subscribe("jobs", {"signal": "done"})
    message = ann.mail.send("jobs", {"signal": "done"}).id
    with monkeypatch.context() as half_written:
        half_written.setattr(bob.mail.topics, "_task", lambda _: None)
        assert bob.mail.read() == []
    assert [item.body.id for item in bob.mail.read()] == [message]


def test_what_a_filter_passes_over_is_passed_for_good(
    ann: Bus, bob: Bus, open_bus_as: Callable[..., Bus], source: VirtualSource
) -> None:
    bob.mail.topics.subscribe("jobs", {"signal": "done"})
    message = ann.mail.send("jobs", {"signal": "begun"}).id
    assert bob.mail.read() == []
    assert trace(ann, message).readers[0].state == "not asked for"
    source.advance(1)
    twin = open_bus_as("bob", "9")
    twin.mail.topics.subscribe("jobs")
    assert twin.mail.read() == []


# --- floods ---------------------------------------------------------------------------------------


def test_sessions_that_sent_before_are_counted_together_too(
    bob: Bus, open_bus_as: Callable[..., Bus], source: VirtualSource
) -> None:
    sessions = [open_bus_as("ann", f"{number:08x}") for number in range(3)]
    for session in sessions:
        session.mail.send("bob", "warm")
    source.advance(2)
    for number in range(3, outbox.MAX_A_MINUTE):
        sessions[number % 3].mail.send("bob", "more")
        source.advance(0.3)
    source.advance(1)
    for session in sessions:
        with pytest.raises(Overloaded):
            session.mail.send("bob", "one more")
    assert bob.mail.unread().messages == outbox.MAX_A_MINUTE


def test_others_and_tasks_do_not_use_up_what_an_agent_may_send(
    ann: Bus, bob: Bus, open_bus_as: Callable[..., Bus]
) -> None:
    for number in range(outbox.MAX_A_MINUTE + 1):
        ann.post("review", number)
    assert open_bus_as("ann", "77").mail.send("#review", "a note").created
    for number in range(outbox.MAX_A_MINUTE - 1):
        bob.mail.send("jobs", number)
    assert open_bus_as("ann", "78").mail.send("jobs", "one").created


def test_in_a_full_inbox_a_message_can_be_taken_back_for_another(ann: Bus, bob: Bus, source: VirtualSource) -> None:
    for number in range(outbox.MAX_FROM_ONE):
        source.advance(1)
        last = ann.mail.send("bob", number).id
    source.advance(61)
    with pytest.raises(Overloaded):
        ann.mail.send("bob", "one more")
    assert ann.mail.send("bob", "instead", supersedes=last).superseded == "is taken back unread"
    assert bob.mail.unread().messages == outbox.MAX_FROM_ONE


# --- bids -----------------------------------------------------------------------------------------


def bid(bus: Bus, call: str, cost: int, **more: str) -> str:
    return bus.mail.send("", {"cost": cost}, type="bid", reply_to=call, **more).id  # type: ignore[arg-type]  # an option of send


def test_a_bid_that_was_taken_back_or_replaced_is_not_awarded(ann: Bus, bob: Bus) -> None:
    call = ann.post("jobs", "x").id
    first = bid(bob, call, 1)
    second = bid(bob, call, 99, supersedes=first)
    third = bid(bob, call, 50)
    for old in (first, second):
        with pytest.raises(Conflict, match="counts no longer"):
            bidding.award(ann, old)
    assert [item.id for item in bidding.bids(ann, call)] == [third]
    assert ann.store.count("jobs")[State.READY] == 1
    bidding.award(ann, third)
    assert bidding.winner(ann, call) == third
    assert "your bid won" in next(item.body.title for item in bob.mail.read() if item.body.type == "status")
    assert ann.mail.unread().messages == 0, "the earlier one was answered too"


def test_a_bid_answers_a_call_and_goes_to_who_made_it(ann: Bus, bob: Bus) -> None:
    call = ann.post("jobs", "x").id
    with pytest.raises(InvalidRequest, match="answers a call"):
        bob.mail.send("ann", {"cost": 1}, type="bid")
    with pytest.raises(InvalidRequest, match="goes to 'ann'"):
        bob.mail.send("broadcast", {"cost": 1}, type="bid", reply_to=call)
    assert bidding.bids(ann, call) == []


def test_a_mailbox_that_was_made_anew_reads_what_waits(ann: Bus, bob: Bus) -> None:
    ann.mail.send("bob", "hello")
    assert Mail(bob).unread().messages == 1
