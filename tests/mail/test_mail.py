"""A message is queued, offered, acked: each is said only when it is so, and one that was not acked comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_bus import DuplicateTask, InvalidRequest, NotFound, outbox, policies
from mcp_bus.errors import Overloaded
from mcp_bus.model import State
from mcp_bus.traces import trace
from tests.fakes import swept
from tests.mail.conftest import here

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus import Bus
    from mcp_bus.mail import Delivery
    from tests.fakes import VirtualSource

LEASE_S = policies.INBOX.lease_s


def texts(bus: Bus, *, limit: int = 20, room: int = 6000) -> list[str]:
    return [item.body.content for item in bus.mail.read(limit=limit, room=room)]


def told(bus: Bus, message: str) -> tuple[str, list[str]]:
    """Return a message's state and steps, as its only reader's trace has them."""
    (reader,) = trace(bus, message).readers
    return reader.state, [step.what for step in reader.steps]


def test_a_message_is_queued_then_offered_then_acked_and_the_sender_can_see_which(ann: Bus, bob: Bus) -> None:
    sent = ann.mail.send("bob", "hello", title="hi")
    assert (sent.live, sent.created) == (1, True)
    assert told(ann, sent.id) == ("queued", ["queued"])
    (item,) = bob.mail.read(path="read_inbox")
    assert (item.body.content, item.body.title, item.body.sender.agent, item.body.type) == (
        "hello",
        "hi",
        "ann",
        "note",
    )
    assert told(ann, sent.id) == ("offered", ["queued", "offered"])
    (reader,) = trace(ann, sent.id).readers
    assert (reader.steps[1].who, reader.steps[1].how) == ("bob~2", "read_inbox")
    assert [done.is_new for done in bob.mail.ack([sent.id])] == [True]
    assert told(ann, sent.id) == ("acked", ["queued", "offered", "acked"])
    assert texts(bob) == []


def test_unread_is_ready_offered_is_leased_and_read_is_done(ann: Bus, bob: Bus) -> None:
    sent = ann.mail.send("bob", "x")
    assert ann.get(sent.id).state is State.READY
    bob.mail.read()
    assert ann.get(sent.id).state is State.LEASED
    bob.mail.ack()
    assert ann.get(sent.id).state is State.DONE


def test_what_was_offered_and_not_acked_comes_back_and_the_trace_says_so(
    ann: Bus, bob: Bus, source: VirtualSource
) -> None:
    sent = ann.mail.send("bob", "x")
    assert texts(bob) == ["x"]
    assert texts(bob) == [], "it is being read"
    source.advance(LEASE_S + 1)
    swept(ann)
    assert told(ann, sent.id) == ("queued", ["queued", "offered", "lapsed"])
    (again,) = bob.mail.read()
    assert again.offers == 2
    assert told(ann, sent.id) == ("offered", ["queued", "offered", "lapsed", "offered"])


def test_a_session_that_ends_makes_what_it_did_not_ack_unread_again(ann: Bus, bob: Bus) -> None:
    kept, read = ann.mail.send("bob", "kept").id, ann.mail.send("bob", "read").id
    bob.mail.read()
    bob.mail.ack([read])
    assert bob.mail.give_back("it ended") == 1
    assert told(ann, kept) == ("queued", ["queued", "offered", "released"])
    assert texts(bob) == ["kept"]


def test_ack_without_ids_is_for_all_that_this_session_was_offered_and_nothing_else(
    ann: Bus, bob: Bus, open_bus_as: Callable[..., Bus]
) -> None:
    first = ann.mail.send("bob", "1").id
    twin = here(open_bus_as("bob", "3"))
    assert texts(twin) == ["1"]
    second = ann.mail.send("bob", "2").id
    assert texts(bob) == ["2"]
    assert [(done.id, done.is_new) for done in bob.mail.ack()] == [(second, True)]
    assert told(ann, first)[0] == "offered"
    assert [done.id for done in twin.mail.ack()] == [first]


def test_an_ack_after_the_offer_lapsed_counts_and_a_second_one_says_so(
    ann: Bus, bob: Bus, source: VirtualSource
) -> None:
    sent = ann.mail.send("bob", "x").id
    bob.mail.read()
    source.advance(LEASE_S + 1)
    swept(ann)
    assert bob.mail.ack([sent])[0].is_new
    again = bob.mail.ack([sent])[0]
    assert (again.is_new, again.note) == (False, "it was acked before")


def test_what_was_sent_to_another_cannot_be_acked_and_stays_unread(ann: Bus, bob: Bus) -> None:
    sent = ann.mail.send("bob", "x").id
    with pytest.raises(InvalidRequest):
        ann.mail.ack([sent])
    with pytest.raises(NotFound):
        bob.mail.ack(["ffffffff"])
    assert told(ann, sent) == ("queued", ["queued"])


def test_urgent_messages_come_first_then_older_ones(ann: Bus, bob: Bus) -> None:
    for text, priority in (("1", 0), ("2", 5), ("3", 0), ("4", -1)):
        ann.mail.send("bob", text, priority=priority)
    assert bob.mail.unread() == (4, 1)
    assert texts(bob, limit=3) == ["2", "1", "3"]
    assert bob.mail.unread() == (1, 0)


def test_a_reader_is_told_how_many_newer_ones_of_the_same_sender_wait(
    ann: Bus, bob: Bus, source: VirtualSource
) -> None:
    for text in "123":
        ann.mail.send("bob", text)
    source.advance(1)
    bob.mail.send("bob", "note to self")
    newer = {item.body.content: item.newer for item in bob.mail.read(limit=2)}
    assert newer == {"1": 2, "2": 1}


def test_no_more_is_offered_than_there_is_room_for_but_one_always(ann: Bus, bob: Bus) -> None:
    for text in ("a" * 500, "b", "c" * 200, "d"):
        ann.mail.send("bob", text)
    assert texts(bob, room=100) == ["a" * 500]
    assert texts(bob, room=100) == ["b", "c" * 200]
    assert texts(bob, room=100) == ["d"]


def test_a_message_to_one_session_is_read_by_it_alone(ann: Bus, bob: Bus, open_bus_as: Callable[..., Bus]) -> None:
    twin = here(open_bus_as("bob", "3"))
    ann.mail.send("bob~3", "for the third")
    assert texts(bob) == []
    assert texts(twin) == ["for the third"]


def test_a_message_to_a_session_that_ended_is_undeliverable_and_said_to_be(ann: Bus, bob: Bus) -> None:
    sent = ann.mail.send("bob~2", "x").id
    bob.roster.leave()
    swept(ann)
    assert told(ann, sent) == ("undeliverable", ["queued", "undeliverable"])
    with pytest.raises(NotFound, match="has ended"):
        ann.mail.send("bob~2", "y")


def test_a_message_to_an_agent_without_a_session_waits_and_is_not_said_to_be_more(
    ann: Bus, bob: Bus, source: VirtualSource
) -> None:
    seen = source.now()
    bob.roster.leave()
    sent = ann.mail.send("bob", "x")
    assert (sent.live, sent.last_seen) == (0, seen)
    source.advance(86_400)
    swept(ann)
    assert told(ann, sent.id) == ("queued", ["queued"])
    assert texts(bob) == ["x"]


def test_an_unread_message_expires_after_its_ttl_and_one_without_does_not(
    ann: Bus, bob: Bus, source: VirtualSource
) -> None:
    sent, kept = ann.mail.send("bob", "x", ttl_s=5).id, ann.mail.send("bob", "y", ttl_s=0).id
    source.advance(6)
    assert texts(bob) == ["y"]
    swept(ann)
    assert told(ann, sent) == ("expired", ["queued", "expired"])
    assert told(ann, kept)[0] == "offered"


def test_a_message_that_supersedes_an_unread_one_takes_its_place(ann: Bus, bob: Bus) -> None:
    old = ann.mail.send("bob", "old").id
    sent = ann.mail.send("bob", "new", supersedes=old)
    assert sent.superseded == "is taken back unread"
    assert texts(bob) == ["new"]
    assert told(ann, old) == ("superseded", ["queued", "superseded"])


def test_a_reader_who_acks_what_was_superseded_meanwhile_is_told_by_what(ann: Bus, bob: Bus) -> None:
    old = ann.mail.send("bob", "old").id
    bob.mail.read()
    sent = ann.mail.send("bob", "new", supersedes=old)
    assert "not acked" in sent.superseded
    (done,) = bob.mail.ack()
    assert (done.is_new, done.note) == (False, f"it was superseded by {sent.id}")
    assert texts(bob) == ["new"]


def test_a_message_that_was_read_cannot_be_taken_back_and_the_new_one_comes(ann: Bus, bob: Bus) -> None:
    old = ann.mail.send("bob", "old").id
    bob.mail.read()
    bob.mail.ack()
    assert ann.mail.send("bob", "new", supersedes=old).superseded == "was acked before"
    assert texts(bob) == ["new"]
    assert told(ann, old)[0] == "acked"


def test_nobody_supersedes_the_message_of_another(ann: Bus, bob: Bus) -> None:
    old = ann.mail.send("bob", "x").id
    with pytest.raises(InvalidRequest, match="'ann'"):
        bob.mail.send("bob", "y", supersedes=old)
    assert texts(bob) == ["x"]


def test_an_answer_goes_to_the_sender_in_the_same_thread(ann: Bus, bob: Bus) -> None:
    asked = ann.mail.send("bob", "how?").id
    sent = bob.mail.send("", "so", reply_to=asked)
    (item,) = ann.mail.read()
    assert sent.to.agent == "ann"
    assert (item.body.reply_to, item.body.thread, item.body.hops) == (asked, asked, 1)
    with pytest.raises(InvalidRequest, match="reply_to"):
        bob.mail.send("", "so", reply_to="ffffffff")


def test_two_agents_that_only_answer_each_other_are_stopped(ann: Bus, bob: Bus, source: VirtualSource) -> None:
    last, names = ann.mail.send("bob", "0").id, (bob, ann)
    for hop in range(outbox.MAX_HOPS):
        source.advance(2)
        last = names[hop % 2].mail.send("", "thanks", reply_to=last).id
    with pytest.raises(InvalidRequest, match="loop"):
        bob.mail.send("", "thanks", reply_to=last)


def test_the_same_key_is_the_same_message_and_another_text_under_it_is_refused(ann: Bus, bob: Bus) -> None:
    first, again = ann.mail.send("bob", "x", key="k"), ann.mail.send("bob", "x", key="k")
    assert (again.id, again.created) == (first.id, False)
    with pytest.raises(DuplicateTask):
        ann.mail.send("bob", "y", key="k")
    assert texts(bob) == ["x"]


def test_one_who_sends_too_fast_is_refused_and_nothing_is_written(ann: Bus, bob: Bus, source: VirtualSource) -> None:
    for number in range(outbox.MAX_A_MINUTE):
        ann.mail.send("bob", number)
    with pytest.raises(Overloaded, match="within a minute"):
        ann.mail.send("bob", "one more")
    assert bob.mail.unread().messages == outbox.MAX_A_MINUTE
    source.advance(61)
    ann.mail.send("bob", "one more")
    assert bob.mail.unread().messages == outbox.MAX_A_MINUTE + 1


@pytest.mark.parametrize("to", ["bob", "#builds"])
def test_other_sessions_of_an_agent_that_sends_too_fast_are_refused_too_and_other_agents_are_not(
    open_bus_as: Callable[..., Bus], ann: Bus, bob: Bus, source: VirtualSource, to: str
) -> None:
    ann.create_channel("builds", kind="topic")
    for number in range(outbox.MAX_A_MINUTE):
        open_bus_as("ann", f"{number:08x}").mail.send(to, number)
    late = open_bus_as("ann", "ffffffff")
    before = len(list(ann.store.ids()))
    with pytest.raises(Overloaded, match="within a minute"):
        late.mail.send(to, "one more")
    assert len(list(ann.store.ids())) == before
    bob.mail.send("#builds" if to == "#builds" else "ann", "of another")
    source.advance(61)
    late.mail.send(to, "one more")


def test_a_name_whose_agent_is_there_with_a_clients_name_added_is_told(
    ann: Bus, open_bus_as: Callable[..., Bus]
) -> None:
    sent = ann.mail.send("@cat", "hello")
    assert sent.others == ()
    here(open_bus_as("cat+codex", "3"))
    here(open_bus_as("catherine", "4"))
    assert ann.mail.send("@cat", "hello").others == ("cat+codex",)
    assert ann.mail.send("cat+codex", "hello").others == ()


def test_one_sender_cannot_fill_an_inbox_and_others_still_get_through(
    ann: Bus, bob: Bus, source: VirtualSource
) -> None:
    for number in range(outbox.MAX_FROM_ONE):
        source.advance(1)
        ann.mail.send("bob", number)
    with pytest.raises(Overloaded, match="'ann' wait unread"):
        ann.mail.send("bob", "one more")
    bob.mail.send("bob", "from another")
    assert bob.mail.unread().messages == outbox.MAX_FROM_ONE + 1
    bob.mail.read(limit=1)
    ann.mail.send("bob", "there is room again")


def test_a_full_inbox_refuses_everyone(ann: Bus, bob: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_UNREAD", 5)
    for number in range(5):
        ann.mail.send("bob", number)
    for sender in (ann, bob):
        with pytest.raises(Overloaded, match="is full"):
            sender.mail.send("bob", "x")
    assert bob.mail.unread().messages == 5


@pytest.mark.parametrize(
    "options", [{"priority": 10}, {"ttl_s": -1}, {"type": "x"}, {"color": 1}, {"title": "x" * 201}]
)
def test_a_bad_option_is_refused_and_no_inbox_is_made(ann: Bus, options: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        ann.mail.send("@carl", "x", **options)  # type: ignore[arg-type]  # what must be refused
    assert "@carl" not in ann.store.channels()


def test_an_inbox_is_nobody_elses_to_post_to_or_claim_from(ann: Bus, bob: Bus) -> None:
    ann.mail.send("bob", "x")
    with pytest.raises(InvalidRequest, match="'@bob'"):
        ann.post("@bob", "a task")
    with pytest.raises(InvalidRequest, match="'@bob'"):
        ann.claim(["@bob"])
    assert ann.claim() is None, "messages are not work"
    assert bob.claim() is None
    assert texts(bob) == ["x"]


def test_a_message_to_a_queue_is_a_task_there(ann: Bus, bob: Bus) -> None:
    ann.create_channel("review")
    ann.may_eval = True
    ann.mail.send("#review", "please look", type="eval")
    task = bob.claim(["review"])
    assert task is not None
    assert (task.body.content, task.body.type) == ("please look", "eval")


def newest(items: list[Delivery]) -> str:
    return items[-1].body.content


def test_the_human_has_an_inbox_that_needs_no_session(ann: Bus, open_bus_as: Callable[..., Bus]) -> None:
    assert ann.mail.send("human", "which database?").live == 0
    assert newest(open_bus_as("human", "9").mail.read()) == "which database?"
