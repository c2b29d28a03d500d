"""What a person may do to a task, and that a refusal changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_bus import Gone, IllegalTransition, InvalidRequest, NotFound, find
from mcp_bus.model import Outcome, State
from tests.bus.test_working import take
from tests.fakes import swept

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus import Bus, Task
    from tests.fakes import VirtualSource

VERBS: dict[str, Callable[[Bus, str], Task]] = {
    "cancel": lambda bus, task_id: bus.cancel(task_id),
    "retry": lambda bus, task_id: bus.retry(task_id),
    "edit": lambda bus, task_id: bus.retry(task_id, body="better"),
    "requeue": lambda bus, task_id: bus.requeue(task_id),
    "discard": lambda bus, task_id: bus.discard(task_id),
    "undo": lambda bus, task_id: bus.undo(task_id),
    "reprioritise": lambda bus, task_id: bus.reprioritise(task_id, 5),
}
ALLOWED = {
    "cancel": {State.READY, State.SCHEDULED, State.LEASED},
    "retry": {State.DEAD, State.CANCELLED, State.EXPIRED},
    "edit": {State.DEAD},
    "requeue": {State.LEASED, State.SCHEDULED},
    "discard": {State.DEAD},
    "undo": {State.CANCELLED},
    "reprioritise": {State.READY, State.SCHEDULED},
}


def in_state(bus: Bus, source: VirtualSource, state: State) -> str:
    task_id = bus.post("work", "a", delay_s=60 * (state is State.SCHEDULED), ttl_s=5 * (state is State.EXPIRED)).id
    if state in (State.LEASED, State.DONE, State.DEAD):
        task = take(bus, source)
        if state is State.DONE:
            bus.ack(task, "done")
        elif state is State.DEAD:
            bus.block(task, "which?")
    if state is State.CANCELLED:
        bus.cancel(task_id)
    if state is State.EXPIRED:
        source.advance(5)
        swept(bus)
    assert bus.get(task_id).state is state
    return task_id


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_works_where_the_table_says_and_is_refused_with_nothing_changed_elsewhere(
    bus: Bus, source: VirtualSource, verb: str, state: State
) -> None:
    task_id = in_state(bus, source, state)
    before, count = bus.get(task_id), len(bus.store.ids())
    if state in ALLOWED[verb]:
        assert VERBS[verb](bus, task_id).state in (State.READY, State.SCHEDULED, State.CANCELLED, State.DEAD)
        return
    with pytest.raises(IllegalTransition) as refusal:
        VERBS[verb](bus, task_id)
    assert task_id in str(refusal.value)
    assert refusal.value.hint
    assert bus.get(task_id) == before
    assert len(bus.store.ids()) == count


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_on_what_never_was_or_was_pruned_says_which(bus: Bus, verb: str) -> None:
    with pytest.raises(NotFound) as refusal:
        VERBS[verb](bus, "req_" + "0" * 32)
    assert not isinstance(refusal.value, Gone)
    posted = bus.post("work", "a").id
    bus.store.swap(bus.cancel(posted).slot, None)
    with pytest.raises(Gone):
        VERBS[verb](bus, posted)
    assert bus.store.ids() == []


def test_a_blocked_task_waits_for_an_answer_which_its_next_worker_reads(bus: Bus, source: VirtualSource) -> None:
    bus.post("work", "a", max_attempts=1)
    blocked = bus.block(take(bus, source), "which colour?")
    assert (blocked.state, bus.get(blocked.id).history[-1].note) == (State.DEAD, "which colour?")
    source.advance(1)
    answered = bus.retry(blocked.id, note="blue")
    assert (answered.state, answered.slot.budget) == (State.READY, 2)
    task = bus.get(take(bus, source).id)
    assert [(line.outcome, line.note) for line in task.history] == [
        (Outcome.BLOCKED, "which colour?"), (Outcome.RETRIED, "blue"),
    ]  # fmt: skip
    assert task.slot.attempt == 2


def test_an_edited_retry_takes_the_old_one_s_place_for_good(bus: Bus, source: VirtualSource) -> None:
    old = in_state(bus, source, State.DEAD)
    source.advance(1)
    new = bus.retry(old, body="better", note="try this")
    assert (new.body.content, new.body.retry_of, new.state, new.slot.attempt) == ("better", old, State.READY, 0)
    kept = bus.get(old)
    assert (kept.state, kept.history[-1].successor, kept.body.content) == (State.CANCELLED, new.id, "a")
    for verb in ("undo", "retry", "edit"):
        with pytest.raises(IllegalTransition):
            VERBS[verb](bus, old)
    assert bus.get(old) == kept
    bus.ack(take(bus, source), "done")
    ending = find.ending(bus, old)
    assert ending.is_over
    assert ending.task is not None
    assert ending.task.id == new.id
    assert len(bus.store.ids()) == 2


def test_undo_takes_back_a_cancel_and_a_discard(bus: Bus, source: VirtualSource) -> None:
    waiting, dead = bus.post("work", "a").id, ""
    bus.cancel(waiting)
    assert bus.undo(waiting).state is State.READY
    bus.cancel(waiting)
    dead = in_state(bus, source, State.DEAD)
    assert bus.discard(dead).state is State.CANCELLED
    assert bus.undo(dead).state is State.DEAD
    assert bus.retry(dead).state is State.READY


def test_a_cancelled_worker_loses_its_lease_and_the_next_cancel_is_refused(bus: Bus, source: VirtualSource) -> None:
    task_id = in_state(bus, source, State.LEASED)
    assert bus.cancel(task_id, "changed my mind").slot.lease is None
    assert bus.get(task_id).history[-1].note == "changed my mind"


@pytest.mark.parametrize("priority", [10, -10])
def test_a_priority_out_of_range_is_refused(bus: Bus, priority: int) -> None:
    posted = bus.post("work", "a", priority=2).id
    with pytest.raises(IllegalTransition):
        bus.reprioritise(posted, priority)
    for wrong in ("1", 1.0, True, None):
        with pytest.raises(InvalidRequest):
            bus.reprioritise(posted, wrong)  # type: ignore[arg-type]  # that is what is refused
    assert bus.get(posted).slot.priority == 2


def test_any_part_of_an_id_will_do(bus: Bus) -> None:
    posted = bus.post("work", "a").id
    assert bus.cancel(posted[-8:]).id == posted
    assert bus.undo(posted[:-8]).id == posted
