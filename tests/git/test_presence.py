"""Who is there: sessions of this host by their signs of life here, those of others by what they push now and then."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from mcp_bus.presence import BEAT_S, SILENCE
from mcp_bus.stores.git.records import TOUCH_MS
from tests.crash.victim import ended, fork
from tests.fakes import VirtualSource
from tests.git.hosts import bus_on, git, store_of

if TYPE_CHECKING:
    from mcp_bus.bus import Bus
    from tests.git.hosts import Hosts


def why(bus: Bus, agent: str) -> str:
    """Return why an agent's only session does not count as live here; empty if it does."""
    [seen] = [item for item in bus.roster.all() if item.presence.agent == agent]
    return seen.why


def beats(bus: Bus, source: VirtualSource, seconds: float) -> None:
    for _ in range(int(seconds / BEAT_S)):
        source.advance(BEAT_S)
        bus.roster.beat()


def test_who_gives_signs_of_life_is_there_and_is_no_commit_each_time(hosts: Hosts) -> None:
    source = VirtualSource()
    ann = hosts.bus("one", source=source)
    ann.roster.arrive(["paint"])
    before = git("--git-dir", hosts.remote, "rev-parse", "mcp-bus")
    beats(ann, source, 300)
    assert git("--git-dir", hosts.remote, "rev-parse", "mcp-bus") == before
    assert why(hosts.bus("one", "cid", source=source), "ann") == "", "another process of this host sees it"
    assert why(hosts.bus("two", "bob", source=source), "ann") == "", "and other hosts, to whom it may be on its way"
    beats(ann, source, TOUCH_MS / 1000)
    assert git("--git-dir", hosts.remote, "rev-parse", "mcp-bus") != before, "now and then it is pushed"


def test_who_is_silent_is_gone_here_soon_and_elsewhere_once_nothing_can_be_on_its_way(hosts: Hosts) -> None:
    source = VirtualSource()
    ann, bob = hosts.bus("one", source=source), hosts.bus("two", "bob", source=source)
    ann.roster.arrive()
    source.advance(60)
    assert why(hosts.bus("one", "cid", source=source), "ann") == SILENCE
    assert why(bob, "ann") == ""
    source.advance(bob.store.silence / 1000)
    assert why(bob, "ann") == SILENCE


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_a_process_of_another_host_of_the_same_name_is_not_looked_for_here(hosts: Hosts) -> None:
    def arrives() -> None:
        bus = bus_on(hosts.place / "one", hosts.remote)
        bus.roster.arrive()
        bus.close()

    assert ended(fork(arrives)) == 0
    assert why(hosts.bus("one", "cid"), "ann") == "its process has ended"
    bob = hosts.bus("two", "bob")
    assert why(bob, "ann") == "", "that process has another number there, or none"
    assert store_of(bob).part != store_of(hosts.bus("one", "dan")).part
