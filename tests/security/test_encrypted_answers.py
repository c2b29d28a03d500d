"""P20: an answer quotes what it answers, and is encrypted as that is, whichever verb posts it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import pytest

from mcp_bus.cli import abq
from mcp_bus.errors import NoKey, NotAllowed, Unverified
from tests.security.conftest import CHANNEL

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus.bus import Bus
    from tests.security.conftest import World

SECRET = "swordfish"  # noqa: S105  what the tests look for, and nobody's password
PLACE = "pub"


def by_post(bus: Bus, i: str) -> str:
    return bus.post(PLACE, SECRET, reply_to=i).id


def by_abq(bus: Bus, i: str) -> str:
    made = abq._post(bus, argparse.Namespace(type="task", reply_to=i, ttl=0), PLACE, SECRET)
    return made.id


def by_send(bus: Bus, i: str) -> str:
    return bus.mail.send(f"#{PLACE}", SECRET, reply_to=i).id


ways = pytest.mark.parametrize("way", [by_post, by_abq, by_send])


@pytest.fixture
def asked(world: World) -> str:
    """A letter of the planner's that the worker alone can read."""
    bus = world.bus()
    bus.create_channel(PLACE)
    return bus.mail.send("@worker", "what is it?", encrypt_to=["worker"]).id


@ways
def test_an_answer_on_a_queue_is_encrypted_to_those_who_could_read_what_it_answers(
    world: World, asked: str, way: Callable[[Bus, str], str]
) -> None:
    i = way(world.bus("worker"), asked)
    assert world.holds(SECRET) == []
    assert world.bus("other").get(i).hidden == "encrypted to 'planner', 'worker'; this agent has no key for it"
    task = world.bus("planner").claim([PLACE]) or pytest.fail("nothing to claim")
    assert (task.id, task.body.content) == (i, SECRET)


@ways
def test_who_cannot_read_a_message_answers_it_nowhere(world: World, asked: str, way: Callable[[Bus, str], str]) -> None:
    before = world.bus().store.ids()
    with pytest.raises(NotAllowed, match="cannot be answered by who cannot read it"):
        way(world.bus("other"), asked)
    assert world.bus().store.ids() == before


@ways
def test_without_a_key_for_who_asked_nothing_is_posted(
    world: World, asked: str, way: Callable[[Bus, str], str]
) -> None:
    world.source.advance(1)
    for key in world.guard().own("planner"):
        world.guard().trust.revoke(key.kid, world.source.now(), before=world.source.now())
    before = world.bus().store.ids()
    with pytest.raises(NoKey, match="no key of 'planner'"):
        way(world.bus("worker"), asked)
    assert world.bus().store.ids() == before


@pytest.mark.parametrize("way", [by_post, by_abq])
def test_what_was_encrypted_and_is_gone_is_not_answered(
    world: World, asked: str, way: Callable[[Bus, str], str]
) -> None:
    for path in (*world.root.glob(f"channels/*/requests/{asked}.json"), world.paths(asked).identity):
        path.unlink()
    with pytest.raises(NotAllowed, match="was encrypted and is gone"):
        way(world.bus("worker"), asked)
    assert world.bus().store.ids() == []


def test_readers_who_are_named_and_the_rule_of_a_channel_go_before(world: World, asked: str) -> None:
    world.key("auditor")
    worker = world.bus("worker")
    worker.create_channel("safe", encrypt_to=["auditor"])
    named = worker.post(PLACE, SECRET, reply_to=asked, encrypt_to=["auditor"]).id
    ruled = worker.post("safe", SECRET, reply_to=asked).id
    assert [world.bus("auditor").get(i).body.content for i in (named, ruled)] == [SECRET, SECRET]
    assert [bool(world.bus("planner").get(i).hidden) for i in (named, ruled)] == [True, True]
    assert world.holds(SECRET) == []


@pytest.mark.parametrize("other", ["msg-17 of another bus", "req_0123456789abcdef", "x"])
def test_an_answer_to_what_is_elsewhere_or_was_plain_is_plain(world: World, asked: str, other: str) -> None:
    bus = world.bus("worker")
    plain = bus.post(PLACE, "hello").id
    for name in (other, plain):
        i = bus.post(PLACE, "plain text", reply_to=name).id
        assert (bus.get(i).body.encrypted, bus.get(i).body.reply_to) == (None, name)
    assert asked
    assert world.holds("plain text") != []


def test_an_answer_to_what_was_altered_is_refused(world: World) -> None:
    i = world.bus().post(CHANNEL, "honest").id
    path = world.paths(i).body
    path.write_bytes(path.read_bytes().replace(b"honest", b"forged"))
    with pytest.raises(Unverified, match="was altered"):
        by_post(world.bus("worker"), i)
