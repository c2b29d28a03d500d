"""A session sees what came since its bus was opened, however late it first asks for its mail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_bus import open_bus

if TYPE_CHECKING:
    from pathlib import Path


def test_what_came_before_a_mailbox_was_first_used_is_seen_though_a_twin_acked_it(disk: Path) -> None:
    place = disk / "bus"
    with (
        open_bus(place, agent="ann", session="1", durability="none") as late,
        open_bus(place, agent="ann", session="2", durability="none") as twin,
        open_bus(place, agent="bob", durability="none") as bob,
    ):
        sent = bob.mail.send("broadcast", "all clear")
        assert [item.body.id for item in twin.mail.read()] == [sent.id]
        assert [item.is_new for item in twin.mail.ack()] == [True]
        assert [item.body.id for item in late.mail.read()] == [sent.id]
    with open_bus(place, agent="ann", session="3", durability="none") as later:
        assert later.mail.read() == []
