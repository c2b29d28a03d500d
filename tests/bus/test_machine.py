"""Whatever agents and people do in whatever order, the bus does what the rules predict, refusals included.

The rules are `rules.Model`.  After each step the law of conservation holds (P8): every task posted is in
exactly one state, or was pruned; attempts stay within the budget; results never change.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from mcp_bus import BusError, Gone, Ticket, find
from mcp_bus.model import State, day_of
from mcp_bus.stores import layout
from mcp_bus.stores.file import FileStore
from mcp_bus.stores.memory import Medium, MemoryStore
from tests.bus.rules import DAY, Item, Model, Rules
from tests.conftest import is_disk
from tests.fakes import VirtualSource, bus_on, swept

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus import Bus, Task
    from mcp_bus.model import PostOptions, Slot
    from mcp_bus.stores.base import Store

RULES = {
    "work": Rules(2, 10, 15, 60, 0, 1, 2),
    "play": Rules(3, 0, 0, 5, 100, 0, 1),
}
# Two agents, one of them in two sessions.
SESSIONS = {"1": ("ann", "1"), "2": ("bob", "2"), "3": ("ann", "3")}
sessions, channels = st.sampled_from(sorted(SESSIONS)), st.sampled_from(sorted(RULES))
picks, contents = st.integers(0, 10**6), st.sampled_from(["a", "b"])
skills = st.sets(st.sampled_from(["gpu", "python"])).map(frozenset)
maybe_seconds = st.none() | st.sampled_from([1, 30, 600])
pauses = st.none() | st.sampled_from([0, 20])


class Agreement(RuleBasedStateMachine):
    """Does the same to a bus and to the model, and compares."""

    def __init__(self) -> None:
        super().__init__()
        self.source = VirtualSource()
        self.model = Model(RULES, self.source.now())
        self.prepare()
        self.stores: dict[str, Store] = {}
        self.buses: dict[str, Bus] = {}
        self.tickets: list[tuple[str, str]] = []
        self.results: dict[str, str] = {}
        self.posted: list[str] = []
        for name in SESSIONS:
            self.open(name)
        for channel, given in RULES.items():
            self.buses["1"].create_channel(channel, **vars(given))

    def prepare(self) -> None:
        self.medium = Medium()

    def make_store(self) -> Store:
        return MemoryStore(self.medium)

    def open(self, session: str) -> None:
        self.stores[session] = self.make_store()
        agent, number = SESSIONS[session]
        self.buses[session] = bus_on(self.stores[session], self.source, agent, number)
        self.model.beyond[session] = set()

    def teardown(self) -> None:
        for task_id in self.model.items:
            self.compare(task_id)
        for store in self.stores.values():
            store.close()

    # --- one step ------------------------------------------------------------------------------

    def step(self, session: str) -> Bus:
        """Let a little time pass, so that nothing remembered for a moment decides, and each event has its time."""
        self.source.refresh()
        self.source.advance(0.001)
        self.model.now = self.source.now()
        return self.buses[session]

    def pick(self, number: int) -> str:
        return self.posted[number % len(self.posted)]

    def said(self, call: Callable[[], Any]) -> tuple[str, Any]:
        """Return the name of the error a call raises, or nothing, and what it returned."""
        try:
            return "", call()
        except BusError as error:
            return type(error).__name__, error

    def compare(self, task_id: str) -> None:
        """Compare a task as anyone sees it with the model's."""
        if task_id in self.model.pruned:
            assert self.said(lambda: self.buses["1"].get(task_id))[0] == "Gone"
            return
        item, task = self.model.items[task_id], self.buses["2"].get(task_id)
        if item.state == "done":  # Found by its result; the rest of its slot is what `scan` tells.
            assert (task.state, task.slot.attempt, task.channel) == (State.DONE, item.attempt, item.channel)
        else:
            self.same(item, task.slot)
        assert Counter(str(line.outcome) for line in task.history) == Counter(item.history)
        assert (task.result.content if task.result else None) == item.result

    def same(self, item: Item, slot: Slot) -> None:
        lease = (slot.lease.holder, slot.lease.token, slot.lease.expires) if slot.lease else ("", "", 0)
        day = day_of(item.day * DAY) if item.day else ""
        assert slot == (
            item.id, item.channel, State(item.state), item.priority, item.attempt, item.raised, item.releases,
            item.deadline, item.due, slot.lease, day, item.discarded,
        )  # fmt: skip
        assert lease == (item.holder, item.token, item.lease_end)

    # --- posting -------------------------------------------------------------------------------

    @rule(
        session=sessions,
        channel=channels,
        content=contents,
        priority=st.sampled_from([0, 0, 0, 1, -1]),
        delay_s=st.sampled_from([0, 0, 20]),
        ttl_s=st.sampled_from([None, 0, 50]),
        max_attempts=st.sampled_from([None, None, 1]),
        key=st.sampled_from(["", "", "k", "l"]),
        requires=skills,
    )
    def post(self, session: str, channel: str, content: str, key: str, **rest: Any) -> None:
        agent = SESSIONS[session][0]
        bus, full = self.step(session), (agent, key) if key else None
        requires = tuple(sorted(rest["requires"]))
        essence = (channel, content, agent, rest["priority"], rest["max_attempts"], requires, key)
        expected = self.model.post_says(full, essence)
        options: PostOptions = {**rest, "requires": requires, "key": key}  # type: ignore[typeddict-item]  # a dict of options
        error, posted = self.said(lambda: bus.post(channel, content, **options))
        if expected == "DuplicateTask":
            assert error == expected
        elif expected != "new":
            assert (error, posted.id, posted.created) == ("", expected, False)
        else:
            assert (error, posted.created, posted.new_channel) == ("", True, False)
            assert posted.id > max(self.posted, default="") or session != "1"
            self.posted.append(posted.id)
            item = Item(
                posted.id, channel, essence, rest["requires"], rest["priority"], rest["max_attempts"], None, full
            )
            self.model.add(item, rest["delay_s"], rest["ttl_s"])

    # --- working -------------------------------------------------------------------------------

    @rule(session=sessions, looked=st.lists(channels, unique=True, max_size=2), can=skills, lease_s=maybe_seconds)
    def claim(self, session: str, looked: list[str], can: frozenset[str], lease_s: float | None) -> None:
        bus = self.step(session)
        expected = self.model.claim(session, looked or list(RULES), can)
        task = bus.claim(looked, capabilities=sorted(can), lease_s=lease_s)
        assert (task.id if task else None) == (expected.id if expected else None)
        if task is None or expected is None:
            return
        assert not any(token == task.lease.token for _, token in self.tickets)
        self.tickets.append((task.id, task.lease.token))
        self.model.hand_over(expected, bus.identity.holder, task.lease.token, lease_s)
        rules = RULES[expected.channel]
        assert task.slot.attempt <= expected.allowed(rules)
        self.same(expected, task.slot)

    def work(self, session: str, number: int, verb: Callable[[Bus, Ticket], object]) -> Item | None:
        """Do a worker's verb with any ticket there ever was; return the model's task if it is to change."""
        bus = self.step(session)
        task_id, token = self.tickets[number % len(self.tickets)]
        expected = self.model.write_says(task_id, token)
        error, _ = self.said(lambda: verb(bus, Ticket(task_id, token)))
        assert error == expected
        if error:
            self.compare(task_id)
            return None
        return self.model.items[task_id]

    @precondition(lambda self: self.tickets)
    @rule(session=sessions, number=picks, lease_s=maybe_seconds)
    def renew(self, session: str, number: int, lease_s: float | None) -> None:
        item = self.work(session, number, lambda bus, ticket: bus.renew(ticket, lease_s=lease_s))
        if item:
            self.model.renew(item, lease_s)
            self.compare(item.id)

    @precondition(lambda self: self.tickets)
    @rule(session=sessions, number=picks, retry_in_s=pauses)
    def nack(self, session: str, number: int, retry_in_s: float | None) -> None:
        item = self.work(session, number, lambda bus, ticket: bus.nack(ticket, "no", retry_in_s=retry_in_s))
        if item:
            self.model.fail(item, "failed", retry_in_s)
            self.compare(item.id)

    @precondition(lambda self: self.tickets)
    @rule(session=sessions, number=picks)
    def release(self, session: str, number: int) -> None:
        item = self.work(session, number, lambda bus, ticket: bus.release(ticket))
        if item:
            self.model.release(item)
            self.compare(item.id)

    @precondition(lambda self: self.tickets)
    @rule(session=sessions, number=picks)
    def block(self, session: str, number: int) -> None:
        item = self.work(session, number, lambda bus, ticket: bus.block(ticket, "which?"))
        if item:
            self.model.block(item)
            self.compare(item.id)

    @precondition(lambda self: self.tickets)
    @rule(session=sessions, number=picks, content=contents)
    def ack(self, session: str, number: int, content: str) -> None:
        bus = self.step(session)
        task_id, token = self.tickets[number % len(self.tickets)]
        expected = self.model.ack_says(task_id, token)
        error, result = self.said(lambda: bus.ack(Ticket(task_id, token), content))
        if expected == "again":
            assert (error, result.content) == ("", self.results[task_id])
            return
        assert error == expected
        if not error:
            assert result.content == content
            self.results[task_id] = content
            self.model.ack(self.model.items[task_id], content)
        self.compare(task_id)

    @precondition(lambda self: self.posted)
    @rule(session=sessions, number=picks)
    def guess(self, session: str, number: int) -> None:
        """A token nobody was given opens nothing."""
        bus, task_id = self.step(session), self.pick(number)
        error, _ = self.said(lambda: bus.ack(Ticket(task_id, "0123456789abcdef"), "mine"))
        assert error == ("Gone" if task_id in self.model.pruned else "LeaseLost")
        self.compare(task_id)

    # --- operating -----------------------------------------------------------------------------

    OPERATIONS: ClassVar[dict[str, Callable[[Bus, str], Task]]] = {
        "cancel": lambda bus, task_id: bus.cancel(task_id, "unwanted"),
        "requeue": lambda bus, task_id: bus.requeue(task_id),
        "retry": lambda bus, task_id: bus.retry(task_id, note="once more"),
        "discard": lambda bus, task_id: bus.discard(task_id),
        "undo": lambda bus, task_id: bus.undo(task_id),
    }

    @precondition(lambda self: self.posted)
    @rule(session=sessions, number=picks, verb=st.sampled_from(sorted(OPERATIONS)))
    def operate(self, session: str, number: int, verb: str) -> None:
        bus, task_id = self.step(session), self.pick(number)
        expected = self.model.operate_says(task_id, verb)
        error, _ = self.said(lambda: self.OPERATIONS[verb](bus, task_id))
        assert error == expected
        if not error:
            getattr(self.model, verb)(self.model.items[task_id])
        self.compare(task_id)

    @precondition(lambda self: self.posted)
    @rule(session=sessions, number=picks, priority=st.integers(-10, 10))
    def reprioritise(self, session: str, number: int, priority: int) -> None:
        bus, task_id = self.step(session), self.pick(number)
        expected = self.model.operate_says(task_id, "reprioritise")
        if not expected and not -9 <= priority <= 9:
            expected = "IllegalTransition"
        error, _ = self.said(lambda: bus.reprioritise(task_id, priority))
        assert error == expected
        if not error:
            self.model.items[task_id].priority = priority
        self.compare(task_id)

    @precondition(lambda self: self.posted)
    @rule(session=sessions, number=picks, content=contents)
    def edit(self, session: str, number: int, content: str) -> None:
        bus, task_id = self.step(session), self.pick(number)
        expected = self.model.operate_says(task_id, "edit")
        error, task = self.said(lambda: bus.retry(task_id, body=content))
        assert error == expected
        if not error:
            old, death = self.model.items[task_id], (f"retry of {task_id}", str(self.model.items[task_id].attempt))
            # It starts anew, with the priority it was posted with.
            posted_with = old.essence[3]
            assert isinstance(posted_with, int)
            new = Item(
                task.id, old.channel, (), old.requires, posted_with, old.own_attempts, old.own_backoff, death
            )  # fmt: skip
            new.essence = (*old.essence[:1], content, SESSIONS[session][0], *old.essence[3:6], "edited")
            self.model.edit(old, new)
            self.posted.append(task.id)
            self.compare(task.id)
            ending = find.ending(bus, task_id)
            assert ending.task is not None
            assert ending.task.id == task.id
        self.compare(task_id)

    # --- time, and everything that must not matter -----------------------------------------------

    @rule(seconds=st.sampled_from([1, 10, 20, 61, 120, 3600, 86_400, 3 * 86_400]))
    def time_passes(self, seconds: int) -> None:
        self.source.advance(seconds)
        self.model.now = self.source.now()

    @rule(session=sessions)
    def sweeping(self, session: str) -> None:
        bus = self.step(session)
        swept(bus)
        self.model.sweep()
        assert swept(bus) == []

    @rule(session=sessions)
    def opened_again(self, session: str) -> None:
        self.stores[session].close()
        self.open(session)

    @rule()
    def derived_files_vanish(self) -> None:
        self.medium.manifest = (b"", 0)

    @invariant()
    def every_task_is_in_exactly_one_place(self) -> None:
        store = self.stores["3"]
        slots = [slot for channel in RULES for state in State for slot in store.scan(channel, state)]
        assert sorted(slot.id for slot in slots) == sorted(self.model.items)
        assert sorted(self.posted) == sorted([*self.model.items, *self.model.pruned])
        for slot in slots:
            self.same(self.model.items[slot.id], slot)
        counts = Counter(item.state for item in self.model.items.values())
        assert Counter({s: n for c in RULES for s, n in store.count(c).items()}).keys() == set(State)
        total = {state: sum(store.count(channel)[state] for channel in RULES) for state in State}
        assert total == {state: counts[state] for state in State}

    @invariant()
    def results_never_change(self) -> None:
        for task_id, content in self.results.items():
            try:
                task = self.buses["1"].get(task_id)
            except Gone:
                assert task_id in self.model.pruned
                continue
            assert task.result is not None
            assert task.result.content == content


class AgreementOnDisk(Agreement):
    """The same over files."""

    def prepare(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="bus-"))
        layout.create(self.home / "bus", source=self.source)

    def make_store(self) -> Store:
        return FileStore(self.home / "bus", source=self.source, durable=False)

    def derived_files(self) -> list[Path]:
        return [self.home / "bus" / "manifest.json", *(self.home / "bus" / "journal").glob("*")]

    @rule()
    def derived_files_vanish(self) -> None:
        for path in self.derived_files():
            path.unlink(missing_ok=True)

    def teardown(self) -> None:
        try:
            super().teardown()
            assert list((self.home / "bus" / "quarantine").iterdir()) == []
            assert list((self.home / "bus" / "tmp").iterdir()) == []
        finally:
            shutil.rmtree(self.home, ignore_errors=True)


def hard(examples: int) -> settings:
    """Try as hard as the profile says, and as long as the store is worth."""
    base = settings()
    many = base.max_examples > settings.get_profile("ci").max_examples
    return settings(base, max_examples=base.max_examples if many else examples, stateful_step_count=40)


@pytest.mark.timeout(3600)
def test_a_bus_in_memory_does_what_the_rules_say() -> None:
    run_state_machine_as_test(Agreement, settings=hard(150))


@pytest.mark.timeout(3600)
def test_a_bus_on_a_disk_does_what_the_rules_say() -> None:
    if not is_disk(Path(tempfile.gettempdir())):
        pytest.skip(f"{tempfile.gettempdir()} is memory; set TMPDIR to a directory on a disk")
    run_state_machine_as_test(AgreementOnDisk, settings=hard(60))
