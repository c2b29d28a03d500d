"""P20: what a key signed that one home does not know is left to those who know it, and keeps nobody from the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_bus import find, mail, passed
from mcp_bus.errors import NoKey, UnknownKey
from mcp_bus.model import State
from mcp_bus.server import letters
from mcp_bus.server.words import ALL_WAYS
from tests.fakes import swept
from tests.security.conftest import CHANNEL, refused, signed_by

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus.bus import Bus
    from tests.security.conftest import World

WHY = "nobody here trusts to be 'planner'"


@pytest.fixture
def stranger(disk: Path) -> Path:
    """A home that trusts nobody."""
    return disk / "stranger"


def junk(world: World, home: Path, count: int, channel: str = CHANNEL) -> None:
    """Plant messages of an unknown key that are claimed before all others."""
    for _ in range(count):
        i, data = world.forged(channel=channel)
        to = {"channel": channel, "to": channel}
        world.place(i, data, signed_by(world, home, "planner", i, data, **to), channel)
        body = world.paths(i, channel).body
        body.rename(body.with_name(f"{i}.p9.json"))


def looks(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows with each look at a message."""
    seen, get = list[str](), bus.store.get

    def looked(task_id: str, at: object = None, **more: object) -> object:
        seen.append(task_id)
        return get(task_id, at, **more)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(bus.store, "get", looked)
    return seen


def test_a_home_that_knows_no_keys_takes_nothing_from_those_who_do(world: World, stranger: Path) -> None:
    i = world.bus().post(CHANNEL, "x").id
    other = world.bus("worker", home=stranger)
    assert other.claim([CHANNEL]) is None
    assert WHY in find.why_empty(other, [CHANNEL], ())
    with pytest.raises(UnknownKey):
        other.store.get(i, at=next(iter(other.store.scan(CHANNEL, State.READY))))
    world.source.advance(60)
    swept(other)
    assert world.reasons() == []
    assert world.work() == ["x"]


def test_nor_does_a_post_that_is_refused_there(world: World, stranger: Path) -> None:
    world.bus().create_channel(CHANNEL, max_waiting_by_sender=1)
    world.bus().post(CHANNEL, "x")
    with pytest.raises(NoKey):
        world.bus("other", home=stranger).post(CHANNEL, "y")
    assert world.reasons() == []
    assert world.work() == ["x"]


def test_an_inbox_and_a_topic_show_it_to_who_knows_the_key_and_count_it_as_read_for_nobody(
    world: World, stranger: Path
) -> None:
    other, bus = world.bus("worker", home=stranger), world.bus()
    bus.create_channel("@worker", signed=True)
    bus.create_channel("news", kind="topic", signed=True)
    other.mail.topics.subscribe("news")
    bus.mail.send("@worker", "a letter")
    bus.mail.send("#news", "some news")
    assert other.mail.read() == []
    assert other.mail.offered() == []
    assert WHY in other.mail.passed()
    assert WHY in letters.empty(other, [], 0, ALL_WAYS)
    assert other.mail.unread().messages == 0
    assert world.reasons() == []
    world.source.advance(60)
    assert [item.body.content for item in world.bus("worker").mail.read()] == ["a letter", "some news"]


def test_it_is_handed_out_as_soon_as_its_key_is_trusted(world: World, stranger: Path) -> None:
    world.bus().post(CHANNEL, "x")
    other = world.bus("worker", home=stranger)
    assert other.claim([CHANNEL]) is None
    guard = world.guard(stranger)
    guard.trust.pin("planner", world.guard().own("planner")[0].public, world.source.now())
    guard.make("worker")
    world.source.advance(passed.CLOSED_S + 1)
    assert (other.claim([CHANNEL]) or pytest.fail("nothing to claim")).body.content == "x"


def test_what_its_own_key_did_not_sign_is_wrong_for_everybody(world: World, disk: Path) -> None:
    i, data = world.forged()
    world.place(i, data, signed_by(world, disk / "evil", "planner", i, data + b" "))
    refused(world, "does not hold")


def test_junk_in_front_keeps_nobody_from_what_is_good_and_is_looked_at_once(
    world: World, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passed, "ROOM", 4)
    junk(world, disk / "evil", 30)
    for number in range(10):
        world.bus().post(CHANNEL, number)
    worker = world.bus("worker")
    seen = looks(worker, monkeypatch)
    got = list[str]()
    while (task := worker.claim([CHANNEL])) is not None:
        got.append(task.body.content)
        worker.ack(task, "done")
        world.source.advance(0.5)  # Each claim lists anew.
    assert sorted(got) == [str(number) for number in range(10)]
    assert len(seen) == 40
    assert world.reasons() == []
    world.source.advance(3600)
    for number in range(100):
        worker.passed.add(f"later {number}", "x")
    assert {name.split()[0] for name in worker.passed._until} == {"later"}


def test_junk_in_front_keeps_no_letter_from_its_reader(
    world: World, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail, "MAX_UNREAD", 5)
    world.bus().create_channel("@worker", signed=True)
    world.bus().mail.send("@worker", "a letter")
    junk(world, disk / "evil", 23, "@worker")
    worker = world.bus("worker")
    seen = looks(worker, monkeypatch)
    assert [item.body.content for item in worker.mail.read()] == ["a letter"]
    assert len(seen) <= 2 * 24
    assert worker.mail.read() == []
    assert world.reasons() == []


def test_who_has_no_key_to_sign_with_is_given_nothing_it_could_not_answer(world: World) -> None:
    i, plain = world.bus().post(CHANNEL, "x").id, world.bus().post("plain", "y").id
    idle = world.bus("visitor")
    task = idle.claim()
    assert task is not None
    assert task.id == plain
    assert idle.claim([CHANNEL]) is None
    assert "no key to sign a result with: `mcp-bus key new 'visitor'`" in find.why_empty(idle, [CHANNEL], ())
    assert idle.get(i).state is State.READY
    world.guard().make("visitor")
    assert world.bus("visitor").claim([CHANNEL]) is not None
