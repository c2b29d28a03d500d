"""A worker killed anywhere between its claim and its answer: who has a result has an output, at last."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_bus.model import State
from mcp_bus.recovery import sweep
from mcp_bus.stores import layout
from tests.crash import auditor
from tests.crash.victim import HOUR, Points, Steps, open_at

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus.stores.fsops import Fs

ANSWER = "two nits"


def started(root: Path) -> str:
    """Make a bus on which a task with an output is about to be done; return its id."""
    layout.create(root, fs=Steps())
    with open_at(root) as bus:
        bus.create_channel("work", outputs=True)
        return bus.post("work", "x").id


def works(root: Path, fs: Fs) -> None:
    with open_at(root, fs) as bus:
        task = bus.claim(["work"])
        assert task is not None
        bus.ack(task, ANSWER)


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_a_result_whose_output_was_cut_off_gets_it_from_a_sweep(disk: Path, *, late: bool) -> None:
    task_id, written, missing = started(disk / "bus"), 0, 0
    for said, root in Points(disk / "bus", disk, works, late=late):
        path = root / "outputs" / f"{task_id}_result.md"
        has_result = task_id in auditor.look(root).results
        missing += has_result and not path.exists()
        if path.exists():
            written += 1
            assert has_result, f"{said}: an output of no result"
            assert path.read_text().endswith(f"\n{ANSWER}\n"), f"{said}: half an output"
        with open_at(root, agent="sweeper", offset=HOUR + 10_000) as bus:
            sweep(bus)
            is_done = bus.get(task_id).state is State.DONE
        assert path.exists() == is_done, said
        if is_done:
            assert path.read_text().endswith(f"\n{ANSWER}\n"), said
        assert auditor.sound(root).leftovers == [], said
    assert (written > 0, missing > 0) == (True, True), "it was cut off on both sides of the output"
