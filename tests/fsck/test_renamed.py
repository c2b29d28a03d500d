"""A channel's folder that was renamed: a repair carries home the tasks, and with them results, history and reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_bus.clock import System
from mcp_bus.fsck import Means, repair
from mcp_bus.model import State
from tests.crash import auditor
from tests.crash.victim import Points, Steps, open_at
from tests.fsck.box import LATER, OTHER, WORK, Box, quiet

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_bus.stores.fsops import Fs


def renamed(box: Box) -> None:
    (box.root / "channels" / WORK).rename(box.root / "channels" / "werk")


def check(root: Path, box: Box) -> None:
    """See that a done task has its result, a dead one its history and reason, and nothing was put aside."""
    auditor.sound(root)
    with open_at(root, durable=False) as bus:
        done, dead = bus.get(box.ids["done"]), bus.get(box.ids["dead"])
        assert (done.state, done.result.content if done.result else None) == (State.DONE, "the answer")
        assert [line.note for line in dead.history] == ["no"]
    assert list((root / "quarantine").glob("*")) == []
    assert [path.name for path in (root / "channels" / WORK / "dead").glob("*.reason.json")]


def test_results_history_and_reasons_come_home_with_their_tasks(box: Box) -> None:
    renamed(box)
    report = box.repair()
    assert report.is_clean, report.anomalies
    check(box.root, box)
    assert any(line.endswith(f"moved to channels/{WORK}/responses/{box.response().name}") for line in report.done)


def test_a_repair_of_it_may_be_killed_at_each_call(box: Box, disk: Path) -> None:
    renamed(box)

    def work(at: Path, fs: Fs) -> None:
        repair(at, Means(fs, System(LATER), quiet))

    steps = 0
    for said, cut in Points(box.root, disk / "cut", work):
        steps += 1
        assert repair(cut, Means(Steps(), System(LATER), quiet)).is_clean, said
        check(cut, box)
    assert steps > 20


@pytest.mark.parametrize("why", ["has its own", "is not done"])
def test_a_result_that_its_task_does_not_need_is_put_aside(box: Box, why: str) -> None:
    name = "done" if why == "has its own" else "ready"
    path = box.root / "channels" / OTHER / "responses" / f"{box.ids[name]}.json"
    path.write_text(box.response().read_text().replace(box.ids["done"], box.ids[name]).replace("answer", "other"))
    report = box.repair()
    assert report.is_clean
    assert not path.exists()
    assert len(list((box.root / "quarantine").glob("*.reason.json"))) == 1
    with open_at(box.root, durable=False) as bus:
        assert bus.get(box.ids["ready"]).state is State.READY


def test_history_is_never_moved_over_history(box: Box) -> None:
    kept = box.root / "channels" / WORK / "attempts" / box.ids["dead"]
    other = box.root / "channels" / OTHER / "attempts" / box.ids["dead"]
    other.mkdir(parents=True)
    (other / "000001-1-failed.json").write_text("{}")
    before = sorted(kept.iterdir())
    box.repair()
    assert (sorted(kept.iterdir()), other.is_dir()) == (before, True)
