"""The journal: for people, bounded, and never a reason to fail."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from mcp_bus import open_bus, sweep
from mcp_bus.model import DAY

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


def test_what_is_a_month_old_is_removed_and_nothing_younger(tmp_path: Path) -> None:
    with open_bus(tmp_path / "bus") as bus:
        journal = tmp_path / "bus" / "journal"
        for name, days in (("old.jsonl", 31), ("young.jsonl", 29)):
            (journal / name).write_text("{}\n", encoding="utf-8")
            then = (bus.source.now() - days * DAY) / 1000
            os.utime(journal / name, (then, then))
        assert sweep(bus) == ["removed the journal old.jsonl"]
        assert [path.name for path in journal.iterdir()] == ["young.jsonl"]
