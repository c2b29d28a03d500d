"""A process is killed at each changing call of each verb; the client repeats itself, and all is well (P3, P7, P8)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from mcp_bus.errors import IllegalTransition, LeaseLost
from mcp_bus.model import Ticket
from mcp_bus.recovery import sweep
from mcp_bus.stores import layout
from tests.crash import auditor
from tests.crash.victim import HOUR, IS_SOAK, Points, Steps, open_at

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mcp_bus.bus import Bus
    from mcp_bus.model import Task
    from mcp_bus.stores.fsops import Fs

CHANNEL = "work"
ANSWER = "the answer"
# When the client comes back: at once, once the sweep loses patience, once its lease has lapsed.
RETURNS = {"at once": None, "after a sweep": 10_000, "after its lease": 3 * HOUR}


class Verb(NamedTuple):
    """One verb: the state it starts from, the request, and how the task it is about may end up."""

    prepare: Callable[[Bus], Ticket]
    request: Callable[[Bus, Ticket], object]
    ends: frozenset[str]
    tasks: tuple[int, int] = (1, 1)
    refusals: tuple[type[Exception], ...] = ()
    channels: tuple[str, ...] = (CHANNEL,)


def nothing(bus: Bus) -> Ticket:
    bus.create_channel(CHANNEL)
    return Ticket("", "")


def ready(bus: Bus) -> Ticket:
    return Ticket(bus.post(CHANNEL, "x", max_attempts=3, backoff_s=0, key="k").id, "")


def scheduled(bus: Bus) -> Ticket:
    return Ticket(bus.post(CHANNEL, "x", delay_s=3600).id, "")


def claimed(bus: Bus) -> Task:
    task = bus.claim([CHANNEL], lease_s=3600)
    assert task is not None
    return task


def leased(bus: Bus) -> Ticket:
    ready(bus)
    return claimed(bus).ticket


def last_attempt(bus: Bus) -> Ticket:
    bus.post(CHANNEL, "x", max_attempts=1)
    return claimed(bus).ticket


def dead(bus: Bus) -> Ticket:
    ticket = last_attempt(bus)
    bus.nack(ticket, "no")
    return ticket


def cancelled(bus: Bus) -> Ticket:
    ticket = ready(bus)
    bus.cancel(ticket.id)
    return ticket


def discarded(bus: Bus) -> Ticket:
    ticket = dead(bus)
    bus.discard(ticket.id)
    return ticket


def acked(bus: Bus, ticket: Ticket) -> None:
    assert bus.ack(ticket, ANSWER).content == ANSWER
    assert bus.get(ticket.id).result is not None
    bus.close()  # Settles, which is a step to die at as well.


LOST = (LeaseLost,)
MOVED = (IllegalTransition, LeaseLost)
VERBS = {
    "post": Verb(nothing, lambda bus, _: bus.post(CHANNEL, "x"), frozenset({"done"}), tasks=(1, 2)),
    "keyed post": Verb(nothing, lambda bus, _: bus.post(CHANNEL, "x", key="k"), frozenset({"done"})),
    "keyed post to a new channel": Verb(
        nothing, lambda bus, _: bus.post("new", "x", key="k"), frozenset({"done"}), channels=(CHANNEL, "new")
    ),
    "delayed post": Verb(nothing, lambda bus, _: bus.post(CHANNEL, "x", key="k", delay_s=60), frozenset({"done"})),
    "claim": Verb(ready, lambda bus, _: bus.claim([CHANNEL]), frozenset({"done"})),
    "renew": Verb(leased, lambda bus, t: bus.renew(t, lease_s=7200), frozenset({"done"}), refusals=LOST),
    "ack": Verb(leased, acked, frozenset({"done"}), refusals=LOST),
    "nack": Verb(leased, lambda bus, t: bus.nack(t, "no"), frozenset({"done"}), refusals=LOST),
    "nack to dead": Verb(last_attempt, lambda bus, t: bus.nack(t, "no"), frozenset({"dead"}), refusals=LOST),
    "release": Verb(leased, lambda bus, t: bus.release(t, "no"), frozenset({"done"}), refusals=LOST),
    "block": Verb(leased, lambda bus, t: bus.block(t, "?"), frozenset({"dead", "done"}), refusals=LOST),
    "cancel": Verb(ready, lambda bus, t: bus.cancel(t.id), frozenset({"cancelled"}), refusals=MOVED),
    "cancel of a leased one": Verb(leased, lambda bus, t: bus.cancel(t.id), frozenset({"cancelled"}), refusals=MOVED),
    "retry": Verb(dead, lambda bus, t: bus.retry(t.id, note="go"), frozenset({"done"}), refusals=MOVED),
    "retry of a cancelled one": Verb(cancelled, lambda bus, t: bus.retry(t.id), frozenset({"done"}), refusals=MOVED),
    "edited retry": Verb(
        dead, lambda bus, t: bus.retry(t.id, body="y"), frozenset({"done", "cancelled"}), tasks=(2, 2), refusals=MOVED
    ),
    "discard": Verb(dead, lambda bus, t: bus.discard(t.id), frozenset({"cancelled"}), refusals=MOVED),
    "undo": Verb(cancelled, lambda bus, t: bus.undo(t.id), frozenset({"done"}), refusals=MOVED),
    "undo of a discard": Verb(discarded, lambda bus, t: bus.undo(t.id), frozenset({"dead"}), refusals=MOVED),
    "requeue": Verb(leased, lambda bus, t: bus.requeue(t.id), frozenset({"done"}), refusals=MOVED),
    "requeue of a scheduled one": Verb(
        scheduled, lambda bus, t: bus.requeue(t.id), frozenset({"done"}), refusals=MOVED
    ),
    "reprioritise": Verb(ready, lambda bus, t: bus.reprioritise(t.id, 5), frozenset({"done"})),
}


def drained(root: Path, *, offset: int) -> None:
    """Let time pass, sweep, and finish all there is to do, until nothing is left."""
    for hours in range(3):
        with open_at(root, agent="eve", offset=offset + hours * HOUR) as bus:
            sweep(bus)
            while (task := bus.claim()) is not None:
                assert task.slot.attempt <= (task.slot.budget or task.body.max_attempts or 3), "over its budget"
                bus.ack(task, "eve's answer")
    with open_at(root, agent="eve", offset=offset + 3 * HOUR) as bus:
        sweep(bus)


def worked_off(root: Path) -> None:
    """Let time pass, and finish all there is to do, quickly: for what was not crashed."""
    with open_at(root, agent="eve", offset=6 * HOUR) as bus:
        sweep(bus)
        while (task := bus.claim()) is not None:
            bus.ack(task, "eve's answer")
    with open_at(root, agent="eve", offset=9 * HOUR) as bus:
        sweep(bus)


@pytest.mark.parametrize(("back", "late"), [*((back, False) for back in RETURNS), ("at once", True)])
@pytest.mark.parametrize("name", VERBS)
def test_a_verb_killed_at_any_step_and_repeated_happens_once(disk: Path, name: str, back: str, *, late: bool) -> None:
    verb, root, tickets = VERBS[name], disk / "bus", list[Ticket]()
    layout.create(root, fs=Steps())
    with open_at(root) as bus:
        tickets.append(verb.prepare(bus))

    def work(at: Path, fs: Fs) -> None:
        with open_at(at, fs) as bus:
            verb.request(bus, tickets[0])

    steps, pause = 0, RETURNS[back]
    # A run of the tests comes back after a sweep from every other step, and after the lease from those between.
    stride, first = (1, 0) if IS_SOAK or pause is None else (2, int(pause > HOUR))
    for said, crashed in Points(root, disk, work, late=late, stride=stride, first=first):
        steps += stride
        if pause is not None:
            with open_at(crashed, offset=pause) as bus:
                sweep(bus)
        repeat(verb, crashed, tickets[0], offset=pause or 0, said=said)
        drained(crashed, offset=6 * HOUR)
        check(verb, crashed, tickets[0], said)
    assert steps >= 2, "a verb is more than one step"


def repeat(verb: Verb, root: Path, ticket: Ticket, *, offset: int, said: str) -> None:
    """Make the request again, as a client does that got no answer; what it is told holds from then on."""
    refused = None
    with open_at(root, offset=offset) as bus:
        try:
            verb.request(bus, ticket)
        except verb.refusals as error:
            refused = error
    if verb.request is acked and refused is None:
        assert auditor.look(root).results == {ticket.id: ANSWER}, said


def check(verb: Verb, root: Path, ticket: Ticket, said: str) -> None:
    audit = auditor.settled(root)
    low, high = verb.tasks
    assert low <= len(audit.states) <= high, (said, audit.states)
    assert set(audit.states.values()) <= verb.ends, (said, audit.states)
    assert set(audit.results.values()) <= {ANSWER, "eve's answer"}, said
    if verb.request is acked:
        assert audit.results[ticket.id] in {ANSWER, "eve's answer"}, said


def test_an_ack_that_passed_the_fence_is_the_result_though_its_worker_died(disk: Path) -> None:
    root = disk / "bus"
    layout.create(root, fs=Steps())
    with open_at(root) as bus:
        ticket = leased(bus)

    def work(at: Path, fs: Fs) -> None:
        with open_at(at, fs) as bus:
            bus.ack(ticket, ANSWER)

    fenced = 0
    for said, crashed in Points(root, disk, work, late=True):
        if auditor.look(crashed).states[ticket.id] != "done":
            continue
        fenced += 1
        with open_at(crashed, agent="bob") as bus:
            result = bus.get(ticket.id).result
        assert result is not None, f"whoever sees it done sees its result: {said}"
        assert result.content == ANSWER, said
    assert fenced >= 2


def test_a_result_is_whole_or_not_there_whenever_its_worker_dies(disk: Path) -> None:
    root, long = disk / "bus", "x" * 100_000
    layout.create(root, fs=Steps())
    with open_at(root) as bus:
        ticket = leased(bus)

    def work(at: Path, fs: Fs) -> None:
        with open_at(at, fs) as bus:
            bus.ack(ticket, long)

    for said, crashed in Points(root, disk, work):
        staged = [auditor.load(path)["result"] for path in (crashed / "staged").iterdir()]
        assert set(staged) <= {long}, f"half a result among the staged ones: {said}"
        with open_at(crashed, agent="bob", offset=10_000) as bus:
            sweep(bus)
        assert set(auditor.sound(crashed).results.values()) <= {long}, said


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_making_a_bus_killed_at_any_step_and_repeated_makes_one(disk: Path, *, late: bool) -> None:
    (disk / "nothing").mkdir()
    steps = 0
    for said, crashed in Points(disk / "nothing", disk, lambda at, fs: layout.create(at / "bus", fs=fs), late=late):
        steps += 1
        layout.create(crashed / "bus", fs=Steps())
        before = (crashed / "bus" / "bus.json").read_bytes()
        layout.create(crashed / "bus", fs=Steps())
        assert (crashed / "bus" / "bus.json").read_bytes() == before, said
        with open_at(crashed / "bus") as bus:
            bus.post(CHANNEL, "x", key="k")
        drained(crashed / "bus", offset=6 * HOUR)
        assert auditor.settled(crashed / "bus").count() == {"done": 1}, said
    assert steps > 20


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_declaring_a_channel_killed_at_any_step_and_repeated_sets_its_policy(disk: Path, *, late: bool) -> None:
    root = disk / "bus"
    layout.create(root, fs=Steps())

    def work(at: Path, fs: Fs) -> None:
        with open_at(at, fs) as bus:
            bus.create_channel("new", max_attempts=7)

    for said, crashed in Points(root, disk, work, late=late):
        with open_at(crashed) as bus:
            bus.create_channel("new", max_attempts=7)
            bus.post("new", "x")
        with open_at(crashed) as bus:
            assert bus.store.policy("new").max_attempts == 7, said
        drained(crashed, offset=6 * HOUR)
        assert auditor.settled(crashed).count() == {"done": 1}, said
