"""A wait ends soon after another process did something, and two processes may sweep at once."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mcp_bus import Bus, find, sweep, wait_for
from mcp_bus.clock import System
from mcp_bus.model import State
from mcp_bus.stores.file import FileStore
from tests.fakes import who

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mcp_bus import Task
    from mcp_bus.find import Ending

# Seconds that nothing here comes near unless it is broken.
ENOUGH = 20.0
CHILD = """
import sys
from pathlib import Path
from mcp_bus import Bus, sweep
from mcp_bus.clock import System
from mcp_bus.stores.file import FileStore
from tests.fakes import who
source = System()
bus = Bus(FileStore(Path(sys.argv[1]), source=source), who("child"), source)
print("ready", flush=True)
for line in sys.stdin:
    verb, _, words = line.strip().partition(" ")
    if verb == "post":
        print(bus.post("work", words).id, flush=True)
    elif verb == "answer":
        task = bus.claim(["work"])
        print(bus.ack(task, words).id, flush=True)
    elif verb == "sweep":
        print(len([done for done in sweep(bus) if "due" in done]), flush=True)
"""


class Child:
    """Another process on the same bus that does what it is told."""

    def __init__(self, root: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-B", "-c", CHILD, str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert self.answer() == "ready"

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        assert self.process.stdout is not None
        watchdog = threading.Timer(ENOUGH, self.process.kill)
        watchdog.start()
        try:
            return self.process.stdout.readline().strip()
        finally:
            watchdog.cancel()

    def close(self) -> None:
        self.process.communicate(timeout=ENOUGH)


@pytest.fixture
def bus(root: Path) -> Iterator[Bus]:
    source = System()
    with Bus(FileStore(root, source=source), who("ann"), source) as made:
        made.create_channel("work")
        yield made


@pytest.fixture
def child(bus: Bus, root: Path) -> Iterator[Child]:
    assert bus.store.channels() == ["work"]
    made = Child(root)
    yield made
    made.close()


def test_a_worker_that_waits_gets_what_another_process_posts(bus: Bus, child: Child) -> None:
    looks: list[float] = []

    def look() -> Task | None:
        looks.append(bus.source.monotonic())
        if len(looks) == 1:
            child.tell("post from afar")
        return bus.claim(["work"])

    task = wait_for(bus, look, channels=["work"], timeout_s=ENOUGH)
    assert task is not None
    assert child.answer() == task.id
    assert looks[-1] - looks[0] < ENOUGH / 2
    assert len(looks) < 50, "it was told; it did not spin"


def test_a_poster_that_waits_gets_the_result(bus: Bus, child: Child) -> None:
    posted = bus.post("work", "a").id
    child.tell("answer forty-two")

    def look() -> Ending | None:
        ending = find.ending(bus, posted)
        return ending if ending.is_over else None

    ending = wait_for(bus, look, channels=["work"], timeout_s=ENOUGH)
    assert ending is not None
    assert ending.task is not None
    assert ending.task.result is not None
    assert ending.task.result.content == "forty-two"
    assert child.answer() == posted


def test_a_channel_that_did_not_exist_can_be_waited_for(bus: Bus, child: Child) -> None:
    looks: list[int] = []

    def look() -> object:
        looks.append(1)
        if len(looks) == 1:
            child.tell("post first")
        return bus.claim()

    assert wait_for(bus, look, timeout_s=ENOUGH) is not None
    assert child.answer()


@pytest.mark.parametrize("timeout_s", [0.0, 0.05])
def test_a_wait_for_nothing_ends_on_time(bus: Bus, timeout_s: float) -> None:
    start = bus.source.monotonic()
    assert wait_for(bus, lambda: bus.claim(["work"]), channels=["work"], timeout_s=timeout_s) is None
    assert timeout_s <= bus.source.monotonic() - start < ENOUGH / 2


def test_two_processes_that_sweep_at_once_do_each_thing_once(bus: Bus, child: Child) -> None:
    for number in range(200):
        bus.post("work", str(number), delay_s=0.001)
    child.tell("sweep")
    mine = len([line for line in sweep(bus) if "due" in line])
    assert mine + int(child.answer()) == 200
    assert bus.store.count("work") == dict.fromkeys(State, 0) | {State.READY: 200}
    assert len(bus.store.ids()) == 200
