"""Each anomaly is found where it was planted, explained, and mended or handed to a person; looking changes nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from mcp_bus.fsck import KINDS, Level
from mcp_bus.fsck.kinds import SWEEP
from tests.crash import auditor
from tests.fsck.box import Box, bodies
from tests.fsck.plants import PLANTS

if TYPE_CHECKING:
    from pathlib import Path

# What a plant takes with it, so that a person is needed after the repair, or that stays as a note.
LEFT = {
    "torn_result": {"done-without-result"}, "symlink_folder": {"symlink-folder"}, "bus_format": {"format"},
    "no_result": {"done-without-result"}, "owner": {"owner"}, "acl": {"acl"}, "policy": {"policy"}, "plan": {"plan"},
}  # fmt: skip


# What takes keys, in tests/cli/test_fsck_signed.py; what another user owns, in tests/security/test_closed.py.
ELSEWHERE = {
    "not-signed", "unverified", "result-unverified", "forged-result", "unknown-result", "unknown-key", "others-mode",
}  # fmt: skip


def test_a_bus_with_a_task_in_every_state_is_clean(box: Box) -> None:
    before = box.snapshot()
    report = box.check()
    assert (report.anomalies, report.tasks) == ((), len(box.ids))
    assert box.snapshot() == before


def test_every_kind_is_planted_and_says_what_it_means() -> None:
    assert {kind for kind, _ in PLANTS} | ELSEWHERE == {*KINDS}
    for kind, about in KINDS.items():
        assert len(about.means) > 30, kind
        assert bool(about.repair) or about.level in (Level.NOTE, Level.PERSON), kind
        assert about.level is not Level.HEALS or about.repair == SWEEP, kind


@pytest.mark.parametrize(("kind", "plant"), PLANTS, ids=lambda item: getattr(item, "__name__", item))
def test_it_is_found_and_mended(box: Box, kind: str, plant: Any) -> None:
    if kind == "owner" and os.geteuid():
        pytest.skip("only root can give a file to somebody else")
    path: Path = plant(box)
    before, data = box.snapshot(), bodies(box.root)
    report = box.check()
    assert box.snapshot() == before, "looking changes nothing"
    found = {item.path: item for item in report.anomalies if item.kind == kind}
    where = os.path.relpath(path, box.root)
    assert where in found, report.anomalies
    assert [*Level].index(report.worst) >= [*Level].index(found[where].level)
    mended = box.repair()
    left = {item.kind for item in mended.anomalies if item.level is not Level.NOTE}
    assert left == LEFT.get(plant.__name__, set()), mended
    if KINDS[kind].repair:
        assert mended.done, "it says what it did"
        assert where not in {item.path for item in mended.anomalies if item.kind == kind}
    if kind != "pruning":  # It was decided that this task is forgotten.
        assert data <= bodies(box.root), "nothing that was there is lost, at most it was put aside"
    again = box.repair()
    assert (again.done, again.anomalies) == ((), mended.anomalies), "a second repair has nothing to do"


# The others stay as they are, or need a person.
MENDED = [
    plant
    for kind, plant in PLANTS
    if KINDS[kind].level not in (Level.NOTE, Level.PERSON) and plant.__name__ not in LEFT
]


@pytest.mark.parametrize("plant", MENDED, ids=lambda item: item.__name__)
def test_what_is_mended_is_right_by_the_word_of_the_independent_auditor(box: Box, plant: Any) -> None:
    plant(box)
    box.repair()
    audit = auditor.sound(box.root)
    expected = {name for name in audit.states if name in box.ids.values()}
    assert len(expected) >= len(box.ids) - 1
