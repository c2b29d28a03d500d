"""Plans that are stopped while others move them on, and records that are none."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus import conductor, plans
from mcp_bus.errors import Conflict, CorruptRecord, LeaseLost
from mcp_bus.model import PLANS, PROGRESS, State, Task
from tests.fakes import swept

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus.bus import Bus
    from mcp_bus.model import Body
    from tests.plans.conftest import Poster


@pytest.mark.parametrize("how", ["cancel", "stop"])
def test_what_one_conductor_released_while_another_stopped_the_plan_is_taken_back_or_kept_but_not_both(
    post: Poster, bus: Bus, open_bus_as: Callable[..., Bus], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    run = post("a", "vital", "b<a", "c<a", vital={"on_failure": "stop", "max_attempts": 1})
    other = open_bus_as("bob", "00000002")
    first, vital = run.claim("a"), run.claim("vital")
    save, overtaken, taken = plans.save, list[str](), list[Task]()

    def late(*words: Any) -> None:
        if not overtaken:  # The tasks of b and c are posted, and nothing says so yet.
            overtaken.append("once")
            found = other.claim()
            assert found is not None
            taken.append(found)
            if how == "cancel":
                conductor.cancel(other, run.plan.id)
            else:
                bus.nack(vital, "broken")
        save(*words)

    monkeypatch.setattr(conductor, "save", late)
    bus.ack(first, "done")
    assert overtaken
    assert other.claim() is None, "what waits is not left for a worker whose result nobody wants"
    states = {name: tasks[0].state for name, tasks in run.tasks().items()}
    kept = taken[0].body.node
    (gone,) = {"b", "c"} - {kept}
    assert states[gone] is State.CANCELLED
    assert run.stages[gone] == "skipped"
    if how == "cancel":
        assert (states[kept], run.stages[kept]) == (State.CANCELLED, "skipped")
    else:
        assert (states[kept], run.stages[kept]) == (State.LEASED, "released"), "what is worked on may end"
        other.ack(taken[0], "done")
        assert run.stages[kept] == "done"
        assert run.outcome == "failed"


def test_a_conductor_killed_after_it_posted_leaves_no_task_behind_when_the_plan_is_cancelled(
    post: Poster, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = post("a", "b<a")
    task = run.claim("a")
    with monkeypatch.context() as killed:
        killed.setattr(conductor, "save", lambda *_: (_ for _ in ()).throw(Conflict("killed")))
        bus.ack(task, "done")
    assert run.tasks()["b"][0].state is State.READY
    assert run.stages == {"a": "released", "b": "waiting"}
    conductor.cancel(bus, run.plan.id)
    assert run.tasks()["b"][0].state is State.CANCELLED
    assert (run.stages, run.outcome) == ({"a": "done", "b": "skipped"}, "cancelled")
    assert bus.claim() is None


@pytest.mark.parametrize("state", ["blocked", "unverified"])
def test_a_cancelled_plan_waits_for_no_person_and_no_check(post: Poster, bus: Bus, state: str) -> None:
    run = post("a", a={"verify": ["check"]} if state == "unverified" else {})
    if state == "blocked":
        bus.block(run.claim("a"), "which one?")
    else:
        run.do("a")
    conductor.cancel(bus, run.plan.id)
    assert run.outcome == "cancelled"


def test_a_step_called_like_a_cancel_stops_a_plan_as_any_other(post: Poster, bus: Bus) -> None:
    run = post("cancelled-orders", "busy", cancelled_orders={"on_failure": "stop", "max_attempts": 1})
    busy = run.claim("busy")
    run.fail("cancelled-orders")
    bus.ack(busy, "done")
    assert run.stages == {"cancelled-orders": "failed", "busy": "done"}
    assert run.outcome == "failed"


@pytest.mark.parametrize(
    "change",
    [
        {"id": 5}, {"goal": []}, {"created": "x"}, {"grace_s": {}}, {"grace_s": 1e308}, {"owner": None},
        {"steps": [{"name": "a", "body": "x", "channel": "work", "timeout_s": [1]}]},
        {"steps": [{"name": "", "body": "x", "channel": "work"}]},
        {"steps": [{"name": "a\x1b", "body": "x", "channel": "work"}]},
        {"steps": [{"name": "a", "body": "x", "channel": "work", "after": [7]}]},
    ],
)  # fmt: skip
def test_a_record_with_a_field_of_another_kind_stops_nobody(post: Poster, bus: Bus, change: dict[str, Any]) -> None:
    run = post("a", "b<a")
    record = bus.store.records.read(PLANS, run.plan.id)
    assert record is not None
    evil = {**record.data, "id": "plan_00evil", **change}
    bus.store.records.write(PLANS, "plan_00evil", evil, after=0, durable=False)
    assert any("left plan_00evil as it is" in line for line in swept(bus))
    with pytest.raises(CorruptRecord):
        conductor.advance(bus, "plan_00evil")
    run.do("a")
    assert run.stages["b"] == "released"


@pytest.mark.parametrize("how", ["cancelled", "stopped"])
def test_nothing_of_a_stopped_plan_can_be_claimed_not_even_for_a_moment(
    post: Poster, bus: Bus, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    run = post(
        "gate", "a", "b<a", "c<b", "d<e", "e",
        gate={"on_failure": "stop", "max_attempts": 1}, a={"on_failure": "continue"}, b={"on_failure": "continue"},
    )  # fmt: skip
    gate, held = run.claim("gate"), run.claim("e")
    states: list[State] = []
    add = bus.store.add

    def watched(body: Body) -> Body:
        kept = add(body)
        states.append(bus.get(kept.id).state)
        return kept

    monkeypatch.setattr(bus.store, "add", watched)
    conductor.cancel(bus, run.plan.id) if how == "cancelled" else bus.nack(gate, "shut")
    with suppress(LeaseLost):
        bus.ack(held, "done")  # Once it is done, d could be released by a conductor that did not know better.
    assert State.READY not in states
    assert bus.claim() is None
    assert (run.stages["b"], run.stages["c"], run.stages["d"]) == ("skipped", "skipped", "skipped")
    assert plans.progress(bus, run.plan.id)[1].over


def test_who_finds_a_step_taken_back_knows_that_the_plan_was_stopped(post: Poster, bus: Bus) -> None:
    run = post("a", "b<a", "c", a={"on_failure": "continue"})
    conductor.cancel(bus, run.plan.id, "not wanted")
    bus.store.records.remove(PROGRESS, run.plan.id)
    conductor.advance(bus, run.plan.id)
    assert run.stages == {"a": "skipped", "b": "skipped", "c": "skipped"}
    assert run.outcome == "cancelled"
    assert bus.claim() is None


def test_a_plan_whose_words_act_on_a_terminal_or_that_has_no_steps_is_none(post: Poster, bus: Bus) -> None:
    run = post("a", a={"requires": ["x"]})
    record = bus.store.records.read(PLANS, run.plan.id)
    assert record is not None
    evil = {**record.data["steps"][0], "requires": ["\x1b]0;pwn\x07"]}
    for steps in ([evil], list[Any]()):
        data = {**record.data, "id": "plan_00evil", "steps": steps}
        bus.store.records.write(PLANS, "plan_00evil", data, after=0, durable=False)
        with pytest.raises(CorruptRecord):
            plans.read(bus, "plan_00evil")
        bus.store.records.remove(PLANS, "plan_00evil")


def test_a_plan_under_another_s_name_is_none(post: Poster, bus: Bus) -> None:
    run = post("a")
    record = bus.store.records.read(PLANS, run.plan.id)
    assert record is not None
    bus.store.records.write(PLANS, "plan_00evil", record.data, after=0, durable=False)
    with pytest.raises(CorruptRecord, match="says that it is"):
        plans.read(bus, "plan_00evil")


def test_progress_that_says_it_is_over_and_is_not_is_none(post: Poster, bus: Bus) -> None:
    run = post("a", "b")
    record = bus.store.records.read(PROGRESS, run.plan.id)
    assert record is not None
    bus.store.records.write(PROGRESS, run.plan.id, {**record.data, "over": 5}, after=record.revision, durable=False)
    with pytest.raises(CorruptRecord, match="it is over, and not all of its steps are"):
        plans.progress(bus, run.plan.id)
