"""Who is there is judged by what can be shown: a sign of life in time, and on this machine the process itself."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from mcp_bus import names
from mcp_bus.identity import process
from mcp_bus.model import Identity
from mcp_bus.presence import KIND, KNOWN, REMEMBERED, SILENT, Roster
from mcp_bus.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fakes import VirtualSource


@pytest.fixture
def store(source: VirtualSource) -> MemoryStore:
    return MemoryStore(source=source)


@pytest.fixture
def roster(store: MemoryStore, source: VirtualSource) -> Callable[..., Roster]:
    def make(agent: str = "ann", session: str = "1", pid: int = 0) -> Roster:
        holder = names.holder(agent, session)
        return Roster(store, Identity(agent, session, holder, "x", "here", pid or os.getpid()), source)

    return make


def whys(roster: Roster) -> dict[str, str]:
    return {seen.presence.holder: seen.why for seen in roster.all()}


def test_a_session_that_arrived_is_live_with_what_it_can_do(roster: Callable[..., Roster]) -> None:
    roster().arrive(["python"])
    (seen,) = roster("bob", "2").all()
    assert seen.is_live
    assert (seen.presence.agent, seen.presence.capabilities) == ("ann", ("python",))


def test_nothing_is_written_until_it_arrives(roster: Callable[..., Roster]) -> None:
    ann = roster()
    ann.beat()
    ann.leave()
    assert ann.all() == []


def test_a_session_that_left_has_ended_and_is_still_known(roster: Callable[..., Roster]) -> None:
    ann = roster()
    ann.arrive()
    ann.leave()
    assert whys(ann) == {"ann~1": "its session has ended"}


def test_a_silent_session_is_not_live_until_it_gives_a_sign(
    roster: Callable[..., Roster], source: VirtualSource
) -> None:
    ann = roster()
    ann.arrive()
    source.advance(SILENT / 1000 + 1)
    assert whys(ann) == {"ann~1": "it gave no sign of life for too long"}
    ann.beat()
    assert whys(ann) == {"ann~1": ""}


def test_a_sign_of_life_from_the_future_is_none(roster: Callable[..., Roster], source: VirtualSource) -> None:
    roster().arrive()
    source.advance(-SILENT / 1000 - 1)
    assert whys(roster()) == {"ann~1": "it gave no sign of life for too long"}


def test_a_session_whose_process_died_is_not_live_though_it_spoke_just_now(roster: Callable[..., Roster]) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        roster("bob", "2", child.pid).arrive()
        assert whys(roster()) == {"bob~2": ""}
    finally:
        child.communicate(b"\n", timeout=30)
    assert whys(roster()) == {"bob~2": "its process has ended"}


def test_a_pid_that_came_back_is_another_process(roster: Callable[..., Roster], store: MemoryStore) -> None:
    roster().arrive()
    found = store.records.read(KIND, "ann~1")
    assert found is not None
    store.records.write(KIND, "ann~1", {**found.data, "started": found.data["started"] + 1}, after=1, durable=False)
    assert whys(roster()) == {"ann~1": "its process has ended"}


@pytest.mark.skipif(not process.started(os.getpid()), reason="this machine does not tell when a process started")
@pytest.mark.parametrize(
    ("field", "value", "why"),
    [("boot", "other", "the machine was started anew"), ("host", "elsewhere", ""), ("started", 0, "")],
)
def test_what_cannot_be_told_of_another_machine_is_not_held_against_it(
    roster: Callable[..., Roster], store: MemoryStore, field: str, value: object, why: str
) -> None:
    roster().arrive()
    found = store.records.read(KIND, "ann~1")
    assert found is not None
    store.records.write(KIND, "ann~1", {**found.data, field: value}, after=1, durable=False)
    assert whys(roster()) == {"ann~1": why}


@pytest.mark.parametrize(
    "change", [{"agent": 7}, {"pid": "x"}, {"agent": ""}, {"holder": "eve~1"}, {"ended": True}, {"since": None}]
)
def test_a_record_that_is_none_is_passed_over(
    roster: Callable[..., Roster], store: MemoryStore, change: dict[str, object]
) -> None:
    roster().arrive()
    found = store.records.read(KIND, "ann~1")
    assert found is not None
    store.records.write(KIND, "ann~1", {**found.data, **change}, after=1, durable=False)
    assert whys(roster()) == {}


def test_long_ended_sessions_are_forgotten_and_the_last_of_an_agent_later(
    roster: Callable[..., Roster], source: VirtualSource
) -> None:
    for session in "12":
        one = roster("ann", session)
        one.arrive()
        one.leave()
        source.advance(1)
    source.advance(REMEMBERED / 1000)
    assert roster().forget() == ["ann~1"]
    source.advance(KNOWN / 1000)
    assert roster().forget() == ["ann~2"]
    assert roster().all() == []


def test_a_live_session_is_not_forgotten_and_one_tidied_away_comes_back(
    roster: Callable[..., Roster], store: MemoryStore, source: VirtualSource
) -> None:
    ann = roster()
    ann.arrive()
    for _ in range(3):
        source.advance(KNOWN / 1000)
        ann.beat()
        assert ann.forget() == []
    store.records.remove(KIND, "ann~1")
    ann.beat()
    assert whys(ann) == {"ann~1": ""}


@pytest.mark.skipif(not process.started(os.getpid()), reason="this machine does not tell when a process started")
def test_a_process_that_has_ended_and_was_not_waited_for_runs_no_longer() -> None:
    gate, opener = os.pipe()
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=gate)
    os.close(gate)
    since = process.started(child.pid)
    assert process.is_running(child.pid, since)
    os.close(opener)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not process.is_running(child.pid, since)
    child.wait(timeout=30)
