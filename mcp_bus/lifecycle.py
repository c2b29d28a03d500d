"""A task's state machine, as a table and pure functions of (slot, now).

Rules, numbered so that tests and comments can cite them:

L1  Nothing but the events below changes a state (`TABLE`).
L2  The attempt is counted when a task is claimed, before the worker sees it, so a task that
    kills its worker runs out of attempts too.
L3  A failed or lapsed attempt within the budget goes back, after a growing pause; the last one
    goes to the dead letter.
L4  A clean hand-back costs no attempt, at most `max_releases` times; after that it costs one.
L5  Only waiting tasks expire.  A leased one that comes back late expires then.
L6  A retry raises the budget by what the body (or channel) allows; attempts never restart at 0.
L7  Undo puts a cancelled task back where it came from: discarded ones to the dead letter.
L8  A person who makes a task ready grants it one more attempt if it has none left.
L9  A result that is not accepted costs an attempt, and the worker keeps the task to correct it; the last one
    goes to the dead letter.
L10 What is done stays done, unless its result is gone or does not hold: a person may give that up, and retry it then.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from mcp_bus.errors import IllegalTransition
from mcp_bus.model import DAY, PRIORITIES, Lease, Slot, State, day_of

if TYPE_CHECKING:
    from mcp_bus.model import Body, Policy


# What a mark in a name can count to (docs/protocol.md, N4).
MOST = 999_999_999


class Event(StrEnum):
    """What can happen to a task."""

    CLAIM = "claim"
    RENEW = "renew"
    ACK = "ack"
    REJECT = "reject"
    NACK = "nack"
    LAPSE = "lapse"
    RELEASE = "release"
    BLOCK = "block"
    REQUEUE = "requeue"
    DUE = "due"
    EXPIRE = "expire"
    CANCEL = "cancel"
    RETRY = "retry"
    DISCARD = "discard"
    UNDO = "undo"
    REPRIORITISE = "reprioritise"
    PRUNE = "prune"


_S = State
_BACK = frozenset({_S.READY, _S.SCHEDULED, _S.DEAD})

TABLE: dict[Event, dict[State, frozenset[State]]] = {
    Event.CLAIM: {_S.READY: frozenset({_S.LEASED})},
    Event.RENEW: {_S.LEASED: frozenset({_S.LEASED})},
    Event.ACK: {_S.LEASED: frozenset({_S.DONE})},
    Event.REJECT: {_S.LEASED: frozenset({_S.LEASED, _S.DEAD})},
    Event.NACK: {_S.LEASED: _BACK},
    Event.LAPSE: {_S.LEASED: _BACK},
    Event.RELEASE: {_S.LEASED: frozenset({_S.READY, _S.DEAD})},
    Event.BLOCK: {_S.LEASED: frozenset({_S.DEAD})},
    Event.REQUEUE: {_S.LEASED: frozenset({_S.READY}), _S.SCHEDULED: frozenset({_S.READY})},
    Event.DUE: {_S.SCHEDULED: frozenset({_S.READY})},
    Event.EXPIRE: {_S.READY: frozenset({_S.EXPIRED}), _S.SCHEDULED: frozenset({_S.EXPIRED})},
    Event.CANCEL: dict.fromkeys((_S.READY, _S.SCHEDULED, _S.LEASED), frozenset({_S.CANCELLED})),
    Event.RETRY: dict.fromkeys((_S.DEAD, _S.CANCELLED, _S.EXPIRED), frozenset({_S.READY})),
    Event.DISCARD: dict.fromkeys((_S.DEAD, _S.DONE), frozenset({_S.CANCELLED})),
    Event.UNDO: {_S.CANCELLED: frozenset({_S.READY, _S.DEAD})},
    Event.REPRIORITISE: {_S.READY: frozenset({_S.READY}), _S.SCHEDULED: frozenset({_S.SCHEDULED})},
    Event.PRUNE: dict.fromkeys((_S.DONE, _S.CANCELLED, _S.EXPIRED), frozenset()),
}

_HINTS = {
    State.DONE: "its result is final; post a new task instead",
    State.DEAD: "retry or discard it",
    State.LEASED: "cancel it, requeue it, or wait for its worker",
    State.READY: "it waits for a worker already",
    State.SCHEDULED: "requeue makes it ready now",
    State.CANCELLED: "undo or retry brings it back",
    State.EXPIRED: "retry brings it back",
}


def check(event: Event, slot: Slot) -> None:
    """Refuse an event that does not apply to a task's state (rule L1).

    Raises:
        IllegalTransition: names the states it applies to and what can be done instead.
    """
    if slot.state not in TABLE[event]:
        states = " or ".join(TABLE[event])
        msg = f"cannot {event} {slot.id!r}: it is {slot.state}, and {event} applies to {states} tasks"
        raise IllegalTransition(msg, hint=_HINTS[slot.state])


def first(body: Body) -> Slot:
    """Return the slot a new task starts in; a function of its body, so that anyone can finish a post."""
    slot = Slot(body.id, body.channel, State.READY, body.priority, deadline=body.deadline)
    if body.not_before:
        slot = slot._replace(state=State.SCHEDULED, not_before=body.not_before)
    return slot


def claim(slot: Slot, lease: Lease) -> Slot:
    """Hand a ready task to a worker; the attempt counts from here (rule L2)."""
    check(Event.CLAIM, slot)
    return slot._replace(state=State.LEASED, attempt=slot.attempt + 1, lease=lease)


def renew(slot: Slot, *, expires: int) -> Slot:
    """Move a lease's end; never to an earlier time, so a late renewal cannot shorten a lease."""
    check(Event.RENEW, slot)
    assert slot.lease is not None
    return slot._replace(lease=slot.lease._replace(expires=max(expires, slot.lease.expires)))


def ack(slot: Slot, *, now: int) -> Slot:
    """End a task well.  Holder and token stay in the slot: they say who did it, under which lease."""
    check(Event.ACK, slot)
    assert slot.lease is not None
    return slot._replace(state=State.DONE, day=day_of(now), lease=slot.lease._replace(expires=0))


def reject(slot: Slot, body: Body, policy: Policy) -> Slot:
    """Count a result that was not accepted; its worker may correct it under the same lease (rule L9)."""
    check(Event.REJECT, slot)
    if slot.attempt >= budget(slot, body, policy):
        return slot._replace(state=State.DEAD, lease=None)
    return slot._replace(attempt=slot.attempt + 1)


def budget(slot: Slot, body: Body, policy: Policy) -> int:
    """Return how many attempts a task may have in all."""
    return slot.budget or body.max_attempts or policy.max_attempts


def backoff(attempt: int, body: Body, policy: Policy) -> int:
    """Return the pause in milliseconds before the attempt after `attempt` (rule L3)."""
    base = policy.backoff_s if body.backoff_s is None else body.backoff_s
    return int(1000 * min(base * 2 ** min(attempt - 1, 30), policy.max_backoff_s))


def fail(
    slot: Slot, body: Body, policy: Policy, *, now: int, retry_in_s: float | None = None, final: bool = False
) -> Slot:
    """Take a failed attempt back, into the queue or into the dead letter (rule L3).

    Serves both a worker's own word (`nack`) and a lease that lapsed: the attempt counts either way.

    Args:
        retry_in_s: the worker's own wish for the pause; None leaves it to the backoff.
        final: whether another attempt would be in vain; what is left of the budget is not used.
    """
    check(Event.NACK, slot)
    back = slot._replace(lease=None)
    if final or slot.attempt >= budget(slot, body, policy):
        return back._replace(state=State.DEAD)
    pause = backoff(slot.attempt, body, policy) if retry_in_s is None else int(1000 * retry_in_s)
    if pause <= 0:
        return back._replace(state=State.READY)
    return back._replace(state=State.SCHEDULED, not_before=now + pause)


def lapse(slot: Slot, body: Body, policy: Policy, *, now: int) -> Slot:
    """Take a task away from a worker that stopped renewing its lease.

    The old holder is not told.  It finds out when its next write raises `LeaseLost`.

    Raises:
        IllegalTransition: it is not leased, or its lease has not lapsed.
    """
    check(Event.LAPSE, slot)
    assert slot.lease is not None
    if now < slot.lease.expires:
        msg = f"the lease of {slot.id!r} runs for another {slot.lease.expires - now} ms"
        raise IllegalTransition(msg)
    return fail(slot, body, policy, now=now)


def release(slot: Slot, body: Body, policy: Policy) -> Slot:
    """Give a task back unharmed (rule L4)."""
    check(Event.RELEASE, slot)
    back = slot._replace(state=State.READY, lease=None)
    if slot.releases < policy.max_releases:
        return back._replace(attempt=slot.attempt - 1, releases=slot.releases + 1)
    if slot.attempt >= budget(slot, body, policy):
        return back._replace(state=State.DEAD)
    return back


def unclaim(slot: Slot) -> Slot:
    """Undo a claim that nobody was told of: as if it had not been, so that no cap counts it."""
    check(Event.RELEASE, slot)
    return slot._replace(state=State.READY, lease=None, attempt=slot.attempt - 1)


def block(slot: Slot) -> Slot:
    """Park a task that needs a person; it waits in the dead letter for a retry with an answer."""
    check(Event.BLOCK, slot)
    return slot._replace(state=State.DEAD, lease=None)


def _granted(slot: Slot, body: Body, policy: Policy) -> Slot:
    """Let a task that a person made ready be tried at least once more (rule L8)."""
    if slot.attempt < budget(slot, body, policy):
        return slot
    return slot._replace(budget=min(slot.attempt + 1, MOST))


def requeue(slot: Slot, body: Body, policy: Policy) -> Slot:
    """Make a leased or scheduled task ready now.  A leased one keeps its counted attempt."""
    check(Event.REQUEUE, slot)
    return _granted(slot._replace(state=State.READY, lease=None, not_before=0), body, policy)


def due(slot: Slot, *, now: int) -> Slot:
    """Make a scheduled task ready because its time has come."""
    check(Event.DUE, slot)
    if now < slot.not_before:
        msg = f"{slot.id!r} is not due for another {slot.not_before - now} ms"
        raise IllegalTransition(msg)
    return slot._replace(state=State.READY, not_before=0)


def is_expired(slot: Slot, *, now: int) -> bool:
    """Tell whether a waiting task has outlived its ttl (rule L5)."""
    return 0 < slot.deadline <= now


def expire(slot: Slot, *, now: int) -> Slot:
    """End a waiting task whose ttl has passed (rule L5)."""
    check(Event.EXPIRE, slot)
    if not is_expired(slot, now=now):
        msg = f"{slot.id!r} has not expired"
        raise IllegalTransition(msg)
    return slot._replace(state=State.EXPIRED, not_before=0, day=day_of(now))


def give_up(slot: Slot, *, now: int) -> Slot:
    """End a message that nobody can read any more, because the one session it was for has ended."""
    check(Event.EXPIRE, slot)
    return slot._replace(state=State.EXPIRED, day=day_of(now))


def cancel(slot: Slot, *, now: int) -> Slot:
    """End a task that is no longer wanted.  A worker that holds it finds its lease gone."""
    check(Event.CANCEL, slot)
    return slot._replace(state=State.CANCELLED, lease=None, not_before=0, day=day_of(now))


def retry(slot: Slot, body: Body, policy: Policy) -> Slot:
    """Bring back a dead, cancelled or expired task with a fresh budget and no deadline (rule L6)."""
    check(Event.RETRY, slot)
    raised = min(slot.attempt + (body.max_attempts or policy.max_attempts), MOST)
    return slot._replace(state=State.READY, budget=raised, deadline=0, day="", discarded=False, releases=0)


def discard(slot: Slot, *, now: int) -> Slot:
    """Take a task out of the dead letter for good; `undo` brings it back until it is pruned.

    Of one that is done the caller knows that it has no result that could be used (rule L10).
    """
    check(Event.DISCARD, slot)
    return slot._replace(state=State.CANCELLED, lease=None, day=day_of(now), discarded=True)


def undo(slot: Slot, body: Body, policy: Policy) -> Slot:
    """Take back a cancel or a discard (rule L7)."""
    check(Event.UNDO, slot)
    if slot.discarded:
        return slot._replace(state=State.DEAD, day="", discarded=False)
    return _granted(slot._replace(state=State.READY, day=""), body, policy)


def reprioritise(slot: Slot, priority: int) -> Slot:
    """Give a waiting task another priority.

    Raises:
        IllegalTransition: it is not waiting, or the priority is not within -9 to 9.
    """
    check(Event.REPRIORITISE, slot)
    if priority not in PRIORITIES:
        msg = f"priority {priority} is not within {PRIORITIES[0]} to {PRIORITIES[-1]}"
        raise IllegalTransition(msg, hint="higher goes first; 0 is the default")
    return slot._replace(priority=priority)


def is_past_retention(slot: Slot, policy: Policy, *, now: int) -> bool:
    """Tell whether an ended task may be pruned.  Dead letters never are: a person decides."""
    if not slot.day or not policy.retention_days:
        return False
    return slot.day < day_of(now - policy.retention_days * DAY)
