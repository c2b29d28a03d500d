"""Things that lie where nobody foresaw them must not stop who only wants to claim."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from mcp_bus import open_bus, wire
from mcp_bus.identity.process import boot_id
from mcp_bus.model import State, day_of
from mcp_bus.stores.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mcp_bus.bus import Bus


def _note_among_tasks(root: Path) -> None:
    (root / "tasks" / "notes.json").write_text("hi", encoding="utf-8")


def _folder_among_drafts(root: Path) -> None:
    (root / "tmp" / "folder").mkdir()
    os.utime(root / "tmp" / "folder", (0, 0))


def _folder_among_boots(root: Path) -> None:
    (root / "boots" / "folder").mkdir(parents=True)


def _manifest_is_a_folder(root: Path) -> None:
    (root / "manifest.json").unlink(missing_ok=True)
    (root / "manifest.json").mkdir()
    os.utime(root / "manifest.json", (0, 0))


def _day_is_a_file(root: Path) -> None:
    (root / "channels" / "work" / "archive" / "2026-01-01").write_text("", encoding="utf-8")


STRAYS = (_note_among_tasks, _folder_among_drafts, _folder_among_boots, _manifest_is_a_folder, _day_is_a_file)


@pytest.mark.parametrize("stray", STRAYS)
def test_a_stray_thing_does_not_stop_claims(tmp_path: Path, stray: Callable[[Path], None]) -> None:
    root = tmp_path / "bus"
    with open_bus(root) as bus:
        posted = bus.post("work", "x").id
    stray(root)
    (root / "boots" / f"boot-{boot_id()}").unlink(missing_ok=True)
    with open_bus(root) as bus:
        task = bus.claim(["work"])
        assert task is not None
        assert task.id == posted
        bus.ack(task, "done")
        result = bus.get(posted).result
        assert result is not None
        assert result.content == "done"
        assert bus.store.ids() == [posted]


def test_a_manifest_from_the_future_does_not_end_thorough_sweeps(tmp_path: Path) -> None:
    root = tmp_path / "bus"
    with open_bus(root) as bus:
        bus.post("work", "x")
        (root / "manifest.json").write_text("{}", encoding="utf-8")
        os.utime(root / "manifest.json", (9_000_000_000, 9_000_000_000))
        assert bus.claim(["work"]) is not None
        assert wire.loads((root / "manifest.json").read_bytes())["channels"]["work"]["ready"] == 1


@pytest.mark.parametrize("far", [-(10**18), 10**18])
def test_times_out_of_any_range_are_shown_as_the_nearest(far: int) -> None:
    assert wire.stamp(far)[:4] in ("1970", "9999")
    assert day_of(far)[:4] in ("0001", "9999")


def test_strangers_among_tasks_are_named_and_what_the_bus_keeps_there_is_none(tmp_path: Path) -> None:
    root = tmp_path / "bus"
    with open_bus(root) as bus:
        bus.post("work", "x", max_attempts=1)
        task = bus.claim(["work"])
        assert task is not None
        bus.nack(task, "dead, with a page that says why")
        bus.post("work", "y", delay_s=60)
        bus.post("work", "z")
        bus.claim(["work"])
        assert bus.store.strangers("work") == []
        for part in ("requests", "delayed", "processing", "dead"):
            (root / "channels/work" / part / "notes.txt").write_text("hi", encoding="utf-8")
        (root / "channels/work/requests/folder").mkdir()
        expected = [f"channels/work/{part}/notes.txt" for part in ("requests", "delayed", "processing", "dead")]
        assert sorted(bus.store.strangers("work")) == sorted([*expected, "channels/work/requests/folder"])


def test_a_task_is_found_also_when_it_is_not_where_it_was_a_moment_ago(open_bus_as: Callable[..., Bus]) -> None:
    bus = open_bus_as()
    posted = bus.post("work", "x").id
    (ready,) = bus.store.scan("work", State.READY)
    assert bus.store.get(posted, near=ready) == bus.store.get(posted)
    bus.claim(["work"])
    bus.post("work", "another")
    (another,) = bus.store.scan("work", State.READY)
    for near in (ready, ready._replace(channel="elsewhere"), another):
        task = bus.store.get(posted, near=near)
        assert task is not None
        assert (task.slot.id, task.state) == (posted, State.LEASED)


def test_a_task_that_is_where_it_was_is_not_searched_for(file_bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    posted = file_bus.post("work", "x").id
    file_bus.cancel(posted)
    (slot,) = file_bus.store.scan("work", State.CANCELLED)
    monkeypatch.setattr(Reader, "_listed", None)
    task = file_bus.store.get(posted, near=slot)
    assert task is not None
    assert task.slot == slot
