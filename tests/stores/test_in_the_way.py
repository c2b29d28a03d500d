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
def clock() -> VirtualSource:
    """A clock that starts at the file system's time, as settling is told from the age of files."""
    return VirtualSource(time.time_ns() // 1_000_000)


@pytest.fixture
def bus(root: Path, clock: VirtualSource) -> Iterator[Bus]:
    store = FileStore(root, source=clock)
    yield bus_on(store, clock)
    store.close()


IN_THE_WAY: dict[str, Callable[[Path], object]] = {
    "folders of one name among the staged and the rejected": lambda root: [
        (root / part / "x" / "y").mkdir(parents=True) for part in ("staged", "rejected")
    ],
    "a folder where a result is rejected to": lambda root: (
        (root / "rejected" / "x").mkdir(parents=True),
        (root / "staged" / "x").write_text("{"),
    ),
    "a file for the quarantine": lambda root: (
        (root / "quarantine").rmdir(),
        (root / "quarantine").write_text(""),
        (root / "channels" / "work" / "requests" / "strange").write_text(""),
    ),
    "a file for the rejected": lambda root: (
        (root / "rejected").rmdir(),
        (root / "rejected").write_text(""),
        (root / "staged" / "strange").write_text(""),
    ),
    "a symlink for the boots": lambda root: (root / "boots").symlink_to(root / "tasks"),
    "a folder for the manifest": lambda root: (root / "manifest.json" / "x").mkdir(parents=True),
    "a file for the keys": lambda root: ((root / "keys").rmdir(), (root / "keys").write_text("")),
    "a folder where the tombstones of a day are": lambda root: [
        (root / "tombstones" / f"{day_of(time.time_ns() // 1_000_000)}.txt" / "x").mkdir(parents=True)
    ],
    "a file for the sessions": lambda root: ((root / "agents").rmdir(), (root / "agents").write_text("")),
}


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
@pytest.mark.parametrize(
    "how", [lambda p: p.write_text("x"), lambda p: p.symlink_to("/tmp"), fifo], ids=["file", "symlink", "fifo"]
)
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
