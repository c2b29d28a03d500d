"""The journal: for people, bounded, and never a reason to fail."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from mcp_bus import open_bus, sweep
from mcp_bus.errors import CorruptRecord
from mcp_bus.model import DAY, day_of

if TYPE_CHECKING:
    from pathlib import Path


def test_it_tells_of_each_move_in_the_order_they_began(tmp_path: Path) -> None:
    with open_bus(tmp_path / "bus", agent="someone") as bus:
        task_id = bus.post("work", "x").id
        task = bus.claim(["work"])
        assert task is not None
        bus.ack(task, "done")
    [file] = (tmp_path / "bus" / "journal").iterdir()
    told = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert [(line["id"], line["from"], line["to"]) for line in told] == [
        (task_id, "", "ready"),
        (task_id, "ready", "leased"),
        (task_id, "leased", "done"),
    ]
    assert [line["at"] for line in told] == sorted(line["at"] for line in told)


def test_what_is_over_a_month_old_is_removed_and_nothing_younger(tmp_path: Path) -> None:
    with open_bus(tmp_path / "bus") as bus:
        journal, now = tmp_path / "bus" / "journal", bus.source.now()
        old, young = (f"host-{day_of(now - days * DAY)}.jsonl" for days in (31, 30))
        for name in (old, young, "notes.txt"):
            (journal / name).write_text("{}\n", encoding="utf-8")
        assert sweep(bus) == [f"removed the journal {old}"]
        assert sorted(path.name for path in journal.iterdir()) == sorted([young, "notes.txt"])


@pytest.mark.parametrize("trap", ["a hard link", "a symlink", "a FIFO"])
def test_nothing_is_appended_to_what_may_lie_outside_the_bus(tmp_path: Path, trap: str) -> None:
    outside, bus_root = tmp_path / "outside", tmp_path / "bus"
    outside.write_text("one line\n", encoding="utf-8")

    def lay(path: Path) -> None:
        if trap == "a FIFO":
            os.mkfifo(path)
        elif trap == "a symlink":
            path.symlink_to(outside)
        else:
            path.hardlink_to(outside)

    with open_bus(bus_root, agent="someone") as bus:
        bus.create_channel("work", retention_days=1)
        posted = bus.post("work", "x")
        (journal,) = (bus_root / "journal").iterdir()
        journal.unlink()
        lay(journal)
        lay(bus_root / "tombstones" / f"{day_of(bus.source.now())}.txt")
    with open_bus(bus_root, agent="someone") as bus:
        bus.cancel(posted.id)
        with pytest.raises(CorruptRecord, match="nothing is appended"):
            bus.store.swap(bus.get(posted.id).slot, None)
    assert outside.read_text(encoding="utf-8") == "one line\n"
