"""Days of churn, with kills, leave nothing behind: no file, no descriptor, no memory (P25)."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from benchmarks.churn import Churn, Day, churn
from mcp_bus.stores.fsops import Fs
from tests.tally import DAYS, tried

if TYPE_CHECKING:
    from pathlib import Path


def test_days_of_work_and_kills_leave_nothing_behind(disk: Path) -> None:
    made = churn(disk / "bus", days=6, turns=4, tasks=8)
    tried(DAYS, len(made.days))
    assert made.tasks > 200
    assert made.killed > 10, "hardly anybody was killed, so little was tried"
    assert made.growth() == []


def test_what_would_stay_is_seen(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unlink, results = Fs.unlink, disk / "bus/channels/work/responses"

    def forgetful(self: Fs, name: str, at: int) -> None:
        # Of what is pruned, the results stay.
        if not (results.is_dir() and os.path.samestat(results.stat(), os.fstat(at))):
            unlink(self, name, at)

    monkeypatch.setattr(Fs, "unlink", forgetful)
    grown = churn(disk / "bus", days=3, turns=4, tasks=4).growth()
    assert any("left in channels/work/responses" in line for line in grown), grown


@pytest.mark.parametrize("what", ["", "files", "memory", "descriptors"])
def test_what_grows_day_by_day_is_seen(what: str) -> None:
    def more(word: str, day: int) -> int:
        return day if word == what else 0

    days = [
        Day(
            Counter(tasks=100 + 100 * more("files", n)),
            (50 + more("memory", n)) << 21,
            30 + 30 * more("descriptors", n),
        )
        for n in range(6)
    ]
    grown = Churn(days, 1, 1, Counter(), 10).growth()
    assert len(grown) == bool(what)
