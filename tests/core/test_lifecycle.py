"""Each event does what its rule says in the states it applies to, and is refused in all others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_bus import lifecycle
from mcp_bus.errors import IllegalTransition
from mcp_bus.lifecycle import TABLE, Event
from mcp_bus.model import DAY, Body, Lease, Policy, Sender, Slot, State

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = 4_000_000_000_000
TODAY = "2096-10-02"
BODY = Body("req_00000001", "work", "x", Sender("ann"), NOW, max_attempts=3)
POLICY = Policy(max_attempts=5, backoff_s=10, max_backoff_s=25, max_releases=2)
LEASE = Lease("ann~1", "abcd", NOW)
SLOTS = {
    State.READY: Slot(BODY.id, "work", State.READY, attempt=1),
    State.SCHEDULED: Slot(BODY.id, "work", State.SCHEDULED, attempt=1, not_before=NOW),
    State.LEASED: Slot(BODY.id, "work", State.LEASED, attempt=1, lease=LEASE),
    State.DONE: Slot(BODY.id, "work", State.DONE, attempt=1, day=TODAY, lease=LEASE._replace(expires=0)),
    State.DEAD: Slot(BODY.id, "work", State.DEAD, attempt=3),
    State.CANCELLED: Slot(BODY.id, "work", State.CANCELLED, attempt=1, day=TODAY),
    State.EXPIRED: Slot(BODY.id, "work", State.EXPIRED, attempt=1, day=TODAY),
}
# Written down a second time, by hand: the table of the package must say the same.
R, S, L, D, X = State.READY, State.SCHEDULED, State.LEASED, State.DONE, State.DEAD
C, E = State.CANCELLED, State.EXPIRED
EXPECTED: dict[str, dict[State, set[State]]] = {
    "claim": {R: {L}},
    "renew": {L: {L}},
    "ack": {L: {D}},
    "reject": {L: {L, X}},
    "nack": {L: {R, S, X}},
    "lapse": {L: {R, S, X}},
    "release": {L: {R, X}},
    "block": {L: {X}},
    "requeue": {L: {R}, S: {R}},
    "due": {S: {R}},
    "expire": {R: {E}, S: {E}},
    "cancel": {R: {C}, S: {C}, L: {C}},
    "retry": {X: {R}, C: {R}, E: {R}},
    "discard": {X: {C}, D: {C}},
    "undo": {C: {R, X}},
    "reprioritise": {R: {R}, S: {S}},
    "prune": {D: set(), C: set(), E: set()},
}
CALLS: dict[Event, Callable[[Slot], Slot]] = {
    Event.CLAIM: lambda slot: lifecycle.claim(slot, LEASE),
    Event.RENEW: lambda slot: lifecycle.renew(slot, expires=NOW + 1),
    Event.ACK: lambda slot: lifecycle.ack(slot, now=NOW),
    Event.REJECT: lambda slot: lifecycle.reject(slot, BODY, POLICY),
    Event.NACK: lambda slot: lifecycle.fail(slot, BODY, POLICY, now=NOW),
    Event.LAPSE: lambda slot: lifecycle.lapse(slot, BODY, POLICY, now=NOW + 1),
    Event.RELEASE: lambda slot: lifecycle.release(slot, BODY, POLICY),
    Event.BLOCK: lifecycle.block,
    Event.REQUEUE: lambda slot: lifecycle.requeue(slot, BODY, POLICY),
    Event.DUE: lambda slot: lifecycle.due(slot, now=NOW + 60_000),
    Event.EXPIRE: lambda slot: lifecycle.expire(slot._replace(deadline=NOW), now=NOW),
    Event.CANCEL: lambda slot: lifecycle.cancel(slot, now=NOW),
    Event.RETRY: lambda slot: lifecycle.retry(slot, BODY, POLICY),
    Event.DISCARD: lambda slot: lifecycle.discard(slot, now=NOW),
    Event.UNDO: lambda slot: lifecycle.undo(slot, BODY, POLICY),
    Event.REPRIORITISE: lambda slot: lifecycle.reprioritise(slot, 4),
}


def leased(attempt: int = 1, budget: int = 0, releases: int = 0) -> Slot:
    return SLOTS[State.LEASED]._replace(attempt=attempt, budget=budget, releases=releases)


def test_the_table_is_the_one_that_is_documented() -> None:
    assert {str(event): {s: set(t) for s, t in row.items()} for event, row in TABLE.items()} == EXPECTED


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", CALLS)
def test_an_event_leads_where_the_table_says_or_is_refused_with_a_hint(event: Event, state: State) -> None:
    allowed = EXPECTED[event].get(state)
    if allowed is None:
        with pytest.raises(IllegalTransition) as refusal:
            CALLS[event](SLOTS[state])
        assert repr(BODY.id) in str(refusal.value)
        assert f"is {state}" in str(refusal.value)
        assert refusal.value.hint
    else:
        assert CALLS[event](SLOTS[state]).state in allowed


@pytest.mark.parametrize("state", State)
def test_prune_is_refused_for_what_has_not_ended(state: State) -> None:
    if state in EXPECTED["prune"]:
        lifecycle.check(Event.PRUNE, SLOTS[state])
    else:
        with pytest.raises(IllegalTransition):
            lifecycle.check(Event.PRUNE, SLOTS[state])


def test_a_new_task_starts_ready_or_scheduled_with_its_priority_and_deadline() -> None:
    made = Body("req_00000002", "work", "x", Sender("ann"), NOW, priority=4, deadline=NOW + 5)
    assert lifecycle.first(made) == Slot(made.id, "work", State.READY, 4, deadline=NOW + 5)
    later = Body("req_00000002", "work", "x", Sender("ann"), NOW, not_before=NOW + 1)
    assert lifecycle.first(later) == Slot(made.id, "work", State.SCHEDULED, not_before=NOW + 1)


def test_l2_a_claim_counts_before_the_worker_sees_the_task() -> None:
    assert lifecycle.claim(SLOTS[State.READY], LEASE) == leased(attempt=2)


def test_a_renewal_never_shortens_a_lease() -> None:
    assert lifecycle.renew(leased(), expires=NOW + 9).lease == LEASE._replace(expires=NOW + 9)
    assert lifecycle.renew(leased(), expires=NOW - 9) == leased()


def test_the_place_of_a_done_task_says_who_did_it_under_which_lease() -> None:
    assert lifecycle.ack(leased(), now=NOW) == SLOTS[State.DONE]


@pytest.mark.parametrize(("attempt", "pause"), [(1, 10_000), (2, 20_000)])
def test_l3_pauses_double_until_the_longest(attempt: int, pause: int) -> None:
    back = lifecycle.fail(leased(attempt=attempt), BODY, POLICY, now=NOW)
    assert back == SLOTS[State.SCHEDULED]._replace(attempt=attempt, not_before=NOW + pause)
    assert lifecycle.backoff(3, BODY, POLICY) == 25_000
    assert lifecycle.backoff(10**6, BODY, POLICY) == 25_000


def test_l3_a_worker_may_say_how_long_the_pause_is() -> None:
    assert lifecycle.fail(leased(), BODY, POLICY, now=NOW, retry_in_s=1.5).not_before == NOW + 1500
    assert lifecycle.fail(leased(), BODY, POLICY, now=NOW, retry_in_s=0) == SLOTS[State.READY]


@pytest.mark.parametrize(("attempt", "budget", "state"), [(2, 0, S), (3, 0, X), (4, 0, X), (3, 4, S), (4, 4, X)])
def test_l3_the_last_attempt_ends_in_the_dead_letter(attempt: int, budget: int, state: State) -> None:
    for back in (
        lifecycle.fail(leased(attempt=attempt, budget=budget), BODY, POLICY, now=NOW),
        lifecycle.lapse(leased(attempt=attempt, budget=budget), BODY, POLICY, now=NOW),
    ):
        assert (back.state, back.lease, back.attempt) == (state, None, attempt)


def test_the_budget_is_the_raised_one_or_the_body_s_or_the_channel_s() -> None:
    plain = Body("req_00000002", "work", "x", Sender("ann"), NOW)
    assert lifecycle.budget(leased(budget=9), BODY, POLICY) == 9
    assert lifecycle.budget(leased(), BODY, POLICY) == 3
    assert lifecycle.budget(leased(), plain, POLICY) == 5


def test_a_lease_lapses_at_its_end_and_not_before() -> None:
    with pytest.raises(IllegalTransition, match="another 1 ms"):
        lifecycle.lapse(leased(), BODY, POLICY, now=NOW - 1)
    assert lifecycle.lapse(leased(), BODY, POLICY, now=NOW).state is S


def test_l4_a_hand_back_costs_nothing_until_the_cap_and_one_attempt_after_it() -> None:
    assert lifecycle.release(leased(), BODY, POLICY) == SLOTS[State.READY]._replace(attempt=0, releases=1)
    assert lifecycle.release(leased(attempt=3, releases=1), BODY, POLICY).attempt == 2
    assert lifecycle.release(leased(attempt=2, releases=2), BODY, POLICY) == SLOTS[R]._replace(attempt=2, releases=2)
    assert lifecycle.release(leased(attempt=3, releases=2), BODY, POLICY).state is X


def test_a_requeued_task_keeps_the_attempt_that_was_counted() -> None:
    assert lifecycle.requeue(leased(attempt=2), BODY, POLICY) == SLOTS[State.READY]._replace(attempt=2)
    assert lifecycle.requeue(SLOTS[State.SCHEDULED], BODY, POLICY) == SLOTS[State.READY]


def test_a_scheduled_task_is_due_at_its_time_and_not_before() -> None:
    with pytest.raises(IllegalTransition, match="another 1 ms"):
        lifecycle.due(SLOTS[State.SCHEDULED], now=NOW - 1)
    assert lifecycle.due(SLOTS[State.SCHEDULED], now=NOW) == SLOTS[State.READY]


def test_l5_only_a_passed_deadline_expires() -> None:
    mortal = SLOTS[State.READY]._replace(deadline=NOW)
    assert not lifecycle.is_expired(SLOTS[State.READY], now=NOW)
    with pytest.raises(IllegalTransition, match="has not expired"):
        lifecycle.expire(mortal, now=NOW - 1)
    assert lifecycle.expire(mortal, now=NOW) == SLOTS[State.EXPIRED]._replace(deadline=NOW)


def test_l6_a_retry_raises_the_budget_and_attempts_never_restart() -> None:
    back = lifecycle.retry(SLOTS[State.DEAD]._replace(releases=2, deadline=NOW), BODY, POLICY)
    assert back == Slot(BODY.id, "work", State.READY, attempt=3, budget=6)
    assert lifecycle.retry(back._replace(state=X, attempt=6), BODY, POLICY).budget == 9


def test_l7_undo_puts_back_a_cancelled_task_and_a_discarded_one_where_it_was() -> None:
    assert lifecycle.undo(SLOTS[State.CANCELLED], BODY, POLICY) == SLOTS[State.READY]
    gone = lifecycle.discard(SLOTS[State.DEAD], now=NOW)
    assert (gone.state, gone.day, gone.discarded) == (C, TODAY, True)
    assert lifecycle.undo(gone, BODY, POLICY) == SLOTS[State.DEAD]


@pytest.mark.parametrize("priority", [10, -10, 10**9])
def test_a_priority_out_of_range_is_refused(priority: int) -> None:
    with pytest.raises(IllegalTransition, match="-9 to 9"):
        lifecycle.reprioritise(SLOTS[State.READY], priority)
    assert lifecycle.reprioritise(SLOTS[State.READY], -9).priority == -9


def test_what_is_kept_long_enough_may_be_pruned_and_dead_letters_never() -> None:
    policy, old = Policy(retention_days=2), SLOTS[State.DONE]
    midnight = NOW - NOW % DAY
    assert not lifecycle.is_past_retention(old, policy, now=midnight + 3 * DAY - 1)
    assert lifecycle.is_past_retention(old, policy, now=midnight + 3 * DAY)
    assert not lifecycle.is_past_retention(old, Policy(retention_days=0), now=NOW + 10_000 * DAY)
    assert not lifecycle.is_past_retention(SLOTS[State.DEAD], policy, now=NOW + 10_000 * DAY)


@given(st.data())
def test_no_path_through_the_table_exceeds_the_budget_or_forgets_a_lease(data: st.DataObject) -> None:
    slot, policy = lifecycle.first(BODY), Policy(max_releases=2)
    most = 3
    for _ in range(30):
        events = [event for event in CALLS if slot.state in TABLE[event]]
        if not events:
            break
        event = data.draw(st.sampled_from(events))
        before = slot
        slot = lifecycle.release(slot, BODY, policy) if event is Event.RELEASE else CALLS[event](slot)
        slot = slot._replace(deadline=0)
        if event is Event.RETRY:
            most = before.attempt + 3
        # A requeue by a person is the one way round the budget; the next failure ends it.
        if event in (Event.NACK, Event.LAPSE, Event.RELEASE) and slot.state is not State.DEAD:
            assert slot.attempt < most
        assert (slot.lease is not None) == (slot.state in (State.LEASED, State.DONE))
        assert bool(slot.day) == (slot.state in (State.DONE, State.CANCELLED, State.EXPIRED))
        assert bool(slot.not_before) == (slot.state is State.SCHEDULED)
