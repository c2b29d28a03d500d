"""What people do at the same time, or with words that are none: each is told the truth, and nothing is done twice."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_bus import Conflict, IllegalTransition, InvalidRequest, LeaseLost, Ticket, find, lifecycle, names
from mcp_bus.model import Body, Lease, Policy, Sender, Slot, State
from tests.bus.test_working import take

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus import Bus
    from tests.fakes import VirtualSource


def dead(bus: Bus, source: VirtualSource) -> str:
    posted = bus.post("work", "drop table", max_attempts=1)
    bus.nack(take(bus, source), "no")
    assert bus.get(posted.id).state is State.DEAD
    return posted.id


def test_an_edited_retry_beside_a_plain_one_leaves_one_task_to_do(
    bus: Bus, other: Bus, source: VirtualSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, add = dead(bus, source), bus.store.add

    def beaten(body: Body) -> Body:
        kept = add(body)
        other.retry(old)
        return kept

    monkeypatch.setattr(bus.store, "add", beaten)
    with pytest.raises(Conflict, match="retried by someone else"):
        bus.retry(old, body="drop table safely")
    monkeypatch.undo()
    source.refresh()
    worked = [task.body.content for task in iter(bus.claim, None)]
    assert worked == ["drop table"]


def test_an_edited_retry_of_what_was_edited_says_as_what_it_lives_on(bus: Bus, source: VirtualSource) -> None:
    old = dead(bus, source)
    new = bus.retry(old, body="better").id
    with pytest.raises(IllegalTransition, match=new):
        bus.retry(old, body="better still")
    assert len(list(find.tasks(bus))) == 2


@pytest.mark.parametrize("verb", ["requeue", "cancel and undo"])
def test_a_person_who_makes_a_task_ready_grants_it_an_attempt_and_no_more(
    bus: Bus, source: VirtualSource, verb: str
) -> None:
    posted = bus.post("work", "x", max_attempts=1)
    for attempt in range(1, 4):
        task = take(bus, source)
        assert (task.slot.attempt, task.slot.budget or 1) == (attempt, attempt)
        if verb == "requeue":
            bus.requeue(posted.id)
        else:
            bus.cancel(posted.id)
            bus.undo(posted.id)
    bus.nack(take(bus, source), "no")
    assert bus.get(posted.id).state is State.DEAD


@pytest.mark.parametrize("most", [10**6 + 1, 999_999_999, 10**15])
def test_a_budget_that_no_name_has_room_for_is_refused(bus: Bus, most: int) -> None:
    with pytest.raises(InvalidRequest):
        bus.create_channel("big", max_attempts=most)
    assert bus.store.channels() == []


NUMBERS = st.one_of(st.integers(0, 3), st.sampled_from([10**6, lifecycle.MOST - 1, lifecycle.MOST]))
NOW = 4_000_000_000_000


@given(NUMBERS, NUMBERS, NUMBERS, st.integers(1, 10**6), st.integers(1, 10**6))
def test_whatever_a_task_went_through_its_next_place_has_a_name_that_says_all_of_it(
    attempt: int, budget: int, releases: int, own: int, rule: int
) -> None:
    policy, lease = Policy(max_attempts=rule), Lease("a~1", "abcd", NOW)
    body = Body("req_00000001", "work", "x", Sender("a"), NOW, max_attempts=own)
    base = Slot(body.id, "work", State.DEAD, attempt=attempt, budget=budget, releases=releases)
    made = [lifecycle.retry(base, body, policy)]
    ended = base._replace(state=State.CANCELLED, day="2096-10-02")
    made += [lifecycle.undo(ended, body, policy), lifecycle.retry(ended, body, policy)]
    held = base._replace(state=State.LEASED, lease=lease)
    made.append(lifecycle.requeue(held, body, policy))
    for slot in made:
        assert names.parse(slot.channel, *names.place(slot)) == slot


def test_a_claim_that_nobody_was_told_of_is_undone_and_counts_for_nothing(bus: Bus, source: VirtualSource) -> None:
    bus.create_channel("work", max_releases=1)
    bus.post("work", "x", max_attempts=1)
    for _ in range(20):
        back = bus.unclaim(take(bus, source), "its taker was gone")
        assert (back.state, back.slot.attempt, back.slot.releases) == (State.READY, 0, 0)
    assert bus.held() == []
    assert take(bus, source).slot.attempt == 1


def test_a_mistyped_token_is_told_from_a_lost_lease(bus: Bus, source: VirtualSource) -> None:
    bus.post("work", "x", backoff_s=0)
    task = take(bus, source)
    with pytest.raises(LeaseLost, match="not the token of any claim") as wrong:
        bus.ack(Ticket(task.id, "0000abcd"), "hours of work")
    assert "check the token" in wrong.value.hint
    assert "rejected/" in str(wrong.value)
    bus.requeue(task.id)
    take(bus, source)
    with pytest.raises(LeaseLost, match="no longer holds") as lost:
        bus.ack(task.ticket, "hours of work")
    assert "stop working" in lost.value.hint


MISUSES: dict[str, Callable[[Bus], object]] = {
    "claim from a number": lambda bus: bus.claim(5),  # type: ignore[arg-type]  # a misuse
    "claim from a list of numbers": lambda bus: bus.claim([5]),  # type: ignore[list-item]  # a misuse
    "renew nothing": lambda bus: bus.renew(None),  # type: ignore[arg-type]  # a misuse
    "ack by id": lambda bus: bus.ack("nope", "r"),  # type: ignore[arg-type]  # a misuse
    "ack a post": lambda bus: bus.ack(bus.post("work", "y"), "r"),  # type: ignore[arg-type]  # a misuse
    "nack without a reason": lambda bus: bus.nack(bus.held()[0], None),  # type: ignore[arg-type]  # a misuse
    "block with a number": lambda bus: bus.block(bus.held()[0], 1),  # type: ignore[arg-type]  # a misuse
    "progress that is a number": lambda bus: bus.renew(bus.held()[0], progress=5),  # type: ignore[arg-type]  # a misuse
    "cancel for a number": lambda bus: bus.cancel(bus.held()[0].id, 5),  # type: ignore[arg-type]  # a misuse
    "a surrogate for a reason": lambda bus: bus.release(bus.held()[0], "\ud800"),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_a_misuse_is_an_invalid_request_and_changes_nothing(bus: Bus, source: VirtualSource, misuse: str) -> None:
    bus.post("work", "x")
    task = take(bus, source)
    with pytest.raises(InvalidRequest) as refusal:
        MISUSES[misuse](bus)
    assert refusal.value.hint
    assert bus.get(task.id).slot == task.slot
    assert bus.get(task.id).history == ()


def test_who_gets_nothing_is_told_which_capability_is_missing(bus: Bus) -> None:
    bus.post("work", "x", requires=["gpu", "python"])
    said = partial(find.why_empty, bus, ["work"])
    assert said(["python"]).startswith("1 ready, but they need 'gpu' (this worker's capabilities: python)")
    assert said([]).startswith("1 ready, but they need 'gpu', 'python' (this worker's capabilities: none)")


def test_history_is_in_the_order_in_which_it_happened_though_the_clock_stands_still(
    bus: Bus, source: VirtualSource
) -> None:
    posted = bus.post("work", "x", max_attempts=1)
    bus.renew(take(bus, source), progress="half")
    bus.nack(bus.held()[0], "no")
    for _ in range(2):
        bus.discard(posted.id)
        bus.undo(posted.id)
    told = [str(line.outcome) for line in bus.get(posted.id).history]
    assert told == ["progress", "failed", "discarded", "undone", "discarded", "undone"]
