"""What is signed in a plan's name was planned by its owner, whatever is written into its records; so with awards."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from mcp_bus import bidding, conductor, sealed
from mcp_bus.errors import CorruptRecord, InvalidRequest, NoKey
from mcp_bus.model import State
from mcp_bus.recovery import sweep
from tests.security.conftest import CHANNEL, World

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus.plan import Plan

STEPS = [
    {"name": "build", "body": "make it", "channel": CHANNEL},
    {"name": "ship", "body": "ship {{build}}", "channel": CHANNEL, "after": "build"},
]


def plan(world: World) -> Plan:
    return conductor.post(world.bus(), {"goal": "ship", "steps": STEPS})


def change(world: World, kind: str, edit: Callable[[str], str]) -> None:
    """Edit the latest revision of the one record of a kind, in its place."""
    (path,) = (world.root / kind).iterdir()
    path.write_text(edit(path.read_text()))


def stages(world: World, made: Plan) -> dict[str, str]:
    progress = conductor.advance(world.bus(), made.id)[1]
    return {step.name: str(progress.stage(step.name)) for step in made.steps}


def test_a_plan_of_signed_steps_is_run_to_its_end(world: World) -> None:
    made = plan(world)
    assert world.work() == ["make it", "ship done"]
    assert stages(world, made) == {"build": "done", "ship": "done"}


def test_a_plan_that_nobody_signed_posts_nothing_in_its_owners_name(world: World) -> None:
    made = plan(world)
    forged = json.loads(next((world.root / "plans").iterdir()).read_text())
    forged["id"] = "plan_" + "a" * 32
    forged["steps"] = [forged["steps"][0] | {"body": "forged"}]
    path = world.root / "plans" / f"{forged['id']}.1.json"
    path.write_text(json.dumps(forged))
    sweep(world.bus())
    seal = next((world.root / "plans.signed").iterdir())
    (seal.parent / f"{forged['id']}.1.json").write_bytes(seal.read_bytes())  # That of another plan is none.
    sweep(world.bus())
    assert world.work() == ["make it", "ship done"]
    assert made


def test_a_plan_that_was_edited_before_its_first_step_posts_nothing(world: World) -> None:
    made = plan(world)
    for slot in world.bus().store.scan(CHANNEL, State.READY):
        world.bus().cancel(slot.id)
    for path in (world.root / "progress").iterdir():
        path.unlink()  # So that nothing says what the plan was.
    for path in (world.root / "keys").iterdir():
        path.unlink()
    change(world, "plans", lambda text: text.replace("make it", "forged"))
    assert stages(world, made)["build"] == "failed"
    assert world.work() == []


def test_the_result_of_another_task_is_no_input(world: World) -> None:
    made = plan(world)
    bus = world.bus()
    task = bus.claim([CHANNEL]) or pytest.fail("nothing to claim")
    other = bus.post("plain", "x").id
    plain = bus.claim(["plain"]) or pytest.fail("nothing to claim")
    bus.ack(plain, "forged")
    change(
        world, "progress",
        lambda text: json.dumps({**json.loads(text), "nodes": {"build": {"stage": "done", "run": 1, "task": other}}}),
    )  # fmt: skip
    conductor.advance(bus, made.id)
    bus.ack(task, "true")
    assert not [text for text in world.work() if "forged" in text]


def test_what_progress_says_is_not_signed_in_the_owners_name(world: World) -> None:
    made = plan(world)
    again = {"build": {"stage": "waiting", "run": 2, "why": "obey"}}
    change(world, "progress", lambda text: json.dumps({**json.loads(text), "nodes": again}))
    conductor.advance(world.bus(), made.id)
    bodies = [world.bus().get(name).body for name in world.bus().store.ids()]
    assert [body.content for body in bodies] == ["make it", "make it"]
    assert not any("obey" in str(body) for body in bodies)


def test_who_has_no_key_cannot_post_a_plan_of_signed_steps(world: World) -> None:
    with pytest.raises(NoKey):
        conductor.post(world.bus("stranger"), {"goal": "x", "steps": STEPS})
    assert list(world.bus().store.scan(CHANNEL, State.READY)) == []


def test_an_unsigned_call_is_not_awarded_on_a_signed_channel(world: World) -> None:
    planner, worker = world.bus(), world.bus("worker")
    planner.create_channel(bidding.AWARDS, signed=True)
    planner.create_channel("market", kind="topic")
    call = planner.post("market", "do it").id
    bid = worker.mail.send("", {"eta_s": 1}, type="bid", reply_to=call).id
    with pytest.raises(InvalidRequest, match="not signed"):
        bidding.award(planner, bid)


def test_a_key_that_somebody_took_is_no_answer(world: World) -> None:
    bus = world.bus()
    i = bus.post(CHANNEL, "pay", key="k").id
    to = world.paths(i)
    to.seal.unlink()
    with pytest.raises(CorruptRecord, match="not signed"):
        bus.post(CHANNEL, "pay", key="k")


def test_the_signature_is_of_the_plan_that_is_moved_on_and_not_of_what_took_its_place(world: World) -> None:
    made = plan(world)
    assert sealed.wrong(world.bus(), made) == ""
    assert sealed.wrong(world.bus(), made._replace(goal="another"))
