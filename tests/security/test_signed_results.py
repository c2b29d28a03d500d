"""On a signed channel a result that its worker did not sign is not the result, in mail and on topics neither."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING

import pytest

from mcp_bus.errors import CorruptRecord, LeaseLost
from mcp_bus.model import State
from mcp_bus.policies import INBOX
from mcp_bus.recovery import sweep
from mcp_bus.signing.guard import Guard
from tests.security.conftest import CHANNEL, World, other_home, signed_by

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


# --- results ---------------------------------------------------------------------------------------------


def _answer(i: str, **other: object) -> bytes:
    said = {"id": i, "status": "success", "from": {"agent": "worker"}, "result": "forged", "error": None}
    return json.dumps(said | other).encode()


def test_a_forged_result_is_not_shown_and_the_worker_who_has_the_task_still_finishes(world: World) -> None:
    worker, bus = world.bus("worker"), world.bus()
    i = bus.post(CHANNEL, "x").id
    task = worker.claim([CHANNEL]) or pytest.fail("nothing to claim")
    response = world.root / "channels" / CHANNEL / "responses" / f"{i}.json"
    response.write_bytes(_answer(i))
    assert bus.get(i).result is None
    worker.ack(task, "true")
    done = bus.get(i)
    assert done.result is not None
    assert done.result.content == "true"
    assert any(why.startswith("it is not what was signed") for why in world.reasons())


def test_a_forged_result_does_not_keep_a_waiting_task_from_its_worker(world: World) -> None:
    i = world.bus().post(CHANNEL, "x").id
    (world.root / "channels" / CHANNEL / "responses" / f"{i}.json").write_bytes(_answer(i))
    assert world.bus().get(i).state is State.READY
    assert world.work() == ["x"]
    assert (world.bus().get(i).result or pytest.fail("no result")).content == "done"


def test_a_forged_result_does_not_hide_where_a_task_is(world: World) -> None:
    i, worker = world.bus().post(CHANNEL, "x").id, world.bus("worker")
    worker.nack(worker.claim([CHANNEL]) or pytest.fail("nothing to claim"), "not today", retry_in_s=0)
    (world.root / "channels" / CHANNEL / "responses" / f"{i}.json").write_bytes(_answer(i))
    assert (world.bus().get(i).state, world.bus().get(i).proof.doubt) == (State.READY, "")  # type: ignore[union-attr]  # signed
    assert world.work() == ["x"]


def _unsigned(world: World, i: str, data: bytes) -> bytes:
    del world, data
    return _answer(i)


def _altered(world: World, i: str, data: bytes) -> bytes:
    del world, i
    return data.replace(b'"done"', b'"gone"')


def _of_another(world: World, i: str, data: bytes) -> bytes:
    del i, data
    other = world.bus().post(CHANNEL, "other").id
    world.work()
    return (world.root / "channels" / CHANNEL / "responses" / f"{other}.json").read_bytes()


@pytest.mark.parametrize("change", [_altered, _of_another, _unsigned])
def test_a_done_task_with_another_result_says_so(world: World, change: Callable[[World, str, bytes], bytes]) -> None:
    i = world.bus().post(CHANNEL, "x").id
    world.work()
    response = world.root / "channels" / CHANNEL / "responses" / f"{i}.json"
    response.write_bytes(change(world, i, response.read_bytes()))
    done = world.bus().get(i)
    assert (done.state, done.result) == (State.DONE, None)
    assert done.proof is not None
    assert "its result: " in done.proof.doubt
    assert done.proof.body.startswith("planner (")


def test_no_byte_of_a_result_or_its_signature_can_be_changed(world: World) -> None:
    i = world.bus().post(CHANNEL, "x").id
    world.work()
    response = world.root / "channels" / CHANNEL / "responses" / f"{i}.json"
    seal = next((world.root / "signatures").glob(f"{i}.*.jws"))
    reader = world.bus()
    for path in (response, seal):
        data = path.read_bytes()
        for at in range(len(data)):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1 << (at % 7)]) + data[at + 1 :])
            try:
                assert reader.get(i).result is None, f"byte {at} of {path.name}"
            except CorruptRecord:
                continue
        path.write_bytes(data)
    assert reader.get(i).result is not None


def test_a_sweep_does_not_carry_on_a_forged_result(world: World) -> None:
    worker = world.bus("worker")
    i = world.bus().post(CHANNEL, "x").id
    task = worker.claim([CHANNEL]) or pytest.fail("nothing to claim")
    lease = task.lease
    staged = world.root / "staged" / f"{i}.a1.{lease.holder}.{lease.token}.json"
    staged.write_bytes(_answer(i))
    sweep(world.bus())
    assert world.bus().get(i).state is State.LEASED
    assert not staged.exists()
    worker.ack(task, "true")
    assert (world.bus().get(i).result or pytest.fail("no result")).content == "true"


def test_a_late_worker_does_not_put_the_result_of_another_aside(world: World, disk: Path) -> None:
    late, i = world.bus("worker"), world.bus().post(CHANNEL, "x").id
    task = late.claim([CHANNEL]) or pytest.fail("nothing to claim")
    world.bus().requeue(i)
    other = disk / "third"
    made = Guard(other, world.guard()._bus, world.root, world.source)
    key = made.make("third")
    for own in world.guard().own():
        made.trust.pin(own.agent, own.public, world.source.now())
    assert world.work("third", home=other) == ["x"]
    with pytest.raises(LeaseLost):
        late.ack(task, "late")
    world.guard().trust.pin("third", key.public, world.source.now())
    assert (world.bus().get(i).result or pytest.fail("no result")).sender.agent == "third"


# --- mail and topics -------------------------------------------------------------------------------------


def test_of_an_inbox_only_what_is_verified_is_read(world: World) -> None:
    planner, worker = world.bus(), world.bus("worker")
    worker.create_channel("@planner", signed=True)
    worker.mail.send("@planner", "honest")
    i, data = world.forged("worker", channel="@planner")
    world.place(i, data, None, "@planner")
    read = planner.mail.read()
    assert [(item.body.content, item.verified[:8]) for item in read] == [("honest", "worker (")]
    assert world.reasons() == ["it is not signed"]
    planner.mail.ack()
    i = read[0].body.id
    os.link(world.paths(i, "@planner").identity, world.paths(i, "@planner").body)
    assert world.bus().mail.read() == []
    assert any("shown again" in reason for reason in world.reasons())


def test_the_inbox_of_a_session_is_signed_with_its_agents(world: World) -> None:
    planner, worker = world.bus(), world.bus("worker")
    planner.roster.arrive(())
    worker.create_channel("@planner", signed=True)
    own = planner.mail.inboxes[1]
    worker.mail.send(f"@planner~{planner.identity.session}", "honest")
    i, data = world.forged("worker", channel=own)
    world.place(i, data, None, own)
    assert [item.body.content for item in planner.mail.read()] == ["honest"]


def test_who_never_saw_that_an_inbox_is_signed_learns_it_at_that_of_a_session(world: World, disk: Path) -> None:
    worker, planner = world.bus("worker"), world.bus(home=other_home(world, disk))
    worker.create_channel("@planner", signed=True)
    own = planner.mail.inboxes[1]
    worker.store.declare(own, INBOX)
    i, data = world.forged("worker", channel=own)
    world.place(i, data, None, own)
    assert planner.mail.read() == []
    assert world.reasons() == ["it is not signed"]


def test_of_a_topic_only_what_is_verified_is_read(world: World) -> None:
    planner, worker = world.bus(), world.bus("worker")
    worker.create_channel("news", kind="topic", signed=True)
    planner.mail.topics.subscribe("news")
    worker.mail.send("#news", "honest")
    i, data = world.forged("worker", channel="news")
    world.place(i, data, None, "news")
    world.source.refresh()
    assert [(item.body.content, item.verified[:8]) for item in planner.mail.read()] == [("honest", "worker (")]


def test_what_a_worker_signed_for_a_task_and_says_that_it_is_of_another_is_not_its_result(world: World) -> None:
    i, other = (world.bus().post(CHANNEL, "x").id for _ in range(2))
    world.work()
    data = _answer(other)
    seal = signed_by(world, world.home, "worker", i, data, use="result", exp=0)
    (world.root / "signatures" / f"{i}.{hashlib.sha256(data).hexdigest()[:32]}.jws").write_bytes(seal)
    (world.root / "channels" / CHANNEL / "responses" / f"{i}.json").write_bytes(data)
    done = world.bus().get(i)
    assert (done.state, done.result) == (State.DONE, None)
    assert done.proof is not None
    assert f"it is the result of '{other}'" in done.proof.doubt
