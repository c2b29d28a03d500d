"""The rules every store keeps, as a suite that any store runs.

Subclass `StoreContract` in a test module, name it `Test…`, and say how to open the medium:

    class TestMyStore(StoreContract):
        @pytest.fixture(autouse=True)
        def _medium(self, tmp_path):
            self.opener = lambda: MyStore(tmp_path)

`opener` is called again for a second store on the same medium, as another process would.  It is
plain asserts; pytest shows more of a failure after `pytest.register_assert_rewrite(…)` of this module.
"""
# ruff: noqa: S107, D101, D102, D103, ANN401  the names of a suite are its sentences, and `token` is no password

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from mcp_bus import lifecycle
from mcp_bus.errors import Conflict, Gone, NotFound
from mcp_bus.model import Attempt, Body, Lease, Outcome, Policy, Result, Sender, Slot, State, day_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_bus.errors import BusError
    from mcp_bus.stores.base import Store

# Later than any real clock, so that nothing written by the suite looks young to a sweep.
NOW = 4_000_000_000_000
ANN = Sender("ann", 7, "here")


def body(number: int, channel: str = "work", **fields: Any) -> Body:
    """Return a body; a greater number is a greater id."""
    made = Body(f"req_{NOW + number:012x}{number:020x}", channel, f"do {number}", ANN, NOW)
    return made._replace(**fields)


def lease(token: str = "00ff00ff00ff", holder: str = "ann~1") -> Lease:
    return Lease(holder, token, NOW + 60_000)


def result(slot: Slot, content: str = "done") -> Result:
    token = slot.lease.token if slot.lease else ""
    return Result(slot.id, content, ANN, NOW, slot.attempt, token=token)


def line(slot: Slot, outcome: Outcome, note: str = "why") -> Attempt:
    return Attempt(slot.attempt, outcome, NOW, "ann", note)


def refused(kind: type[BusError], call: Callable[[], object]) -> BusError:
    """Return the error of that kind which a call raises; anything else is a failure."""
    try:
        outcome = call()
    except kind as error:
        return error
    msg = f"it should have raised {kind.__name__} and returned {outcome!r}"
    raise AssertionError(msg)


class Opened:
    """Opens stores on one medium, and closes them after each test."""

    opener: Callable[[], Store]
    _stores: list[Store] | None = None

    def store(self) -> Store:
        """Open one more store on the medium; the channel `work` is there."""
        made = self.opener()
        self._stores = [*(self._stores or []), made]
        made.declare("work")
        return made

    def teardown_method(self) -> None:
        """Close what was opened."""
        for made in self._stores or []:
            made.close()

    def posted(self, store: Store, number: int = 1, **fields: Any) -> Slot:
        """Add a task, and return the slot it is in."""
        return lifecycle.first(store.add(body(number, **fields)))

    def leased(self, store: Store, number: int = 1, token: str = "00ff00ff00ff", **fields: Any) -> Slot:
        """Add a task and claim it."""
        ready = self.posted(store, number, **fields)
        taken = lifecycle.claim(ready, lease(token))
        store.swap(ready, taken)
        return taken


class AddContract(Opened):
    def test_what_was_added_is_what_everyone_gets(self) -> None:
        one, two = self.store(), self.store()
        made = body(1, title="t", requires=("gpu", "python"), priority=3, max_attempts=2, deadline=NOW + 9)
        assert one.add(made) == made
        for store in (one, two):
            found = store.get(made.id)
            assert found is not None
            assert (found.body, found.slot, found.result, found.history) == (made, lifecycle.first(made), None, ())

    def test_a_task_for_later_starts_as_scheduled(self) -> None:
        store = self.store()
        made = store.add(body(1, not_before=NOW + 5000))
        assert [slot.not_before for slot in store.scan("work", State.SCHEDULED)] == [NOW + 5000]
        assert list(store.scan("work", State.READY)) == []
        assert store.ids() == [made.id]

    def test_the_same_id_twice_is_one_task_and_the_first_body_stays(self) -> None:
        one, two = self.store(), self.store()
        first = one.add(body(1))
        assert two.add(first._replace(content="something else")) == first
        found = two.get(first.id)
        assert found is not None
        assert found.body == first
        assert one.count("work")[State.READY] == 1

    def test_the_same_key_twice_is_one_task_and_the_first_id_counts(self) -> None:
        one, two = self.store(), self.store()
        first = one.add(body(1, key="a" * 64))
        assert two.add(body(2, key="a" * 64, content="other")) == first
        assert two.get(body(2).id) is None
        assert two.ids() == [first.id]
        assert two.add(body(3, key="b" * 64)).id == body(3).id

    def test_the_same_key_is_one_task_also_after_it_was_claimed(self) -> None:
        store = self.store()
        taken = self.leased(store, 1, key="a" * 64)
        assert store.add(body(2, key="a" * 64)).id == taken.id
        assert {state: n for state, n in store.count("work").items() if n} == {State.LEASED: 1}

    def test_a_channel_that_was_not_declared_takes_nothing(self) -> None:
        store = self.store()
        refused(NotFound, lambda: store.add(body(1, "elsewhere")))
        assert store.get(body(1).id) is None
        assert (store.ids(), store.channels()) == ([], ["work"])


class GetContract(Opened):
    def test_an_unknown_id_is_none(self) -> None:
        assert self.store().get(body(1).id) is None
        assert self.store().get("req_deadbeef") is None

    def test_at_its_slot_a_body_is_read_and_elsewhere_it_is_a_conflict(self) -> None:
        one, two = self.store(), self.store()
        ready = self.posted(one)
        found = two.get(ready.id, at=ready)
        assert found is not None
        assert (found.body, found.slot) == (body(1), ready)
        one.swap(ready, lifecycle.claim(ready, lease()))
        refused(Conflict, lambda: two.get(ready.id, at=ready))

    def test_a_result_and_the_history_come_with_the_task(self) -> None:
        one, two = self.store(), self.store()
        taken = self.leased(one)
        back = taken._replace(state=State.READY, lease=None)
        one.swap(taken, back, line(taken, Outcome.FAILED, "it burns"))
        again = lifecycle.claim(back, lease("aaaa"))
        one.swap(back, again)
        said = result(again, "päng\u2028")
        one.swap(again, lifecycle.ack(again, now=NOW), said)
        found = two.get(taken.id)
        assert found is not None
        assert (found.state, found.result) == (State.DONE, said)
        assert [(entry.outcome, entry.note) for entry in found.history] == [(Outcome.FAILED, "it burns")]


class ScanContract(Opened):
    def test_ready_tasks_come_by_priority_and_then_by_age(self) -> None:
        store = self.store()
        for number, priority in ((1, 0), (2, 5), (3, -5), (4, 5), (5, 9)):
            self.posted(store, number, priority=priority)
        assert [slot.id for slot in store.scan("work", State.READY)] == [body(n).id for n in (5, 2, 4, 1, 3)]

    def test_scheduled_tasks_come_by_when_they_are_due_however_long_the_number(self) -> None:
        store = self.store()
        for number, due in ((1, NOW), (2, 999), (3, NOW * 10), (4, 1000)):
            self.posted(store, number, not_before=due)
        assert [slot.not_before for slot in store.scan("work", State.SCHEDULED)] == [999, 1000, NOW, NOW * 10]

    def test_ended_tasks_come_by_id(self) -> None:
        store = self.store()
        for number in (3, 1, 2):
            ready = self.posted(store, number)
            store.swap(ready, lifecycle.cancel(ready, now=NOW), line(ready, Outcome.CANCELLED))
        assert [slot.id for slot in store.scan("work", State.CANCELLED)] == [body(n).id for n in (1, 2, 3)]

    def test_a_page_starts_after_an_id_and_ends_at_a_limit(self) -> None:
        store = self.store()
        for number in range(5):
            self.posted(store, number)
        found = [slot.id for slot in store.scan("work", State.READY, after=body(1).id, limit=2)]
        assert found == [body(2).id, body(3).id]
        assert len(list(store.scan("work", State.READY, limit=0))) == 5

    def test_each_task_is_listed_under_its_own_state_and_channel_only(self) -> None:
        store = self.store()
        store.declare("play")
        taken = self.leased(store, 1)
        ready = self.posted(store, 2, channel="play")
        listed = {(c, s): list(store.scan(c, s)) for c in ("work", "play") for s in State}
        assert {key: slots for key, slots in listed.items() if slots} == {
            ("work", State.LEASED): [taken],
            ("play", State.READY): [ready],
        }

    def test_a_channel_nobody_declared_is_empty(self) -> None:
        assert list(self.store().scan("nowhere", State.READY)) == []


class SwapContract(Opened):
    def test_of_two_who_claim_one_wins_and_the_other_changes_nothing(self) -> None:
        one, two = self.store(), self.store()
        ready = self.posted(one)
        mine, theirs = lifecycle.claim(ready, lease("aaaa")), lifecycle.claim(ready, lease("bbbb"))
        one.swap(ready, mine)
        refused(Conflict, lambda: two.swap(ready, theirs))
        assert list(two.scan("work", State.LEASED)) == [mine]
        assert list(two.scan("work", State.READY)) == []

    def test_a_lease_that_was_renewed_is_another_slot(self) -> None:
        one, two = self.store(), self.store()
        taken = self.leased(one)
        one.swap(taken, longer := lifecycle.renew(taken, expires=NOW + 120_000))
        lapsed = taken._replace(state=State.READY, lease=None)
        refused(Conflict, lambda: two.swap(taken, lapsed, line(taken, Outcome.LAPSED)))
        assert list(two.scan("work", State.LEASED)) == [longer]
        found = two.get(taken.id)
        assert found is not None
        assert found.history == ()

    def test_a_slot_may_be_swapped_for_itself(self) -> None:
        store = self.store()
        taken = self.leased(store)
        store.swap(taken, taken)
        assert list(store.scan("work", State.LEASED)) == [taken]

    def test_a_late_result_is_not_published(self) -> None:
        one, two = self.store(), self.store()
        taken = self.leased(one)
        back = taken._replace(state=State.READY, lease=None)
        one.swap(taken, back, line(taken, Outcome.LAPSED))
        refused(Conflict, lambda: two.swap(taken, lifecycle.ack(taken, now=NOW), result(taken)))
        found = two.get(taken.id)
        assert found is not None
        assert (found.slot, found.result) == (back, None)

    def test_the_first_result_is_final(self) -> None:
        one, two = self.store(), self.store()
        taken = self.leased(one)
        ended = lifecycle.ack(taken, now=NOW)
        one.swap(taken, ended, result(taken, "first"))
        refused(Conflict, lambda: two.swap(taken, ended, result(taken, "second")))
        found = two.get(taken.id)
        assert found is not None
        assert found.result == result(taken, "first")
        assert (found.state, len(list(two.scan("work", State.DONE)))) == (State.DONE, 1)

    def test_every_place_a_task_can_be_in_is_kept_whole(self) -> None:
        store, two = self.store(), self.store()
        taken = self.leased(store, 1, priority=-3, deadline=NOW + 77)
        dead = taken._replace(state=State.DEAD, lease=None, budget=4, releases=2)
        store.swap(taken, dead, line(taken, Outcome.FAILED))
        gone = lifecycle.discard(dead, now=NOW)
        store.swap(dead, gone, line(dead, Outcome.DISCARDED))
        assert list(two.scan("work", State.CANCELLED)) == [gone]
        store.swap(gone, lifecycle.undo(gone, body(1), Policy()), line(gone, Outcome.UNDONE))
        assert list(two.scan("work", State.DEAD)) == [dead]
        ready = lifecycle.retry(dead, body(1), Policy())
        store.swap(dead, ready, line(dead, Outcome.RETRIED))
        urgent = lifecycle.reprioritise(ready, 9)
        store.swap(ready, urgent)
        found = two.get(dead.id)
        assert found is not None
        assert (found.slot, found.slot.budget, found.slot.priority) == (urgent, 4, 9)
        assert sorted(entry.outcome for entry in found.history) == ["discarded", "failed", "retried", "undone"]

    def test_the_counts_say_where_each_task_is(self) -> None:
        store = self.store()
        self.posted(store, 1)
        self.posted(store, 2, not_before=NOW + 5)
        taken = self.leased(store, 3)
        store.swap(taken, lifecycle.ack(taken, now=NOW), result(taken))
        dying = self.leased(store, 4)
        store.swap(dying, lifecycle.block(dying), line(dying, Outcome.BLOCKED))
        counts = store.count("work")
        assert set(counts) == set(State)
        assert {state: n for state, n in counts.items() if n} == dict.fromkeys(
            (State.READY, State.SCHEDULED, State.DONE, State.DEAD), 1
        )


class ChangesContract(Opened):
    def test_what_moves_in_a_channel_is_told_to_others(self) -> None:
        one, two = self.store(), self.store()
        before = two.changes(["work"])
        ready = self.posted(one)
        between = two.changes(["work"])
        one.swap(ready, lifecycle.claim(ready, lease()))
        assert len({before, between, two.changes(["work"])}) == 3

    def test_while_nothing_moves_nothing_is_told(self) -> None:
        self.posted(store := self.store())
        assert store.changes(["work"]) == store.changes(["work"])

    def test_folders_to_watch_are_there(self) -> None:
        assert all(path.is_dir() for path in self.store().paths(["work"]))


class ChannelContract(Opened):
    def test_a_declared_channel_has_the_default_policy(self) -> None:
        store = self.store()
        assert (store.channels(), store.policy("work")) == (["work"], Policy())

    def test_a_policy_is_kept_and_seen_by_others(self) -> None:
        rules = Policy(max_attempts=7, backoff_s=0.5, lease_s=9, ttl_s=60, retention_days=1, description="für alle")
        self.store().declare("strict", rules)
        assert self.store().policy("strict") == rules

    def test_declaring_again_without_a_policy_keeps_the_one_there_is(self) -> None:
        one, two = self.store(), self.store()
        one.declare("strict", Policy(max_attempts=7))
        two.declare("strict")
        assert two.policy("strict").max_attempts == 7
        two.declare("strict", Policy(max_attempts=8))
        assert two.policy("strict").max_attempts == 8

    def test_an_unknown_channel_has_no_policy(self) -> None:
        refused(NotFound, lambda: self.store().policy("nowhere"))
        assert self.store().channels() == ["work"]

    def test_channels_are_sorted_and_count_nothing_at_first(self) -> None:
        store = self.store()
        for name in ("b", "a.1", "z-9"):
            store.declare(name)
        assert store.channels() == ["a.1", "b", "work", "z-9"]
        assert store.count("b") == dict.fromkeys(State, 0)


class ForgetContract(Opened):
    def _ended(self, store: Store, **fields: Any) -> Slot:
        taken = self.leased(store, 1, **fields)
        ended = lifecycle.ack(taken, now=NOW)
        store.swap(taken, ended, result(taken))
        return ended

    def test_a_forgotten_task_is_gone_and_not_unknown(self) -> None:
        one, two = self.store(), self.store()
        ended = self._ended(one)
        one.swap(ended, None)
        for store in (one, two, self.store()):
            said = refused(Gone, partial(store.get, ended.id))
            assert f"done on {day_of(NOW)}" in str(said)
            assert store.ids() == []
            assert not any(store.count("work").values())

    def test_forgetting_twice_changes_nothing(self) -> None:
        one, two = self.store(), self.store()
        ended = self._ended(one)
        one.swap(ended, None)
        refused(Conflict, lambda: two.swap(ended, None))
        refused(Gone, lambda: two.get(ended.id))

    def test_a_task_that_came_back_meanwhile_is_not_forgotten(self) -> None:
        one, two = self.store(), self.store()
        ready = self.posted(one)
        gone = lifecycle.cancel(ready, now=NOW)
        one.swap(ready, gone, line(ready, Outcome.CANCELLED))
        one.swap(gone, lifecycle.undo(gone, body(1), Policy()), line(gone, Outcome.UNDONE))
        refused(Conflict, lambda: two.swap(gone, None))
        found = two.get(ready.id)
        assert found is not None
        assert found.slot == ready
        assert two.ids() == [ready.id]

    def test_a_forgotten_key_may_be_used_again(self) -> None:
        store = self.store()
        store.swap(self._ended(store, key="a" * 64), None)
        assert store.add(body(2, key="a" * 64)).id == body(2).id

    def test_others_stay(self) -> None:
        store = self.store()
        kept = self.posted(store, 2)
        store.swap(self._ended(store), None)
        assert (store.ids(), list(store.scan("work", State.READY))) == ([kept.id], [kept])

    def test_mending_a_sound_medium_does_nothing(self) -> None:
        store = self.store()
        ready, taken = self.posted(store, 2), self.leased(store, 3)
        store.mend(NOW)
        assert store.mend(NOW) == []
        assert list(store.scan("work", State.READY)) + list(store.scan("work", State.LEASED)) == [ready, taken]


class StoreContract(
    AddContract, GetContract, ScanContract, SwapContract, ChangesContract, ChannelContract, ForgetContract
):
    """All of it."""
