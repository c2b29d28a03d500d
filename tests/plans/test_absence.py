"""A step that no worker can do is skipped: after the grace time, and not because a clock jumped."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from mcp_bus import conductor
from mcp_bus.identity import process
from mcp_bus.model import Identity, State
from mcp_bus.presence import SILENT, Roster
from tests.fakes import swept

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus.bus import Bus
    from tests.fakes import VirtualSource
    from tests.plans.conftest import Poster


def test_a_step_that_nobody_can_do_is_skipped_after_the_grace_time_and_the_rest_goes_on(
    post: Poster, bus: Bus, source: VirtualSource
) -> None:
    run = post("paint", "report<paint", "other", grace_s=30, paint={"capability": "paint"})
    source.advance(29)
    swept(bus)
    assert run.stages["paint"] == "released"
    source.advance(2)
    swept(bus)
    assert run.stages == {"paint": "skipped", "report": "skipped", "other": "released"}
    assert run.why("paint") == "worker_absent: no live worker can do paint"
    assert run.why("report") == "upstream: paint was skipped (worker_absent)"
    run.do("other", "done", "paint")
    assert bus.claim(capabilities=["paint"]) is None
    task = run.tasks()["paint"][0]
    assert (task.state, task.history[-1].outcome) == (State.CANCELLED, "skipped")


def test_a_worker_that_is_there_or_is_at_work_is_waited_for(
    post: Poster, bus: Bus, source: VirtualSource, open_bus_as: Callable[..., Bus]
) -> None:
    run = post("paint", "paint-2", grace_s=30, paint={"requires": ["paint"]}, paint_2={"requires": ["paint"]})
    painter = open_bus_as("cat", "00000003")
    painter.roster.arrive(["paint"])
    painter.roster.leave()
    taken = painter.claim(capabilities=["paint"], lease_s=600)
    assert taken is not None
    source.advance(400)
    swept(bus)
    assert run.stages == {"paint": "released", "paint-2": "released"}, "one worker, who is busy"
    painter.ack(taken, "red")
    source.advance(31)
    swept(bus)
    assert run.stages == {"paint": "done", "paint-2": "skipped"}, "and then never came back"


def test_a_worker_able_to_do_something_else_is_none(post: Poster, bus: Bus, source: VirtualSource) -> None:
    run = post("paint", grace_s=30, paint={"requires": ["paint", "red"]})
    bus.roster.arrive(["paint"])
    source.advance(31)
    swept(bus)
    assert run.stages == {"paint": "skipped"}


def test_one_that_left_is_waited_for_as_long_as_one_that_never_came(
    post: Poster, bus: Bus, source: VirtualSource, open_bus_as: Callable[..., Bus]
) -> None:
    run = post("paint", grace_s=30, paint={"requires": ["paint"]})
    source.advance(20)
    painter = open_bus_as("cat", "00000003")
    painter.roster.arrive(["paint"])
    painter.roster.leave()
    source.advance(29)
    swept(bus)
    assert run.stages == {"paint": "released"}, "it may be starting anew"
    source.advance(2)
    swept(bus)
    assert run.stages == {"paint": "skipped"}


def test_a_sign_of_life_from_the_future_delays_nothing(
    post: Poster, bus: Bus, source: VirtualSource, open_bus_as: Callable[..., Bus]
) -> None:
    run = post("paint", grace_s=30, paint={"requires": ["paint"]})
    painter = open_bus_as("cat", "00000003")
    source.advance(3600)
    painter.roster.arrive(["paint"])
    painter.roster.leave()
    source.advance(-3600 + 31)
    swept(bus)
    assert run.stages == {"paint": "skipped"}


@pytest.mark.skipif(not process.started(os.getpid()), reason="this machine does not tell when a process started")
def test_a_worker_that_slept_with_its_machine_is_given_time_to_speak_up(
    post: Poster, bus: Bus, source: VirtualSource
) -> None:
    run = post("paint", grace_s=30, paint={"requires": ["paint"]})
    painter = Roster(bus.store, Identity("cat", "3", "cat~3", "", "here", os.getpid()), source)
    painter.arrive(["paint"])
    source.time += 8 * 3600 * 1000  # The lid was closed: the clock that counts waiting stood still.
    swept(bus)
    assert run.stages == {"paint": "released"}
    source.advance(SILENT / 1000 - 1)
    swept(bus)
    assert run.stages == {"paint": "released"}
    painter.beat()
    source.advance(SILENT / 1000)
    conductor.advance(bus, run.plan.id)
    assert run.stages == {"paint": "released"}, "it spoke up"
    source.time += 3600 * 1000
    swept(bus)
    source.advance(SILENT / 1000 + 1)
    swept(bus)
    assert run.stages == {"paint": "skipped"}, "one that hangs does not hold a plan up for ever"


@pytest.mark.skipif(not process.started(os.getpid()), reason="this machine does not tell when a process started")
def test_each_night_a_worker_is_given_its_time_anew(post: Poster, bus: Bus, source: VirtualSource) -> None:
    painter = Roster(bus.store, Identity("cat", "3", "cat~3", "", "here", os.getpid()), source)
    painter.arrive(["paint"])
    for _ in range(2):
        run = post("paint", grace_s=30, paint={"requires": ["paint"]})
        source.time += 8 * 3600 * 1000
        swept(bus)
        assert run.stages == {"paint": "released"}
        painter.beat()  # And nobody looks at it for a while.
        run.do("paint", "red", "paint")
        source.advance(300)
        painter.beat()


def test_who_came_while_somebody_looked_is_not_absent(post: Poster, bus: Bus, source: VirtualSource) -> None:
    run = post(
        "first", "build", "paint", grace_s=30,
        first={"requires": ["x"]}, build={"verify": ["x"]}, paint={"requires": ["paint"]},
    )  # fmt: skip
    run.do("build", "built", "x")
    source.advance(29)

    def long_check(*_: object) -> str:
        source.advance(600)
        return ""

    conductor.advance(bus, run.plan.id, verify=long_check)
    assert run.stages == {"first": "released", "build": "done", "paint": "released"}, (
        "it looked before that time was over"
    )


@pytest.mark.parametrize("whose", ["another's", "lapsed"])
def test_a_lease_that_is_no_able_worker_s_or_has_run_out_says_nothing(
    post: Poster, bus: Bus, source: VirtualSource, open_bus_as: Callable[..., Bus], whose: str
) -> None:
    run = post("paint", "other", grace_s=30, paint={"requires": ["paint"]}, other={"channel": "else"})
    painter, busy = open_bus_as("cat", "00000003"), open_bus_as("dog", "00000004")
    painter.roster.arrive(["paint"])
    painter.roster.leave()
    held = (busy if whose == "another's" else painter).claim(["else"], lease_s=600 if whose == "another's" else 5)
    assert held is not None
    source.advance(31)
    conductor.advance(bus, run.plan.id)
    assert run.stages["paint"] == "skipped"


def test_a_silent_session_of_another_machine_is_not_here(bus: Bus, source: VirtualSource) -> None:
    roster = Roster(bus.store, Identity("cat", "3", "cat~3", "", "here", os.getpid()), source)
    roster.arrive(["paint"])
    found = bus.store.records.read("agents", "cat~3")
    assert found is not None
    bus.store.records.write("agents", "cat~3", {**found.data, "host": "elsewhere"}, after=1, durable=False)
    source.advance(SILENT / 1000 + 1)
    (seen,) = roster.all()
    assert (seen.why, seen.is_here) == ("it gave no sign of life for too long", False)
