"""Subscribers that are killed all the time miss nothing, though messages become visible out of order (P12)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import subscribers
from tests.tally import MESSAGES, tried

if TYPE_CHECKING:
    from pathlib import Path


def test_killed_subscribers_of_a_topic_with_late_messages_miss_none(disk: Path) -> None:
    made = subscribers.topic(disk / "bus", 1500, senders=2, subscribers=3)
    tried(MESSAGES, made.messages * made.subscribers)
    assert made.messages == 1500
    assert made.killed > 0, "nobody was killed, so nothing was tried"
    assert made.missed == 0
