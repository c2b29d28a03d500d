"""P20, P27: what a plan's progress, or a task's history, names is a task, and not yet the one that is meant."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from mcp_bus import conductor, find, plans, report, sealed
from mcp_bus.model import State
from mcp_bus.recovery import sweep
from mcp_bus.server import planning, resources
from mcp_bus.server.words import Ways
from tests.security.conftest import CHANNEL, World

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus.bus import Bus
    from mcp_bus.model import Task
    from mcp_bus.plan import Plan

SECRET = "swordfish"  # noqa: S105  what the tests look for, and nobody's password
PLACE = "vault"
STEPS = [
    {"name": "one", "body": "look", "channel": "pub"},
    {"name": "two", "body": "got: {{one}}", "channel": "pub", "after": "one", "on_failure": "continue"},
]


def taken(bus: Bus, channel: str) -> Task:
    return bus.claim([channel]) or pytest.fail("nothing to claim")


def posted(world: World) -> Plan:
    return conductor.post(world.bus(), {"goal": "x", "steps": STEPS})


def answered(world: World, *, error: bool = False) -> str:
    """Return an encrypted task whose answer is the secret."""
    i = world.bus().post(PLACE, "what is it?", encrypt_to=["worker"]).id
    worker = world.bus("worker")
    task = taken(worker, PLACE)
    worker.ack(task, "" if error else SECRET, error=SECRET if error else "")
    return i


def newest(world: World) -> Path:
    """Return the last revision of the one plan's progress."""
    return max((world.root / "progress").iterdir(), key=lambda path: path.stat().st_mtime_ns)


def forge(world: World, stage: str, task: str) -> None:
    """Write into the progress that the first step's task is another."""
    path = newest(world)
    node = {"stage": stage, "run": 1, "task": task, "by": "x", "ended": world.source.now()}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"nodes": {"one": node}, "over": 0}))


@pytest.mark.parametrize("agent", ["planner", "worker"])
@pytest.mark.parametrize("stage", ["done", "released"])
@pytest.mark.parametrize("error", [False, True])
def test_no_sweep_opens_for_a_plan_what_its_progress_names(
    world: World, agent: str, stage: str, *, error: bool
) -> None:
    secret = answered(world, error=error)
    made = posted(world)
    forge(world, stage, secret)
    sweep(world.bus(agent))
    conductor.advance(world.bus(agent), made.id)
    assert world.holds(SECRET) == []
    assert all(SECRET not in text for text in shown(world.bus(agent), made))


def shown(bus: Bus, made: Plan) -> list[str]:
    """Return every way in which a plan is shown."""
    _, progress = conductor.advance(bus, made.id)
    fields = report.fields(bus, made, progress)
    read = resources.read(bus, f"bus://plans/{made.id}")
    told = planning.shown(bus, made.id, Ways(frozenset()))
    return [json.dumps(fields), report.synthesis(bus, made, progress), json.dumps(read, default=str), told]


def test_an_encrypted_task_is_not_a_steps_whatever_it_says(world: World) -> None:
    made = posted(world)
    task = world.bus().get(next(iter(world.bus().store.scan("pub", State.READY))).id)
    step = made.by_name["one"]
    assert sealed.is_of(made, step, task)
    other = world.bus().get(answered(world))
    claimed = other.body._replace(plan=made.id, node="one", channel="pub")
    assert other.result is not None
    plain = other.result._replace(encrypted=None)
    assert sealed.is_of(made, step, task._replace(result=plain))
    for result in (None, plain, other.result):
        assert not sealed.is_of(made, step, other._replace(body=claimed, slot=task.slot, result=result))
    assert not sealed.is_of(made, step, task._replace(result=other.result))


def test_a_task_is_a_steps_only_if_it_says_so_itself(world: World) -> None:
    made = posted(world)
    task = world.bus().get(next(iter(world.bus().store.scan("pub", State.READY))).id)
    for body in (task.body._replace(plan="plan_x"), task.body._replace(node="two")):
        assert not sealed.is_of(made, made.by_name["one"], task._replace(body=body))
    assert not sealed.is_of(made, made.by_name["one"]._replace(channel="else"), task)


def test_a_step_whose_task_was_edited_and_retried_goes_on(world: World) -> None:
    made, bus = posted(world), world.bus()
    bus.nack(taken(bus, "pub"), "no", final=True)
    dead = next(iter(bus.store.scan("pub", State.DEAD))).id
    bus.retry(dead, body="look again")
    bus.ack(taken(bus, "pub"), "found")
    assert taken(bus, "pub").body.content == "got: found"
    assert made


# --- who takes a task's place ----------------------------------------------------------------------------


def superseded(world: World, task_id: str, by: str, channel: str = CHANNEL) -> None:
    """Say in the history of a task that another took its place, as whoever can write the bus does."""
    place = world.root / "channels" / channel
    line = {"attempt": 0, "outcome": "retried", "at": "2026-01-01T00:00:00.000Z", "by": "x", "note": "", "token": ""}
    (place / "attempts" / task_id).mkdir(parents=True, exist_ok=True)
    (place / "attempts" / task_id / "000001-0-retried.json").write_text(json.dumps(line | {"successor": by}))
    day = place / "archive" / "2026-01-01"
    day.mkdir(parents=True, exist_ok=True)
    (place / "requests" / f"{task_id}.json").rename(day / f"{task_id}_discarded.json")


@pytest.mark.parametrize("channel", ["plain", CHANNEL])
def test_no_answer_of_another_task_is_shown_as_that_of_the_one_that_is_waited_for(world: World, channel: str) -> None:
    bus = world.bus()
    other = bus.post(channel, "of the attacker").id
    bus.ack(taken(bus, channel), "forged")
    i = bus.post(CHANNEL, "honest").id
    superseded(world, i, other)
    assert find.latest(world.bus(), i).id == i, "history was not as the bus writes it"
    assert any(line.successor == other for line in world.bus().get(i).history)
    ended = find.ending(world.bus(), i)
    assert (ended.is_over, ended.task and ended.task.id, ended.task and ended.task.result) == (True, i, None)


def test_a_forged_successor_that_says_whom_it_replaces_does_not_count_where_it_has_to_be_signed(world: World) -> None:
    i = world.bus().post(CHANNEL, "honest").id
    forged, data = world.forged()
    said = json.loads(data) | {"bus": {"retry_of": i}}
    world.place(forged, json.dumps(said).encode(), None)
    superseded(world, i, forged)
    assert find.latest(world.bus(), i).id == i


def test_a_plain_successor_of_an_encrypted_task_does_not_count(world: World) -> None:
    i = world.bus().post("pub", SECRET, encrypt_to=["worker"]).id
    forged, data = world.forged(channel="pub")
    world.place(forged, json.dumps(json.loads(data) | {"bus": {"retry_of": i}}).encode(), None, "pub")
    superseded(world, i, forged, "pub")
    assert find.latest(world.bus(), i).id == i


def test_who_edits_and_who_awards_are_followed(world: World) -> None:
    bus = world.bus()
    i = bus.post(CHANNEL, "honest").id
    bus.nack(taken(bus, CHANNEL), "no", final=True)
    new = bus.retry(i, body="better").id
    assert find.latest(world.bus(), i).id == new


# --- who may read it -------------------------------------------------------------------------------------


def test_reasons_on_a_channel_are_told_of_a_plan_to_those_who_may_read_it(world: World) -> None:
    bus = world.bus()
    bus.create_channel("pub", read_by=["planner", "worker"])
    made = posted(world)
    worker = world.bus("worker")
    worker.nack(taken(worker, "pub"), SECRET, final=True)
    assert all(SECRET not in text for text in shown(world.bus("eve"), made))
    assert "may not read" in "".join(shown(world.bus("eve"), made))
    assert all(SECRET in text for text in shown(world.bus("planner"), made))
    assert SECRET in "".join(shown(worker, made))
    record = newest(world)
    again = {"one": {"stage": "waiting", "run": 2, "why": SECRET}}
    record.write_text(json.dumps(json.loads(record.read_text()) | {"nodes": again, "over": 0}))
    _, waits = plans.progress(world.bus("eve"), made.id)  # A step that is done anew knows how its last run ended.
    assert SECRET not in json.dumps(report.fields(world.bus("eve"), made, waits))
    assert SECRET in json.dumps(report.fields(world.bus("planner"), made, waits))
