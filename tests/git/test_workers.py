"""A worker on a bus at a git remote, while the remote is away."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

from mcp_bus.model import State
from mcp_bus.stores.git import shared
from mcp_bus.workers import loop
from mcp_bus.workers.jobs import Recipe
from mcp_bus.workers.loop import Loop, Scope
from tests.workers.test_loop import until
from tests.workers.test_outages import ANSWER, Seen, joined

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.git.hosts import Hosts


def test_a_remote_that_is_away_as_a_command_ends_has_its_result_when_it_is_back(
    hosts: Hosts, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "AGAIN_MS", 50)
    monkeypatch.setattr(loop, "TROUBLE_S", 0.05)
    task_id, seen = hosts.bus("two").post("work", "x").id, Seen()
    away, there = disk / "away.git", disk / "remote.git"
    words = (sys.executable, "-c", f"import os; os.rename({str(there)!r}, {str(away)!r}); {ANSWER}")
    made = Loop(lambda: hosts.bus("one"), disk / "one", Recipe(words, disk, {}), Scope(most=1), seen)
    thread = threading.Thread(target=made.run)
    thread.start()
    until(lambda: bool(seen.troubles))
    away.rename(there)
    joined(thread)
    found = hosts.bus("two").get(task_id)
    assert (found.state, found.result and found.result.content) == (State.DONE, "finished")
    assert (disk / "ran").read_text() == "x"
    assert len(seen.troubles) == 1
    assert "its result waits until the bus can be reached" in seen.troubles[0]
