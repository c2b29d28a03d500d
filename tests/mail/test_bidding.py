"""A call for proposals, bids on it, and an award that one agent alone can claim: each step once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_bus import Conflict, InvalidRequest, bidding, find, names
from mcp_bus.bidding import AWARDS
from mcp_bus.model import State
from tests.fakes import swept
from tests.mail.conftest import here

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus import Bus
    from tests.fakes import VirtualSource


@pytest.fixture
def ann(ann: Bus) -> Bus:
    ann.create_channel("jobs", kind="topic")
    return ann


@pytest.fixture
def bob(open_bus_as: Callable[..., Bus]) -> Bus:
    return bidder(open_bus_as, "bob")


@pytest.fixture
def cat(open_bus_as: Callable[..., Bus]) -> Bus:
    return bidder(open_bus_as, "cat")


def bidder(open_bus_as: Callable[..., Bus], name: str) -> Bus:
    made = here(open_bus_as(name, name[0] * 2))
    made.mail.topics.subscribe("jobs")
    return made


def bid(bus: Bus, call: str, **terms: object) -> str:
    return bus.mail.send("", terms, reply_to=call, type="bid").id


def test_the_winner_alone_can_claim_the_task_and_its_result_answers_the_call(
    ann: Bus, bob: Bus, cat: Bus, source: VirtualSource
) -> None:
    call = ann.post("jobs", "analyse the logs", title="logs", ttl_s=60).id
    assert [(item.body.type, item.body.content) for item in bob.mail.read()] == [("call", "analyse the logs")]
    bid(bob, call, eta_s=600, cost=2.5)
    source.advance(1)
    best = bid(cat, call, eta_s=60)
    assert [(made.agent, made.terms) for made in bidding.bids(ann, call)] == [
        ("bob", {"eta_s": 600, "cost": 2.5}),
        ("cat", {"eta_s": 60}),
    ]
    task = bidding.award(ann, best)
    assert (task.state, task.body.title, task.channel) == (State.READY, "logs", AWARDS)
    assert bob.claim([AWARDS], capabilities=["to:cat"]) is None, "nobody is another by saying so"
    taken = cat.claim([AWARDS])
    assert taken is not None
    cat.ack(taken, "all is well")
    ending = find.ending(ann, call)
    assert ending.task is not None
    assert ending.task.result is not None
    assert ending.task.result.content == "all is well"


def test_everyone_who_bid_is_told_once_and_their_bids_are_answered(ann: Bus, bob: Bus, cat: Bus) -> None:
    call = ann.post("jobs", "x").id
    bids = {"bob": bid(bob, call, cost=2), "cat": bid(cat, call, cost=1)}
    for _ in range(3):
        task = bidding.award(ann, bids["cat"])
    told = {
        bus.identity.agent: [(i.body.title, i.body.content) for i in bus.mail.read() if i.body.type == "status"]
        for bus in (bob, cat)
    }
    assert told["bob"] == [("another bid won", f'{{"event":"award","call":"{call}","won":false}}')]
    won = f'{{"event":"award","call":"{call}","won":true,"task":"{task.id}","channel":"{AWARDS}"}}'
    assert told["cat"] == [(f"your bid won: task {task.id[-8:]} on {AWARDS}", won)]
    assert ann.mail.unread().messages == 0
    assert ann.store.count(AWARDS)[State.READY] == 1


def test_a_call_is_awarded_once(ann: Bus, bob: Bus, cat: Bus) -> None:
    call = ann.post("jobs", "x").id
    first, second = bid(bob, call, cost=2), bid(cat, call, cost=1)
    bidding.award(ann, first)
    with pytest.raises(Conflict, match="awarded before"):
        bidding.award(ann, second)
    assert cat.claim([AWARDS]) is None
    assert bob.claim([AWARDS]) is not None


def test_a_call_without_bids_ends_and_a_bid_after_its_end_is_refused(ann: Bus, bob: Bus, source: VirtualSource) -> None:
    call = ann.post("jobs", "x", ttl_s=60).id
    source.advance(61)
    with pytest.raises(Conflict, match="closed"):
        bid(bob, call, cost=1)
    swept(ann)
    assert bidding.bids(ann, call) == []
    assert find.ending(ann, call).is_over
    assert ann.get(call).state is State.EXPIRED


def test_a_call_whose_time_has_passed_is_still_awarded_to_a_bid_that_was_in_time(
    ann: Bus, bob: Bus, source: VirtualSource
) -> None:
    call = ann.post("jobs", "x").id
    made = bid(bob, call, cost=1)
    source.advance(bidding.OPEN_S + 1)
    swept(ann)
    bidding.award(ann, made)
    assert bob.claim([AWARDS]) is not None


def test_of_one_agents_bids_the_latest_counts(ann: Bus, bob: Bus, source: VirtualSource) -> None:
    call = ann.post("jobs", "x").id
    bid(bob, call, cost=2)
    source.advance(1)
    latest = bid(bob, call, cost=1)
    assert [(made.id, made.terms) for made in bidding.bids(ann, call)] == [(latest, {"cost": 1})]


@pytest.mark.parametrize("terms", ["cheap", "[1]", "{}", '{"cost": [1]}', '{"cost": null}', '{"a": {"b": 1}}'])
def test_a_bid_without_terms_is_refused_and_nothing_is_sent(ann: Bus, bob: Bus, terms: str) -> None:
    call = ann.post("jobs", "x").id
    with pytest.raises(InvalidRequest, match="a bid is a JSON object"):
        bob.mail.send("", terms, reply_to=call, type="bid")
    assert ann.mail.unread().messages == 0


def test_only_a_call_is_bid_on_and_only_its_poster_awards(ann: Bus, bob: Bus, cat: Bus) -> None:
    note = ann.mail.send("bob", "hello").id
    with pytest.raises(InvalidRequest, match="not a call"):
        bid(bob, note, cost=1)
    call = ann.post("jobs", "x").id
    made = bid(bob, call, cost=1)
    with pytest.raises(InvalidRequest, match="was posted by 'ann', in whose inbox its bids are"):
        bidding.award(cat, made)
    with pytest.raises(InvalidRequest, match="not a bid"):
        bidding.award(ann, call)
    with pytest.raises(InvalidRequest):
        bidding.bids(cat, call)
    assert AWARDS not in ann.store.channels()


def test_a_question_about_a_call_is_no_bid(ann: Bus, bob: Bus) -> None:
    call = ann.post("jobs", "x").id
    bob.mail.send("", "which logs?", reply_to=call)
    assert bidding.bids(ann, call) == []
    assert [item.body.content for item in ann.mail.read()] == ["which logs?"]


def test_a_task_can_be_addressed_to_an_agent_without_a_call(ann: Bus, bob: Bus, cat: Bus) -> None:
    ann.post("review", "for cat", requires=[names.addressed("cat")])
    assert bob.claim(["review"]) is None
    assert cat.claim(["review"]) is not None
