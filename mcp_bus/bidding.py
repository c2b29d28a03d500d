"""Contract net: a call for proposals on a topic, bids as answers to it, and an award that makes one of them a task.

A task posted on a topic is a call: nobody claims it, whoever reads the topic may bid until its ttl has passed.
A bid is an answer of type `bid` whose body is a JSON object of terms.  The award is a task that only the
winner's agent is able to claim (it needs the capability `to:<agent>`), made once whoever awards how often; the
call then lives on as that task, so that waiting for the call is waiting for the work.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from mcp_bus import access, draft, find, lifecycle, names
from mcp_bus.errors import BusError, Conflict, InvalidRequest, NotFound
from mcp_bus.model import WAITING, Attempt, Outcome, Secret, State

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mcp_bus.bus import Bus
    from mcp_bus.model import Body, Policy, Task

CALL, BID, AWARD = names.CALL, "bid", "award"
AWARDS = names.AWARDS
# How long a call is open unless its ttl says otherwise.
OPEN_S = 60.0
MAX_TERMS = 16


class Bid(NamedTuple):
    """One offer: who made it, on which terms."""

    id: str
    agent: str
    terms: Mapping[str, Any]
    at: int


def open_call(made: Body, policy: Policy) -> Body:
    """Make a call for proposals of a task that was posted on a topic."""
    deadline = made.deadline or made.created + int(1000 * (policy.ttl_s or OPEN_S))
    return made._replace(type=CALL, deadline=deadline)


def check_bid(parent: Task, kind: str, content: str, now: int) -> None:
    """Refuse an answer to a call that is no bid, or comes too late.

    Raises:
        InvalidRequest: says what a bid is.
        Conflict: the call is closed, because its time has passed or it was awarded.
    """
    if kind != BID:
        return
    if parent.body.type != CALL:
        msg = f"{parent.id!r} is a {parent.body.type}, not a call for proposals"
        raise InvalidRequest(msg, hint="a bid answers a call: give the call's id as reply_to")
    terms_of(content)
    if parent.state is not State.READY or 0 < parent.body.deadline <= now:
        msg = f"the call {parent.id!r} is closed"
        raise Conflict(msg, hint="bid on another one")


def terms_of(content: str) -> dict[str, Any]:
    """Return a bid's terms: names with numbers, texts, or yes and no.

    Raises:
        InvalidRequest: it is something else.
    """
    found: object = None
    with suppress(ValueError, RecursionError):
        found = json.loads(content, parse_constant=_refused)
    is_flat = isinstance(found, dict) and all(isinstance(value, str | int | float) for value in found.values())
    if not isinstance(found, dict) or not is_flat or not 0 < len(found) <= MAX_TERMS:
        msg = f"a bid is a JSON object of 1 to {MAX_TERMS} terms, each a text, a number, true or false"
        raise InvalidRequest(msg, hint='for example {"eta_s": 600, "cost": 2.5}')
    return found


def _refused(name: str) -> NoReturn:
    """Refuse NaN and its like, which are not JSON."""
    raise ValueError(name)


def bids(bus: Bus, call_id: str) -> list[Bid]:
    """Return the bids on a call, oldest first, whether they were read or not; one of each agent, its latest.

    Raises:
        InvalidRequest: it is no call of this agent.
    """
    call, made = _own_call(bus, call_id), dict[str, Bid]()
    for bid in _bids(bus, call.id):
        made[bid.agent] = max(bid, made.get(bid.agent, bid), key=lambda item: item.id)
    return sorted(made.values(), key=lambda item: item.id)


def winner(bus: Bus, call_id: str) -> str:
    """Return the id of the bid that a call was awarded to; empty if it was not."""
    with suppress(NotFound):
        return str(find.latest(bus, call_id).body.extra.get("bid", ""))
    return ""


def _bids(bus: Bus, call_id: str) -> Iterator[Bid]:
    for body in bus.mail.answers(call_id):
        with suppress(InvalidRequest):
            if body.type == BID:
                yield _bid(body)


def _bid(body: Body) -> Bid:
    return Bid(body.id, body.sender.agent, terms_of(body.content), body.created)


def _own_call(bus: Bus, call_id: str) -> Task:
    call = bus.sound(call_id)
    if call.body.type != CALL:
        msg = f"{call.id!r} is a {call.body.type}, not a call for proposals"
        raise InvalidRequest(msg, hint="a task posted on a topic is one")
    if call.body.sender.agent != bus.identity.agent:
        msg = f"the call {call.id!r} was posted by {call.body.sender.agent!r}, in whose inbox its bids are"
        raise InvalidRequest(msg, hint="only that agent sees and awards them; `--agent NAME` speaks for it")
    return call


def award(bus: Bus, bid_id: str) -> Task:
    """Turn a bid into a task that only its bidder can claim, and tell all who bid; repeating it is harmless.

    Returns:
        The task.

    Raises:
        InvalidRequest: it is no bid on a call of this agent.
        Conflict: the call was awarded to another bid.
    """
    found = bus.sound(bid_id)
    if found.body.type != BID:
        msg = f"{found.id!r} is a {found.body.type}, not a bid"
        raise InvalidRequest(msg, hint="award the id of a bid")
    call, won = _own_call(bus, found.body.reply_to), _bid(found.body)
    later = next((bid for bid in bids(bus, call.id) if bid.agent == won.agent), won)
    if found.state is State.CANCELLED or later.id > won.id:
        msg = f"the bid {won.id!r} counts no longer: {won.agent!r} took it back or made a later one"
        raise Conflict(msg, hint="award another bid" if later is won else f"award {later.id!r}")
    if call.state is State.CANCELLED and not any(line.successor for line in call.history):
        msg = f"the call {call.id!r} was cancelled"
        raise Conflict(msg, hint="post it anew if it is wanted after all")
    bus.store.declare(AWARDS)
    if bus.store.policy(AWARDS).signed and not call.verified:
        msg = f"the call {call.id!r} is not signed, and what is awarded would be"
        raise InvalidRequest(msg, hint="make its topic signed, and post it anew")
    made = call.body._replace(
        id=bus.ids.next(),
        channel=AWARDS,
        type="task",
        created=bus.source.now(),
        deadline=0,
        thread=call.body.thread or call.id,
        requires=(*call.body.requires, names.addressed(won.agent)),
        encrypted=Secret((won.agent,)) if call.body.encrypted is not None else None,
        key=draft.key_of("\x01award", call.id),  # No agent's name has a control character in it.
        extra={"call": call.id, "bid": won.id, names.TOPIC: call.channel},
    )
    # The call is closed and its bidders told as its task is there.
    kept = bus.store.together(
        lambda kept: f"award {call.id[-8:]} to {won.agent} as {kept.id[-8:]}", lambda: _awarded(bus, call, won, made)
    )
    return bus.get(kept.id)


def _awarded(bus: Bus, call: Task, won: Bid, made: Body) -> Body:
    kept = bus.put(made)
    if kept.extra.get("bid") != won.id:
        msg = f"the call {call.id!r} was awarded before, as {kept.id!r}"
        raise Conflict(msg, hint="cancel that task first if another bid is to have it, then post the call anew")
    _close(bus, call, kept.id, won.agent)
    _tell(bus, call, won, kept)
    return kept


def _close(bus: Bus, call: Task, task_id: str, winner: str) -> None:
    """End the call; it lives on as the task, also when its time had passed."""
    now, slot = bus.source.now(), call.slot
    line = Attempt(0, Outcome.CANCELLED, now, bus.identity.agent, f"awarded to {winner}", successor=task_id)
    with suppress(Conflict):
        if slot.state is State.EXPIRED:
            back = lifecycle.retry(slot, call.body, bus.store.policy(call.channel))
            bus.store.swap(slot, back)
            slot = back
        if slot.state in WAITING:
            bus.store.swap(slot, lifecycle.cancel(slot, now=now), line)


def _tell(bus: Bus, call: Task, won: Bid, task: Body) -> None:
    """Tell every bidder once, and count their bids as read: they were answered."""
    for bid in bids(bus, call.id):
        key = f"{AWARD} of {call.id} to {bid.id}"
        told = {"event": AWARD, "call": call.id, "won": bid.id == won.id}
        if bid.id == won.id:
            told |= {"task": task.id, "channel": AWARDS}
        with suppress(BusError):  # The task is there; who cannot be told sees it when claiming.
            title = f"your bid won: task {find.short(task.id)} on {AWARDS}" if bid.id == won.id else "another bid won"
            thread = call.body.thread if access.may_read(bus.store, call.channel, bid.agent) else ""
            bus.mail.send(f"@{bid.agent}", told, type="status", title=title, key=key, thread=thread or call.id)
    with suppress(BusError):
        bus.mail.ack([bid.id for bid in _bids(bus, call.id)])  # Also those that a later one of their agent replaced.
