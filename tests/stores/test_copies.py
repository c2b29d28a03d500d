"""A bus that was copied by a program which knows no hard links heals as it is used; nothing waits there for ever."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from mcp_bus.model import State, day_of
from mcp_bus.recovery import sweep
from mcp_bus.stores.file import FileStore
from tests.crash import auditor
from tests.fakes import VirtualSource, bus_on

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86_400


@pytest.fixture
def copied(root: Path, clock: VirtualSource) -> Path:
    """A bus with a task in each state, copied so that no two names share a file."""
    bus = bus_on(FileStore(root, source=clock), clock)
    bus.create_channel("work", backoff_s=0, retention_days=1)
    bus.cancel(bus.post("work", "cancelled").id)
    for end in ("done", "dead", "leased"):
        bus.post("work", end, max_attempts=1 + (end == "leased"), key=end)
        clock.refresh()
        task = bus.claim()
        assert task is not None
        if end == "done":
            bus.ack(task, "the answer")
        elif end == "dead":
            bus.nack(task, "no")
    bus.post("work", "ready", key="ready")
    bus.post("work", "scheduled", delay_s=60)
    bus.close()
    copy = root.parent / "copy"
    shutil.copytree(root, copy)
    assert {path.stat().st_nlink for path in copy.rglob("*.json")} == {1}
    shutil.rmtree(copy / "boots", ignore_errors=True)  # As on another machine.
    return copy


def test_what_waited_or_was_at_work_is_worked_on_in_the_copy_and_has_one_file_again(
    copied: Path, clock: VirtualSource
) -> None:
    bus = bus_on(FileStore(copied, source=clock), clock)
    clock.advance(3600)
    sweep(bus)
    worked = set[str]()
    while (task := bus.claim()) is not None:
        worked.add(task.body.content)
        bus.ack(task, "x")
    assert worked == {"leased", "ready", "scheduled"}
    assert list((copied / "quarantine").iterdir()) == []
    problems = [
        line for line in auditor.look(copied).problems if "a place that are not one" in line or "names, not" in line
    ]
    assert len(problems) == 3, "only of what had ended before the copy"


def test_a_key_of_the_copied_bus_is_still_the_same_task(copied: Path, clock: VirtualSource) -> None:
    bus = bus_on(FileStore(copied, source=clock), clock)
    first = bus.claim()
    assert first is not None
    again = bus.post("work", first.body.content, key=first.body.content)
    assert (again.id, again.created) == (first.id, False)


def test_results_and_dead_letters_of_the_copy_are_there_and_ended_tasks_are_pruned(
    copied: Path, clock: VirtualSource
) -> None:
    bus = bus_on(FileStore(copied, source=clock), clock)
    states = {task.body.content: task for task in map(bus.get, bus.store.ids())}
    result = states["done"].result
    assert result is not None
    assert result.content == "the answer"
    bus.retry(states["dead"].id)
    assert bus.get(states["dead"].id).state is State.READY
    clock.advance(3 * DAY)
    sweep(bus)
    assert {states["done"].id, states["cancelled"].id}.isdisjoint(bus.store.ids())


def test_a_planted_copy_of_a_finished_task_is_put_aside_and_not_worked_on_again(
    root: Path, clock: VirtualSource
) -> None:
    bus = bus_on(FileStore(root, source=clock), clock)
    posted = bus.post("work", "once")
    task = bus.claim()
    assert task is not None
    bus.ack(task, "x")
    planted = root / "channels" / "work" / "requests" / f"{posted.id}.json"
    shutil.copyfile(root / "tasks" / planted.name, planted)
    clock.advance(60)
    clock.refresh()
    assert bus.claim() is None
    assert not planted.exists()
    assert bus.get(posted.id).state is State.DONE


def test_one_who_comes_once_to_claim_puts_aside_what_has_settled_and_is_no_task(
    root: Path, clock: VirtualSource
) -> None:
    bus = bus_on(FileStore(root, source=clock), clock)
    posted = bus.post("work", "x")
    place = root / "channels" / "work" / "requests" / f"{posted.id}.json"
    place.unlink()
    place.write_text('{"torn')
    assert bus.claim() is None
    assert place.exists(), "it is young, and may still be written"
    clock.advance(60)
    fresh = bus_on(FileStore(root, source=clock), clock)
    assert fresh.claim() is None
    assert not place.exists()
    assert len(list((root / "quarantine").glob("*.reason.json"))) == 1


def test_a_folder_in_place_of_an_identity_is_put_aside_and_the_task_is_worked_on(
    root: Path, clock: VirtualSource
) -> None:
    bus = bus_on(FileStore(root, source=clock), clock)
    posted = bus.post("work", "x")
    identity = root / "tasks" / f"{posted.id}.json"
    identity.unlink()
    identity.mkdir()
    task = bus.claim()
    assert task is not None
    assert task.id == posted.id
    assert identity.is_file()


def test_a_done_task_is_shown_with_all_that_its_name_says(root: Path, clock: VirtualSource) -> None:
    bus = bus_on(FileStore(root, source=clock), clock)
    posted = bus.post("work", "x", max_attempts=1)
    for end in ("no", "yes"):
        clock.refresh()
        task = bus.claim()
        assert task is not None
        if end == "no":
            bus.nack(task, "no")
            bus.retry(posted.id)
            bus.reprioritise(posted.id, 5)
        else:
            bus.ack(task, "x")
    slot = bus.get(posted.id).slot
    assert (slot.state, slot.priority, slot.attempt, slot.budget) == (State.DONE, 5, 2, 2)
    assert slot.day == day_of(clock.now())


def test_a_bus_behind_a_symlink_is_made_and_used(root: Path, clock: VirtualSource) -> None:
    from mcp_bus.stores import layout

    home, link = root.parent / "home", root.parent / "link"
    home.mkdir()
    link.symlink_to(home)
    layout.create(link / "bus", source=clock)
    (root.parent / "alias").symlink_to(home / "bus")
    posted = bus_on(FileStore(root.parent / "alias", source=clock), clock).post("work", "x")
    assert bus_on(FileStore(home / "bus", source=clock), clock).get(posted.id).body.content == "x"


@pytest.mark.parametrize("gone", ["moved", "tasks"])
def test_nothing_is_posted_into_a_bus_that_is_gone(root: Path, clock: VirtualSource, gone: str) -> None:
    from mcp_bus.errors import StoreUnavailable

    bus = bus_on(FileStore(root, source=clock), clock)
    bus.post("work", "x")
    elsewhere = root.rename(root.parent / "elsewhere") if gone == "moved" else root
    if gone == "tasks":
        shutil.rmtree(root / "tasks")
    before = sorted(elsewhere.rglob("*.json"))
    with pytest.raises(StoreUnavailable, match="no bus"):
        bus.post("work", "y")
    assert sorted(elsewhere.rglob("*.json")) == before
    assert gone == "moved" or not (root / "tasks").exists()
