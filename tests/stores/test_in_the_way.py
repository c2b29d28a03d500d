"""What lies where something of ours belongs stops what depends on it, and nothing else."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from mcp_bus.model import State, day_of
from mcp_bus.recovery import Tender, sweep
from mcp_bus.stores.file import FileStore
from tests.fakes import VirtualSource, bus_on
from tests.stores.test_file_hostile import claimed, fifo, only_posix, put_aside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mcp_bus import Bus


@pytest.fixture
def bus(root: Path, clock: VirtualSource) -> Iterator[Bus]:
    store = FileStore(root, source=clock)
    yield bus_on(store, clock)
    store.close()


def folders(*paths: Path) -> None:
    for path in paths:
        (path / "inside").mkdir(parents=True)


def file_for(folder: Path) -> None:
    """Put a file where a folder belongs."""
    if folder.is_dir():
        folder.rmdir()
    folder.write_text("")


def rejected_and_staged(root: Path) -> None:
    folders(root / "rejected" / "x")
    (root / "staged" / "x").write_text("{")


def quarantine(root: Path) -> None:
    file_for(root / "quarantine")
    (root / "channels" / "work" / "requests" / "strange").write_text("")


def rejected(root: Path) -> None:
    file_for(root / "rejected")
    (root / "staged" / "strange").write_text("")


def tombstones(root: Path) -> None:
    folders(root / "tombstones" / f"{day_of(time.time_ns() // 1_000_000)}.txt")


IN_THE_WAY: dict[str, Callable[[Path], None]] = {
    "folders of one name among the staged and the rejected": lambda root: folders(
        root / "staged" / "x", root / "rejected" / "x"
    ),
    "a folder where a result is rejected to": rejected_and_staged,
    "a file for the quarantine": quarantine,
    "a file for the rejected": rejected,
    "a symlink for the boots": lambda root: (root / "boots").symlink_to(root / "tasks"),
    "a folder for the manifest": lambda root: folders(root / "manifest.json"),
    "a file for the keys": lambda root: file_for(root / "keys"),
    "a folder where the tombstones of a day are": tombstones,
    "a file for the sessions": lambda root: file_for(root / "agents"),
}


def file(path: Path) -> None:
    path.write_text("x")


def symlink(path: Path) -> None:
    path.symlink_to("/tmp")


@only_posix
@pytest.mark.parametrize("what", IN_THE_WAY)
def test_whatever_is_in_the_way_of_one_thing_due_tasks_and_lapsed_leases_come_back(
    bus: Bus, root: Path, clock: VirtualSource, what: str
) -> None:
    bus.create_channel("work", retention_days=1, backoff_s=0)
    bus.cancel(bus.post("work", "old").id)
    bus.post("work", "lapses")
    assert claimed(bus, clock) is not None
    bus.post("work", "comes due", delay_s=30)
    IN_THE_WAY[what](root)
    clock.advance(3 * 86_400)
    tender = Tender()
    tender(bus)
    ready = [bus.store.get(slot.id, at=slot) for slot in bus.store.scan("work", State.READY)]
    assert {task.body.content for task in ready if task} == {"lapses", "comes due"}


@only_posix
def test_what_is_in_the_way_of_one_thing_that_is_mended_keeps_no_other_from_being_mended(
    bus: Bus, root: Path, clock: VirtualSource
) -> None:
    bus.create_channel("work")
    rejected(root)
    for name in ("strange", "stranger"):
        (root / "channels" / "work" / "requests" / name).write_text("")
    clock.advance(3600)
    done = sweep(bus)
    assert [line for line in done if "something else is in its place" in line]
    assert sorted(put_aside(root)) == [f"channels/work/requests/{name}" for name in ("strange", "stranger")]


@only_posix
@pytest.mark.parametrize("how", [file, symlink, fifo])
def test_something_else_in_place_of_a_tasks_history_does_not_keep_its_lease_from_lapsing(
    bus: Bus, root: Path, clock: VirtualSource, how: Callable[[Path], None]
) -> None:
    bus.create_channel("work", backoff_s=0)
    posted = bus.post("work", "x")
    assert claimed(bus, clock) is not None
    how(root / "channels" / "work" / "attempts" / posted.id)
    clock.advance(3600)
    sweep(bus)
    assert bus.get(posted.id).state is State.READY
    assert [line.outcome for line in bus.get(posted.id).history] == ["lapsed"]
    assert list(put_aside(root)) == [f"channels/work/attempts/{posted.id}"]
