"""P20, P27: how a channel is guarded is what this user remembers, whatever became of its file, folder or queue."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from mcp_bus import conductor
from mcp_bus.errors import Conflict, CorruptRecord, InvalidRequest, Untrusted
from mcp_bus.model import Policy
from mcp_bus.policies import INBOX
from mcp_bus.signing import switch
from mcp_bus.stores.file import FileStore
from mcp_bus.stores.fsops import Fs
from tests.security.conftest import CHANNEL, World

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECRET = "swordfish"  # noqa: S105  what the tests look for, and nobody's password
PLACE = "vault"


def removed(place: Path) -> None:
    shutil.rmtree(place)


def scribbled(place: Path) -> None:
    (place / "channel.json").write_text("x")


def swapped(place: Path) -> None:
    (place / "channel.json").write_text("{}")


def hidden(place: Path) -> None:
    (place / "requests").rename(place / "requests.x")


BECAME = [removed, scribbled, swapped, hidden]


@pytest.mark.parametrize("became", BECAME)
def test_a_channel_stays_signed_and_encrypted_whatever_becomes_of_it(
    world: World, became: Callable[[Path], None]
) -> None:
    world.bus().create_channel(PLACE, encrypt_to=["worker"], signed=True)
    became(world.root / "channels" / PLACE)
    known = world.bus().store.guarded(PLACE)
    assert (known.signed, known.to) == (True, ("worker",))


def test_an_inbox_of_a_session_that_is_gone_is_guarded_as_that_of_its_agent(world: World) -> None:
    world.bus().create_channel("@worker", encrypt_to=["worker"], signed=True)
    for became in BECAME[1:2] + BECAME[:1]:
        became(world.root / "channels" / "@worker")
        known = world.bus().store.guarded("@worker~00000007")
        assert (known.signed, known.to) == (True, ("worker",))


def test_readers_that_are_in_doubt_are_said_to_be(world: World) -> None:
    world.bus().create_channel(PLACE, encrypt_to=["worker"])
    (world.root / "channels" / PLACE / "channel.json").write_text('{"encrypt_to": ["eve"]}')
    known = world.bus().store.guarded(PLACE)
    assert known.to == ("worker",)
    assert isinstance(known.doubt, Untrusted)


@pytest.mark.parametrize("became", BECAME)
def test_no_step_of_a_plan_for_an_encrypted_channel_reaches_the_disk(
    world: World, became: Callable[[Path], None]
) -> None:
    bus = world.bus()
    bus.create_channel(PLACE, encrypt_to=["worker"])
    parent = bus.post("plain", "x")
    task = bus.claim(["plain"]) or pytest.fail("nothing to claim")
    became(world.root / "channels" / PLACE)
    step = {"name": "one", "body": SECRET, "channel": PLACE}
    with pytest.raises(InvalidRequest, match="encrypted"):
        conductor.post(world.bus(), {"goal": "x", "steps": [step]}, parent=parent.id)
    assert world.holds(SECRET) == []
    assert world.holds("plan_") == []  # Nor does its parent wait for it.
    bus.ack(task, "done")


def test_a_step_for_a_channel_whose_rules_cannot_be_read_is_refused_when_its_plan_is_posted(world: World) -> None:
    bus = world.bus()
    bus.create_channel(PLACE)
    scribbled(world.root / "channels" / PLACE)
    with pytest.raises(CorruptRecord):
        conductor.post(world.bus(), {"goal": "x", "steps": [{"name": "one", "body": SECRET, "channel": PLACE}]})
    assert world.holds(SECRET) == []


def test_a_step_is_not_released_while_the_rules_of_its_channel_cannot_be_read(world: World) -> None:
    bus = world.bus()
    bus.create_channel(PLACE)
    steps = [{"name": "one", "body": "a", "channel": "plain"}, {"name": "two", "body": "b", "channel": PLACE}]
    made = conductor.post(bus, {"goal": "x", "steps": [steps[0], steps[1] | {"after": "one"}]})
    scribbled(world.root / "channels" / PLACE)
    world.source.refresh()
    bus.ack(bus.claim(["plain"]) or pytest.fail("nothing to claim"), "done")
    with pytest.raises(CorruptRecord):
        conductor.advance(world.bus(), made.id)
    swapped(world.root / "channels" / PLACE)
    assert conductor.advance(world.bus(), made.id)[1].nodes["two"].task  # It goes on once they can.


def test_a_plan_that_nobody_signed_posts_nothing_where_the_folder_of_the_signed_channel_is_gone(world: World) -> None:
    bus = world.bus()
    bus.create_channel("plain")
    step = {"name": "one", "body": "forged", "channel": "plain"}
    conductor.post(bus, {"goal": "x", "steps": [step]})
    (record,) = (world.root / "plans").iterdir()
    forged = json.loads(record.read_text().replace('"plain"', f'"{CHANNEL}"')) | {"id": "plan_" + "a" * 32}
    for name in ("progress", f"channels/{CHANNEL}"):
        shutil.rmtree(world.root / name)
    record.unlink()
    (record.parent / f"{forged['id']}.1.json").write_text(json.dumps(forged))
    made = conductor.advance(world.bus(), forged["id"])[1]
    assert "not signed by its owner" in made.nodes["one"].why
    world.bus().create_channel(CHANNEL)
    assert world.work() == []


class Racer(Fs):
    """A file system on which somebody is faster: what a channel says is swapped when it has its name."""

    def __init__(self, root: Path, before: Callable[[], None] | None = None) -> None:
        self.root, self.before = root, before

    def rename(self, src: str, src_at: int, dst: str, dst_at: int) -> None:
        if dst == "channel.json" and self.before is not None:
            self.before()
        super().rename(src, src_at, dst, dst_at)
        if dst == "channel.json":
            os.unlink(dst, dir_fd=dst_at)
            super().create(dst, dst_at, b"{}", sync=False)


def test_a_plan_that_nobody_signed_is_not_posted_where_its_channel_becomes_signed_meanwhile(world: World) -> None:
    class Signing(Fs):
        def link(self, src: str, src_at: int, dst: str, dst_at: int) -> None:
            if dst == "channel.json":
                super().create(dst, dst_at, b'{"signed": true}', sync=False)
            super().link(src, src_at, dst, dst_at)

    with pytest.raises(Conflict, match="became signed"):
        conductor.post(world.bus(fs=Signing()), {"goal": "x", "steps": [{"name": "one", "body": "x"}]})
    assert world.bus().store.ids() == []
    assert not (world.root / "signatures").exists()


def test_a_file_that_is_swapped_as_its_channel_is_made_leaves_it_signed_and_encrypted(world: World) -> None:
    made = world.bus(fs=Racer(world.root)).create_channel(PLACE, signed=True, encrypt_to=["worker"])
    assert (made.signed, made.encrypt_to) == (True, ("worker",))
    world.bus().post(PLACE, SECRET)
    assert world.holds(SECRET) == []
    assert world.work(channel=PLACE) == [SECRET]


def test_a_file_that_is_swapped_as_an_inbox_is_switched_leaves_it_signed_and_encrypted(world: World) -> None:
    made = world.bus(fs=Racer(world.root)).create_channel("@worker", signed=True, encrypt_to=["worker"])
    assert (made.signed, made.encrypt_to) == (True, ("worker",))
    i = world.bus().mail.send("@worker", SECRET).id
    assert world.holds(SECRET) == []
    assert (world.root / "signatures" / f"{i}.jws").exists()


def test_what_a_channel_is_to_be_is_remembered_before_its_file_says_so(world: World) -> None:
    seen = list[tuple[bool, tuple[str, ...]]]()
    trust = world.guard().trust

    def look() -> None:
        rule = trust.rule(PLACE)
        seen.append((rule is not None and not rule.until, trust.readers(PLACE) or ()))

    world.bus(fs=Racer(world.root, look)).create_channel(PLACE, signed=True, encrypt_to=["worker"])
    assert seen == [(True, ("worker",))]


def test_a_channel_whose_folder_is_gone_is_not_made_anew_for_other_readers_or_unsigned(world: World) -> None:
    world.bus().create_channel(PLACE, signed=True, encrypt_to=["worker"])
    removed(world.root / "channels" / PLACE)
    with pytest.raises(InvalidRequest, match="only a person"):
        world.bus().create_channel(PLACE, encrypt_to=["planner"])
    with pytest.raises(InvalidRequest, match="only a person"):
        world.bus().create_channel(PLACE, signed=False)


def test_an_unsigned_result_counts_for_nothing_where_the_queue_of_the_signed_channel_is_gone(world: World) -> None:
    i = world.bus().post(CHANNEL, "honest").id
    place = world.root / "channels" / CHANNEL
    said = {"id": i, "result": "forged", "status": "success", "from": {"agent": "worker"}}
    (place / "responses").mkdir(exist_ok=True)
    (place / "responses" / f"{i}.json").write_text(json.dumps(said))
    hidden(place)
    with pytest.raises(Conflict):
        world.bus().get(i)


def test_an_edited_body_is_doubted_where_the_queue_of_the_signed_channel_is_gone(world: World) -> None:
    bus = world.bus()
    i = bus.post(CHANNEL, "honest").id
    bus.ack(bus.claim([CHANNEL]) or pytest.fail("nothing to claim"), "done")
    identity = world.root / "tasks" / f"{i}.json"
    data = identity.read_text().replace("honest", "forged")
    identity.unlink()
    identity.write_text(data)
    hidden(world.root / "channels" / CHANNEL)
    task = world.bus().get(i)
    assert task.proof is not None
    assert task.proof.doubt


def test_a_store_in_memory_says_what_its_policies_do(world: World) -> None:
    from mcp_bus.stores.memory import MemoryStore

    store = MemoryStore(source=world.source)
    assert store.guarded("work") == (False, (), None)
    store.declare("work", Policy())
    assert store.guarded("work") == (False, (), None)


def test_what_is_older_than_the_end_of_an_inbox_s_signatures_is_not_believed_at_that_of_a_session_either(
    world: World,
) -> None:
    bus, own = world.bus(), "@planner~0000aaaa"
    bus.create_channel("@planner", signed=True)
    old = world.forged("worker")[0]
    world.source.advance(1)
    switch.off(bus.store, "@planner")
    store = world.bus().store
    assert isinstance(store, FileStore)
    assert not (world.root / "channels" / own).exists(), "nobody can say that it ever had rules of its own"
    assert store.seals.needs(own, old)
    assert not store.seals.needs(own, world.forged("worker")[0])


def test_a_program_without_keys_takes_nothing_at_the_inbox_of_a_session_whose_agent_s_is_signed(world: World) -> None:
    own = "@planner~0000aaaa"
    world.bus().create_channel("@planner", signed=True)
    world.bus().store.declare(own, INBOX)
    body = world.bus("worker").get(world.bus("worker").post(CHANNEL, "x").id).body
    store = FileStore(world.root, source=world.source, durable=False)
    assert store.policy(own).signed
    with pytest.raises(Untrusted, match="without keys"):
        store.add(body._replace(id=world.forged()[0], channel=own))
    store.close()
