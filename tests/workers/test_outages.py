"""A command that has ended is not run again because the bus could not be reached at that moment."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus import open_bus
from mcp_bus.errors import StoreUnavailable
from mcp_bus.model import Result, State
from mcp_bus.stores.file import FileStore
from mcp_bus.workers import jobs, loop
from mcp_bus.workers.loop import Loop, Scope
from tests.workers.test_loop import SOON_S, Watched, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mcp_bus.model import Attempt, Body, Slot
    from mcp_bus.workers.fates import Told
    from tests.workers.conftest import Work

# Notes that it ran, and answers.
ANSWER = "open('ran', 'a').write('x'); print('finished')"


class Seen(Watched):
    """What a worker said it did, with what became of each task."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Told] = []

    def ended(self, body: Body, told: Told) -> None:
        super().ended(body, told)
        self.told.append(told)


class Disk:
    """A disk that takes no move of a kind while it is full."""

    def __init__(self) -> None:
        self.full: Callable[[Slot | None, Attempt | Result | None], bool] = lambda _new, _entry: False
        self.refused = 0


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made, real = Disk(), FileStore.swap

    def swap(self: FileStore, old: Slot, new: Slot | None, entry: Attempt | Result | None = None) -> None:
        if made.full(new, entry):
            made.refused += 1
            msg = "the disk is full"
            raise StoreUnavailable(msg)
        real(self, old, new, entry)

    monkeypatch.setattr(FileStore, "swap", swap)
    monkeypatch.setattr(jobs, "PULSE_S", 0.02)
    monkeypatch.setattr(loop, "TROUBLE_S", 0.01)
    monkeypatch.setattr(loop, "MOST_TROUBLE_S", 0.05)
    return made


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def begun(work: Work, place: Path, seen: Seen) -> Callable[..., tuple[Loop, threading.Thread]]:
    """Starts a worker that does one task."""

    def start(code: str, **recipe: Any) -> tuple[Loop, threading.Thread]:
        made = Loop(
            lambda: open_bus(place, create=False, agent="worker", session="2", durability="none"),
            place, work.recipe(code, **recipe), Scope(most=1), seen,
        )  # fmt: skip
        thread = threading.Thread(target=made.run)
        thread.start()
        return made, thread

    return start


def joined(thread: threading.Thread) -> None:
    thread.join(SOON_S)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    "end", [("", State.DONE, "done"), ("; exit(3)", State.SCHEDULED, "failed")], ids=["done", "failed"]
)
def test_what_a_command_left_is_submitted_again_until_the_bus_takes_it(
    work: Work, full: Disk, seen: Seen, begun: Callable[..., Any], end: tuple[str, State, str]
) -> None:
    code, state, fate = end
    task_id = work.post()
    full.full = lambda _new, entry: entry is not None
    made, thread = begun(ANSWER + code)
    until(lambda: full.refused > 3)
    full.full = lambda _new, _entry: False
    joined(thread)
    task = work.bus.get(task_id)
    assert (task.state, task.slot.attempt, made.fates) == (state, 1, {fate: 1})
    assert (work.root.parent / "ran").read_text() == "x"
    (said,) = seen.troubles
    assert said.startswith(f"the disk is full; {task_id[-8:]} is ")
    assert ("its result waits until the bus can be reached" in said) is (fate == "done")


def test_a_renewal_that_the_bus_does_not_take_ends_no_command(
    work: Work, full: Disk, seen: Seen, begun: Callable[..., Any]
) -> None:
    task_id = work.post()
    full.full = lambda new, entry: bool(seen.starts) and new is not None and entry is None
    waits = "while not os.path.exists('go') and time.monotonic() < end: pass\n"
    _, thread = begun(f"import os, time\nend = time.monotonic() + 30\n{waits}{ANSWER}", lease_s=1.0)
    until(lambda: full.refused > 0)
    (work.root.parent / "go").touch()
    joined(thread)
    assert [told.fate for told in seen.told] == ["done"]
    assert work.bus.get(task_id).state is State.DONE
    assert (work.root.parent / "ran").read_text() == "x"


def test_a_worker_that_is_to_end_meanwhile_says_where_the_result_is_kept(
    work: Work, full: Disk, seen: Seen, begun: Callable[..., Any]
) -> None:
    task_id = work.post()
    full.full = lambda _new, entry: entry is not None
    made, thread = begun(ANSWER)
    until(lambda: full.refused > 1)
    made.stop()
    until(lambda: len(seen.troubles) > 1)
    tried = full.refused
    until(lambda: full.refused > tried + 3 or not thread.is_alive())
    assert thread.is_alive(), "told once, it lets what it works on end"
    made.stop()
    joined(thread)
    (kept,) = (work.root / "runs").glob(f"{task_id}.a1.*/result")
    assert kept.read_text() == "finished"
    assert [(told.fate, told.why) for told in seen.told] == [
        ("untold", f"the disk is full; its result is kept in {kept}")
    ]
    assert work.bus.get(task_id).state is State.LEASED


def test_a_task_that_was_taken_away_meanwhile_is_told_as_lost(
    work: Work, full: Disk, seen: Seen, begun: Callable[..., Any]
) -> None:
    task_id = work.post()
    full.full = lambda _new, entry: isinstance(entry, Result)
    _, thread = begun(ANSWER)
    until(lambda: full.refused > 0)
    work.bus.requeue(task_id)
    full.full = lambda _new, _entry: False
    joined(thread)
    assert [told.fate for told in seen.told] == ["lost"]
    assert work.bus.get(task_id).state is State.READY
