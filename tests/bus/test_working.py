"""What a worker gets, in which order, and what its token opens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mcp_bus import InvalidRequest, LeaseLost, NotFound, Ticket, lifecycle, open_bus
from mcp_bus.model import Lease, Outcome, State, Task
from tests.fakes import swept

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mcp_bus import Bus
    from mcp_bus.model import Slot
    from tests.fakes import VirtualSource


def take(bus: Bus, source: VirtualSource, *channels: str, **options: object) -> Task:
    source.refresh()
    task = bus.claim(channels, **options)  # type: ignore[arg-type]  # options of claim
    assert task is not None
    return task


def contents(bus: Bus, source: VirtualSource, *channels: str) -> list[str]:
    """Claim everything, and return it in the order it came."""
    source.refresh()
    found: list[str] = []
    while (task := bus.claim(channels)) is not None:
        found.append(task.body.content)
    return found


def test_higher_priority_first_then_the_older(bus: Bus, source: VirtualSource) -> None:
    for content, priority in (("c", 0), ("a", 9), ("d", 0), ("e", -1), ("b", 9)):
        bus.post("work", content, priority=priority)
    assert contents(bus, source) == ["a", "b", "c", "d", "e"]


def test_a_busy_channel_does_not_starve_a_quiet_one(bus: Bus, source: VirtualSource) -> None:
    for n in range(5):
        bus.post("busy", f"busy {n}")
    bus.post("quiet", "quiet")
    for n in range(5, 9):
        bus.post("busy", f"busy {n}")
    found = contents(bus, source, "quiet", "busy")
    assert found.index("quiet") == 5
    assert len(found) == 10


def test_only_the_channels_that_were_named_are_looked_at(bus: Bus, source: VirtualSource) -> None:
    bus.post("work", "a")
    bus.post("play", "b")
    source.refresh()
    assert bus.claim(["nowhere"]) is None
    assert take(bus, source, "play").body.content == "b"
    assert bus.claim("work") is not None  # One name is as good as a list of one.
    with pytest.raises(InvalidRequest):
        bus.claim(["../x"])


def test_a_task_for_later_comes_when_it_is_due_in_due_order(bus: Bus, source: VirtualSource) -> None:
    for content, delay_s in (("c", 30), ("a", 10), ("b", 20)):
        bus.post("work", content, delay_s=delay_s)
    assert contents(bus, source) == []
    for expected in ("a", "b", "c"):
        source.advance(9.999)
        assert swept(bus) == []
        source.advance(0.001)
        swept(bus)
        assert contents(bus, source) == [expected]


def test_a_worker_gets_only_what_it_can_do(bus: Bus, source: VirtualSource) -> None:
    bus.post("work", "hard", requires=["GPU", "python"], priority=9)
    bus.post("work", "easy")
    assert take(bus, source, capabilities=["python"]).body.content == "easy"
    source.refresh()
    assert bus.claim(capabilities=["gpu"]) is None
    assert bus.claim(capabilities=[]) is None
    assert take(bus, source, capabilities=["Python", "gpu", "x"]).body.content == "hard"


def test_what_the_bus_was_opened_with_counts_unless_a_claim_says_otherwise(bus: Bus, source: VirtualSource) -> None:
    bus.post("work", "hard", requires=["gpu"])
    bus.capabilities = ("gpu",)
    assert bus.claim(capabilities=[]) is None
    assert take(bus, source).body.content == "hard"


def test_a_task_past_its_ttl_is_not_handed_out(bus: Bus, source: VirtualSource) -> None:
    mortal = bus.post("work", "a", ttl_s=10).id
    source.advance(9.999)
    task = take(bus, source)
    bus.release(task)
    source.advance(0.001)
    source.refresh()
    assert bus.claim() is None
    expired = bus.get(mortal)
    assert (expired.state, expired.history[-1].outcome) == (State.EXPIRED, Outcome.EXPIRED)


def test_a_task_that_comes_back_late_expires_then(bus: Bus, source: VirtualSource) -> None:
    mortal = bus.post("work", "a", ttl_s=10).id
    task = take(bus, source, lease_s=60)
    source.advance(30)
    assert swept(bus) == []
    assert bus.get(mortal).state is State.LEASED
    bus.nack(task, "no")
    swept(bus)
    assert bus.get(mortal).state is State.EXPIRED


def test_clean_hand_backs_cost_nothing_until_the_cap(bus: Bus, source: VirtualSource) -> None:
    bus.create_channel("work", max_releases=2, max_attempts=2)
    posted = bus.post("work", "a").id
    states = []
    for _ in range(4):
        released = bus.release(take(bus, source))
        states.append((released.state, released.slot.attempt, released.slot.releases))
    assert states == [(State.READY, 0, 1), (State.READY, 0, 2), (State.READY, 1, 2), (State.DEAD, 2, 2)]
    assert bus.get(posted).state is State.DEAD


def test_everything_a_session_holds_can_be_given_back_at_once(bus: Bus, other: Bus, source: VirtualSource) -> None:
    for n in range(3):
        bus.post("work", str(n))
    held = [take(bus, source, "work") for _ in range(3)]
    assert [task.id for task in bus.held()] == [task.id for task in held]
    other.cancel(held[1].id)
    assert bus.release_all("going home") == 2
    assert bus.held() == []
    assert bus.store.count("work")[State.READY] == 2
    assert {bus.get(task.id).slot.attempt for task in (held[0], held[2])} == {0}


def test_a_renewal_is_never_shorter_and_says_when_the_lease_ends(bus: Bus, source: VirtualSource) -> None:
    bus.post("work", "a")
    task = take(bus, source, lease_s=100)
    assert task.lease.expires == source.now() + 100_000
    assert bus.renew(task, lease_s=10).lease.expires == source.now() + 100_000
    assert bus.renew(task, lease_s=200).lease.expires == source.now() + 200_000
    source.advance(150)
    assert swept(bus) == []
    with pytest.raises(InvalidRequest):
        bus.renew(task, lease_s=0.5)


LATE: dict[str, Callable[[Bus, Ticket], object]] = {
    "renew": lambda bus, ticket: bus.renew(ticket),
    "ack": lambda bus, ticket: bus.ack(ticket, "late"),
    "nack": lambda bus, ticket: bus.nack(ticket, "late"),
    "release": lambda bus, ticket: bus.release(ticket),
    "block": lambda bus, ticket: bus.block(ticket, "late?"),
}


def lapse(bus: Bus, _: Task, source: VirtualSource) -> None:
    source.advance(301)
    swept(bus)


TAKEN: dict[str, Callable[[Bus, Task, VirtualSource], object]] = {
    "lapsed": lapse,
    "requeued": lambda bus, task, _: bus.requeue(task.id),
    "cancelled": lambda bus, task, _: bus.cancel(task.id),
    "held by another": lambda bus, task, source: [bus.requeue(task.id), take(bus, source)],
    "done by another": lambda bus, task, source: [bus.requeue(task.id), bus.ack(take(bus, source), "theirs")],
}


@pytest.mark.parametrize("taken", TAKEN)
@pytest.mark.parametrize("late", LATE)
@pytest.mark.parametrize("knows", [True, False], ids=["held", "by ticket"])
def test_a_worker_that_lost_its_lease_is_told_and_changes_nothing(
    bus: Bus, other: Bus, source: VirtualSource, late: str, taken: str, *, knows: bool
) -> None:
    bus.post("work", "a", max_attempts=5)
    task = take(bus, source)
    TAKEN[taken](other, task, source)
    before = other.get(task.id)
    if not knows:
        bus._held.clear()
    with pytest.raises(LeaseLost) as refusal:
        LATE[late](bus, task.ticket)
    assert task.id in str(refusal.value)
    assert refusal.value.hint
    assert other.get(task.id) == before
    assert bus.held() == []


def test_a_late_result_of_who_still_knew_the_lease_is_kept_once(disk: Path) -> None:
    place = disk / "bus"
    with (
        open_bus(place, agent="ann", session="1", durability="none") as ann,
        open_bus(place, agent="bob", session="2", durability="none") as bob,
    ):
        ann.post("work", "x")
        task = ann.claim()
        assert task is not None
        bob.requeue(task.id)
        assert bob.claim() is not None
        with pytest.raises(LeaseLost):
            ann.ack(task, "late")
        (kept,) = (place / "rejected").iterdir()
        assert ".a1.ann~1." in kept.name, "of the attempt it was made in"


def test_a_late_result_is_kept_for_a_person(file_bus: Bus, source: VirtualSource) -> None:
    file_bus.post("work", "a")
    task = take(file_bus, source)
    file_bus.cancel(task.id)
    with pytest.raises(LeaseLost, match="cancelled"):
        file_bus.ack(task, "hours of work")
    [kept] = (file_bus.store.paths(["work"])[0].parent / "rejected").iterdir()
    assert "hours of work" in kept.read_text()
    assert file_bus.get(task.id).result is None


def test_who_repeats_itself_gets_its_own_result_back(bus: Bus, other: Bus, source: VirtualSource) -> None:
    bus.post("work", "a")
    task = take(bus, source)
    first = bus.ack(task, "done")
    for again in (bus, other):
        assert again.ack(task.ticket, "something else") == first
    assert bus.get(task.id).result == first
    with pytest.raises(LeaseLost):
        bus.ack(Ticket(task.id, "00000000"), "mine")


@pytest.mark.parametrize("token", ["", "x", "../../x", "A" * 12, "0" * 33])
def test_what_is_no_token_is_refused_before_anything_is_read(bus: Bus, source: VirtualSource, token: str) -> None:
    bus.post("work", "a")
    task = take(bus, source)
    for verb in LATE.values():
        with pytest.raises(InvalidRequest):
            verb(bus, Ticket(task.id, token))
    assert bus.get(task.id).slot == task.slot


def test_a_result_over_the_limit_is_refused_and_the_lease_stays(bus: Bus, source: VirtualSource) -> None:
    bus.post("work", "a")
    task = take(bus, source)
    for wrong in ("x" * 262_145, "\ud800", {1}, float("nan")):
        with pytest.raises(InvalidRequest):
            bus.ack(task, wrong)
    assert bus.get(task.id).slot == task.slot
    assert bus.ack(task, "x" * 262_144).content == "x" * 262_144


def test_a_ticket_for_a_task_that_never_was_is_not_found(bus: Bus) -> None:
    for verb in LATE.values():
        with pytest.raises(NotFound):
            verb(bus, Ticket("req_" + "0" * 32, "0" * 12))
    assert bus.store.ids() == []


@pytest.mark.parametrize("chance", ["0003", "0007", "000b", "0011"])
def test_after_lost_races_nothing_that_waits_is_overlooked(
    bus: Bus, other: Bus, source: VirtualSource, monkeypatch: pytest.MonkeyPatch, chance: str
) -> None:
    """A claimer steps over entries after lost races; it comes back to them before it says there is nothing."""
    for n in range(6):
        bus.post("work", str(n))
    source.refresh()
    stolen: list[str] = []
    get = bus.store.get

    def steal_first(task_id: str, at: Slot | None = None) -> Task | None:
        if at is not None and len(stolen) < 5:
            stolen.append(task_id)
            other.store.swap(at, lifecycle.claim(at, Lease("bob~2", f"{len(stolen):012x}", source.now() + 1000)))
        return get(task_id, at)

    monkeypatch.setattr(bus.store, "get", steal_first)
    monkeypatch.setattr(source, "token", lambda size: chance if size == 2 else "ab" * size)
    task = bus.claim(["work"])
    assert len(stolen) == 5
    assert task is not None
    assert task.id not in stolen
