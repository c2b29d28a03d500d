"""Clocks that step, go back and differ by up to an hour: what is promised about leases and ids holds (P11)."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from mcp_bus.clock import Ids
from mcp_bus.errors import LeaseLost
from mcp_bus.recovery import SWEEP_S, Tender, sweep
from mcp_bus.stores import layout
from mcp_bus.stores.file import FileStore
from tests.crash import auditor
from tests.fakes import VirtualSource, bus_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mcp_bus.bus import Bus
    from mcp_bus.model import Task

CHANNEL = "work"
HOUR = 3600.0
LEASE = 60.0
AGENTS = ("ann", "bob", "eve")


class Session:
    """An agent with a clock of its own, that sweeps as its program does; `error` is how far its clock is off."""

    def __init__(self, root: Path, agent: str, seed: int) -> None:
        self.source = VirtualSource(int(time.time() * 1000), seed)
        self.bus: Bus = bus_on(FileStore(root, source=self.source, durable=False), self.source, agent)
        self.error = 0.0
        self.held: list[Task] = []
        self._tend = Tender()

    def step(self, seconds: float) -> None:
        """Set the clock, as a person or NTP does; the monotonic one is not moved by that."""
        self.source.time += int(seconds * 1000)
        self.error += seconds

    def tend(self) -> None:
        self._tend(self.bus)


def leases(root: Path) -> dict[str, tuple[str, int]]:
    """Return the token and the end of every lease, from the names on the disk alone."""
    found = {}
    for path in (root / "channels" / CHANNEL / "processing").iterdir():
        task_id, *_, token, end, _json = path.name.split(".")
        found[task_id] = (token, int(end))
    return found


@pytest.fixture
def sessions(disk: Path) -> Iterator[Callable[..., Session]]:
    """Makes sessions on one bus."""
    made: list[Session] = []
    layout.create(disk / "bus")

    def opener(agent: str = "ann", *, error: float = 0) -> Session:
        made.append(Session(disk / "bus", agent, len(made)))
        made[-1].step(error)
        return made[-1]

    opener().bus.create_channel(CHANNEL, lease_s=LEASE, backoff_s=0, max_attempts=1000)
    yield opener
    for session in made:
        session.bus.close()


def claimed(session: Session, *, lease_s: float | None = None) -> Task:
    task = session.bus.claim([CHANNEL], lease_s=lease_s)
    assert task is not None
    return task


@pytest.mark.parametrize("error", [-HOUR, 0, HOUR], ids=["an hour late", "right", "an hour early"])
def test_a_lapsed_lease_comes_back_within_two_sweeps_of_its_end_by_the_observers_clock(
    sessions: Callable[..., Session], disk: Path, error: float
) -> None:
    worker, observer = sessions("ann", error=error), sessions("bob")
    task_id = worker.bus.post(CHANNEL, "x").id
    claimed(worker)
    (_, end) = leases(disk / "bus")[task_id]
    observer.tend()
    observer.source.advance(max(0.0, (end - observer.source.now()) / 1000 - 10))
    for _ in range(20):
        if observer.source.now() > end + 2 * SWEEP_S * 1000:
            break
        assert (task_id in leases(disk / "bus")) or observer.source.now() >= end, "taken before its end"
        observer.source.advance(SWEEP_S)
        observer.tend()
    else:
        pytest.fail("its end never came")
    assert task_id not in leases(disk / "bus")
    assert end - worker.source.now() <= LEASE * 1000
    assert claimed(observer).id == task_id


@pytest.mark.parametrize("step", [-HOUR, HOUR])
def test_a_step_of_the_hosts_clock_does_not_stop_the_sweeps(
    sessions: Callable[..., Session], disk: Path, step: float
) -> None:
    worker, observer = sessions("ann"), sessions("bob")
    task_id = worker.bus.post(CHANNEL, "x").id
    observer.tend()
    for session in (worker, observer):
        session.step(step)
    claimed(worker)
    observer.source.advance(LEASE)
    for _ in range(2):
        assert task_id in leases(disk / "bus")
        observer.source.advance(SWEEP_S)
        observer.tend()
        if task_id not in leases(disk / "bus"):
            return
    pytest.fail("its lease has ended, and nobody sweeps")


@pytest.mark.parametrize("step", [-HOUR, HOUR])
def test_a_lease_ends_at_once_when_the_clock_steps_over_its_end_and_later_when_it_goes_back(
    sessions: Callable[..., Session], disk: Path, step: float
) -> None:
    worker, observer = sessions("ann"), sessions("bob")
    task_id = worker.bus.post(CHANNEL, "x").id
    claimed(worker)
    observer.tend()
    observer.step(step)
    for _ in range(3):
        observer.source.advance(SWEEP_S)
        observer.tend()
    assert (task_id in leases(disk / "bus")) is (step < 0)


@pytest.mark.parametrize("step", [-HOUR, HOUR])
def test_a_manifest_from_another_hour_does_not_keep_the_thorough_sweep_away(
    sessions: Callable[..., Session], step: float
) -> None:
    session = sessions("ann")
    session.tend()
    session.step(step)
    posted = session.bus.post(CHANNEL, "x", ttl_s=10).id
    for _ in range(12):
        session.source.advance(SWEEP_S)
        session.tend()
    assert session.bus.get(posted).state == "expired", "only a thorough sweep looks for it"


def test_a_renewed_lease_is_not_taken_while_the_clocks_agree(sessions: Callable[..., Session], disk: Path) -> None:
    worker, observer = sessions("ann"), sessions("bob")
    worker.bus.post(CHANNEL, "x")
    task = claimed(worker)
    for _ in range(20):
        for session in (worker, observer):
            session.source.advance(LEASE / 2)
        worker.bus.renew(task)
        sweep(observer.bus)
        observer.tend()
        assert leases(disk / "bus")[task.id][0] == task.lease.token
        assert observer.bus.claim([CHANNEL]) is None
    worker.bus.ack(task, "done")
    assert auditor.settled(disk / "bus").results == {task.id: "done"}


def test_a_renewal_by_a_clock_that_went_back_does_not_shorten_the_lease(
    sessions: Callable[..., Session], disk: Path
) -> None:
    worker = sessions("ann")
    worker.bus.post(CHANNEL, "x")
    task = claimed(worker)
    before = leases(disk / "bus")
    worker.step(-HOUR)
    worker.bus.renew(task)
    assert leases(disk / "bus") == before
    worker.bus.ack(task, "done")


@pytest.mark.parametrize("steps", [(-HOUR, 0.0, -HOUR), (HOUR, -2 * HOUR, 0.001), (0.0, 0.0, 0.0)])
def test_the_ids_of_one_maker_grow_whatever_its_clock_does(steps: tuple[float, ...]) -> None:
    source = VirtualSource()
    ids, made = Ids(source), list[str]()
    for step in steps:
        source.time += int(step * 1000)
        made += [ids.next() for _ in range(200)]
    assert made == sorted(set(made))


class Clocks(RuleBasedStateMachine):
    """Three sessions whose clocks step and run apart by up to an hour, and a model of what each may be told."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(prefix="bus-")
        self.root = Path(self._folder.name) / "bus"
        layout.create(self.root)
        self.sessions = [Session(self.root, agent, seed) for seed, agent in enumerate(AGENTS)]
        self.sessions[0].bus.create_channel(CHANNEL, lease_s=LEASE, backoff_s=0, max_attempts=1000)
        self.posted: list[str] = []
        self.accepted: dict[str, str] = {}

    def teardown(self) -> None:
        for session in self.sessions:
            session.bus.close()
        self._folder.cleanup()

    @rule(who=st.integers(0, 2))
    def post(self, who: int) -> None:
        self.posted.append(self.sessions[who].bus.post(CHANNEL, len(self.posted)).id)

    @rule(who=st.integers(0, 2))
    def claim(self, who: int) -> None:
        session = self.sessions[who]
        task = session.bus.claim([CHANNEL])
        if task is not None:
            assert task.id not in self.accepted, "a task that is done was handed out"
            session.held.append(task)

    @precondition(lambda self: any(session.held for session in self.sessions))
    @rule(who=st.integers(0, 2), which=st.integers(0, 9), verb=st.sampled_from(["ack", "ack", "renew", "nack"]))
    def end(self, who: int, which: int, verb: str) -> None:
        session = self.sessions[who]
        if not session.held:
            return
        task = session.held[which % len(session.held)]
        holds = leases(self.root).get(task.id, ("", 0))[0] == task.lease.token
        answer = f"{session.bus.identity.agent}, attempt {task.slot.attempt}"
        calls: dict[str, Callable[[], object]] = {
            "ack": lambda: session.bus.ack(task.ticket, answer),
            "renew": lambda: session.bus.renew(task.ticket),
            "nack": lambda: session.bus.nack(task.ticket, "no"),
        }
        try:
            calls[verb]()
        except LeaseLost:
            assert not holds, "who holds a lease was told that it is lost"
        else:
            assert holds, f"{verb} was accepted without the lease"
            if verb == "ack":
                assert task.id not in self.accepted, "two results were accepted"
                self.accepted[task.id] = answer
        if verb != "renew" or not holds:
            session.held.remove(task)

    @rule(seconds=st.sampled_from([0.5, 5.0, 40.0, LEASE, 1000.0]))
    def run(self, seconds: float) -> None:
        """Let time pass for all."""
        for session in self.sessions:
            session.source.advance(seconds)

    @rule(who=st.integers(0, 2), to=st.sampled_from([-HOUR, -61.0, -1.0, 0.0, 1.0, 61.0, HOUR]))
    def step(self, who: int, to: float) -> None:
        session = self.sessions[who]
        session.step(to - session.error)

    @rule(who=st.integers(0, 2), thorough=st.booleans())
    def sweep(self, who: int, thorough: bool) -> None:  # noqa: FBT001  Hypothesis passes it by name
        before, now = leases(self.root), self.sessions[who].source.now()
        sweep(self.sessions[who].bus, thorough=thorough)
        after = leases(self.root)
        assert after == {task_id: lease for task_id, lease in before.items() if lease[1] > now}, (
            "exactly the leases that had ended by the sweeper's clock came back"
        )

    @invariant()
    def sound(self) -> None:
        audit = auditor.sound(self.root)
        assert set(audit.states) == set(self.posted)
        assert audit.results == self.accepted
        assert set(audit.states.values()) <= {"ready", "leased", "done"}


@pytest.mark.timeout(3600)
def test_sessions_whose_clocks_differ_lose_no_task_and_finish_none_twice() -> None:
    base = settings()
    is_soak = base.max_examples > settings.get_profile("ci").max_examples
    run_state_machine_as_test(Clocks, settings=settings(base, max_examples=base.max_examples if is_soak else 40))
