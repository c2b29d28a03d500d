"""A bus on a disk, tasks on it, and commands that do them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus import open_bus
from mcp_bus.workers.jobs import Job, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mcp_bus.bus import Bus
    from mcp_bus.model import Task
    from mcp_bus.workers.fates import Told


@pytest.fixture
def place(disk: Path) -> Path:
    """The bus directory."""
    return disk / "bus"


@pytest.fixture
def here(place: Path) -> Iterator[Bus]:
    """A bus as a worker sees it, with the machine's own clock."""
    with open_bus(place, agent="worker", session="1", durability="none") as bus:
        yield bus


class Work:
    """Runs Python code as the command of one task."""

    def __init__(self, bus: Bus, root: Path) -> None:
        self.bus = bus
        self.root = root
        self.told: Told | None = None

    def recipe(self, code: str, **more: Any) -> Recipe:
        environment = more.pop("environment", {})
        words = (sys.executable, "-c", code)
        return Recipe(words, self.root.parent, environment, **{"timeout_s": 30.0, "lease_s": 60.0, **more})

    def post(self, body: object = "do it", channel: str = "work", **options: Any) -> str:
        return self.bus.post(channel, body, **options).id

    def do(self, code: str, *, stop: str = "", **more: Any) -> Task:
        """Claim the next task, let the code do it, and return the task as it is then."""
        task = self.bus.claim(lease_s=60)
        assert task is not None
        self.told = Job(self.bus, task, self.recipe(code, **more), self.root).do(lambda: stop)
        return self.bus.get(task.id)


@pytest.fixture
def work(here: Bus, place: Path) -> Work:
    return Work(here, place)
