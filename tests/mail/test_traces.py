"""A trace, and what a sender is told, say of a message what is so and nothing more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_bus import InvalidRequest, sweep
from mcp_bus.traces import trace
from tests.mail.test_topics import states

if TYPE_CHECKING:
    from mcp_bus import Bus
    from tests.fakes import VirtualSource


@pytest.fixture
def ann(ann: Bus) -> Bus:
    ann.create_channel("builds", kind="topic")
    return ann


def steps(bus: Bus, message: str) -> list[str]:
    (reader,) = trace(bus, message).readers
    return [step.what for step in reader.steps]


def test_what_has_expired_is_not_called_queued_before_a_sweep_ends_it(
    ann: Bus, bob: Bus, source: VirtualSource
) -> None:
    message = ann.mail.send("bob", "short", ttl_s=1).id
    assert states(ann, message) == {"bob": "queued"}
    source.advance(2)
    assert states(ann, message) == {"bob": "expired"}
    assert bob.mail.read() == []
    sweep(ann)
    assert states(ann, message) == {"bob": "expired"}


def test_an_ack_of_what_was_never_shown_is_traced_without_an_offer(ann: Bus, bob: Bus) -> None:
    message = ann.mail.send("bob", "hello").id
    bob.mail.ack([message])
    assert states(ann, message) == {"bob": "acked"}
    assert steps(ann, message) == ["queued", "acked"]
    shown = ann.mail.send("bob", "hello").id
    bob.mail.read()
    bob.mail.ack([shown])
    assert steps(ann, shown) == ["queued", "offered", "acked"]


def test_a_reader_who_asked_for_something_else_is_not_among_those_it_waits_for(ann: Bus, bob: Bus) -> None:
    bob.mail.topics.subscribe("builds", {"signal": "failed"})
    other, wanted = ann.mail.send("builds", {"signal": "ok"}), ann.mail.send("builds", {"signal": "failed"})
    assert (other.live, wanted.live) == (0, 1)
    assert (states(ann, other.id), states(ann, wanted.id)) == ({"bob": "not asked for"}, {"bob": "queued"})
    assert [item.body.id for item in bob.mail.read()] == [wanted.id]
    assert (states(ann, other.id), states(ann, wanted.id)) == ({"bob": "not asked for"}, {"bob": "offered"})


def test_what_was_shown_comes_back_with_the_urgent_first_and_says_what_is_newer(ann: Bus, bob: Bus) -> None:
    ids = [ann.mail.send("bob", text, priority=number).id for number, text in enumerate(("low", "high"))]
    bob.mail.read()
    assert [(item.body.id, item.newer) for item in bob.mail.unacked()] == [(ids[1], 0), (ids[0], 1)]


@pytest.mark.parametrize("name", ["@", "@@", "@  ", " "])
def test_a_name_of_nothing_is_nobodys(ann: Bus, name: str) -> None:
    before = ann.store.channels()
    with pytest.raises(InvalidRequest, match="is not a recipient"):
        ann.mail.send(name, "hello")
    assert ann.store.channels() == before


@pytest.mark.parametrize("name", ["broadcast", "@broadcast", "#broadcast"])
def test_broadcast_is_for_all_however_it_is_written(ann: Bus, bob: Bus, name: str) -> None:
    message = ann.mail.send(name, "hello").id
    assert [item.body.id for item in bob.mail.read()] == [message]


def test_an_agent_never_seen_is_called_by_its_name_in_a_trace_and_not_by_what_a_message_claims(ann: Bus) -> None:
    name = "GitHub.com/Acme/App"
    sent = ann.mail.send(f"@{name}", "hello")
    assert trace(ann, sent.id).to == name
    lie = ann.get(sent.id).body._replace(id=ann.ids.next(), extra={"agent": "root"})
    ann.store.add(lie)
    assert trace(ann, lie.id).to == sent.to.channel[1:]
    plain = ann.mail.send("@cat", "hello")
    assert ann.get(plain.id).body.extra == {}, "its inbox tells"
