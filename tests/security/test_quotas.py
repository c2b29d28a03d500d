"""How much may wait: what is over a channel's rule is refused before it is written, and a repeat is no more."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING

import pytest

from mcp_bus import conductor, quotas
from mcp_bus.errors import Overloaded
from mcp_bus.model import State
from mcp_bus.stores.file import FileStore
from tests.fakes import bus_on

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus import Bus
    from mcp_bus.model import Body, Slot, Task
    from tests.fakes import VirtualSource

RACERS = 4


def test_a_post_over_the_rule_is_refused_with_how_many_wait_and_can_be_repeated_later(bus: Bus) -> None:
    bus.create_channel("work", max_waiting=2)
    bus.post("work", "a")
    bus.post("work", "b", delay_s=60)
    with pytest.raises(Overloaded, match="2 tasks wait on 'work'") as error:
        bus.post("work", "c")
    assert error.value.retryable
    assert error.value.hint
    assert len(bus.store.ids()) == 2
    assert bus.claim(["work"]) is not None
    bus.post("work", "c")


def test_a_repeated_post_is_not_refused_and_a_new_key_is(bus: Bus) -> None:
    bus.create_channel("work", max_waiting=1)
    first = bus.post("work", "a", key="k")
    again = bus.post("work", "a", key="k")
    assert (again.id, again.created) == (first.id, False)
    with pytest.raises(Overloaded):
        bus.post("work", "a", key="l")
    assert not bus.store.has_key("l")


def test_of_one_sender_as_many_as_the_rule_says(bus: Bus, other: Bus) -> None:
    bus.create_channel("work", max_waiting_by_sender=2)
    for _ in range(2):
        bus.post("work", "a")
    other.post("work", "b")
    with pytest.raises(Overloaded, match="2 tasks of 'ann'"):
        bus.post("work", "c")
    other.post("work", "d")
    assert bus.claim(["work"]) is not None
    bus.post("work", "c")


def test_senders_are_looked_for_in_a_bounded_number_of_bodies_each_read_once(
    bus: Bus, other: Bus, source: VirtualSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quotas, "LOOKED", 5)
    bus.create_channel("work", max_waiting_by_sender=3)
    for _ in range(3):
        bus.post("work", "a")
    source.advance(1)  # Ids of one millisecond, of two makers, are in no order.
    read = list[str]()
    get = other.store.get

    def counted(task_id: str, at: Slot | None = None) -> Task | None:
        read.append(task_id)
        return get(task_id, at)

    monkeypatch.setattr(other.store, "get", counted)
    for _ in range(3):
        other.post("work", "b")
    with pytest.raises(Overloaded):
        other.post("work", "b")
    assert len(read) == len(set(read)) <= 6


def test_without_a_rule_nothing_is_listed(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    bus.create_channel("work")
    monkeypatch.setattr(bus.store, "scan", lambda *_, **__: pytest.fail("it was listed"))
    bus.post("work", "a")


def test_no_child_is_noted_of_what_was_refused(bus: Bus) -> None:
    bus.post("up", "a")
    parent = bus.claim(["up"]) or pytest.fail("nothing to claim")
    bus.create_channel("work", max_waiting=1)
    bus.post("work", "x")
    with pytest.raises(Overloaded):
        bus.post("work", "y", parent=parent.id)
    assert bus.store.records.read("children", parent.id) is None
    bus.ack(parent)


def test_messages_to_a_channel_count_and_steps_of_plans_are_not_refused(bus: Bus) -> None:
    bus.create_channel("work", max_waiting=1)
    bus.post("work", "x")
    with pytest.raises(Overloaded):
        bus.mail.send("work", "y")
    conductor.post(bus, {"goal": "g", "steps": [{"name": "a", "channel": "work", "body": "x"}]})
    assert bus.store.count("work")[State.READY] == 2


def test_racing_posters_overshoot_by_one_each_at_most(
    root: Path, source: VirtualSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _opened(root, source) as first:
        first.create_channel("work", max_waiting=3)
        first.post("work", "a")
        first.post("work", "b")
    barrier, add = Barrier(RACERS), FileStore.add

    def together(self: FileStore, body: Body) -> Body:
        barrier.wait(timeout=30)  # All have counted, and none has written.
        return add(self, body)

    monkeypatch.setattr(FileStore, "add", together)

    def race(number: int) -> None:
        with _opened(root, source, f"racer{number}") as bus:
            bus.post("work", "x")

    with ThreadPoolExecutor(RACERS) as pool:
        list(pool.map(race, range(RACERS)))
    monkeypatch.undo()
    with _opened(root, source) as last:
        assert last.store.count("work")[State.READY] == 2 + RACERS
        with pytest.raises(Overloaded):
            last.post("work", "y")


def _opened(root: Path, source: VirtualSource, agent: str = "ann") -> Bus:
    return bus_on(FileStore(root, source=source, durable=False), source, agent)
