"""On a signed channel a message counts in its own place, until it has expired, and once."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from mcp_bus import lifecycle, names
from mcp_bus.errors import IllegalTransition, Untrusted
from mcp_bus.find import short
from mcp_bus.hooks import telling
from mcp_bus.hooks.forms import START, Event
from mcp_bus.model import Lease, State
from mcp_bus.recovery import sweep
from mcp_bus.stores import layout
from mcp_bus.stores.base import Claim
from tests.security.conftest import CHANNEL, World, other_home, refused

if TYPE_CHECKING:
    from pathlib import Path

DAY_S = 86_400.0
STARTED = Event(START, "context")


# --- moved and replayed ----------------------------------------------------------------------------------


def test_signatures_of_two_messages_cannot_be_swapped(world: World) -> None:
    one, two = (world.paths(world.bus().post(CHANNEL, text).id).seal for text in ("a", "b"))
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    refused(world, "signed for the id")
    assert len(world.reasons()) == 2


def test_a_message_cannot_be_moved_to_another_channel(world: World) -> None:
    world.bus().create_channel("other", signed=True)
    i = world.bus().post(CHANNEL, "drop the table").id
    here, data, seal = world.paths(i), world.paths(i).body.read_bytes(), world.paths(i).seal.read_bytes()
    here.body.unlink()
    world.place(i, data, seal, "other")  # As it is: its own `to` gives it away.
    assert world.work(channel="other") == []
    world.place(i, data.replace(b'"deploy"', b'"other"'), seal, "other")
    assert world.work(channel="other") == []
    assert any("signed for the channel 'deploy'" in reason for reason in world.reasons())
    refused(world, "")


def test_a_message_cannot_be_moved_to_another_bus(world: World, disk: Path) -> None:
    layout.create(disk / "second", source=world.source)
    second = World(disk / "second", world.home, world.source)
    second.bus().create_channel(CHANNEL, signed=True)
    second.bus().post(CHANNEL, "own")
    i = world.bus().post(CHANNEL, "x").id
    second.place(i, world.paths(i).body.read_bytes(), world.paths(i).seal.read_bytes())
    assert second.work() == ["own"]
    assert any("signed for the bus" in reason for reason in second.reasons())
    second.close()


def test_a_bus_that_takes_the_name_of_another_is_not_believed(world: World, disk: Path) -> None:
    layout.create(disk / "second", source=world.source)
    second = World(disk / "second", world.home, world.source)
    second.bus().create_channel(CHANNEL, signed=True)
    i = world.bus().post(CHANNEL, "x").id
    second.place(i, world.paths(i).body.read_bytes(), world.paths(i).seal.read_bytes())
    shutil.copy(world.root / "bus.json", second.root / "bus.json")
    with pytest.raises(Untrusted, match=r"bus\.json"):
        second.work()
    assert second.paths(i).body.exists(), "nothing is thrown away because of that"
    second.close()


def test_a_copy_of_a_bus_is_not_the_bus(world: World, disk: Path) -> None:
    world.bus().post(CHANNEL, "once")
    shutil.copytree(world.root, disk / "copy")
    copy = World(disk / "copy", world.home, world.source)
    with pytest.raises(Untrusted, match="copy"):
        copy.work()
    copy.guard().trust.here()
    assert copy.work() == ["once"], "a person may say that it is the bus now"
    copy.close()


@pytest.mark.parametrize("how", ["link", "copy"])
def test_a_task_that_was_done_is_not_done_again(world: World, how: str) -> None:
    i = world.bus().post(CHANNEL, "pay").id
    to = world.paths(i)
    assert world.work() == ["pay"]
    archived = next((world.root / "channels" / CHANNEL / "archive").glob(f"*/{i}*"))
    if how == "link":
        os.link(archived, to.body)
    else:
        data = archived.read_bytes()
        archived.unlink()
        world.place(i, data, None)
    (world.root / "channels" / CHANNEL / "responses" / f"{i}.json").unlink()
    refused(world, "shown again")


def test_a_task_that_was_done_by_a_worker_elsewhere_is_not_done_again(world: World, disk: Path) -> None:
    i = world.bus().post(CHANNEL, "pay").id
    data, seal = world.paths(i).body.read_bytes(), world.paths(i).seal.read_bytes()
    assert world.work() == ["pay"]
    other = other_home(world, disk)
    world.place(i, data, seal)
    refused(world, "was done before", home=other)


# Not with both: a user who never saw it cannot know, as docs/signing.md says.
@pytest.mark.parametrize(("elsewhere", "is_forgotten"), [(False, False), (False, True), (True, False)])
def test_a_task_that_was_pruned_does_not_come_back(
    world: World,
    disk: Path,
    *,
    elsewhere: bool,
    is_forgotten: bool,
) -> None:
    i = world.bus().post(CHANNEL, "pay").id
    data, seal = world.paths(i).body.read_bytes(), world.paths(i).seal.read_bytes()
    assert world.work() == ["pay"]
    world.source.advance(20 * DAY_S)
    sweep(world.bus())
    assert not world.paths(i).identity.exists()
    if is_forgotten:
        shutil.rmtree(world.root / "tombstones")
    world.place(i, data, seal)
    refused(world, "shown again", home=other_home(world, disk) if elsewhere else None)


def test_the_same_bytes_under_another_id_are_refused(world: World) -> None:
    i = world.bus().post(CHANNEL, "pay").id
    data, seal = world.paths(i).body.read_bytes(), world.paths(i).seal.read_bytes()
    other, _ = world.forged()
    world.place(other, data, seal)
    assert world.work() == ["pay"]
    world.paths(other).body.unlink(missing_ok=True)
    third, _ = world.forged()
    world.place(third, data.replace(i.encode(), third.encode()), seal)
    refused(world, "signed for the id")


def test_a_body_is_no_result_and_a_result_no_body(world: World) -> None:
    i = world.bus().post(CHANNEL, "x").id
    guard = world.guard()
    data = world.paths(i).body.read_bytes()
    seal = guard.seal(Claim("result", i, CHANNEL, CHANNEL, "planner", world.source.now()), data)
    world.paths(i).seal.write_bytes(seal)
    refused(world, "signed for the use 'result'")


def test_an_expired_message_is_not_handed_out_whatever_its_name_says(world: World) -> None:
    i = world.bus().post(CHANNEL, "x", ttl_s=60).id
    named = next((world.root / "channels" / CHANNEL / "requests").glob(f"{i}*"))
    named.rename(world.paths(i).body)  # Without the mark that says when it expires.
    world.source.advance(61)
    refused(world, "good until")


def test_a_message_without_an_end_is_not_good_for_ever(world: World) -> None:
    world.bus().post(CHANNEL, "x")
    world.source.advance(367 * DAY_S)
    refused(world, "good until")


def test_what_has_expired_is_not_retried_but_posted_anew(world: World) -> None:
    bus = world.bus()
    i = bus.post(CHANNEL, "x", ttl_s=60).id
    world.source.advance(61)
    sweep(bus)
    with pytest.raises(IllegalTransition, match="signature"):
        bus.retry(i)


@pytest.mark.parametrize("channel", [CHANNEL, "@worker"])
def test_what_has_expired_is_not_shown_as_held_or_offered_by_whoever_renames_it(world: World, channel: str) -> None:
    bus, worker = world.bus(), world.bus("worker")
    box = names.inbox("worker") if channel == "@worker" else channel
    if channel == "@worker":
        bus.create_channel(channel, signed=True)
        task = bus.mail.send(channel, "old order", ttl_s=60).id
    else:
        task = bus.post(channel, "old order", ttl_s=60).id
    (slot,) = bus.store.scan(box, State.READY)
    held = lifecycle.claim(slot, Lease(worker.identity.holder, "abcdef012345", world.source.now() + 10**9))
    here, there = names.place(slot), names.place(held)
    folder = world.root / "channels" / box
    (folder / here.folder / here.name).rename(folder / there.folder / there.name)
    shown = [item.body.id for item in worker.mail.unacked()]
    told = telling.speak(worker, STARTED, "one", session="", remembers=True)
    assert (shown == [task], "abcdef012345" in told) == (channel == "@worker", channel == CHANNEL), "while it holds"
    world.source.advance(61_000)
    assert worker.mail.unacked() == []
    told = telling.speak(worker, STARTED, "two", session="", remembers=True)
    assert (short(task) in told, "abcdef012345" in told) == (False, False)


def test_undo_brings_back_no_more_than_retry(world: World) -> None:
    bus = world.bus()
    expired, forged = bus.post(CHANNEL, "a", ttl_s=60).id, bus.post(CHANNEL, "b").id
    for task in (expired, forged):
        bus.cancel(task)
    world.source.advance(61_000)
    world.paths(forged).seal.unlink()
    for task in (expired, forged):
        for verb in (bus.undo, bus.retry):
            with pytest.raises(IllegalTransition, match=r"its ttl has passed|it is not signed"):
                verb(task)
        assert bus.get(task).state is State.CANCELLED
