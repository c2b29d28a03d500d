"""What a crash of the bus itself leaves is never for a repair or a person, and what is under way is no anomaly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_bus.clock import System
from mcp_bus.fsck import Level, check
from mcp_bus.recovery import sweep
from mcp_bus.stores import layout
from tests.crash import auditor
from tests.crash.victim import DAY, Points, Steps, open_at
from tests.fsck import hurt_rest, hurt_tasks
from tests.fsck.box import LATER, WORK, Box

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mcp_bus.bus import Bus
    from mcp_bus.model import Task
    from mcp_bus.stores.fsops import Fs

PRUNED = 30 * DAY


def claimed(bus: Bus) -> Task:
    task = bus.claim([WORK], lease_s=3600)
    assert task is not None
    return task


def prune(bus: Bus) -> None:
    sweep(bus)


def mail(bus: Bus) -> None:
    bus.mail.send("@ann", "hello")
    bus.mail.topics.subscribe("news")
    bus.mail.send("#news", "hello")
    bus.mail.read()
    bus.mail.ack()


VERBS: dict[str, tuple[Callable[[Bus], object], int]] = {
    "post": (lambda bus: bus.post(WORK, "new", key="new"), 0),
    "ack": (lambda bus: bus.ack(claimed(bus), "x"), 0),
    "nack": (lambda bus: bus.nack(claimed(bus), "x"), 0),
    "cancel": (lambda bus: bus.cancel(min(bus.store.ids())), 0),
    "prune": (prune, PRUNED),
    "mail": (mail, 0),
}


@pytest.mark.parametrize("verb", VERBS)
def test_whatever_a_killed_verb_leaves_heals_by_itself(disk: Path, verb: str) -> None:
    act, offset = VERBS[verb]
    root = disk / "bus"
    layout.create(root, fs=Steps())
    with open_at(root) as bus:
        bus.create_channel(WORK, retention_days=1)
        bus.post(WORK, "x", key="x", max_attempts=1)
        if verb == "prune":
            bus.ack(claimed(bus), "x")

    def work(at: Path, fs: Fs) -> None:
        with open_at(at, fs, offset=offset) as own:
            act(own)

    steps = 0
    for said, cut in Points(root, disk / "cut", work):
        steps += 1
        for later in (offset, offset + LATER):
            found = check(cut, source=System(later)).anomalies
            assert {item.level for item in found} <= {Level.NOTE, Level.HEALS}, (said, found)
        with open_at(cut, offset=offset + LATER) as bus:
            sweep(bus)
        assert check(cut, source=System(offset + LATER)).is_clean, said
        auditor.sound(cut)
    assert steps > 2


@pytest.mark.parametrize("plant", [hurt_tasks.cut_post, hurt_tasks.draft, hurt_tasks.foreign, hurt_rest.staged])
def test_what_may_be_under_way_is_none_yet(box: Box, plant: Callable[[Box], Path]) -> None:
    plant(box)
    assert check(box.root, source=System()).anomalies == ()


def test_a_message_that_is_written_in_place_is_none_yet(box: Box) -> None:
    path = box.root / "channels" / WORK / "requests" / f"{hurt_tasks.NEW}.json"
    path.write_text(hurt_tasks.message()[:20])
    assert [item.level for item in check(box.root, source=System()).anomalies] in ([], [Level.NOTE])
    assert [item.kind for item in box.check().anomalies] == ["bad-body"]


def test_messages_topics_plans_and_results_of_abq_are_clean(box: Box) -> None:
    with open_at(box.root, durable=False) as bus:
        bus.roster.arrive()
        mail(bus)
        before = box.check()
        assert before.is_clean
        assert before.tasks == len(box.ids) + 2
    archive = box.root / "channels" / WORK / "archive"
    box.response().rename(archive / f"{box.ids['done']}_response.json")  # As abq does when it has waited for it.
    assert box.check().is_clean
