"""Awards at the edges: after the end, of what was cancelled, beside other keys, and bids of clocks that differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_bus import Conflict, InvalidRequest, bidding, cursors, find
from mcp_bus.bidding import AWARDS
from mcp_bus.model import State
from mcp_bus.stores.contract import body
from tests.fakes import swept

if TYPE_CHECKING:
    from collections.abc import Callable

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


def bid(bus: Bus, call: str, **terms: object) -> str:
    return bus.mail.send("", terms, reply_to=call, type="bid").id


def test_waiting_for_a_call_that_was_awarded_after_its_end_is_waiting_for_the_work(
    ann: Bus, bob: Bus, source: VirtualSource
) -> None:
    call = ann.post("news", "x").id
    made = bid(bob, call, cost=1)
    source.advance(bidding.OPEN_S + 1)
    swept(ann)
    task = bidding.award(ann, made)
    ending = find.ending(ann, call)
    assert ending.task is not None
    assert (ending.task.id, ending.is_over) == (task.id, False)


def test_a_call_that_was_cancelled_is_not_awarded_and_one_that_was_awarded_takes_no_bids(ann: Bus, bob: Bus) -> None:
    first, second = ann.post("news", "x").id, ann.post("news", "y").id
    made, other = bid(bob, first, cost=1), bid(bob, second, cost=1)
    ann.cancel(first)
    with pytest.raises(Conflict, match="was cancelled"):
        bidding.award(ann, made)
    bidding.award(ann, other)
    with pytest.raises(Conflict, match="closed"):
        bid(bob, second, cost=0)
    assert ann.store.count(AWARDS)[State.READY] == 1


def test_nobodys_key_stands_in_the_way_of_an_award(ann: Bus, bob: Bus, open_bus_as: Callable[..., Bus]) -> None:
    call = ann.post("news", "x").id
    open_bus_as("award", "9").post("work", "mine", key=call)
    assert bidding.award(ann, bid(bob, call, cost=1)).channel == AWARDS


@pytest.mark.parametrize("terms", ['{"cost": NaN}', '{"cost": Infinity}'])
def test_terms_are_strict_json(ann: Bus, bob: Bus, terms: str) -> None:
    call = ann.post("news", "x").id
    with pytest.raises(InvalidRequest):
        bob.mail.send("", terms, reply_to=call, type="bid")


def test_a_bid_whose_id_is_a_little_older_than_the_calls_counts(ann: Bus, bob: Bus, source: VirtualSource) -> None:
    source.advance(5)
    call = ann.post("news", "x").id
    bid(bob, call, cost=2)
    early = f"req_{cursors.time_of(call) - 2000:012x}{1:020x}"
    made = body(0, "@ann", content='{"cost": 1}', type="bid", reply_to=call)._replace(id=early)
    ann.store.add(made._replace(sender=made.sender._replace(agent="carl")))
    assert [found.agent for found in bidding.bids(ann, call)] == ["carl", "bob"]
